"""Partitions of an image: every voxel in one unit, every unit used."""

from math import ceil, prod

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pellucid.core.errors import BadRegion, ShapeMismatch
from pellucid.core.units import blocks, from_labels, superpixels, voxels


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
