"""How alike two maps are: second implementations, and a chance level that holds for smooth maps too."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr

from pellucid.metrics.randomization.alike import Measure

SPEARMAN, SSIM = Measure("spearman"), Measure("ssim")


def noise(seed, *shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def smooth(seed, width, *shape):
    """Gaussian noise with a correlation length, on a torus or cut out of one that is twice as wide."""
    around = torch.fft.fftn(noise(seed, *shape), dim=tuple(range(1, len(shape))))
    for axis, side in enumerate(shape[1:], start=1):
        wave = torch.fft.fftfreq(side).double()
        around = around * torch.exp(-0.5 * (2 * torch.pi * width * wave) ** 2).view(-1, *(1,) * (len(shape) - 1 - axis))
    return torch.fft.ifftn(around, dim=tuple(range(1, len(shape)))).real


@pytest.mark.parametrize("shape", [(9, 11), (4, 5, 6)])
def test_ranks_and_their_shifts_are_scipy_s(shape):
    one, other = noise(1, 2, *shape).round(decimals=1), noise(2, 2, *shape)  # the first with ties
    ready = SPEARMAN.ready(one), SPEARMAN.ready(other)
    assert SPEARMAN.alike(*ready).tolist() == pytest.approx([spearmanr(a, b)[0] for a, b in pairs(one, other)])
    every = [
        [spearmanr(a.flatten(), b.roll(s, tuple(range(a.ndim))).flatten())[0] for s in np.ndindex(*shape)]
        for a, b in zip(one, other, strict=True)
    ]
    got = SPEARMAN.chance(*ready, seed=0)
    assert got["low"] == pytest.approx(np.quantile(every, 0.025, axis=1), abs=1e-9)
    assert got["high"] == pytest.approx(np.quantile(every, 0.975, axis=1), abs=1e-9)
    share = [np.mean(np.array(e) >= e[0] - 1e-12) for e in every]
    assert got["share of shifts that give as much"] == pytest.approx(share)


def pairs(one, other):
    return zip(one.flatten(1), other.flatten(1), strict=True)


def test_chance_of_white_noise_is_the_textbook_s():
    """A standard deviation of 1 / sqrt(d - 1), so a band of 1.96 of them."""
    ready = SPEARMAN.ready(noise(3, 4, 40, 40)), SPEARMAN.ready(noise(4, 4, 40, 40))
    band = SPEARMAN.chance(*ready, seed=0)
    assert band["high"] == pytest.approx([1.96 / 1599**0.5] * 4, rel=0.15)
    assert band["low"] == pytest.approx([-1.96 / 1599**0.5] * 4, rel=0.15)


@pytest.mark.parametrize("cut", [False, True], ids=["torus", "cut out"])
def test_chance_of_smooth_noise_holds_where_the_textbook_s_does_not(cut):
    """Unrelated smooth maps leave the band in about 5 of 100 cases, and that of white noise in most."""
    side = 48 if cut else 24
    one, other = (smooth(s, 2.0, 200, side, side)[:, :24, :24] for s in (5, 6))
    ready = SPEARMAN.ready(one), SPEARMAN.ready(other)
    rho, band = SPEARMAN.alike(*ready), SPEARMAN.chance(*ready, seed=0)
    outside = (rho < torch.tensor(band["low"])) | (rho > torch.tensor(band["high"]))
    assert 0.01 <= float(outside.double().mean()) <= 0.10
    assert float((rho.abs() > 1.96 / 575**0.5).double().mean()) > 0.5


def test_a_map_beside_itself_is_above_chance():
    ready = SPEARMAN.ready(smooth(7, 1.5, 3, 24, 24))
    band = SPEARMAN.chance(ready, ready, seed=0)
    assert SPEARMAN.alike(ready, ready).tolist() == pytest.approx([1] * 3)
    assert max(band["high"]) < 0.8
    assert max(band["share of shifts that give as much"]) == pytest.approx(1 / 576)


@pytest.mark.parametrize("shape", [(12, 9), (8, 7, 9)])
@pytest.mark.parametrize("signed", [True, False])
def test_structure_is_that_of_the_map_s_own_grid(shape, signed, reference):
    one, other = noise(8, 1, *shape), noise(9, 1, *shape)
    one, other = (one, one + other) if signed else (one.abs(), (one + other).abs())
    got = float(Measure("ssim", signed).between(3 * one, 0.5 * other))
    scaled = [(v / v.abs().max())[0].numpy() for v in (one, other)]
    span = 2.0 if signed else 1.0
    assert got == pytest.approx(reference("random_logit").ssim(*scaled, span), abs=1e-9)
    flat = reference("random_logit").ssim(*(v.ravel() for v in scaled), span)
    assert abs(got - flat) > 1e-3  # Quantus 0.6.0 takes it of the flattened map


def test_structure_on_a_thin_grid():
    one = noise(10, 1, 12, 12, 5)
    assert float(SSIM.between(one, one)) == pytest.approx(1)
    assert torch.isnan(SSIM.between(one[..., :2], one[..., :2])).all()
    assert "thinner than 3 voxels" in SSIM.words


@pytest.mark.parametrize("measure", [SPEARMAN, SSIM], ids=lambda m: m.by)
@pytest.mark.parametrize("bad", [0.0, 4.0, float("nan"), float("inf")])
def test_what_cannot_be_compared_leaves_the_others(measure, bad):
    one = noise(11, 3, 8, 8)
    one[1] = torch.full((8, 8), bad) if bad in (0.0, 4.0) else torch.where(torch.eye(8) > 0, bad, one[1])
    ready = measure.ready(one)
    assert torch.isnan(measure.alike(ready, ready)).tolist() == [False, True, False]
    band = measure.chance(ready, ready, seed=0)
    assert np.isnan(band["share of shifts that give as much"]).tolist() == [False, True, False]


@settings(max_examples=20, deadline=None)
@given(st.floats(0.01, 100), st.sampled_from([SPEARMAN, SSIM]), st.booleans())
def test_scale_and_order_of_axes_do_not_count(scale, measure, swap):
    one, other = noise(12, 1, 8, 9), noise(13, 1, 8, 9)
    plain = float(measure.between(one, other))
    if swap:
        one, other = one.transpose(1, 2), other.transpose(1, 2)
    assert float(measure.between(scale * one, other)) == pytest.approx(plain, abs=1e-9)
    assert float(measure.between(other, one)) == pytest.approx(plain, abs=1e-9)


def test_the_more_of_a_map_is_left_the_more_alike_it_is():
    one, other = noise(14, 1, 16, 16), noise(15, 1, 16, 16)
    for measure in (SPEARMAN, SSIM):
        found = [float(measure.between(one, w * one + (1 - w) * other)) for w in (0, 0.25, 0.5, 0.75, 1)]
        assert np.all(np.diff(found) > 0)
        assert found[-1] == pytest.approx(1)
