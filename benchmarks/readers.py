"""Readers of a DICOM series side by side, and series that are not what they look like, with the truth of each slice."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydicom import Dataset, dcmread
from torch import Tensor

from pellucid.core.errors import PellucidError
from pellucid.io.reader import read_image

LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
HALF = 0.5  # of a voxel: further off is the wrong place
SLOPE_HU = 1.0  # wrong value beyond it


@dataclass(frozen=True, eq=False)
class Volume:
    """What a reader gave: values, and the place of each in the patient.

    Args:
        values: in HU, axes in the order of ``matrix``.
        matrix: index along the axes of ``values`` to LPS millimeters.
    """

    values: Tensor
    matrix: NDArray[np.float64]


def by_pellucid(folder: Path) -> Volume:
    """Ours."""
    image = read_image(folder)
    return Volume(image.data[0], image.grid.matrix)


def by_simpleitk(folder: Path) -> Volume:
    """As SimpleITK's own example reads a series."""
    import SimpleITK

    reader = SimpleITK.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    image = reader.Execute()
    matrix = np.eye(4)
    matrix[:3, :3] = (np.array(image.GetDirection()).reshape(3, 3) * np.array(image.GetSpacing()))[:, ::-1]
    matrix[:3, 3] = image.GetOrigin()
    return Volume(torch.from_numpy(SimpleITK.GetArrayFromImage(image).astype(np.float32)), matrix)


def by_monai_itk(folder: Path) -> Volume:
    """MONAI's default for DICOM."""
    from monai.data import ITKReader

    return _monai(ITKReader(), folder)


def by_monai_pydicom(folder: Path) -> Volume:
    """MONAI's reader without ITK."""
    from monai.data import PydicomReader

    return _monai(PydicomReader(), folder)


def _monai(reader: Any, folder: Path) -> Volume:
    values, told = reader.get_data(reader.read(str(folder)))
    return Volume(torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32)), LPS @ np.asarray(told["affine"]))


def readers() -> Mapping[str, Callable[[Path], Volume]]:
    """Those whose packages are here."""
    found = {"pellucid": by_pellucid, "SimpleITK": by_simpleitk, "MONAI PydicomReader": by_monai_pydicom}
    return found | ({"MONAI ITKReader": by_monai_itk} if find_spec("itk") is not None else {})


def verdict(read: Callable[[Path], Volume], folder: Path) -> dict[str, Any]:
    """How far a reader is from what each slice says of itself, or how it refused."""
    try:
        got = read(folder)
    except PellucidError as refusal:
        return {"refused": refusal.problem}
    except Exception as error:  # a peer may raise anything
        return {"refused": type(error).__name__}
    millimeters, value = errors(got, [dcmread(path) for path in sorted(folder.iterdir())])
    step = float(np.linalg.norm(got.matrix[:3, :3], axis=0).min())
    right = millimeters <= HALF * step and value <= SLOPE_HU
    return {"right": right, "largest_mm": round(millimeters, 3), "largest_value": round(value, 2)}


def errors(got: Volume, slices: Sequence[Dataset]) -> tuple[float, float]:
    """Largest distance of a voxel from where its slice puts it, and largest difference of a value there (HU)."""
    inverse = np.linalg.inv(got.matrix)
    far = worst = 0.0
    for data in slices:
        place = np.asarray(data.ImagePositionPatient, float)
        along_row, along_column = np.asarray(data.ImageOrientationPatient, float).reshape(2, 3)
        down, right = (float(v) for v in data.PixelSpacing)
        pixels = data.pixel_array * float(data.RescaleSlope) + float(data.RescaleIntercept)
        rows, columns = np.meshgrid(*(np.arange(0, n, max(1, n // 8)) for n in pixels.shape), indexing="ij")
        truth = place + rows[..., None] * down * along_column + columns[..., None] * right * along_row
        index = truth @ inverse[:3, :3].T + inverse[:3, 3]
        nearest = np.rint(index).astype(int)
        limit = np.array(got.values.shape) - 1
        inside = ((nearest >= 0) & (nearest <= limit)).all(-1)
        nearest = nearest.clip(0, limit)
        back = nearest @ got.matrix[:3, :3].T + got.matrix[:3, 3]
        far = max(far, float(np.linalg.norm(back - truth, axis=-1).max()))
        read = got.values.numpy()[tuple(np.moveaxis(nearest, -1, 0))]
        worst = max(worst, float(np.abs(read - pixels[rows, columns])[inside].max(initial=0.0)))
    return far, worst


def spoiled(source: Path, folder: Path) -> dict[str, Path]:
    """A real series as it is under other names, and five ways in which it is not a plain stack."""
    made = {}
    for name, change in _CHANGES.items():
        kept = folder / name.replace(" ", "-")
        kept.mkdir()
        slices = sorted((dcmread(p) for p in source.iterdir()), key=lambda d: float(d.ImagePositionPatient[2]))
        for number, data in enumerate(slices):
            if change(data, number, len(slices)):
                data.save_as(kept / f"{(number * 7) % len(slices):03d}.dcm")
        made[name] = kept
    return made


def _plain(_data: Dataset, _number: int, _count: int) -> bool:
    return True


def _tilted(data: Dataset, number: int, _count: int) -> bool:
    """A gantry 15 degrees off: each slice shifted along its columns, the orientation kept."""
    x, y, z = (float(v) for v in data.ImagePositionPatient)
    thick = float(data.get("SpacingBetweenSlices") or data.SliceThickness)
    data.ImagePositionPatient = [x, round(y + number * thick * np.tan(np.radians(15)), 4), z]
    return True


def _gapped(_data: Dataset, number: int, count: int) -> bool:
    return number != count // 2


def _inverted(data: Dataset, _number: int, _count: int) -> bool:
    """The photometric interpretation says how to show the values, and not what they are (PS3.3 C.7.6.3.1.2)."""
    data.PhotometricInterpretation = "MONOCHROME1"
    return True


def _sloped(data: Dataset, number: int, _count: int) -> bool:
    data.RescaleSlope = 1 + number % 3
    return True


def _oblique(data: Dataset, _number: int, _count: int) -> bool:
    """Turned about the left-right axis by 20 degrees, positions with it."""
    cosine, sine = np.cos(np.radians(20)), np.sin(np.radians(20))
    turn = np.array([[1, 0, 0], [0, cosine, -sine], [0, sine, cosine]])
    row, column = np.asarray(data.ImageOrientationPatient, float).reshape(2, 3) @ turn.T
    data.ImageOrientationPatient = [float(f"{v:.10f}") for v in (*row, *column)]
    data.ImagePositionPatient = [float(f"{v:.6f}") for v in turn @ np.asarray(data.ImagePositionPatient, float)]
    return True


_CHANGES: Mapping[str, Callable[[Dataset, int, int], bool]] = {
    "shuffled names": _plain,
    "oblique": _oblique,
    "slope of each slice": _sloped,
    "tilted gantry": _tilted,
    "missing slice": _gapped,
    "MONOCHROME1 in HU": _inverted,
}
