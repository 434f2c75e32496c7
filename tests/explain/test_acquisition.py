"""Screening of acquisition knobs: what each knob does, scores that see only one of them, the second implementation."""

import pytest
import torch
from torch import nn

from pellucid.core.cohort import Cohort, blocks_of
from pellucid.core.errors import BadOption
from pellucid.core.model import Model, OutputSpec
from pellucid.core.prepare import InputSpec
from pellucid.core.target import ClassScore
from pellucid.explain.acquisition import AcquisitionSensitivity, designs, noise_of

IMAGES = torch.rand(6, 1, 16, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def posed(net):
    model = Model(net, (InputSpec(rank=2, channels=1),), OutputSpec("regression", unit="mm"))
    return model, Cohort({"image": IMAGES}, ClassScore(0), blocks_of((16, 16), 2))


class Tilt(nn.Module):
    """Right half minus left half: blind to blur nearly, to contrast nearly, not to shading."""

    def forward(self, x):
        return (x[..., 8:].mean((1, 2, 3)) - x[..., :8].mean((1, 2, 3)))[:, None]


def rows(answer):
    return {row.name: row for row in answer.rows}


def test_designs_move_each_knob_once_by_two_thirds():
    paths = designs(4, 5, seed=1)
    assert paths.shape == (5, 5, 4)
    assert bool(((paths >= -1e-12) & (paths <= 1 + 1e-12)).all())
    moved = (paths[:, 1:] - paths[:, :-1]).abs()
    assert torch.allclose(moved.sum(1), torch.full((5, 4), 2 / 3, dtype=torch.float64))
    assert bool(((moved > 0).sum(2) == 1).all())


def test_knobs_do_what_they_say():
    method, stain = AcquisitionSensitivity(), torch.randn(IMAGES.shape, dtype=torch.float64)
    assert torch.equal(method.acquired(IMAGES, [0, 0, 0, 0], stain), IMAGES)
    assert float(method.acquired(IMAGES, [0, 1, 0, 0], stain).std()) < 0.6 * float(IMAGES.std())
    darker = method.acquired(IMAGES, [0, 0, 1, 0], stain)
    assert bool((darker <= IMAGES + 1e-12).all())
    assert torch.allclose(darker.amax((1, 2, 3)), IMAGES.amax((1, 2, 3)))
    shaded = method.acquired(IMAGES, [0, 0, 0, 1], stain)
    low = IMAGES.amin((1, 2, 3), keepdim=True)
    assert torch.allclose((shaded - low)[..., -1], 1.2 * (IMAGES - low)[..., -1])
    noisy = method.acquired(IMAGES, [1, 0, 0, 0], stain)
    assert torch.allclose(noisy - IMAGES, 0.2 * IMAGES.std((2, 3), keepdim=True) * stain)


def test_a_score_of_the_sides_follows_the_shading():
    answer = AcquisitionSensitivity(trajectories=4)(*posed(Tilt()))
    assert answer.rows[0].name == "bias field"
    assert answer.rows[0].more["mu"] > 0
    assert answer.spent[0] == 6 * (1 + 4 * 5)
    off = AcquisitionSensitivity(trajectories=4, bias=0.0)(*posed(Tilt()))
    assert rows(off)["bias field"].estimate == 0


def test_equals_the_second_implementation(reference):
    torch.manual_seed(3)
    net = nn.Sequential(nn.Conv2d(1, 3, 3), nn.Tanh(), nn.Flatten(), nn.Linear(3 * 196, 1)).double()
    method = AcquisitionSensitivity(trajectories=3)
    found = rows(method(*posed(net)))
    stain = torch.stack([noise_of(case, IMAGES[0], 0) for case in range(6)])

    def score(case, knobs):
        with torch.no_grad():
            return float(net(method.acquired(IMAGES, list(knobs), stain)[case : case + 1]))

    second = reference("acquisition_sensitivity").acquisition_sensitivity(score, designs(4, 3, 0).numpy(), 6)
    for knob, name in enumerate(("noise", "blur", "gamma", "bias field")):
        assert (found[name].estimate, found[name].more["mu"]) == pytest.approx(second[knob], abs=1e-6)


def test_strengths_out_of_range_are_refused():
    with pytest.raises(BadOption, match="gamma: 1"):
        AcquisitionSensitivity(gamma=0.5)
    with pytest.raises(BadOption, match="at least 2 trajectories"):
        AcquisitionSensitivity(trajectories=1)
