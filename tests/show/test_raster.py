"""From voxels to pixels: nothing moved, no peak lost, nothing painted that the rules leave clear."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pellucid.core.grid import Grid
from pellucid.core.image import Image, Modality
from pellucid.show.palette import palette_of
from pellucid.show.raster import Window, gray_of, is_color, linear, paint_base, paint_map, peaks, window_of
from pellucid.show.rules import Display


def image(data: torch.Tensor, modality=Modality.CT, unit="a.u.", window=None) -> Image:
    return Image(data.float(), Grid.regular(data.shape[1:]), modality, unit, window)


@given(st.integers(1, 90), st.integers(1, 90), st.integers(8, 60), st.integers(8, 60), st.integers(0, 10**6))
@settings(max_examples=80, deadline=None)
def test_no_peak_is_lost_at_any_size(rows, columns, height, width, seed):
    rng = np.random.default_rng(seed)
    values = np.zeros((rows, columns), np.float32)
    at = rng.integers(rows), rng.integers(columns)
    values[at] = rng.choice([-5.0, 5.0])
    small = peaks(values, (height, width), smooth=False)
    assert small.shape == (height, width)
    assert set(np.unique(small)) <= {0.0, values[at]}
    found = np.argwhere(small)
    assert len(found)
    center = (found.mean(0) + 0.5) / (height, width)
    wanted = (np.asarray(at) + 0.5) / (rows, columns)
    assert np.abs(center - wanted).max() <= 0.5 * max(1 / height, 1 / width) + 0.5 * max(1 / rows, 1 / columns) + 0.001


def test_layers_are_cut_alike():
    rows, columns = np.mgrid[0:250, 0:190]
    plane = (rows * 2.0 + columns).astype(np.float32)
    for shape in ((100, 80), (250, 190), (500, 399), (83, 190)):
        base, exact = linear(plane, shape), peaks(plane, shape, smooth=True)
        assert np.abs(base - exact).max() < 2 * np.ceil(250 / shape[0]) + np.ceil(190 / shape[1])
        wanted = ((np.arange(shape[0]) + 0.5) * 250 / shape[0] - 0.5) * 2
        column = base[3:-3, shape[1] // 2]
        assert column - column[0] == pytest.approx(wanted[3:-3] - wanted[3], abs=2.1)  # half a voxel is 1


def test_an_image_of_its_own_size_is_not_touched():
    values = np.random.default_rng(0).random((20, 30), np.float32)
    assert (linear(values, (20, 30)) == values).all()
    assert (peaks(values, (20, 30), smooth=False) == values).all()


@pytest.mark.parametrize(
    ("made", "low", "high", "words"),
    [
        (image(torch.rand(1, 4, 4) * 9, window=(-600.0, 1500.0), unit="HU"), -600, 1500, "window \u2212600 to 1500 HU"),
        (image(torch.rand(1, 4, 4) * 30, Modality.PET, "SUVbw"), 0, 7, "window 0 to 7 SUVbw"),
        (image(torch.rand(3, 4, 4), Modality.FUNDUS, "[0,1]"), 0, 1, "window 0 to 1"),
        (image(torch.rand(3, 4, 4) * 200 + 2, Modality.ENDOSCOPY), 0, 255, "window 0 to 255"),
    ],
)
def test_the_window_is_the_images_own_or_fixed(made, low, high, words):
    assert window_of(made) == Window(low, high, words)


def test_percentiles_say_that_they_are_of_this_image():
    window = window_of(image(torch.linspace(-100, 900, 1001).view(1, 7, 143), Modality.MRI))
    assert (window.low, window.high) == pytest.approx((-95, 895))
    assert "of this image" in window.words
    flat = window_of(image(torch.full((1, 4, 4), 3.0)))
    assert paint_base(np.full((1, 4, 4), 3.0, np.float32), flat, palette_of(Modality.CT)).shape == (4, 4, 3)


def test_pet_is_dark_where_uptake_is_high():
    values = np.asarray([[[0.0, 7.0, 30.0]]], np.float32)
    base = paint_base(values, Window(0, 7, ""), palette_of(Modality.PET))
    assert base[0, :, 0] == pytest.approx([1, 0, 0])


def test_color_is_kept_and_a_gray_image_stored_as_color_is_gray():
    rgb = torch.rand(3, 4, 5)
    assert is_color(image(rgb))
    assert not is_color(image(rgb[:1].expand(3, 4, 5)))
    assert not is_color(image(rgb[:2]))
    painted = paint_base(rgb.numpy(), Window(0, 1, ""), palette_of(Modality.FUNDUS))
    assert painted == pytest.approx(np.moveaxis(rgb.numpy(), 0, -1))
    gray = gray_of(painted)
    assert (gray[..., 0] == gray[..., 1]).all()


@pytest.mark.parametrize("modality", list(Modality))
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("alone", [False, True])
def test_the_wash_is_clear_wherever_nothing_may_be_painted(modality, signed, alone):
    values = np.linspace(-6, 6, 121, dtype=np.float32).reshape(11, 11)
    display = Display("shown", 4.0, True, 1.5, signed, "logit", "")
    rgba = paint_map(values, display, palette_of(modality), alone)
    below = (np.abs(values) if signed else values) <= 1.5
    assert (rgba[below][:, 3] == 0).all()
    assert (rgba[~below][:, 3] > 0.25).all()
    withheld = Display("withheld", 4.0, True, 1.5, signed, "logit", "")
    assert (paint_map(values, withheld, palette_of(modality), alone)[..., 3] == 0).all()
