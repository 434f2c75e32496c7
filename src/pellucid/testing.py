"""The contract that every method and metric keeps; third parties run it on theirs.

Example:
    >>> from pellucid.explain.gradient import Saliency
    >>> check_explainer(Saliency(), rank=2, task="classification")
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor, nn

from pellucid.core.card import Ask, Family, Task, shared_cost
from pellucid.core.cohort import Cohort, blocks_of
from pellucid.core.errors import BadOption, CannotDo, DeclarationError
from pellucid.core.explainer import CohortExplainer, Explainer
from pellucid.core.explanation import Attribution
from pellucid.core.metric import Metric
from pellucid.core.model import Model, OutputSpec
from pellucid.core.perwindow import answered
from pellucid.core.prepare import InputSpec
from pellucid.core.probe import Probe, Scene
from pellucid.core.target import ClassScore, RegionScore, Target
from pellucid.core.windows import SlidingWindows

_SIDE = {2: 16, 3: 12}
_CONV: dict[int, type[nn.Module]] = {2: nn.Conv2d, 3: nn.Conv3d}
_POOL: dict[int, type[nn.Module]] = {2: nn.AdaptiveAvgPool2d, 3: nn.AdaptiveAvgPool3d}


class _Halting(nn.Module):
    """Raises at the n-th forward, to see that nothing is left changed."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner, self.left = inner, -1

    def forward(self, x: Tensor) -> Tensor:
        """Count down, then raise."""
        self.left -= 1
        if self.left == -1:
            raise RuntimeError("planted failure")
        return self.inner(x)


class _Attentive(nn.Module):
    """Patches of 4 voxels, a gate over channels, a gate over places, and one transformer layer."""

    def __init__(self, rank: int, task: Task, count: int) -> None:
        super().__init__()
        conv: Any = _CONV[rank]
        self.embed = conv(2, 8, 4, 4)
        self.channel = nn.Sequential(nn.Linear(8, 4), nn.ReLU(inplace=True), nn.Linear(4, 8), nn.Sigmoid())
        self.place = nn.Sequential(conv(8, 1, 1), nn.Sigmoid())
        self.token = nn.Parameter(torch.randn(1, 1, 8))
        self.mix = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.5, batch_first=True)
        self.head = nn.Linear(8, count)
        self.voxels = task == "segmentation"

    def forward(self, x: Tensor) -> Tensor:
        """Scores of classes, or of voxels."""
        size = x.shape[2:]
        x = self.embed(x)
        x = x * self.channel(x.flatten(2).mean(2)).view(*x.shape[:2], *(1,) * (x.ndim - 2))
        x = x * self.place(x)
        tokens = torch.cat([self.token.expand(len(x), -1, -1), x.flatten(2).transpose(1, 2)], 1)
        tokens = self.head(self.mix(tokens))
        if not self.voxels:
            return tokens[:, 0]
        return nn.functional.interpolate(tokens[:, 1:].transpose(1, 2).unflatten(2, x.shape[2:]), size)


def small_model(rank: int, task: Task, cells: int = 2, attentive: bool = False) -> tuple[Model, Tensor, Target]:
    """A seeded network with in-place ReLU, batch norm and dropout, in training mode, with two items and a target.

    Args:
        rank: 2 or 3.
        task: of the model.
        cells: per axis, that a classifier's linear layer reads; 1 is a global mean.
        attentive: one with gates, a class token and attention instead.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        conv: Any = _CONV[rank]
        norm: Any = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}[rank]
        body = nn.Sequential(
            conv(2, 4, 3, 2, 1), norm(4), nn.ReLU(inplace=True), conv(4, 6, 3, 1, 1), nn.ReLU(inplace=True)
        )
        count = 1 if task == "regression" else 3
        if task == "segmentation":
            head: nn.Module = nn.Sequential(conv(6, 3, 1), nn.Upsample(scale_factor=2))
        else:
            pool: Any = _POOL[rank]
            head = nn.Sequential(pool(cells), nn.Flatten(), nn.Dropout(0.5), nn.Linear(6 * cells**rank, count))
        network = _Attentive(rank, task, count) if attentive else nn.Sequential(body, head)
        x = torch.randn(2, 2, *(_SIDE[rank],) * rank)
    output = OutputSpec(
        task, (), "none" if task == "regression" else "softmax", "mm" if task == "regression" else "logit"
    )
    model = Model(_Halting(network).train(), (InputSpec(rank=rank, channels=2, order="rgb"),), output)
    target: Target = RegionScore(1, "box") if task == "segmentation" else ClassScore(0 if task == "regression" else 1)
    return model, x, target


def _scene(rank: int) -> Scene:
    box = torch.zeros((_SIDE[rank],) * rank, dtype=torch.bool)
    box[(slice(3, 9),) * rank] = True
    return Scene(
        regions={"box": box}, seed=3, readers={"first": box, "second": box.roll(1, 0), "third": box.roll(-2, 1)}
    )


def _require(holds: bool, what: str) -> None:
    if not holds:
        raise DeclarationError(f"the contract is broken: {what}", "see pellucid.testing for what every method owes")


@contextmanager
def unchanged(module: nn.Module) -> Iterator[None]:
    """Weights, buffers, modes, hooks, ``.grad``, ``requires_grad``, in-place flags and random state stay."""

    def state() -> list[Any]:
        return [
            [
                (m.training, getattr(m, "inplace", None), len(m._forward_hooks), len(m._backward_hooks), *m.__dict__)
                for m in module.modules()
            ],
            [(p.requires_grad, p.grad is None) for p in module.parameters()],
        ]

    tensors = {k: v.clone() for k, v in module.state_dict().items()}
    before, generator = state(), torch.get_rng_state()
    try:
        yield
    finally:
        _require(before == state(), "training modes, hooks, .grad or flags of the model were changed")
        same = all(torch.equal(tensors[k], v) for k, v in module.state_dict().items())
        _require(same, "weights or buffers of the model were changed")
        _require(torch.equal(generator, torch.get_rng_state()), "the global random state was moved")


def check_explainer(explainer: Explainer, rank: int, task: Task, windows: SlidingWindows | None = None) -> None:
    """Run the contract on one method.

    Shape, finiteness, sign, cost as declared, the model untouched (also after an exception), an item alone equal to
    the item in a batch, the same answer for the same seed. A method that refuses the network's head (``CannotDo``)
    owes all this for a head that pools, or for a network with attention.

    Args:
        explainer: an instance.
        rank: 2 or 3.
        task: that the card declares.
        windows: that the network predicts by; None: the image goes in whole.

    Raises:
        DeclarationError: what is broken.
    """
    networks = [small_model(rank, task), small_model(rank, task, cells=1), small_model(rank, task, attentive=True)]
    if explainer.card.family is Family.ATTENTION:
        networks = networks[-1:]
    for index, (model, x, target) in enumerate(networks, start=1):
        try:
            _check_on(explainer, rank, replace(model, inference=windows), x, target)
        except CannotDo:
            if index == len(networks):
                raise
        else:
            return


def _check_on(explainer: Explainer, rank: int, model: Model, x: Tensor, target: Target) -> None:
    inputs, scene = {model.primary: x}, _scene(rank)
    halting = cast(_Halting, model.module)

    def opened(batch: Tensor) -> Probe:
        return Probe(model, batch, target, explainer.needs(model, {model.primary: batch}), scene)

    model.layers(inputs) if model.can.hooks else None
    with unchanged(model.module):
        probe = opened(x)
        answer = answered(explainer, probe)
        before = halting.left
        again = answered(explainer, opened(x))
        calls = before - halting.left
        alone = answered(explainer, opened(x[:1]))
    declared = explainer.cost(probe) * probe.batch
    own = probe.spent.own
    enough = own.forwards <= declared.forwards and own.backwards <= declared.backwards
    right = enough if explainer.card.early else own == declared
    _require(right, f"cost declared {declared}, counted {own}")
    asks = explainer.card.asks if model.inference is None else explainer.card.asks | {Ask.OUTPUT}  # windows: of a blend
    shared = shared_cost(asks) * probe.batch
    _require(probe.spent.shared == shared, f"shared pass declared {shared}, counted {probe.spent.shared}")
    if isinstance(answer, Attribution) and isinstance(again, Attribution) and isinstance(alone, Attribution):
        _check_maps(answer, explainer, x)
        for name, values in answer.maps.items():
            _require(torch.equal(values, again.maps[name]), "the same seed gave another answer")
            scale = float(values.abs().max()) or 1.0
            gap = float((values[:1] - alone.maps[name]).abs().max()) / scale
            _require(gap < 1e-5, f"an item alone differs from the item in a batch by {gap:.1e}")
    _check_after_failure(explainer, halting, opened(x), calls)


def _check_maps(answer: Attribution, explainer: Explainer, x: Tensor) -> None:
    for values in answer.maps.values():
        right = len(values) == len(x) and values.shape[2:] == x.shape[2:] and values.shape[1] in (1, x.shape[1])
        _require(right, f"expected a map (batch, 1 or channel, *space) for {tuple(x.shape)}, got {tuple(values.shape)}")
        _require(bool(torch.isfinite(values).all()), "the map is not finite")
        _require(not values.requires_grad, "the map is attached to the graph")
        _require(explainer.card.signed or bool(values.min() >= 0), "negative values, and the card says unsigned")
    _require(answer.signed == explainer.card.signed, "card and answer disagree about the sign")
    promised = answer.difference is not None and answer.difference.shape == (len(x),)
    _require(promised == explainer.card.completes, "card and answer disagree about what the values sum to")
    _require((answer.error is not None) == explainer.card.stochastic, "card and answer disagree about drawing samples")
    for name, error in (answer.error or {}).items():
        right = error.shape == answer.maps[name].shape and bool(torch.isfinite(error).all()) and bool(error.min() >= 0)
        _require(right, "a standard error must be finite, never negative, and shaped as the map")
    _require(len(answer.cell) == x.ndim - 2, "the map does not say its native resolution")


def _check_after_failure(explainer: Explainer, halting: _Halting, probe: Probe, calls: int) -> None:
    """The module raises at the last of its ``calls``: everything must be as it was."""
    with unchanged(halting):
        halting.left = calls - 1
        try:
            answered(explainer, probe)
        except RuntimeError as error:
            _require("planted failure" in str(error), f"the module's error was replaced by {error}")
        else:
            _require(False, "the module's error was swallowed")
        finally:
            halting.left = -1


def check_cohort_explainer(explainer: CohortExplainer, rank: int, task: Task) -> None:
    """Run the contract on one method for cohorts.

    Finite numbers inside their intervals, the passes it says it made, the model untouched (also after an exception),
    the same answer for the same seed, and one case refused with the mend.

    Args:
        explainer: an instance.
        rank: 2 or 3.
        task: that the card declares.

    Raises:
        DeclarationError: what is broken.
    """
    model, x, target = small_model(rank, task)
    halting, draw = cast(_Halting, model.module), torch.Generator().manual_seed(5)
    cases = torch.cat([x, torch.randn(14, *x.shape[1:], generator=draw)])
    scene = _scene(rank)
    model.layers({model.primary: x}) if model.can.hooks else None
    cohort = Cohort({model.primary: cases}, target, blocks_of(x.shape[2:], 2), scene=scene)
    with unchanged(model.module):
        before = halting.left
        answer, calls = explainer(model, cohort), before - halting.left
        again = explainer(model, cohort)
    _require(bool(answer.rows) and answer.rows == again.rows, "no rows, or the same seed gave another answer")
    _require(answer.spent[0] >= calls, f"{answer.spent[0]} forwards declared, {calls} calls counted")
    _require(explainer.card.scope == "global", "the card says that it is for one case")
    for row in answer.rows:
        ends = [row.estimate if v is None else v for v in (row.low, row.high)]
        _require(bool(torch.isfinite(torch.tensor([row.estimate, *ends])).all()), f"{row.name} is not finite")
        _require(ends[0] <= ends[1], f"the interval of {row.name} is upside down")
    with unchanged(halting):
        halting.left = calls - 1
        try:
            explainer(model, cohort)
        except RuntimeError as error:
            _require("planted failure" in str(error), f"the module's error was replaced by {error}")
        else:
            _require(False, "the module's error was swallowed")
        finally:
            halting.left = -1
    try:
        explainer(model, Cohort({model.primary: x[:1]}, target, cohort.parts, scene=scene))
    except BadOption:
        return
    _require(False, "one case was not refused")


def check_metric(metric: Metric, explainer: Explainer, rank: int, task: Task) -> None:
    """Run the contract on one metric: one value per item, NaN only with a reason, cost an upper bound, model untouched.

    The same seed gives the same value, and an item alone the value it has in a batch, unless the card says otherwise.

    Args:
        metric: an instance.
        explainer: whose map is scored.
        rank: 2 or 3.
        task: that the card declares.

    Raises:
        DeclarationError: what is broken.
    """
    model, x, target = small_model(rank, task)
    scene = _scene(rank)

    def scored(batch: Tensor) -> tuple[Probe, Tensor, tuple[str, ...]]:
        probe = Probe(model, batch, target, explainer.needs(model, {model.primary: batch}), scene)
        answer = explainer(probe)
        before = probe.spent.own
        score = metric(probe, answer, explainer, scene.regions["box"])
        spent = probe.spent.own.forwards - before.forwards
        most = metric.cost(probe, explainer).forwards * probe.batch
        _require(spent <= most, f"cost declared {most} forwards at most, counted {spent}")
        return probe, score.values, score.reasons

    with unchanged(model.module):
        probe, values, reasons = scored(x)
        _, again, _ = scored(x)
    model.module.double()  # the last digits of a map depend on the batch, and a ratio of small changes grows them
    (_, many, _), (_, alone, _) = scored(x.double()), scored(x[:1].double())
    _require(tuple(values.shape) == (probe.batch,), f"expected one value per item, got {tuple(values.shape)}")
    said = [bool(r) for r in reasons] or [False] * len(values)
    _require(torch.isnan(values).tolist() == said, "NaN without a reason, or a reason without NaN")
    if not metric.card.repeatable:
        return
    _require(torch.allclose(values, again, equal_nan=True), "the same seed gave another value")
    _require(torch.allclose(many[:1], alone, rtol=1e-5, atol=1e-6, equal_nan=True), "the value depends on the batch")
