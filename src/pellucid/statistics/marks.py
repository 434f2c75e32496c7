"""Marks that readers put on lesions or beside them, by an acceptance radius, ready for LROC and wAFROC."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pellucid.statistics.bootstrap import Floats
from pellucid.statistics.decisions import amounts
from pellucid.statistics.errors import Unfit
from pellucid.statistics.reads import Crossed, column

if TYPE_CHECKING:
    from pellucid.statistics.reads import Table

AXES = ("x_mm", "y_mm", "z_mm")


@dataclass(frozen=True)
class Marks:
    """Marks told apart, as ``merits.wafroc`` and ``merits.lroc`` take them.

    Args:
        false_marks: highest rating beside all lesions, minus infinity without one: "arm reader case".
        lesion_marks: highest rating on each lesion, minus infinity where not marked: "arm reader lesion".
        lesion_case: the number of the case of each lesion.
        ratings: highest rating of any mark, minus infinity without one: "arm reader case".
        located: whether the mark with the highest rating lies on a lesion: "arm reader case".
        left_out: marks of cases that are left out of the study.
    """

    false_marks: Floats
    lesion_marks: Floats
    lesion_case: NDArray[np.intp]
    ratings: Floats
    located: NDArray[np.bool_]
    left_out: int


def accepted(marks: "Table", lesions: "Table", reads: Crossed, radius_mm: float) -> Marks:
    """Tell marks on lesions from those beside them: on the nearest lesion whose center lies within the radius.

    Several marks on one lesion count once, with the highest rating. Fix the radius before looking, at about that of
    the smallest lesion: figures of merit grow with it.

    Args:
        marks: one row a mark, with ``arm``, ``reader_id``, ``case_id``, ``rating``, ``x_mm``, ``y_mm`` (and ``z_mm``).
            A read without a mark has no row.
        lesions: one row a lesion, with ``case_id`` and the center, in the same frame.
        reads: who read what, also without a mark.
        radius_mm: of acceptance, above 0.

    Raises:
        Unfit: for a radius of 0, places or ratings that are missing, lesions or marks of unknown cases or readers.
    """
    if not (radius_mm > 0 and math.isfinite(radius_mm)):
        raise Unfit(f"an acceptance radius of {radius_mm} mm", "give one above 0, fixed before the study")
    cases, outside = {name: i for i, name in enumerate(reads.cases)}, reads.left_out > 0
    centers, spots = _places(lesions), _places(marks)
    if centers.shape[1] != spots.shape[1]:
        raise Unfit("lesions and marks have not the same axes", "give both x_mm and y_mm, or both z_mm too")
    where = _numbers(column(lesions, "case_id"), cases, "case_id", outside)
    kept, lesion_case = centers[where >= 0], where[where >= 0]
    arm = _numbers(column(marks, "arm"), {n: i for i, n in enumerate(reads.arms)}, "arm", False)
    reader = _numbers(column(marks, "reader_id"), {n: i for i, n in enumerate(reads.readers)}, "reader_id", False)
    case, rating = _numbers(column(marks, "case_id"), cases, "case_id", outside), amounts(marks, "rating")
    if np.isnan(rating).any():
        raise Unfit(f"{int(np.isnan(rating).sum())} marks have no rating", "rate every mark")
    shape = reads.rows.shape
    false, best, located = np.full(shape, -np.inf), np.full(shape, -np.inf), np.zeros(shape, dtype=bool)
    on = np.full((*shape[:2], len(kept)), -np.inf)
    for i, j, k, value, spot in zip(arm, reader, case, rating, spots, strict=True):
        if k < 0:
            continue
        lesion = _nearest(spot, kept, lesion_case == k, radius_mm)
        place = (i, j, k) if lesion is None else (i, j, lesion)
        table = false if lesion is None else on
        table[place] = max(table[place], value)
        if value >= best[i, j, k]:
            # of two marks with the same rating, the one beside the lesion counts
            located[i, j, k] = lesion is not None and (value > best[i, j, k] or located[i, j, k])
            best[i, j, k] = value
    return Marks(false, on, lesion_case, best, located, int((case < 0).sum()))


def _places(table: "Table") -> Floats:
    """Coordinates, as many axes as there are."""
    axes = AXES if AXES[2] in table else AXES[:2]
    found = np.stack([amounts({a: column(table, a)}, a) for a in axes], axis=1)
    if np.isnan(found).any():
        raise Unfit(
            f"{int(np.isnan(found).any(axis=1).sum())} places are incomplete", f"give {', '.join(axes)} of each"
        )
    return found


def _numbers(values: NDArray[Any], known: dict[str, int], what: str, outside: bool) -> NDArray[np.intp]:
    """The number of each name; -1 for one that was left out."""
    found = np.array([known.get(str(v), -1) for v in values.tolist()], dtype=np.intp)
    if (found < 0).any() and not outside:
        name = values[int(np.argmax(found < 0))]
        raise Unfit(f"{what} {name} is not among the reads", f"name each {what} as the table of reads does")
    return found


def _nearest(spot: Floats, centers: Floats, own: NDArray[np.bool_], radius_mm: float) -> int | None:
    """The nearest of the case's lesions, if its center lies within the radius."""
    if not own.any():
        return None
    distance = np.where(own, np.linalg.norm(centers - spot, axis=1), np.inf)
    nearest = int(distance.argmin())
    return nearest if distance[nearest] <= radius_mm else None
