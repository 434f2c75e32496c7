"""The file of settings: only what is on the list, no secret in it, nothing sent by default."""

from pathlib import Path

import pytest

from pellucid.core.errors import BadOption, UnknownName
from pellucid.pacs.settings import Dimse, Login, Pace, Web, identity, read_settings

GOOD = """
ae_title = "PELLUCID"
sending = true

[archives.main]
kind = "dimse"
host = "127.0.0.1"
port = 4242
ae = "ORTHANC"
pace = {attempts = 2}

[archives.web]
kind = "web"
url = "https://pacs.example/dicom-web"
login = {user_variable = "PACS_USER", password_variable = "PACS_PASSWORD"}

[limits]
object_mib = 64
"""


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "pellucid.pacs.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_good_file(tmp_path: Path) -> None:
    found = read_settings(write(tmp_path, GOOD))
    assert found.sending
    assert found.archive("main") == Dimse("dimse", "127.0.0.1", 4242, "ORTHANC", pace=Pace(attempts=2))
    login = Login(user_variable="PACS_USER", password_variable="PACS_PASSWORD")
    assert found.archive("web") == Web("web", "https://pacs.example/dicom-web", login)
    assert found.limits.object_mib == 64
    with pytest.raises(UnknownName, match="archives there: main, web"):
        found.archive("elsewhere")


def test_nothing_is_sent_by_default(tmp_path: Path) -> None:
    found = read_settings(write(tmp_path, ""))
    assert not found.sending
    assert not found.archives
    assert found.ae_title == "PELLUCID"


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (('port = 4242', 'port = 70000'), "archives.main.port"),
        (('host = "127.0.0.1"', ""), "archives.main.host"),
        (('kind = "dimse"', 'kind = "ftp"'), "archives.main"),
        (('ae = "ORTHANC"', 'ae = "SEVENTEEN LETTERS"'), "1 to 16"),
        (('ae = "ORTHANC"', 'ae = "ORTHANC"\npassword = "hunter2"'), "archives.main.password"),
        (("https://pacs", "https://anna:hunter2@pacs"), "holds a user or a password"),
        (("https://pacs", "http://pacs"), "unencrypted"),
        (('user_variable = "PACS_USER", ', ""), "name one way"),
        (('"PACS_PASSWORD"', '"hunter2 is it"'), "not hold a secret"),
        (("[archives.web]", "[archives.20200101]"), "small letters"),
        (("object_mib = 64", "object_mib = 0"), "limits.object_mib"),
        (("sending = true", "sending = yes"), "not TOML"),
        (("sending = true", 'sending = "yes"'), "sending"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_and_no_secret_quoted(tmp_path: Path, change: tuple[str, str], word: str) -> None:
    assert change[0] in GOOD
    with pytest.raises(BadOption) as caught:
        read_settings(write(tmp_path, GOOD.replace(*change)))
    assert word in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(BadOption, match="there is no file"):
        read_settings(tmp_path / "absent.toml")


def test_another_address_is_another_archive() -> None:
    first = Dimse("dimse", "127.0.0.1", 4242, "A")
    assert identity(first) == identity(Dimse("dimse", "127.0.0.1", 4242, "A", pace=Pace(attempts=1)))
    assert identity(first) != identity(Dimse("dimse", "127.0.0.2", 4242, "A"))
    assert identity(Web("web", "https://a.example")) != identity(Web("web", "https://b.example"))
