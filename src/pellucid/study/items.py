"""One item of a study: a case seen by a model with a seed, with every number that came of it."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from pellucid.core.case import Case
from pellucid.core.errors import PellucidError
from pellucid.core.explanation import Explanation, Prediction
from pellucid.core.metric import Score
from pellucid.workbench.evaluating import Scored
from pellucid.workbench.job import Finished
from pellucid.workbench.registry import spell

DEFAULT = "default"  # the target of a model when nobody names one


@dataclass(frozen=True)
class Item:
    """What is kept of one case, model and seed; JSON types.

    Args:
        key: SHA-256 of all that the numbers depend on.
        case: pseudonym.
        patient: pseudonym; the case where nobody said.
        site: site or scanner; None: not known.
        label: reference label; None: not known.
        content: SHA-256 of images, regions and what is known of the case.
        model: short name.
        seed: of everything random.
        predicted: what the model says of the case; None: it was not run.
        correct: whether that is the label; None: not known.
        model_score: of the explained class.
        readers: how many marked the finding.
        seconds: it took.
        scores: of every target, method and metric.
        curves: of the metrics that have one.
        skipped: methods that cannot explain this model, and why.
        error: why there is nothing; None: there is.
    """

    key: str
    case: str
    patient: str
    site: str | None
    label: str | None
    content: str
    model: str
    seed: int
    predicted: str | None = None
    correct: bool | None = None
    model_score: float | None = None
    readers: int = 0
    seconds: float = 0.0
    scores: tuple[Mapping[str, Any], ...] = ()
    curves: tuple[Mapping[str, Any], ...] = ()
    skipped: tuple[tuple[str, str], ...] = ()
    error: Mapping[str, str] | None = None

    def plain(self) -> dict[str, object]:
        """As JSON types."""
        return asdict(self)

    @classmethod
    def parsed(cls, entry: Mapping[str, Any]) -> "Item | None":
        """An item from a line of the journal; None: the line says something else.

        Args:
            entry: as ``plain`` gave it.
        """
        if set(entry) != {f.name for f in fields(cls)}:
            return None
        lists = {name: tuple(entry[name]) for name in ("scores", "curves")}
        return cls(**{**entry, **lists, "skipped": tuple((m, why) for m, why in entry["skipped"])})


def told_of(finished: Finished, named: bool) -> dict[str, Any]:
    """What an item keeps of a finished case.

    Args:
        finished: explanations and scores.
        named: whether the study names targets.
    """
    panel, first = finished.panel, finished.panel.explanations[0]
    each = len(finished.scores) // len(panel.explanations)
    scores, curves = [], []
    for n, (explanation, explainer) in enumerate(zip(panel.explanations, panel.made_by, strict=True)):
        about = _about(explanation, named) | {"method": spell(explainer)}
        for scored in finished.scores[n * each : (n + 1) * each]:
            scores.append(about | _score(scored))
            curves += [about | {"metric": spell(scored.metric)} | c for c in _curve(scored.score)]
    prediction = first.prediction
    said: dict[str, Any] = {"readers": len(finished.opened.scene.readers), "skipped": panel.skipped}
    if prediction is not None:
        decided = _decided(prediction, finished.opened.case)
        said |= {"predicted": decided[0], "correct": decided[1], "model_score": _number(prediction.score)}
    return said | {"scores": tuple(scores), "curves": tuple(curves)}


def told_of_error(error: Exception) -> dict[str, str]:
    """Why a case has no numbers.

    Args:
        error: ours, or one that nobody foresaw: then its first line.
    """
    if isinstance(error, PellucidError):
        return {"error": type(error).__name__, "problem": error.problem, "mend": error.mend}
    line = (str(error).splitlines() or [""])[0][:200]
    return {
        "error": type(error).__name__,
        "problem": f"the case could not be explained: {line}",
        "mend": "explain this case alone to see more",
    }


def _about(explanation: Explanation, named: bool) -> dict[str, Any]:
    made = explanation.provenance
    return {"target": made.target if named else DEFAULT, "explained": made.target, "ms": made.ms}


def _score(scored: Scored) -> dict[str, Any]:
    return {
        "metric": spell(scored.metric),
        "value": None if scored.reason else _number(scored.value),
        "reason": scored.reason or ("" if math.isfinite(scored.value) else "the value is not finite"),
        "direction": scored.metric.card.direction,
        "unit": scored.metric.card.unit,
        "region": scored.region,
    }


def _curve(score: Score) -> list[dict[str, Any]]:
    """The curve of the case, where there is one and it is whole."""
    share, curve = score.detail.get("share"), score.detail.get("curve")
    if not isinstance(share, list) or not isinstance(curve, list) or not curve or not isinstance(curve[0], list):
        return []
    points = [_number(v) for v in curve[0]]
    share = share[0] if share and isinstance(share[0], list) else share  # a curve may have points of its own
    return [{"share": share, "curve": points}] if None not in points and len(points) == len(share) else []


def _decided(prediction: Prediction, case: Case) -> tuple[str, bool | None]:
    """What the model says, at its operating point where the card names one, and whether that is the label."""
    known = prediction.scores
    if prediction.threshold is None or len(known) != 2 or prediction.label not in known:
        return prediction.predicted, prediction.predicted == case.label if case.label in known else None
    other = next(name for name in known if name != prediction.label)
    said = other if prediction.below_threshold else prediction.label
    return said, said == case.label if case.label in known else None


def _number(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(value)
