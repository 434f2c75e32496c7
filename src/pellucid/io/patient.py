"""Who the patient is, read for one purpose only: the page of a local reading room, where somebody asked for it."""

from collections.abc import Sequence
from pathlib import Path

from pydicom.dataset import Dataset

from pellucid.core.errors import BadOption
from pellucid.io.dicomfile import DAMAGED, open_header
from pellucid.io.formats import Format, find_format
from pellucid.io.guard import reading

_SHOWN = (("Patient", "PatientName"), ("Patient ID", "PatientID"), ("Born", "PatientBirthDate"), ("Study", "StudyDate"))
_LONGEST = 120


def patient_rows(files: Sequence[Path]) -> tuple[tuple[str, str], ...]:
    """Name, number and dates of the patient from the header of a DICOM source.

    Nothing else in the project asks for them: they are in no file name, log, error, cache key, JSON or audit record.

    Args:
        files: the image was read from, as ``Case.files`` gives them.

    Raises:
        BadOption: the image did not come from DICOM files, or these name no patient.
        UnreadableImage: the first file is damaged.
    """
    if not files or find_format(files[0]) is not Format.DICOM:
        raise BadOption(
            "expected an image from DICOM files, whose header names the patient, got another",
            "leave out --reading-room",
        )
    with reading(*DAMAGED):
        header = open_header(files[0])
        rows = tuple((title, words) for title, keyword in _SHOWN if (words := _words(header, keyword)))
    if not any(title.startswith("Patient") for title, _ in rows):
        raise BadOption(
            "expected a header that names the patient, this one is de-identified", "leave out --reading-room"
        )
    return rows


def _words(header: Dataset, keyword: str) -> str:
    value = header.get(keyword)
    if value in (None, ""):
        return ""
    text = " ".join(str(value).split())
    if keyword == "PatientName":
        family, _, given = text.partition("=")[0].partition("^")
        text = ", ".join(part for part in (family, " ".join(given.split("^")).strip()) if part)
    elif keyword.endswith("Date") and len(text) == 8 and text.isdigit():
        text = f"{text[:4]}-{text[4:6]}-{text[6:]}"
    return text[:_LONGEST]
