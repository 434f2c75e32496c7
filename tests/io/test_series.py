"""Series as volumes: every voxel in its place, or a refusal that says why."""

import shutil
import warnings

import highdicom as hd
import numpy as np
import pydicom
import pytest
import torch
from pydicom.uid import JPEG2000Lossless, JPEGLSLossless, RLELossless, generate_uid

from pellucid.core.errors import BadOption, UnreadableImage
from pellucid.core.grid import Calibration
from pellucid.core.image import Modality
from pellucid.io.planes import Planes
from pellucid.io.reader import read_image


def turned(degrees):
    """A rotation about all three axes, so that nothing lies along a body axis."""
    a, b, c = np.radians(degrees)
    x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    y = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
    z = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    return x @ y @ z


def agrees(image, made):
    """Values and places of every voxel, from the formula and not from any reader."""
    index = np.argwhere(np.ones(image.grid.shape, bool)).astype(float)
    world = image.grid.world(index)
    offset = world - made.origin
    axes = (made.normal * made.steps[0], made.along_column * made.steps[1], made.along_row * made.steps[2])
    own = np.stack([offset @ axis / (axis @ axis) for axis in axes], 1)
    assert np.abs(own - own.round()).max() < 1e-3  # voxels
    k, i, j = own.round().astype(int).T
    assert np.abs(image.data[0].numpy().ravel() - made.hu[k, i, j]).max() < 1
    bright = image.grid.world(np.argwhere(image.data[0].numpy() > 2900).astype(float))
    assert np.abs(bright - made.place(made.bright)).max() < 1e-3


@pytest.mark.parametrize("series", ["Lung_Dx-A0001_s1", "Lung_Dx-A0002_s1"])
def test_the_real_ct_series_lie_where_each_slice_says(shared_data, series):
    folder = shared_data / "ct_lung_boxes" / series
    image = read_image(folder)
    slices = [pydicom.dcmread(path) for path in folder.iterdir()]
    assert image.data.shape == (1, len(slices), 512, 512)
    seen = set()
    for raw in slices:
        row, column = np.array(raw.ImageOrientationPatient[:3]), np.array(raw.ImageOrientationPatient[3:])
        first = np.array(raw.ImagePositionPatient, float)
        corners = [first, first + 511 * raw.PixelSpacing[0] * column, first + 511 * raw.PixelSpacing[1] * row]
        index = image.grid.index(np.array(corners))
        k = int(index[0, 0].round())
        assert np.abs(index - [[k, 0, 0], [k, 511, 0], [k, 0, 511]]).max() < 1e-6
        hu = raw.pixel_array * float(raw.RescaleSlope) + float(raw.RescaleIntercept)
        assert np.array_equal(image.data[0, k].numpy(), hu.astype(np.float32))
        seen.add(k)
    assert len(seen) == len(slices)
    assert (image.unit, image.modality, image.grid.calibration) == ("HU", Modality.CT, Calibration.PATIENT)
    assert image.grid.letters == ("F", "P", "L")
    assert image.grid.frame_of_reference == slices[0].FrameOfReferenceUID
    assert image.traits["slice_mm"] == {"Lung_Dx-A0001_s1": 5, "Lung_Dx-A0002_s1": 8}[series]


@pytest.mark.parametrize("degrees", [(0, 0, 0), (20, -30, 15), (90, 0, 0), (0, 90, 10), (170, 40, -60)])
def test_shuffled_oblique_anisotropic_series(tmp_path, phantom, write, degrees):
    made = phantom(turn=turned(degrees))
    agrees(read_image(write(tmp_path / "s", made.datasets())), made)


def test_each_slice_has_its_own_slope(tmp_path, phantom, write):
    made = phantom()
    slopes = [0.5, 1, 2, 0.25, 1, 0.5]
    made.hu -= made.hu % 2  # on the coarsest scale, so that storing rounds nothing
    agrees(read_image(write(tmp_path / "s", made.datasets(slopes=slopes))), made)


def test_hounsfield_units_are_not_turned_by_monochrome1(tmp_path, phantom, write):
    made = phantom()
    image = read_image(write(tmp_path / "s", made.datasets(photometric="MONOCHROME1")))
    agrees(image, made)
    assert image.unit == "HU"


@pytest.mark.parametrize("syntax", [JPEGLSLossless, RLELossless, JPEG2000Lossless])
def test_compressed_slices_are_the_same_volume(tmp_path, phantom, write, syntax):
    made = phantom(shape=(6, 64, 64), turn=turned((20, -30, 15)))
    datasets = made.datasets()
    for data in datasets:
        data.compress(syntax, generate_instance_uid=False)
    folder = write(tmp_path / "s", datasets)
    agrees(read_image(folder), made)
    third = sorted(folder.iterdir())[2]
    content = third.read_bytes()
    third.write_bytes(content[:-3000])
    with pytest.raises(UnreadableImage, match=r"damaged or incomplete|missing or cut short"):
        read_image(folder)


def test_a_nodule_on_the_left_is_on_the_left(tmp_path, phantom, write):
    made = phantom(origin=(0.0, -70.0, 30.0), bright=(2, 5, 19))  # x of the patient grows with columns: to the left
    image = read_image(write(tmp_path / "s", made.datasets()))
    place = image.grid.world(np.argwhere(image.data[0].numpy() > 2900).astype(float))[0]
    assert place[0] == pytest.approx(19 * 0.6)
    assert image.grid.letters[2] == "L"


def enhanced(datasets):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # highdicom says that tags of the made-up study are missing
        return hd.legacy.LegacyConvertedEnhancedCTImage(
            datasets, generate_uid(), 7, generate_uid(), 1, transfer_syntax_uid=datasets[0].file_meta.TransferSyntaxUID
        )


def test_an_enhanced_object_is_the_same_volume(tmp_path, phantom):
    made = phantom(turn=turned((20, -30, 15)))
    enhanced(made.datasets(slopes=[1, 1, 1, 1, 1, 1])).save_as(tmp_path / "x.dcm")
    for path in (tmp_path / "x.dcm", tmp_path):  # the file, and a folder that holds nothing else
        image = read_image(path)
        agrees(image, made)
        assert image.unit == "HU"


def test_an_enhanced_object_with_a_gap_says_so(tmp_path, phantom):
    datasets = phantom().datasets()
    enhanced(datasets[:2] + datasets[3:]).save_as(tmp_path / "x.dcm")
    with pytest.raises(UnreadableImage, match=r"1 slice\(s\) missing after slice 2 of 5"):
        read_image(tmp_path / "x.dcm")


def test_a_perfusion_map_in_color_by_wish_stays_a_map(packaged):
    image = read_image(packaged("eCT_Supplemental.dcm"))
    raw = pydicom.dcmread(packaged("eCT_Supplemental.dcm"))
    assert image.data.shape == (1, 2, 512, 512)
    assert image.unit == "a.u."  # its header says the values are no HU
    for frame, values in zip(raw.PerFrameFunctionalGroupsSequence, raw.pixel_array, strict=True):
        place = np.array([frame.PlanePositionSequence[0].ImagePositionPatient], float)
        k = int(image.grid.index(place)[0, 0].round())
        assert np.abs(image.grid.index(place)[0] - [k, 0, 0]).max() < 1e-3
        assert np.array_equal(image.data[0, k].numpy(), values.astype(np.float32) - 1024)


def test_a_single_slice_is_flat(tmp_path, phantom, write):
    made = phantom(shape=(1, 16, 20), bright=(0, 3, 15), turn=turned((20, -30, 15)))
    image = read_image(write(tmp_path / "s", made.datasets()))
    assert image.grid.rank == 2
    assert np.abs(image.grid.world(np.array([[3.0, 15]]))[0] - made.place((0, 3, 15))).max() < 1e-3
    assert np.array_equal(image.data[0].numpy(), made.hu[0])


def tilted(made, degrees):
    slope = np.tan(np.radians(degrees))
    return [made.position(k) + k * made.steps[0] * slope * made.along_column for k in range(len(made.hu))]


@pytest.mark.parametrize("degrees", [15.0, 2.0, -1.5])
def test_a_tilted_gantry_is_refused_by_name(tmp_path, phantom, write, degrees):
    """highdicom's own tolerance lets 2.5 degrees pass: 13 mm over a stack of 300 mm."""
    made = phantom(shape=(30, 16, 20))
    datasets = made.datasets(positions=tilted(made, degrees))
    if abs(degrees) < 2.5:
        assert hd.get_volume_from_series(datasets).shape == (30, 16, 20)
    folder = write(tmp_path / "s", datasets)
    with pytest.raises(UnreadableImage, match=rf"{abs(degrees)} degrees off their normal \(a tilted gantry\)"):
        read_image(folder)


def test_a_missing_slice_is_refused_with_its_place(tmp_path, phantom, write):
    datasets = phantom(shape=(9, 16, 20)).datasets()
    folder = write(tmp_path / "s", [d for k, d in enumerate(datasets) if k not in (3, 4)])
    with pytest.raises(
        UnreadableImage, match=r"2 slice\(s\) missing after slice 3 of 7: 7.50 mm where 2.50 mm is usual"
    ):
        read_image(folder)


def test_other_stacks_that_are_no_volume_say_why(tmp_path, phantom, write):
    made = phantom()
    places = [made.position(k) for k in range(6)]

    def reason(name, positions=places, change=lambda datasets: None):
        datasets = made.datasets(positions=positions)
        change(datasets)
        with pytest.raises(UnreadableImage) as caught:
            read_image(write(tmp_path / name, datasets))
        return caught.value.problem

    assert "1 of 6 positions occupied twice" in reason("twice", [*places[:5], places[4]])
    uneven = [made.origin + d * made.normal for d in (0, 2.5, 5, 8, 10, 12.5)]
    assert "distances between slices from 2.00 to 3.00 mm" in reason("uneven", uneven)
    moved = [p + (k == 3) * 5 * made.along_row for k, p in enumerate(places)]
    assert "shifted sideways by up to 5.00 mm" in reason("moved", moved)

    def change(**tags):
        def apply(datasets):
            for name, value in tags.items():
                setattr(datasets[2], name, value)

        return apply

    def smaller(datasets):
        datasets[2].Rows, datasets[2].PixelData = 15, datasets[2].PixelData[: 15 * 20 * 2]

    assert "slices of different sizes (15 x 20, 16 x 20)" in reason("sizes", change=smaller)
    assert "different pixel spacing" in reason("spacing", change=change(PixelSpacing=[0.9, 0.6]))
    scout = change(ImageOrientationPatient=[0, 1, 0, 0, 0, -1])
    assert "1 of 6 slices in another orientation (a localizer, or several stacks)" in reason("scout", change=scout)
    assert "several frames of reference" in reason("frames", change=change(FrameOfReferenceUID=generate_uid()))
    bent = change(ImageOrientationPatient=[1, 0, 0, 0.5, 0.5, 0])
    assert "not perpendicular unit vectors" in reason("bent", change=bent)
    assert "missing, zero, negative" in reason("zero", change=change(PixelSpacing=[0, 0.6]))


def test_rounding_in_the_header_is_forgiven(tmp_path, phantom, write):
    made = phantom(shape=(30, 16, 20), turn=turned((20, -30, 15)))
    jitter = np.random.default_rng(0).uniform(-0.01, 0.01, (30, 3))
    folder = write(tmp_path / "s", made.datasets(positions=[made.position(k) + jitter[k] for k in range(30)]))
    image = read_image(folder)
    place = image.grid.world(np.argwhere(image.data[0].numpy() > 2900).astype(float))[0]
    assert np.abs(place - made.place(made.bright)).max() < 0.05


def test_a_stack_without_a_frame_of_reference_is_still_a_stack(tmp_path, phantom, write):
    made = phantom()
    datasets = made.datasets()
    for data in datasets:
        del data.FrameOfReferenceUID
    image = read_image(write(tmp_path / "s", datasets))
    agrees(image, made)
    assert image.grid.frame_of_reference is None


def test_several_series_in_a_folder_are_listed_without_names(tmp_path, phantom, write, canary):
    folder = write(tmp_path / "s", phantom().datasets())
    other = write(tmp_path / "t", phantom(shape=(3, 8, 8), bright=(0, 0, 0)).datasets(modality="MR"))
    for path in other.iterdir():
        shutil.copy(path, folder / f"mr_{path.name}")
    with pytest.raises(UnreadableImage) as caught:
        read_image(folder)
    assert "got 2: 6 x CT 16 x 20; 3 x MR 8 x 8" in caught.value.problem
    assert not any(part in str(caught.value) for part in canary)


def test_a_damaged_slice_is_not_left_out_in_silence(tmp_path, phantom, write):
    folder = write(tmp_path / "s", phantom().datasets())
    last = sorted(folder.iterdir())[-1]
    whole = last.read_bytes()
    for length, why in ((len(whole) - 100, "pixels that decode"), (600, "1 of 6 DICOM files"), (200, "1 of 6 DICOM")):
        last.write_bytes(whole[:length])
        with pytest.raises(UnreadableImage, match=why):
            read_image(folder)


def test_files_beside_the_slices_are_passed_over(tmp_path, phantom, write, packaged):
    made = phantom()
    folder = write(tmp_path / "s", made.datasets())
    for name in ("reportsi.dcm", "DICOMDIR", "README.txt"):
        shutil.copy(packaged(name), folder)
    agrees(read_image(folder), made)
    with pytest.raises(BadOption, match="expected no index"):
        read_image(folder, index=2)


def test_folders_without_a_series_say_what_they_hold(tmp_path, packaged):
    with pytest.raises(UnreadableImage, match="expected a folder with DICOM images, got one without"):
        read_image(tmp_path)
    for name in ("RG1_UNCR.dcm", "RG3_UNCR.dcm"):
        raw = pydicom.dcmread(packaged(name))
        raw.SeriesInstanceUID = "1.2.3"
        raw.save_as(tmp_path / name)
    with pytest.raises(UnreadableImage, match="got 2 images of which 0 have one"):
        read_image(tmp_path)


def test_color_slices_keep_three_channels(tmp_path, phantom, write):
    made = phantom()
    datasets = made.datasets()
    rgb = np.random.default_rng(1).integers(0, 256, (6, 16, 20, 3)).astype(np.uint8)
    for data, values in zip(datasets, rgb, strict=True):
        del data.RescaleSlope, data.RescaleIntercept
        data.SamplesPerPixel, data.PhotometricInterpretation, data.PlanarConfiguration = 3, "RGB", 0
        data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelData = 8, 8, 7, values.tobytes()
    image = read_image(write(tmp_path / "s", datasets))
    assert (image.data.shape, image.unit) == ((3, 6, 16, 20), "[0,1]")
    k = int(image.grid.index(made.position(4)[None])[0, 0].round())
    assert torch.equal((image.data[:, k] * 255).round().byte(), torch.from_numpy(rgb[4]).movedim(2, 0))


def test_planes_of_one_slice_are_a_volume():
    one = Planes(np.zeros((1, 3)), np.array([[1.0, 0, 0, 0, 1, 0]]), np.ones((1, 2)), np.array([[4, 4]]))
    assert one.problem() is None
