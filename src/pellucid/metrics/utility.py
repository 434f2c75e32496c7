"""What an explanation costs a reader: how long it takes."""

import platform
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

from pellucid.core.card import GRADIENTS, Ask, Cost, MetricCard, Property, shared_cost
from pellucid.core.errors import BadOption
from pellucid.core.explainer import Explainer
from pellucid.core.explanation import Answer
from pellucid.core.metric import Metric, Score
from pellucid.core.model import Model
from pellucid.core.perwindow import answered
from pellucid.core.probe import Probe

_STEPS = ("reading", "preparing")  # of a case, before the first pass
_ENOUGH = 20  # repeats, below which no share of 95 % lies below the slowest


@dataclass(frozen=True)
class Latency(Metric):
    """How long the explanation of this case takes on this machine, from the file to the map, against a budget.

    The 95th percentile (nearest rank) of explaining the case again, each time with a fresh probe: shared pass, own
    passes, and what reading and preparing the image took where that is known. ``cold`` in the detail is the first time
    a model is asked anything, with its weights in memory; loading them is not in it. The machine is as busy as it is.

    Returns:
        Score in seconds, lower is better; undefined without repeats.

    Raises:
        BadOption: repeats below 0, or no budget.

    Source:
        fayaz2026demystifying: section 3.3.4 and Table 6 ask for less than 2 s in emergency triage, section 5.5
        (principle 1) for less than 3 s; the guidance that it cites for 2 s was not found.

    Example:
        >>> Latency(repeats=20, budget_s=1).card.unit
        's'
    """

    repeats: Annotated[int, "warm explanations; from 20 on the 95th percentile is not simply the slowest"] = 5
    budget_s: Annotated[float, "seconds that an explanation may take"] = 2.0

    clock: ClassVar[Callable[[], float]] = staticmethod(time.perf_counter)

    card: ClassVar[MetricCard] = MetricCard(
        measures=Property.UTILITY,
        shows="how long the explanation takes on this machine",
        caution="of this machine, as busy as it was; without loading the model, and without drawing the page",
        equation=r"\mathrm{P}_{95}(t)",
        source="fayaz2026demystifying",
        cost_note="one more explanation per repeat, and a cold one",
        direction="lower",
        unit="s",
        interval="0 to any",
        repeatable=False,
    )

    def __post_init__(self) -> None:
        if self.repeats < 0 or not self.budget_s > 0:
            raise BadOption(
                f"expected repeats of at least 0 and a budget above 0 s, got {self.repeats} and {self.budget_s}",
                "5 repeats and 2 s are the defaults",
            )

    def cost(self, probe: Probe, explainer: Explainer) -> Cost:
        """See ``Metric``."""
        at_first = Cost(int(_engine_of(probe, explainer)))  # how far the engine is off at the image
        return (shared_cost(explainer.card.asks | {Ask.OUTPUT}) + explainer.cost(probe) + at_first) * (self.repeats + 1)

    def __call__(
        self, probe: Probe, answer: Answer, explainer: Explainer, region: Bool[Tensor, "*space"] | None
    ) -> Score:
        """See ``Metric``."""
        unasked = replace(probe.model, findings={}, _traces={}, _defaults={})
        cold = self._timed(probe, unasked, explainer)
        warm = np.array([self._timed(probe, probe.model, explainer) for _ in range(self.repeats)])
        before = {step: probe.scene.before_s[step] for step in _STEPS if step in probe.scene.before_s}
        detail: dict[str, Any] = {
            "cold": cold,
            "warm": warm.tolist(),
            "before": dict(before),
            "not in it": [*(s for s in _STEPS if s not in before), "loading the model", "the page"],
            "budget": self.budget_s,
            "device": _device(probe.model),
            "engine": probe.engine.name if probe.engine and _engine_of(probe, explainer) else "eager",
            "precision": probe.precision,
            "items at once": probe.batch,
        }
        if not self.repeats:
            why = "no repeats: a percentile has nothing to be taken from"
            return replace(Score.undefined(self, probe.batch, why), detail=detail)
        total = warm + sum(before.values())
        p50, p95 = (float(np.percentile(total, q, method="inverted_cdf")) for q in (50, 95))
        detail |= {
            "p50": p50,
            "p95": p95,
            "cold from the file": cold + sum(before.values()),
            "within the budget": p95 <= self.budget_s,
            "share within the budget": float((total <= self.budget_s).mean()),
        }
        if self.repeats < _ENOUGH:
            detail["means"] = f"of {self.repeats} repeats the 95th percentile is the slowest"
        values = torch.full((probe.batch,), p95, dtype=torch.float64)
        return Score(self.name, values, ("",) * probe.batch, self.settings(), detail)

    def _timed(self, probe: Probe, model: Model, explainer: Explainer) -> float:
        """Seconds of one explanation, from inputs that are prepared to an answer that is there."""
        _finish(model)
        started = self.clock()
        needs, target = explainer.needs(model, probe.inputs), probe.targets[probe.aim]
        engine = probe.engine if _engine_of(probe, explainer) else None
        again = Probe(model, probe.inputs, target, needs, probe.scene, probe.precision, engine)
        answered(explainer, again)
        _finish(model)
        ended = self.clock()
        probe.spent.own += again.spent.shared + again.spent.own
        return ended - started


def _engine_of(probe: Probe, explainer: Explainer) -> bool:
    """Whether the method goes through the probe's engine: one that takes gradients does not."""
    return probe.engine is not None and not (explainer.card.asks & GRADIENTS or explainer.cost(probe).backwards)


def _finish(model: Model) -> None:
    """A GPU works on after it was told to: wait until it is done."""
    if model.device.type == "cuda":
        torch.cuda.synchronize(model.device)


def _device(model: Model) -> str:
    if model.device.type == "cuda":
        return torch.cuda.get_device_name(model.device)
    return f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads"
