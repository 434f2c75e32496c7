"""A table of reads, one row a read: its columns checked, and laid out by arm, reader and case."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pellucid.statistics.bootstrap import blank
from pellucid.statistics.errors import Unfit

if TYPE_CHECKING:
    import pandas as pd

    Table = Mapping[str, ArrayLike] | pd.DataFrame

MOST_NAMED = 3


@dataclass(frozen=True)
class Crossed:
    """Reads of every case by every reader in every arm.

    Args:
        arms: in the order of their names.
        readers: in the order of their names.
        cases: in the order of their names.
        rows: which row of the table is this read: "arm reader case".
        left_out: cases left out because some read of them is missing.
    """

    arms: tuple[str, ...]
    readers: tuple[str, ...]
    cases: tuple[str, ...]
    rows: NDArray[np.intp]
    left_out: int

    def spread(self, values: ArrayLike) -> NDArray[Any]:
        """A column as an array "arm reader case".

        Args:
            values: one for each row of the table.
        """
        return np.asarray(values)[self.rows]

    def of_case(self, values: ArrayLike, name: str) -> NDArray[Any]:
        """A column that all reads of a case share, as one value a case.

        Args:
            values: one for each row of the table.
            name: of the column, for the error.

        Raises:
            Unfit: if reads of one case differ.
        """
        given = self.spread(values)
        first = given[0, 0]
        differ = (given != first).any(axis=(0, 1))
        if differ.any():
            raise Unfit(
                f"{name} differs between reads of {_some(np.array(self.cases)[differ])}",
                f"give each case one {name}: the reference standard knows no arm and no reader",
            )
        return first


def column(table: "Table", name: str) -> NDArray[Any]:
    """One column of the table.

    Args:
        table: columns by name, such as a DataFrame.
        name: of the column.

    Raises:
        Unfit: if there is none of this name.
    """
    if name not in table:
        known = ", ".join(str(k) for k in table)
        raise Unfit(f"no column {name!r} in the table of reads", f"its columns are {known}: add it, or name another")
    return np.asarray(table[name])


def crossed(
    table: "Table",
    *,
    arm: str = "arm",
    reader: str = "reader_id",
    case: str = "case_id",
    incomplete: Literal["refuse", "leave out"] = "refuse",
) -> Crossed:
    """Where each read stands, if every reader read every case once in every arm.

    Args:
        table: columns by name, one row a read.
        arm: the column of arms.
        reader: the column of readers.
        case: the column of cases.
        incomplete: whether a case that lacks a read is refused, or left out for all and counted.

    Raises:
        Unfit: for a read that is there twice, for missing reads, for no complete case.
    """
    named = [_coded(column(table, c), c) for c in (arm, reader, case)]
    (arms, a), (readers, r), (cases, c) = named
    rows = np.full((len(arms), len(readers), len(cases)), -1, dtype=np.intp)
    rows[a, r, c] = np.arange(len(a))
    often = np.zeros(rows.shape, dtype=np.intp)
    np.add.at(often, (a, r, c), 1)
    if (often > 1).any():
        i, j, k = (int(x[0]) for x in np.nonzero(often > 1))
        raise Unfit(
            f"{(often > 1).sum()} reads are there twice, such as {cases[k]} by {readers[j]} in {arms[i]}",
            "keep the read that was locked, one for each arm, reader and case",
        )
    whole = (often == 1).all(axis=(0, 1))
    if incomplete == "refuse" and not whole.all():
        i, j, k = (int(x[0]) for x in np.nonzero(often == 0))
        raise Unfit(
            f"{(often == 0).sum()} of {often.size} reads are missing, such as {cases[k]} by {readers[j]} in {arms[i]}",
            "complete them, or leave the cases out for all readers and arms (incomplete='leave out')",
        )
    if not whole.any():
        raise Unfit("no case was read by every reader in every arm", "analyze arms and readers that share cases")
    kept = tuple(np.array(cases)[whole].tolist())
    return Crossed(arms, readers, kept, rows[:, :, whole], int((~whole).sum()))


def _coded(values: NDArray[Any], name: str) -> tuple[tuple[str, ...], NDArray[np.intp]]:
    """The names in order, and for each row the number of its own."""
    if not len(values):
        raise Unfit("the table of reads is empty", "give one row a read")
    holes = int(blank(values).sum())
    if holes:
        raise Unfit(f"{holes} reads have no {name}", f"fill in the {name} of every read")
    # names of several types have no order
    values = values.astype(str) if values.dtype == object else values
    found, number = np.unique(values, return_inverse=True)
    return tuple(str(f) for f in found), number.astype(np.intp)


def _some(names: NDArray[Any]) -> str:
    """The first few of many names."""
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return ", ".join(str(n) for n in names[:MOST_NAMED]) + more
