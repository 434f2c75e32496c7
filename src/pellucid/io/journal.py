"""Numbers of single cases in the output folder, a line each, so that a killed run goes on where it was."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

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
        path, known = folder / JOURNAL_NAME, dict[str, Numbers]()
        for line in path.read_bytes().split(b"\n") if path.is_file() else ():
            entry = _entry(line)
            if entry is not None:
                known[entry[0]] = entry[1]
        return cls(path, known)

    def get(self, key: str) -> Numbers | None:
        """See ``Journal``."""
        return self.known.get(key)

    def put(self, found: Mapping[str, Numbers]) -> None:
        """See ``Journal``.

        Raises:
            UnwritableOutput: the folder cannot be written, or the disk is full.
        """
        try:
            with self.path.open("ab", buffering=0) as stream:
                for key, values in found.items():
                    # a line break before it: what a killed process left half must not swallow this line
                    stream.write(b"\n" + json.dumps({"key": key, "values": values}).encode() + b"\n")
                os.fsync(stream.fileno())
        except OSError as error:
            raise UnwritableOutput(
                f"the numbers of a case cannot be kept ({error.strerror or type(error).__name__})",
                "free space, or choose another --out",
            ) from None
        self.known.update(found)


def _entry(line: bytes) -> tuple[str, Numbers] | None:
    """Key and numbers; None: an empty line, or one that was cut off."""
    try:
        entry = json.loads(line)
        return str(entry["key"]), tuple(float(v) for v in entry["values"])
    except (ValueError, KeyError, TypeError):
        return None
