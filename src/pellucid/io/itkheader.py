"""The text header of NRRD and MetaImage: what decides how their values are read, before any decoder sees the file."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pellucid.core.errors import UnreadableImage

_MOST = 1 << 16
_PATIENT_SPACES = {
    "right-anterior-superior",
    "left-anterior-superior",
    "left-posterior-superior",
    "ras",
    "las",
    "lps",
}
_MM = {
    "mm": 1.0,
    "millimeter": 1.0,
    "millimeters": 1.0,
    "cm": 10.0,
    "m": 1000.0,
    "um": 0.001,
    "\u00b5m": 0.001,
    "micron": 0.001,
    "microns": 0.001,
}
_SPATIAL = {"domain", "space"}
_SERIES = {"list", "time", "point", "none", "???", "stub", "scalar"}  # one entry is one image
_META_ORIENTED = {"TransformMatrix", "Rotation", "Orientation"}
_META_SPACED = {"ElementSpacing", "ElementSize"}


@dataclass(frozen=True)
class Header:
    """What the text says of an image.

    Args:
        reader: class of SimpleITK that reads it.
        placed: whether it states directions in the patient.
        spaced: whether it states lengths.
        mm: millimeters of one unit of length.
        color: whether its components are red, green and blue.
        series: name of the axis beside those of space, of which one entry is one image; empty: its entries are
            channels.
    """

    reader: str
    placed: bool
    spaced: bool
    mm: float
    color: bool
    series: str


def read_header(path: Path) -> Header:
    """The header of a NRRD or MetaImage file, with detached data only in its own folder.

    Raises:
        UnreadableImage: no end of the header, data elsewhere or in several files, an unknown unit of length, or in a
            MetaImage one that is not mm, or values to be rescaled.
    """
    with path.open("rb") as stream:
        content = stream.read(_MOST)
    return _nrrd(path, content) if content.startswith(b"NRRD") else _meta(path, content)


def _nrrd(path: Path, content: bytes) -> Header:
    text, end, _ = content.replace(b"\r\n", b"\n").partition(b"\n\n")
    fields = {}
    for line in text.decode("latin-1").splitlines()[1:]:
        key, colon, value = line.partition(":")
        if colon and not line.startswith("#") and not value.startswith("="):  # ":=" is a remark of whoever wrote it
            name = key.strip().lower().replace("datafile", "data file")
            fields[name] = value.strip()
            if name == "data file":  # each: a second one might be what a decoder believes
                _check_beside(path, value.strip().removeprefix("./"))
    if "data file" not in fields and not end:
        raise _endless("NRRD")
    space = fields.get("space", "").lower().removesuffix("-time")
    kinds = [k.lower() for k in fields.get("kinds", "").split()]
    other = next((i for i, kind in enumerate(kinds) if kind not in _SPATIAL), None)
    series = ""
    if other is not None and kinds[other] in _SERIES:
        series = _label(fields, other) or ("time" if kinds[other] == "time" else "list")
    directions = "space directions" in fields
    return Header(
        "NrrdImageIO",
        placed=directions and space in _PATIENT_SPACES,
        spaced=directions or "spacings" in fields,
        mm=_unit(fields),
        color=other is not None and kinds[other] in ("rgb-color", "rgba-color", "3-color"),
        series=series,
    )


def _meta(path: Path, content: bytes) -> Header:
    fields: dict[str, str] = {}
    for line in content.split(b"\n"):
        key, separator, value = re.match(r"([^=:]*)([=:]?)(.*)", line.decode("latin-1"), re.DOTALL).groups()
        if not separator:
            break
        fields[key.strip()] = value.strip()
        if key.strip() == "ElementDataFile":
            break
    data = fields.get("ElementDataFile")
    if data is None:
        raise _endless("MetaImage")
    if data.upper() != "LOCAL":
        _check_beside(path, data)
    _check_plain(fields)
    return Header(
        "MetaImageIO",
        placed=not _META_ORIENTED.isdisjoint(fields),
        spaced=not _META_SPACED.isdisjoint(fields),
        mm=1.0,
        color=fields.get("ElementNumberOfChannels") == "3" and fields.get("ElementType") == "MET_UCHAR",
        series="",
    )


def _check_plain(fields: Mapping[str, str]) -> None:
    """What ITK reads past, 3D Slicer with it: another unit of length, and values that are to be rescaled."""
    if fields.get("DistanceUnits", "mm").lower() not in ("mm", "?", ""):
        raise UnreadableImage("expected lengths in mm, the header states another unit", "save it in millimeters")
    rescaled = (("ElementToIntensityFunctionSlope", 1.0), ("ElementToIntensityFunctionOffset", 0.0))
    if any(float(fields.get(key) or plain) != plain for key, plain in rescaled):
        raise UnreadableImage(
            "expected values as they are meant, the header wants them rescaled", "save the rescaled values"
        )


def _label(fields: Mapping[str, str], axis: int) -> str:
    """The writer's name of an axis, where it is a plain word: whoever wrote it might have put a patient there."""
    labels = re.findall(r'"([^"]*)"', fields.get("labels", ""))
    known = {"time", "t", "frame", "echo", "phase", "b-value", "bvalue", "gradient", "channel", "vector"}
    return labels[axis].lower() if axis < len(labels) and labels[axis].lower() in known else ""


def _unit(fields: Mapping[str, str]) -> float:
    stated = {u.strip().lower() for u in re.findall(r'"([^"]*)"', fields.get("space units", ""))} - {""}
    if not stated:
        return 1.0
    if len(stated) > 1 or not stated <= _MM.keys():
        raise UnreadableImage(
            "expected lengths in one unit (mm, um, cm or m), the header states another or several",
            "save it in millimeters",
        )
    return _MM[stated.pop()]


def _check_beside(path: Path, name: str) -> None:
    """Detached data must be one file of the header's own folder: a header may point anywhere."""
    if re.match(r"LIST\b", name) or "%" in name or (len(name.split()) > 1 and not (path.parent / name).is_file()):
        raise UnreadableImage(
            "expected the values in one file, the header names several", "save it as one file (.nrrd or .mha)"
        )
    data = path.parent / name
    inside = Path(name).name == name and "\\" not in name and name not in ("", ".", "..")
    if not inside or data.resolve().parent != path.parent.resolve():
        raise UnreadableImage(
            "expected the values in a file beside the header, the header points elsewhere",
            "put both into one folder, or save it as one file (.nrrd or .mha)",
        )
    if not data.is_file():
        raise UnreadableImage(
            "expected the values in a file beside the header, got none of the name that it gives",
            "copy both files, under their own names",
        )


def _endless(kind: str) -> UnreadableImage:
    return UnreadableImage(
        f"expected a {kind} header that ends within {_MOST} bytes, got one that does not", "export the image again"
    )
