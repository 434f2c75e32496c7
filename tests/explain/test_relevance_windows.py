"""Relevance of a prediction blended from sliding windows is the sum over windows, as full autograd would give it."""

import pytest
import torch
from torch import nn

from pellucid.core.errors import CannotDo
from pellucid.core.model import Model, OutputSpec
from pellucid.core.prepare import InputSpec
from pellucid.core.probe import Probe, Scene
from pellucid.core.target import RegionScore
from pellucid.core.windows import SlidingWindows
from pellucid.explain.relevance import LRP, DeepTaylor


def probed(net, x, inference=None):
    box = torch.zeros(x.shape[2:], dtype=torch.bool)
    box[4:12, 3:9] = True  # crosses seams
    more = {} if inference is None else {"inference": inference}
    model = Model(net, (InputSpec(rank=2),), OutputSpec("segmentation"), **more)
    return Probe(model, x, RegionScore(1, "box"), scene=Scene(regions={"box": box}))


def drawn(bias):
    torch.manual_seed(7)
    layers = (nn.Conv2d(1, 4, 3, padding=1, bias=bias), nn.ReLU(), nn.Conv2d(4, 2, 3, padding=1, bias=bias))
    return nn.Sequential(*layers).double(), torch.randn(2, 1, 16, 12, dtype=torch.float64)


def test_rule_0_is_input_times_the_gradient_of_the_blend():
    net, x = drawn(bias=True)
    windows = SlidingWindows((8, 8))
    answer = LRP("0")(probed(net, x, windows))
    probe = probed(net, x, windows)
    gradient = probe.gradient(probe.inputs)["image"]
    assert torch.allclose(answer.maps["image"], x * gradient, atol=1e-12)
    assert torch.allclose(answer.ledger.start, probe.baseline_score)
    assert float(answer.ledger.unexplained.abs().max()) < 1e-12


def test_other_rules_conserve_over_the_windows():
    net, x = drawn(bias=False)
    for rule in ("epsilon", "epsilon-gamma", "epsilon-plus-flat"):
        probe = probed(net, x, SlidingWindows((8, 8)))
        answer = LRP(rule)(probe)
        assert torch.allclose(answer.ledger.start, probe.baseline_score)
        kept = sum(e.amount for e in answer.ledger.entries)
        assert torch.allclose(answer.maps["image"].flatten(1).sum(1) + kept, probe.baseline_score)


def test_deep_taylor_divides_the_whole_and_refuses_parts():
    net, x = drawn(bias=False)
    with pytest.raises(CannotDo, match="sliding windows"):
        DeepTaylor()(probed(net, x, SlidingWindows((8, 8))))
