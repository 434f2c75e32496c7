"""A study written down: the table, its summary, the verdicts of its protocols and the page."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pellucid.core.atomic import write_bytes, write_text
from pellucid.study.folder import READS_TABLE, SCORES, SUMMARY, Folder, finished
from pellucid.study.running import Ran, Ready
from pellucid.study.summary import Summary, summarize
from pellucid.study.table import Row, read_rows, rows_of, write_rows
from pellucid.workbench.recording import Recorder


@dataclass(frozen=True, eq=False)
class Delivered:
    """A study that is done.

    Args:
        name: of the study.
        rows: its table.
        summary: what the table comes to.
        said: about the run.
        files: written, by kind.
    """

    name: str
    rows: tuple[Row, ...]
    summary: Summary
    said: tuple[str, ...]
    files: Mapping[str, Path]

    def plain(self) -> dict[str, object]:
        """As JSON types; the rows are in the table."""
        return {
            "study": self.name,
            "rows": len(self.rows),
            "said": list(self.said),
            "summary": self.summary.plain(),
            "files": {k: str(v) for k, v in self.files.items()},
        }


def deliver_study(ready: Ready, folder: Folder, ran: Ran, recorder: Recorder) -> Delivered:
    """Write the table and what it comes to, and say that the study is done.

    Args:
        ready: the study.
        folder: of the output.
        ran: every item.
        recorder: of the audit events.

    Raises:
        UnwritableOutput: the folder cannot be written.
    """
    rows, said = rows_of(ran.items), [f"{len(ran.items)} items of {len({i.case for i in ran.items})} cases"]
    if ran.found:
        said.append(f"{ran.found} of {len(ran.items)} items were there already from an earlier run")
    if ran.failures:
        said.append(f"{len(ran.failures)} items came to nothing: each is a row of the table with its reason")
    summary = summarize(rows)
    files = {"scores": write_rows(rows, folder.path / SCORES)}
    told = {"said": said, "summary": summary.plain()}
    files["summary"] = write_text(folder.path / SUMMARY, json.dumps(told, indent=1, ensure_ascii=False))
    if ready.study.reads is not None:
        files["reads"] = write_bytes(folder.path / READS_TABLE, ready.study.reads.read_bytes())
    folder.finish(ready.manifest)
    digest = hashlib.sha256(files["scores"].read_bytes()).hexdigest()
    recorder.exported("study", "study", digest)
    return Delivered(ready.study.plan.name, rows, summary, tuple(said), files)


def read_study(path: Path) -> Delivered:
    """A study from its folder.

    Args:
        path: of the folder.

    Raises:
        InputError: no study, not finished, or changed since.
    """
    manifest = finished(path)
    rows = read_rows(path / SCORES)
    return Delivered(manifest.name, rows, summarize(rows), (), {"scores": path / SCORES})
