"""Peers at work: one process for each interpreter, told by a file, heard line by line."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pellucid.core.atomic import write_text
from pellucid.verify.plan import APART
from pellucid.verify.subjects import Prepared

PEERS_PYTHON = "PELLUCID_PEERS_PYTHON"
_CHILD = Path(__file__).parent / "peers" / "child.py"


@dataclass(frozen=True, eq=False)
class Job:
    """One call of a peer.

    Args:
        number: unique.
        peer: by name.
        call: by name in the peer's file.
        subject: explained.
        options: of the call, JSON types.
        noise: one entry for each draw of the peer; None: it draws itself.
        handed: further tensors that the call reads beside its options, by name.
    """

    number: int
    peer: str
    call: str
    subject: Prepared
    options: Mapping[str, Any] = field(default_factory=dict)
    noise: Tensor | None = None
    handed: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Answer:
    """What a peer gave, or why not.

    Args:
        found: by name; empty where it gave nothing.
        reason: why it gave nothing.
    """

    found: Mapping[str, Tensor]
    reason: str = ""


def peers_python(chosen: Path | None) -> Path | None:
    """The interpreter that has grad-cam, zennit, shap, lime and SALib.

    That is the one asked for, else what ``$PELLUCID_PEERS_PYTHON`` names, else ``.venv-peers`` beside the environment
    that runs this; None where there is none of these.
    """
    if chosen is None and PEERS_PYTHON in os.environ:
        chosen = Path(os.environ[PEERS_PYTHON])
    if chosen is not None:
        return chosen
    beside = Path(sys.prefix).parent / ".venv-peers" / "bin" / "python"
    return beside if beside.exists() else None


def ask_peers(
    jobs: Sequence[Job], python: Path | None, step: Callable[[str, int], None]
) -> tuple[dict[int, Answer], dict[str, dict[str, str]]]:
    """As ``ask``, in a folder that goes again; the versions are told with ours.

    Args:
        jobs: to do.
        python: that has the peers which need an environment of their own; None: there is none.
        step: told each job, as one step.
    """
    with tempfile.TemporaryDirectory(prefix="pellucid-verify-") as folder:
        answers, versions = ask(jobs, Path(folder), python, lambda job: step(f"{job.peer} {job.call}", 1))
    return answers, {"pellucid": {n: version(n) for n in ("pellucid", "torch", "numpy")}, **versions}


def ask(
    jobs: Sequence[Job], folder: Path, python: Path | None, done: Callable[[Job], None]
) -> tuple[dict[int, Answer], dict[str, dict[str, str]]]:
    """Let the peers do all jobs, those of each interpreter one after another in one process.

    Args:
        jobs: to do.
        folder: for what is exchanged.
        python: that has the peers which need an environment of their own; None: there is none.
        done: called after each job.

    Returns:
        The answer to each job by number, and the versions by environment.
    """
    answers: dict[int, Answer] = {}
    versions: dict[str, dict[str, str]] = {}
    sides = {"peers beside pellucid": Path(sys.executable), "peers apart": python}
    with ThreadPoolExecutor(len(sides)) as pool:
        talks = []
        for name, interpreter in sides.items():
            here = [j for j in jobs if (j.peer in APART) == (name == "peers apart")]
            if here and interpreter is None:
                reason = "no environment of its own: make .venv-peers/.installed, or name one with --peers-python"
                answers |= {j.number: Answer({}, reason) for j in here}
            elif here:
                room = folder / name.replace(" ", "-")
                room.mkdir()
                talks.append((name, pool.submit(_converse, here, room, interpreter, done)))
        for name, talk in talks:
            found, told = talk.result()
            answers |= found
            versions[name] = told
    return answers, versions


def _converse(
    jobs: Sequence[Job], folder: Path, python: Path, done: Callable[[Job], None]
) -> tuple[dict[int, Answer], dict[str, str]]:
    """Write the request, start the process and read its answers; what it did not get to is told so."""
    request = write_text(folder / "request.json", json.dumps(_request(jobs, folder)))
    by_number, answers, versions = {j.number: j for j in jobs}, dict[int, Answer](), dict[str, str]()
    command = [str(python), "-P", str(_CHILD), str(request)]
    errors = folder / "errors.txt"
    try:
        with errors.open("wb") as sink, subprocess.Popen(command, stdout=subprocess.PIPE, stderr=sink) as process:
            for line in process.stdout or ():
                told = json.loads(line)
                if "versions" in told:
                    versions = told["versions"]
                    continue
                job = by_number[told["id"]]
                answers[job.number] = _read(folder, job, told["error"])
                done(job)
        ended = f"it ended with code {process.returncode}: {_last_line(errors)}"
    except OSError as error:
        ended = f"it could not be started: {error.strerror}"
    missing = Answer({}, f"the peer's process gave no answer, {ended}")
    return {number: answers.get(number, missing) for number in by_number}, versions


def _last_line(path: Path) -> str:
    lines = path.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1][:200] if lines else "no word"


def _read(folder: Path, job: Job, error: str | None) -> Answer:
    if error is not None:
        return Answer({}, f"{job.peer} raised {error}")
    with np.load(folder / f"{job.number}.npz") as stored:
        return Answer({name: torch.from_numpy(stored[name]) for name in stored.files})


def _request(jobs: Sequence[Job], folder: Path) -> dict[str, Any]:
    subjects: dict[str, Any] = {}
    listed = []
    for job in jobs:
        name = job.subject.subject.name
        if name not in subjects:
            subjects[name] = _entry(job.subject, folder, f"subject-{len(subjects)}")
        noise = None
        if job.noise is not None:
            noise = f"noise-{job.number}.npz"
            np.savez(folder / noise, noise=job.noise.numpy())
        handed = f"handed-{job.number}.npz" if job.handed else None
        if handed is not None:
            np.savez(folder / handed, **{name: value.numpy() for name, value in job.handed.items()})
        listed.append(
            {
                "id": job.number,
                "peer": job.peer,
                "call": job.call,
                "subject": name,
                "layer": job.subject.peer_layer,
                "options": dict(job.options),
                "noise": noise,
                "handed": handed,
            }
        )
    return {"subjects": subjects, "jobs": listed}


def _entry(prepared: Prepared, folder: Path, stem: str) -> dict[str, Any]:
    """A subject's tensors as files, and what builds its network."""
    weights = {name: value.numpy() for name, value in prepared.net.state_dict().items()}
    np.savez(folder / f"{stem}-weights.npz", **weights)
    np.savez(folder / f"{stem}-input.npz", x=prepared.x.numpy())
    region = None
    if prepared.mask is not None:
        region = f"{stem}-region.npz"
        np.savez(folder / region, mask=prepared.mask.numpy())
    return {
        "network": prepared.subject.network,
        "channels": prepared.x.shape[1],
        "cells": prepared.subject.cells,
        "weights": f"{stem}-weights.npz",
        "input": f"{stem}-input.npz",
        "labels": list(prepared.labels),
        "region": region,
        "label": prepared.label,
        "head": prepared.subject.head,
    }
