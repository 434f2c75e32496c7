"""Rows as CSV: what the studies of claims keep of every case."""

import csv
import io
import math
from collections.abc import Sequence
from pathlib import Path

from pellucid.core.atomic import write_text

Rows = list[dict[str, object]]


def write(rows: Rows, path: Path) -> None:
    """Undefined values empty, the others with four decimals."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({k: _plain(v) for k, v in row.items()})
    write_text(path, text.getvalue())


def read(path: Path, texts: Sequence[str]) -> Rows:
    """What ``write`` wrote.

    Args:
        path: of the file.
        texts: columns that hold no numbers.
    """
    with path.open(encoding="utf-8") as stream:
        return [{k: v if k in texts else _number(v) for k, v in row.items()} for row in csv.DictReader(stream)]


def _plain(value: object) -> object:
    if not isinstance(value, float):
        return value
    return "" if math.isnan(value) else f"{value:.4f}".rstrip("0").rstrip(".")


def _number(text: str) -> float:
    return float(text) if text else math.nan
