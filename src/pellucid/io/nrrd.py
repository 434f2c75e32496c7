"""NRRD out: the format that 3D Slicer writes itself, in LPS as the project thinks."""

import gzip
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from pellucid.core.atomic import write_bytes
from pellucid.core.errors import BadOption
from pellucid.core.grid import Calibration, Grid
from pellucid.io.nifti import map_on

_LEVEL = 6


def write_nrrd(values: Tensor | NDArray[Any], grid: Grid, path: Path, content: str = "") -> Path:
    """Write a volume as float32 NRRD on its grid, so that it lies on the image in 3D Slicer and ITK.

    The axes stay in the order of the tensor, fastest last; NRRD counts them from the fastest. Outside patient space
    the file has lengths and no directions: a viewer must not put letters where nobody knows them.

    Args:
        values: "*space" of the grid.
        grid: of the source image.
        path: ending in ``.nrrd``.
        content: what it is, in one line of ASCII; never about the patient.

    Raises:
        ShapeMismatch: values and grid disagree.
        BadOption: another ending.
        UnwritableOutput: the folder cannot be written.
    """
    array = map_on(values, grid)
    if path.suffix != ".nrrd":
        raise BadOption("expected a file name that ends in .nrrd, got another", "rename the output")
    lines = [
        "NRRD0004",
        "# see http://teem.sourceforge.net/nrrd/format.html",
        f"content: {_line(content)}",
        "type: float",
        f"dimension: {grid.rank}",
        f"sizes: {' '.join(str(n) for n in grid.shape[::-1])}",
        "endian: little",
        "encoding: gzip",
        *_space(grid),
    ]
    head = "\n".join(line for line in lines if not line.endswith(": ")) + "\n\n"
    # a fixed time in the gzip header: equal maps are equal files
    packed = gzip.compress(np.ascontiguousarray(array, "<f4").tobytes(), _LEVEL, mtime=0)
    return write_bytes(path, head.encode("ascii") + packed)


def _space(grid: Grid) -> list[str]:
    kinds = f"kinds: {' '.join(['domain'] * grid.rank)}"
    if grid.calibration is not Calibration.PATIENT:
        return [f"spacings: {' '.join(_number(s) for s in grid.spacing[::-1])}", kinds]
    directions = [_vector(grid.matrix[:3, axis]) for axis in reversed(range(grid.rank))]
    return [
        "space: left-posterior-superior",
        f"space directions: {' '.join(directions)}",
        kinds,
        f"space origin: {_vector(grid.matrix[:3, 3])}",
        'space units: "mm" "mm" "mm"',
    ]


def _vector(values: NDArray[np.float64]) -> str:
    return f"({','.join(_number(float(v)) for v in values)})"


def _number(value: float) -> str:
    """As many digits as the number needs to come back exactly; never minus zero."""
    return repr(value + 0.0)


def _line(text: str) -> str:
    return " ".join(text.encode("ascii", "replace").decode().split())
