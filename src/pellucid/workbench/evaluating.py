"""Score the explanations of a panel; an undefined score says why, and one bad metric never stops the rest."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from pellucid.core.case import Case
from pellucid.core.errors import PellucidError
from pellucid.core.metric import Metric, Score
from pellucid.workbench.explaining import Panel, Progress

_TRUTH = ("planted", "expert", "atlas", "drawn")


@dataclass(frozen=True, eq=False)
class Scored:
    """One metric of one explanation.

    Args:
        method: that made the map.
        target: that was explained.
        metric: with its card.
        score: for the case (a batch of one).
        region: name of the region used; None where none was needed or there is none.
    """

    method: str
    target: str
    metric: Metric
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
    return None if isinstance(value, float) and not math.isfinite(value) else value


def truth_region(case: Case) -> str | None:
    """The region that plausibility is measured against: planted truth before expert before the rest.

    What a model predicted is no truth.
    """
    known = [n for n, r in case.regions.items() if r.source in _TRUTH]
    ranked = sorted(known, key=lambda n: _TRUTH.index(case.regions[n].source))
    return ranked[0] if ranked else None


def score_panel(
    panel: Panel, case: Case, metrics: Sequence[Metric], progress: Progress | None = None
) -> tuple[Scored, ...]:
    """Every metric of every explanation.

    Args:
        panel: of the case.
        case: with its regions.
        metrics: at least one.
        progress: called with "metric of method" before each.
    """
    region = truth_region(case)
    out: list[Scored] = []
    for explanation, explainer, probe in zip(panel.explanations, panel.made_by, panel.probes, strict=True):
        mask = probe.scene.regions[region] if region is not None else None
        for metric in metrics:
            if progress is not None:
                progress(f"{metric.name} of {explainer.name}")
            try:
                score = metric(probe, explanation.answer, explainer, mask)
            except PellucidError as error:
                score = Score.undefined(metric, probe.batch, error.problem)
            if probe.engine is not None:
                score = replace(score, settings={**score.settings, "engine": probe.engine.name})
            used = region if metric.card.needs_region else None
            out.append(Scored(explainer.name, probe.target.name, metric, score, used))
    return tuple(out)
