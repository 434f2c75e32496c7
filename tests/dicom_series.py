"""Open NIfTI volumes as proper MR or PET series in DICOM, for tests that need a modality of which no series is open."""

from pathlib import Path

import nibabel as nib
import numpy as np
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, PositronEmissionTomographyImageStorage, generate_uid

PATIENT_NAME, PATIENT_ID = "CANARYNAME^ZEBRA", "CANARYID7"
_FLIP = np.diag([-1.0, -1.0, 1.0, 1.0])  # RAS to LPS
_TOP = 2**15 - 1
_CLASSES = {"MR": MRImageStorage, "PT": PositronEmissionTomographyImageStorage}


def write_series(
    nifti: Path, folder: Path, modality: str = "MR", body_part: str = "", limit: int | None = None
) -> Path:
    """Write a 3-D NIfTI volume as one series under names that say nothing of the order.

    MR values are rounded to integers; PET values are taken as SUV (Units GML), with a slope of its own in each slice.

    Args:
        nifti: of the volume, with an affine.
        folder: made; the series fills it.
        modality: ``MR`` or ``PT``.
        body_part: such as ``BRAIN``; empty: the series does not say.
        limit: number of slices about the middle to write; None: all.
    """
    image = nib.load(nifti)
    values, affine = np.asarray(image.dataobj, np.float64), _FLIP @ image.affine
    count = values.shape[2]
    first = 0 if limit is None or limit >= count else (count - limit) // 2
    slices = range(first, count if limit is None else min(count, first + limit))
    common = _common(modality, body_part, affine, len(slices))
    folder.mkdir(parents=True, exist_ok=True)
    order = np.random.default_rng(5).permutation(len(slices))
    for number, k in enumerate(slices):
        data = _slice(common, values[:, :, k].T, affine, k)
        data.InstanceNumber = number + 1
        if modality == "PT":
            data.ImageIndex = number + 1
        data.save_as(folder / f"im{order[number]}", enforce_file_format=True)
    return folder


def _common(modality: str, body_part: str, affine: np.ndarray, count: int) -> Dataset:
    data = Dataset()
    data.SOPClassUID, data.Modality = _CLASSES[modality], modality
    data.StudyInstanceUID, data.SeriesInstanceUID, data.FrameOfReferenceUID = (generate_uid() for _ in range(3))
    data.PatientName, data.PatientID, data.PatientBirthDate, data.PatientSex = PATIENT_NAME, PATIENT_ID, "19700101", "O"
    data.PatientWeight, data.PatientAge = 70.0, "050Y"
    data.AccessionNumber = data.ReferringPhysicianName = data.PositionReferenceIndicator = ""
    data.StudyID = "1"
    for name in ("Study", "Series", "Acquisition", "Content"):
        setattr(data, f"{name}Date", "20200102")
        setattr(data, f"{name}Time", "101112")
    data.SeriesNumber, data.Manufacturer = 1, "ACME"
    data.ImageType = ["ORIGINAL", "PRIMARY"]
    if body_part:
        data.BodyPartExamined = body_part
    else:
        data.Laterality = ""
    steps = np.linalg.norm(affine[:3, :3], axis=0)
    directions = affine[:3, :3] / steps
    data.ImageOrientationPatient = [float(f"{v:.10f}") for v in (*directions[:, 0], *directions[:, 1])]
    data.PixelSpacing = [float(f"{v:.8g}") for v in (steps[1], steps[0])]
    data.SliceThickness = float(f"{steps[2]:.8g}")
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.BitsAllocated, data.BitsStored, data.HighBit = 16, 16, 15
    _add_mr(data) if modality == "MR" else _add_pet(data, count)
    return data


def _add_mr(data: Dataset) -> None:
    data.ImageType = ["ORIGINAL", "PRIMARY", "OTHER"]
    data.PatientPosition = "HFS"
    data.ScanningSequence, data.SequenceVariant, data.ScanOptions = "GR", "SP", ""
    data.MRAcquisitionType, data.EchoTime, data.RepetitionTime = "3D", 3.4, 9.0
    data.EchoTrainLength, data.MagneticFieldStrength = 1, 3.0


def _add_pet(data: Dataset, count: int) -> None:
    data.Units, data.SUVType, data.CountsSource, data.DecayCorrection = "GML", "BW", "EMISSION", "START"
    data.SeriesType, data.NumberOfSlices, data.CollimatorType = ["WHOLE BODY", "IMAGE"], count, "NONE"
    data.CorrectedImage = ["DECY", "ATTN"]
    data.FrameReferenceTime, data.ActualFrameDuration, data.DecayFactor = 0.0, 180000, 1.0
    data.RadiopharmaceuticalInformationSequence = []
    data.PatientOrientationCodeSequence, data.PatientGantryRelationshipCodeSequence = [], []


def _slice(common: Dataset, values: np.ndarray, affine: np.ndarray, k: int) -> Dataset:
    data = Dataset()
    data.update(common)
    data.SOPInstanceUID = generate_uid()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.file_meta.MediaStorageSOPClassUID, data.file_meta.MediaStorageSOPInstanceUID = (
        data.SOPClassUID,
        data.SOPInstanceUID,
    )
    data.ImagePositionPatient = [float(f"{v:.8g}") for v in (affine @ [0, 0, k, 1])[:3]]
    slope = max(float(np.abs(values).max()), 1e-6) / _TOP if data.Modality == "PT" else 1.0
    if data.Modality == "PT":
        slope = float(f"{slope:.10g}")
        data.RescaleSlope, data.RescaleIntercept = slope, 0.0
    data.PixelRepresentation = int(values.min() < 0)
    stored = np.rint(values / slope).astype(np.int16 if values.min() < 0 else np.uint16)
    data.Rows, data.Columns = stored.shape
    data.PixelData = stored.tobytes()
    return data
