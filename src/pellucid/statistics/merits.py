"""Figures of merit of readers and their covariance: the area under ROC, LROC and wAFROC curves.

Each is a mean over pairs of a normal and a diseased case, of how far the reader set the two apart. That makes one piece
of arithmetic do for all: what a case contributes (its placement) gives DeLong's covariance and the jackknife's.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pellucid.statistics.bootstrap import Floats, labels
from pellucid.statistics.errors import Unfit


@dataclass(frozen=True)
class Merit:
    """A figure of merit of every arm and reader, with what each case contributed.

    Args:
        name: such as AUC.
        normal: for each normal case the mean over diseased ones: "arm reader normal".
        diseased: for each diseased case the mean over normal ones: "arm reader diseased".
        shared: for each patient the sum over pairs of the own cases: "arm reader patient".
        patient_of_normal: the number of each normal case's patient.
        patient_of_diseased: the number of each diseased case's patient.
    """

    name: str
    normal: Floats
    diseased: Floats
    shared: Floats
    patient_of_normal: NDArray[np.intp]
    patient_of_diseased: NDArray[np.intp]

    @property
    def values(self) -> Floats:
        """The figure itself, 0 to 1: "arm reader"."""
        return self.normal.mean(axis=-1)

    @property
    def patients(self) -> int:
        """How many there are."""
        return self.shared.shape[-1]

    def jackknife(self) -> Floats:
        """Covariance of the figures, from leaving out one patient with all cases: "figure figure", arms outermost."""
        own = len(self.patient_of_normal), len(self.patient_of_diseased)
        whole = self.values[..., None] * own[0] * own[1]
        without = [own[0] - self._count(self.patient_of_normal), own[1] - self._count(self.patient_of_diseased)]
        pairs = without[0] * without[1]
        if not pairs.all():
            raise Unfit("one patient has all the normal or all the diseased cases", "add patients of either kind")
        left = (
            whole
            - self._by_patient(self.normal, self.patient_of_normal) * own[1]
            - self._by_patient(self.diseased, self.patient_of_diseased) * own[0]
            + self.shared
        ) / pairs
        gaps = (left - left.mean(axis=-1, keepdims=True)).reshape(-1, self.patients)
        return (self.patients - 1) / self.patients * gaps @ gaps.T

    def delong(self) -> Floats:
        """Covariance of the figures from placements (Obuchowski's for several cases of a patient): "figure figure"."""
        center = self.values[..., None]
        parts, sizes = [], []
        for placed, owner in ((self.normal, self.patient_of_normal), (self.diseased, self.patient_of_diseased)):
            sums = self._by_patient(placed - center, owner).reshape(-1, self.patients) / len(owner)
            there = int((self._count(owner) > 0).sum())
            if there < 2:
                raise Unfit("one patient has all the normal or all the diseased cases", "add patients of either kind")
            parts.append(sums)
            sizes.append(there / (there - 1))
        one, two = parts
        mixed = one @ two.T * self.patients / (self.patients - 1)
        return sizes[0] * one @ one.T + sizes[1] * two @ two.T + mixed + mixed.T

    def _count(self, owner: NDArray[np.intp]) -> NDArray[np.intp]:
        """Cases of one kind that each patient has."""
        return np.bincount(owner, minlength=self.patients)

    def _by_patient(self, placed: Floats, owner: NDArray[np.intp]) -> Floats:
        """Sums over the cases of each patient."""
        return placed @ np.eye(self.patients)[owner]


def roc(ratings: ArrayLike, truth: ArrayLike, patients: ArrayLike | None = None) -> Merit:
    """The area under the ROC curve by Mann-Whitney: how often a diseased case is rated above a normal one, ties half.

    Args:
        ratings: of suspicion, higher is more: "arm reader case".
        truth: whether each case is diseased (1 or True).
        patients: the patient of each case; None if each case is a patient of its own.

    Raises:
        Unfit: for missing ratings, or without normal or diseased cases.

    Source: delong1988comparing, obuchowski1997nonparametric for several cases of a patient.
    """
    given, ill = _checked(ratings, truth)

    def kernels() -> Iterable[Floats]:
        for row in given.reshape(-1, given.shape[-1]):
            yield _above(row[~ill], row[ill])

    return _merit("AUC", kernels, given.shape[:2], ill, patients)


def lroc(ratings: ArrayLike, truth: ArrayLike, located: ArrayLike, patients: ArrayLike | None = None) -> Merit:
    """The area under the LROC curve: a diseased case counts only where the reader pointed at the lesion.

    One location a read; chance is far below 0.5, and depends on the acceptance radius: fix that beforehand.

    Args:
        ratings: of suspicion, higher is more: "arm reader case".
        truth: whether each case is diseased.
        located: whether the mark lies within the acceptance radius, read on diseased cases alone: "arm reader case".
        patients: the patient of each case.

    Raises:
        Unfit: as of ``roc``.

    Source: swensson1996unified.
    """
    given, ill = _checked(ratings, truth)
    hit = np.asarray(located, dtype=bool)
    if hit.shape != given.shape:
        raise Unfit(f"located has shape {hit.shape}, ratings {given.shape}", "say of each read whether it was located")

    def kernels() -> Iterable[Floats]:
        flat = given.reshape(-1, given.shape[-1])
        for row, right in zip(flat, hit.reshape(flat.shape), strict=True):
            yield _above(row[~ill], row[ill]) * right[ill]

    return _merit("LROC", kernels, given.shape[:2], ill, patients)


def wafroc(
    false_marks: ArrayLike,
    lesion_marks: ArrayLike,
    lesion_case: ArrayLike,
    truth: ArrayLike,
    patients: ArrayLike | None = None,
    weights: ArrayLike | None = None,
) -> Merit:
    """The area under the weighted AFROC curve, for any number of marks: lesions against false marks of normal cases.

    How often a lesion is rated above the highest false mark of a normal case, each diseased case counting once. What
    was not marked is rated minus infinity, and two such tie. False marks on diseased cases do not count.

    Args:
        false_marks: highest rating of a mark on no lesion, minus infinity without one: "arm reader case".
        lesion_marks: rating of each lesion, minus infinity where not marked: "arm reader lesion".
        lesion_case: the number of the case of each lesion.
        truth: whether each case is diseased.
        patients: the patient of each case.
        weights: of each lesion, adding up to 1 in every case; None: even.

    Raises:
        Unfit: as of ``roc``; for a diseased case without a lesion, a lesion in a normal case, or weights off 1.

    Source: chakraborty2016weighted.
    """
    given, ill = _checked(false_marks, truth)
    marks, place = np.asarray(lesion_marks, dtype=np.float64), np.asarray(lesion_case, dtype=np.intp)
    if marks.shape != (*given.shape[:2], len(place)) or np.isnan(marks).any():
        raise Unfit(
            f"lesion marks of shape {marks.shape} for {len(place)} lesions",
            "give a rating for each arm, reader and lesion: minus infinity where it was not marked",
        )
    often = np.bincount(place, minlength=len(ill))
    if (often[ill] == 0).any() or (often[~ill] > 0).any():
        raise Unfit("a diseased case has no lesion, or a normal one has", "list the lesions of each diseased case")
    weight = 1 / often[place] if weights is None else np.asarray(weights, dtype=np.float64)
    if not np.allclose(np.bincount(place, weight, len(ill))[ill], 1):
        raise Unfit("the weights of lesions do not add up to 1 in every case", "share 1 among the lesions of a case")
    gather = np.zeros((len(place), int(ill.sum())))
    gather[np.arange(len(place)), (np.cumsum(ill) - 1)[place]] = weight

    def kernels() -> Iterable[Floats]:
        for highest, lesions in zip(given.reshape(-1, len(ill)), marks.reshape(-1, len(place)), strict=True):
            yield _above(highest[~ill], lesions) @ gather

    return _merit("wAFROC", kernels, given.shape[:2], ill, patients)


def _above(low: Floats, high: Floats) -> Floats:
    """1 where the second is above the first, a half where they tie: "first second"."""
    return (high > low[:, None]) + 0.5 * (high == low[:, None])


def _checked(ratings: ArrayLike, truth: ArrayLike) -> tuple[Floats, NDArray[np.bool_]]:
    """Ratings "arm reader case" without holes, and which cases are diseased."""
    given, known = np.asarray(ratings, dtype=np.float64), np.asarray(truth)
    if given.ndim != 3 or known.shape != given.shape[2:]:
        raise Unfit(
            f"ratings of shape {given.shape} and the truth of {known.size} cases",
            "lay ratings out by arm, reader and case (``reads.crossed`` does), with one truth a case",
        )
    missing = np.isnan(given)
    if missing.any():
        raise Unfit(
            f"{int(missing.sum())} of {given.size} ratings are missing, in {int(missing.any(axis=(0, 1)).sum())} cases",
            "leave these cases out for all readers and arms, and say so",
        )
    if not np.isin(known.astype(np.float64), (0, 1)).all() or len(np.unique(known)) != 2:
        raise Unfit("the truth is not made of normal (0) and diseased (1) cases", "an area needs cases of either kind")
    return given, known.astype(bool)


def _merit(
    name: str,
    kernels: Callable[[], Iterable[Floats]],
    shape: tuple[int, ...],
    ill: NDArray[np.bool_],
    patients: ArrayLike | None,
) -> Merit:
    """Placements of every case, one arm and reader at a time."""
    names, owner = np.unique(labels(patients, len(ill), "patients"), return_inverse=True)
    of_normal, of_diseased = owner[~ill].astype(np.intp), owner[ill].astype(np.intp)
    both = np.nonzero(of_normal[:, None] == of_diseased)
    rows, columns, own = [], [], []
    for kernel in kernels():
        rows.append(kernel.mean(axis=1))
        columns.append(kernel.mean(axis=0))
        own.append(np.bincount(of_normal[both[0]], kernel[both], len(names)))
    placed = (np.array(x).reshape(*shape, -1) for x in (rows, columns, own))
    return Merit(name, *placed, of_normal, of_diseased)
