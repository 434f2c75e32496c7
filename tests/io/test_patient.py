"""Who the patient is, for the one page that asks."""

from collections.abc import Callable
from pathlib import Path

import pytest

from pellucid.core.errors import BadOption
from pellucid.io.patient import patient_rows


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
