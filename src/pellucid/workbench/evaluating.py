"""Score the explanations of a panel; an undefined score says why, and one bad metric never stops the rest."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from pellucid.core.card import Cost
from pellucid.core.case import Case
from pellucid.core.errors import PellucidError
from pellucid.core.explainer import Explainer
from pellucid.core.explanation import Explanation
from pellucid.core.metric import Metric, PanelMetric, Score
from pellucid.core.probe import Probe
from pellucid.core.sweep import Sweep, SweptMetric
from pellucid.plan.budget import Pace
from pellucid.workbench.budgeting import duration
from pellucid.workbench.explaining import Panel, Progress
from pellucid.workbench.readers import CONSENSUS, consensus_words, with_consensus

ALL_MAPS = "all maps"
_TRUTH = ("planted", "expert", "atlas", "drawn")


@dataclass(frozen=True, eq=False)
class Scored:
    """One metric of one explanation, or of all of one target.

    Args:
        method: that made the map, as ``Panel.names`` has it; ``ALL_MAPS`` for a metric of the panel.
        target: that was explained.
        metric: with its card.
        score: for the case (a batch of one).
        region: name of the region used; None where none was needed or there is none.
    """

    method: str
    target: str
    metric: Metric | PanelMetric
    score: Score
    region: str | None

    @property
    def value(self) -> float:
        """The number; NaN where undefined."""
        return float(self.score.values[0])

    @property
    def reason(self) -> str:
        """Why it is undefined; empty where it is defined."""
        return self.score.reasons[0] if self.score.reasons else ""

    def plain(self) -> dict[str, object]:
        """As JSON types; an undefined value is null."""
        defined = not self.reason
        return {
            "method": self.method,
            "target": self.target,
            "metric": self.metric.name,
            "value": self.value if defined else None,
            "reason": self.reason,
            "direction": self.metric.card.direction,
            "unit": self.metric.card.unit,
            "region": self.region,
            "settings": {
                k: v if isinstance(v, int | float | str | None) else str(v) for k, v in self.score.settings.items()
            },
            "detail": {k: _finite(v) for k, v in self.score.detail.items()},
        }


def _finite(value: object) -> object:
    """JSON has no NaN: null stands for it."""
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    if isinstance(value, Mapping):
        return {str(k): _finite(v) for k, v in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def truth_region(case: Case) -> str | None:
    """The region that plausibility is measured against: planted truth before expert before the rest.

    What a model predicted is no truth. Where several readers marked the finding it is their consensus.
    """
    regions = with_consensus(case).regions
    known = [n for n, r in regions.items() if r.source in _TRUTH and not (r.reader and CONSENSUS in regions)]
    ranked = sorted(known, key=lambda n: (_TRUTH.index(regions[n].source), n != CONSENSUS))
    return ranked[0] if ranked else None


def score_panel(
    panel: Panel,
    case: Case,
    metrics: Sequence[Metric | PanelMetric],
    progress: Progress | None = None,
    announce: Progress | None = None,
    pace: Pace | None = None,
) -> tuple[Scored, ...]:
    """Every metric of every explanation; what several metrics ask of the model is asked once.

    Args:
        panel: of the case.
        case: with its regions.
        metrics: at least one.
        progress: called with how many forwards there will be, then with each method before it is scored.
        announce: called with how many forwards there will be; None: nobody is told apart from ``progress``.
        pace: of a pass here; None: it was not measured, and the time is not told.
    """
    region, told, each = truth_region(case), progress or _silent, [m for m in metrics if isinstance(m, Metric)]
    benches = [
        _Bench(name, explanation, explainer, probe, region, each)
        for name, explanation, explainer, probe in zip(
            panel.names, panel.explanations, panel.made_by, panel.probes, strict=True
        )
    ]
    cost = sum((bench.cost for bench in benches), Cost())
    words = f"{_counted(len(metrics), 'metric')} of {_counted(len(benches), 'map')}: at most {_passes(cost, pace)}"
    for tell in (told, announce or _silent):
        tell(words)
    out: list[Scored] = []
    for bench in benches:
        told(f"metrics of {bench.name}")
        out += bench.scored(told)
    return (*out, *_of_all(panel, [m for m in metrics if isinstance(m, PanelMetric)]))


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def _passes(cost: Cost, pace: Pace | None) -> str:
    """In words, with the time that they take here."""
    words = f"{_counted(cost.forwards, 'forward')}, {_counted(cost.backwards, 'backward')}"
    return f"{words}, about {duration(pace.seconds(cost))} here" if pace is not None and cost.forwards else words


def _of_all(panel: Panel, metrics: Sequence[PanelMetric]) -> list[Scored]:
    """Every metric of a panel, of all explanations of each target."""
    made = list(zip(panel.made_by, panel.explanations, panel.probes, strict=True))
    out: list[Scored] = []
    for aim in dict.fromkeys(probe.aim for _, _, probe in made):
        probe = next(p for _, _, p in made if p.aim == aim)
        answers = [(explainer, e.answer) for explainer, e, p in made if p.aim == aim]
        out += [Scored(ALL_MAPS, probe.target.name, metric, metric(probe, answers), None) for metric in metrics]
    return out


class _Bench:
    """One explanation with all its metrics: those that ask in a sweep together, the others one by one."""

    def __init__(
        self,
        name: str,
        explanation: Explanation,
        explainer: Explainer,
        probe: Probe,
        region: str | None,
        metrics: Sequence[Metric],
    ) -> None:
        self.name, self._explainer = name, explainer
        self._probe, self._region, self._metrics = probe, region, metrics
        self._answer = explanation.answer
        self._mask = probe.scene.regions[region] if region is not None else None
        swept = [m for m in metrics if isinstance(m, SweptMetric)]
        given = probe, self._answer, explainer, self._mask
        self._swept, self._sweep = swept, Sweep(probe, explainer, [m.asking(*given) for m in swept])

    @property
    def cost(self) -> Cost:
        """Passes that are still to be made, at most: what metrics share is counted once."""
        alone = [m for m in self._metrics if not isinstance(m, SweptMetric)]
        each = sum((m.cost(self._probe, self._explainer) for m in alone), self._sweep.cost)
        return each * self._probe.batch

    def scored(self, told: Progress) -> list[Scored]:
        """The scores, in the order of the metrics."""
        found: dict[Metric, Score | PellucidError] = dict(zip(self._swept, self._sweep.run(), strict=True))
        for metric in self._metrics:
            if metric not in found:
                told(f"{metric.name} of {self.name}")
                try:
                    found[metric] = metric(self._probe, self._answer, self._explainer, self._mask)
                except PellucidError as error:
                    found[metric] = error
        return [self._one(metric, found[metric]) for metric in self._metrics]

    def _one(self, metric: Metric, found: Score | PellucidError) -> Scored:
        probe = self._probe
        score = found if isinstance(found, Score) else Score.undefined(metric, probe.batch, found.problem)
        if probe.engine is not None:
            score = replace(score, settings={**score.settings, "engine": probe.engine.name})
        region = self._region if metric.card.needs_region else None
        if region == CONSENSUS and len(probe.scene.readers) > 1:
            score = replace(score, detail={**score.detail, "truth": consensus_words(tuple(probe.scene.readers))})
        return Scored(self.name, probe.target.name, metric, score, region)


def _silent(_words: str) -> None:
    """Nobody listens."""
