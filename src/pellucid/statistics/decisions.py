"""Decisions of readers beside the truth and the machine's: who was right, who followed, as numbers with holes.

One row a read, with columns ``reader_id``, ``case_id``, ``arm``, ``truth`` and ``final_decision``; and where a
question needs them ``patient_id`` (else each case is a patient), ``ai_label``, and ``initial_decision``, locked before
the machine was shown.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pellucid.statistics.bootstrap import Floats, blank
from pellucid.statistics.errors import Unfit
from pellucid.statistics.reads import column

if TYPE_CHECKING:
    from pellucid.statistics.reads import Table


@dataclass(frozen=True)
class Decisions:
    """Reads as 1 (yes), 0 (no) and NaN (not known).

    Args:
        reader: the number of each read's reader.
        case: the number of each read's case.
        patient: the number of each read's patient.
        arm: the name of each read's arm.
        first_right: whether the decision before the machine was right.
        final_right: whether the final decision was right.
        machine_right: whether the machine was right on this case, also in arms that did not see it.
        follows: whether the final decision is the machine's.
    """

    reader: NDArray[np.intp]
    case: NDArray[np.intp]
    patient: NDArray[np.intp]
    arm: NDArray[Any]
    first_right: Floats
    final_right: Floats
    machine_right: Floats
    follows: Floats

    @property
    def arms(self) -> tuple[str, ...]:
        """Their names, in order."""
        return tuple(np.unique(self.arm).tolist())


def decisions(table: "Table") -> Decisions:
    """Read the columns of a table of reads, and see that they belong together.

    Args:
        table: columns by name, one row a read.

    Raises:
        Unfit: for a missing column or label, a read that is there twice, a case of two patients or truths, decisions in
            other words than the truth.
    """
    names = {n: _named(table, n) for n in ("reader_id", "case_id", "arm")}
    patients = _named(table, "patient_id") if "patient_id" in table else names["case_id"]
    (_, reader), (cases, case) = (np.unique(names[n], return_inverse=True) for n in ("reader_id", "case_id"))
    _, patient = np.unique(patients, return_inverse=True)
    _once(names["arm"], names["reader_id"], names["case_id"])
    truth, final = column(table, "truth"), column(table, "final_decision")
    first, machine = _optional(table, "initial_decision"), _optional(table, "ai_label")
    for words, name in ((final, "final_decision"), (first, "initial_decision"), (machine, "ai_label")):
        _speaks(words, truth, name)
    right = _same(machine, truth)
    for values, what in ((_codes(truth), "truth"), (patient.astype(float), "patient_id"), (right, "ai_label")):
        _one_a_case(values, case, cases, what)
    known = np.zeros(len(cases)), np.zeros(len(cases))
    np.add.at(known[0], case, np.nan_to_num(right))
    np.add.at(known[1], case, ~np.isnan(right))
    of_case = np.divide(*known, out=np.full(len(cases), np.nan), where=known[1] > 0)
    parts = _same(first, truth), _same(final, truth), of_case[case], _same(final, machine)
    return Decisions(reader, case, patient, names["arm"], *parts)


def amounts(table: "Table", name: str) -> Floats:
    """A column of numbers; all NaN where there is none of this name.

    Args:
        table: columns by name, one row a read.
        name: of the column.

    Raises:
        Unfit: if it holds anything else.
    """
    given = _optional(table, name)
    try:
        values = np.array([np.nan if b else float(v) for v, b in zip(given, blank(given), strict=True)])
    except (TypeError, ValueError) as error:
        raise Unfit(
            f"column {name} holds more than numbers: {error}", "give numbers, and nothing where missing"
        ) from error
    if np.isinf(values).any():
        raise Unfit(f"column {name} holds an infinite value", "leave empty what was not measured")
    return values


def _named(table: "Table", name: str) -> NDArray[Any]:
    """A column of labels without a hole."""
    values = column(table, name)
    holes = blank(values)
    if holes.any() or not len(values):
        raise Unfit(f"{int(holes.sum())} of {len(values)} reads have no {name}", f"fill in the {name} of every read")
    return values.astype(str)


def _optional(table: "Table", name: str) -> NDArray[Any]:
    """A column, or as many holes."""
    return column(table, name) if name in table else np.full(len(column(table, "reader_id")), None, dtype=object)


def _same(one: NDArray[Any], two: NDArray[Any]) -> Floats:
    """1 where they say the same, 0 where not, NaN where either says nothing."""
    same = np.array([a == b for a, b in zip(one.tolist(), two.tolist(), strict=True)], dtype=np.float64)
    return np.where(blank(one) | blank(two), np.nan, same)


def _codes(values: NDArray[Any]) -> Floats:
    """A number for each word; NaN for none."""
    words = [str(v) for v in values.tolist()]
    return np.where(blank(values), np.nan, np.unique(words, return_inverse=True)[1].astype(np.float64))


def _speaks(words: NDArray[Any], truth: NDArray[Any], name: str) -> None:
    """A column that never uses a word of the truth was coded otherwise, and would count as always wrong."""
    said = {v for v, b in zip(words.tolist(), blank(words), strict=True) if not b}
    true = {v for v, b in zip(truth.tolist(), blank(truth), strict=True) if not b}
    if said and true and not said & true:
        examples = ", ".join(sorted(map(repr, said))[:3]), ", ".join(sorted(map(repr, true))[:3])
        raise Unfit(f"{name} says {examples[0]} where the truth says {examples[1]}", "code both with the same words")


def _once(*columns: NDArray[Any]) -> None:
    """No arm, reader and case twice."""
    seen: set[tuple[str, ...]] = set()
    for key in zip(*(c.tolist() for c in columns), strict=True):
        if key in seen:
            raise Unfit(
                f"the read of case {key[2]} by {key[1]} in {key[0]} is there twice", "keep the one that was locked"
            )
        seen.add(key)


def _one_a_case(values: Floats, case: NDArray[np.intp], cases: NDArray[Any], name: str) -> None:
    """All reads of a case agree on what is the case's."""
    known = ~np.isnan(values)
    lowest, highest = np.full(len(cases), np.inf), np.full(len(cases), -np.inf)
    np.minimum.at(lowest, case[known], values[known])
    np.maximum.at(highest, case[known], values[known])
    differ = highest > lowest
    if differ.any():
        raise Unfit(f"{name} differs between reads of case {cases[differ][0]}", f"give each case one {name}")
