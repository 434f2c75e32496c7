"""Other models of the task beside the one that is explained, and what is said of all maps together."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image as Picture

Command = Callable[..., object]
METRICS = ("Repeatability", "Reproducibility", "MethodAgreement", "Latency:repeats=2")


@pytest.fixture
def evaluated(pellucid: Command, classifier: Path, tmp_path: Path) -> Command:
    """``evaluated(options...)``: the scores of two maps of a picture."""
    picture = tmp_path / "picture.png"
    Picture.radial_gradient("L").resize((80, 60)).save(picture)

    def run(*options: object) -> object:
        return pellucid(
            *("evaluate", picture, "--model", classifier, "--trust-code", "--out", tmp_path / "o", "--no-checks"),
            *("--method", "InputXGradient", "--method", "IntegratedGradients:steps=4"),
            *(word for metric in METRICS for word in ("--metric", metric)),
            *options,
        )

    return run


def test_another_model_of_the_task(evaluated: Command, classifier: Path, tmp_path: Path) -> None:
    """The same model given again repeats exactly; there is none of another architecture."""
    again = tmp_path / "again"
    shutil.copytree(classifier.parent, again)
    done = evaluated("--retrained", again / classifier.name, "--json")
    assert done.code == 0, done.err
    scores = done.json["cases"][0]["scores"]
    repeated = [s for s in scores if s["metric"] == "Repeatability"]
    assert [s["value"] for s in repeated] == [1, 1]
    assert repeated[0]["detail"]["models with identical weights"] == 1
    other = next(s for s in scores if s["metric"] == "Reproducibility")
    assert other["value"] is None
    assert other["reason"] == "no other model of another architecture was given (--retrained)"
    time = next(s for s in scores if s["metric"] == "Latency")
    assert time["value"] > 0
    assert set(time["detail"]["before"]) == {"reading", "preparing"}
    assert [s["method"] for s in scores if s["metric"] == "MethodAgreement"] == ["all maps"]


def test_a_person_reads_the_agreement_below_the_table_and_on_the_page(evaluated: Command, tmp_path: Path) -> None:
    done = evaluated()
    assert done.code == 0, done.err
    words = " ".join(done.out.split())
    assert "4 metrics of 2 maps: at most" in words
    assert "MethodAgreement of" in words
    assert "metrics down" not in words
    page = next((tmp_path / "o").rglob("report.html")).read_text()
    assert "MethodAgreement" in page
    assert "all maps" in page


def test_many_metrics_stand_in_a_table_of_their_own(evaluated: Command) -> None:
    """Beside each map there is room for three."""
    done = evaluated("--metric", "Sparseness", "--metric", "Entropy")
    assert done.code == 0, done.err
    rows = [line for line in done.out.splitlines() if "Sparseness" in line]
    assert "metrics down, maps across" in done.out
    assert len(rows) == 1
    assert len([w for w in rows[0].split() if w.replace(".", "").isdigit()]) == 2


def test_a_model_that_is_no_model(evaluated: Command, tmp_path: Path) -> None:
    done = evaluated("--retrained", tmp_path / "absent.toml")
    assert done.code == 2
