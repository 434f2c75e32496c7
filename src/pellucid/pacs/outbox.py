"""What was handed to which archive, kept so that a send that was cut off goes on; nothing of the patient is in it."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import final

from pellucid.core.errors import UnwritableOutput

_TABLE = """CREATE TABLE IF NOT EXISTS outbox (
  object TEXT NOT NULL, archive TEXT NOT NULL, state TEXT NOT NULL, tries INTEGER NOT NULL, changed TEXT NOT NULL,
  PRIMARY KEY (object, archive))"""
_NOTE = """INSERT INTO outbox VALUES (?, ?, ?, ?, ?) ON CONFLICT (object, archive)
  DO UPDATE SET state = excluded.state, tries = tries + excluded.tries, changed = excluded.changed"""
_WAIT_S = 30.0


@final
@dataclass(frozen=True)
class Outbox:
    """One row for each object and archive: the hash of the file, a digest of the archive's address, the state.

    Args:
        path: of a SQLite file, made on first use; several commands may write it at once.
    """

    path: Path

    def note(self, objects: Iterator[str] | list[str] | tuple[str, ...], archive: str, state: str) -> None:
        """Write a state down, on the disk when this returns.

        Args:
            objects: SHA-256 of the files.
            archive: digest of its address (``settings.identity``).
            state: of ``parcel.State``, or ``sending``.
        """
        now = datetime.now(UTC).isoformat(timespec="seconds")
        rows = [(each, archive, state, int(state == "sending"), now) for each in objects]
        with self._open() as database, database:
            database.executemany(_NOTE, rows)

    def state(self, digest: str, archive: str) -> str | None:
        """What was noted last; None: nothing."""
        with self._open() as database:
            where = "SELECT state FROM outbox WHERE object = ? AND archive = ?"
            row = database.execute(where, (digest, archive)).fetchone()
        return None if row is None else str(row[0])

    def count(self) -> dict[str, int]:
        """How many rows are in each state."""
        with self._open() as database:
            return dict(database.execute("SELECT state, COUNT(*) FROM outbox GROUP BY state ORDER BY state"))

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with closing(sqlite3.connect(self.path, timeout=_WAIT_S)) as database:
                database.execute(_TABLE)
                yield database
        except (sqlite3.Error, OSError) as error:
            raise UnwritableOutput(
                f"the outbox {self.path} cannot be used ({type(error).__name__})",
                "free space and permissions, or move a damaged file away: archives are asked what they hold anyway",
            ) from None
