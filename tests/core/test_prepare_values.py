"""Intensities on the way to a network, and a value in the image's unit as the network sees it."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pellucid.core.case import Case, Region, as_mask
from pellucid.core.errors import BadRegion, NonFinite, ShapeMismatch, UnknownName
from pellucid.core.grid import Calibration, Grid, as_affine
from pellucid.core.image import Image, Modality
from pellucid.core.prepare import InputSpec, prepare


def draw(*shape, seed=0, scale=300.0, shift=40.0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * scale + shift


def ready_of(data, **spec):
    rank = data.ndim - 1
    return prepare(Image(data, Grid.regular(data.shape[1:])), InputSpec(rank=rank, channels=len(data), **spec))


def test_a_window_clips_and_maps_to_zero_and_one() -> None:
    data = draw(1, 20, 30)
    ready = ready_of(data, window=(-160.0, 240.0), scale="unit")
    assert torch.allclose(ready.tensor, (data.clamp(-160, 240) + 160) / 400, atol=1e-6)
    assert (ready.shift, ready.scale) == ((-160.0,), (400.0,))


def test_percentiles_clip_and_map_to_zero_and_one() -> None:
    data = draw(1, 20, 30)
    low, high = np.percentile(data.numpy(), (1, 99))
    ready = ready_of(data, percentiles=(1.0, 99.0), scale="unit")
    assert torch.allclose(ready.tensor, ((data.clamp(low, high) - low) / (high - low)).float(), atol=1e-6)
    assert float(ready.tensor.min()) == pytest.approx(0, abs=1e-6)
    assert float(ready.tensor.max()) == pytest.approx(1, abs=1e-6)


def test_unit_scale_without_a_window_takes_the_range_of_the_image() -> None:
    data = draw(3, 20, 30)
    ready = ready_of(data, order="rgb", scale="unit")
    assert torch.allclose(ready.tensor, (data - data.min()) / (data.max() - data.min()), atol=1e-6)


def test_zscore_is_taken_after_clipping() -> None:
    data = draw(1, 8, 9, 10)
    ready = ready_of(data, window=(-100.0, 100.0), scale="zscore")
    clipped = data.clamp(-100, 100)
    assert torch.allclose(ready.tensor, (clipped - clipped.mean()) / clipped.std(unbiased=False), atol=1e-5)
    assert float(ready.tensor.std(unbiased=False)) == pytest.approx(1, abs=1e-5)


def test_mean_and_std_come_last_and_per_channel() -> None:
    data = torch.rand(3, 8, 9) * 255
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    ready = ready_of(data, order="rgb", window=(0.0, 255.0), scale="unit", mean=mean, std=std)
    expected = (data / 255 - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
    assert torch.allclose(ready.tensor, expected, atol=1e-5)


def test_without_any_of_these_values_stay() -> None:
    data = draw(1, 8, 9)
    assert torch.equal(ready_of(data).tensor, data)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    st.floats(-1000, 400), st.floats(1, 2000), st.sampled_from(["none", "unit", "zscore"]),
    st.floats(-2, 2), st.floats(0.05, 3), st.floats(0, 1),
)  # fmt: skip
def test_a_physical_value_is_seen_as_the_image_shows_it(low, width, scale, mean, std, part) -> None:
    """Whatever the chain, a voxel of this value becomes this number; outside the window the number goes on."""
    value = low + part * width
    data = draw(1, 12, 12)
    data[0, 5, 7] = value
    ready = ready_of(data, window=(low, low + width), scale=scale, mean=(mean,), std=(std,))
    seen = float(ready.tensor[0, 5, 7])
    assert float(ready.physical(value)[0]) == pytest.approx(seen, rel=1e-4, abs=1e-3)
    back = seen * ready.scale[0] + ready.shift[0]
    assert back == pytest.approx(value, rel=1e-4, abs=1e-2)


def test_a_constant_image_divides_by_nothing() -> None:
    for scale in ("unit", "zscore"):
        ready = ready_of(torch.full((1, 6, 6), 7.0), scale=scale)
        assert bool((ready.tensor == 0).all())


def test_percentiles_of_a_cropped_field_are_those_of_the_field() -> None:
    data = torch.zeros(1, 40, 40)
    data[:, 10:30, 12:28] = torch.rand(20, 16, generator=torch.Generator().manual_seed(0)) + 1
    ready = ready_of(data, crop="field", percentiles=(5.0, 95.0), scale="unit")
    low, high = np.percentile(data[0, 10:30, 12:28].numpy(), (5, 95))
    assert ready.grid.shape == (20, 16)
    assert ready.shift[0] == pytest.approx(low)
    assert ready.scale[0] == pytest.approx(high - low)


def test_channels_come_in_the_networks_order() -> None:
    data = torch.rand(3, 6, 6)
    assert torch.equal(ready_of(data, order="bgr").tensor, data.flip(0))
    gray = Image(data[:1], Grid.regular((6, 6)))
    assert torch.equal(prepare(gray, InputSpec(channels=3, order="gray-repeated")).tensor, data[:1].expand(3, 6, 6))
    stored = Image(data[:1].expand(3, 6, 6), Grid.regular((6, 6)))
    ready = prepare(stored, InputSpec())
    assert torch.equal(ready.tensor, data[:1])
    assert "one channel taken" in ready.notes[0]


def test_whole_numbers_become_floats() -> None:
    image = Image(torch.arange(36, dtype=torch.int16).view(1, 6, 6).float(), Grid.regular((6, 6)))
    assert prepare(image, InputSpec()).tensor.dtype is torch.float32


def test_the_image_itself_is_not_changed() -> None:
    data = draw(1, 8, 8)
    kept = data.clone()
    ready = ready_of(data, window=(-10.0, 10.0), scale="unit")
    ready.tensor.add_(1)
    assert torch.equal(data, kept)


# images


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_voxels_that_are_no_numbers_are_counted(bad) -> None:
    data = torch.zeros(2, 4, 4)
    data[0, 1, 1:3] = bad
    with pytest.raises(NonFinite, match=r"got 2 of 32 that are NaN or infinite.*replace them"):
        Image(data, Grid.regular((4, 4)))


@pytest.mark.parametrize("shape", [(1, 4, 5), (1, 4, 4, 4), (4, 4)])
def test_data_and_grid_must_agree(shape) -> None:
    with pytest.raises(ShapeMismatch, match=r"\(channel, 4, 4\)"):
        Image(torch.zeros(shape), Grid.regular((4, 4)))


def test_the_digest_follows_values_and_geometry() -> None:
    data = draw(1, 4, 4)
    digest = Image(data, Grid.regular((4, 4))).digest
    assert digest == Image(data.double(), Grid.regular((4, 4)), Modality.CT).digest
    changed = data.clone()
    changed[0, 3, 3] += 1e-3
    others = [
        Image(changed, Grid.regular((4, 4))),
        Image(data, Grid.regular((4, 4), (1.0, 1.0))),
        Image(data, Grid.regular((4, 4)).cropped((1, 0), (4, 4))),
        Image(data.view(1, 2, 8), Grid.regular((2, 8))),
    ]
    assert len({digest, *(o.digest for o in others)}) == 5
    # minus zero in an affine is zero
    negative = np.eye(4)
    negative[0, 1] = -0.0
    assert Image(data, Grid((4, 4), as_affine(negative))).digest == digest


def test_a_crop_of_an_image_keeps_its_place() -> None:
    image = Image(draw(2, 8, 9), Grid.regular((8, 9), (0.5, 0.7)), Modality.FUNDUS, "[0,1]", (0.0, 1.0), {"view": "AP"})
    part = image.cropped((2, 3), (4, 5))
    assert torch.equal(part.data, image.data[:, 2:6, 3:8])
    assert np.allclose(part.grid.world(np.zeros((1, 2))), image.grid.world(np.array([[2.0, 3.0]])))
    assert (part.modality, part.unit, part.window, part.traits) == (
        image.modality, image.unit, image.window, image.traits,
    )  # fmt: skip
    for start, shape in (((-1, 0), (2, 2)), ((6, 0), (3, 2))):
        with pytest.raises(ShapeMismatch, match="box inside"):
            image.cropped(start, shape)


# regions and cases


def test_a_region_moves_with_the_world() -> None:
    grid = Grid((12, 10, 8), as_affine(np.diag([1.0, 1.5, 2.0, 1.0])), Calibration.PATIENT)
    mask = torch.zeros(12, 10, 8, dtype=torch.bool)
    mask[2:5, 1:4, 3:6] = True
    region = Region(mask, grid)
    assert torch.equal(region.on(grid), mask)
    turned = region.on(grid.reoriented("ASR"))
    assert int(turned.sum()) == int(mask.sum())
    assert torch.equal(Region(turned, grid.reoriented("ASR")).on(grid), mask)
    finer = region.on(grid.resized((24, 20, 16)))
    assert torch.equal(finer, mask.repeat_interleave(2, 0).repeat_interleave(2, 1).repeat_interleave(2, 2))
    assert not bool(region.on(grid.cropped((5, 0, 0), (7, 10, 8))).any())


def test_a_region_that_is_none_is_refused() -> None:
    with pytest.raises(BadRegion, match="empty mask"):
        Region(torch.zeros(4, 4, dtype=torch.bool), Grid.regular((4, 4)))
    with pytest.raises(BadRegion, match=r"of shape \(4, 4\), got \(5, 4\)"):
        Region(torch.ones(5, 4, dtype=torch.bool), Grid.regular((4, 4)))


def test_any_voxel_that_is_not_zero_is_in_a_mask() -> None:
    assert as_mask(torch.tensor([[0, 1], [255, -3]])).tolist() == [[False, True], [True, True]]


def test_a_case_lists_its_regions() -> None:
    grid = Grid.regular((4, 4))
    lesion = Region(torch.eye(4) > 0, grid)
    case = Case("c1", {"image": Image(torch.zeros(1, 4, 4), grid)}, {"lesion": lesion})
    assert case.region("lesion") is lesion
    with pytest.raises(UnknownName, match=r"no region 'tumor'\. regions: lesion"):
        case.region("tumor")
