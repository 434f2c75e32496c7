"""Maps made window by window: relevance sums to the whole's, layers' maps are blended and say so."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pellucid.core.explainer import Explainer
from pellucid.core.explanation import Attribution
from pellucid.core.infill import ItemMean
from pellucid.core.model import Model, OutputSpec
from pellucid.core.perwindow import answered
from pellucid.core.prepare import InputSpec
from pellucid.core.probe import Probe, Scene
from pellucid.core.target import RegionScore, Target
from pellucid.core.windows import SlidingWindows
from pellucid.explain.cam import GradCAM, HiResCAM
from pellucid.explain.channels import AblationCAM, ScoreCAM
from pellucid.explain.deeplift import DeepLIFT
from pellucid.explain.relevance import LRP

SPACE = (20, 17)


def probe_of(network: nn.Module, windows: SlidingWindows | None, method: Explainer, target: Target) -> Probe:
    x = torch.randn(2, 1, *SPACE, generator=torch.Generator().manual_seed(1))
    region = torch.zeros(SPACE, dtype=torch.bool)
    region[6:12, 5:9] = True
    model = Model(network, (InputSpec(),), OutputSpec("segmentation"), inference=windows)
    return Probe(model, x, target, method.needs(model, {"image": x}), Scene(regions={"box": region}))


def pointwise() -> nn.Module:
    """Each voxel alone: no window changes what a layer sees."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(1, 6, 1), nn.ReLU(), nn.Conv2d(6, 5, 1), nn.Tanh(), nn.Conv2d(5, 3, 1))


def local() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(1, 6, 3, 1, 1), nn.ReLU(), nn.Conv2d(6, 5, 3, 1, 1), nn.SiLU(), nn.Conv2d(5, 3, 1)
        )


def asked(network: nn.Module, windows: SlidingWindows | None, method: Explainer, target: Target) -> Attribution:
    found = answered(method, probe_of(network, windows, method, target))
    assert isinstance(found, Attribution)
    return found


@pytest.mark.parametrize("windows", [SlidingWindows((8, 8), 0.5), SlidingWindows((24, 8), 0.25, "constant")])
def test_blended_cells_are_the_whole_where_windows_change_nothing(windows: SlidingWindows) -> None:
    """Gradient times activation at each place, of a network of single voxels: blending must give the whole's map."""
    target, method = RegionScore(1, "box"), HiResCAM(layer="3")
    ours, whole = asked(pointwise(), windows, method, target), asked(pointwise(), None, method, target)
    assert float(whole.maps["image"].max()) > 0
    torch.testing.assert_close(ours.maps["image"], whole.maps["image"], rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize("method", [GradCAM(layer="2"), ScoreCAM(layer="2"), AblationCAM(layer="2")])
def test_maps_of_layers_say_that_they_are_of_windows(method: Explainer) -> None:
    found = asked(local(), SlidingWindows((8, 8), 0.5), method, RegionScore(1, "box"))
    assert found.warnings[0].startswith("per window: the model predicts by windows of 8 x 8 voxels, overlap 0.5")
    assert "in each of the 9 of 16 windows that hold a part of the target" in found.warnings[0]
    assert found.cell == (1.0, 1.0)
    outside = found.maps["image"][:, :, 16:]  # no window that reaches here holds a part of the target
    assert float(outside.abs().max()) == 0.0
    assert asked(local(), None, method, RegionScore(1, "box")).warnings[:1] != found.warnings[:1]


def by_hand(network: nn.Module, windows: SlidingWindows, x: Tensor, start: Tensor) -> float:
    """The difference of the scores of two blends, to which contributions must sum."""
    model = Model(network, (InputSpec(),), OutputSpec("segmentation"), inference=windows)
    with torch.no_grad():
        both = [model({"image": v})[0, 1, 6:12, 5:9].mean() for v in (x, start)]
    return float(both[0] - both[1])


@pytest.mark.parametrize("padding", ["constant", "reflect"])
def test_relevance_of_windows_sums_to_the_difference_of_the_blends(padding: Any) -> None:
    windows = SlidingWindows((8, 24), 0.5, padding=padding)
    method = DeepLIFT(baseline=ItemMean())  # the mean of the image, not of each window
    target = RegionScore(1, "box")
    found = asked(local(), windows, method, target)
    x = probe_of(local(), windows, method, target).inputs["image"][:1]
    promised = by_hand(local(), windows, x, x.mean().expand_as(x))
    assert found.difference is not None
    assert float(found.difference[0]) == pytest.approx(promised, rel=1e-4)
    if padding == "reflect":  # margins of zeros stay zero, and what differs there belongs to no voxel
        assert float(found.maps["image"][0].sum()) == pytest.approx(promised, rel=1e-3)
    assert not any("per window" in w for w in found.warnings)


def test_ledgers_of_windows_add_up_to_the_score() -> None:
    target, method = RegionScore(1, "box"), LRP()
    probe = probe_of(local(), SlidingWindows((8, 8), 0.5), method, target)
    found = answered(method, probe)
    assert isinstance(found, Attribution)
    assert found.ledger is not None
    torch.testing.assert_close(found.ledger.start.float(), probe.baseline_score, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(
        found.ledger.arrived.float(), found.maps["image"].flatten(1).sum(1), rtol=1e-4, atol=1e-6
    )
    assert float(found.ledger.unexplained.abs().max()) < 1e-4


def test_a_score_that_bends_is_told() -> None:
    found = asked(local(), SlidingWindows((8, 8), 0.5), DeepLIFT(), RegionScore(1, "box", scale="score"))
    assert any("not linear in the blended output" in w for w in found.warnings)


def test_what_the_windows_cost_is_told_apart() -> None:
    method = GradCAM(layer="2")
    probe = probe_of(local(), SlidingWindows((8, 8), 0.5), method, RegionScore(1, "box"))
    answered(method, probe)
    assert (probe.spent.shared.forwards, probe.spent.own.forwards) == (2, 0)
    assert (probe.spent.windows.forwards, probe.spent.windows.backwards) == (2 * (16 + 9), 2 * 9)
