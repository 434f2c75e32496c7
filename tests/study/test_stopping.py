"""Studies that may stop early: when they do, by what their verdicts are read, and how often these are wrong."""

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from pellucid.demo.cases import MODELS
from pellucid.guide.protocol import Protocol, load_protocol
from pellucid.study.folder import MANIFEST, SCORES, finished
from pellucid.study.gating import Bench, gate
from pellucid.study.plan import load_study
from pellucid.study.stopping import Stopped, Watch, in_order, sequential
from pellucid.study.table import Row, read_rows

Command = Callable[..., object]
STOPPED = Stopped("own", 0, {}, 40, 60, "stopped after 40 of 100 patients, 60 spared: all is settled")


def own(simulated: ModuleType, folder: Path, *criteria: dict[str, object], population: str = "") -> Protocol:
    """A protocol of the given criteria, confidence 95%."""
    folder.mkdir(exist_ok=True)
    (folder / "own.toml").write_text(simulated.protocol(*criteria, population=population))
    return load_protocol(str(folder / "own.toml"))


def watch(protocol: Protocol) -> Watch:
    """All criteria of a protocol, watched."""
    return Watch(protocol, tuple((c, c.metric) for c in protocol.criteria), (), {})


def first_settled(watching: Watch, rows: list[Row]) -> int | None:
    """The first patient after whom nothing is open."""
    looks = (n for n in range(1, len(rows) + 1) if "INCONCLUSIVE" not in watching.states(rows[:n]))
    return next(looks, None)


@pytest.mark.parametrize(("share", "state"), [(0.95, "PASS"), (0.3, "FAIL")])
def test_a_clear_answer_is_settled_early_and_stays(
    simulated: ModuleType, tmp_path: Path, share: float, state: str
) -> None:
    values = np.random.default_rng(0).random(120) < share
    watching = watch(own(simulated, tmp_path, {"value": 0.7}))
    rows = simulated.rows(values.astype(float).tolist())
    after = first_settled(watching, rows)
    assert after is not None
    assert 3 < after < 60
    assert watching.states(rows[:after]) == watching.states(rows) == [state]
    words = gate(Bench(rows[:after], stopped=STOPPED), watching.protocol)[0].findings[0].words
    assert f"settled after {after} patients" in words


def test_every_method_and_criterion_must_be_settled(simulated: ModuleType, tmp_path: Path) -> None:
    watching = watch(own(simulated, tmp_path, {"value": 0.7}))
    clear = simulated.rows([0.95] * 40)
    near = simulated.rows(simulated.spread(0.7, 0.1, 40), method="Saliency")
    assert first_settled(watching, clear) is not None
    assert sorted(watching.states([*clear, *near])) == ["INCONCLUSIVE", "PASS"]
    assert watching.states([]) == [], "nothing seen is nothing settled"


def test_a_pass_waits_for_the_patients_that_the_protocol_asks_for(simulated: ModuleType, tmp_path: Path) -> None:
    rows = simulated.rows([0.95] * 40)
    soon = first_settled(watch(own(simulated, tmp_path, {"value": 0.7})), rows)
    late = first_settled(watch(own(simulated, tmp_path, {"value": 0.7}, population="min_units = 30")), rows)
    assert soon is not None
    assert soon < 30 == late
    fail = first_settled(
        watch(own(simulated, tmp_path, {"value": 0.7}, population="min_units = 30")), simulated.rows([0.1] * 40)
    )
    assert fail is not None
    assert fail < 30, "more patients cannot mend it"


def test_undefined_scores_settle_nothing(simulated: ModuleType, tmp_path: Path) -> None:
    watching = watch(own(simulated, tmp_path, {"value": 0.7}))
    assert watching.states(simulated.rows([float("nan")] * 40)) == ["INCONCLUSIVE"]


def test_a_stopped_study_is_wrong_at_most_as_often_as_promised(simulated: ModuleType, tmp_path: Path) -> None:
    """The true mean is the limit: both PASS and FAIL are errors. A bootstrap looked at as often errs far more."""
    (criterion,) = own(simulated, tmp_path, {"value": 0.7}).criteria
    rng, studies, wrong, naive = np.random.default_rng(1), 200, 0, 0
    for _ in range(studies):
        values = (rng.random(100) < 0.7).astype(float)
        found = sequential(values, [str(n) for n in range(100)], criterion, (0.0, 1.0), 0.95)
        wrong += not found.low <= 0.7 <= found.high  # bounds never widen: the last look holds all of them
        n = np.arange(1, 101)
        so_far = np.cumsum(values) / n
        half = 1.96 * np.sqrt(so_far * (1 - so_far) / n)
        naive += bool((np.abs(so_far - 0.7) > half)[9:].any())
    assert wrong <= 0.05 * studies
    assert naive > 0.2 * studies


def test_the_gate_rests_on_the_sequence_and_says_so(pellucid: Command, simulated: ModuleType, tmp_path: Path) -> None:
    criteria = ({"value": 0.7}, {"metric": "SensitivityNorm", "value": 0.1}, {"statistic": "p95", "value": 0.1})
    protocol = own(simulated, tmp_path, *criteria)
    rows = simulated.rows(simulated.spread(0.77, 0.15, 40))
    rows += simulated.rows([2.0 + n / 40 for n in range(40)], metric="SensitivityNorm")
    whole, stopped = gate(Bench(rows), protocol)[0], gate(Bench(rows, stopped=STOPPED), protocol)[0]
    assert whole.findings[0].state == "PASS"
    first, second, third = stopped.findings
    assert first.state == "INCONCLUSIVE", "the sequence is wider than the bootstrap's interval"
    assert first.found is not None
    assert "betting" in first.found.how
    assert "no known bounds" in second.words
    assert "p95 has no sequence" in third.words
    assert STOPPED.why in stopped.notes
    study = simulated.write_study(tmp_path / "study", rows)
    manifest = replace(finished(study), stopped=STOPPED)
    (study / MANIFEST).write_text(json.dumps(asdict(manifest)))
    done = pellucid("gate", study, "--protocol", tmp_path / "own.toml", "--json")
    assert done.code == 3
    assert STOPPED.why in done.json["verdicts"][0]["notes"]
    assert "betting" in done.json["verdicts"][0]["criteria"][0]["found"]["how"]


def test_a_change_and_a_broken_promise_of_bounds(simulated: ModuleType, tmp_path: Path) -> None:
    protocol = own(simulated, tmp_path, {"metric": "SensitivityNorm", "value": 0.5})
    now = simulated.rows([0.9] * 60, metric="SensitivityNorm")
    before = simulated.rows([0.2] * 60, metric="SensitivityNorm")
    told = replace(STOPPED, bounds={"SensitivityNorm": (0.0, 1.0)})
    finding = gate(Bench(now, against=before, stopped=told), protocol)[0].findings[0]
    assert finding.state == "PASS"
    assert finding.change is not None
    assert finding.change.side == "better"
    assert "betting" in finding.change.found.how
    narrow = replace(STOPPED, bounds={"SensitivityNorm": (0.0, 0.5)})
    finding = gate(Bench(now, stopped=narrow), protocol)[0].findings[0]
    assert finding.state == "INCONCLUSIVE"
    assert "were promised" in finding.words


PLAN = """
name = "films"
cases = "films"
methods = ["GradCAM"]
metrics = ["Sparseness"]

[models]
pneumonia = "{model}"

[stop]
protocol = "own.toml"
seed = 3
"""


@pytest.fixture
def real(simulated: ModuleType, tmp_path: Path, shared_data: Path) -> Path:
    """Ten patients with two real films each, and a protocol that the first few settle."""
    stored = np.load(shared_data / "xray_pneumoniamnist" / "pneumoniamnist.npz")
    (tmp_path / "films").mkdir()
    lines = ["image,patient"]
    for n, image in enumerate(stored["test_images"][:20]):
        Image.fromarray(image).save(tmp_path / "films" / f"film{n}.png")
        lines.append(f"film{n}.png,p{n % 10}")
    (tmp_path / "films" / "cases.csv").write_text("\n".join(lines) + "\n")
    own(simulated, tmp_path, {"value": 0.02}, {"metric": "SensitivityNorm", "value": 0.1})
    (tmp_path / "study.toml").write_text(PLAN.format(model=MODELS.joinpath("pneumonia").as_posix()))
    return tmp_path / "study.toml"


def test_a_real_study_stops_and_goes_on_stopped(pellucid: Command, real: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = pellucid("study", "run", real, "--out", out, "--json")
    assert done.code == 0, done.err
    stopped = finished(out).stopped
    assert stopped is not None
    assert stopped.taken + stopped.spared == 10
    assert stopped.spared >= 2
    assert f"stopped after {stopped.taken} of 10 patients" in stopped.why
    assert "c1 (its scores have no known bounds)" in stopped.why
    assert stopped.why in done.json["said"]
    assert stopped.why in (out / "study.html").read_text()
    rows = read_rows(out / SCORES)
    order = list(dict.fromkeys(r.patient for r in rows))
    assert len(order) == stopped.taken
    assert len({r.case for r in rows}) == 2 * stopped.taken, "patients are taken whole"
    listed, ends = in_order(load_study(real))
    assert list(dict.fromkeys(r.patient for r in listed))[: stopped.taken] == order
    assert sum(ends) == 10
    states = {c["id"]: c["verdict"] for c in done.json["verdicts"][0]["criteria"]}
    assert states == {"c0": "PASS", "c1": "INCONCLUSIVE"}
    again = pellucid("study", "run", real, "--out", out, "--json")
    assert finished(out).stopped == stopped
    assert again.json["verdicts"] == done.json["verdicts"]
    assert pellucid("study", "show", out, "--json").json["said"][0] == stopped.why


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("seed = 3", 'bounds = { "Dice" = [0, 1] }', "Dice, which is not measured"),
        ("seed = 3", 'bounds = { "SensitivityNorm" = [9, 0] }', "are 9 and 0"),
        ("seed = 3", "patience = 3", "study key"),
        ('"films"\nmethods', '"films/film0.png"\nmethods', "expected a table of cases"),
        ('"own.toml"', '"unwatched.toml"', "no criterion of own can stop a study"),
    ],
)
def test_a_stop_that_cannot_be_is_refused(
    pellucid: Command, simulated: ModuleType, real: Path, tmp_path: Path, old: str, new: str, words: str
) -> None:
    (tmp_path / "unwatched.toml").write_text(simulated.protocol({"metric": "reads.accuracy", "tier": "readers"}))
    real.write_text(real.read_text().replace(old, new))
    done = pellucid("study", "run", real, "--out", tmp_path / "out", "--json")
    assert done.code == 2
    assert words in done.json["problem"]
