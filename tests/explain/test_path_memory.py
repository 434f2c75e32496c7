"""Path methods hold as much for many points as for few, and run on real images through real networks."""

import gc

import pytest
import torch
from torch import nn

from pellucid.core.probe import Probe
from pellucid.core.target import ClassScore
from pellucid.demo.cases import MODELS, packaged
from pellucid.explain.blurpath import BlurIG
from pellucid.explain.expected import ExpectedGradients
from pellucid.explain.path import IntegratedGradients
from pellucid.io.models import load_model
from pellucid.workbench.job import Request, run_case


class Weighed(nn.Module):
    """Notes at each forward how many items came, and how many bytes of tensors are alive."""

    def __init__(self):
        super().__init__()
        self.conv, self.items, self.alive = nn.Conv3d(1, 2, 3), [], []

    def forward(self, x):
        if x.device.type == "cpu":  # not where only the sizes are looked up
            self.items.append(len(x))
            self.alive.append(alive() if len(x) > 1 else 0)
        return self.conv(x).relu().flatten(1).mean(1, keepdim=True)


def alive():
    """Bytes that tensors hold, each storage once."""
    tensors = [t for t in gc.get_objects() if type(t) is torch.Tensor and t.device.type == "cpu"]
    return sum({t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}.values())


@pytest.fixture
def unseen():
    """What is there before the test is left out of ``gc.get_objects``, which takes seconds otherwise."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.mark.usefixtures("unseen")
@pytest.mark.parametrize(
    "make",
    [
        lambda n: IntegratedGradients(n),
        lambda n: IntegratedGradients(n // 3, tolerance=1e-12, steps_max=n),
        lambda n: ExpectedGradients(n),
        lambda n: BlurIG(n),
    ],
    ids=["midpoint", "tolerance", "expected", "blur"],
)
def test_memory_does_not_grow_with_the_points(make, model_of):
    x = torch.rand(1, 1, 16, 16, 16, generator=torch.Generator().manual_seed(0))
    most = []
    for points in (24, 72):
        module = Weighed()
        probe = Probe(model_of(module, 3, channels=(1,)), x, ClassScore(0))
        probe.baseline_score
        module.items.clear()
        module.alive.clear()
        before = alive()
        make(points)(probe)
        assert sum(module.items) >= points
        assert max(module.items) <= 8
        most.append(max(module.alive) - before)
    volume = x.numel() * 4
    assert abs(most[1] - most[0]) < volume
    assert most[1] < 60 * volume  # eight points at once: made, put together, copied for the module, their gradients


@pytest.mark.parametrize(
    ("name", "methods", "limits"),
    [
        ("nothing-planted", (IntegratedGradients(32), ExpectedGradients(48), BlurIG(32)), (0.05, 0.2, 0.2)),
        ("left-hippocampus", (IntegratedGradients(8), ExpectedGradients(6), BlurIG(6)), (0.3, 0.5, 0.5)),
    ],
)
def test_real_images_through_the_networks_of_the_demo(name, methods, limits):
    """A chest film, and a brain volume whose target is a segmented region."""
    one = next(c for c in packaged() if c.case.name == name)
    loaded = load_model(MODELS / one.model / "model.toml")
    request = Request((one.target,), methods, crop=one.crop, override=one.override)
    finished = run_case(one.case, loaded, request)
    for explanation, limit in zip(finished.panel.explanations, limits, strict=True):
        answer, shown = explanation.attribution, explanation.on_image()
        assert bool(torch.isfinite(shown).all())
        assert float(shown.min()) < 0 < float(shown.max())
        assert shown.shape[1:] == explanation.image.grid.shape
        assert float(answer.gap.max()) < limit
        assert explanation.provenance.infill
        assert (answer.error is not None) == (explanation.provenance.method == "ExpectedGradients")
