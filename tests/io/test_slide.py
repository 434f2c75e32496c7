"""Whole slides: tiles where they lie on the glass, memory that stays small, and tissue told from glass."""

import tracemalloc
from io import BytesIO

import numpy as np
import pytest
import tifffile
from PIL import Image as Picture
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian, JPEGBaseline8Bit, VLWholeSlideMicroscopyImageStorage, generate_uid

from pellucid.core.errors import BadOption, UnreadableImage
from pellucid.core.grid import Calibration
from pellucid.core.image import Modality
from pellucid.io.reader import read_image
from pellucid.io.slide import Tile, open_slide

SIDE = 256
WIDTH, HEIGHT = 40 * 1024, 30 * 1024
INSIDE = (8 * 1024, 8 * 1024, 24 * 1024, 16 * 1024)  # left, top, right, bottom of the tissue, at tiles of every level


@pytest.fixture(scope="module")
def stained(shared_data):
    source = min((shared_data / "histology_nuclei" / "images").iterdir())
    return np.asarray(Picture.open(source).convert("RGB"))


def jpeg(pixels, quality=90):
    kept = BytesIO()
    Picture.fromarray(pixels).save(kept, "JPEG", quality=quality, subsampling=0)
    return kept.getvalue()


@pytest.fixture(scope="module")
def huge(tmp_path_factory, stained):
    """40960 x 30720 pixels, of which most is one glass tile, encoded once."""
    path = tmp_path_factory.mktemp("slide") / "biopsy.svs"
    side = 512
    tissue, glass = jpeg(stained[:side, :side]), jpeg(np.full((side, side, 3), 244, np.uint8))

    def tiles(shrink):
        for y in range(0, HEIGHT, side * shrink):
            for x in range(0, WIDTH, side * shrink):
                left, top, right, bottom = INSIDE
                yield tissue if left <= x < right and top <= y < bottom else glass

    with tifffile.TiffWriter(path, bigtiff=True) as writer:
        for number, shrink in enumerate((1, 4, 16)):
            size = (HEIGHT // shrink, WIDTH // shrink, 3)
            options = {"tile": (side, side), "photometric": "rgb", "compression": "jpeg", "dtype": np.uint8}
            density = 1e4 / (0.5 * shrink)
            where = {"resolution": (density, density), "resolutionunit": "CENTIMETER", "subfiletype": int(number > 0)}
            writer.write(tiles(shrink), shape=size, metadata=None, **options, **where)
    return path


@pytest.fixture
def small(tmp_path):
    """A pyramid without loss, whose pixels say where they are."""
    y, x = np.mgrid[0:768, 0:1024]
    fine = np.stack([x // 4, y // 4, (x // 256 + y // 256) * 20], -1).astype(np.uint8)
    options = {"tile": (SIDE, SIDE), "photometric": "rgb", "compression": "zlib"}
    with tifffile.TiffWriter(tmp_path / "map.tif", ome=True) as writer:
        sizes = {"axes": "YXS", "PhysicalSizeX": 0.25, "PhysicalSizeY": 0.25}
        writer.write(fine, subifds=1, metadata=sizes, **options)
        writer.write(fine[::2, ::2], subfiletype=1, **options)
    with open_slide(tmp_path / "map.tif") as slide:
        yield slide, fine


def test_a_tile_lies_where_it_was_asked_for(small):
    slide, fine = small
    assert slide.dimensions == (1024, 768)
    assert slide.mpp == pytest.approx((0.25, 0.25))
    image = slide.region(Tile(300, 200, 128, 64))
    np.testing.assert_allclose(image.data.numpy() * 255, np.moveaxis(fine[200:264, 300:428], -1, 0), atol=1e-3)
    assert image.modality is Modality.HISTOLOGY
    assert image.grid.calibration is Calibration.CALIBRATED
    assert image.grid.spacing == pytest.approx((0.00025, 0.00025))
    row, column = 10, 20
    place = image.grid.world(np.array([[float(row), float(column)]]))[0]
    np.testing.assert_allclose(place[:2], [(300 + column + 0.5) * 0.00025, (200 + row + 0.5) * 0.00025])
    assert {k: image.traits[k] for k in ("slide", "slide_x", "slide_y", "level", "mpp")} == {
        "slide": "map",
        "slide_x": 300,
        "slide_y": 200,
        "level": 0,
        "mpp": 0.25,
    }


def test_microns_choose_the_level_and_average_the_rest(small):
    slide, fine = small
    half = slide.region(Tile(256, 128, 100, 100, mpp=0.5))
    assert half.traits["level"] == 1
    np.testing.assert_allclose(
        half.data.numpy() * 255, np.moveaxis(fine[128:328:2, 256:456:2], -1, 0).astype(float), atol=1e-3
    )
    third = slide.region(Tile(0, 0, 90, 60, mpp=0.75))
    assert third.traits["level"] == 1
    assert third.grid.spacing == pytest.approx((0.00075, 0.00075))
    red = third.data[0].numpy() * 255 * 4  # the column of the finest level
    centers = third.grid.index(np.array([[0.0, 0.0, 0.0]]))
    assert centers == pytest.approx(np.array([[-0.5, -0.5]]))
    assert np.abs(red[30] - (np.arange(90) + 0.5) * 3).max() < 6
    with pytest.raises(BadOption, match=r"at least 0\.25 microns per pixel"):
        slide.region(Tile(0, 0, 10, 10, mpp=0.1))
    for beyond in (Tile(1000, 0, 100, 10), Tile(-1, 0, 10, 10), Tile(0, 700, 10, 100)):
        with pytest.raises(BadOption, match="inside 1024 x 768"):
            slide.region(beyond)


def test_tiles_cover_the_slide_to_its_edges(small):
    slide, fine = small
    seen = np.zeros(fine.shape[:2], int)
    for tile in slide.places(300, overlap=20):
        assert tile.x + 300 <= 1024
        assert tile.y + 300 <= 768
        seen[tile.y : tile.y + 300, tile.x : tile.x + 300] += 1
    assert seen.min() == 1
    with pytest.raises(BadOption, match="overlap from 0 to 299"):
        slide.places(300, overlap=300)
    with pytest.raises(BadOption, match="at least 2000 pixels"):
        slide.places(2000)


def test_tissue_is_found_on_a_huge_slide_and_read_tile_by_tile(huge, stained):
    with open_slide(huge) as slide:
        check_tissue(slide, stained)


def check_tissue(slide, stained):
    assert slide.dimensions == (WIDTH, HEIGHT)
    assert slide.thumbnail(512).shape == (384, 512, 3)
    scale = slide.tissue.shape[1] / WIDTH
    expected = np.zeros(slide.tissue.shape, bool)
    left, top, right, bottom = (int(v * scale) for v in INSIDE)
    expected[top:bottom, left:right] = True
    assert slide.tissue[expected].mean() > 0.6
    assert slide.tissue[~expected].mean() < 0.01
    best = slide.richest(3, size=512, mpp=1.0)
    assert len({(t.x, t.y) for t in best}) == 3
    assert all(INSIDE[0] <= t.x <= INSIDE[2] - 1024 and INSIDE[1] <= t.y <= INSIDE[3] - 1024 for t in best)
    case = next(slide.tiles(512))
    assert (case.patient, case.name) == ("biopsy", f"biopsy-x{INSIDE[0]}-y{INSIDE[1]}")
    shown = case.images["image"].data.numpy()
    assert np.abs(shown - np.moveaxis(stained[:512, :512], -1, 0) / 255).mean() < 0.03


def test_as_an_image_a_slide_is_refused_with_the_mend(huge, tmp_path, small):
    with pytest.raises(UnreadableImage, match=r"whole slide of 40960 x 30720 pixels\. explain tiles of it: --tile"):
        read_image(huge, index=0)
    level(small[1], 1, generate_uid(), generate_uid(), False).save_as(tmp_path / "x", enforce_file_format=True)
    with pytest.raises(UnreadableImage, match=r"a whole slide\. explain tiles of it: --tile"):
        read_image(tmp_path / "x")


def test_memory_stays_small(huge):
    tracemalloc.start()
    with open_slide(huge) as slide:
        seen = [case.images["image"].grid.shape for case, _ in zip(slide.tiles(512), range(20), strict=False)]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(seen) == 20
    assert peak < 150e6, "the finest level alone has 3.7e9 bytes"


def test_a_slide_without_color_has_no_tissue(tmp_path):
    tifffile.imwrite(tmp_path / "x.tif", np.full((512, 512, 3), 240, np.uint8), tile=(SIDE, SIDE), photometric="rgb")
    with open_slide(tmp_path / "x.tif") as slide:
        assert not slide.tissue.any()
        assert slide.mpp is None
        assert slide.region(Tile(0, 0, 8, 8)).grid.unit == "px"
        with pytest.raises(BadOption, match="expected tissue"):
            slide.richest(2, 64)
        with pytest.raises(BadOption, match="states microns"):
            slide.region(Tile(0, 0, 8, 8, mpp=0.5))


def test_what_would_have_to_be_decoded_whole_is_refused(tmp_path):
    tifffile.memmap(tmp_path / "x.tif", shape=(9000, 9000, 3), dtype=np.uint8, photometric="rgb").flush()
    with pytest.raises(UnreadableImage, match="tiles or strips of at most"):
        open_slide(tmp_path / "x.tif")
    tifffile.imwrite(tmp_path / "y.tif", np.zeros((64, 64), np.uint16))
    with pytest.raises(UnreadableImage, match="RGB of 8 bits"):
        open_slide(tmp_path / "y.tif")
    (tmp_path / "z.tif").write_bytes(b"II*\0" + b"\xff" * 400)
    with pytest.raises(UnreadableImage, match="damaged or incomplete"):
        open_slide(tmp_path / "z.tif")


def level(fine, shrink, series, frame, packed):
    """One level of a DICOM slide in full tiles (PS3.3 C.8.12.4)."""
    pixels = fine[::shrink, ::shrink]
    rows, columns = pixels.shape[:2]
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = JPEGBaseline8Bit if packed else ExplicitVRLittleEndian
    data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = VLWholeSlideMicroscopyImageStorage
    data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    data.StudyInstanceUID, data.SeriesInstanceUID, data.FrameOfReferenceUID = series, series, frame
    data.PatientName, data.PatientID = "CANARYNAME^ZEBRA", "CANARYID7"
    data.PatientBirthDate = data.PatientSex = data.AccessionNumber = data.StudyID = ""
    data.StudyDate, data.StudyTime, data.ContentDate, data.ContentTime = "20200101", "120000", "20200101", "120000"
    data.AcquisitionDateTime, data.Modality, data.SeriesNumber, data.InstanceNumber = "20200101120000", "SM", 1, shrink
    data.Manufacturer, data.ManufacturerModelName, data.DeviceSerialNumber, data.SoftwareVersions = "A", "B", "1", "1"
    data.ImageType = [
        "ORIGINAL" if shrink == 1 else "DERIVED",
        "PRIMARY",
        "VOLUME",
        "NONE" if shrink == 1 else "RESAMPLED",
    ]
    data.SamplesPerPixel, data.PlanarConfiguration = 3, 0
    data.PhotometricInterpretation = "YBR_FULL" if packed else "RGB"
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 8, 8, 7, 0
    data.Rows = data.Columns = SIDE
    data.TotalPixelMatrixRows, data.TotalPixelMatrixColumns = rows, columns
    data.TotalPixelMatrixFocalPlanes, data.NumberOfOpticalPaths = 1, 1
    data.ImagedVolumeWidth, data.ImagedVolumeHeight, data.ImagedVolumeDepth = 0.256, 0.192, 0.001
    data.ImageOrientationSlide = [0, -1, 0, -1, 0, 0]
    data.LossyImageCompression = "01" if packed else "00"
    data.BurnedInAnnotation, data.SpecimenLabelInImage, data.FocusMethod, data.ExtendedDepthOfField = (
        "NO",
        "NO",
        "AUTO",
        "NO",
    )
    data.VolumetricProperties, data.DimensionOrganizationType, data.PositionReferenceIndicator = (
        "VOLUME",
        "TILED_FULL",
        "",
    )
    origin = Dataset()
    origin.XOffsetInSlideCoordinateSystem, origin.YOffsetInSlideCoordinateSystem = 20, 30
    data.TotalPixelMatrixOriginSequence = Sequence([origin])
    measures = Dataset()
    measures.PixelSpacing, measures.SliceThickness = [0.00025 * shrink, 0.00025 * shrink], 0.001
    shared = Dataset()
    shared.PixelMeasuresSequence = Sequence([measures])
    data.SharedFunctionalGroupsSequence = Sequence([shared])
    optical, light = Dataset(), Dataset()
    light.CodeValue, light.CodingSchemeDesignator, light.CodeMeaning = "111744", "DCM", "Brightfield illumination"
    optical.OpticalPathIdentifier, optical.IlluminationTypeCodeSequence = "0", Sequence([light])
    data.OpticalPathSequence = Sequence([optical])
    padded = np.pad(pixels, ((0, -rows % SIDE), (0, -columns % SIDE), (0, 0)))
    frames = [
        padded[y : y + SIDE, x : x + SIDE]
        for y in range(0, padded.shape[0], SIDE)
        for x in range(0, padded.shape[1], SIDE)
    ]
    data.NumberOfFrames = len(frames)
    whole = np.stack(frames).tobytes()
    data.PixelData = encapsulate([jpeg(f, 95) for f in frames]) if packed else whole
    if packed:
        data["PixelData"].is_undefined_length = True
    return data


@pytest.mark.parametrize("packed", [False, True])
def test_a_dicom_slide_gives_the_same_tiles(tmp_path, small, packed, canary):
    slide, fine = small
    series, frame = generate_uid(), generate_uid()
    for shrink in (1, 2):
        level(fine, shrink, series, frame, packed).save_as(tmp_path / f"{shrink}", enforce_file_format=True)
    (tmp_path / "map.tif").rename(tmp_path / "notes")
    with open_slide(tmp_path) as dicom:
        check_same(dicom, slide, packed, canary)


def check_same(dicom, slide, packed, canary):
    assert dicom.dimensions == slide.dimensions
    assert dicom.mpp == pytest.approx(slide.mpp)
    assert len(dicom.levels) == 2
    for tile in (Tile(300, 200, 128, 64), Tile(256, 128, 100, 100, mpp=0.5)):
        image, truth = dicom.region(tile), slide.region(tile)
        assert float((image.data - truth.data).abs().mean()) < (0.02 if packed else 1e-6)
        assert image.grid == truth.grid
        assert image.traits["level"] == truth.traits["level"]
    case = dicom.case(Tile(0, 0, 64, 64))
    assert case.name.startswith("slide-")
    assert not any(word in repr((case.name, case.patient, case.images["image"].traits)) for word in canary)
