"""NRRD and MetaImage: the place of each voxel worked out from the file's own text, and files that lie."""

import gzip
import re
import sys
import time

import nibabel as nib
import numpy as np
import pytest
import SimpleITK

from pellucid.core.errors import BadOption, InputError, MissingExtra, NonFinite, UnreadableImage
from pellucid.core.grid import Calibration
from pellucid.io import child, guard
from pellucid.io.reader import read_cases, read_image

FLIPS = {"left-posterior-superior": (1, 1, 1), "right-anterior-superior": (-1, -1, 1), "LAS": (1, -1, 1)}
VALUES = np.random.default_rng(5).integers(-900, 900, (4, 5, 6)).astype("<i2")  # slowest axis first
TURN = np.array([[0.8, -0.6, 0.0], [0.6, 0.8, 0.0], [0.0, 0.0, 1.0]]) @ np.array(
    [[1.0, 0.0, 0.0], [0.0, 0.96, -0.28], [0.0, 0.28, 0.96]]
)


def nrrd(path, values=VALUES, packed=True, **fields):
    kind = {"i2": "short", "f4": "float", "u1": "uchar"}[values.dtype.str[1:]]
    lines = {
        "type": kind,
        "dimension": str(values.ndim),
        "sizes": " ".join(str(n) for n in reversed(values.shape)),
        "encoding": "gzip" if packed else "raw",
        "endian": "little",
        **{key.replace("_", " "): value for key, value in fields.items() if value is not None},
    }
    head = "NRRD0004\n" + "".join(f"{k}: {v}\n" for k, v in lines.items()) + "\n"
    body = values.tobytes()
    path.write_bytes(head.encode() + (gzip.compress(body, mtime=0) if packed else body))
    return path


def vectors(matrix):
    return " ".join("(" + ",".join(repr(float(v)) for v in column) + ")" for column in matrix.T)


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("space", FLIPS)
def test_every_voxel_of_a_nrrd_lies_where_its_text_says(tmp_path, space, mirrored):
    steps = TURN @ np.diag([0.5, 0.7, -2.0 if mirrored else 2.0])
    origin = np.array([-10.0, 20.0, 30.5])
    path = nrrd(tmp_path / "x", space=space, space_directions=vectors(steps), space_origin=vectors(origin[:, None]))
    image = read_image(path)
    assert image.grid.shape == (4, 5, 6)
    assert image.grid.calibration is Calibration.PATIENT
    np.testing.assert_array_equal(image.data[0].numpy(), VALUES)
    places = np.array([[0.0, 0, 0], [3, 1, 5], [2, 4, 0]])
    truth = (origin + places[:, ::-1] @ steps.T) * FLIPS[space]
    np.testing.assert_allclose(image.grid.world(places), truth, atol=1e-4)


@pytest.mark.parametrize("ending", ["nrrd", "nhdr", "mha", "mhd"])
def test_a_real_volume_keeps_its_values_and_place_in_each_form(tmp_path, shared_data, ending):
    source = min((shared_data / "mri_hippocampus" / "images").glob("*.nii*"))
    truth = nib.load(source)
    SimpleITK.WriteImage(SimpleITK.ReadImage(source), tmp_path / f"brain.{ending}", useCompression=ending == "mha")
    image = read_cases(tmp_path).cases[0].images["image"]
    np.testing.assert_array_equal(image.data[0].numpy().transpose(2, 1, 0), truth.get_fdata(dtype=np.float32))
    places = np.array([[0.0, 0, 0], [7, 30, 11]])
    expected = nib.affines.apply_affine(np.diag([-1, -1, 1, 1]) @ truth.affine, places[:, ::-1])
    np.testing.assert_allclose(image.grid.world(places), expected, atol=1e-3)
    assert image.digest == read_image(tmp_path / f"brain.{ending}").digest


def test_lengths_are_those_of_the_header_and_directions_are_not_guessed(tmp_path):
    spaced = read_image(nrrd(tmp_path / "a", spacings="0.5 0.7 2"))
    assert (spaced.grid.calibration, spaced.grid.letters) == (Calibration.CALIBRATED, None)
    assert spaced.grid.spacing == pytest.approx((2, 0.7, 0.5))
    assert read_image(nrrd(tmp_path / "b")).grid.unit == "px"
    microns = nrrd(
        tmp_path / "c",
        space="LPS",
        space_directions=vectors(np.diag([500.0, 700, 2000])),
        space_units='"um" "um" "um"',
    )
    assert read_image(microns).grid.spacing == pytest.approx((2, 0.7, 0.5))
    strange = nrrd(tmp_path / "d", space="LPS", space_directions=vectors(np.eye(3)), space_units='"mm" "mm" "furlong"')
    with pytest.raises(UnreadableImage, match="lengths in one unit"):
        read_image(strange)


def test_one_slice_is_a_picture_in_its_plane(tmp_path):
    origin = vectors(np.array([[1.0], [2.0], [3.0]]))
    path = nrrd(tmp_path / "x", VALUES[:1], space="LPS", space_directions=vectors(TURN), space_origin=origin)
    image = read_image(path)
    assert image.grid.shape == (5, 6)
    np.testing.assert_allclose(image.grid.world(np.array([[4.0, 2.0]]))[0], [1, 2, 3] + 2 * TURN[:, 0] + 4 * TURN[:, 1])
    np.testing.assert_allclose(image.grid.matrix[:3, 2], TURN[:, 2], atol=1e-6)


def test_an_axis_that_is_not_of_space_is_chosen_by_name_or_becomes_channels(tmp_path):
    series = np.stack([VALUES, VALUES + 1, VALUES + 2])
    where = {"space": "LPS", "space_directions": f"{vectors(np.eye(3))} none"}
    listed = nrrd(tmp_path / "a", series, kinds="domain domain domain list", labels='"" "" "" "time"', **where)
    with pytest.raises(BadOption, match="got 3 along the time axis"):
        read_image(listed)
    np.testing.assert_array_equal(read_image(listed, index=2).data[0].numpy(), VALUES + 2)
    with pytest.raises(BadOption, match="expected an index from 0 to 2, got 3"):
        read_image(listed, index=3)
    secret = nrrd(tmp_path / "b", series, kinds="domain domain domain list", labels='"" "" "" "Mr Zebra"', **where)
    with pytest.raises(BadOption, match="got 3 along the list axis"):
        read_image(secret)
    vector = nrrd(tmp_path / "c", series, kinds="domain domain domain vector", **where)
    np.testing.assert_array_equal(read_image(vector).data.numpy(), series)
    bare = nrrd(tmp_path / "d", series)
    with pytest.raises(BadOption, match="got 3 along the fourth axis"):
        read_image(bare)
    np.testing.assert_array_equal(read_image(bare, index=1).data[0].numpy(), VALUES + 1)


def test_color_is_scaled_as_that_of_a_picture(tmp_path):
    rgb = np.random.default_rng(0).integers(0, 255, (5, 6, 3)).astype(np.uint8)
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(rgb, isVector=True), tmp_path / "x.mha")
    image = read_image(tmp_path / "x.mha")
    assert (image.unit, tuple(image.data.shape)) == ("[0,1]", (3, 5, 6))
    np.testing.assert_allclose(image.data.numpy(), np.moveaxis(rgb, -1, 0) / 255, atol=1e-6)


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"sizes": "60000 60000 60000"}, "its header declares 60000 x 60000 x 60000"),
        ({"sizes": "6 5 5"}, "damaged or incomplete|fewer"),
        ({"sizes": "6 5 -4"}, "damaged or incomplete"),
        ({"space": "LPS", "space_directions": "(nan,0,0) (0,1,0) (0,0,1)"}, "damaged or incomplete|invertible"),
        ({"space": "LPS", "space_directions": "(1,0,0) (1,0,0) (0,0,1)"}, "damaged or incomplete|invertible"),
        ({"type": "block"}, "damaged or incomplete"),
        ({"encoding": "rot13"}, "damaged or incomplete"),
        ({"data_file": "../secret.raw"}, "points elsewhere"),
        ({"data_file": "/etc/passwd"}, "points elsewhere"),
        ({"data_file": "absent.raw"}, "none of the name"),
        ({"data_file": "LIST"}, "names several"),
        ({"data_file": "slice%03d.raw 1 4 1"}, "names several"),
    ],
)
def test_headers_that_lie(tmp_path, fields, match):
    (tmp_path / "secret.raw").write_bytes(VALUES.tobytes())
    inner = tmp_path / "inner"
    inner.mkdir()
    started = time.perf_counter()
    with pytest.raises(InputError, match=match) as caught:
        read_image(nrrd(inner / "x", **fields))
    assert time.perf_counter() - started < 10
    assert not re.search("secret|passwd|rot13", str(caught.value))


@pytest.mark.parametrize(
    ("line", "match"),
    [
        ("DistanceUnits = mm", None),
        ("ElementToIntensityFunctionSlope = 1", None),
        ("DistanceUnits = cm", "another unit"),
        ("DistanceUnits = um", "another unit"),
        ("ElementToIntensityFunctionSlope = 2", "rescaled"),
        ("ElementToIntensityFunctionOffset = -1024", "rescaled"),
        ("ElementToIntensityFunctionOffset = twelve", "MetaImage|complete"),
    ],
)
def test_what_itk_reads_past_in_a_metaimage_is_refused(tmp_path, line, match):
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(VALUES), tmp_path / "x.mha")
    content = (tmp_path / "x.mha").read_bytes()
    (tmp_path / "y.mha").write_bytes(content.replace(b"ElementType", line.encode() + b"\nElementType", 1))
    if match is None:
        np.testing.assert_array_equal(read_image(tmp_path / "y.mha").data[0].numpy(), VALUES)
        return
    with pytest.raises(UnreadableImage, match=match):
        read_image(tmp_path / "y.mha")


def test_damage_is_seen(tmp_path):
    whole = nrrd(tmp_path / "a", packed=False).read_bytes()
    (tmp_path / "b").write_bytes(whole[:-20])
    packed = bytearray(nrrd(tmp_path / "c").read_bytes())
    (tmp_path / "d").write_bytes(packed[:-40])
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(VALUES), tmp_path / "e.mha", useCompression=True)
    (tmp_path / "f").write_bytes((tmp_path / "e.mha").read_bytes()[:-40])
    (tmp_path / "g").write_bytes(b"NRRD0004\n" + b"# no end\n" * 9000)
    (tmp_path / "h").write_bytes(b"ObjectType = Image\n" * 9)
    for name in "bdfgh":
        with pytest.raises(UnreadableImage):
            read_image(tmp_path / name)
    hole = VALUES.astype("<f4")
    hole[1, 2, 3] = np.nan
    with pytest.raises(NonFinite):
        read_image(nrrd(tmp_path / "i", hole))


def test_a_link_to_values_elsewhere_is_not_followed(tmp_path):
    (tmp_path / "out.raw").write_bytes(VALUES.tobytes())
    inner = tmp_path / "inner"
    inner.mkdir()
    (inner / "link.raw").symlink_to(tmp_path / "out.raw")
    with pytest.raises(UnreadableImage, match="points elsewhere"):
        read_image(nrrd(inner / "x", packed=False, data_file="link.raw"))


def test_the_bound_on_values_is_that_of_every_reader(tmp_path, monkeypatch):
    monkeypatch.setattr(guard, "MAX_VALUES", VALUES.size - 1)
    with pytest.raises(UnreadableImage, match="at most 119 values"):
        read_image(nrrd(tmp_path / "x"))


def test_a_child_that_hangs_is_stopped_and_a_decoder_that_is_absent_is_named(tmp_path, monkeypatch):
    (tmp_path / "slow.py").write_text("import time; time.sleep(60)")
    (tmp_path / "absent.py").write_text("import sys; sys.exit(3)")
    monkeypatch.setattr(child, "__file__", str(tmp_path / "child.py"))
    with pytest.raises(UnreadableImage, match="within 1 s"):
        child.ask("slow.py", {}, 0.6)
    with pytest.raises(MissingExtra, match=r"pip install 'pellucid\[formats\]'"):
        child.ask("absent.py", {}, 60, "SimpleITK formats")
    assert "SimpleITK" in sys.modules  # the test itself has it: what is absent is said by the child
