"""A module is left as it was: after every kind of pass, after every kind of failure, and by several threads."""

import contextlib
import copy
import threading
import time

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from pellucid.core.card import Ask
from pellucid.core.errors import CannotDo
from pellucid.core.model import Model
from pellucid.core.prepare import InputSpec
from pellucid.core.probe import Probe
from pellucid.core.target import BoundTarget, ClassScore, Target

NEEDS = [(Ask.INPUT_GRADIENT, None), (Ask.ACTIVATION, "second"), (Ask.LAYER_GRADIENT, "second")]
ALL = frozenset({Ask.INPUT_GRADIENT, Ask.ACTIVATION, Ask.LAYER_GRADIENT})


def model_of(module, channels=2):
    return Model(module, (InputSpec(channels=channels, order="rgb"),))


def everything(module, x, precision="float32"):
    """Every kind of question, each at least once."""
    model = model_of(module)
    probe = Probe(model, x, [ClassScore(0), ClassScore(1)], NEEDS, None, precision)
    done = probe.run(
        None, ALL, ("relu#2",), {"first": lambda t: t * 2}, {F.relu: lambda t, inplace=False: t.abs()}, True
    )
    model.layers({"image": x})
    _ = model.digest
    return probe.input_gradient["image"], probe.layer_gradient("second"), probe.score({"image": x}), done.output


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_nothing_is_changed(small, draw, untouched, precision) -> None:
    module, x = small(), draw(2, 2, 8, 8)
    kept, version = x.clone(), x._version
    with untouched(module):
        everything(module, x, precision)
    assert torch.equal(x, kept)
    assert x._version == version
    assert not x.requires_grad


def test_gradients_that_were_there_stay(small, draw, untouched) -> None:
    module, x = small().eval(), draw(2, 2, 8, 8)
    module(x).sum().backward()
    before = [p.grad.clone() for p in module.parameters()]
    with untouched(module):
        everything(module, x)
    assert all(torch.equal(b, p.grad) for b, p in zip(before, module.parameters(), strict=True))


def test_a_module_in_mixed_modes_gets_them_back(small, draw, untouched) -> None:
    module = small().train()
    module.norm.eval()
    module.drop.eval()
    with untouched(module):
        everything(module, draw(2, 2, 8, 8))
    assert (module.training, module.norm.training, module.drop.training, module.relu.training) == (
        True, False, False, True,
    )  # fmt: skip


def test_hooks_of_the_user_stay_and_run(small, draw, untouched) -> None:
    module, calls = small(), []
    module.second.register_forward_hook(lambda *_: calls.append(1))
    with untouched(module):
        everything(module, draw(1, 2, 8, 8))
    assert calls


class Noise(nn.Module):
    """Random in evaluation mode too."""

    def forward(self, x):
        return (x + torch.randn_like(x)).flatten(1)[:, :3]


def test_a_module_that_draws_moves_no_random_state(draw, untouched) -> None:
    module, x = Noise(), draw(2, 1, 4, 4)
    model = Model(module)
    with untouched(module):
        probe = Probe(model, x, ClassScore(0))
        first = probe.baseline_score
        assert torch.equal(probe.score({"image": x}), first)


@pytest.mark.parametrize("needs", [[], [(Ask.INPUT_GRADIENT, None)]])
def test_a_module_that_writes_into_its_input_writes_into_a_copy(draw, needs) -> None:
    x = draw(2, 1, 4, 4)
    kept = x.clone()
    probe = Probe(Model(nn.Sequential(nn.ReLU(inplace=True), nn.Flatten())), x, ClassScore(3), needs)
    expected = kept.flatten(1)[:, 3].clamp_min(0)
    assert torch.equal(probe.baseline_score, expected)
    assert torch.equal(probe.score({"image": x}), expected)
    assert torch.equal(x, kept)
    if needs:
        assert torch.equal(probe.input_gradient["image"].flatten(1)[:, 3], (kept.flatten(1)[:, 3] > 0).float())


class Trap(nn.Module):
    """Fails in the middle of the forward or of the backward."""

    def __init__(self, inner):
        super().__init__()
        self.inner, self.where, self.kind = inner, None, RuntimeError

    def forward(self, x):
        x = self.inner.relu(self.inner.norm(self.inner.first(x)))
        if self.where == "forward":
            raise self.kind("planted")
        x = self.inner.second(x)
        if self.where == "backward" and x.requires_grad:
            x.register_hook(self._fail)
        return self.inner.last(self.inner.pool(self.inner.relu(x)).flatten(1))

    def _fail(self, _gradient):
        raise self.kind("planted")


@pytest.mark.parametrize("kind", [RuntimeError, MemoryError, KeyboardInterrupt])
@pytest.mark.parametrize("where", ["forward", "backward"])
def test_nothing_is_changed_after_a_failure(small, draw, untouched, where, kind) -> None:
    module, x = Trap(small()), draw(2, 2, 8, 8)
    needs = [(a, n and f"inner.{n}") for a, n in NEEDS]
    probe = Probe(model_of(module), x, ClassScore(1), needs)
    opened = Probe(model_of(module), x, ClassScore(1), needs)
    expected = opened.input_gradient["image"]
    module.where, module.kind = where, kind
    with untouched(module):
        with pytest.raises(kind, match="planted"):
            probe.input_gradient
        with pytest.raises(kind, match="planted"):
            opened.gradient(opened.inputs)
    module.where = None
    assert torch.equal(probe.input_gradient["image"], expected)  # it can be asked again


def test_nothing_is_changed_after_a_failing_edit_or_rule(small, draw, untouched) -> None:
    module = small()
    probe = Probe(model_of(module), draw(2, 2, 8, 8), ClassScore(1))

    def fail(*_args, **_named):
        raise ArithmeticError("planted")

    with untouched(module):
        with pytest.raises(ArithmeticError):
            probe.run(edits={"second": fail})
        with pytest.raises(ArithmeticError):
            probe.run(rules={F.relu: fail})


class Broken(Target):
    def bind(self, output, spec, regions):
        raise ArithmeticError("planted")


class BrokenLater(Target):
    def bind(self, output, spec, regions):
        return BoundTarget("broken", lambda o: o[:, 99], "logit")


@pytest.mark.parametrize(("target", "error"), [(Broken(), ArithmeticError), (BrokenLater(), IndexError)])
def test_nothing_is_changed_after_a_failing_target(small, draw, untouched, target, error) -> None:
    module = small()
    with untouched(module), pytest.raises(error):
        Probe(model_of(module), draw(2, 2, 8, 8), target, NEEDS).output


def test_nothing_is_changed_after_a_failing_trace(small, draw, untouched) -> None:
    module = Trap(small())
    module.where = "forward"
    with untouched(module), pytest.raises(RuntimeError, match="planted"):
        model_of(module).layers({"image": draw(1, 2, 8, 8)})


@pytest.mark.parametrize("frozen", ["all", "first half", "second half"])
def test_frozen_parameters_change_no_gradient(small, draw, untouched, frozen) -> None:
    module, x = small(), draw(2, 2, 8, 8)
    expected = everything(module, x)
    parameters = list(module.parameters())
    half = {"all": parameters, "first half": parameters[:4], "second half": parameters[4:]}[frozen]
    for p in half:
        p.requires_grad_(False)
    with untouched(module):
        found = everything(module, x)
    for ours, theirs in zip(found, expected, strict=True):
        assert torch.allclose(ours, theirs, atol=1e-7)
    only_layer = Probe(model_of(module), x, ClassScore(0), [(Ask.LAYER_GRADIENT, "second")])
    assert torch.allclose(only_layer.layer_gradient("second"), expected[1], atol=1e-7)


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_the_callers_context_does_not_matter(small, draw, untouched, context) -> None:
    module, x = small(), draw(2, 2, 8, 8)
    expected = everything(module, x)
    with context(), untouched(module):
        made_here = x * 1  # under inference_mode autograd would refuse it
        found = everything(module, made_here)
    for ours, theirs in zip(found, expected, strict=True):
        assert torch.allclose(ours.clone(), theirs, atol=1e-7)


def test_weights_made_under_inference_mode_are_refused_with_the_reason(small, draw) -> None:
    with torch.inference_mode():
        module = small()
    x = draw(1, 2, 8, 8)
    assert Probe(model_of(module), x, ClassScore(1)).baseline_score.shape == (1,)  # forwards are fine
    with pytest.raises(CannotDo, match=r"inference_mode.*Occlusion"):
        Probe(model_of(module), x, ClassScore(1), NEEDS).output


@pytest.mark.parametrize(("dtype", "within"), [(torch.bfloat16, 0.03), (torch.float64, 1e-6)])
def test_weights_of_another_format_take_the_input_in_theirs(small, draw, dtype, within) -> None:
    module, x = small(), draw(2, 2, 8, 8)
    full = Probe(model_of(module), x, ClassScore(1), NEEDS)
    other = Probe(model_of(copy.deepcopy(module).to(dtype)), x, ClassScore(1), NEEDS)
    assert other.output.dtype is dtype
    assert other.baseline_score.dtype is (torch.float32 if dtype is torch.bfloat16 else torch.float64)
    assert other.input_gradient["image"].dtype is torch.float32
    scale = float(full.input_gradient["image"].abs().max())
    for ours, theirs in ((other.input_gradient["image"], full.input_gradient["image"]),):
        assert float((ours - theirs).abs().max()) < within * scale
    assert torch.allclose(other.baseline_score.float(), full.baseline_score, atol=within)


# threads


class Slow(nn.Module):
    """Gives another thread time to come between."""

    def __init__(self, inner):
        super().__init__()
        self.inner, self.inside, self.most = inner, 0, 0

    def forward(self, x):
        self.inside += 1
        self.most = max(self.most, self.inside)
        assert not self.training
        time.sleep(0.01)
        out = self.inner(x)
        assert not self.inner.training
        self.inside -= 1
        return out


def test_threads_that_share_a_model_take_turns(small, draw, untouched) -> None:
    module = Slow(small())
    module.train()
    model, cases = model_of(module), [draw(1, 2, 8, 8, seed=i) for i in range(4)]

    def explain(x, way):
        probe = Probe(model, x, ClassScore(1), [(a, n and f"inner.{n}") for a, n in NEEDS])
        edited = probe.run(want=ALL, layers=("inner.first",), edits={"inner.second": way})
        return (
            probe.input_gradient["image"],
            probe.layer_gradient("inner.second"),
            edited.layer_gradient[0]["inner.first"],
        )

    ways = [lambda t: t * 2, lambda t: -t, lambda t: t + 1, torch.tanh]
    expected = [explain(x, w) for x, w in zip(cases, ways, strict=True)]
    found, failures, start = {}, [], threading.Barrier(4)

    def work(i):
        try:
            start.wait()
            for _ in range(3):
                found[i] = explain(cases[i], ways[i])
        except Exception as error:
            failures.append(error)

    with untouched(module):
        threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
    assert not failures
    assert module.most == 1
    for i in range(4):
        assert all(torch.equal(a, b) for a, b in zip(found[i], expected[i], strict=True))


def test_a_failure_in_one_thread_does_not_lock_the_others_out(small, draw) -> None:
    module = Trap(small())
    model, x = model_of(module), draw(1, 2, 8, 8)
    module.where = "forward"

    def fail():
        with contextlib.suppress(RuntimeError):
            Probe(model, x, ClassScore(1)).output

    thread = threading.Thread(target=fail)
    thread.start()
    thread.join()
    module.where = None
    done = []
    second = threading.Thread(target=lambda: done.append(Probe(model, x, ClassScore(1)).output))
    second.start()
    second.join(timeout=20)
    assert len(done) == 1


def test_the_picture_of_a_module_sees_every_change(small, untouched) -> None:
    def hook(*_):
        return None

    changes = {
        "mode": lambda m: m.drop.eval(),
        "flag": lambda m: setattr(m.relu, "inplace", False),
        "hook": lambda m: m.first.register_forward_hook(hook),
        "pre-hook": lambda m: m.register_forward_pre_hook(hook),
        "backward hook": lambda m: m.first.register_full_backward_hook(hook),
        "frozen": lambda m: m.last.weight.requires_grad_(False),
        "grad": lambda m: setattr(m.last.weight, "grad", torch.zeros_like(m.last.weight)),
        "weight": lambda m: m.last.weight.data.add_(1),
        "undone": lambda m: m.norm.running_mean.add_(1).sub_(1),
        "random": lambda m: torch.rand(1),
        "count": lambda m: m.norm.num_batches_tracked.add_(1),
    }
    for name, change in changes.items():
        module = small()
        with pytest.raises(AssertionError), torch.random.fork_rng(devices=[]), untouched(module):  # noqa: PT012
            change(module)
            name = None  # reached
        assert name is None
