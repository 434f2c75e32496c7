"""What is planted at a place of the world is found there, in the network's input and back on the image's grid."""

from pathlib import Path

import nibabel
import nilearn
import numpy as np
import pytest
import skimage
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as Pillow
from scipy.spatial.transform import Rotation

from pellucid.core.errors import BadOption, ShapeMismatch
from pellucid.core.grid import Calibration, Grid, as_affine
from pellucid.core.image import Image
from pellucid.core.prepare import InputSpec, prepare

MNI = Path(nilearn.__file__).parent / "datasets" / "data" / "mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz"
RETINA = Path(skimage.__file__).parent / "data" / "retina.jpg"


def positions(grid):
    index = np.stack(np.meshgrid(*(np.arange(n) for n in grid.shape), indexing="ij"), -1)
    return grid.world(index.reshape(-1, grid.rank).astype(float))


def blob(grid, place, sigma):
    """A Gaussian blob about a place of the world: "1 1 *space"."""
    distance = np.linalg.norm(positions(grid) - place, axis=1)
    return torch.from_numpy(np.exp(-0.5 * (distance / sigma) ** 2)).float().view(1, 1, *grid.shape)


def centroid(x, grid):
    """The world's place about which a map's values balance."""
    weights = x.double().flatten().numpy()
    return (positions(grid) * weights[:, None]).sum(0) / weights.sum()


def oblique(shape, spacing, angles, rank):
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_euler("xyz", angles, degrees=True).as_matrix() * np.array(spacing)
    matrix[:3, 3] = (-91.0, 126.0, -72.0)
    return Grid(shape[:rank], as_affine(matrix), Calibration.PATIENT)


def check_place(image_grid, spec, fraction=(0.45, 0.55, 0.5), sigma=None):
    """Plant, prepare, look, restore, look again."""
    rank = image_grid.rank
    place = image_grid.world((np.array(fraction[:rank]) * (np.array(image_grid.shape) - 1))[None])[0]
    sigma = sigma or 2.5 * max(image_grid.spacing)
    image = Image(blob(image_grid, place, sigma)[0], image_grid)
    ready = prepare(image, spec)
    assert ready.tensor.shape == (1, *ready.grid.shape)
    seen = centroid(ready.tensor, ready.grid)
    assert np.linalg.norm(seen - place) < 0.5 * min(image_grid.spacing)
    back = ready.restore(ready.tensor[None])
    assert back.shape == (1, 1, *image_grid.shape)
    assert np.linalg.norm(centroid(back, image_grid) - place) < 0.5 * min(image_grid.spacing)
    # a map made by the network at the place, from nothing of the image
    wide = max(sigma, 2 * max(ready.grid.spacing))
    mark, expected = (centroid(m, image_grid) for m in (
        ready.restore(blob(ready.grid, place, wide)), blob(image_grid, place, wide) * ready.seen,
    ))  # fmt: skip
    assert np.linalg.norm(mark - expected) < 0.5 * min(image_grid.spacing)
    return ready


FITS = ["stretch", "letterbox", "cover", "crop"]


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("size", [(64, 64), (97, 53), (31, 80)])
def test_a_place_in_a_picture_comes_back(fit, size) -> None:
    ready = check_place(Grid.regular((90, 71)), InputSpec(size=size, fit=fit), sigma=3.0)
    assert ready.grid.shape == size
    step = np.array(ready.grid.spacing)
    if fit == "crop":
        assert np.allclose(step, 1)
    if fit in ("letterbox", "cover"):
        assert step[0] == pytest.approx(step[1])
    if fit in ("stretch", "cover"):  # nothing of the input lies beyond the picture
        corner = ready.grid.world(np.array([[-0.5, -0.5], np.array(size) - 0.5]))[:, :2]
        assert (corner[0] >= -0.5 - 1e-6).all()
        assert (corner[1] <= np.array([90, 71]) - 0.5 + 1e-6).all()
    if fit == "letterbox":
        assert bool(ready.seen.all())


@pytest.mark.parametrize("orientation", [None, "RAS", "LPS", "ASR", "SPL", "IRA"])
@pytest.mark.parametrize("spacing", [None, (2.0, 2.0, 2.0), (1.0, 3.0, 1.5)])
def test_a_place_in_a_volume_comes_back_whatever_the_orientation(orientation, spacing) -> None:
    grid = oblique((34, 29, 18), (1.1, 1.4, 2.5), (10, -15, 20), 3)
    ready = check_place(grid, InputSpec(rank=3, orientation=orientation, spacing=spacing))
    if orientation:
        assert "".join(ready.grid.letters).replace("H", "S").replace("F", "I") == orientation
    if spacing:
        assert np.allclose(ready.grid.spacing, spacing)


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("orientation", [None, "ASR"])
def test_a_place_in_a_volume_comes_back_whatever_the_fit(fit, orientation) -> None:
    grid = oblique((34, 29, 18), (1.1, 1.4, 2.5), (10, -15, 20), 3)
    for spacing in (None, (2.0, 2.0, 2.0)):
        spec = InputSpec(rank=3, orientation=orientation, size=(32, 24, 28), fit=fit, spacing=spacing)
        check_place(grid, spec, fraction=(0.5, 0.48, 0.5), sigma=2.2)  # narrow: some of these cut the field


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    st.tuples(*[st.floats(-180, 180)] * 3),
    st.tuples(*[st.floats(0.6, 2.5)] * 3),
    st.permutations("LPS"),
    st.tuples(*[st.booleans()] * 3),
    st.sampled_from([None, (1.5, 1.5, 1.5)]),
)
def test_a_place_comes_back_from_any_oblique_volume(angles, spacing, order, flips, target) -> None:
    grid = oblique((30, 26, 22), spacing, angles, 3)
    letters = "".join({"L": "R", "P": "A", "S": "I"}[c] if f else c for c, f in zip(order, flips, strict=True))
    check_place(grid, InputSpec(rank=3, orientation=letters, spacing=target), sigma=2.5)


@pytest.mark.parametrize("multiple", [1, 8, 16])
def test_sizes_are_padded_to_a_multiple_without_touching_a_voxel(multiple) -> None:
    data = torch.randn(1, 35, 51, 22, generator=torch.Generator().manual_seed(0))
    ready = prepare(Image(data, Grid.regular((35, 51, 22), (1.0, 1.0, 1.0))), InputSpec(rank=3, multiple=multiple))
    assert all(n % multiple == 0 and 0 <= n - m < multiple for n, m in zip(ready.grid.shape, (35, 51, 22), strict=True))
    assert torch.equal(ready.restore(ready.tensor[None])[0], data)
    assert float((ready.tensor != 0).sum()) == data.numel()  # the rest is the pad


def test_a_spacing_that_is_off_by_rounding_resamples_nothing() -> None:
    data = torch.randn(1, 21, 20, 19, generator=torch.Generator().manual_seed(0))
    spec = InputSpec(rank=3, spacing=(1.0, 1.0, 1.0), size=(16, 24, 16))
    ready = prepare(Image(data, Grid.regular((21, 20, 19), (0.99999, 1.00002, 1.0))), spec)
    assert torch.allclose(ready.tensor[:, :, 2:22], data[:, 2:18, :, 1:17], atol=1e-4)


@pytest.mark.parametrize("pad", [0.0, -1.5, "edge"])
def test_what_lies_beyond_the_image_is_the_pad(pad) -> None:
    data = torch.rand(1, 10, 20, generator=torch.Generator().manual_seed(0)) + 1
    ready = prepare(Image(data, Grid.regular((10, 20))), InputSpec(size=(20, 20), fit="letterbox", pad=pad))
    assert torch.equal(ready.tensor[:, 5:15], data)
    above = ready.tensor[:, :5]
    assert torch.equal(above, data[:, :1].expand_as(above) if pad == "edge" else torch.full_like(above, pad))


def test_a_crop_sees_only_its_part_and_says_so() -> None:
    data = torch.rand(1, 30, 20)
    ready = prepare(Image(data, Grid.regular((30, 20))), InputSpec(size=(10, 40), fit="crop"))
    seen = torch.zeros(30, 20, dtype=torch.bool)
    seen[10:20] = True
    assert torch.equal(ready.seen, seen)
    back = ready.restore(torch.ones(1, 1, 10, 40))[0, 0]
    assert torch.equal(back > 0, seen)


# real images


@pytest.fixture(scope="module")
def brain():
    """The MNI152 template at every third voxel, as its NIfTI header places it."""
    file = nibabel.load(MNI)
    small = file.slicer[::3, ::3, ::3]
    data = torch.from_numpy(np.asarray(small.dataobj, np.float32))[None]
    return Image(
        data, Grid(tuple(data.shape[1:]), as_affine(np.diag([-1, -1, 1, 1]) @ small.affine), Calibration.PATIENT)
    )


@pytest.mark.parametrize("letters", ["RAS", "LPS", "ASR", "LIP"])
def test_left_is_left_in_a_real_brain(brain, letters) -> None:
    """A mark 40 mm to the left of the midline: x is +40 in LPS, -40 in RAS."""
    place = np.array([40.0, -10.0, 20.0])
    mark = blob(brain.grid, place, 6.0)[0]
    ready = prepare(Image(brain.data + 9 * brain.data.max() * mark, brain.grid), InputSpec(rank=3, orientation=letters))
    found = np.array(np.unravel_index(int(ready.tensor[0].argmax()), ready.grid.shape))
    assert np.abs(ready.grid.world(found[None].astype(float))[0] - place).max() <= 3
    axis = next(i for i, c in enumerate(letters) if c in "LR")
    middle = ready.grid.index(np.zeros((1, 3)))[0, axis]
    assert (found[axis] > middle) == (letters[axis] == "L")
    # nibabel, by its own means, puts the mark at the same voxel
    affine = np.diag([-1, -1, 1, 1]) @ brain.grid.matrix
    theirs = nibabel.Nifti1Image(mark[0].numpy(), affine)
    turn = nibabel.orientations.ornt_transform(
        nibabel.io_orientation(affine), nibabel.orientations.axcodes2ornt(tuple(letters))
    )
    turned = theirs.as_reoriented(turn)
    assert np.array_equal(np.unravel_index(np.asarray(turned.dataobj).argmax(), turned.shape), found)
    # and the map comes back to the left side of the image as read
    back = ready.restore(ready.tensor[None])[0]
    assert torch.equal(back, brain.data + 9 * brain.data.max() * mark)


def test_a_real_brain_through_another_lattice_and_back_is_the_same_brain(brain) -> None:
    spec = InputSpec(rank=3, orientation="ASR", spacing=(2.0, 2.0, 2.0), multiple=8)
    ready = prepare(brain, spec)
    back = ready.restore(ready.tensor[None])[0]
    together = np.corrcoef(back.flatten().numpy(), brain.data.flatten().numpy())[0, 1]
    assert together > 0.99
    # the symmetric template would hide a flip: its left half alone would not
    half = brain.data.clone()
    half[:, positions_of_side(brain.grid)] = 0
    ready = prepare(Image(half, brain.grid), spec)
    back = ready.restore(ready.tensor[None])[0]
    assert np.corrcoef(back.flatten().numpy(), half.flatten().numpy())[0, 1] > 0.99
    assert float(ready.tensor[..., positions_of_side(ready.grid)].abs().mean()) < 0.02 * float(ready.tensor.mean())


def positions_of_side(grid):
    """Voxels more than 6 mm to the right."""
    return torch.from_numpy(positions(grid)[:, 0].reshape(grid.shape) < -6)


def test_a_real_fundus_photograph_is_cut_to_its_field() -> None:
    pixels = np.asarray(Pillow.open(RETINA).reduce(4))
    data = torch.from_numpy(pixels.astype(np.float32) / 255).movedim(-1, 0)
    image = Image(data, Grid.regular(pixels.shape[:2]))
    spec = InputSpec(channels=3, order="rgb", size=(256, 256), fit="letterbox", crop="field")
    ready = prepare(image, spec)
    bright = pixels.max(2) > pixels.max(2).min() + 0.1 * np.ptp(pixels)
    rows, columns = np.flatnonzero(bright.any(1)), np.flatnonzero(bright.any(0))
    center = np.array([[(rows[0] + rows[-1]) / 2, (columns[0] + columns[-1]) / 2]])
    assert np.abs(ready.grid.index(image.grid.world(center)) - 127.5).max() < 1e-6
    back = ready.restore(ready.tensor[None])[0].mean(0)
    seen = ready.seen
    assert np.corrcoef(back[seen].numpy(), data.mean(0)[seen].numpy())[0, 1] > 0.98
    # the brightest place, the optic disc, is where it was
    disc = [np.array(np.unravel_index(int(blurred.argmax()), blurred.shape)) for blurred in (
        torch.nn.functional.avg_pool2d(back[None, None], 15, 1, 7)[0, 0],
        torch.nn.functional.avg_pool2d(data.mean(0)[None, None], 15, 1, 7)[0, 0],
    )]  # fmt: skip
    assert np.abs(disc[0] - disc[1]).max() <= 3


# what cannot be prepared


def test_millimeters_and_orientation_need_an_image_that_has_them() -> None:
    picture = Image(torch.rand(1, 8, 8), Grid.regular((8, 8)))
    with pytest.raises(BadOption, match=r"voxels of \(1\.0, 1\.0\) mm.*DICOM, NIfTI"):
        prepare(picture, InputSpec(spacing=(1.0, 1.0)))
    stack = Image(torch.rand(1, 8, 8, 8), Grid.regular((8, 8, 8), (1.0, 1.0, 1.0)))
    with pytest.raises(BadOption, match="not in patient space"):
        prepare(stack, InputSpec(rank=3, orientation="RAS"))


def test_rank_and_channels_are_checked() -> None:
    picture = Image(torch.rand(1, 8, 8), Grid.regular((8, 8)))
    with pytest.raises(ShapeMismatch, match=r"takes 3-D images, got a 2-D one.*choose a slice"):
        prepare(picture, InputSpec(rank=3))
    with pytest.raises(ShapeMismatch, match=r"takes 3 channel\(s\) \(rgb\), got 1.*gray-repeated"):
        prepare(picture, InputSpec(channels=3, order="rgb"))
    with pytest.raises(ShapeMismatch, match=r"takes 1 channel\(s\) \(gray\), got 3"):
        prepare(Image(torch.rand(3, 8, 8), Grid.regular((8, 8))), InputSpec())


def test_a_uniform_image_has_no_field() -> None:
    with pytest.raises(BadOption, match="uniform"):
        prepare(Image(torch.full((1, 8, 8), 3.0), Grid.regular((8, 8))), InputSpec(crop="field"))


@pytest.mark.parametrize(
    "wrong",
    [{"spacing": (1.0,)}, {"spacing": (1.0, 0.0)}, {"size": (8, 8, 8)}, {"size": (8, 0)}, {"multiple": 0},
     {"mean": (0.5, 0.5)}, {"std": (0.0,)}, {"std": (1.0, 1.0)}, {"window": (100.0, 100.0)},
     {"window": (400.0, -160.0)}],
)  # fmt: skip
def test_numbers_that_do_not_fit_the_input_are_refused(wrong) -> None:
    with pytest.raises(BadOption, match="input 'image': expected"):
        InputSpec(**wrong)
