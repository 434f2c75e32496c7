"""How many readers and cases a study of reliance needs, by simulating it: answers cluster by reader and by patient."""

import math
from dataclasses import dataclass, replace

import numpy as np
from scipy import special

from pellucid.statistics.bootstrap import Floats, Resampling
from pellucid.statistics.crossed import two_way_gap
from pellucid.statistics.errors import Unfit
from pellucid.statistics.interval import Interval
from pellucid.statistics.proportions import wilson

# a logit of a normal around b with spread s has the mean of a logit of b / sqrt(1 + SLOPE s^2), nearly
SLOPE = (16 * math.sqrt(3) / (15 * math.pi)) ** 2


@dataclass(frozen=True)
class Plan:
    """A crossed study of two arms, and how its readers are thought to rely on a machine that is wrong.

    Args:
        readers: each reads every case in both arms.
        wrong_cases: where the machine is wrong, of as many patients; a third of all cases is usual, by design.
        first: share of over-reliance in one arm, such as the machine with its map.
        second: the same in the arm it is held against.
        right_before: share of reads that are right before the machine is shown: only these can be misled.
        reader_spread: standard deviation of readers in both arms, in logits; 0.5 puts most between 0.27 and 0.73.
        arm_spread: of how readers differ between arms, in logits; without it power is flattered.
        patient_spread: standard deviation of patients, in logits.
    """

    readers: int
    wrong_cases: int
    first: float
    second: float
    right_before: float = 0.7
    reader_spread: float = 0.5
    arm_spread: float = 0.3
    patient_spread: float = 0.7

    def __post_init__(self) -> None:
        shares = (self.first, self.second, self.right_before)
        if self.readers < 2 or self.wrong_cases < 2:
            raise Unfit(f"{self.readers} readers and {self.wrong_cases} cases are no plan", "plan two or more of each")
        if min(self.reader_spread, self.arm_spread, self.patient_spread) < 0:
            raise Unfit("a standard deviation is below 0", "give spreads of 0 or more, in logits")
        if not all(0 < s < 1 for s in shares):
            raise Unfit(f"shares of {', '.join(f'{s:g}' for s in shares)}", "give shares between 0 and 1")


def simulated_power(plan: Plan, *, margin: float = 0.0, studies: int = 300, by: Resampling | None = None) -> Interval:
    """The share of simulated studies that show first minus second below a margin.

    Shown is what the upper bound of ``two_way_gap`` shows, as a real study will be analyzed: less over-reliance for a
    margin of 0, no more than the margin otherwise. Readers and patients carry their levels into both arms. It is as
    good as the spreads it is told, so try several.

    Args:
        plan: the study.
        margin: in shares, 0 or above.
        studies: simulated; 300 know the power to within 6 points.
        by: resamples, seed and level of each study's interval; None: 300 resamples.

    Returns:
        The power, with Wilson's interval for so many studies; a study without bounds counts as showing nothing.
    """
    drawn = by or Resampling(300, kind="percentile")
    rng = np.random.default_rng(drawn.seed)
    shown = 0
    for study in range(studies):
        found = _study(plan, rng, replace(drawn, seed=drawn.seed + study))
        shown += found.bounded and found.high < margin
    return replace(wilson(shown, studies), how=f"{studies} simulated studies, seed {drawn.seed}")


def _study(plan: Plan, rng: np.random.Generator, by: Resampling) -> Interval:
    """First minus second of one simulated study."""
    arm, reader, case = np.indices((2, plan.readers, plan.wrong_cases)).reshape(3, -1)
    level = plan.reader_spread * rng.normal(size=plan.readers)[reader]
    level += plan.arm_spread * rng.normal(size=(2, plan.readers))[arm, reader]
    level += plan.patient_spread * rng.normal(size=plan.wrong_cases)[case]
    spread = plan.reader_spread**2 + plan.arm_spread**2 + plan.patient_spread**2
    center = special.logit(np.array([plan.first, plan.second])) * math.sqrt(1 + SLOPE * spread)
    misled: Floats = (rng.random(len(arm)) < special.expit(center[arm] + level)).astype(np.float64)
    could = rng.random(len(arm)) < plan.right_before
    return two_way_gap(misled[could], reader[could], case[could], arm[could] == 0, by=by)
