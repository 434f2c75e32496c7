"""A study written down: the table, its summary, the verdicts of its protocols and the page."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pellucid.core.atomic import write_bytes, write_text
from pellucid.core.errors import PellucidError
from pellucid.io.trust import sha256_of
from pellucid.study.folder import PAGE, READS_TABLE, SCORES, SUMMARY, Folder, finished
from pellucid.study.gating import Bench, gate
from pellucid.study.page import render_study
from pellucid.study.plates import draw_plates, write_plates
from pellucid.study.readings import read_reads
from pellucid.study.running import Ran, Ready
from pellucid.study.stopping import Stopped
from pellucid.study.summary import Summary, summarize
from pellucid.study.table import Row, read_rows, rows_of, write_rows
from pellucid.study.verdicts import Verdict
from pellucid.workbench.recording import Recorder

_STOPPED = (
    "this study could stop early: its verdicts rest on betting sequences, and the bootstrap intervals of its means, "
    "comparisons and ranks do not allow for a stop"
)


@dataclass(frozen=True, eq=False)
class Delivered:
    """A study that is done.

    Args:
        name: of the study.
        rows: its table.
        summary: what the table comes to.
        said: about the run.
        files: written, by kind.
        verdicts: of the study's own protocols.
    """

    name: str
    rows: tuple[Row, ...]
    summary: Summary
    said: tuple[str, ...]
    files: Mapping[str, Path]
    verdicts: tuple[Verdict, ...] = ()

    def plain(self) -> dict[str, object]:
        """As JSON types; the rows are in the table."""
        return {
            "study": self.name,
            "rows": len(self.rows),
            "said": list(self.said),
            "summary": self.summary.plain(),
            "verdicts": [v.plain() for v in self.verdicts],
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
        said.append(
            f"{len(ran.failures)} of {len(ran.items)} items came to nothing: rows of the table with their reasons"
        )
    if ran.stopped is not None:
        said += [ran.stopped.why, _STOPPED]
    summary = summarize(rows)
    files = {"scores": write_rows(rows, folder.path / SCORES)}
    if ready.study.reads is not None:
        files["reads"] = write_bytes(folder.path / READS_TABLE, ready.study.reads.read_bytes())
    verdicts, unfit = _verdicts(ready, rows, ran.stopped)
    said += unfit
    plates = draw_plates(ran.items, summary)
    page = render_study(ready.manifest, ran.items, summary, plates, verdicts, said)
    files |= {"page": write_text(folder.path / PAGE, page), **write_plates(plates, folder.path)}
    told = {"said": said, "summary": summary.plain(), "verdicts": [v.plain() for v in verdicts]}
    files["summary"] = write_text(folder.path / SUMMARY, json.dumps(told, indent=1, ensure_ascii=False))
    folder.finish(ready.manifest, ran.stopped)
    for kind in ("scores", "page"):
        recorder.exported("study", kind, sha256_of(files[kind]))
    return Delivered(ready.study.plan.name, rows, summary, tuple(said), files, verdicts)


def _verdicts(ready: Ready, rows: Sequence[Row], stopped: Stopped | None) -> tuple[tuple[Verdict, ...], list[str]]:
    """Of the study's protocols; one that cannot be held against it is told, and costs nothing else."""
    reads = read_reads(ready.study.reads) if ready.study.reads is not None else None
    found: list[Verdict] = []
    unfit = []
    for protocol in ready.study.protocols:
        try:
            found += gate(Bench(rows, reads, stopped=stopped), protocol)
        except PellucidError as error:
            unfit.append(f"protocol {protocol.id} could not be held against the study: {error}")
    return tuple(found), unfit


def read_study(path: Path) -> Delivered:
    """A study from its folder.

    Args:
        path: of the folder.

    Raises:
        InputError: no study, not finished, or changed since.
    """
    manifest = finished(path)
    rows = read_rows(path / SCORES)
    said = (manifest.stopped.why, _STOPPED) if manifest.stopped is not None else ()
    return Delivered(manifest.name, rows, summarize(rows), said, {"scores": path / SCORES})
