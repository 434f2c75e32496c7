"""``pellucid ask`` on a real film; bad input is refused with the mend."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pellucid.audit.verdict import verify
from pellucid.demo.cases import MODELS

Command = Callable[..., object]
PNEUMONIA = MODELS / "pneumonia" / "model.toml"


@pytest.fixture
def film(tmp_path: Path, shared_data: Path) -> Path:
    """A real film with pneumonia, and a mask on it."""
    stored = np.load(shared_data / "xray_pneumoniamnist" / "pneumoniamnist.npz")
    Image.fromarray(stored["test_images"][np.flatnonzero(stored["test_labels"].ravel() == 1)[0]]).save(
        tmp_path / "film.png"
    )
    mask = np.zeros((28, 28), np.uint8)
    mask[9:18, 16:23] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    return tmp_path / "film.png"


@pytest.mark.parametrize("do", ["hide", "keep", "swap"])
def test_a_real_film(pellucid: Command, film: Path, do: str) -> None:
    words = ["ask", film, "--model", PNEUMONIA, "--region", film.with_name("mask.png"), "--do", do]
    done = pellucid(*words, "--json")
    assert done.code == 0, done.err
    said = done.json
    assert said["after"] - said["before"] == pytest.approx(said["difference"], abs=1e-6)
    assert (said["target"], said["unit"], said["do"]) == ("pneumonia", "logit", do)
    assert len(said["fills"]) == (0 if do == "swap" else 2)
    assert said["shams"] == 8
    assert said["ms"] < 1000
    shown = pellucid(*words)
    assert shown.code == 0
    assert "the same elsewhere" in shown.out
    again = pellucid(*words, "--json")
    assert {k: v for k, v in again.json.items() if k != "ms"} == {k: v for k, v in said.items() if k != "ms"}


def test_an_ask_is_one_event_of_the_audit_record(pellucid: Command, film: Path, tmp_path: Path) -> None:
    log = tmp_path / "asked.jsonl"
    words = ["ask", film, "--model", PNEUMONIA, "--region", film.with_name("mask.png"), "--audit", log, "--json"]
    done = pellucid(*words, "--shams", 3, "--seed", 5)
    assert done.code == 0, done.err
    (event,) = [json.loads(line) for line in log.read_text("ascii").splitlines()]
    assert (event["event"], event["outcome"], event["method"]) == ("create", "success", "AskByHand")
    assert event["parameters"] == {"do": "hide", "seed": 5, "shams": 3}
    assert event["actor"]
    assert len(event["subject_hash"]) == len(event["input_hash"]) == len(event["output_hash"]) == 64
    assert len(event["model_hash"]) == 64
    assert verify(log).ok
    assert pellucid(*words[:-1], "--do", "burn").code == 2
    last = json.loads(log.read_text("ascii").splitlines()[-1])
    assert (last["event"], last["parameters"]) == ("failure", {"error": "BadOption"})


def test_bad_input(pellucid: Command, film: Path) -> None:
    region = film.with_name("mask.png")
    words = ["ask", film, "--model", PNEUMONIA, "--region", region]
    for more, problem in ((["--do", "burn"], "hide, keep or swap"), (["--target", "cat"], "cat")):
        done = pellucid(*words, *more)
        assert done.code == 2
        assert problem in done.err
    Image.fromarray(np.zeros((28, 28), np.uint8)).save(region)
    assert pellucid(*words).code == 2
