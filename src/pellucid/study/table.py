"""The long table of a study: one row for each case, model, seed, target, method and metric."""

import csv
import io
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from importlib.util import find_spec
from pathlib import Path
from typing import get_type_hints

import numpy as np

from pellucid.core.atomic import write_bytes, write_text
from pellucid.core.errors import InputError
from pellucid.statistics.bootstrap import Floats
from pellucid.study.items import Item
from pellucid.workbench.registry import metrics

PARQUET = "scores.parquet"
UNKNOWN = "not known"
STRATA = {"site": "site", "correct": "prediction", "label": "label"}  # names in a protocol, and how they are told


@dataclass(frozen=True)
class Row:
    """One number of a study, or why there is none.

    Args:
        case: pseudonym.
        patient: pseudonym; rows of one patient are one cluster.
        site: site or scanner; None: not known.
        label: reference label; None: not known.
        content: SHA-256 of the case, by which studies are paired.
        model: short name.
        seed: of everything random.
        predicted: what the model says; None: it was not run.
        correct: whether that is the label; None: not known.
        model_score: of the explained class.
        readers: who marked the finding.
        target: as the study names it, or ``default``.
        explained: what that is for this case.
        method: with its parameters.
        metric: with its parameters; empty: the case came to nothing, or the method does not fit the model.
        value: NaN where undefined.
        reason: why it is undefined.
        direction: which way is better.
        unit: of the value.
        region: that the map was compared with.
        ms: the method took.
    """

    case: str
    patient: str
    site: str | None = None
    label: str | None = None
    content: str = ""
    model: str = ""
    seed: int = 0
    predicted: str | None = None
    correct: bool | None = None
    model_score: float = math.nan
    readers: int = 0
    target: str = ""
    explained: str = ""
    method: str = ""
    metric: str = ""
    value: float = math.nan
    reason: str = ""
    direction: str = "none"
    unit: str = "1"
    region: str | None = None
    ms: float = math.nan

    def stratum(self, column: str) -> str:
        """The level of a stratum that the row belongs to.

        Args:
            column: one of ``STRATA``.
        """
        if column == "correct":
            return UNKNOWN if self.correct is None else "right" if self.correct else "wrong"
        return (self.site if column == "site" else self.label) or UNKNOWN


def rows_of(items: Iterable[Item]) -> tuple[Row, ...]:
    """The rows of items; one that came to nothing is a row with its reason.

    Args:
        items: of a study.
    """
    return tuple(row for item in items for row in _rows(item))


def _rows(item: Item) -> list[Row]:
    score = math.nan if item.model_score is None else item.model_score
    about = {f: getattr(item, f) for f in ("case", "patient", "site", "label", "content", "model", "seed")}
    about |= {"predicted": item.predicted, "correct": item.correct, "model_score": score, "readers": item.readers}
    if item.error is not None:
        return [Row(**about, reason=f"{item.error['error']}: {item.error['problem']}")]
    rows = [Row(**about, **{**s, "value": math.nan if s["value"] is None else s["value"]}) for s in item.scores]
    return rows + [Row(**about, method=m, reason=f"cannot explain this model: {why}") for m, why in item.skipped]


def write_rows(rows: Sequence[Row], path: Path) -> Path:
    """Write the table as CSV, and beside it as Parquet where pyarrow is installed.

    Args:
        rows: of a study.
        path: of the CSV.

    Raises:
        UnwritableOutput: the folder cannot be written.
    """
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    names = [f.name for f in fields(Row)]
    lines.writerow(names)
    lines.writerows([_written(getattr(row, name)) for name in names] for row in rows)
    write_text(path, text.getvalue())
    if find_spec("pyarrow") is not None:
        import pandas as pd  # loads slowly: only where it is used

        table = pd.DataFrame([[getattr(row, name) for name in names] for row in rows], columns=names)
        write_bytes(path.with_name(PARQUET), table.to_parquet(index=False))
    return path


def read_rows(path: Path) -> tuple[Row, ...]:
    """The table of a study from its CSV.

    Args:
        path: of the CSV.

    Raises:
        InputError: not such a table, or a cell of another type; the message names row and column.
    """
    try:
        lines = list(csv.reader(io.StringIO(path.read_text(encoding="utf-8"), newline="")))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path.name} cannot be read as a table of scores", "run the study again") from error
    names = [f.name for f in fields(Row)]
    if not lines or lines[0] != names:
        raise InputError(f"{path.name} has other columns than a table of scores", f"columns: {', '.join(names)}")
    kinds = get_type_hints(Row)
    return tuple(_read(n, dict(zip(names, line, strict=False)), kinds) for n, line in enumerate(lines[1:], 2) if line)


def _written(value: object) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return str(value).lower() if isinstance(value, bool) else repr(value) if isinstance(value, float) else str(value)


def _read(number: int, cells: dict[str, str], kinds: dict[str, object]) -> Row:
    known: dict[object, Callable[[str], object]] = {
        int: int,
        float: lambda cell: float(cell) if cell else math.nan,
        str: str,
        str | None: lambda cell: cell or None,
        bool | None: lambda cell: {"": None, "true": True, "false": False}[cell],
    }
    made = {}
    for name, kind in kinds.items():
        try:
            made[name] = known[kind](cells[name])
        except (KeyError, ValueError):
            raise InputError(
                f"line {number} of the table of scores has a wrong or no {name}", "run the study again"
            ) from None
    return Row(**made)


def values_of(rows: Sequence[Row]) -> tuple[Floats, list[str]]:
    """The values of rows, and the patient of each.

    Args:
        rows: of one model, target, method and metric.
    """
    return np.array([row.value for row in rows], dtype=np.float64), [row.patient for row in rows]


def groups_of(rows: Iterable[Row], *columns: str) -> dict[tuple[str, ...], list[Row]]:
    """Rows with numbers (or a reason for each) by the given columns, in the order in which they come.

    Args:
        rows: of a study; cases that came to nothing are left out, see ``lost``.
        columns: names of columns.
    """
    found: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        if row.metric:
            found.setdefault(tuple(str(getattr(row, c)) for c in columns), []).append(row)
    return found


def between_0_and_1(metric: str) -> bool:
    """Whether no value of a metric lies elsewhere.

    Args:
        metric: with its parameters.
    """
    known = metrics().get(metric.partition(":")[0])
    return known is not None and known.card.interval in ("0 to 1", "0 or 1")


def lost(rows: Iterable[Row], model: str, method: str = "") -> list[Row]:
    """Rows of cases that came to nothing with a model, or that a method could not explain.

    Args:
        rows: of a study.
        model: short name.
        method: with its parameters; empty: cases that came to nothing only.
    """
    return [r for r in rows if r.model == model and not r.metric and r.method in ("", method)]
