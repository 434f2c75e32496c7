"""Label maps (lobes, organs, an atlas) with the names of their labels, from any image the package reads."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from pellucid.core.errors import BadOption, BadRegion
from pellucid.core.grid import Grid
from pellucid.core.image import Image
from pellucid.core.space import resample
from pellucid.io.guard import reading
from pellucid.io.masks import check_same_world, is_flat_copy
from pellucid.io.reader import read_image

_MOST_LABELS, _LARGEST = 512, 65535
_LINE = re.compile(r"\s*(\d+)\s*[,;:\t ]\s*(.*\S)\s*")
_COLORS = re.compile(r"([,;\t ]+\d+(\.\d+)?){3,}[,;\t ]*$")  # red, green, blue (and more) behind a name


@dataclass(frozen=True, eq=False)
class LabelMap:
    """Whole numbers on a grid, and what they are called.

    Args:
        image: one channel of whole numbers; 0 is outside every region.
        names: by label; labels without one are called by their number.
    """

    image: Image
    names: Mapping[int, str]

    def on(self, grid: Grid) -> tuple[NDArray[np.uint16], tuple[str, ...]]:
        """The labels at the voxels of an image, and what a reader must know of how they came there.

        Raises:
            BadRegion: another shape or world, or no label where the image lies.
        """
        values, notes = self.image.data, ()
        if not (self.image.grid.same_geometry(grid) or is_flat_copy(self.image, grid)):
            check_same_world(self.image.grid, grid, "label map")
            values = resample(values[None], self.image.grid, grid, mode="nearest")[0]
            notes = (f"the label map was resampled (nearest) onto the image's {_size(grid)} voxels",)
        if not bool(values.any()):
            raise BadRegion(
                "expected a label map that reaches the image, got no label where the image lies",
                "check that it belongs to this image, or leave --atlas out",
            )
        return values[0].numpy().astype(np.uint16), notes


def read_labelmap(path: Path, names: Path | None = None) -> LabelMap:
    """A label map with its names.

    Args:
        path: NIfTI, DICOM, PNG or TIFF of whole numbers; a picture's gray levels are its labels, and in one of black
            and white alone white is label 1.
        names: text with one label a line: number, then name (CSV, and the tables of FreeSurfer and ITK-SNAP).

    Raises:
        BadRegion: no whole numbers, too many, or only one; or names of which none fits.
        PellucidError: the file cannot be read.
    """
    image = read_image(path)
    values = _whole(image)
    found = np.flatnonzero(np.bincount(values.ravel()))
    if len(found) < 2:
        raise BadRegion(
            f"expected a label map of at least two labels (0 is outside), got {int(found[0])} in every voxel",
            "give the map of lobes or organs; a map of one label says nothing of where",
        )
    if len(found) > _MOST_LABELS:
        raise BadRegion(
            f"expected a label map of at most {_MOST_LABELS} labels, got {len(found)}: this looks like an image",
            "give the label map, not the image it was made from",
        )
    labels = [int(v) for v in found if v]
    known = read_names(names) if names is not None else {}
    if names is not None and not set(labels) & set(known):
        raise BadRegion(
            f"expected names of the labels {_listed(labels)}, got names of {_listed(sorted(known))}",
            "give the table of names that belongs to this label map",
        )
    plain = torch.from_numpy(values.astype(np.float32))[None]
    said = [known.get(label, f"label {label}") for label in labels]
    kept = {n: f"{name} (label {n})" if said.count(name) > 1 else name for n, name in zip(labels, said, strict=True)}
    return LabelMap(Image(plain, image.grid, unit="label", traits=image.traits), kept)


def read_names(path: Path) -> dict[int, str]:
    """Names by label from a text file; a heading and lines that begin with # are skipped.

    Raises:
        BadOption: a line that is no number with a name, or a label that is named twice.
        UnreadableImage: no text.
    """
    if not path.is_file():
        raise BadOption("expected a file of names behind the label map, got a path where there is none", "check it")
    with reading("a text file of labels and names", "save it as UTF-8, one 'number,name' a line"):
        lines = path.read_text("utf-8-sig").splitlines()
    names: dict[int, str] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        match = _LINE.fullmatch(line)
        if match is None and not names:
            continue  # the heading of a table
        name = _name(match[2]) if match else ""
        if match is None or not name:
            raise BadOption(f"line {number} of the names is no 'number,name'", "write for example 3,right lower lobe")
        if names.get(int(match[1]), name) != name:
            raise BadOption(f"label {match[1]} is named twice, the second time in line {number}", "keep one of them")
        names[int(match[1])] = name
    if not names:
        raise BadOption("the file of names holds no 'number,name'", "write for example 3,right lower lobe")
    return names


def parse_atlas(text: str) -> LabelMap:
    """Read ``LABELMAP`` or ``LABELMAP:NAMES`` as the command takes it.

    Raises:
        PellucidError: of the label map or its names.
    """
    parts = text.split(":")
    for count in range(len(parts), 0, -1):  # a path may hold colons of its own: the longest that is there
        first, second = ":".join(parts[:count]), ":".join(parts[count:])
        if Path(first).exists():
            return read_labelmap(Path(first), Path(second) if second else None)
    return read_labelmap(Path(text))


def _whole(image: Image) -> NDArray[np.int64]:
    data = image.data
    if len(data) > 1 and not bool((data == data[:1]).all()):
        raise BadRegion("expected a label map of one channel, got a colored picture", "save the labels as gray levels")
    if image.traits.get("lossy") == "yes":
        raise BadRegion("expected exact labels, got a file of lossy compression", "save it as PNG or NIfTI")
    values = data[0].numpy()
    if image.unit == "[0,1]" and bool(((values > 0) & (values < 1)).any()):
        deep = np.abs(values * 255 - np.round(values * 255)).max() > 1e-3
        values = values * (65535 if deep else 255)
    whole = np.round(values).astype(np.int64)
    if np.abs(values - whole).max() > 1e-3 or whole.min() < 0 or whole.max() > _LARGEST:
        raise BadRegion(
            f"expected whole numbers from 0 to {_LARGEST} as labels, got {values.min():.6g} to {values.max():.6g}"
            f"{'' if np.abs(values - whole).max() <= 1e-3 else ' with fractions'}",
            "give a label map; resample labels with nearest neighbors only",
        )
    return whole


def _name(text: str) -> str:
    quoted = re.search(r'"([^"]*)"', text)
    plain = quoted[1] if quoted else _COLORS.sub("", text)
    return " ".join(plain.strip(" ,;\t'").split())


def _listed(labels: list[int]) -> str:
    return ", ".join(str(v) for v in labels[:8]) + (", ..." if len(labels) > 8 else "")


def _size(grid: Grid) -> str:
    return " x ".join(str(n) for n in grid.shape)
