"""Spoiled input: hostile files in little memory, and series that other loaders read wrongly in silence."""

import importlib
import subprocess
import sys
import warnings
import zipfile
from pathlib import Path
from types import ModuleType

import numpy as np
import pydicom
import pytest
from pydicom.data import get_testdata_file

from pellucid.core.errors import UnreadableImage
from pellucid.io.reader import read_cases, read_image
from pellucid.io.selection import Choosing

pytestmark = pytest.mark.integration

TESTS = Path(__file__).resolve().parents[1]


def test_refusals_fit_into_half_a_gigabyte(tmp_path: Path) -> None:
    """Each hostile file in a process that may take 512 MB more than it has when it begins."""
    one = Path(str(get_testdata_file("CT_small.dcm", download=False)))
    big = pydicom.dcmread(one)
    big.Rows = big.Columns = 65535
    big.save_as(tmp_path / "big", enforce_file_format=True)
    frames = pydicom.dcmread(one)
    frames.NumberOfFrames = 2**31 - 1
    frames.save_as(tmp_path / "frames", enforce_file_format=True)
    with zipfile.ZipFile(tmp_path / "bomb", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x", b"\0" * 2**27)
    whole = one.read_bytes()
    nest = b"\x08\0\x40\x11SQ\0\0\xff\xff\xff\xff\xfe\xff\0\xe0\xff\xff\xff\xff" * 50_000
    (tmp_path / "nest").write_bytes(whole[: whole.index(b"\x08\0\x08\0")] + nest)
    code = """
import resource, sys
from pathlib import Path
from pellucid.core.errors import InputError
from pellucid.io.reader import read_image
pages = int(Path("/proc/self/statm").read_text().split()[0])
most = pages * resource.getpagesize() + 2**29
resource.setrlimit(resource.RLIMIT_AS, (most, most))
resource.setrlimit(resource.RLIMIT_CPU, (60, 60))
for path in sys.argv[1:]:
    try:
        read_image(path)
    except InputError:
        continue
    raise SystemExit(f"{path} was read")
"""
    paths = [str(tmp_path / name) for name in ("big", "frames", "bomb", "nest")]
    done = subprocess.run([sys.executable, "-c", code, *paths], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def table() -> ModuleType:
    """The phantoms of the loader table."""
    sys.path.insert(0, str(TESTS.parent))
    try:
        return importlib.import_module("tests.io.test_loader_table")
    finally:
        sys.path.remove(str(TESTS.parent))


def itk(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Values and places (LPS mm) of every voxel as SimpleITK reads a series."""
    import SimpleITK as sitk

    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder)))
    image = reader.Execute()
    values = sitk.GetArrayFromImage(image)
    index = np.argwhere(np.ones(values.shape, bool))[:, ::-1]
    steps = np.asarray(image.GetDirection()).reshape(3, 3) * np.asarray(image.GetSpacing())
    return values, index @ steps.T + np.asarray(image.GetOrigin())


def monai(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """The same as MONAI reads it through pydicom; its places are RAS."""
    from monai.data.image_reader import PydicomReader

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        reader = PydicomReader()
        values, meta = reader.get_data(reader.read(str(folder)))
    index = np.argwhere(np.ones(values.shape, bool))
    places = index @ np.asarray(meta["affine"])[:3, :3].T + np.asarray(meta["affine"])[:3, 3]
    return np.asarray(values), places * (-1, -1, 1)


def test_where_others_are_wrong_in_silence_we_refuse_or_are_right(table: ModuleType, tmp_path: Path) -> None:
    phantom, shear = importlib.import_module("tests.io.conftest").Phantom, np.tan(np.radians(15))
    made, center = table.ball(phantom)
    leaning, there = table.ball(phantom, None, shear)
    cases = {
        "plain": (made.datasets(), center),
        "tilt 15 deg": (leaning.datasets(positions=table.sheared(leaning, shear)), there),
        "slice missing": ([d for k, d in enumerate(made.datasets()) if k != 11], center),
        "MONOCHROME1": (made.datasets(photometric="MONOCHROME1"), center),
    }
    told: dict[tuple[str, str], float] = {}
    for name, (datasets, truth) in cases.items():
        folder = tmp_path / name.replace(" ", "-")
        folder.mkdir()
        for k in np.random.default_rng(3).permutation(len(datasets)):
            datasets[k].save_as(folder / f"{k:02}.dcm", enforce_file_format=True)
        for loader, read in (("SimpleITK", itk), ("MONAI PydicomReader", monai)):
            told[name, loader] = float(np.linalg.norm(table.centroid(*read(folder)) - truth))
        try:
            told[name, "Pellucid"] = float(np.linalg.norm(table.located(read_image(folder)) - truth))
        except UnreadableImage:
            told[name, "Pellucid"] = float("nan")
        (case,) = read_cases(folder, choosing=Choosing(resample=True)).cases
        told[name, "Pellucid, resampled"] = float(np.linalg.norm(table.located(case.images["image"]) - truth))
    for (name, loader), off in told.items():
        print(f"{name:14} {loader:20} {'refused' if np.isnan(off) else f'{off:.2f} mm'}")  # noqa: T201
    assert told["plain", "SimpleITK"] < 0.1
    assert told["tilt 15 deg", "SimpleITK"] > 5  # and says nothing
    assert all(not off > 0.5 for (_, loader), off in told.items() if loader.startswith("Pellucid"))
    assert np.isnan(told["tilt 15 deg", "Pellucid"])
    assert np.isnan(told["slice missing", "Pellucid"])
