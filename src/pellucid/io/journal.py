"""Numbers of single cases in the output folder, a line each, so that a killed run goes on where it was."""

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pellucid.core.errors import UnwritableOutput
from pellucid.core.keeping import Journal, Numbers

JOURNAL_NAME = "cases.jsonl"


@dataclass(frozen=True, eq=False)
class CaseJournal(Journal):
    """A file of JSON lines ``{"key": SHA-256, "values": [...]}`` that only grows; it names no case.

    Every line is appended in one write and brought to the disk. A line that a killed process left half is passed over.

    Args:
        path: of the file.
        known: what is in it.
    """

    path: Path
    known: dict[str, Numbers] = field(default_factory=dict)

    @classmethod
    def opened(cls, folder: Path) -> "CaseJournal":
        """The journal of a folder, with what earlier runs put into it."""
        path = folder / JOURNAL_NAME
        return cls(path, dict(filter(None, map(_entry, read_lines(path)))))

    def get(self, key: str) -> Numbers | None:
        """See ``Journal``."""
        return self.known.get(key)

    def put(self, found: Mapping[str, Numbers]) -> None:
        """See ``Journal``.

        Raises:
            UnwritableOutput: the folder cannot be written, or the disk is full.
        """
        append_lines(self.path, ({"key": key, "values": values} for key, values in found.items()))
        self.known.update(found)


def append_lines(path: Path, entries: Iterable[Mapping[str, object]]) -> None:
    """Add entries to a file of JSON lines, and bring them to the disk.

    Args:
        path: of the file, which is made where it is missing.
        entries: JSON types (NaN among them); one line each, in one write.

    Raises:
        UnwritableOutput: the folder cannot be written, or the disk is full.
    """
    try:
        with path.open("ab", buffering=0) as stream:
            for entry in entries:
                # a line break before it: what a killed process left half must not swallow this line
                stream.write(b"\n" + json.dumps(entry).encode() + b"\n")
            os.fsync(stream.fileno())
    except OSError as error:
        raise UnwritableOutput(
            f"the numbers of a case cannot be kept ({error.strerror or type(error).__name__})",
            "free space, or choose another --out",
        ) from None


def read_lines(path: Path) -> Iterator[Mapping[str, Any]]:
    """The entries of a file of JSON lines; empty lines, and what was cut off, are passed over.

    Args:
        path: of the file; where there is none, there are no entries.
    """
    for line in path.read_bytes().split(b"\n") if path.is_file() else ():
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if isinstance(entry, dict):
            yield entry


def _entry(entry: Mapping[str, Any]) -> tuple[str, Numbers] | None:
    """Key and numbers; None: the line says something else."""
    try:
        return str(entry["key"]), tuple(float(v) for v in entry["values"])
    except (KeyError, TypeError, ValueError):
        return None
