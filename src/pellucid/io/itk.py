"""NRRD and MetaImage through SimpleITK, read in a process of its own."""

from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pellucid.core.errors import BadOption, UnreadableImage
from pellucid.core.grid import Calibration, Grid, as_affine
from pellucid.core.image import Image, Modality
from pellucid.io import guard
from pellucid.io.child import START_SECONDS, VALUES_PER_SECOND, ask
from pellucid.io.formats import Format
from pellucid.io.guard import check_values, reading
from pellucid.io.itkheader import Header, read_header

_AGAIN = "copy or export it again"


def read_itk(path: Path, kind: Format, modality: Modality | None = None, index: int | None = None) -> Image:
    """A NRRD (.nrrd, or .nhdr with its data beside it) or MetaImage (.mha, .mhd) file; affine to LPS.

    Tensor axes are (slice, row, column), as those of a DICOM series. Color and vectors become channels; of a list
    or a time axis one entry is chosen. Where the header states no directions in the patient, lengths are kept, as
    ``calibrated``, and the axes get no letters. Of a NRRD, units of length other than mm are converted.

    Args:
        path: of the file.
        kind: as ``image_format`` found it.
        modality: what made the image; neither format says.
        index: which entry of the axis that is not of space, from 0.

    Raises:
        UnreadableImage: damaged, cut short, too large, complex, or data outside the folder.
        BadOption: several entries and no index, or an index that does not exist.
        MissingExtra: SimpleITK is not installed.
        NonFinite: NaN or infinity among the voxels.
    """
    with reading(f"a complete {kind} file", _AGAIN):
        header = read_header(path)
        said, values = _ask(path, kind, header, index)
        data = _values(said, values, header, index)
        data, matrix = _flat(data, _matrix(said, header.mm))
        placed = header.placed and len(said["size"]) > 2  # a 2-D file has no position along the third direction
        grid = _grid(data.shape[1:], matrix, placed, header.spaced)
    color = header.color and said["type"].endswith("8-bit unsigned integer")
    return Image(
        torch.from_numpy(np.ascontiguousarray(data) / np.float32(255 if color else 1)),
        grid,
        modality or Modality.UNKNOWN,
        "[0,1]" if color else "a.u.",
        traits={"format": str(kind), "lossy": "no"},
    )


def _ask(path: Path, kind: Format, header: Header, index: int | None) -> tuple[dict[str, Any], bytes]:
    most = guard.MAX_VALUES
    request = {"path": str(path.resolve()), "reader": header.reader, "index": index, "most": most}
    # the values are bounded by the child itself, so the clock is that of the largest image allowed
    blocks = ask("itkchild.py", request, START_SECONDS + most / VALUES_PER_SECOND / 8, "SimpleITK formats")
    if not blocks:
        raise UnreadableImage(f"expected a complete {kind} file, got damaged or incomplete data", _AGAIN)
    said = blocks[0].header
    size, components = said["size"], int(said["components"])
    if len(size) not in (2, 3, 4):
        raise UnreadableImage(
            f"expected a {kind} image of 2 or 3 axes, got {len(size)}", "save the one volume that is to be explained"
        )
    check_values((*size, components), f"a {kind} image")
    if "complex" in said["type"]:
        raise UnreadableImage(f"expected a {kind} image of real numbers, got complex ones", "save the magnitude")
    return said, blocks[0].payload


def _values(said: dict[str, Any], content: bytes, header: Header, index: int | None) -> NDArray[np.float32]:
    """The chosen entry, as "channel *space" with the slowest axis first."""
    size, components = said["size"], int(said["components"])
    if components > 1 and len(size) == 4 and size[3] > 1:
        raise UnreadableImage(
            f"expected one axis beside those of space, got {components} components and {size[3]} volumes",
            "save the one volume that is to be explained",
        )
    volumes = size[3] if len(size) == 4 else 1
    listed = components if header.series and components > 1 else 1
    chosen = _chosen(max(volumes, listed), header.series or "fourth", index)
    if len(content) != 4 * prod(size[:3]) * components:
        raise UnreadableImage("expected as many values as the header declares, got fewer", _AGAIN)
    shape = (*reversed(size[:3]), components)
    data = np.moveaxis(np.frombuffer(content, "<f4").reshape(shape), -1, 0)
    if listed > 1:
        return data[chosen : chosen + 1]
    return _opaque(data) if header.color else data


def _opaque(data: NDArray[np.float32]) -> NDArray[np.float32]:
    if len(data) == 4:
        raise UnreadableImage("expected color without transparency, got four components", "flatten it to RGB")
    return data


def _chosen(count: int, axis: str, index: int | None) -> int:
    if index is None and count > 1:
        raise BadOption(
            f"expected one volume, got {count} along the {axis} axis", f"choose one: index 0 to {count - 1}"
        )
    if not 0 <= (index or 0) < count:
        raise BadOption(f"expected an index from 0 to {count - 1}, got {index}", "choose an entry that exists")
    return index or 0


def _matrix(said: dict[str, Any], mm: float) -> NDArray[np.float64]:
    """Index in tensor order (slowest first) to LPS: ITK's axes run the other way, and its world is LPS already."""
    rank = len(said["size"])
    direction = np.asarray(said["direction"], float).reshape(rank, rank)
    space = min(rank, 3)
    steps = direction[:space, :space] * np.asarray(said["spacing"], float)[:space] * mm
    matrix = np.eye(4)
    matrix[:space, :space] = steps[:, ::-1]
    matrix[:space, 3] = np.asarray(said["origin"], float)[:space] * mm
    return matrix


def _flat(data: NDArray[np.float32], matrix: NDArray[np.float64]) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """One slice of a volume as rows and columns, with its normal as third direction."""
    if data.ndim != 4 or data.shape[1] > 1:
        return data, matrix
    normal = matrix[:, 0] / np.linalg.norm(matrix[:3, 0])
    return data[:, 0], np.column_stack([matrix[:, 1], matrix[:, 2], normal, matrix[:, 3]])


def _grid(shape: tuple[int, ...], matrix: NDArray[np.float64], placed: bool, spaced: bool) -> Grid:
    if placed:
        return Grid(shape, as_affine(matrix), Calibration.PATIENT)
    if not spaced:
        return Grid.regular(shape)
    steps = [float(v) for v in np.linalg.norm(matrix[:3, : len(shape)], axis=0)]
    return Grid.regular(shape, steps, Calibration.CALIBRATED)
