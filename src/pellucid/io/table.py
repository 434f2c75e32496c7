"""A CSV of cases: which columns it may have, and what each row names."""

import csv
import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path

from pellucid.core.errors import BadOption, PellucidError, UnreadableImage

PRIMARY = "image"
_PLAIN = ("name", "patient", "label", "group")
_PREFIXES = ("image", "region", "covariate")
_COLUMNS = "image or image:NAME, region:NAME, covariate:NAME, name, patient, label, group"
_MAX_BYTES = 2**26
_DELIMITERS = ",;\t"


@dataclass(frozen=True)
class Row:
    """One case of the table.

    Args:
        number: of the line's record, from 1, the header not counted.
        images: path by input name.
        regions: path by region name.
        covariates: number by name.
        name: pseudonym, where the table gives one.
        label: reference label.
        group: site or scanner.
        patient: pseudonym, where several cases are of one patient.
    """

    number: int
    images: Mapping[str, Path]
    regions: Mapping[str, Path] = field(default_factory=dict)
    covariates: Mapping[str, float] = field(default_factory=dict)
    name: str | None = None
    label: str | None = None
    group: str | None = None
    patient: str | None = None


def is_table(path: Path) -> bool:
    """Whether the first line of a text file names a column ``image``."""
    with path.open("rb") as stream:
        line = stream.readline(1 << 16)
    try:
        header = line.decode("utf-8-sig")
    except UnicodeDecodeError:
        return False
    return any(_kind(cell)[0] == PRIMARY for cell in _cells(header, _delimiter(header)))


def read_table(path: Path) -> list[Row | tuple[int, PellucidError]]:
    """The rows of a CSV with paths relative to it; a bad row comes as its number and error, in place.

    Raises:
        UnreadableImage: too large, not UTF-8, or without rows.
        BadOption: a column that is unknown or given twice.
    """
    if path.stat().st_size > _MAX_BYTES:
        raise UnreadableImage(f"expected a table of at most {_MAX_BYTES} bytes, got a larger one", "split it")
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UnreadableImage("expected a table in UTF-8, got another encoding", "save it as CSV UTF-8") from None
    lines = list(csv.reader(io.StringIO(text, newline=""), delimiter=_delimiter(text.partition("\n")[0])))
    columns = [cell.strip() for cell in lines[0]]
    _check_columns(columns)
    records = [line for line in lines[1:] if any(cell.strip() for cell in line)]
    if not records:
        raise UnreadableImage("expected a table with at least one case, got its header only", "add a line per case")
    found: list[Row | tuple[int, PellucidError]] = []
    for number, record in enumerate(records, 1):
        try:
            found.append(_row(number, columns, record, path.parent))
        except PellucidError as error:
            found.append((number, error))
    return found


def _check_columns(columns: list[str]) -> None:
    unknown = [c for c in columns if _kind(c)[0] is None]
    if unknown:
        raise BadOption(
            f"expected columns {_COLUMNS}; got {len(unknown)} other(s), the first is {unknown[0][:40]!r}",
            "rename or remove them; a number for the model goes into covariate:NAME",
        )
    if len(set(columns)) < len(columns):
        raise BadOption("expected each column once, got one of them twice", "rename one of the two")


def _row(number: int, columns: list[str], record: list[str], folder: Path) -> Row:
    if len(record) > len(columns):
        raise BadOption(f"expected {len(columns)} cells, got {len(record)}", "quote cells that hold the delimiter")
    cells = {c: v.strip() for c, v in zip(columns, record, strict=False) if v.strip()}
    parts: dict[str, dict[str, str]] = {prefix: {} for prefix in _PREFIXES}
    for column, value in cells.items():
        kind, name = _kind(column)
        if kind in parts:
            parts[kind][name] = value
    wanted = [_kind(c)[1] for c in columns if _kind(c)[0] == PRIMARY]
    missing = [name for name in wanted if name not in parts[PRIMARY]]
    if missing:
        raise BadOption(
            f"expected a path in each image column, {missing[0]!r} is empty", "fill it, or take the row out"
        )
    return Row(
        number,
        {name: folder / value for name, value in parts["image"].items()},
        {name: folder / value for name, value in parts["region"].items()},
        {name: _number(name, value) for name, value in parts["covariate"].items()},
        cells.get("name"),
        cells.get("label"),
        cells.get("group"),
        cells.get("patient"),
    )


def _number(name: str, value: str) -> float:
    try:
        number = float(value)
    except ValueError:
        number = float("nan")
    if not isfinite(number):
        raise BadOption(
            f"expected a finite number for covariate {name!r}, got something else",
            "write a number (sex as 0 and 1), leave the cell empty, or put words such as a site into the column group",
        )
    return number


def _kind(column: str) -> tuple[str | None, str]:
    """What a column holds, and the name after the colon."""
    head, colon, name = column.strip().partition(":")
    if not colon:
        return (head, PRIMARY) if head in (*_PLAIN, PRIMARY) else (None, "")
    return (head, name.strip()) if head in _PREFIXES and name.strip() else (None, "")


def _delimiter(header: str) -> str:
    """Comma, or what spreadsheets of other languages write."""
    return max(_DELIMITERS, key=header.count)


def _cells(header: str, delimiter: str) -> list[str]:
    return next(iter(csv.reader([header.rstrip("\r\n")], delimiter=delimiter)), [])
