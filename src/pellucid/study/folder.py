"""The output folder of a study: what it was made from, and the items that are done."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from pathlib import Path

from pellucid.core.atomic import write_text
from pellucid.core.errors import BadOption, InputError
from pellucid.io.formats import find_format
from pellucid.io.journal import append_lines, read_lines
from pellucid.io.table import Row, is_table, read_table
from pellucid.io.trust import sha256_of
from pellucid.study.items import Item
from pellucid.study.stopping import Stopped

MANIFEST, ITEMS, SCORES, SUMMARY, PAGE = "study.json", "items.jsonl", "scores.csv", "summary.json", "study.html"
READS_TABLE = "reads.csv"
FIGURES = "figures"
_ABSENT = "absent"
_SHOWN = 3


@dataclass(frozen=True)
class Manifest:
    """What the numbers of a folder were made from, and nothing that names a patient.

    Args:
        name: of the study.
        settings: digest of the study file, methods and metrics included.
        models: digest of each model's weights and card, by short name.
        data: digest of each file of the cases, by its place (``row 7 image``).
        version: of this package.
        scores: SHA-256 of the table of scores; empty: the study is not finished.
        reads: SHA-256 of the table of reads; empty: there is none.
        stopped: how a study with a stopping rule ended; None: it has none, or is not finished.
    """

    name: str
    settings: str
    models: Mapping[str, str]
    data: Mapping[str, str]
    version: str = field(default_factory=lambda: version("pellucid"))
    scores: str = ""
    reads: str = ""
    stopped: Stopped | None = None

    def changes(self, now: "Manifest") -> list[str]:
        """What is no longer as it was, in words.

        Args:
            now: the same study, looked at again.
        """
        found = [] if self.settings == now.settings else ["the study file (or what a method or metric defaults to)"]
        found += _apart("model", self.models, now.models) + _apart("data:", self.data, now.data)
        if self.version != now.version:
            found.append(f"pellucid ({self.version} then, {now.version} now)")
        return found


@dataclass(frozen=True)
class Folder:
    """An output folder.

    Args:
        path: that exists.
        done: items by key, from earlier runs and this one.
    """

    path: Path
    done: dict[str, Item] = field(default_factory=dict)

    @classmethod
    def opened(cls, path: Path, now: Manifest, restart: bool = False) -> "Folder":
        """The folder of a study that begins, or goes on.

        Args:
            path: that exists.
            now: what the study is made from.
            restart: forget what is there.

        Raises:
            BadOption: what is there was made from something else.
        """
        if restart:
            for name in (ITEMS, MANIFEST, SCORES, READS_TABLE):
                (path / name).unlink(missing_ok=True)
            for figure in [f for ending in ("png", "svg") for f in (path / FIGURES).glob(f"*.{ending}")]:
                figure.unlink()
        before = read_manifest(path) if (path / MANIFEST).is_file() else None
        changes = before.changes(now) if before is not None else []
        if changes:
            raise BadOption(
                f"the folder {path.name} holds results of this study from before these changed: {', '.join(changes)}",
                "give a new --out, or --restart to do everything again",
            )
        write_text(path / MANIFEST, json.dumps(asdict(now), indent=1))
        return cls(path, {item.key: item for item in map(Item.parsed, read_lines(path / ITEMS)) if item is not None})

    def keep(self, item: Item) -> None:
        """Bring an item to the disk.

        Raises:
            UnwritableOutput: the folder cannot be written, or the disk is full.
        """
        append_lines(self.path / ITEMS, [item.plain()])
        self.done[item.key] = item

    def finish(self, now: Manifest, stopped: Stopped | None = None) -> Manifest:
        """Say that the table is whole, and how a study that may stop ended."""
        reads = self.path / READS_TABLE
        digest = sha256_of(reads) if reads.is_file() else ""
        whole = replace(now, scores=sha256_of(self.path / SCORES), reads=digest, stopped=stopped)
        write_text(self.path / MANIFEST, json.dumps(asdict(whole), indent=1))
        return whole


def read_manifest(path: Path) -> Manifest:
    """What a folder says that it was made from.

    Args:
        path: of the folder.

    Raises:
        InputError: it is no output of a study.
    """
    try:
        told = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        ended = told.pop("stopped", None)
        return Manifest(**told, stopped=None if ended is None else Stopped(**ended))
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise InputError(
            f"{path.name} is no output folder of a study: {MANIFEST} is missing or damaged",
            "give the --out of pellucid study run",
        ) from error


def finished(path: Path) -> Manifest:
    """The manifest of a study that is done, and whose table is as it was written.

    Args:
        path: of the folder.

    Raises:
        InputError: it is not finished, or its table was changed since.
    """
    manifest, table = read_manifest(path), path / SCORES
    if not manifest.scores or not table.is_file():
        raise InputError(f"the study in {path.name} is not finished", "let pellucid study run end: it goes on")
    for name, digest in ((SCORES, manifest.scores), (READS_TABLE, manifest.reads)):
        if digest and (not (path / name).is_file() or sha256_of(path / name) != digest):
            raise InputError(f"{name} was changed since the study ended", "run the study again with the same --out")
    return manifest


def fingerprint(cases: Path, apart: Path | None = None) -> dict[str, str]:
    """The digest of each file that the cases are read from, by its place and never by its name.

    Args:
        cases: folder, table or image.
        apart: a folder that is not looked into, such as the output.
    """
    if cases.is_dir():
        return {f"file {n}": sha256_of(f) for n, f in enumerate(_files(cases, apart), 1)}
    if find_format(cases) is not None or not is_table(cases):
        return {"file": sha256_of(cases)}
    found = {"table": sha256_of(cases)}
    for row in read_table(cases):
        if isinstance(row, Row):
            places = {f"image:{n}": p for n, p in row.images.items()} | {
                f"region:{n}": p for n, p in row.regions.items()
            }
            found |= {f"row {row.number} {name}": _digest(path) for name, path in places.items()}
    return found


def regions_in(cases: Path) -> list[str]:
    """Names of the regions that a table of cases gives.

    Args:
        cases: folder, table or image.
    """
    if cases.is_dir() or find_format(cases) is not None or not is_table(cases):
        return []
    return sorted({name for row in read_table(cases) if isinstance(row, Row) for name in row.regions})


def _digest(path: Path) -> str:
    """Of a file, or of the files of a DICOM series."""
    if path.is_dir():
        return hashlib.sha256("".join(sha256_of(f) for f in _files(path)).encode()).hexdigest()
    return sha256_of(path) if path.is_file() else _ABSENT


def _files(folder: Path, apart: Path | None = None) -> list[Path]:
    every: Iterable[Path] = (f for f in folder.rglob("*") if f.is_file() and not f.name.startswith("."))
    away = apart.resolve() if apart is not None else None
    return sorted(f for f in every if away is None or not f.resolve().is_relative_to(away))


def _apart(what: str, before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """Entries that differ, the first few by name."""
    names = [n for n in {**before, **now} if before.get(n) != now.get(n)]
    more = [f"{len(names) - _SHOWN} more"] if len(names) > _SHOWN else []
    return [f"{what} {name}" for name in names[:_SHOWN]] + more
