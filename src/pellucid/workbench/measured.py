"""What stands beside a score, in a few words: what it is read against, and what was chosen to measure it."""

import math
from collections.abc import Mapping
from typing import Any

from pellucid.core.metric import Score
from pellucid.show.sections import Curve
from pellucid.show.words import number

_AGAINST = {  # entries of a score's detail that are one number for the case, and how they are named to a reader
    "chance": "chance",
    "random": "random order",
    "lead over random": "lead over random",
    "departure": "departure from linear",
    "standard error": "standard error",
    "without a map": "a map of zeros",
    "of the magnitudes": "of the magnitudes",
    "similar to edges": "similarity to the image's edges",
    "copies that change the decision": "copies that change the decision",
    "readers": "readers among themselves",
    "readers alone": "the readers alone",
    "readers with each other": "the readers with each other",
}
_AREAS = ("DeletionAUC", "InsertionAUC")
_CHOSEN = {"infill": "fill", "noise": "noise", "layer": "layer", "roi": "in"}


def beside(score: Score) -> tuple[str, ...]:
    """What the case's number is read against: the value under the other fill, chance, random order, its error.

    Args:
        score: of one case (a batch of one).

    Example:
        >>> import torch
        >>> beside(Score("HitRate", torch.tensor([1.0]), detail={"chance": 0.04}))
        ('chance 0.04',)
    """
    found = [(words, _single(score.detail[key])) for key, words in _AGAINST.items() if key in score.detail]
    fills = score.detail.get("by fill")
    first = score.detail.get("infill")
    if isinstance(fills, Mapping):
        found += [(f"fill {fill}:", _single(value)) for fill, value in fills.items() if fill != first]
    said = tuple(f"{words} {number(value)}" for words, value in found if value is not None and words)
    band = score.detail.get("chance")
    if isinstance(band, Mapping):
        low, high = (_single(band[end]) for end in ("low", "high"))
        said += (f"chance {number(low)} to {number(high)}",) if low is not None and high is not None else ()
    ends = score.detail.get("interval")
    if isinstance(ends, list | tuple) and len(ends) == 1 and None not in ends[0]:
        said += (f"95% interval {number(ends[0][0])} to {number(ends[0][1])}",)
    return said


def given(score: Score) -> tuple[str, ...]:
    """Fill, noise and layer, and settings in words (a threshold), the same for every map of the case."""
    chosen = [
        f"{words} {score.detail[key]}" for key, words in _CHOSEN.items() if isinstance(score.detail.get(key), str)
    ]
    told = {k: v for k, v in score.settings.items() if v and (isinstance(v, str) or k == "level")}
    told.pop("roi", None)
    if tuned := str(told.pop("tuned_on", "")):
        chosen.append(f"tuned on {tuned.count('+') + 1} other cases")
    return (*chosen, *(f"{k.replace('_', ' ')} {v}" for k, v in told.items()))


def curve_of(score: Score) -> Curve | None:
    """The curve whose area a case's score is; None where it is none, or undefined."""
    values = score.detail.get("curve")
    if score.metric not in _AREAS or not isinstance(values, list) or math.isnan(float(score.values[0])):
        return None
    share = score.detail["share"]
    random = score.detail.get("random curve", [()])
    return Curve(
        share=tuple(share[0] if isinstance(share[0], list) else share),
        score=tuple(values[0]),
        random=tuple(random[0]),
        unit=str(score.detail.get("unit", "")),
    )


def _single(value: Any) -> float | None:
    """The number of a batch of one, where there is one."""
    while isinstance(value, list | tuple) and len(value) == 1:
        value = value[0]
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    return float(value) if math.isfinite(value) else None
