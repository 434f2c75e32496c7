"""How far readers agree beyond chance: kappa of two and of many, Krippendorff's alpha, intraclass correlation."""

from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from pellucid.statistics.errors import Unfit
from pellucid.statistics.interval import Interval, checked_level

Array = NDArray[np.float64]
Scale = Literal["nominal", "ordinal", "interval", "ratio"]
Form = Literal["1,1", "2,1", "3,1", "1,k", "2,k", "3,k"]
_Limits = tuple[float, float, float]  # value, low, high
_ROUNDING = 1e-12  # of the sum of squares, below which a difference of two of them is rounding
_NO_VARIETY = "all ratings are the same: what chance would give is total"


def cohen(table: ArrayLike, level: float = 0.95) -> Interval:
    """Cohen's kappa of two raters, with its large-sample interval.

    ``(p_o - p_e) / (1 - p_e)``. It depends on how common each category is: much background makes it the Dice
    coefficient of the rare category.

    Args:
        table: "category category" of counts (or weights), rows of the first rater and columns of the second.
        level: of the interval.

    Raises:
        Unfit: the table is not square, or the level is none.

    Source:
        cohen1960coefficient; statsmodels.

    Example:
        >>> found = cohen([[20, 5], [10, 15]])
        >>> round(found.value, 3), round(found.low, 3), round(found.high, 3)
        (0.4, 0.151, 0.649)
    """
    from statsmodels.stats.inter_rater import cohens_kappa

    counts, half = np.asarray(table, dtype=float), _reach(level)
    if counts.ndim != 2 or counts.shape[0] != counts.shape[1]:
        raise Unfit(f"expected a square table, got one of shape {counts.shape}", "count category by category")
    total, how = float(counts.sum()), "Cohen's kappa, large-sample interval"
    if total <= 0:
        return _undefined("there is nothing that both raters rated", level, how)
    if float(counts.sum(0) @ counts.sum(1)) / total**2 > 1 - _ROUNDING:
        return _undefined(_NO_VARIETY, level, how, round(total))
    found = cohens_kappa(counts)
    value, half = float(found["kappa"]), float(found["std_kappa"]) * half
    return Interval(value, value - half, min(1.0, value + half), level, round(total), round(total), 0, how)


def fleiss(counts: ArrayLike, weights: ArrayLike | None = None, level: float = 0.95) -> Interval:
    """Fleiss' kappa of as many raters for every unit, with its large-sample interval over units.

    ``(P - P_e) / (1 - P_e)``, P the share of pairs of raters that agree; the variance is Gwet's, linear in units, and
    not that under "no agreement". Units that are no sample of their own (voxels of one image) have no honest interval.

    Args:
        counts: "unit category": how many raters chose it.
        weights: how often each unit occurs; None: once.
        level: of the interval.

    Raises:
        Unfit: units with different numbers of raters, or one rater.

    Source:
        fleiss1971measuring; gwet2021large for the variance.

    Example:
        >>> round(fleiss([[3, 0], [1, 2], [0, 3], [3, 0]]).value, 4)
        0.6571
    """
    table, reach = np.asarray(counts, dtype=float), _reach(level)
    often = np.ones(len(table)) if weights is None else np.asarray(weights, dtype=float)
    table, often, how = table[often > 0], often[often > 0], "Fleiss' kappa, large-sample interval over units"
    if not len(table):
        return _undefined("there are no units", level, how)
    raters = table.sum(1)
    if raters.max() < 2 or not np.allclose(raters, raters[0]):
        raise Unfit("Fleiss' kappa needs two raters or more, as many for every unit", "use krippendorff for gaps")
    units, many = float(often.sum()), raters[0]
    alike = ((table**2).sum(1) - many) / (many * (many - 1))
    shares = often @ (table / many) / units
    chance = float(shares @ shares)
    if chance > 1 - _ROUNDING:
        return _undefined(_NO_VARIETY, level, how, round(units))
    value = float((often @ alike / units - chance) / (1 - chance))
    each = (alike - chance - 2 * (1 - value) * (table @ shares / many - chance)) / (1 - chance)
    if units <= 1:
        return _bare(value, level, how, round(units), "one unit has no interval")
    half = float(np.sqrt(often @ (each - value) ** 2 / (units * (units - 1)))) * reach
    return Interval(value, value - half, min(1.0, value + half), level, round(units), round(units), 0, how)


def krippendorff(ratings: ArrayLike, scale: Scale = "nominal", weights: ArrayLike | None = None) -> Interval:
    """Krippendorff's alpha of any number of raters with gaps, without an interval.

    ``1 - D_o / D_e``, the disagreement within units over that of ratings drawn from all; units with fewer than two
    ratings say nothing. For categories and many units it is Fleiss' kappa.

    Args:
        ratings: "unit rater", NaN where there is none.
        scale: nominal (another category), ordinal (ranks), interval (differences) or ratio (relative differences).
        weights: how often each unit occurs; None: once.

    Raises:
        Unfit: no such scale.

    Source:
        hayes2007answering.

    Example:
        >>> round(krippendorff([[1, 1], [2, 2], [1, 2], [2, np.nan]]).value, 4)
        0.4444
    """
    counts, values, often = _tally(ratings, weights)
    value, units = _alpha(counts, values, often, scale), round(float(often.sum()))
    note = "an interval is krippendorff_interval's" if np.isfinite(value) else _why(counts)
    return _bare(value, 0.95, f"Krippendorff's alpha, {scale}", units, note)


def krippendorff_interval(
    ratings: ArrayLike,
    scale: Scale = "nominal",
    clusters: ArrayLike | None = None,
    draws: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """Krippendorff's alpha with a bootstrap interval: units are drawn, or whole clusters of them (patients).

    The percentile interval; it is too narrow where there are few units, and has none where every draw is of one value.

    Args:
        ratings: "unit rater", NaN where there is none.
        scale: as ``krippendorff``.
        clusters: of each unit, any labels; None: each unit is its own.
        draws: of the bootstrap.
        seed: of the draws.
        level: of the interval.

    Source:
        hayes2007answering; efron1979bootstrap.
    """
    reach, table = checked_level(level), np.asarray(ratings, dtype=float)
    counts, values, often = _tally(ratings, None)
    value, rated = _alpha(counts, values, often, scale), (~np.isnan(table)).sum(1) >= 2
    labels = (np.arange(len(table)) if clusters is None else np.asarray(clusters))[rated]
    names, place = np.unique(labels, return_inverse=True)
    what = "units" if clusters is None else "clusters"
    how = f"Krippendorff's alpha, {scale}, percentile interval of {draws} bootstrap draws of {what}, seed {seed}"
    if not np.isfinite(value) or len(names) < 2:
        return _bare(value, level, how, len(counts), _why(counts) if np.isnan(value) else f"fewer than two {what}")
    chosen = np.random.default_rng(seed).multinomial(len(names), np.full(len(names), 1 / len(names)), size=draws)
    drawn = np.asarray([_alpha(counts, values, often, scale) for often in chosen.astype(float)[:, place]])
    known = drawn[~np.isnan(drawn)]
    if len(known) < draws / 2:
        return _bare(value, level, how, len(counts), "most draws hold one value only")
    low, high = (float(q) for q in np.quantile(known, [(1 - reach) / 2, (1 + reach) / 2]))
    left = int((~rated).sum())
    return Interval(value, low, high, level, len(counts), len(names), left, how)


def _reach(level: float) -> float:
    """Standard errors to either side."""
    return float(stats.norm.ppf((1 + checked_level(level)) / 2))


def _bare(value: float, level: float, how: str, count: int, note: str) -> Interval:
    """A value without an interval, and why."""
    return Interval(value, float("nan"), float("nan"), level, count, count, 0, how, note)


def _undefined(note: str, level: float, how: str, count: int = 0) -> Interval:
    """No value, and why."""
    return _bare(float("nan"), level, how, count, note)


def _why(counts: Array) -> str:
    """Why there is no alpha."""
    return _NO_VARIETY if len(counts) else "no unit has two ratings"


def _tally(ratings: ArrayLike, weights: ArrayLike | None) -> tuple[Array, Array, Array]:
    """How many raters gave each value ("unit value"), the values, and weights, of units with two ratings or more."""
    table = np.asarray(ratings, dtype=float)
    often = np.ones(len(table)) if weights is None else np.asarray(weights, dtype=float)
    values, place = np.unique(table, return_inverse=True, equal_nan=True)
    place = place.reshape(table.shape)
    known = ~np.isnan(values)
    counts = np.zeros((len(table), len(values)))
    np.add.at(counts, (np.arange(len(table))[:, None], place), 1)
    counts = counts[:, known]
    told = counts.sum(1) >= 2
    return counts[told], values[known], often[told]


def _alpha(counts: Array, values: Array, often: Array, scale: Scale) -> float:
    """One minus the ratio of disagreements, of tallied units; NaN where they do not vary."""
    if scale not in get_args(Scale):
        raise Unfit(f"expected one of the scales {', '.join(get_args(Scale))}, got {scale!r}", "choose one of these")
    if not len(counts) or not often.any():
        return float("nan")
    total = often @ counts
    apart = _distances(values, total, scale)
    each = np.einsum("uv,uv->u", counts @ apart, counts) / (counts.sum(1) - 1)
    expected = float(total @ apart @ total) / (total.sum() - 1)
    return float(1 - often @ each / expected) if expected > 0 else float("nan")


def _distances(values: Array, total: Array, scale: Scale) -> Array:
    """Squared differences of values; those of ranks depend on how often each was given."""
    first, second = values[:, None], values[None, :]
    if scale == "nominal":
        return (first != second).astype(float)
    if scale == "interval":
        return (first - second) ** 2
    if scale == "ratio":
        summed = first + second
        return np.divide(first - second, summed, out=np.zeros(summed.shape), where=summed != 0) ** 2
    middle = np.cumsum(total) - total / 2  # between two values: all given from one to the other, both ends half
    return (middle[:, None] - middle[None, :]) ** 2


def icc(ratings: ArrayLike, form: Form = "2,1", level: float = 0.95) -> Interval:
    """Intraclass correlation of ratings on a scale, with its interval by the F distribution.

    ``1``: every subject has its own judges; ``2``: the same judges, drawn from many, absolute agreement; ``3``: these
    judges only, who may differ by a constant. ``1``: of one judge; ``k``: of the mean of all. Needs every cell.

    Args:
        ratings: "subject judge".
        form: case and unit, as Shrout and Fleiss write them.
        level: of the interval.

    Raises:
        Unfit: a missing rating, one judge or subject, or no such form.

    Source:
        shrout1979intraclass; mcgraw1996forming for the interval of the second case.

    Example:
        >>> round(icc([[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]]).value, 2)
        0.29
    """
    table, at = np.asarray(ratings, dtype=float), (1 + checked_level(level)) / 2
    if form not in get_args(Form):
        raise Unfit(f"expected one of the forms {', '.join(get_args(Form))}, got {form!r}", "choose one of these")
    if table.ndim != 2 or min(table.shape) < 2:
        raise Unfit(f"expected two subjects and two judges or more, got {table.shape}", "give a table subject by judge")
    if not np.isfinite(table).all():
        raise Unfit("a rating is missing, and intraclass correlation needs every cell", "leave the subject out")
    (case, unit), (subjects, judges) = form.split(","), table.shape
    how = f"ICC({form}) of {judges} judges, interval by the F distribution"
    between, _, _, rest = _mean_squares(table)
    if between == 0 and rest == 0:
        return _undefined("the judges see no difference between subjects", level, how, subjects)
    value, low, high = {"1": _one_way, "2": _two_way, "3": _fixed}[case](table, at)
    if unit == "k":
        value, low, high = (_averaged(v, judges) for v in (value, low, high))
    return Interval(value, low, high, level, subjects, subjects, 0, how)


def _averaged(value: float, judges: int) -> float:
    """Of the mean of all judges (Spearman and Brown)."""
    below = 1 + (judges - 1) * value
    return judges * value / below if below else float("-inf")


def _mean_squares(table: Array) -> tuple[float, float, float, float]:
    """Between subjects, within subjects, between judges, residual."""
    subjects, judges = table.shape
    rows, columns, mean = table.mean(1), table.mean(0), table.mean()
    between = judges * float(((rows - mean) ** 2).sum())
    across = subjects * float(((columns - mean) ** 2).sum())
    within = float(((table - rows[:, None]) ** 2).sum())
    rest = within - across
    rest, between = (v if v > _ROUNDING * float((table**2).sum()) else 0.0 for v in (rest, between))
    n, k = subjects - 1, judges - 1
    return between / n, within / (subjects * k), across / k, rest / (n * k)


def _by_ratio(above: float, below: float, degrees: tuple[int, int], judges: int, at: float) -> _Limits:
    """``(F - 1) / (F + k - 1)`` of a ratio of mean squares and of its limits."""
    if below == 0:
        return 1.0, 1.0, 1.0
    ratio = above / below
    low, high = ratio / stats.f.ppf(at, *degrees), ratio * stats.f.ppf(at, *degrees[::-1])
    value, low, high = (float((f - 1) / (f + judges - 1)) for f in (ratio, low, high))
    return value, low, high


def _one_way(table: Array, at: float) -> _Limits:
    subjects, judges = table.shape
    between, within, _, _ = _mean_squares(table)
    return _by_ratio(between, within, (subjects - 1, subjects * (judges - 1)), judges, at)


def _fixed(table: Array, at: float) -> _Limits:
    subjects, judges = table.shape
    between, _, _, rest = _mean_squares(table)
    return _by_ratio(between, rest, (subjects - 1, (subjects - 1) * (judges - 1)), judges, at)


def _two_way(table: Array, at: float) -> _Limits:
    n, k = table.shape
    between, _, across, rest = _mean_squares(table)
    value = (between - rest) / (between + (k - 1) * rest + k * (across - rest) / n)
    if rest == 0 and across == 0:
        return 1.0, 1.0, 1.0
    judge, other = k * value / (n * (1 - value)), 1 + k * value * (n - 1) / (n * (1 - value))
    free = (judge * across + other * rest) ** 2 / (
        (judge * across) ** 2 / (k - 1) + (other * rest) ** 2 / ((n - 1) * (k - 1))
    )
    spread = k * across + (k * n - k - n) * rest
    strict, lax = stats.f.ppf(at, n - 1, free), stats.f.ppf(at, free, n - 1)
    low = n * (between - strict * rest) / (strict * spread + n * between)
    high = n * (lax * between - rest) / (spread + n * lax * between)
    return float(value), float(low), float(high)
