"""Kinds of DICOM images beside CT and MR: mammograms, color by palette, eyes, endoscopes; and no GPL decoder."""

import sys
import tomllib
import warnings
from pathlib import Path

import highdicom as hd
import numpy as np
import pydicom
import pytest
from pydicom import Dataset
from pydicom.pixels import get_decoder
from pydicom.sequence import Sequence
from pydicom.uid import (
    ExplicitVRLittleEndian,
    JPEG2000TransferSyntaxes,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    MRImageStorage,
    PositronEmissionTomographyImageStorage,
    generate_uid,
)

from pellucid.core.errors import UnreadableImage
from pellucid.core.grid import Calibration
from pellucid.core.image import Modality
from pellucid.io.breast import chest_wall
from pellucid.io.dicomfile import decoder_name
from pellucid.io.reader import read_cases, read_image


def coded(value, scheme="SCT"):
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, "view"
    return Sequence([item])


@pytest.fixture
def mammogram(phantom):
    """A left breast: a half disc with its chest wall at the image's left."""
    data = phantom(shape=(1, 16, 20), bright=(0, 3, 15)).datasets()[0]
    for name in ("ImagePositionPatient", "ImageOrientationPatient", "FrameOfReferenceUID", "PixelSpacing"):
        del data[name]
    rows, columns = np.mgrid[:80, :60]
    stored = np.where((rows - 40) ** 2 + columns**2 < 35**2, 2000 + columns, 100).astype(np.uint16)
    data.Modality, data.PresentationIntentType = "MG", "FOR PRESENTATION"
    data.Rows, data.Columns, data.PixelData = 80, 60, stored.tobytes()
    data.ImageLaterality, data.ViewPosition, data.PatientOrientation = "L", "MLO", ["A", "FR"]
    data.ImagerPixelSpacing = [0.07, 0.07]
    return data


@pytest.fixture
def opened(tmp_path):
    def save_and_read(data):
        data.save_as(tmp_path / "x", enforce_file_format=True)
        (case,) = read_cases(tmp_path / "x").cases
        return case

    return save_and_read


def mirrored(data):
    data.PixelData = np.ascontiguousarray(data.pixel_array[:, ::-1]).tobytes()
    return data


def test_a_mammogram_that_agrees_with_itself(mammogram, opened):
    case = opened(mammogram)
    image = case.images["image"]
    assert (image.traits["laterality"], image.traits["view"]) == ("L", "MLO")
    assert (image.modality, image.grid.calibration, case.notes) == (Modality.XRAY, Calibration.DETECTOR, ())
    assert image.grid.letters == ("F", "A")
    other = mirrored(mammogram)
    other.ImageLaterality, other.PatientOrientation = "R", ["P", "FL"]
    assert opened(other).images["image"].traits["laterality"] == "R"


def test_a_mirrored_mammogram_is_stopped(mammogram, opened):
    with pytest.raises(UnreadableImage, match=r"chest wall at the image's left as PatientOrientation states, .* right"):
        opened(mirrored(mammogram))
    mammogram.PresentationIntentType = "FOR PROCESSING"  # raw values: nothing is said of edges
    assert opened(mammogram).notes == ()


def test_without_an_orientation_an_unusual_hanging_is_a_doubt(mammogram, opened):
    del mammogram.PatientOrientation
    assert opened(mammogram).notes == ()
    (note,) = opened(mirrored(mammogram)).notes
    assert note.startswith("stated as the left breast, with its chest wall at the image's right")


def test_statements_that_contradict_each_other(mammogram, opened):
    mammogram.Laterality = "R"
    with pytest.raises(UnreadableImage, match="its header states 2 sides"):
        opened(mammogram)
    del mammogram.Laterality
    mammogram.ViewCodeSequence = coded("399162004")
    with pytest.raises(UnreadableImage, match="its header states 2 views"):
        opened(mammogram)
    mammogram.ViewPosition = ""
    assert opened(mammogram).images["image"].traits["view"] == "CC"
    mammogram.ViewCodeSequence = coded("R-10226", "SRT")
    assert opened(mammogram).images["image"].traits["view"] == "MLO"


def test_edges_that_decide_nothing():
    assert chest_wall(np.zeros((40, 40))) is None
    assert chest_wall(np.pad(np.ones((20, 20)), 10)) is None  # in the middle: a magnified view
    assert chest_wall(np.pad(np.ones((20, 40)), ((10, 10), (0, 0)))) is None  # from edge to edge


@pytest.mark.parametrize(
    ("kind", "modality"),
    [
        ("OP", Modality.FUNDUS),
        ("OPT", Modality.OCT),
        ("ES", Modality.ENDOSCOPY),
        ("XC", Modality.UNKNOWN),  # a photograph of anything: the model card says what
        ("XA", Modality.XRAY),
        ("US", Modality.ULTRASOUND),
    ],
)
def test_pictures_of_other_specialties(mammogram, opened, kind, modality):
    mammogram.Modality = kind
    image = opened(mammogram).images["image"]
    assert image.modality is modality
    assert image.data.shape == (1, 80, 60)


def test_a_segmented_palette(packaged):
    """PS3.3 C.7.9.2: segments of lines and copies, as old ultrasound writes them."""
    raw = pydicom.dcmread(packaged("gdcm-US-ALOKA-16.dcm"))
    assert "SegmentedRedPaletteColorLookupTableData" in raw
    image = read_image(packaged("gdcm-US-ALOKA-16.dcm"))
    assert image.data.shape == (3, raw.Rows, raw.Columns)
    expected = pydicom.pixels.apply_color_lut(raw.pixel_array, raw)
    assert np.allclose(image.data.numpy() * 65535, np.moveaxis(expected, -1, 0), atol=0.01)
    big = read_image(packaged("gdcm-US-ALOKA-16_big.dcm"))
    assert np.array_equal(big.data, image.data)


@pytest.mark.parametrize(
    ("kind", "storage", "maker", "unit"),
    [
        ("MR", MRImageStorage, hd.legacy.LegacyConvertedEnhancedMRImage, "a.u."),
        ("PT", PositronEmissionTomographyImageStorage, hd.legacy.LegacyConvertedEnhancedPETImage, "Bq/ml"),
    ],
)
def test_enhanced_mr_and_pet(tmp_path, phantom, kind, storage, maker, unit):
    made = phantom()
    datasets = made.datasets(modality=kind)
    for data in datasets:
        data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = storage
        data.Units = "BQML"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # highdicom says that tags of the made-up study are missing
        whole = maker(datasets, generate_uid(), 7, generate_uid(), 1, transfer_syntax_uid=ExplicitVRLittleEndian)
    whole.save_as(tmp_path / "x.dcm")
    image = read_image(tmp_path / "x.dcm")
    place = image.grid.world(np.argwhere(image.data[0].numpy() > 2900).astype(float))[0]
    assert np.abs(place - made.place(made.bright)).max() < 1e-3
    assert image.unit == unit
    assert image.traits.get("suv_refused") == ("enhanced objects are not converted" if kind == "PT" else None)


# --- decoders


def test_no_gpl_decoder_is_asked_for_or_loaded(packaged):
    project = tomllib.loads((Path(__file__).resolve().parents[2] / "pyproject.toml").read_text())["project"]
    named = [*project["dependencies"], *(n for extra in project["optional-dependencies"].values() for n in extra)]
    assert not [name for name in named if "pylibjpeg-libjpeg" in name]
    assert read_image(packaged("SC_rgb_jpeg_dcmtk.dcm")).data.shape == (3, 100, 100)
    assert "libjpeg" not in sys.modules


@pytest.mark.parametrize("syntax", [JPEGBaseline8Bit, JPEGLosslessSV1])
def test_pylibjpeg_never_decodes_jpeg_even_where_its_gpl_part_is_installed(packaged, monkeypatch, syntax):
    data = pydicom.dcmread(packaged("SC_rgb_jpeg_dcmtk.dcm"), stop_before_pixels=True)
    data.file_meta.TransferSyntaxUID = syntax
    decoder = type(get_decoder(syntax))
    monkeypatch.setattr(decoder, "available_plugins", property(lambda self: ("gdcm", "pylibjpeg")))
    assert decoder_name(data) == "gdcm"
    data.file_meta.TransferSyntaxUID = JPEG2000TransferSyntaxes[0]
    assert decoder_name(data) == "pylibjpeg"  # openjpeg, BSD
