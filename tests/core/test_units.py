"""Partitions of an image: every voxel in one unit, every unit used."""

from math import ceil, prod

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pellucid.core.errors import BadOption, BadRegion, ShapeMismatch
from pellucid.core.units import blocks, body, from_labels, from_regions, superpixels, tiles, voxels


def check_partition(units, shape):
    assert tuple(units.labels.shape) == tuple(shape)
    assert units.labels.unique().tolist() == list(range(units.count))


@settings(max_examples=50, deadline=None, derandomize=True)
@given(st.data(), st.sampled_from([2, 3]))
def test_blocks_are_boxes_of_the_size_asked(data, rank) -> None:
    shape = data.draw(st.tuples(*[st.integers(1, 17)] * rank))
    size = data.draw(st.tuples(*[st.integers(1, 20)] * rank))
    units = blocks(shape, size)
    check_partition(units, shape)
    assert units.count == prod(ceil(n / s) for n, s in zip(shape, size, strict=True))
    for label in range(units.count):
        where = torch.nonzero(units.labels == label)
        low, high = where.amin(0), where.amax(0) + 1
        assert len(where) == int((high - low).prod())  # a full box
        assert all(int(a) % s == 0 for a, s in zip(low, size, strict=True))
        assert all(int(b - a) == s or int(b) == n for a, b, s, n in zip(low, high, size, shape, strict=True))


@pytest.mark.parametrize("size", [(4,), (4, 4, 4), (4, 0)])
def test_a_block_needs_a_length_for_each_axis(size) -> None:
    with pytest.raises(ShapeMismatch, match="one length per axis"):
        blocks((8, 8), size)


def test_every_voxel_may_be_a_unit() -> None:
    units = voxels((3, 4))
    check_partition(units, (3, 4))
    assert units.count == 12


def test_means_and_masks_are_those_of_the_voxels() -> None:
    values = torch.randn(9, 10, generator=torch.Generator().manual_seed(0))
    units = blocks((9, 10), (4, 3))
    expected = [values[units.labels == i].mean() for i in range(units.count)]
    assert torch.allclose(units.means(values), torch.stack(expected), atol=1e-6)
    shown = torch.arange(units.count) % 2 == 0
    assert torch.equal(units.mask(shown), (units.labels % 2 == 0).float())


def test_superpixels_follow_edges() -> None:
    image = torch.zeros(1, 40, 40)
    image[:, 11:] = 1
    image[:, :, 23:] += 1
    units = superpixels(image, 16, (1.0, 1.0))
    check_partition(units, (40, 40))
    assert 4 <= units.count <= 32
    spread = [image[0][units.labels == i].std(unbiased=False) for i in range(units.count)]
    assert float(torch.stack(spread).mean()) < 0.02


def test_supervoxels_are_compact_in_millimeters() -> None:
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(1, 12, 36, 36, generator=generator) * 0.01
    units = superpixels(image, 27, (6.0, 2.0, 2.0))
    check_partition(units, (12, 36, 36))
    extents = []
    for i in range(units.count):
        where = torch.nonzero(units.labels == i).double()
        extents.append((where.std(0) * torch.tensor([6.0, 2.0, 2.0])).numpy())
    depth, height, width = np.mean(extents, 0)
    assert 0.5 < depth / height < 2
    assert 0.5 < width / height < 2


def test_any_label_map_makes_units_without_gaps() -> None:
    units = from_labels(torch.tensor([[7, 7, 300], [-2, 7, 300]]), ("air", "liver", "spleen"))
    assert units.labels.tolist() == [[1, 1, 2], [0, 1, 2]]
    assert (units.count, units.names) == (3, ("air", "liver", "spleen"))
    with pytest.raises(BadRegion, match="single label"):
        from_labels(torch.full((4, 4), 3))


@settings(max_examples=50, deadline=None, derandomize=True)
@given(st.data(), st.sampled_from([2, 3]))
def test_tiles_are_alike_to_a_voxel(data, rank) -> None:
    shape = data.draw(st.tuples(*[st.integers(1, 12)] * rank))
    counts = tuple(data.draw(st.integers(1, n)) for n in shape)
    units = tiles(shape, counts)
    check_partition(units, shape)
    assert units.count == prod(counts)
    for axis, (n, c) in enumerate(zip(shape, counts, strict=True)):
        line = torch.bincount(units.labels.movedim(axis, 0).flatten(1)[:, 0].unique(return_inverse=True)[1])
        assert len(line) == c
        assert int(line.max() - line.min()) <= 1
        assert int(line.sum()) == n


def test_tiles_need_a_voxel_each_and_a_count_for_each_axis() -> None:
    with pytest.raises(BadOption, match=r"at most \(4, 2\) blocks"):
        tiles((4, 2), (3, 3))
    with pytest.raises(ShapeMismatch, match="write one number for all axes"):
        tiles((4, 2), (2, 2, 2))


def test_a_value_spread_over_its_unit_keeps_its_sum() -> None:
    units = tiles((7, 9), (2, 3))
    values = torch.randn(6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    density = units.density(values)
    assert float(density.sum()) == pytest.approx(float(values.sum()), abs=1e-12)
    sums = [float(density[units.labels == i].sum()) for i in range(6)]
    assert sums == pytest.approx(values.tolist(), abs=1e-12)
    assert all(density[units.labels == i].unique().numel() == 1 for i in range(6))


def test_centers_and_extent_are_those_of_the_boxes() -> None:
    units = tiles((4, 6, 9), (2, 2, 3))
    assert units.extent() == (2, 3, 3)
    assert units.centers()[0].tolist() == [0.5, 1, 1]
    assert units.centers()[-1].tolist() == [2.5, 4, 7]


def disc(side=96, radius=30, noise=0.0):
    """A bright ball with a hole of air in it, on black."""
    grids = torch.meshgrid(*(torch.arange(side) - side // 2,) * 2, indexing="ij")
    away = (grids[0] ** 2 + grids[1] ** 2).sqrt()
    ball = (away < radius) & (away >= 6)
    drawn = torch.rand(side, side, generator=torch.Generator().manual_seed(0))
    return (ball * (1 + grids[1] / side) + noise * drawn)[None].float(), away < radius


@pytest.mark.parametrize("noise", [0.0, 0.01])
def test_the_body_is_what_is_framed_and_its_holes_are_its_own(noise) -> None:
    image, inside = disc(noise=noise)
    assert float((body(image) != inside).float().mean()) < 0.005
    assert torch.equal(body(1 - image), body(image))
    assert bool(body(torch.rand(1, 20, 20)).all())
    assert bool(body(torch.ones(1, 20, 20)).all())


def test_one_hot_organ_does_not_make_the_body_flat() -> None:
    image, inside = disc()
    image[0, 50:54, 60:64] = 100
    assert float((body(image) != inside).float().mean()) < 0.01


def test_superpixels_stay_inside_the_body_and_leave_one_unit_outside() -> None:
    image, _ = disc()
    units = superpixels(image, 20, (1.0, 1.0))
    check_partition(units, (96, 96))
    assert 12 <= units.count <= 30
    outside = ~body(image)
    assert units.labels[outside].unique().tolist() == [0]
    assert bool((units.labels[~outside] > 0).all())
    assert torch.equal(superpixels(image, 20, (0.1, 0.1)).labels, units.labels)  # the unit of length is nobody's matter
    again = superpixels(image * 1000 - 20, 20, (1.0, 1.0))
    assert float((again.labels != units.labels).float().mean()) < 0.02


def test_color_is_not_weighed_more_than_gray() -> None:
    gray = superpixels(disc()[0], 20, (1.0, 1.0))
    color = superpixels(disc()[0].expand(3, -1, -1), 20, (1.0, 1.0))
    assert float((gray.labels != color.labels).float().mean()) < 0.02


def test_as_many_superpixels_as_there_is_room_for() -> None:
    assert superpixels(torch.rand(1, 16, 16), 1, (1.0, 1.0)).count == 1
    with pytest.raises(BadOption, match="from 1 to 32 superpixels"):
        superpixels(torch.rand(1, 16, 16), 60, (1.0, 1.0))


def test_regions_take_their_voxels_and_the_rest_is_named() -> None:
    lung, nodule = torch.zeros(6, 6, dtype=torch.bool), torch.zeros(6, 6, dtype=torch.bool)
    lung[1:5, 1:5] = True
    nodule[2:4, 2:4] = True
    units = from_regions({"nodule": nodule, "lung": lung}, (6, 6))
    assert units.names == ("nodule", "lung", "rest")
    assert units.sizes.tolist() == [4, 12, 20]
    whole = from_regions({"nodule": nodule, "other": ~nodule}, (6, 6))
    assert (whole.names, whole.count) == (("nodule", "other"), 2)


@pytest.mark.parametrize(
    ("regions", "says"),
    [
        ({}, "no regions to be players"),
        ({"a": torch.ones(3, 3, dtype=torch.bool)}, r"on the image's grid \(6, 6\)"),
        ({"a": torch.zeros(6, 6, dtype=torch.bool)}, "no voxel belongs to a alone"),
        ({"a": torch.ones(6, 6, dtype=torch.bool), "b": torch.ones(6, 6, dtype=torch.bool)}, "covered by smaller"),
    ],
)
def test_regions_that_cannot_play_are_refused(regions, says) -> None:
    with pytest.raises(BadRegion, match=says):
        from_regions(regions, (6, 6))


def test_half_resolution_keeps_the_outline(shared_data) -> None:
    """Of a hippocampus outlined by experts, most of the border runs along supervoxels: more than along equal blocks."""
    import nibabel as nib
    from scipy.ndimage import distance_transform_edt
    from skimage.segmentation import find_boundaries

    found, plain = [], []
    for path in sorted((shared_data / "mri_hippocampus" / "images").glob("*.nii.gz"))[:5]:
        image = torch.from_numpy(np.asarray(nib.load(path).dataobj, dtype=np.float32))[None]
        outline = find_boundaries(
            np.asarray(nib.load(path.parents[1] / "labels" / path.name).dataobj) > 0, mode="inner"
        )
        for units, recalls in ((superpixels(image, 60, (1.0,) * 3), found), (tiles(image.shape[1:], (4,) * 3), plain)):
            away = distance_transform_edt(~find_boundaries(units.labels.numpy(), mode="thick"))
            recalls.append(float((away[outline] <= 1).mean()))
    assert np.mean(found) > 0.85
    assert np.mean(found) > np.mean(plain)
