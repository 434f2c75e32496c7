"""NIfTI in and out: the affine between its RAS and the project's LPS, and nothing dropped on the way."""

import gzip
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import nibabel as nib
import numpy as np
import torch
from nibabel.fileholders import FileHolder
from numpy.typing import NDArray
from torch import Tensor

from pellucid.core.atomic import write_bytes
from pellucid.core.errors import BadOption, ShapeMismatch, UnreadableImage
from pellucid.core.grid import Calibration, Grid, as_affine
from pellucid.core.image import Image, Modality
from pellucid.io.guard import check_values, reading

_FLIP = np.diag([-1.0, -1.0, 1.0, 1.0])  # RAS to LPS and back
_MM = {"meter": 1000.0, "mm": 1.0, "micron": 0.001, "unknown": 1.0}
_SECONDS = {"sec": 1.0, "msec": 1e-3, "usec": 1e-6}
_LISTED = 8
_DRAIN_BYTES = 1 << 20
_DESCRIPTION_BYTES = 79


def read_nifti(path: Path, modality: Modality | None = None, index: int | None = None) -> Image:
    """A NIfTI-1 or -2 file, with or without gzip: values after scl_slope, axes as stored, affine to LPS.

    Without an orientation (both codes 0) lengths are kept, as ``calibrated``, and directions are not: the axes get
    no letters. The header's display range becomes the window.

    Args:
        path: of the file.
        modality: what made the image; NIfTI does not say.
        index: which volume of a 4-D file, from 0.

    Raises:
        UnreadableImage: damaged, cut short, colored or complex, or of 5 or more axes.
        BadOption: several volumes and no index, or an index that does not exist.
        NonFinite: NaN or infinity among the voxels.
    """
    with reading("a complete NIfTI file", "copy or export it again"), _stream(path) as stream:
        image = _open(stream)
        shape = tuple(int(n) for n in image.shape)
        check_values(shape, "a NIfTI image")
        axis = _axis(path, image, shape)
        chosen = _volume(shape, index, axis)
        values = _values(image, chosen)
        _check_to_the_end(stream)
    grid = _grid(image, values.shape)
    low, high = (float(image.header[key]) for key in ("cal_min", "cal_max"))
    return Image(
        torch.from_numpy(values)[None],
        grid,
        modality or Modality.UNKNOWN,
        window=(low, high) if high > low else None,
        traits={"format": "NIfTI", "lossy": "no"} | axis.traits(chosen),
    )


def map_on(values: Tensor | NDArray[Any], grid: Grid) -> NDArray[Any]:
    """A map as an array, of the grid's shape.

    Raises:
        ShapeMismatch: values and grid disagree.
    """
    array = values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)
    if tuple(array.shape) != grid.shape:
        raise ShapeMismatch(f"expected a map of shape {grid.shape}, got {tuple(array.shape)}", "pass one item's map")
    return array


def write_nifti(values: Tensor | NDArray[Any], grid: Grid, path: Path, description: str = "") -> Path:
    """Write a map as float32 NIfTI in the affine of its grid, so that it lies on the image in any viewer.

    Outside patient space both orientation codes are 0: a viewer must not put letters where nobody knows them.

    Args:
        values: "*space" of the grid.
        grid: of the source image.
        path: ending in ``.nii`` or ``.nii.gz``.
        description: for the header, cut to 79 ASCII characters; never about the patient.

    Raises:
        ShapeMismatch: values and grid disagree.
        BadOption: another ending.
        UnwritableOutput: the folder cannot be written.
    """
    array = map_on(values, grid)
    if not path.name.endswith((".nii", ".nii.gz")):
        raise BadOption("expected a file name that ends in .nii or .nii.gz, got another", "rename the output")
    array = array.astype(np.float32)
    image = nib.Nifti1Image(array if grid.rank == 3 else array[..., None], None)
    _place(image, grid)
    image.header["descrip"] = description.encode("ascii", "replace")[:_DESCRIPTION_BYTES]
    plain = image.to_bytes()
    # a fixed time in the gzip header: equal maps are equal files
    return write_bytes(path, gzip.compress(plain, 6, mtime=0) if path.suffix == ".gz" else plain)


def _stream(path: Path) -> BinaryIO:
    with path.open("rb") as stream:
        packed = stream.read(2) == b"\x1f\x8b"
    return gzip.open(path, "rb") if packed else path.open("rb")


def _open(stream: BinaryIO) -> nib.Nifti1Image:
    magic = stream.read(348)
    if magic[344:347] == b"ni1" or magic[4:7] == b"ni2":
        raise UnreadableImage(
            "expected a NIfTI image in one file, got one of a .hdr and .img pair", "save it as a single .nii"
        )
    stream.seek(0)
    kind = nib.Nifti2Image if magic[4:7] == b"n+2" else nib.Nifti1Image
    return kind.from_file_map({"header": FileHolder(fileobj=stream), "image": FileHolder(fileobj=stream)})


def _check_to_the_end(stream: BinaryIO) -> None:
    """Read past the data, so that gzip compares its checksum; an endless tail is not followed."""
    stream.read(_DRAIN_BYTES)


@dataclass(frozen=True)
class _Axis:
    """The fourth axis, as far as the file or the one beside it says what it is."""

    name: str = ""
    unit: str = ""
    values: tuple[float, ...] = ()

    @property
    def words(self) -> str:
        if not self.name:
            return "an axis that the file does not name"
        if self.name == "time":
            step = self.values[1] if len(self.values) > 1 else 0.0
            return f"time axis, 0 to {self.values[-1]:g} {self.unit} in steps of {step:g} {self.unit}"
        more = ", ..." if len(self.values) > _LISTED else ""
        return f"{self.name} axis, {', '.join(f'{v:g}' for v in self.values[:_LISTED])}{more} {self.unit}"

    def traits(self, chosen: int | None) -> dict[str, str | float]:
        if not self.name or chosen is None:
            return {}
        return {"axis": self.name, "axis_value": self.values[chosen], "axis_unit": self.unit}


def _axis(path: Path, image: nib.Nifti1Image, shape: tuple[int, ...]) -> _Axis:
    """b-values from the file beside it (as dcm2niix writes them), or time from the header."""
    count = shape[3] if len(shape) > 3 else 1
    beside = path.with_name(path.name.removesuffix(".gz").removesuffix(".nii") + ".bval")
    if count > 1 and beside != path and beside.is_file() and beside.stat().st_size < _DRAIN_BYTES:
        try:
            values = tuple(float(v) for v in beside.read_text(encoding="ascii").split())
        except ValueError:
            values = ()
        if len(values) == count and bool(np.isfinite(values).all()):
            return _Axis("b-value", "s/mm2", values)
    scale = _SECONDS.get(image.header.get_xyzt_units()[1])
    step = float(image.header["pixdim"][4]) * (scale or 0.0)
    if count < 2 or not np.isfinite(step) or step <= 0:
        return _Axis()
    return _Axis("time", "s", tuple(round(n * step, 6) for n in range(count)))


def _volume(shape: tuple[int, ...], index: int | None, axis: _Axis) -> int | None:
    """Which volume of a 4-D file is meant; None where there is only one."""
    if len(shape) < 2 or any(n != 1 for n in shape[4:]):
        raise UnreadableImage(
            f"expected a NIfTI image of 2 or 3 axes, got shape {shape}", "save the one volume that is to be explained"
        )
    count = shape[3] if len(shape) > 3 else 1
    if count == 1:
        if index not in (None, 0):
            raise BadOption(f"the file holds a single volume, got index {index}", "leave the index out")
        return None
    if index is None:
        raise BadOption(
            f"expected one volume, got a 4-D NIfTI of {count} volumes ({axis.words})",
            f"choose one: index 0 to {count - 1}",
        )
    if not 0 <= index < count:
        raise BadOption(f"expected an index from 0 to {count - 1}, got {index}", "choose a volume that exists")
    return index


def _values(image: nib.Nifti1Image, volume: int | None) -> NDArray[np.float32]:
    dtype = image.get_data_dtype()
    if dtype.kind not in "iuf":
        raise UnreadableImage(
            f"expected a NIfTI image of real numbers, got {'color' if dtype.kind == 'V' else 'complex'} voxels",
            "save one channel, or the magnitude",
        )
    proxy = image.dataobj
    values = np.asarray(proxy if volume is None else proxy[..., volume], dtype=np.float32)
    flat = values.reshape(values.shape[:3])
    return np.ascontiguousarray(flat[..., 0] if flat.ndim == 3 and flat.shape[2] == 1 else flat)


def _grid(image: nib.Nifti1Image, shape: tuple[int, ...]) -> Grid:
    header = image.header
    unit = _MM.get(header.get_xyzt_units()[0], 1.0)
    scaled = np.diag([unit, unit, unit, 1.0])
    if int(header["sform_code"]) > 0 or int(header["qform_code"]) > 0:
        return Grid(shape, as_affine(_FLIP @ scaled @ image.affine), Calibration.PATIENT)
    steps = np.asarray(header["pixdim"][1 : 1 + len(shape)], dtype=float) * unit
    known = bool(np.isfinite(steps).all() and (steps > 0).all())
    if not known or (header.get_xyzt_units()[0] == "unknown" and bool((steps == 1).all())):
        return Grid.regular(shape)  # ones without a unit are what a writer leaves who knows no lengths
    return Grid.regular(shape, [float(s) for s in steps], Calibration.CALIBRATED)


def _place(image: nib.Nifti1Image, grid: Grid) -> None:
    affine = _FLIP @ grid.matrix
    known = grid.calibration is Calibration.PATIENT
    image.header.set_zooms((*grid.spacing, *([1.0] * (3 - grid.rank))))
    if known:
        axes = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
        square = np.allclose(axes.T @ axes, np.eye(3), atol=1e-5)
        image.set_sform(affine, code="scanner")
        if square:  # a quaternion cannot hold a shear
            image.set_qform(affine, code="scanner")
    image.header.set_xyzt_units("unknown" if grid.calibration is Calibration.NONE else "mm")
