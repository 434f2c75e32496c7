"""An engine sees one window at a time, and its scores are those of the blend."""

import pytest
import torch
from torch import nn

from pellucid.core.model import Model, OutputSpec
from pellucid.core.prepare import InputSpec
from pellucid.core.probe import Probe
from pellucid.core.target import RegionScore
from pellucid.core.windows import SlidingWindows
from pellucid.engines.choosing import OFFERS, choose_engine
from pellucid.engines.selfcheck import Masked


@pytest.fixture
def probe() -> Probe:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = nn.Sequential(nn.Conv2d(1, 8, 3, 1, 1), nn.ReLU(), nn.Conv2d(8, 2, 3, 1, 1)).eval()
    x = torch.randn(2, 1, 21, 12, generator=torch.Generator().manual_seed(1))
    model = Model(network, (InputSpec(),), OutputSpec("segmentation"), inference=SlidingWindows((8, 16), 0.5))
    return Probe(model, x, RegionScore(1))


def test_engine_in_windows(probe: Probe) -> None:
    engine, report = choose_engine(probe, ("openvino",), offers=tuple(o for o in OFFERS if o.name == "openvino"))
    assert engine is not None, report.refused
    fast, half = probe.through(engine), {"image": probe.inputs["image"] * 0.5}
    torch.testing.assert_close(fast.score(half), probe.score(half), rtol=1e-4, atol=1e-5)
    assert fast.spent.engine == 2


def test_calibration_is_of_windows(probe: Probe) -> None:
    """An integer engine must know the range of what it will be given: windows, from all over the image."""
    shown = Masked(probe).calibration()["image"]
    assert shown.shape[1:] == (1, 8, 16)
    margins = shown[:, :, :, :2]  # the image is 12 wide, in windows of 16
    assert float(margins.abs().max()) == 0.0
    assert len({float(part.sum()) for part in shown}) > 10
