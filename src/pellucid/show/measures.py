"""The table of measures: metrics down, maps and baselines across."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isnan

from pellucid.core.card import Property
from pellucid.show.sections import ScoreRow
from pellucid.show.words import number, unit_word


@dataclass(frozen=True)
class Cell:
    """One metric of one map.

    Args:
        words: the value, or that there is none.
        beside: what it is read against, such as chance.
    """

    words: str
    beside: tuple[str, ...] = ()


@dataclass(frozen=True)
class MatrixRow:
    """One metric over all maps of a report.

    Args:
        name: of the metric.
        measures: the property.
        says: what its number says.
        caution: what it does not say.
        direction: which way is better.
        given: under which fill, noise or threshold it was measured; empty: nothing was chosen.
        cells: one for each column.
    """

    name: str
    measures: str
    says: str
    caution: str
    direction: str
    given: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Matrix:
    """The table of measures: metrics down, maps and baselines across; reasons of what is undefined below."""

    columns: tuple[str, ...]
    rows: tuple[MatrixRow, ...]
    reasons: tuple[str, ...]


def matrix_of(scores: Sequence[ScoreRow], titles: Sequence[str]) -> Matrix:
    """Scores as a table: maps in their order, then baselines; an undefined score refers to its reason."""
    columns = tuple(dict.fromkeys((*(t for t in titles if any(s.of == t for s in scores)), *(s.of for s in scores))))
    names = tuple(
        dict.fromkeys(
            s.about.name for s in sorted(scores, key=lambda s: list(Property).index(Property(s.about.measures)))
        )
    )
    reasons: list[str] = []
    rows = []
    for name in names:
        found = {s.of: s for s in scores if s.about.name == name}
        about = next(iter(found.values())).about
        given = "; ".join(dict.fromkeys(words for row in found.values() for words in row.given))
        cells = tuple(_cell(found.get(c), reasons) for c in columns)
        rows.append(MatrixRow(name, about.measures, about.says, about.caution, about.direction, given, cells))
    return Matrix(columns, tuple(rows), tuple(reasons))


def _cell(row: ScoreRow | None, reasons: list[str]) -> Cell:
    if row is None:
        return Cell("")
    if row.value is None or isnan(row.value):
        reason = row.reason or "no reason given"
        if reason not in reasons:
            reasons.append(reason)
        return Cell(f"undefined [{reasons.index(reason) + 1}]")
    return Cell(_valued(row.value, row), row.beside)


def _valued(value: float, row: ScoreRow) -> str:
    return number(value) if row.about.unit in ("1", "") else f"{number(value)} {unit_word(row.about.unit)}"


def listed(scores: Sequence[ScoreRow]) -> tuple[tuple[str, str], ...]:
    """One map's scores as pairs of metric and value; metrics that are undefined for one reason stand together."""
    found: dict[str, str] = {}
    missing: dict[str, list[str]] = {}
    for row in scores:
        if row.value is None or isnan(row.value):
            missing.setdefault(row.reason, []).append(row.about.name)
        else:
            found[row.about.name] = _valued(row.value, row)
    return (*found.items(), *((", ".join(names), f"undefined: {reason}") for reason, names in missing.items()))
