"""Who the patient is, for the one page that asks."""

from collections.abc import Callable
from pathlib import Path

import pytest

from pellucid.core.errors import BadOption
from pellucid.io.dicomfacts import burned_in_words
from pellucid.io.patient import patient_rows
from pellucid.io.reader import read_image


def test_the_header_names_the_patient(phantom: type, write: Callable[..., Path], tmp_path: Path) -> None:
    data = phantom().datasets()[0]
    data.PatientName, data.PatientBirthDate = "ZEBRA^CANARYNAME^Q=ideographic", "19700203"
    data.save_as(tmp_path / "one", enforce_file_format=True)
    assert patient_rows((tmp_path / "one",)) == (
        ("Patient", "ZEBRA, CANARYNAME Q"),
        ("Patient ID", "CANARYID7"),
        ("Born", "1970-02-03"),
        ("Study", "2020-01-01"),
    )


def test_without_a_name_there_is_nothing_to_show(phantom: type, tmp_path: Path) -> None:
    data = phantom().datasets()[0]
    data.PatientName = data.PatientID = ""
    data.save_as(tmp_path / "one", enforce_file_format=True)
    with pytest.raises(BadOption, match="de-identified"):
        patient_rows((tmp_path / "one",))
    (tmp_path / "text").write_text("no image")
    for files in ((), (tmp_path / "text",)):
        with pytest.raises(BadOption, match="DICOM"):
            patient_rows(files)


@pytest.mark.parametrize(
    ("modality", "said", "words"),
    [("CT", None, ""), ("CT", "YES", "burned into"), ("US", None, "common"), ("US", "NO", ""), ("ES", "YES", "burned")],
)
def test_pixels_that_may_name_the_patient_are_warned_about(
    modality: str, said: str | None, words: str, phantom: type, tmp_path: Path
) -> None:
    data = phantom().datasets(modality=modality)[0]
    if said is not None:
        data.BurnedInAnnotation = said
    data.save_as(tmp_path / "one", enforce_file_format=True)
    told = burned_in_words(read_image(tmp_path / "one").traits)
    assert words in told
    assert bool(told) == bool(words)


def test_a_picture_of_a_screen_is_warned_about(packaged: Callable[[str], Path]) -> None:
    assert "common" in burned_in_words(read_image(packaged("SC_rgb.dcm")).traits)
    assert burned_in_words({"format": "PNG"}) == ""
