"""``pellucid study``: a stopped run goes on, a bad case is a row, and what changed is named."""

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
from pellucid.study.folder import ITEMS, MANIFEST, SCORES
from pellucid.study.table import Row, read_rows

Command = Callable[..., object]
FILMS = 6
MODEL = (MODELS / "pneumonia").as_posix()
PLAN = """
name = "films"
cases = "films"
methods = ["GradCAM", "Saliency", "Occlusion:window=14,stride=14"]
metrics = ["DeletionAUC:steps=2,random_orders=1", "Sparseness", "SensitivityNorm:samples=2", "Dice"]
seeds = [0, 1]

[models]
pneumonia = "{model}"
"""


def films(folder: Path, images: np.ndarray, labels: list[str]) -> None:
    """Pictures with a table: two cases of a patient, two sites."""
    folder.mkdir()
    lines = ["image,label,patient,group"]
    for n, (image, label) in enumerate(zip(images, labels, strict=True)):
        Image.fromarray(image).save(folder / f"film{n}.png")
        lines.append(f"film{n}.png,{label},p{n // 2},site {n % 2}")
    (folder / "cases.csv").write_text("\n".join(lines) + "\n")


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """A study of four films of noise."""
    noise = np.random.default_rng(0).integers(0, 255, (4, 40, 40), dtype=np.uint8)
    films(tmp_path / "films", noise, ["normal", "pneumonia"] * 2)
    (tmp_path / "study.toml").write_text(PLAN.format(model=MODEL).replace("[0, 1]", "[0]"))
    return tmp_path / "study.toml"


@pytest.fixture
def real(tmp_path: Path, shared_data: Path) -> Path:
    """A study of six real films, two methods, two seeds."""
    stored = np.load(shared_data / "xray_pneumoniamnist" / "pneumoniamnist.npz")
    images, truth = stored["test_images"], stored["test_labels"].ravel()
    chosen = np.r_[np.flatnonzero(truth == 0)[: FILMS // 2], np.flatnonzero(truth == 1)[: FILMS // 2]]
    films(tmp_path / "films", images[chosen], [("normal", "pneumonia")[truth[i]] for i in chosen])
    (tmp_path / "study.toml").write_text(PLAN.format(model=MODEL).replace(', "Occlusion:window=14,stride=14"', ""))
    return tmp_path / "study.toml"


def killed_in_the_middle(study: Path, out: Path) -> int:
    """Start the command in a process of its own, kill it after three items, and say how many it kept."""
    script = "import sys; from pellucid.cli.main import run; sys.argv[0] = 'pellucid'; run()"
    environment = os.environ | {"PELLUCID_AUDIT": str(out.parent / "killed" / "audit.jsonl"), "OMP_NUM_THREADS": "1"}
    given = [sys.executable, "-c", script, "study", "run", str(study), "--out", str(out), "--json"]
    process = subprocess.Popen(given, env=environment, stdout=subprocess.DEVNULL)
    journal = out / ITEMS
    try:
        until = time.monotonic() + 100
        while not (journal.is_file() and journal.read_bytes().count(b'"key"') >= 3) and process.poll() is None:
            assert time.monotonic() < until, "nothing was kept"
            time.sleep(0.002)
    finally:
        process.kill()  # SIGKILL: it cannot clean up
        process.wait()
    assert process.returncode != 0, "it had finished already"
    return sum(bool(line) for line in journal.read_bytes().split(b"\n"))


def same(one: Row, other: Row) -> None:
    """Every cell but the time."""
    for name in Row.__dataclass_fields__:
        first, second = getattr(one, name), getattr(other, name)
        if isinstance(first, float) and name != "ms":
            assert first == pytest.approx(second, abs=1e-5, nan_ok=True), name
        elif name != "ms":
            assert first == second, name


def test_a_killed_study_goes_on_and_ends_in_the_same_table(pellucid: Command, real: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    kept = killed_in_the_middle(real, out)
    assert {f.name for f in out.iterdir()} == {ITEMS, MANIFEST}, "no half table"
    assert 3 <= kept < 2 * FILMS
    early = pellucid("study", "show", out)
    assert early.code == 2
    assert "not finished" in early.err
    resumed = pellucid("study", "run", real, "--out", out, "--json")
    assert resumed.code == 0, resumed.err
    (told,) = [w for w in resumed.json["said"] if "there already" in w]
    assert kept - 1 <= int(told.split()[0]) <= kept
    lines = [json.loads(line) for line in (out / ITEMS).read_bytes().split(b"\n") if line.startswith(b"{")]
    assert len({line["key"] for line in lines}) == 2 * FILMS, "nothing is lost"
    fresh = pellucid("study", "run", real, "--out", tmp_path / "fresh", "--json")
    assert not [w for w in fresh.json["said"] if "there already" in w]
    rows, others = read_rows(out / SCORES), read_rows(tmp_path / "fresh" / SCORES)
    assert len(rows) == len(others) == 2 * FILMS * 2 * 4
    for row, other in zip(rows, others, strict=True):
        same(row, other)
    third = pellucid("study", "run", real, "--out", out, "--json")
    assert f"{2 * FILMS} of {2 * FILMS} items were there already" in json.dumps(third.json["said"])
    for row, other in zip(read_rows(out / SCORES), rows, strict=True):
        same(row, other)
    assert {line["mean"]["clusters"] for line in third.json["summary"]["lines"] if line["metric"] == "Sparseness"} == {
        3
    }


def test_a_bad_case_is_a_row_with_its_reason(pellucid: Command, study: Path, tmp_path: Path) -> None:
    table = study.parent / "films" / "cases.csv"
    (study.parent / "films" / "film1.png").write_bytes(b"no image")
    out = tmp_path / "out"
    done = pellucid("study", "run", study, "--out", out, "--json")
    assert done.code == 2
    assert len(table.read_text().splitlines()) == 5
    rows = read_rows(out / SCORES)
    (bad,) = [r for r in rows if not r.metric]
    assert bad.case == "row 2"
    assert "UnreadableImage" in bad.reason
    assert len(rows) == 3 * 3 * 4 + 1
    assert done.json["summary"]["failures"] == [["row 2", "pneumonia", bad.reason]]
    assert all(line["mean"]["undefined"] >= 1 for line in done.json["summary"]["lines"]), "it counts as undefined"
    (dice, *_) = [line for line in done.json["summary"]["lines"] if line["metric"] == "Dice"]
    assert sum(dice["reasons"].values()) == 4, "no region, or no case"
    again = pellucid("study", "show", out, "--json")
    assert again.json["summary"] == done.json["summary"]
    assert again.code == 0


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("Sparseness", "Entropy", "the study file"),
        ("seeds = [0]", "seeds = [0, 2]", "the study file"),
        ("# a comment", "", None),
    ],
)
def test_a_changed_study_is_refused_with_the_mend(
    pellucid: Command, study: Path, tmp_path: Path, old: str, new: str, words: str | None
) -> None:
    study.write_text("# a comment\n" + study.read_text().replace('"Saliency", "Occlusion:window=14,stride=14"', ""))
    out = tmp_path / "out"
    assert pellucid("study", "run", study, "--out", out, "--json").code == 0
    study.write_text(study.read_text().replace(old, new))
    done = pellucid("study", "run", study, "--out", out, "--json")
    if words is None:
        assert done.code == 0
        return
    assert done.code == 2
    assert words in done.json["problem"]
    assert "--restart" in done.json["mend"]
    assert pellucid("study", "run", study, "--out", out, "--json", "--restart").code == 0


def test_changed_data_and_model_are_named(pellucid: Command, study: Path, tmp_path: Path) -> None:
    study.write_text(study.read_text().replace('"Saliency", "Occlusion:window=14,stride=14"', ""))
    out = tmp_path / "out"
    assert pellucid("study", "run", study, "--out", out, "--json").code == 0
    film = study.parent / "films" / "film3.png"
    Image.fromarray(np.eye(40, dtype=np.uint8) * 200).save(film)
    done = pellucid("study", "run", study, "--out", out, "--json")
    assert "row 4 image:image" in done.json["problem"]
    assert "film3" not in done.json["problem"], "a file may be named after a patient"
    manifest = json.loads((out / MANIFEST).read_text())
    manifest["models"] = {"pneumonia": "other weights"}
    (out / MANIFEST).write_text(json.dumps(manifest))
    done = pellucid("study", "run", study, "--out", out, "--json")
    assert "model pneumonia" in done.json["problem"]
    assert done.code == 2


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("Sparseness", "Sparsity", "no metric named 'Sparsity'"),
        ("GradCAM", "GradCat", "no method named 'GradCat'"),
        ("steps=2", "stride=2", "no parameter 'stride'"),
        ("name =", "title =", "study key"),
        ("seeds = [0]", "seeds = ['0']", "study key 'seeds.0'"),
        ("seeds = [0]", "seeds = [0, 0]", "'0' twice"),
        ("seeds = [0]", "seeds = []", "at least one model and one seed"),
        ('cases = "films"', 'cases = "film"', "cases that are not there"),
        ("seeds = [0]", 'regions = ["lesion"]', "no case has a region 'lesion'"),
        ("seeds = [0]", 'protocols = ["cardiology"]', "no protocol named 'cardiology'"),
        ("seeds = [0]", 'reads = "reads.csv"', "table of reads that is not there"),
        ("[models]", "[models", "is not TOML"),
        ("/pneumonia", "/pneumonitis", "models.pneumonia that are not there"),
    ],
)
def test_a_wrong_study_file_names_what_is_wrong(
    pellucid: Command, study: Path, tmp_path: Path, old: str, new: str, words: str
) -> None:
    study.write_text(study.read_text().replace(old, new))
    done = pellucid("study", "run", study, "--out", tmp_path / "out", "--json")
    assert done.code == 2
    assert words in done.json["problem"]


def test_a_method_that_does_not_fit_is_told_and_costs_no_case(pellucid: Command, study: Path, tmp_path: Path) -> None:
    study.write_text(study.read_text().replace('"Saliency", "Occlusion:window=14,stride=14"', '"AttentionRollout"'))
    done = pellucid("study", "run", study, "--out", tmp_path / "out", "--json")
    assert done.code == 0
    (skipped,) = done.json["summary"]["skipped"]
    assert skipped[0] == "AttentionRollout"
    assert {line["method"] for line in done.json["summary"]["lines"]} == {"GradCAM"}


def test_protocols_and_reads_of_the_study_end_in_verdicts(pellucid: Command, study: Path, tmp_path: Path) -> None:
    reads = ["reader_id,case_id,arm,truth,final_decision"]
    reads += [
        f"r{r},c{c},{arm},1,{int(arm != 'AI' or c % 2)}" for r in (1, 2) for c in range(6) for arm in ("AI", "AI + map")
    ]
    (study.parent / "reads.csv").write_text("\n".join(reads) + "\n")
    added = 'reads = "reads.csv"\nprotocols = ["own.toml"]\n'
    study.write_text(study.read_text().replace("seeds", added + "seeds"))
    criterion = """[[criterion]]
id = "{id}"
tier = "{tier}"
dimension = "d"
metric = "{metric}"
relation = ">"
value = 0.0
unit = "1"
quote = "q"
source = "s"
source_status = "verified"
"""
    told = [("sparse", "automated", "Sparseness"), ("curve", "automated", "NormalizedDeletionAUC:steps=2")]
    told += [("right", "prospective", "reads.accuracy")]
    text = "".join(criterion.format(id=i, tier=t, metric=m.partition(":")[0]) for i, t, m in told)
    head = 'id = "own"\nversion = 1\ntitle = "t"\nsource = "s"\n'
    (study.parent / "own.toml").write_text(head + text)
    out = tmp_path / "out"
    done = pellucid("study", "run", study, "--out", out, "--json")
    assert done.code == 0, done.err
    assert len(done.json["verdicts"]) == 3, "one for each method"
    states = {c["id"]: c["verdict"] for c in done.json["verdicts"][0]["criteria"]}
    assert set(states) == {"sparse", "curve", "right"}
    assert states["curve"] != "NOT MEASURED", "metrics of the protocol are measured as well"
    page = (out / "study.html").read_text()
    assert "prospective" in page
    gated = pellucid("gate", out, "--protocol", study.parent / "own.toml", "--json")
    assert gated.json["verdicts"] == done.json["verdicts"]
    (out / "reads.csv").write_text("reader_id\n")
    assert (
        "reads.csv was changed"
        in pellucid("gate", out, "--protocol", study.parent / "own.toml", "--json").json["problem"]
    )
