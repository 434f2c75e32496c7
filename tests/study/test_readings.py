"""Criteria about readers, on simulated tables of reads with known answers."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from pellucid.core.errors import BadOption, InputError
from pellucid.guide.protocol import Protocol, parse_protocol
from pellucid.study.gating import Bench, gate
from pellucid.study.readings import MEASURES, read_reads
from pellucid.study.verdicts import Finding

Reads = list[dict[str, object]]
READERS, CASES = 8, 60


def simulated_reads(gain: float, seed: int = 1, readers: int = READERS) -> Reads:
    """Eight readers of sixty cases in two arms; the machine is wrong on a third; the map helps by ``gain``."""
    rng, table = np.random.default_rng(seed), []
    for case in range(CASES):
        truth = case % 2
        machine = truth if case % 3 else 1 - truth
        for reader in range(readers):
            for arm, share in (("AI + map", 0.7 + gain), ("AI", 0.7)):
                right = rng.random() < share
                first = truth if rng.random() < 0.7 else 1 - truth
                final = truth if right else 1 - truth
                names = {"reader_id": f"r{reader}", "case_id": f"c{case}", "patient_id": f"p{case}", "arm": arm}
                said = {"truth": truth, "ai_label": machine, "initial_decision": first, "final_decision": final}
                rating = 50 + 30 * (2 * final - 1) + rng.normal(0, 10)
                times = {"t_first_view": 0.0, "t_final": 60 - 100 * (share - 0.7) + rng.normal(0, 5)}
                table.append(names | said | times | {"final_rating": rating})
    return table


def written(folder: Path, table: Reads) -> Path:
    text = io.StringIO()
    lines = csv.DictWriter(text, list(table[0]), lineterminator="\n")
    lines.writeheader()
    lines.writerows(table)
    (folder / "reads.csv").write_text(text.getvalue())
    return folder / "reads.csv"


def own(simulated: ModuleType, *criteria: dict[str, object], population: str = "") -> Protocol:
    usual = {"tier": "prospective", "relation": ">", "value": 0.0}
    return parse_protocol(simulated.protocol(*[usual | c for c in criteria], population=population))


def found(
    simulated: ModuleType, path: Path, *criteria: dict[str, object], population: str = "", arms: Sequence[str] = ()
) -> list[Finding]:
    bench = Bench(simulated.rows([0.8, 0.9]), read_reads(path, (arms[0], arms[1]) if arms else None))
    (verdict,) = gate(bench, own(simulated, *criteria, population=population))
    return list(verdict.findings)


@pytest.mark.parametrize(("gain", "state"), [(0.2, "PASS"), (0.0, "INCONCLUSIVE"), (-0.2, "FAIL")])
def test_readers_decide_right_more_often_with_the_map(
    simulated: ModuleType, tmp_path: Path, gain: float, state: str
) -> None:
    path = written(tmp_path, simulated_reads(gain))
    (finding,) = found(simulated, path, {"metric": "reads.accuracy"})
    assert finding.state == state
    assert finding.found is not None
    assert finding.found.value == pytest.approx(gain, abs=0.07)
    assert finding.found.low <= gain <= finding.found.high
    assert f"{READERS} readers and {CASES} patients" in finding.words


def test_readers_follow_a_wrong_machine_less_with_the_map(simulated: ModuleType, tmp_path: Path) -> None:
    """Who was right at first and follows is wrong at last: 1 - share right, so that the gap is -gain."""
    path = written(tmp_path, simulated_reads(0.25))
    less = {"metric": "reads.over_reliance", "relation": "<="}
    (finding,) = found(simulated, path, less)
    assert finding.state == "PASS"
    assert finding.found is not None
    assert finding.found.value == pytest.approx(-0.25, abs=0.12)
    assert found(simulated, written(tmp_path, simulated_reads(-0.25)), less)[0].state == "FAIL"


def test_every_measure_answers(simulated: ModuleType, tmp_path: Path) -> None:
    path = written(tmp_path, simulated_reads(0.2))
    criteria = [{"metric": f"reads.{name}", "unit": unit} for name, (_, unit) in MEASURES.items()]
    told = {f.criterion.metric: f for f in _with_units(simulated, path, criteria)}
    mute = {"reads.sureness", "reads.trust", "reads.brier", "reads.ece"}  # nobody asked the readers
    assert {m for m, f in told.items() if f.state == "NOT MEASURED"} == mute
    assert told["reads.seconds"].state == "FAIL", "they are faster: less than 0 s more"
    assert told["reads.auc"].state == "PASS"


def _with_units(simulated: ModuleType, path: Path, criteria: list[dict[str, object]]) -> list[Finding]:
    usual = {"tier": "prospective", "relation": ">", "value": 0.0}
    text = simulated.protocol(*[usual | c for c in criteria])
    for criterion in criteria:
        head, name = text.split(f'metric = "{criterion["metric"]}"', 1)
        text = (
            head + f'metric = "{criterion["metric"]}"' + name.replace('unit = "1"', f'unit = "{criterion["unit"]}"', 1)
        )
    (verdict,) = gate(Bench(simulated.rows([0.8, 0.9]), read_reads(path)), parse_protocol(text))
    return list(verdict.findings)


def test_few_readers_pass_nothing(simulated: ModuleType, tmp_path: Path) -> None:
    path = written(tmp_path, simulated_reads(0.25))
    (finding,) = found(simulated, path, {"metric": "reads.accuracy"}, population="readers = 10")
    assert finding.state == "INCONCLUSIVE"
    assert "asks for 10 readers" in finding.words


def test_one_reader_says_nothing_of_others(simulated: ModuleType, tmp_path: Path) -> None:
    path = written(tmp_path, simulated_reads(0.3, readers=1))
    (finding,) = found(simulated, path, {"metric": "reads.accuracy"})
    assert finding.state == "INCONCLUSIVE"
    assert "one reader" in finding.words


def test_one_arm_is_refused(simulated: ModuleType, tmp_path: Path) -> None:
    table = [r for r in simulated_reads(0.2) if r["arm"] == "AI"]
    with pytest.raises(InputError, match=r"needs two arms, and the one it calls 'arm' is not among AI"):
        found(simulated, written(tmp_path, table), {"metric": "reads.accuracy"})


def test_arms_of_other_names_are_named(simulated: ModuleType, tmp_path: Path) -> None:
    table = [r | {"arm": {"AI": "first", "AI + map": "second"}[str(r["arm"])]} for r in simulated_reads(0.2)]
    path = written(tmp_path, table)
    with pytest.raises(InputError, match="--arms"):
        found(simulated, path, {"metric": "reads.accuracy"})
    (finding,) = found(simulated, path, {"metric": "reads.accuracy"}, arms=("second", "first"))
    assert finding.state == "PASS"


def test_patients_in_both_arms_of_a_study_without_pairs(simulated: ModuleType, tmp_path: Path) -> None:
    """Cases apart by arm, and one patient with cases in both: its reads are neither pairs nor apart."""
    table = [r for r in simulated_reads(0.2) if (r["arm"] == "AI") == (int(str(r["case_id"])[1:]) < CASES // 2)]
    path = written(tmp_path, table)
    assert found(simulated, path, {"metric": "reads.accuracy"})[0].state in ("PASS", "INCONCLUSIVE")
    table = [r | {"patient_id": "p1"} if r["case_id"] in ("c1", "c59") else r for r in table]
    with pytest.raises(InputError, match="1 patients are read in both"):
        found(simulated, written(tmp_path, table), {"metric": "reads.accuracy"})


def test_missing_reads_are_counted(simulated: ModuleType, tmp_path: Path) -> None:
    table = simulated_reads(0.2)
    table = [r for n, r in enumerate(table) if n % 40]
    (paired, area) = found(simulated, written(tmp_path, table), {"metric": "reads.accuracy"}, {"metric": "reads.auc"})
    assert paired.found is not None
    assert paired.found.undefined == len([n for n in range(960) if n % 40 == 0])
    assert area.found is not None
    assert area.found.undefined == len({n // 16 for n in range(0, 960, 40)}), "cases that lack a read"


@pytest.mark.parametrize(
    ("criterion", "words"),
    [
        ({"metric": "reads.happiness"}, "no measure of readers 'happiness'"),
        ({"metric": "reads.seconds"}, "reads.seconds is in 's'"),
        ({"metric": "reads.accuracy", "statistic": "median"}, "no statistic 'median'"),
    ],
)
def test_a_wrong_criterion_is_named(simulated: ModuleType, criterion: dict[str, object], words: str) -> None:
    with pytest.raises(BadOption, match=words):
        gate(Bench(simulated.rows([0.9] * 10)), own(simulated, criterion))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "column reader_id"),
        ("reader_id,arm\n", "one row a read"),
        ("reader_id,arm\nr1\n", "read 1 has another number of cells"),
        ("reader_id,reader_id\nr1,r1\n", "a column is there twice"),
    ],
)
def test_a_wrong_table_is_refused(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "reads.csv").write_text(text)
    with pytest.raises(InputError, match=words):
        read_reads(tmp_path / "reads.csv")
    with pytest.raises(InputError, match="cannot be read"):
        read_reads(tmp_path)


def test_the_review_s_decision_impact_on_a_table_that_meets_it(simulated: ModuleType, tmp_path: Path) -> None:
    text = simulated.protocol({"metric": "reads.accuracy", "value": 0.0}, {"metric": "reads.auc", "value": 0.0})
    path = written(tmp_path, simulated_reads(0.25, seed=2))
    (verdict,) = gate(Bench(simulated.rows([0.8, 0.9]), read_reads(path)), parse_protocol(text))
    assert verdict.state == "PASS"
