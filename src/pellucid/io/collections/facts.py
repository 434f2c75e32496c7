"""What the tables of a data set say of a case."""

import csv
import gzip
import io
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from typing import Any

from pellucid.core.errors import UnreadableImage
from pellucid.io.collections.declared import Collection, Fact, Table, first_of
from pellucid.io.collections.places import Place, expand
from pellucid.io.guard import reading

Row = Mapping[str, Any]
_MAX_BYTES = 2**28
_NUMBER = re.compile(r"0*(\d+(?:\.\d+)?)Y?")  # 058Y is 58 years, as DICOM writes an age


@dataclass(frozen=True, eq=False)
class Shelf:
    """The tables of one folder, each read once.

    Args:
        collection: that declares them.
        read: by path.
    """

    collection: Collection
    read: dict[tuple[Path, str], Mapping[str, Sequence[Row]]] = field(default_factory=dict)

    def rows(self, name: str, place: Place) -> Sequence[Row]:
        """The rows of a table that are about a case; none where the table has none or is not there.

        Args:
            name: of the table.
            place: of the case.

        Raises:
            UnreadableImage: a required table is missing, or one is damaged.
        """
        table = self.collection.tables[name]
        found = place.files(table.file)
        if not found:
            if table.required:
                raise UnreadableImage(
                    f"expected the table {first_of(table.file)[0]} of {self.collection.title}, got a folder without it",
                    "put it where the data set has it; pellucid collections shows the layout",
                )
            return ()
        wanted = expand(table.of, place.look) or ""
        for path in found:
            if (path, name) not in self.read:
                self.read[path, name] = _load(path, table)
            if wanted in self.read[path, name]:
                return self.read[path, name][wanted]
        return ()

    def entry(self, text: str, place: Place) -> Any:
        """A value of a JSON table as it is: ``dataset.labels``.

        Args:
            text: table, dot, key.
            place: of the case.
        """
        name, _, key = text.partition(".")
        rows = self.rows(name, place)
        return rows[0].get(key) if rows else None

    def look(self, name: str, place: Place) -> str | None:
        """A field of the path, or ``table.column``; None: it is not known.

        Args:
            name: of the field.
            place: of the case.
        """
        known = place.look(name)
        table, dot, column = name.partition(".")
        if known is not None or not dot or table not in self.collection.tables:
            return known
        rows = self.rows(table, place)
        value: Any = rows[0].get(column) if rows else None
        if rows and value is None:  # an entry within an entry: dataset.modality.0
            outer, _, inner = column.partition(".")
            within = rows[0].get(outer)
            value = within.get(inner) if isinstance(within, Mapping) else None
        return _text(value)

    def fact(self, told: str | Fact, place: Place) -> str | None:
        """What is known of a case, in words.

        Args:
            told: as declared.
            place: of the case.
        """
        fact = told if isinstance(told, Fact) else Fact(told)

        def look(name: str) -> str | None:
            return self.look(name, place)

        if fact.columns:
            rows = self.rows(fact.table, place)
            on = [c for c in fact.columns if rows and (number(_text(rows[0].get(c))) or 0.0) > fact.above]
            if on:
                return "|".join(fact.words.get(c, c) for c in on)
        value = next((v for t in first_of(fact.of) if (v := expand(t, look))), None)
        words = {expand(key, look): word for key, word in fact.words.items()}
        return words.get(value, value) or None


def number(text: str | None) -> float | None:
    """A finite number; None: there is none.

    Args:
        text: of a table.
    """
    if text is None:
        return None
    aged = _NUMBER.fullmatch(text)
    try:
        value = float(aged[1] if aged else text)
    except ValueError:
        return None
    return value if isfinite(value) else None


def _text(value: object) -> str | None:
    """None for an empty cell, and for a list or another thing that is no word."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    return str(value).strip() or None


def _load(path: Path, table: Table) -> Mapping[str, Sequence[Row]]:
    with reading("a table of a data set", "unpack the data set again"):
        text = _content(path).decode("utf-8-sig", errors="replace")
        if table.form == "json":
            return _of_json(json.loads(text), table)
        if table.form == "lines":
            cells = (line.partition(":") for line in text.splitlines() if ":" in line)
            return {"": ({key.strip(): value.strip() for key, _, value in cells},)}
        return _of_csv(text, table)


def _content(path: Path) -> bytes:
    """Of a file, inflated where it is gzip, and never beyond the limit."""
    with path.open("rb") as stream:
        packed = stream.read(2) == b"\x1f\x8b"
    with gzip.open(path, "rb") if packed else path.open("rb") as stream:
        found = stream.read(_MAX_BYTES + 1)
    if len(found) > _MAX_BYTES:
        raise UnreadableImage(f"expected a table of at most {_MAX_BYTES} bytes, got a larger one", "split it")
    return found


def _of_json(told: Any, table: Table) -> Mapping[str, Sequence[Row]]:
    """One entry, or with ``of`` an entry for each case, whose rows may be a list within it."""
    if not table.of:
        return {"": (told,)}
    found: dict[str, Sequence[Row]] = {}
    for key, entry in told.items():
        around = {name: value for name, value in entry.items() if not isinstance(value, list)}
        found[key] = [{**around, **row} for row in entry.get(table.list, ())] if table.list else (entry,)
    return found


def _of_csv(text: str, table: Table) -> Mapping[str, Sequence[Row]]:
    lines = csv.reader(io.StringIO(text, newline=""), delimiter=table.delimiter)
    header = [cell.strip() for cell in next(lines, [])]
    if table.key and table.key not in header:
        raise UnreadableImage(
            f"expected a table with a column {table.key!r}, got one without it", "use the data set's own file"
        )
    found: dict[str, list[Row]] = {}
    for line in lines:
        row = {name: cell.strip() for name, cell in zip(header, line, strict=False)}
        found.setdefault(row.get(table.key, "") if table.key else "", []).append(row)
    return found
