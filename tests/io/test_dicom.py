"""Single DICOM files: the values a network should see, the lengths the standard allows, and nobody's name."""

from copy import deepcopy

import numpy as np
import pydicom
import pytest
import torch
from pydicom import Dataset
from pydicom.sequence import Sequence

from pellucid.core.errors import BadOption, UnreadableImage
from pellucid.core.grid import Calibration
from pellucid.core.image import Modality
from pellucid.io.reader import read_image


@pytest.fixture
def film(phantom):
    """A radiograph without a position in the patient."""
    data = phantom(shape=(1, 16, 20), bright=(0, 3, 15)).datasets()[0]
    data.Modality = "DX"
    data.PatientOrientation = ["L", "F"]
    for name in ("ImagePositionPatient", "ImageOrientationPatient", "FrameOfReferenceUID", "PixelSpacing"):
        del data[name]
    return data


@pytest.fixture
def opened(tmp_path):
    def save_and_read(data, **options):
        data.save_as(tmp_path / "x", enforce_file_format=True)
        return read_image(tmp_path / "x", **options)

    return save_and_read


def test_a_real_chest_radiograph_in_monochrome1_is_turned_once(packaged):
    path = packaged("RG1_UNCR.dcm")
    raw = pydicom.dcmread(path)
    assert raw.PhotometricInterpretation == "MONOCHROME1"
    image = read_image(path)
    top = 2**raw.BitsStored - 1
    assert np.array_equal(image.data[0].numpy(), (top - raw.pixel_array).astype(np.float32))
    low, high = float(raw.WindowCenter) - raw.WindowWidth / 2, float(raw.WindowCenter) + raw.WindowWidth / 2 - 1
    assert image.window == pytest.approx((top - high, top - low))
    # rays that met nobody are black
    corner, middle = image.data[0, :60, :60].median(), image.data[0, 900:1000, 850:950].median()
    assert float(corner) < float(middle)
    assert (image.modality, image.unit, image.traits["photometric"]) == (Modality.XRAY, "a.u.", "MONOCHROME2")
    assert image.traits["dicom_modality"] == "CR"
    # PatientOrientation L\F names columns first; the axes of the tensor are rows, columns
    assert image.grid.letters == ("F", "L")
    assert raw.PixelSpacing == [0, 0]
    assert image.grid.calibration is Calibration.NONE


def test_monochrome1_and_its_monochrome2_twin_are_one_image(film, opened):
    twin = opened(film)
    stored = np.frombuffer(film.PixelData, np.uint16)
    film.PixelData = (65535 - stored).astype(np.uint16).tobytes()
    film.PhotometricInterpretation = "MONOCHROME1"
    film.WindowCenter = 65535 - 2 * 1024 - film.WindowCenter + 1  # the same gray levels in the mirrored values
    other = opened(film)
    assert torch.equal(other.data, twin.data)
    assert other.window == pytest.approx(twin.window)


def test_values_of_a_ct_slice_are_not_turned(phantom, opened):
    made = phantom(shape=(1, 16, 20), bright=(0, 3, 15))
    image = opened(made.datasets(photometric="MONOCHROME1")[0])
    assert np.array_equal(image.data[0].numpy(), made.hu[0])
    assert (image.unit, image.traits["photometric"]) == ("HU", "MONOCHROME1")


@pytest.mark.parametrize("name", ["MR_small.dcm", "CT_small.dcm", "693_UNCR.dcm", "MR2_J2KR.dcm"])
def test_a_real_slice_lies_where_its_header_says(packaged, name):
    path = packaged(name)
    raw, image = pydicom.dcmread(path), read_image(path)
    row, column = np.array(raw.ImageOrientationPatient[:3]), np.array(raw.ImageOrientationPatient[3:])
    for i, j in ((0, 0), (raw.Rows - 1, 0), (3, raw.Columns - 1)):
        truth = np.array(raw.ImagePositionPatient) + i * raw.PixelSpacing[0] * column + j * raw.PixelSpacing[1] * row
        assert np.abs(image.grid.world(np.array([[i, j]], float))[0] - truth).max() < 1e-3
    slope, intercept = float(raw.get("RescaleSlope", 1)), float(raw.get("RescaleIntercept", 0))
    assert np.allclose(image.data[0].numpy(), raw.pixel_array * slope + intercept, rtol=1e-6, atol=1e-3)
    assert image.grid.calibration is Calibration.PATIENT
    assert image.unit == ("HU" if raw.Modality == "CT" else "a.u.")


def test_a_palette_gives_the_same_color_in_every_byte_order(packaged):
    image = read_image(packaged("OBXXXX1A.dcm"))
    assert image.data.shape == (3, 600, 800)
    assert (image.modality, image.unit) == (Modality.ULTRASOUND, "[0,1]")
    for other in ("OBXXXX1A_expb.dcm", "OBXXXX1A_rle.dcm"):
        assert torch.equal(read_image(packaged(other)).data, image.data)
    raw = pydicom.dcmread(packaged("OBXXXX1A.dcm"))
    red = np.frombuffer(raw.RedPaletteColorLookupTableData, "<u2") / 65535
    assert np.allclose(image.data[0].numpy(), red[raw.pixel_array], atol=1e-7)


def test_ycbcr_comes_as_rgb(packaged):
    plain = read_image(packaged("SC_rgb.dcm")).data
    for name in ("SC_ybr_full_uncompressed.dcm", "SC_ybr_full_422_uncompressed.dcm"):
        assert float((read_image(packaged(name)).data - plain).abs().median()) < 0.02
    assert torch.equal(read_image(packaged("US1_J2KR.dcm")).data, read_image(packaged("US1_UNCR.dcm")).data)
    deep = pydicom.dcmread(packaged("SC_rgb_16bit.dcm"))
    expected = deep.pixel_array.astype(np.float64).transpose(2, 0, 1) / 65535
    assert np.allclose(read_image(packaged("SC_rgb_16bit.dcm")).data.numpy(), expected, atol=1e-7)


def test_a_modality_table_is_applied(packaged):
    raw = pydicom.dcmread(packaged("mlut_18.dcm"))
    item = raw.ModalityLUTSequence[0]
    table = np.array(item.LUTData)
    index = np.clip(raw.pixel_array.astype(int) - item.LUTDescriptor[1], 0, len(table) - 1)
    assert np.array_equal(read_image(packaged("mlut_18.dcm")).data[0].numpy(), table[index].astype(np.float32))


def test_gray_ultrasound_has_the_numbers_of_its_png(packaged):
    name = "JPGLosslessP14SV1_1s_1f_8b.dcm"
    image = read_image(packaged(name))
    assert image.unit == "[0,1]"
    assert np.allclose(image.data[0].numpy() * 255, pydicom.dcmread(packaged(name)).pixel_array, atol=1e-4)


def test_a_loop_asks_for_a_frame(packaged):
    path = packaged("examples_ybr_color.dcm")
    with pytest.raises(BadOption, match=r"an object of 30 frames .* choose one: index 0 to 29"):
        read_image(path)
    frames = [read_image(path, index=i).data for i in (0, 29)]
    assert frames[0].shape == (3, 240, 320)
    assert not torch.equal(*frames)
    with pytest.raises(BadOption, match="index from 0 to 29, got 30"):
        read_image(path, index=30)
    with pytest.raises(BadOption, match="expected no index"):
        read_image(packaged("CT_small.dcm"), index=1)


@pytest.mark.parametrize(
    ("tags", "spacing", "calibration"),
    [
        ({}, (1, 1), Calibration.NONE),
        ({"PixelSpacing": [0, 0]}, (1, 1), Calibration.NONE),
        ({"PixelSpacing": [-0.1, 0.1]}, (1, 1), Calibration.NONE),
        ({"ImagerPixelSpacing": [0.1, 0.2]}, (0.1, 0.2), Calibration.DETECTOR),
        ({"ImagerPixelSpacing": [0, 0]}, (1, 1), Calibration.NONE),
        ({"ImagerPixelSpacing": [0.1, 0.2], "PixelSpacing": [0.1, 0.2]}, (0.1, 0.2), Calibration.DETECTOR),
        ({"ImagerPixelSpacing": [0.1, 0.2], "PixelSpacing": [0.08, 0.16]}, (0.08, 0.16), Calibration.NOMINAL),
        ({"PixelSpacing": [0.08, 0.16]}, (0.08, 0.16), Calibration.NOMINAL),
        ({"PixelSpacing": [0.08, 0.16], "PixelSpacingCalibrationType": "FIDUCIAL"}, (0.08, 0.16), "calibrated"),
        ({"PixelSpacing": [0.08, 0.16], "PixelSpacingCalibrationType": "GEOMETRY"}, (0.08, 0.16), "nominal"),
        ({"NominalScannedPixelSpacing": [0.3, 0.3]}, (0.3, 0.3), Calibration.NOMINAL),
    ],
)
def test_millimeters_only_as_far_as_the_standard_gives_them(film, opened, tags, spacing, calibration):
    for name, value in tags.items():
        setattr(film, name, value)
    grid = opened(film).grid
    assert grid.spacing == pytest.approx(spacing)
    assert grid.calibration == calibration
    assert grid.letters == ("F", "L")


def test_a_section_without_a_position_keeps_its_millimeters(packaged, film, opened):
    grid = read_image(packaged("JPEG-LL.dcm")).grid  # a nuclear image saved as a screen
    assert (grid.spacing, grid.calibration) == ((2.26, 2.26), Calibration.CALIBRATED)
    film.Modality, film.PixelSpacing = "MR", [0.5, 0.6]
    grid = opened(film).grid
    assert (grid.spacing, grid.calibration) == ((0.5, 0.6), Calibration.CALIBRATED)


def test_a_second_meaning_of_the_values_does_not_replace_the_first(phantom, opened):
    made = phantom(shape=(1, 16, 20), bright=(0, 3, 15))
    data = made.datasets()[0]
    other = Dataset()
    other.RealWorldValueFirstValueMapped, other.RealWorldValueLastValueMapped = 0, 65535
    other.RealWorldValueIntercept, other.RealWorldValueSlope = 5.0, 3.0
    other.LUTLabel, other.LUTExplanation = "SUV", "SUV"
    data.RealWorldValueMappingSequence = Sequence([other])
    image = opened(data)
    assert np.array_equal(image.data[0].numpy(), made.hu[0])
    assert image.unit == "HU"


def test_a_colored_slice_has_the_colors_of_its_palette(phantom, opened):
    data = phantom(shape=(1, 16, 20), bright=(0, 3, 15)).datasets(modality="MR")[0]
    del data.RescaleSlope, data.RescaleIntercept
    data.PhotometricInterpretation, data.BitsAllocated, data.BitsStored, data.HighBit = "PALETTE COLOR", 8, 8, 7
    index = np.random.default_rng(0).integers(0, 256, (16, 20)).astype(np.uint8)
    data.PixelData = index.tobytes()
    tables = np.random.default_rng(1).integers(0, 65536, (3, 256)).astype(np.uint16)
    for color, table in zip(("Red", "Green", "Blue"), tables, strict=True):
        data[f"{color}PaletteColorLookupTableDescriptor"] = pydicom.DataElement(
            f"{color}PaletteColorLookupTableDescriptor", "US", [256, 0, 16]
        )
        setattr(data, f"{color}PaletteColorLookupTableData", table.tobytes())
    image = opened(data)
    assert image.grid.calibration is Calibration.PATIENT
    assert np.allclose(image.data.numpy(), tables[:, index] / 65535, atol=1e-7)


def test_ultrasound_lengths_come_from_the_regions_of_the_screen(packaged, film, opened):
    raw = pydicom.dcmread(packaged("OBXXXX1A.dcm"))
    region = raw.SequenceOfUltrasoundRegions[0]
    grid = read_image(packaged("OBXXXX1A.dcm")).grid
    assert grid.spacing == pytest.approx((abs(region.PhysicalDeltaY) * 10, abs(region.PhysicalDeltaX) * 10))
    assert grid.calibration is Calibration.CALIBRATED
    second = deepcopy(region)
    second.PhysicalDeltaX = region.PhysicalDeltaX * 2  # two depths on one screen: no single scale
    film.Modality, film.SequenceOfUltrasoundRegions = "US", Sequence([region, second])
    assert opened(film).grid.calibration is Calibration.NONE


@pytest.mark.parametrize(
    ("stated", "letters"),
    [
        (["L", "F"], ("F", "L")),
        (["A", "FR"], ("F", "A")),
        (["PF", "HL"], ("H", "P")),
        (["L", "R"], None),
        (["X", "F"], None),
        (["", "F"], None),
        (["L"], None),
    ],
)
def test_letters_are_in_tensor_order_or_not_there(film, opened, stated, letters):
    film.PatientOrientation = stated
    assert opened(film).grid.letters == letters


def test_the_animal_that_stands_on_four_has_other_letters(film, opened):
    film.AnatomicalOrientationType = "QUADRUPED"
    assert opened(film).grid.letters is None


@pytest.mark.parametrize(
    ("tags", "window"),
    [
        ({"WindowCenter": 40, "WindowWidth": 400}, (-160, 239)),  # PS3.3 C.11.2.1.2.1
        ({"WindowCenter": 40, "WindowWidth": 400, "VOILUTFunction": "LINEAR_EXACT"}, (-160, 240)),
        ({"WindowCenter": [40, -600], "WindowWidth": [400, 1500]}, (-160, 239)),
        ({"WindowCenter": 40, "WindowWidth": 0}, None),
        ({}, None),
    ],
)
def test_the_first_window_is_kept_for_display(film, opened, tags, window):
    del film.WindowCenter, film.WindowWidth
    for name, value in tags.items():
        setattr(film, name, value)
    found = opened(film).window
    assert found == (pytest.approx(window) if window else None)


def test_a_table_of_gray_levels_gives_the_range_it_covers(packaged):
    raw = pydicom.dcmread(packaged("vlut_04.dcm"))
    entries, first, _ = raw.VOILUTSequence[0].LUTDescriptor
    image = read_image(packaged("vlut_04.dcm"))
    assert image.window == pytest.approx((first / 255, (first + entries - 1) / 255))


def test_traits_use_the_names_of_a_model_card(film, opened):
    film.BodyPartExamined, film.ViewPosition, film.ImageLaterality = "CHEST", "PA", "L"
    film.ConvolutionKernel, film.SliceThickness, film.LossyImageCompression = ["B40f", "3"], 5, "01"
    film.ContrastBolusAgent, film.BurnedInAnnotation = "iohexol", "NO"
    traits = opened(film).traits
    expected = {"body_part": "CHEST", "view": "PA", "laterality": "L", "kernel": "B40f", "slice_mm": 5.0, "age": 58.0}
    expected |= {"photometric": "MONOCHROME2", "lossy": "yes", "contrast_agent": "yes", "burned_in": "NO"}
    assert expected.items() <= traits.items()


@pytest.mark.parametrize(("written", "age"), [("058Y", 58), ("101Y", 90), ("006M", 0.5), ("", None), ("old", None)])
def test_ages_above_89_are_one_group(film, opened, written, age):
    film["PatientAge"] = pydicom.DataElement("PatientAge", "LO", written)  # LO: the library would refuse "old" as AS
    found = opened(film).traits.get("age")
    assert found == age


@pytest.mark.parametrize(("units", "unit"), [("BQML", "Bq/ml"), ("GML", "SUVbw"), ("CNTS", "counts"), ("X", "a.u.")])
def test_units_of_a_pet_are_as_stated(phantom, opened, units, unit):
    made = phantom(shape=(1, 16, 20), bright=(0, 3, 15))
    data = made.datasets(modality="PT", slopes=[0.37])[0]
    data.Units = units
    image = opened(data)
    assert (image.unit, image.modality) == (unit, Modality.PET)
    stored = np.frombuffer(data.PixelData, np.uint16).reshape(16, 20)
    assert np.allclose(image.data[0].numpy(), stored * 0.37 - 1024, rtol=1e-6, atol=1e-3)


def test_what_was_said_of_the_modality_wins(packaged):
    assert read_image(packaged("CT_small.dcm"), Modality.PET).modality is Modality.PET


def test_a_ct_without_hounsfield_units_does_not_claim_them(phantom, opened):
    data = phantom(shape=(1, 16, 20), bright=(0, 3, 15)).datasets()[0]
    data.RescaleType = "US"
    assert opened(data).unit == "a.u."


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("reportsi.dcm", r"an object without pixels \(Basic Text SR Storage\)"),
        ("liver.dcm", "a Segmentation object"),
        ("rtdose.dcm", "a dose distribution"),
        ("rtplan.dcm", r"an object without pixels \(RT Plan Storage\)"),
        ("MR_truncated.dcm", "pixels that decode as Explicit VR Little Endian, got damaged"),
        ("JPEG-lossy.dcm", r"pixels that decode as JPEG Extended \(Process 2 and 4\), got damaged"),
        ("emri_small_jpeg_2k_lossless_too_short.dcm", "one whose pixels are missing or cut short"),
        ("badVR.dcm", "a dose distribution"),
    ],
)
def test_what_is_no_whole_image_is_named(packaged, name, message):
    with pytest.raises(UnreadableImage, match=message):
        read_image(packaged(name))


def test_a_whole_slide_is_named(film, opened):
    film.SOPClassUID = film.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.77.1.6"
    with pytest.raises(UnreadableImage, match="got a whole slide"):
        opened(film)
