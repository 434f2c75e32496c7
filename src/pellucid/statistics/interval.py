"""What every estimate of this room comes as: a value with its interval, how many it rests on, and how it was made."""

import math
from dataclasses import dataclass

from pellucid.statistics.errors import Unfit


@dataclass(frozen=True)
class Interval:
    """A value with its interval; a bound that cannot be had is NaN, and ``note`` says why.

    Args:
        value: the estimate; NaN where nothing is defined.
        low: lower bound.
        high: upper bound.
        level: share of repeated studies whose interval would hold the true value, such as 0.95.
        count: items (or reads) that the value rests on.
        clusters: patients (or other independent units) that these belong to.
        undefined: items left out because they are NaN.
        how: method, resamples and seed: enough to make the interval again.
        note: why a bound is NaN, or what to mistrust; empty if nothing.
    """

    value: float
    low: float
    high: float
    level: float
    count: int
    clusters: int
    undefined: int
    how: str
    note: str = ""

    @property
    def bounded(self) -> bool:
        """Whether both bounds are known."""
        return math.isfinite(self.low) and math.isfinite(self.high)

    def clusters_needed(self, threshold: float) -> float:
        """Patients that settle on which side of a threshold the value lies, in all and not in addition.

        The bound nearest to the threshold moves with one over the square root of the patients while the value stays as
        it is: about an even chance with so many, so plan for more.

        Args:
            threshold: in the unit of the value.

        Returns:
            Patients in all, at least those there are; infinite at the threshold itself; NaN without bounds.
        """
        if not self.bounded:
            return math.nan
        distance = self.value - threshold
        if distance == 0:
            return math.inf
        reach = self.value - self.low if distance > 0 else self.high - self.value
        return max(float(self.clusters), math.ceil(self.clusters * (reach / distance) ** 2))


def checked_level(level: float) -> float:
    """The level, if it is one.

    Args:
        level: between 0 and 1.

    Raises:
        Unfit: for any other number.
    """
    if not 0 < level < 1:
        raise Unfit(f"the level of an interval lies between 0 and 1, and {level} does not", "pass 0.95, for example")
    return level
