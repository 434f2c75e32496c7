"""A run over a cohort that is killed goes on where it was."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pellucid.demo.cases import MODELS

Command = Callable[..., object]
MODEL = MODELS / "pneumonia" / "model.toml"
CASES = 20


@pytest.fixture
def films(tmp_path: Path) -> Path:
    """Pictures, with a table of their labels beside them."""
    folder = tmp_path / "films"
    folder.mkdir()
    noise = np.random.default_rng(0).integers(0, 255, (CASES, 40, 40), dtype=np.uint8)
    for n, image in enumerate(noise):
        Image.fromarray(image).save(folder / f"film{n}.png")
    rows = [f"film{n}.png,{('normal', 'pneumonia')[n % 2]}" for n in range(CASES)]
    (folder / "cases.csv").write_text("\n".join(["image,label", *rows]) + "\n")
    return folder


def words(films: Path, out: Path) -> list[str]:
    given = ["cohort", "--cases", films, "--model", MODEL, "--method", "PermutationImportance:repeats=3", "--out", out]
    return [str(w) for w in (*given, "--json")]


def killed_when_something_is_kept(given: list[str], journal: Path, audit: Path) -> None:
    """Start the command in a process of its own, and kill it as soon as it has kept a case."""
    script = "import sys; from pellucid.cli.main import run; sys.argv[0] = 'pellucid'; run()"
    environment = os.environ | {"PELLUCID_AUDIT": str(audit), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([sys.executable, "-c", script, *given], env=environment, stdout=subprocess.DEVNULL)
    try:
        until = time.monotonic() + 100
        while not (journal.is_file() and journal.stat().st_size) and process.poll() is None:
            assert time.monotonic() < until, "nothing was kept"
            time.sleep(0.002)
    finally:
        process.kill()  # SIGKILL: it cannot clean up
        process.wait()
    assert process.returncode != 0, "it had finished already"


def test_a_killed_run_goes_on_and_ends_in_the_same_table(pellucid: Command, films: Path, tmp_path: Path) -> None:
    out, journal = tmp_path / "out", tmp_path / "out" / "cases.jsonl"
    killed_when_something_is_kept(words(films, out), journal, tmp_path / "killed" / "audit.jsonl")
    assert {f.name for f in out.iterdir()} == {"cases.jsonl"}, "no result, and no image is left behind"
    kept = sum(bool(line) for line in journal.read_bytes().split(b"\n"))
    assert 0 < kept < CASES
    resumed = pellucid(*words(films, out))
    assert resumed.code == 0, resumed.err
    (told,) = [w for w in resumed.json["effects"]["said"] if "there already" in w]
    assert told.endswith(f"of {CASES} cases were there already from an earlier run")
    assert 0 < int(told.split()[0]) <= kept
    fresh = pellucid(*words(films, tmp_path / "fresh"))
    assert not [w for w in fresh.json["effects"]["said"] if "there already" in w]
    for row, other in zip(resumed.json["effects"]["rows"], fresh.json["effects"]["rows"], strict=True):
        assert row["name"] == other["name"]
        for number in ("estimate", "low", "high"):
            assert row[number] == pytest.approx(other[number], abs=1e-5)
    third = pellucid(*words(films, out))
    assert f"{CASES} of {CASES} cases were there already" in json.dumps(third.json["effects"]["said"])
    assert third.json["provenance"]["own"][0] == 1, "the name of the target"
