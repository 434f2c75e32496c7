"""What comes after a layer alone: the same score as the whole module gives, and nothing left behind."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from pellucid.core.errors import CannotDo
from pellucid.core.model import Model, OutputSpec
from pellucid.core.prepare import InputSpec
from pellucid.core.probe import Probe
from pellucid.core.target import ClassScore, RegionScore
from pellucid.testing import unchanged


class Tangled(nn.Module):
    """A skip around the layer, a ReLU used before, as and after it, an in-place one, and a tuple on the way."""

    def __init__(self):
        super().__init__()
        self.first, self.inner = nn.Conv2d(1, 4, 3, padding=1), Pair()
        self.relu, self.last, self.head = nn.ReLU(inplace=True), nn.Conv2d(4, 4, 3, padding=1), nn.Linear(4, 3)

    def forward(self, x):
        a = self.relu(self.first(x) - x.mean())
        left, right = self.inner(a, self.relu)
        b = self.relu(left + a)
        return self.head((self.relu(self.last(b)) + right + a).mean((2, 3)))


class Pair(nn.Module):
    """Calls a ReLU that lives elsewhere, and returns a tuple."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 1)

    def forward(self, a, relu):
        c = self.conv(a)
        return relu(c * 1.0), c


@pytest.fixture
def tangled():
    torch.manual_seed(0)
    return Model(Tangled().train(), (InputSpec(),), OutputSpec())


def ablated(a):
    """Three versions of the batch: as it is, one channel zero, all doubled."""
    first, second, third = a.clone().chunk(3)
    second[:, 1] = 0
    return torch.cat([first, second, third * 2])


@pytest.mark.parametrize("layer", ["first", "relu#1", "inner[0]", "inner.conv", "relu#2", "relu#3", "last", "relu#4"])
@pytest.mark.parametrize("batch", [1, 2])
def test_the_part_behind_gives_what_the_whole_gives(tangled, layer, batch):
    x = torch.randn(batch, 1, 6, 6)
    probe = Probe(tangled, x, ClassScore(1))
    with unchanged(tangled.module):
        part = probe.behind(layer, ablated, 3)
        again = probe.behind(layer, ablated, 3)
    whole = probe.run({"image": x.repeat(3, 1, 1, 1)}, edits={layer: ablated}).score[0]
    assert torch.allclose(part, whole, atol=1e-6)
    assert torch.equal(part, again)
    assert torch.allclose(part[:batch], probe.baseline_score, atol=1e-6)
    assert not torch.allclose(part[batch:], part[:batch].repeat(2), atol=1e-4)  # the edit was seen
    assert probe.spent.own.forwards == batch * (1 + 3 + 3 + 3)  # the recording, twice the part, once the whole


def test_what_lies_before_is_not_computed_again(tangled):
    calls = []
    handles = [
        m.register_forward_hook(lambda m, a, o, n=n: calls.append(n)) for n, m in tangled.module.named_modules() if n
    ]
    shapes = []
    tangled.module.first.weight.register_hook(lambda g: None)
    convolve = tangled.module.first._conv_forward
    tangled.module.first._conv_forward = lambda *a: shapes.append(1) or convolve(*a)
    try:
        probe = Probe(tangled, torch.randn(1, 1, 6, 6), ClassScore(1))
        probe.baseline_score
        probe.behind("relu#3", lambda a: a, 1)
        before = len(shapes)
        probe.behind("relu#3", lambda a: a.clone(), 1)
    finally:
        del tangled.module.first._conv_forward
        for h in handles:
            h.remove()
    assert before > 1
    assert len(shapes) == before


@pytest.mark.parametrize("stage", ["edit", "module"])
def test_an_error_on_the_way_leaves_the_module_as_it_was(tangled, stage):
    probe = Probe(tangled, torch.randn(1, 1, 6, 6), ClassScore(1))
    probe.behind("relu#3", lambda a: a, 1)
    wrong = {"edit": lambda a: 1 / 0, "module": lambda a: a[:, :2]}[stage]
    with unchanged(tangled.module):
        with pytest.raises((ZeroDivisionError, RuntimeError)):
            probe.behind("relu#3", wrong, 2)
        assert torch.allclose(probe.behind("relu#3", lambda a: a, 1), probe.baseline_score)


def test_a_forward_of_the_users_own_comes_back(tangled):
    layer, own = tangled.module.first, nn.Conv2d(1, 4, 3, padding=1)
    layer.forward = own.forward
    probe = Probe(tangled, torch.randn(1, 1, 6, 6), ClassScore(1))
    probe.behind("relu#3", lambda a: a, 2)
    assert layer.forward == own.forward


def test_a_fixed_batch_is_refused(tangled):
    fixed = replace(tangled, can=replace(tangled.can, batch=2), _traces={})
    with pytest.raises(CannotDo, match=r"2 item\(s\) at a time.*GradCAM"):
        Probe(fixed, torch.randn(1, 1, 6, 6), ClassScore(1)).behind("last", ablated, 3)


@pytest.mark.parametrize("rank", [2, 3])
def test_unets_with_nested_skips(rank):
    from monai.networks.nets import UNet

    torch.manual_seed(0)
    net = UNet(rank, 1, 2, (4, 8, 16), (2, 2), num_res_units=1).double()
    model = Model(net, (InputSpec(rank=rank),), OutputSpec("segmentation"))
    x = torch.randn(2, 1, *(8,) * rank, dtype=torch.float64)
    probe = Probe(model, x, RegionScore(1))
    for shape in model.layers({"image": x})[::3]:
        part = probe.behind(shape.name, lambda a: torch.cat([a[:2], a[2:] * 0.5]), 2)
        whole = probe.run({"image": x.repeat(2, *(1,) * (rank + 1))}, edits={shape.name: lambda a: a * _half(a)})
        assert torch.allclose(part, whole.score[0], atol=1e-10), shape.name


def _half(a):
    return torch.tensor([1.0, 1.0, 0.5, 0.5], dtype=a.dtype).view(-1, *(1,) * (a.ndim - 1))
