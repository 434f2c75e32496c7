"""How many readers and cases a study needs: Hillis's power from the components of a pilot."""

import math
from dataclasses import dataclass

from scipy import special, stats

from pellucid.statistics.errors import Unfit
from pellucid.statistics.interval import checked_level
from pellucid.statistics.multireader import Components, Kind

MOST = 100_000


@dataclass(frozen=True)
class Power:
    """The share of studies like this that find the difference.

    Args:
        power: that share.
        noncentrality: of the F (or chi-square) distribution.
        df: degrees of freedom of the error; infinite for FRRC.
        readers: planned.
        cases: planned, at the pilot's share of diseased ones.
    """

    power: float
    noncentrality: float
    df: float
    readers: int
    cases: int


def power(
    pilot: Components, difference: float, readers: int, cases: int, *, kind: Kind = "RRRC", level: float = 0.95
) -> Power:
    """Power of two arms that truly differ so much, all cases read by all readers in both.

    Delta = (J d^2 / 2) / (VarTR + K*/K (Var - Cov1 + (J - 1) max(Cov2 - Cov3, 0))), F with the degrees of freedom that
    Hillis gives: covariances shrink with cases, the spread of readers does not. A pilot of few readers knows its
    components badly, so look at several; answers that cluster otherwise (reliance) need ``simulating``.

    Args:
        pilot: components of ``multireader.analyze``.
        difference: true difference of the figure of merit, such as 0.05.
        readers: two or more (one will do for FRRC).
        cases: normal and diseased together.
        kind: whom the study will speak of.
        level: 1 minus the two-sided error.

    Raises:
        Unfit: for fewer readers or cases than a study has.

    Source: hillis2011power.
    """
    checked_level(level)
    if readers < (1 if kind == "FRRC" else 2) or cases < 2:
        raise Unfit(f"{readers} readers and {cases} cases are no study of {kind}", "plan two readers or more")
    shrink, beyond = pilot.cases / cases, max(pilot.cov2 - pilot.cov3, 0.0)
    var_tr = max(pilot.var_tr, 0.0)
    square = var_tr + shrink * (pilot.variance - pilot.cov1 - beyond)
    spread = {
        "RRRC": square + shrink * readers * beyond,
        "FRRC": shrink * (pilot.variance - pilot.cov1 + (readers - 1) * beyond),
        "RRFC": square,
    }[kind]
    if not (math.isfinite(spread) and spread > 0):
        raise Unfit("the pilot's components give no spread", "take those of a study with two arms and two readers")
    delta = readers * difference**2 / 2 / spread
    if kind == "FRRC":
        found, df = float(special.chndtr(special.chdtri(1, 1 - level), 1, delta)), math.inf
        return Power(1 - found, delta, df, readers, cases)
    df = (readers - 1.0) * (spread / square) ** 2
    found = float(stats.ncf.sf(special.fdtri(1, df, level), 1, df, delta)) if delta else 1 - level
    return Power(found, delta, df, readers, cases)


def cases_needed(
    pilot: Components, difference: float, readers: int, *, wanted: float = 0.8, kind: Kind = "RRRC", level: float = 0.95
) -> Power:
    """The fewest cases that reach a power with so many readers.

    Args:
        pilot: components of ``multireader.analyze``.
        difference: true difference of the figure of merit.
        readers: planned.
        wanted: power.
        kind: whom the study will speak of.
        level: 1 minus the two-sided error.

    Returns:
        The plan; if readers are too few for any number of cases, the one of 100,000 cases, short of what is wanted.

    Raises:
        Unfit: as of ``power``.
    """

    def at(cases: int) -> Power:
        return power(pilot, difference, readers, cases, kind=kind, level=level)

    low, high = 1, MOST
    if at(high).power < wanted:
        return at(high)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if at(middle).power >= wanted else (middle, high)
    return at(high)
