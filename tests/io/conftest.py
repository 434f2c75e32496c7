"""Synthetic DICOM series whose truth is a formula, and the packaged files that stand for real ones."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset
from pydicom.data import get_testdata_file
from pydicom.dataset import FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

NAME, IDENTITY = "CANARYNAME^ZEBRA", "CANARYID7"


@pytest.fixture(scope="session")
def packaged() -> Callable[[str], Path]:
    """A test file that comes with pydicom or pydicom-data; nothing is downloaded."""

    def find(name: str) -> Path:
        path = get_testdata_file(name, download=False)
        assert path is not None, f"{name} is in neither pydicom nor pydicom-data"
        return Path(path)

    return find


class Phantom:
    """A CT-like stack with one bright voxel, whose place in the patient is known without any reader."""

    def __init__(
        self,
        shape: tuple[int, int, int] = (6, 16, 20),
        steps: tuple[float, float, float] = (2.5, 0.8, 0.6),
        turn: np.ndarray | None = None,
        origin: Sequence[float] = (-50.0, -70.0, 30.0),
        bright: tuple[int, int, int] = (4, 3, 15),
    ) -> None:
        turned = np.eye(3) if turn is None else turn
        self.along_row, self.along_column = turned[:, 0], turned[:, 1]  # growing column, growing row
        self.normal = np.cross(self.along_row, self.along_column)
        self.steps, self.origin, self.bright = steps, np.asarray(origin, float), bright
        rng = np.random.default_rng(7)
        self.hu = rng.integers(-1000, 1000, shape).astype(np.int32)
        self.hu[bright] = 3000

    def position(self, slice_number: int) -> np.ndarray:
        return self.origin + slice_number * self.steps[0] * self.normal

    def place(self, index: Sequence[float]) -> np.ndarray:
        """Where a voxel (slice, row, column) lies, from PS3.3 C.7.6.2.1.1."""
        k, i, j = index
        return self.position(k) + i * self.steps[1] * self.along_column + j * self.steps[2] * self.along_row

    def datasets(
        self,
        slopes: Sequence[float] | None = None,
        photometric: str = "MONOCHROME2",
        modality: str = "CT",
        positions: Sequence[np.ndarray] | None = None,
    ) -> list[Dataset]:
        series, frame = generate_uid(), generate_uid()
        found = []
        for k, values in enumerate(self.hu):
            slope = 1.0 if slopes is None else slopes[k]
            data = _base(modality, photometric, series, frame)
            data.InstanceNumber = k + 1
            place = self.position(k) if positions is None else positions[k]
            data.ImagePositionPatient = [float(f"{v:.6f}") for v in place]
            data.ImageOrientationPatient = [float(f"{v:.10f}") for v in (*self.along_row, *self.along_column)]
            data.PixelSpacing = [self.steps[1], self.steps[2]]
            data.SliceThickness = self.steps[0]
            data.RescaleSlope, data.RescaleIntercept = slope, -1024.0
            stored = np.round((values + 1024) / slope).astype(np.uint16)
            data.Rows, data.Columns = stored.shape
            data.PixelData = stored.tobytes()
            found.append(data)
        return found


def _base(modality: str, photometric: str, series: str, frame: str) -> Dataset:
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID = CTImageStorage
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID = generate_uid()
    data.StudyInstanceUID, data.SeriesInstanceUID, data.FrameOfReferenceUID = series, series, frame
    data.PatientName, data.PatientID, data.PatientAge = NAME, IDENTITY, "058Y"
    data.PatientBirthDate = data.PatientSex = data.AccessionNumber = data.StudyID = ""
    data.StudyDate, data.StudyTime, data.Manufacturer = "20200101", "120000", "ACME"
    data.ReferringPhysicianName, data.PositionReferenceIndicator = NAME, ""
    data.SeriesNumber, data.Modality, data.ImageType = 1, modality, ["ORIGINAL", "PRIMARY", "AXIAL"]
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, photometric
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 16, 15, 0
    data.WindowCenter, data.WindowWidth = 40, 400
    return data


@pytest.fixture
def phantom() -> type[Phantom]:
    return Phantom


@pytest.fixture
def canary() -> tuple[str, ...]:
    """Parts of the name and number of the patient that no output may hold."""
    return ("CANARYNAME", "ZEBRA", IDENTITY)


@pytest.fixture
def write() -> Callable[[Path, Sequence[Dataset]], Path]:
    """Write data sets under names that say nothing of their order."""

    def write_all(folder: Path, datasets: Sequence[Dataset]) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        order = np.random.default_rng(3).permutation(len(datasets))
        for number, k in enumerate(order):
            datasets[k].save_as(folder / f"image{number}", enforce_file_format=True)
        return folder

    return write_all
