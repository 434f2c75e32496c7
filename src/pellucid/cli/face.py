"""What every command shares: consoles, JSON, errors with exit codes."""

import json
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, NoReturn

import platformdirs
import torch
import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from pellucid.audit.log import AuditLog
from pellucid.core.errors import BadOption, PellucidError, UnwritableOutput
from pellucid.workbench.recording import Recorder

DONE, FAIL, BAD_INPUT, INCONCLUSIVE = 0, 1, 2, 3  # everywhere; 3 also stands for not measured
_READER = re.compile(r"\w[\w .-]{0,63}")

out = Console()
err = Console(stderr=True)

Json = Annotated[bool, typer.Option("--json", help="Print JSON for machines, and nothing else.")]
Device = Annotated[str, typer.Option(help="cpu, cuda, or cuda:1.")]
Seed = Annotated[int, typer.Option(help="Of everything random.")]
Trust = Annotated[bool, typer.Option("--trust-code", help="Run the code that the model file brings.")]
AuditFile = Annotated[
    Path | None, typer.Option("--audit", help="Audit log; default: in your state folder, or $PELLUCID_AUDIT.")
]


@dataclass(frozen=True)
class Session:
    """How a command runs.

    Args:
        device: of the model.
        trust_code: let code that comes with the model run.
        audit: the log; None: the user's own.
        as_json: print JSON and nothing else.
    """

    device: str
    trust_code: bool
    audit: Path | None
    as_json: bool


def json_text(value: object) -> str:
    """One JSON document; what is not finite must have become null before."""
    return json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def show_json(value: object) -> None:
    """One JSON document on standard output."""
    sys.stdout.write(json_text(value))


def stop(error: PellucidError, as_json: bool = False) -> NoReturn:
    """Say what is wrong and the mend, in one line, and leave with the code for bad input."""
    if as_json:
        show_json({"error": type(error).__name__, "problem": error.problem, "mend": error.mend})
    say_error(error)
    raise typer.Exit(BAD_INPUT)


def say_error(error: PellucidError, of: str = "") -> None:
    """One line on standard error."""
    head = f"{of}: {type(error).__name__}" if of else type(error).__name__
    err.print(f"[bold red]{head}[/]: {escape(str(error))}", soft_wrap=True, highlight=False)


@contextmanager
def reported(as_json: bool = False) -> Iterator[None]:
    """Turn our errors into one line and an exit code."""
    try:
        yield
    except PellucidError as error:
        stop(error, as_json)


@contextmanager
def progress(quiet: bool) -> Iterator[Progress]:
    """A progress bar on standard error; none where nobody looks."""
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=err, disable=quiet or not err.is_terminal, transient=True) as bar:
        yield bar


def stepper(bar: Progress, task: TaskID, name: str) -> Callable[[str], None]:
    """Says beside the bar what is being done for a case."""
    return lambda what: bar.update(task, description=f"{name}: {what}")


def check_device(name: str) -> str:
    """A device that is there.

    Raises:
        BadOption: it is not.
    """
    try:
        torch.zeros(1, device=name)
    except (RuntimeError, AssertionError) as error:
        there = ", ".join(["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))])
        raise BadOption(f"device {name!r} cannot be used", f"devices here: {there}") from error
    return name


def point(text: str | None) -> tuple[float, float, float] | None:
    """L,P,S in millimeters.

    Raises:
        BadOption: something else.
    """
    if text is None:
        return None
    try:
        left, back, head = (float(v) for v in text.split(","))
    except ValueError as error:
        raise BadOption(f"expected --crop L,P,S in mm, got {text!r}", "write for example --crop 28,20,-13") from error
    return left, back, head


def masks(texts: Sequence[str]) -> dict[str, Path]:
    """Masks by reader: one MASK alone (the reader's name is empty), or READER=MASK for each of several.

    Raises:
        BadOption: several masks of which one names no reader, a name twice, or one that says nothing.
    """
    found: dict[str, Path] = {}
    for place, text in enumerate(texts, 1):
        plain = "=" not in text or Path(text).exists()
        reader, _, mask = ("", "", text) if plain else text.partition("=")
        if not plain and not _READER.fullmatch(reader):
            raise BadOption(
                f"expected a reader's name of letters, digits and spaces, got {reader[:40]!r}",
                "write for example --region anna=mask.png",
            )
        if not reader and len(texts) > 1:
            raise BadOption(
                f"{len(texts)} masks were given, and number {place} names no reader",
                "write --region READER=MASK for each; masks of other findings go into a CSV as region:NAME",
            )
        if reader in found:
            raise BadOption(f"the reader {reader!r} was given twice", "give one mask of each reader")
        found[reader] = Path(mask)
    return found


def out_folder(path: Path) -> Path:
    """A folder that can be written.

    Raises:
        UnwritableOutput: it cannot.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe = path / f".pellucid-{os.getpid()}"
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        raise UnwritableOutput(
            f"cannot write into the folder {path}: {error.strerror}", "choose another --out, or change its permissions"
        ) from error
    return path


def recorder(path: Path | None) -> Recorder:
    """The audit record of this user: its head is anchored in a folder apart from the log.

    ``$PELLUCID_AUDIT_KEY`` names a key file that keys the chain.
    """
    state = Path(platformdirs.user_state_dir("pellucid"))
    chosen = path or (Path(os.environ["PELLUCID_AUDIT"]) if "PELLUCID_AUDIT" in os.environ else state / "audit.jsonl")
    anchors = chosen.parent / "audit-anchor"
    try:
        chosen.parent.mkdir(parents=True, exist_ok=True)
        anchors.mkdir(exist_ok=True)
    except OSError as error:
        raise UnwritableOutput(
            f"the audit record {chosen} cannot be written: {error.strerror}", "give another file with --audit"
        ) from error
    key = Path(os.environ["PELLUCID_AUDIT_KEY"]) if "PELLUCID_AUDIT_KEY" in os.environ else None
    head = anchors / f"{chosen.stem}.head"
    return Recorder(AuditLog(chosen, key_path=key, anchor_path=head, actor="local-user", role="operator"))
