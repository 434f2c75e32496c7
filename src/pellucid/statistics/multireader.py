"""Multi-reader multi-case analysis (Obuchowski, Rockette, Hillis): do arms differ, for readers and cases like these?

The figure of merit of arm i and reader j is mu + tau_i + R_j + (tau R)_ij + error, and errors share cases: their
covariance comes from the cases (jackknife or DeLong), the rest from the figures themselves.
"""

import math
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import special

from pellucid.statistics.bootstrap import Floats
from pellucid.statistics.errors import Unfit
from pellucid.statistics.interval import Interval, checked_level
from pellucid.statistics.merits import Merit

Kind = Literal["RRRC", "FRRC", "RRFC"]
# of figures between 0 and 1; a true spread is many orders above
ROUNDING = 1e-14
WORDS: dict[Kind, str] = {
    "RRRC": "random readers and random cases",
    "FRRC": "these readers, random cases",
    "RRFC": "random readers, these cases",
}


@dataclass(frozen=True)
class Components:
    """Variances and covariances of the errors, and mean squares of the figures.

    Args:
        variance: of an error.
        cov1: same reader, other arm.
        cov2: same arm, other reader.
        cov3: other arm and other reader.
        ms_t: mean square of arms.
        ms_tr: mean square of arms by readers.
        readers: how many.
        cases: how many patients, whom the covariance is from.
    """

    variance: float
    cov1: float
    cov2: float
    cov3: float
    ms_t: float
    ms_tr: float
    readers: int
    cases: int

    @property
    def var_tr(self) -> float:
        """The true spread of arms by readers, which may come out below 0."""
        return self.ms_tr - self.variance + self.cov1 + max(self.cov2 - self.cov3, 0.0)


@dataclass(frozen=True)
class Contrast:
    """One arm against another, averaged over readers.

    Args:
        first: an arm.
        second: another.
        difference: first minus second, with its interval.
        error: standard error.
        df: degrees of freedom; infinite for a normal.
        p: of no difference, for this pair alone.
    """

    first: str
    second: str
    difference: Interval
    error: float
    df: float
    p: float


@dataclass(frozen=True)
class Analysis:
    """One of the three analyses, which differ in whom they speak of.

    Args:
        kind: RRRC, FRRC or RRFC.
        statistic: F, or chi-square for FRRC.
        df: degrees of freedom of arms and of their error.
        p: of no difference among all arms.
        differences: every pair of arms.
        arms: the mean figure of each arm, with its interval.
        note: why something is NaN; empty if nothing.
    """

    kind: Kind
    statistic: float
    df: tuple[float, float]
    p: float
    differences: tuple[Contrast, ...]
    arms: tuple[Interval, ...]
    note: str = ""


@dataclass(frozen=True)
class Study:
    """A multi-reader study: figures, components, and the three analyses.

    Args:
        merit: which figure of merit.
        arms: their names.
        values: the figure of every arm (row) and reader (column).
        components: what the error is made of.
        rrrc: random readers and cases, the one to report.
        frrc: these readers alone.
        rrfc: these cases alone.
    """

    merit: str
    arms: tuple[str, ...]
    values: tuple[tuple[float, ...], ...]
    components: Components
    rrrc: Analysis
    frrc: Analysis
    rrfc: Analysis


def analyze(
    merit: Merit,
    arms: tuple[str, ...],
    *,
    covariance: Literal["jackknife", "delong"] = "jackknife",
    level: float = 0.95,
) -> Study:
    """Compare arms of a fully crossed study: every reader read every case in every arm.

    Random readers and cases: F = MS(T) / (MS(TR) + r max(Cov2 - Cov3, 0)) with Hillis's degrees of freedom. With one
    reader only the analysis of these readers is left, with one arm only the arm itself; what is not is NaN with a note.
    A fixed design: looking again as readers come in, and stopping when p is small, makes p wrong.

    Args:
        merit: from ``merits``.
        arms: their names, in the merit's order.
        covariance: of the errors.
        level: of intervals.

    Raises:
        Unfit: if the names are not those of the arms, or one patient has all cases of a kind.

    Source: obuchowski1995hypothesis, hillis2007comparison, hillis2014marginal for one arm.
    """
    checked_level(level)
    if covariance not in ("jackknife", "delong"):
        raise Unfit(f"no covariance {covariance!r}", "take 'jackknife' or 'delong'")
    values = merit.values
    if len(arms) != len(values):
        raise Unfit(f"{len(arms)} names for {len(values)} arms", "name each arm once")
    errors = merit.jackknife() if covariance == "jackknife" else merit.delong()
    shared = errors.reshape(*values.shape, *values.shape)
    reads = values.size * (merit.normal.shape[-1] + merit.diseased.shape[-1])
    how = f"{merit.name}, Obuchowski-Rockette-Hillis, {covariance} over {merit.patients} patients"
    blank = Interval(math.nan, math.nan, math.nan, level, reads, merit.patients, 0, how)
    each = (_analysis(kind, values, shared, tuple(arms), blank) for kind in WORDS)
    table = tuple(tuple(row) for row in values.tolist())
    return Study(merit.name, tuple(arms), table, components(values, shared, merit.patients), *each)


def components(values: Floats, shared: Floats, cases: int) -> Components:
    """Mean squares of the figures, and the four means of their covariance.

    Args:
        values: the figure of every arm (row) and reader (column).
        shared: covariance of the errors: "arm reader arm reader".
        cases: patients that the covariance is from.

    Returns:
        The components; what needs two arms or two readers is NaN without.
    """
    t, r = values.shape
    arm, reader = np.eye(t, dtype=bool)[:, None, :, None], np.eye(r, dtype=bool)[None, :, None, :]

    def mean(chosen: NDArray[np.bool_]) -> float:
        picked = shared[np.broadcast_to(chosen, shared.shape)]
        return float(picked.mean()) if picked.size else math.nan

    means = mean(arm & reader), mean(~arm & reader), mean(arm & ~reader), mean(~arm & ~reader)
    of_arm, of_reader = values.mean(axis=1, keepdims=True), values.mean(axis=0, keepdims=True)
    rest = ((values - of_arm - of_reader + values.mean()) ** 2).sum()
    ms_t = r * ((of_arm - values.mean()) ** 2).sum() / (t - 1) if t > 1 else math.nan
    ms_tr = rest / ((t - 1) * (r - 1)) if t > 1 and r > 1 else math.nan
    return Components(*means, float(ms_t), float(ms_tr), r, cases)


def _analysis(kind: Kind, values: Floats, shared: Floats, arms: tuple[str, ...], blank: Interval) -> Analysis:
    """One of the three analyses."""
    t, r = values.shape
    blank = replace(blank, how=f"{blank.how}; {WORDS[kind]}")
    alone = tuple(_arm(kind, values[i], shared[i, :, i], replace(blank, count=blank.count // t)) for i in range(t))
    if t < 2 or (r < 2 and kind != "FRRC"):
        note = "one arm: nothing to compare" if t < 2 else f"one reader: nothing can be said of {WORDS[kind]}"
        pairs = tuple(_untested(values, arms, i, j, replace(blank, note=note)) for i, j in combinations(range(t), 2))
        return Analysis(kind, math.nan, (math.nan, math.nan), math.nan, pairs, alone, note)
    parts = components(values, shared, blank.clusters)
    spread, df = _error(kind, parts, t)
    if spread <= ROUNDING:
        note = "readers and arms do not vary: nothing to test with"
        pairs = tuple(_untested(values, arms, i, j, replace(blank, note=note)) for i, j in combinations(range(t), 2))
        return Analysis(kind, math.nan, (t - 1.0, df), math.nan, pairs, alone, note)
    ratio = parts.ms_t / spread
    # F with endless degrees of freedom is chi-square over its own
    p = float(special.fdtrc(t - 1, df, ratio) if math.isfinite(df) else special.chdtrc(t - 1, (t - 1) * ratio))
    statistic = (t - 1) * ratio if kind == "FRRC" else ratio
    error = math.sqrt(2 / r * spread)
    pairs = tuple(_pair(values, arms, i, j, error, df, blank) for i, j in combinations(range(t), 2))
    return Analysis(kind, statistic, (t - 1.0, df), p, pairs, alone)


def _error(kind: Kind, parts: Components, arms: int) -> tuple[float, float]:
    """The mean square that arms are held against, and its degrees of freedom."""
    beyond = max(parts.cov2 - parts.cov3, 0.0) if parts.readers > 1 else 0.0
    if kind == "FRRC":
        # with one reader there are no pairs of readers, and the difference is that reader's
        return parts.variance - parts.cov1 + (parts.readers - 1) * beyond, math.inf
    degrees = float((arms - 1) * (parts.readers - 1))
    if kind == "RRFC":
        return parts.ms_tr, degrees
    spread = parts.ms_tr + parts.readers * beyond
    return spread, _hillis(spread, parts.ms_tr, degrees)


def _hillis(spread: float, mean_square: float, degrees: float) -> float:
    """Hillis's degrees of freedom of a mean square with a covariance added."""
    return degrees * (spread / mean_square) ** 2 if mean_square > 0 else math.inf


def _arm(kind: Kind, values: Floats, shared: Floats, blank: Interval) -> Interval:
    """The mean figure of one arm, from its own reads alone."""
    r = len(values)
    found = replace(blank, value=float(values.mean()))
    if r < 2 and kind != "FRRC":
        return replace(found, note=f"one reader: nothing can be said of {WORDS[kind]}")
    beyond = float(shared[~np.eye(r, dtype=bool)].mean()) if r > 1 else 0.0
    if kind == "FRRC":
        variance, df = (float(np.trace(shared)) / r + (r - 1) * max(beyond, 0.0)) / r, math.inf
    else:
        square = float(values.var(ddof=1))
        spread = square + (r * max(beyond, 0.0) if kind == "RRRC" else 0.0)
        variance, df = spread / r, _hillis(spread, square, r - 1.0)
    return _around(found, math.sqrt(variance), df)


def _pair(values: Floats, arms: tuple[str, ...], i: int, j: int, error: float, df: float, blank: Interval) -> Contrast:
    """Two arms with the error that all pairs share."""
    gap = float(values[i].mean() - values[j].mean())
    p = (
        2 * float(special.stdtr(df, -abs(gap) / error))
        if math.isfinite(df)
        else 2 * float(special.ndtr(-abs(gap) / error))
    )
    return Contrast(arms[i], arms[j], _around(replace(blank, value=gap), error, df), error, df, p)


def _untested(values: Floats, arms: tuple[str, ...], i: int, j: int, blank: Interval) -> Contrast:
    """Two arms, of which no more than the difference is known."""
    gap = replace(blank, value=float(values[i].mean() - values[j].mean()))
    return Contrast(arms[i], arms[j], gap, math.nan, math.nan, math.nan)


def _around(found: Interval, error: float, df: float) -> Interval:
    """The interval of a t (or normal) around its value."""
    upper = (1 + found.level) / 2
    reach = error * float(special.stdtrit(df, upper) if math.isfinite(df) else special.ndtri(upper))
    return replace(found, low=found.value - reach, high=found.value + reach)
