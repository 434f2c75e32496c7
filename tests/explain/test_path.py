"""Integrated gradients against a second implementation, closed forms and captum.

Of the defects measured in peers, right here: B19 (weights of the rule that do not sum to 1), B26 (low precision).
"""

import pytest
import torch
from torch import nn

from pellucid.core.card import Cost
from pellucid.core.errors import BadOption
from pellucid.core.infill import Blur, Constant, ItemMean
from pellucid.core.probe import Probe, Scene
from pellucid.core.target import ClassScore
from pellucid.explain.path import IntegratedGradients

KINDS = ("classification", "margin", "segmentation", "regression", "single-logit-negative", "reused-second")
KINDS += ("in-place-behind", "dict-head", "two-images", "image-and-vector")
RANKS = (2, 3)


def close(ours, theirs, relative):
    """Largest difference as a share of the largest value."""
    return float((ours - theirs).abs().max()) <= relative * float(theirs.abs().max())


def baselines(inputs, value):
    """What ``Constant(value)`` stands for: a vector's reference is zero."""
    return {name: torch.full_like(x, value if x.ndim > 2 else 0.0) for name, x in inputs.items()}


@pytest.mark.parametrize("rank", RANKS)
@pytest.mark.parametrize("kind", KINDS)
def test_equal_to_the_second_implementation(kind, rank, subject, explained, reference):
    s, second = subject(kind, rank), reference("integrated_gradients")
    answer = explained(IntegratedGradients(5, Constant(0.3)), s.model, s.inputs, s.target, s.scene)
    for i in range(2):
        item = s.item(i)
        slow = second.integrated_gradients(s.score, item, baselines(item, 0.3), second.midpoints(5))
        for name in s.inputs:
            assert close(answer.maps[name][i : i + 1], slow[name], 1e-10)


@pytest.mark.parametrize("rank", RANKS)
def test_many_steps_reach_the_integral(rank, nets, model_of, explained, reference):
    """The midpoint rule against Gauss and Legendre, on a smooth network."""
    second = reference("integrated_gradients")
    tail = nn.Sequential(nn.SiLU(), nn.Flatten(), nn.Linear(4 * 2**rank, 3), nn.Softplus())
    net, x = nets.seeded(lambda: nn.Sequential(nets.CONV[rank](2, 4, 3), *tail)), nets.noise(1, 2, *(4,) * rank)
    maps = explained(IntegratedGradients(300), model_of(net, rank), x).maps["image"]
    slow = second.integrated_gradients(
        lambda i: net(i["image"])[:, 1], {"image": x}, {"image": 0 * x}, second.gauss(40)
    )
    assert close(maps, slow["image"], 1e-5)


@pytest.mark.parametrize("steps", [1, 2, 7])
@pytest.mark.parametrize("rank", RANKS)
def test_a_linear_score_is_exact_for_any_number_of_steps(rank, steps, nets, model_of, explained):
    """B19: the trapezoid of a peer gives nine tenths of this at ten steps."""
    net, x = nets.linear(4, rank, 2, 3), nets.noise(2, 2, *(4,) * rank)
    maps = explained(IntegratedGradients(steps, Constant(-0.7)), model_of(net, rank), x).maps["image"]
    assert torch.allclose(maps, net[1].weight[1].detach().view(1, 2, *(4,) * rank) * (x + 0.7), rtol=0, atol=1e-12)


def test_the_peer_loses_a_tenth(nets):
    """What B19 is, seen in captum itself: the trapezoid's weights sum to (n - 1) / n."""
    from captum.attr import IntegratedGradients as Peer

    net, x = nets.linear(4), nets.noise(1, 1, 4, 4)
    got = Peer(net).attribute(x, target=0, n_steps=10, method="riemann_trapezoid")
    assert torch.allclose(got.detach(), 0.9 * net[1].weight.detach().view(1, 1, 4, 4) * x)


class Quadratic(nn.Module):
    """x'Qx."""

    def __init__(self, q):
        super().__init__()
        self.q = nn.Parameter(q)

    def forward(self, x):
        flat = x.flatten(1)
        return ((flat @ self.q) * flat).sum(1, keepdim=True)


@pytest.mark.parametrize("steps", [1, 4])
def test_a_quadratic_score_is_exact(steps, nets, model_of, explained):
    q, x = nets.noise(16, 16), nets.noise(2, 1, 4, 4)
    method, model = IntegratedGradients(steps, Constant(0.4)), model_of(Quadratic(q), 2, channels=(1,))
    got = explained(method, model, x, ClassScore(0)).maps["image"].flatten(1)
    flat = x.flatten(1)
    assert torch.allclose(got, (flat - 0.4) * ((flat + 0.4) @ (q + q.T)) / 2, rtol=0, atol=1e-12)


class Kink(nn.Module):
    """ReLU(mean x - 1/4)."""

    def forward(self, x):
        return torch.relu(x.flatten(1).mean(1, keepdim=True) - 0.25)


def test_a_kink_is_resolved_to_one_step(model_of, explained):
    x = torch.ones(1, 1, 2, 2, dtype=torch.float64)
    for steps in (10, 37, 200):
        got = explained(IntegratedGradients(steps), model_of(Kink(), 2, channels=(1,)), x, ClassScore(0)).maps["image"]
        assert float((got - 0.75 / 4).abs().max()) <= 1 / steps / 4 + 1e-12


class Product(nn.Module):
    """The product of two means."""

    def forward(self, pet, ct):
        return (pet.flatten(1).mean(1) * ct.flatten(1).mean(1))[:, None]


def test_inputs_move_together(nets, model_of, explained):
    """For f = ab each gets half of f - f0; one at a time they would sum to twice that."""
    inputs = {"pet": nets.noise(2, 1, 4, 4), "ct": nets.noise(2, 1, 4, 4, seed=5)}
    model = model_of(Product(), 2, names=("pet", "ct"), channels=(1, 1))
    answer = explained(IntegratedGradients(3), model, inputs, ClassScore(0))
    score = Product()(*inputs.values())[:, 0]
    for name in inputs:
        assert torch.allclose(answer.maps[name].flatten(1).sum(1), score / 2, atol=1e-14)
    assert answer.warnings == ()


class Twin(nn.Module):
    """The same function as ReLU(fc(x)), written as (z + |z|) / 2 with twice the work."""

    def __init__(self, inner):
        super().__init__()
        self.first, self.second = inner[1], inner[3]

    def forward(self, x):
        z = self.first(x.flatten(1))
        return self.second((z + z.abs()) / 2)


def test_two_networks_of_one_function_get_one_map(nets, model_of, explained):
    net = nets.seeded(lambda: nn.Sequential(nn.Flatten(), nn.Linear(32, 9), nn.ReLU(), nn.Linear(9, 2)))
    x = nets.noise(2, 2, 4, 4)
    maps = [explained(IntegratedGradients(9), model_of(n, 2), x).maps["image"] for n in (net, Twin(net))]
    assert torch.allclose(*maps, rtol=0, atol=1e-13)


@pytest.mark.parametrize("rank", RANKS)
@pytest.mark.parametrize("kind", ["classification", "two-images", "image-and-vector"])
def test_the_values_sum_to_the_difference_and_the_gap_closes(kind, rank, subject, explained):
    s = subject(kind, rank)
    difference = (s.score(s.inputs) - s.score(baselines(s.inputs, 0.0))).detach()

    def gap(steps):
        maps = explained(IntegratedGradients(steps), s.model, s.inputs, s.target).maps.values()
        total = torch.stack([m.flatten(1).sum(1) for m in maps]).sum(0)
        return float(((total - difference) / difference).abs().max())

    assert gap(512) < 0.01
    assert gap(512) < gap(2)


def test_an_open_gap_is_told(model_of, explained):
    x = torch.ones(1, 1, 2, 2)
    coarse = explained(IntegratedGradients(2), model_of(Kink(), 2, channels=(1,)), x, ClassScore(0))
    assert "completeness gap 33% of the score difference with 2 steps" in coarse.warnings[0]
    assert explained(IntegratedGradients(64), model_of(Kink(), 2, channels=(1,)), x, ClassScore(0)).warnings == ()


@pytest.mark.parametrize("baseline", [Constant(-0.2), ItemMean(), Blur(1.5)])
def test_what_equals_the_reference_gets_zero(baseline, subject, explained):
    s = subject("classification", 2)
    x = s.inputs["image"]
    fill = baseline(x, (1.0, 1.0), None)
    mixed = x.clone()
    mixed[:, :, 2:5] = fill[:, :, 2:5]
    if isinstance(baseline, Constant):
        maps = explained(IntegratedGradients(4, baseline), s.model, mixed).maps["image"]
        assert bool((maps[:, :, 2:5] == 0).all())
    whole = explained(IntegratedGradients(256, baseline), s.model, x).maps["image"].flatten(1).sum(1)
    expected = (s.score({"image": x}) - s.score({"image": fill})).detach()
    assert torch.allclose(whole, expected, rtol=0.02, atol=1e-4)


def test_a_reference_in_hounsfield_units(nets, model_of, explained):
    """-800 HU with a lung window is (-800 + 600) / 1500 in network units."""
    net, x = nets.linear(4), nets.noise(1, 1, 4, 4)
    scene = Scene(affine={"image": ((-600.0,), (1500.0,))})
    method = IntegratedGradients(2, Constant(-800.0, physical=True))
    maps = explained(method, model_of(net, 2, channels=(1,)), x, ClassScore(0), scene).maps["image"]
    assert torch.allclose(maps, net[1].weight.detach().view(1, 1, 4, 4) * (x + 200 / 1500), atol=1e-7)


@pytest.mark.parametrize("rank", RANKS)
def test_equal_to_captum_with_the_same_rule(rank, subject, explained):
    from captum.attr import IntegratedGradients as Peer

    s = subject("classification", rank)
    x = s.inputs["image"]
    theirs = Peer(s.model.module).attribute(x, 0.3, target=1, n_steps=20, method="riemann_middle")
    assert close(explained(IntegratedGradients(20, Constant(0.3)), s.model, x).maps["image"], theirs.detach(), 1e-6)


def test_equal_to_captum_with_a_better_rule(nets, model_of, explained):
    """Gauss and Legendre with 50 nodes is exact for a smooth network; the midpoint rule comes there with more steps."""
    from captum.attr import IntegratedGradients as Peer

    net = nets.seeded(lambda: nn.Sequential(nn.Conv2d(2, 4, 3), nn.SiLU(), nn.Flatten(), nn.Linear(64, 3), nn.Tanh()))
    x = nets.noise(2, 2, 6, 6)
    theirs = Peer(net).attribute(x, target=1, n_steps=50, method="gausslegendre").detach()
    assert close(explained(IntegratedGradients(200), model_of(net, 2), x).maps["image"], theirs, 1e-4)


def test_equal_to_captum_on_two_inputs(subject, explained):
    from captum.attr import IntegratedGradients as Peer

    s = subject("two-images", 3)
    theirs = Peer(s.model.module).attribute(tuple(s.inputs.values()), target=1, n_steps=6, method="riemann_middle")
    answer = explained(IntegratedGradients(6), s.model, s.inputs)
    for ours, peer in zip(answer.maps.values(), theirs, strict=True):
        assert close(ours, peer.detach(), 1e-6)


@pytest.mark.parametrize("kind", ["classification", "image-and-vector"])
def test_an_item_alone_equals_the_item_in_a_batch(kind, subject, explained):
    s = subject(kind, 3)
    together = explained(IntegratedGradients(11), s.model, s.inputs, s.target)
    for i in range(2):
        alone = explained(IntegratedGradients(11), s.model, s.item(i), s.target)
        for name in s.inputs:
            assert close(together.maps[name][i : i + 1], alone.maps[name], 1e-12)


def test_several_targets_share_the_forward_at_the_image(subject, explained):
    s, method = subject("classification", 2), IntegratedGradients(6)
    targets = (ClassScore(0), ClassScore(2))
    probe = Probe(s.model, s.inputs, targets, method.needs(s.model, s.inputs))
    for i, target in enumerate(targets):
        together = method(probe.at(i)).maps["image"]
        assert close(together, explained(method, s.model, s.inputs, target).maps["image"], 1e-12)
    assert probe.spent.shared.forwards == 2
    assert probe.spent.own.forwards == 2 * 2 * 7


def test_low_precision_gives_float32_close_to_full(subject, explained):
    s = subject("classification", 2)
    s.model.module.float()
    x = s.inputs["image"].float()
    full = explained(IntegratedGradients(8), s.model, x).maps["image"]
    low = explained(IntegratedGradients(8), s.model, x, precision="bfloat16").maps["image"]
    assert low.dtype == torch.float32
    assert torch.nn.functional.cosine_similarity(low.flatten(), full.flatten(), 0) > 0.99
    assert not torch.equal(low, full)


@pytest.mark.parametrize("rank", RANKS)
@pytest.mark.parametrize("kind", ["classification", "segmentation", "two-images"])
def test_the_gauss_rule_equals_the_second_implementation(kind, rank, subject, explained, reference):
    s, second = subject(kind, rank), reference("integrated_gradients")
    method = IntegratedGradients(4, Constant(0.3), "gauss")
    answer = explained(method, s.model, s.inputs, s.target, s.scene)
    slow = second.integrated_gradients(s.score, s.item(0), baselines(s.item(0), 0.3), second.gauss(4))
    for name in s.inputs:
        assert close(answer.maps[name][:1], slow[name], 1e-10)


class Quartic(nn.Module):
    """The fourth power of a weighted sum: its gradient is of third degree."""

    def forward(self, x):
        return x.flatten(1).cumsum(1).mean(1, keepdim=True) ** 4


@pytest.mark.parametrize(("rule", "steps", "exact"), [("gauss", 1, False), ("gauss", 2, True), ("midpoint", 2, False)])
def test_gauss_is_exact_where_the_gradient_is_of_degree_2n_minus_1(rule, steps, exact, nets, model_of, explained):
    x, model = nets.noise(2, 1, 4, 4) + 1, model_of(Quartic(), 2, channels=(1,))
    got = explained(IntegratedGradients(steps, rule=rule), model, x, ClassScore(0))
    assert bool((got.gap < 1e-12).all()) is exact


@pytest.mark.parametrize("steps", [5, 50])
def test_equal_to_captum_with_its_default_rule(steps, subject, explained):
    from captum.attr import IntegratedGradients as Peer

    s = subject("classification", 2)
    x = s.inputs["image"]
    theirs = Peer(s.model.module).attribute(x, 0.3, target=1, n_steps=steps, method="gausslegendre").detach()
    assert close(explained(IntegratedGradients(steps, Constant(0.3), "gauss"), s.model, x).maps["image"], theirs, 1e-6)


def opened(method, s, inputs=None):
    """A probe of a subject, to read its counts."""
    inputs = inputs or s.inputs
    return Probe(s.model, inputs, s.target, method.needs(s.model, inputs), s.scene)


@pytest.mark.parametrize(
    ("rule", "tolerance", "steps", "spent"), [("midpoint", 0.04, (18, 6), 18), ("gauss", 0.05, (6, 24), 6 + 12 + 24)]
)
def test_each_item_takes_steps_until_its_gap_is_under_the_tolerance(rule, tolerance, steps, spent, subject):
    """Midpoints tripled contain the old ones: 18 steps after 6 cost 18 passes, not 24."""
    s = subject("classification", 2)
    method = IntegratedGradients(6, rule=rule, tolerance=tolerance)
    probe = opened(method, s)
    answer = method(probe)
    assert float(answer.gap.max()) <= tolerance
    assert answer.warnings == ()
    assert probe.spent.own == Cost(spent + 1, spent) * 2
    assert probe.spent.own.forwards < 2 * method.cost(probe).forwards
    for i, count in enumerate(steps):
        fixed = IntegratedGradients(count, rule=rule)
        assert close(answer.maps["image"][i], fixed(opened(fixed, s)).maps["image"][i], 1e-12)
        alone = method(opened(method, s, s.item(i)))
        assert close(alone.maps["image"][0], answer.maps["image"][i], 1e-12)


def test_a_tolerance_that_is_not_reached_is_told(subject):
    s = subject("classification", 2)
    method = IntegratedGradients(6, tolerance=1e-6, steps_max=20)
    probe = opened(method, s)
    answer = method(probe)
    assert probe.spent.own == method.cost(probe) * 2 == Cost(19, 18) * 2
    assert answer.warnings[0].startswith("completeness gap 9.0% of the score difference with 18 steps")
    assert close(answer.maps["image"], IntegratedGradients(18)(opened(method, s)).maps["image"], 1e-12)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"steps": 0}, "at least 1 step, got 0"),
        ({"tolerance": 0.0}, "a tolerance above 0, got 0.0"),
        ({"tolerance": float("nan")}, "a tolerance above 0, got nan"),
        ({"tolerance": 0.1, "steps_max": 8}, "steps_max of at least 32, the steps to begin with, got 8"),
    ],
)
def test_what_cannot_be_is_refused(change, told):
    with pytest.raises(BadOption, match=told):
        IntegratedGradients(**change)
