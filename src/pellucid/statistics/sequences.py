"""Intervals that hold at every patient at once, so that a study may stop as soon as its verdict is settled.

A betting confidence sequence for the mean of bounded scores: for each candidate mean a gambler bets that scores lie
above or below it; a candidate whose gambler grew rich is out, and that ever happens to the true mean in at most
1 - level of all studies, whatever the scores are like (Ville's inequality).
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from pellucid.statistics.bootstrap import Floats, labels, numbers
from pellucid.statistics.errors import Unfit
from pellucid.statistics.interval import Interval, checked_level

CANDIDATES = 1001
LARGEST_BET = 0.5


@dataclass(frozen=True)
class ConfidenceSequence:
    """The interval after each patient; all of them hold together.

    Args:
        means: of the patients so far, after each.
        lows: lower bounds, never falling.
        highs: upper bounds, never rising.
        level: share of repeated studies in which no interval ever misses the true mean, at least.
        undefined: items left out because they are NaN.
        how: method and bounds of the scores.
        note: what is wrong, such as a true mean that seems to change; empty if nothing.
    """

    means: tuple[float, ...]
    lows: tuple[float, ...]
    highs: tuple[float, ...]
    level: float
    undefined: int
    how: str
    note: str = ""

    @property
    def last(self) -> Interval:
        """The interval after the last patient."""
        nan, n = math.nan, len(self.means)
        value, low, high = (self.means[-1], self.lows[-1], self.highs[-1]) if n else (nan, nan, nan)
        note = self.note if n else "no patient has a defined score"
        return Interval(value, low, high, self.level, n, n, self.undefined, self.how, note)


@dataclass(frozen=True)
class Settled:
    """Whether the mean is known to lie above or below a threshold, and since when.

    Args:
        side: ``above``, ``below`` or ``open``.
        after: patients it took; None while open.
        threshold: in the unit of the scores.
    """

    side: Literal["above", "below", "open"]
    after: int | None
    threshold: float


def betting(
    scores: ArrayLike,
    patients: ArrayLike | None = None,
    *,
    bounds: tuple[float, float] = (0.0, 1.0),
    level: float = 0.95,
) -> ConfidenceSequence:
    """The hedged capital process over patients in the order in which they came.

    Items of a patient are averaged first: the mean is that of patients, each counting once, and a patient's place is
    that of the first item. Holds for any scores between the bounds if patients come in no order that their scores have
    (shuffle a finished cohort before, with a seed); wider than a bootstrap's interval at one fixed time.

    Args:
        scores: in the order in which they came; NaN where undefined.
        patients: the patient of each; None if each item is a patient of its own.
        bounds: the least and the greatest score that there can be, not that there was.
        level: of the sequence.

    Raises:
        Unfit: for scores outside the bounds or bounds that are none.

    Source: waudbysmith2024estimating, theorem 3.
    """
    checked_level(level)
    low, high = bounds
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise Unfit(f"scores from {low} to {high} are not bounded", "give the least and the greatest possible score")
    means, undefined = _patient_means(scores, patients)
    if ((means < low) | (means > high)).any():
        raise Unfit(
            f"scores between {means.min():g} and {means.max():g} where {low:g} to {high:g} were promised",
            "give the bounds that hold for every possible score, such as -1 and 1 of a difference of shares",
        )
    how = f"betting sequence (hedged capital), scores from {low:g} to {high:g}"
    lows, highs, crossed = _hedged((means - low) / (high - low), 1 - level)
    note = "no mean is left: scores drift in the order of patients, or lie outside their bounds" if crossed else ""
    so_far = np.cumsum(means) / np.arange(1, len(means) + 1)
    scaled = (low + (high - low) * ends for ends in (lows, highs))
    return ConfidenceSequence(tuple(so_far.tolist()), *(tuple(s.tolist()) for s in scaled), level, undefined, how, note)


def settled(sequence: ConfidenceSequence, threshold: float) -> Settled:
    """The first patient after which the whole interval lies on one side of the threshold.

    Args:
        sequence: from ``betting``.
        threshold: in the unit of the scores.
    """
    above, below = np.array(sequence.lows) > threshold, np.array(sequence.highs) < threshold
    out = np.flatnonzero(above | below)
    if not len(out):
        return Settled("open", None, threshold)
    return Settled("above" if above[out[0]] else "below", int(out[0]) + 1, threshold)


def _patient_means(scores: ArrayLike, patients: ArrayLike | None) -> tuple[Floats, int]:
    """The mean of each patient's defined items, in the order of their first."""
    rows, defined = numbers(scores)
    if rows.ndim != 1:
        raise Unfit(f"scores have {rows.ndim} axes", "give one score for each item")
    who = labels(patients, len(rows), "patients")[defined]
    _, first, number = np.unique(who, return_index=True, return_inverse=True)
    sums = np.bincount(number, weights=rows[defined], minlength=len(first))
    means = sums / np.bincount(number, minlength=len(first)) if len(first) else sums
    return means[np.argsort(first)], int((~defined).sum())


def _bets(scores: Floats, error: float) -> Floats:
    """What is put on each score, from those before it: the predictable plug-in of equation 26."""
    time = np.arange(1, len(scores) + 1)
    guesses = (0.5 + np.cumsum(scores)) / (time + 1)
    spread = (0.25 + np.cumsum((scores - guesses) ** 2)) / (time + 1)
    before = np.concatenate([[0.25], spread[:-1]])
    return np.sqrt(2 * math.log(2 / error) / (before * time * np.log(time + 1)))


def _hedged(scores: Floats, error: float) -> tuple[Floats, Floats, bool]:
    """Bounds after each score in 0 to 1, and whether they crossed (then those before stay).

    Bets that scores lie above a candidate pay the less the higher the candidate is: the bound is the last candidate at
    which they made rich, so that a grid makes the interval wider, never narrower.
    """
    candidates = np.linspace(0, 1, CANDIDATES)
    with np.errstate(divide="ignore"):
        most_up, most_down = LARGEST_BET / candidates, LARGEST_BET / (1 - candidates)
    above, below = np.zeros(CANDIDATES), np.zeros(CANDIDATES)
    lows, highs = np.zeros(len(scores)), np.ones(len(scores))
    # half of the capital is put on either side, and the richer half counts
    limit, low, high = math.log(2 / error), 0.0, 1.0
    for t, (score, bet) in enumerate(zip(scores, _bets(scores, error), strict=True)):
        above += np.log1p(np.minimum(bet, most_up) * (score - candidates))
        below += np.log1p(-np.minimum(bet, most_down) * (score - candidates))
        too_low, too_high = np.flatnonzero(above >= limit), np.flatnonzero(below >= limit)
        next_low = max(low, candidates[too_low[-1]] if len(too_low) else 0.0)
        next_high = min(high, candidates[too_high[0]] if len(too_high) else 1.0)
        if next_low >= next_high:
            lows[t:], highs[t:] = low, high
            return lows, highs, True
        lows[t], highs[t] = low, high = next_low, next_high
    return lows, highs, False
