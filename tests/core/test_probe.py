"""The one evaluation: what it gives, how often it runs, and what may be changed on the way."""

import pytest
import torch
from torch import nn

from pellucid.core.card import Ask, Cost
from pellucid.core.errors import BadOption, CannotDo, NonFinite, ShapeMismatch
from pellucid.core.grid import Grid
from pellucid.core.model import Model
from pellucid.core.prepare import InputSpec
from pellucid.core.probe import Probe, Scene
from pellucid.core.target import ClassScore, Margin, RegionScore

INPUT = (Ask.INPUT_GRADIENT, None)
PLAIN = frozenset({Ask.INPUT_GRADIENT})


def model_of(module, channels=2, rank=2):
    return Model(module, (InputSpec(rank=rank, channels=channels, order="rgb"),))


class Counting(nn.Module):
    """Counts items and calls forward, and backward passes through its input."""

    def __init__(self, inner):
        super().__init__()
        self.inner, self.calls, self.items, self.backwards = inner, 0, 0, 0

    def forward(self, x):
        self.calls, self.items = self.calls + 1, self.items + len(x)
        if x.requires_grad:
            x = x.clone()
            x.register_hook(self._back)
        return self.inner(x)

    def _back(self, _gradient):
        self.backwards += 1


def by_hand(module, x, score):
    """Score and gradients by plain autograd in evaluation mode, on a copy of the inputs."""
    was = module.training
    module.eval()
    x = x.clone().requires_grad_()
    value = score(module(x))
    (gradient,) = torch.autograd.grad(value.sum(), x)
    module.train(was)
    return value.detach(), gradient


@pytest.mark.parametrize("rank", [2, 3])
def test_the_shared_pass_is_plain_autograd_in_evaluation_mode(small, draw, rank) -> None:
    module, x = small(rank), draw(3, 2, *(8,) * rank)
    probe = Probe(model_of(module, rank=rank), x, ClassScore(1), [INPUT])
    value, gradient = by_hand(module, x, lambda o: o[:, 1])
    assert torch.equal(probe.baseline_score, value)
    assert torch.equal(probe.input_gradient["image"], gradient)
    assert not probe.output.requires_grad
    assert not probe.input_gradient["image"].requires_grad


def test_several_targets_share_one_forward_and_make_one_backward_each(small, draw) -> None:
    counting, x = Counting(small()), draw(2, 2, 8, 8)
    targets = [ClassScore(0), ClassScore(2), Margin(0, 2)]
    probe = Probe(model_of(counting), x, targets, [INPUT])
    for i in (0, 1, 2, 0, 1, 2):
        probe.at(i).input_gradient
        probe.at(i).baseline_score
    assert (counting.calls, counting.backwards) == (1, 3)
    assert probe.spent.shared == Cost(2, 6)
    assert probe.spent.own == Cost()
    for i, score in enumerate((lambda o: o[:, 0], lambda o: o[:, 2], lambda o: o[:, 0] - o[:, 2])):
        value, gradient = by_hand(counting.inner, x, score)
        assert torch.allclose(probe.at(i).baseline_score, value)
        assert torch.allclose(probe.at(i).input_gradient["image"], gradient, atol=1e-7)


def test_own_passes_are_counted_apart_and_explain_the_target_aimed_at(small, draw) -> None:
    counting, x = Counting(small()), draw(2, 2, 8, 8)
    probe = Probe(model_of(counting), x, [ClassScore(0), ClassScore(2)]).at(1)
    probe.baseline_score
    counting.calls = counting.items = counting.backwards = 0
    other = draw(6, 2, 8, 8, seed=1)
    score, gradient = probe.score({"image": other}), probe.gradient({"image": other})["image"]
    unperturbed = probe.run(want=PLAIN)
    assert (counting.calls, counting.items, counting.backwards) == (3, 14, 2)
    assert probe.spent.own == Cost(14, 8)
    assert probe.spent.shared == Cost(2, 0)
    value, expected = by_hand(counting.inner, other, lambda o: o[:, 2])
    assert torch.allclose(score, value)
    assert torch.allclose(gradient, expected, atol=1e-7)
    assert unperturbed.input_gradient[0] == {}
    assert torch.allclose(
        unperturbed.input_gradient[1]["image"], by_hand(counting.inner, x, lambda o: o[:, 2])[1], atol=1e-7
    )


def test_without_gradients_nothing_is_differentiated(small, draw) -> None:
    counting = Counting(small())
    Probe(model_of(counting), draw(1, 2, 8, 8), ClassScore(0), [(Ask.OUTPUT, None)]).output
    assert (counting.calls, counting.backwards) == (1, 0)


def test_an_item_alone_equals_the_item_in_a_batch(small, draw) -> None:
    x = draw(5, 2, 8, 8)
    needs = [INPUT, (Ask.ACTIVATION, "second"), (Ask.LAYER_GRADIENT, "second")]
    model = model_of(small())
    together = Probe(model, x, ClassScore(), needs)
    for i in range(5):
        alone = Probe(model, x[i : i + 1], ClassScore(), needs)
        for ours, theirs in (
            (alone.input_gradient["image"][0], together.input_gradient["image"][i]),
            (alone.activation("second")[0], together.activation("second")[i]),
            (alone.layer_gradient("second")[0], together.layer_gradient("second")[i]),
        ):
            assert float((ours - theirs).abs().max()) <= 1e-5 * float(theirs.abs().max())


def test_what_was_not_announced_is_refused(small, draw) -> None:
    probe = Probe(model_of(small()), draw(1, 2, 8, 8), ClassScore(0))
    with pytest.raises(LookupError, match=r"Ask\.INPUT_GRADIENT"):
        probe.input_gradient
    with pytest.raises(LookupError, match=r"Ask\.ACTIVATION"):
        probe.activation("second")


def test_the_region_is_fixed_at_the_unperturbed_input(draw) -> None:
    segmenter = nn.Conv2d(1, 2, 1)
    segmenter.weight.data, segmenter.bias.data = torch.tensor([[[[-1.0]]], [[[1.0]]]]), torch.tensor([0.3, -0.1])
    x = draw(2, 1, 6, 6)
    probe = Probe(model_of(segmenter, 1), x, RegionScore(1))
    first = segmenter(x).detach()
    mask = (first.argmax(1) == 1).float()
    other = torch.cat([-x, x * 0, x + 1])  # three versions of the batch, batch innermost
    later = segmenter(other).detach()
    expected = (later[:, 1] * mask.repeat(3, 1, 1)).sum((1, 2)) / mask.sum((1, 2)).repeat(3)
    assert torch.allclose(probe.score({"image": other}), expected, atol=1e-6)
    moved = (later[:2].argmax(1) == 1).float()
    wrong = (later[:2, 1] * moved).sum((1, 2)) / moved.sum((1, 2))
    assert not torch.allclose(probe.score({"image": other})[:2], wrong, atol=1e-3)


def undecided(seed):
    """A module that predicts several classes on random inputs."""
    linear = nn.Linear(128, 3)
    linear.weight.data = torch.randn(3, 128, generator=torch.Generator().manual_seed(seed))
    return nn.Sequential(nn.Flatten(), linear)


def test_the_predicted_class_is_fixed_at_the_unperturbed_input(draw) -> None:
    x = draw(6, 2, 8, 8)
    probe = Probe(model_of(undecided(3)), x, ClassScore())
    chosen = probe.output.argmax(1)
    assert len(chosen.unique()) > 1
    done = probe.run({"image": -x})
    assert torch.equal(done.score[0], done.output.gather(1, chosen[:, None])[:, 0])


def test_another_model_is_asked_for_the_same_classes(draw) -> None:
    x = draw(4, 2, 8, 8)
    probe = Probe(model_of(undecided(3)), x, ClassScore(), [INPUT])
    chosen = probe.output.argmax(1)
    other = probe.on(model_of(undecided(8)))
    assert not torch.equal(other.output.argmax(1), chosen)
    assert torch.equal(other.baseline_score, other.output.gather(1, chosen[:, None])[:, 0])
    assert other.spent.shared == Cost(4, 4)


@pytest.mark.parametrize("target", [ClassScore(1), Margin(1, 0)])
def test_scores_are_float32_after_autocast(small, draw, target) -> None:
    x = draw(2, 2, 8, 8)
    full, fast = (Probe(model_of(small()), x, target, [INPUT], None, p) for p in ("float32", "bfloat16"))
    assert fast.output.dtype is torch.bfloat16
    assert fast.baseline_score.dtype is torch.float32
    assert fast.input_gradient["image"].dtype is torch.float32
    assert fast.score({"image": x}).dtype is torch.float32
    assert torch.allclose(fast.baseline_score, full.baseline_score, atol=0.02)
    assert not torch.equal(fast.baseline_score, full.baseline_score)


def test_a_region_score_is_summed_in_float32_after_autocast() -> None:
    x = torch.linspace(-1, 1, 65 * 65).view(1, 1, 65, 65)
    probe = Probe(model_of(nn.Conv2d(1, 2, 1), 1), x, RegionScore(0, "all"), precision="bfloat16",
                  scene=Scene(regions={"all": torch.ones(65, 65, dtype=torch.bool)}))  # fmt: skip
    expected = probe.output[:, 0].double().mean()
    assert probe.output.dtype is torch.bfloat16
    assert float(probe.baseline_score[0] - expected) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("precision", ["float16", "bf16", ""])
def test_unknown_precision_is_refused(small, draw, precision) -> None:
    with pytest.raises(BadOption, match="float32 or bfloat16"):
        Probe(model_of(small()), draw(1, 2, 8, 8), ClassScore(1), precision=precision)


def test_a_score_that_is_not_finite_is_refused(small, draw) -> None:
    x = draw(1, 2, 8, 8)
    x[0, 0, 3, 3] = torch.nan
    with pytest.raises(NonFinite, match="NaN or infinite"):
        Probe(model_of(small()), x, ClassScore(1)).baseline_score


@pytest.mark.parametrize("shape", [(1, 3, 8, 8), (2, 8, 8), (1, 2, 8, 8, 8), (0, 2, 8, 8)])
def test_inputs_of_another_shape_are_refused(small, shape) -> None:
    with pytest.raises(ShapeMismatch):
        Probe(model_of(small()), torch.zeros(shape), ClassScore(1))


class Cut(nn.Module):
    def __init__(self, how):
        super().__init__()
        self.conv, self.how = nn.Conv2d(1, 2, 1), how

    def forward(self, x):
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.how != "no_grad"):
            out = self.conv(x).mean((2, 3))
        return out.detach() if self.how == "detach" else out


@pytest.mark.parametrize(
    ("how", "need"), [("no_grad", INPUT), ("detach", INPUT), ("detach", (Ask.LAYER_GRADIENT, "conv"))]
)
def test_a_module_that_cuts_its_graph_is_no_map_of_zeros(draw, how, need) -> None:
    with pytest.raises(CannotDo, match="cuts its graph"):
        Probe(model_of(Cut(how), 1), draw(1, 1, 4, 4), ClassScore(1), [need]).output


def test_a_layer_inside_no_grad_begins_the_graph(draw) -> None:
    probe = Probe(model_of(Cut("no_grad"), 1), draw(1, 1, 4, 4), ClassScore(1), [(Ask.LAYER_GRADIENT, "conv")])
    assert torch.allclose(probe.layer_gradient("conv")[0, 1], torch.full((4, 4), 1 / 16))


class FrozenHead(nn.Module):
    """No graph is recorded before or in part of what lies behind the layer."""

    def __init__(self):
        super().__init__()
        self.conv, self.head = nn.Conv2d(1, 2, 1), nn.Linear(2, 2)

    def forward(self, x):
        with torch.no_grad():
            features = self.conv(x)
        return self.head(features.mean((2, 3)))


def test_a_frozen_front_is_run_again_where_the_graph_was_lost(draw) -> None:
    net = FrozenHead()
    probe = Probe(model_of(net, 1), draw(2, 1, 4, 4), ClassScore(1), [(Ask.LAYER_GRADIENT, "conv")])
    expected = (net.head.weight[1] / 16).view(1, 2, 1, 1).expand(2, 2, 4, 4)
    assert torch.allclose(probe.layer_gradient("conv"), expected)
    assert (probe.spent.shared.forwards, probe.spent.own.forwards) == (2, 2)  # and said so


def test_nothing_before_the_layer_is_recorded(small, draw) -> None:
    seen = []
    net = small().train()
    first = next(m for m in net.modules() if isinstance(m, nn.Conv2d))
    last = [n for n, m in net.named_modules() if isinstance(m, nn.Conv2d)][-1]
    handle = first.register_forward_hook(lambda m, a, o: seen.append(o.requires_grad))
    try:
        Probe(model_of(net), draw(1, 2, 8, 8), ClassScore(1), [(Ask.LAYER_GRADIENT, last)]).output
    finally:
        handle.remove()
    assert first is not net.get_submodule(last)
    assert seen[-1] is False


def test_the_grid_is_the_scenes_or_pixels(small, draw) -> None:
    grid = Grid.regular((8, 8), (0.5, 0.5))
    x = draw(1, 2, 8, 8)
    assert Probe(model_of(small()), x, ClassScore(1), scene=Scene({"image": grid})).grid is grid
    assert Probe(model_of(small()), x, ClassScore(1)).grid.unit == "px"
