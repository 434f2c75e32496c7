"""What may be changed on the way through the module: the graph kept, operations replaced, layers edited."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from pellucid.core.card import Ask
from pellucid.core.errors import UnknownLayer
from pellucid.core.model import Model
from pellucid.core.prepare import InputSpec
from pellucid.core.probe import Probe
from pellucid.core.target import ClassScore

INPUT = (Ask.INPUT_GRADIENT, None)
PLAIN = frozenset({Ask.INPUT_GRADIENT})


def model_of(module, channels=2):
    return Model(module, (InputSpec(channels=channels, order="rgb"),))


class Cubes(nn.Module):
    def forward(self, x):
        return torch.stack([x.pow(3).flatten(1).sum(1), x.flatten(1).sum(1)], 1)


def test_graph_is_kept_through_the_gradient(draw) -> None:
    probe = Probe(model_of(Cubes(), 1), draw(2, 1, 3, 3), ClassScore(0))
    x = draw(2, 1, 3, 3, seed=2).requires_grad_()
    done = probe.run({"image": x}, PLAIN, graph=True)
    gradient = done.input_gradient[0]["image"]
    assert torch.allclose(gradient, 3 * x**2)
    (second,) = torch.autograd.grad(gradient.sum(), x)
    assert torch.allclose(second, 6 * x)
    assert x.grad is None


def test_graph_reaches_back_behind_the_input(draw) -> None:
    probe = Probe(model_of(Cubes(), 1), draw(1, 1, 3, 3), ClassScore(0))
    scale = torch.tensor(2.0, requires_grad=True)
    score = probe.run({"image": scale * probe.inputs["image"]}, graph=True).score[0]
    (slope,) = torch.autograd.grad(score.sum(), scale)
    assert torch.allclose(slope, 3 * scale.detach() ** 2 * probe.inputs["image"].pow(3).sum())


def test_graph_of_an_input_without_one_still_gives_its_gradient(draw) -> None:
    probe = Probe(model_of(Cubes(), 1), draw(1, 1, 3, 3), ClassScore(0))
    done = probe.run(None, PLAIN, graph=True)
    assert torch.allclose(done.input_gradient[0]["image"], 3 * probe.inputs["image"] ** 2)
    assert done.output.requires_grad


def test_without_graph_nothing_hangs_on_one(draw) -> None:
    probe = Probe(model_of(Cubes(), 1), draw(1, 1, 3, 3), ClassScore(0))
    x = draw(1, 1, 3, 3).requires_grad_()
    done = probe.run({"image": x}, PLAIN)
    assert not any(t.requires_grad for t in (done.output, done.score[0], done.input_gradient[0]["image"]))


class Guided(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.clamp_min(0)

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return g.clamp_min(0) * (x > 0)


class Spelled(nn.Module):
    """Two hidden layers whose ReLU is written in one of the ways people write it."""

    def __init__(self, way):
        super().__init__()
        torch.manual_seed(1)
        self.a, self.b, self.c = nn.Linear(16, 12), nn.Linear(12, 9), nn.Linear(9, 2)
        self.relu, self.inplace = nn.ReLU(), nn.ReLU(inplace=True)
        self.act = {
            "reused module": self.relu,
            "in place": self.inplace,
            "functional": F.relu,
            "functional in place": lambda x: F.relu(x, inplace=True),
            "torch": torch.relu,
            "method": lambda x: x.relu(),
            "method in place": lambda x: x.relu_(),
            "clamp": lambda x: torch.relu_(x),
        }[way]

    def forward(self, x):
        return self.c(self.act(self.b(self.act(self.a(x.flatten(1))))))


def guided_by_hand(module, x, label):
    """Springenberg 2014 with matrices: pass back what is positive, where the activation was."""
    first = x.flatten(1) @ module.a.weight.T + module.a.bias
    second = first.clamp_min(0) @ module.b.weight.T + module.b.bias
    back = module.c.weight[label].expand(len(x), -1).clamp_min(0) * (second > 0)
    back = (back @ module.b.weight).clamp_min(0) * (first > 0)
    return (back @ module.a.weight).view_as(x).detach()


GUIDE = {
    f: lambda x, inplace=False: Guided.apply(x)
    for f in (F.relu, torch.relu, torch.relu_, torch.Tensor.relu, torch.Tensor.relu_)
}
WAYS = [
    "reused module", "in place", "functional", "functional in place", "torch", "method", "method in place", "clamp",
]  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
def test_rules_act_on_every_spelling_of_relu(draw, way) -> None:
    x = draw(3, 1, 4, 4)
    with torch.random.fork_rng(devices=[]):
        module = Spelled(way)
    probe = Probe(model_of(module, 1), x, ClassScore(1), [INPUT])
    guided = probe.run(want=PLAIN, rules=GUIDE).input_gradient[0]["image"]
    assert torch.allclose(guided, guided_by_hand(module, x, 1), atol=1e-6)
    assert not torch.allclose(guided, probe.input_gradient["image"], atol=1e-3)


def test_rules_are_gone_after_the_pass(draw) -> None:
    with torch.random.fork_rng(devices=[]):
        module = Spelled("functional")
    probe = Probe(model_of(module, 1), draw(2, 1, 4, 4), ClassScore(1))
    before = probe.gradient(probe.inputs)["image"]
    probe.run(want=PLAIN, rules=GUIDE)
    assert torch.equal(probe.gradient(probe.inputs)["image"], before)


def test_a_rule_may_replace_the_forward_too(draw) -> None:
    with torch.random.fork_rng(devices=[]):
        module = Spelled("functional")
    x = draw(2, 1, 4, 4)
    probe = Probe(model_of(module, 1), x, ClassScore(0))
    smooth = probe.run(rules={F.relu: lambda x, inplace=False: F.softplus(x, beta=5)}).score[0]
    hidden = F.softplus(module.a(x.flatten(1)), 5)
    assert torch.allclose(smooth, module.c(F.softplus(module.b(hidden), 5))[:, 0].detach())


def test_edit_changes_what_follows_and_nothing_else(small, draw) -> None:
    module, x = small(), draw(2, 2, 8, 8)
    probe = Probe(model_of(module), x, ClassScore(1))
    silenced = probe.run(edits={"second": torch.zeros_like})
    module.eval()
    expected = module.last(F.relu(torch.zeros(2, 24) - 0.1))[:, 1].detach()
    module.train()
    assert torch.allclose(silenced.score[0], expected)
    assert torch.equal(probe.score(probe.inputs), probe.baseline_score)


def test_edit_of_one_call_of_a_reused_layer(small, draw) -> None:
    module, x = small(), draw(2, 2, 8, 8)
    probe = Probe(model_of(module), x, ClassScore(1))
    module.eval()
    first = module.relu(module.norm(module.first(x)))
    second = module.relu(module.second(first) * 1)
    after = lambda pooled: module.last(F.relu(pooled.flatten(1) - 0.1))[:, 1].detach()  # noqa: E731
    half, quarter = after(module.pool(second / 2)), after(module.pool(module.relu(module.second(first / 2)) / 2))
    module.train()
    assert torch.allclose(probe.run(edits={"relu#2": lambda t: t / 2}).score[0], half, atol=1e-6)
    assert torch.allclose(probe.run(edits={"relu": lambda t: t / 2}).score[0], quarter, atol=1e-6)


def test_edited_activation_is_what_is_kept_and_differentiated(small, draw) -> None:
    probe = Probe(model_of(small()), draw(1, 2, 8, 8), ClassScore(1))
    want = frozenset({Ask.ACTIVATION, Ask.LAYER_GRADIENT, Ask.INPUT_GRADIENT})
    plain = probe.run(want=want, layers=("second",))
    edited = probe.run(want=want, layers=("second",), edits={"second": lambda t: 0 * t + 3})
    assert bool((edited.activation["second"] == 3).all())
    assert bool((edited.input_gradient[0]["image"] == 0).all())
    assert not torch.allclose(edited.layer_gradient[0]["second"], plain.layer_gradient[0]["second"])


def test_an_edit_can_be_optimized(small, draw) -> None:
    probe = Probe(model_of(small()), draw(1, 2, 8, 8), ClassScore(1))
    gate = torch.ones(1, 6, 1, 1, requires_grad=True)
    score = probe.run(edits={"second": lambda t: t * gate}, graph=True).score[0]
    (slope,) = torch.autograd.grad(score.sum(), gate)
    want = frozenset({Ask.ACTIVATION, Ask.LAYER_GRADIENT})
    plain = probe.run(want=want, layers=("second",))
    expected = (plain.activation["second"] * plain.layer_gradient[0]["second"]).sum((2, 3), keepdim=True)
    assert torch.allclose(slope, expected, atol=1e-6)


@pytest.mark.parametrize("name", ["conv9", "relu#3", "second[0]", "second#2"])
def test_an_edit_that_would_do_nothing_is_refused(small, draw, untouched, name) -> None:
    module = small()
    probe = Probe(model_of(module), draw(1, 2, 8, 8), ClassScore(1))
    with untouched(module), pytest.raises(UnknownLayer, match=r"layers: .*second"):
        probe.run(edits={"first": torch.relu, name: torch.relu})
