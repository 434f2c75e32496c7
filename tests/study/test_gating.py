"""Verdicts with known answers, on simulated tables."""

import json
import math
from types import ModuleType
from xml.etree import ElementTree

import numpy as np
import pytest

from pellucid.core.errors import BadOption, InputError, UnknownName
from pellucid.guide.protocol import Protocol, built_in, load_protocol, parse_protocol
from pellucid.statistics.bootstrap import Resampling
from pellucid.statistics.interval import Interval
from pellucid.study.estimates import estimate, still_needed
from pellucid.study.gating import Bench, Choice, gate
from pellucid.study.junit import junit_of
from pellucid.study.plan import metric_of
from pellucid.study.table import Row
from pellucid.study.verdicts import Verdict, exit_code
from pellucid.workbench.registry import spell


def own(simulated: ModuleType, *criteria: dict[str, object], population: str = "") -> Protocol:
    return parse_protocol(simulated.protocol(*criteria, population=population))


def only(verdicts: tuple[Verdict, ...]) -> Verdict:
    (verdict,) = verdicts
    return verdict


@pytest.mark.parametrize(
    ("mean", "relation", "state", "code"),
    [
        (0.8, ">", "PASS", 0),
        (0.8, ">=", "PASS", 0),
        (0.6, ">", "FAIL", 1),
        (0.71, ">", "INCONCLUSIVE", 3),
        (0.69, ">", "INCONCLUSIVE", 3),
        (0.8, "<", "FAIL", 1),
        (0.6, "<=", "PASS", 0),
        (0.71, "<", "INCONCLUSIVE", 3),
    ],
)
def test_the_interval_and_not_the_estimate_decides(
    simulated: ModuleType, mean: float, relation: str, state: str, code: int
) -> None:
    table = simulated.rows(simulated.spread(mean, 0.2, 100))  # the interval reaches about 0.04 to either side
    verdict = only(gate(Bench(table), own(simulated, {"relation": relation})))
    (finding,) = verdict.findings
    assert (verdict.state, finding.state, exit_code([verdict])) == (state, state, code)
    assert finding.found is not None
    assert finding.found.value == pytest.approx(mean)
    assert finding.found.high - mean == pytest.approx(1.96 * 0.02, rel=0.1)


def test_how_many_patients_are_still_needed(simulated: ModuleType) -> None:
    """Of an estimate 0.01 off the limit with a standard deviation of 0.2: (1.96 0.2 / 0.01)^2 = 1537 in all."""
    table = simulated.rows(simulated.spread(0.71, 0.2, 100))
    (finding,) = only(gate(Bench(table), own(simulated, {}))).findings
    assert finding.needed == pytest.approx(1537 - 100, rel=0.15)
    assert finding.settles == "PASS"
    below = simulated.rows(simulated.spread(0.69, 0.2, 100))
    assert only(gate(Bench(below), own(simulated, {}))).findings[0].settles == "FAIL"


def test_a_share_needs_what_wilson_says(simulated: ModuleType) -> None:
    table = simulated.rows([1.0] * 75 + [0.0] * 25)
    (finding,) = only(gate(Bench(table), own(simulated, {"statistic": "share"}))).findings
    assert (finding.state, finding.needed) == ("INCONCLUSIVE", 323 - 100), "1.96^2 0.7 0.3 / 0.05^2 = 322.7"
    table = simulated.rows([1.0] * 85 + [0.0] * 15)
    assert only(gate(Bench(table), own(simulated, {"statistic": "share"}))).state == "PASS"
    with pytest.raises(InputError, match="neither 0 nor 1"):
        gate(Bench(simulated.rows([0.5, 1.0])), own(simulated, {"statistic": "share"}))


def test_a_quantile_knows_that_the_largest_of_a_few_is_not_the_largest(simulated: ModuleType) -> None:
    fast = own(simulated, {"statistic": "p95", "relation": "<=", "value": 2.0})
    few = only(gate(Bench(simulated.rows([1.0 + n / 1000 for n in range(40)])), fast)).findings[0]
    assert few.state == "INCONCLUSIVE"
    assert few.needed == 72 - 40, "0.95^72 < 0.025"
    many = only(gate(Bench(simulated.rows([1.0 + n / 1000 for n in range(100)])), fast)).findings[0]
    assert many.state == "PASS"
    slow = only(gate(Bench(simulated.rows([3.0 + n / 1000 for n in range(40)])), fast)).findings[0]
    assert slow.state == "FAIL", "its lower bound is known"


@pytest.mark.parametrize("statistic", ["median", "p95"])
def test_order_statistics_cover(statistic: str) -> None:
    """The bounds miss the true quantile of an exponential in at most 5% of 400 studies, within 3 standard errors."""
    rng, truth = np.random.default_rng(0), -math.log(0.5 if statistic == "median" else 0.05)
    missed = 0
    for _ in range(400):
        found = estimate(rng.exponential(size=120), [str(n) for n in range(120)], statistic, Resampling())
        missed += not found.low <= truth <= found.high
    assert missed / 400 <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 400)


def test_at_the_limit_a_verdict_is_wrong_as_rarely_as_promised(simulated: ModuleType) -> None:
    """Three criteria whose true means are their limits: any verdict but INCONCLUSIVE is wrong, in at most 5%."""
    judged = own(simulated, *[{"id": f"c{n}", "metric": m} for n, m in enumerate(("Sparseness", "Dice", "IoU"))])
    rng, wrong = np.random.default_rng(1), 0
    for _ in range(100):
        table = [r for m in ("Sparseness", "Dice", "IoU") for r in simulated.rows(rng.normal(0.7, 0.1, 60), m)]
        wrong += any(f.state != "INCONCLUSIVE" for f in only(gate(Bench(table), judged)).findings)
    assert wrong / 100 <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 100)


def test_the_level_is_shared_among_all_criteria(simulated: ModuleType) -> None:
    """Also among those that were not measured: leaving one out makes no other easier."""
    table = simulated.rows(simulated.spread(0.8, 0.2, 100))
    alone = only(gate(Bench(table), own(simulated, {})))
    among = only(gate(Bench(table), own(simulated, {}, *[{"metric": "Dice"}] * 4)))
    assert [f.found.level for f in (*alone.findings, among.findings[0]) if f.found] == pytest.approx([0.95, 0.99])
    assert "Bonferroni" in among.notes[0]
    assert [f.state for f in among.findings] == ["PASS", *["NOT MEASURED"] * 4]
    assert among.state == "NOT MEASURED"


@pytest.mark.parametrize("status", ["interpreted", "unverified"])
def test_what_no_primary_source_states_is_at_most_indicative(simulated: ModuleType, status: str) -> None:
    table = simulated.rows(simulated.spread(0.8, 0.1, 60))
    verdict = only(gate(Bench(table), own(simulated, {}, {"status": status})))
    assert [f.state for f in verdict.findings] == ["PASS", "PASS"]
    assert (verdict.state, exit_code([verdict])) == ("INDICATIVE", 0)
    assert "1 of 2" in verdict.words
    low = simulated.rows(simulated.spread(0.5, 0.1, 60))
    assert only(gate(Bench(low), own(simulated, {"status": status}))).state == "FAIL"


def test_few_patients_pass_nothing_and_may_fail(simulated: ModuleType) -> None:
    asked = own(simulated, {}, population="min_units = 100")
    good = only(gate(Bench(simulated.rows(simulated.spread(0.9, 0.1, 60))), asked)).findings[0]
    assert (good.state, good.needed, good.settles) == ("INCONCLUSIVE", 40, "PASS")
    assert "asks for 100" in good.words
    assert only(gate(Bench(simulated.rows(simulated.spread(0.5, 0.1, 60))), asked)).state == "FAIL"


def test_patients_and_not_images_are_counted(simulated: ModuleType) -> None:
    """Forty images of four patients who differ: surely above the limit as images, and not as patients."""
    means = (0.66, 0.7, 0.75, 0.9)
    table = [
        Row(**{**vars(r), "patient": f"p{n % 4}"})
        for n, r in enumerate(simulated.rows([means[n % 4] + 0.001 * (n // 4) for n in range(40)]))
    ]
    by_patient = only(gate(Bench(table), own(simulated, {}))).findings[0]
    by_case = only(gate(Bench(table), own(simulated, {}, population='unit = "case"'))).findings[0]
    assert by_patient.found is not None
    assert by_case.found is not None
    assert (by_patient.found.clusters, by_case.found.clusters) == (4, 40)
    assert by_patient.state == "INCONCLUSIVE"
    assert by_case.state == "PASS"


def test_readers_are_asked_for(simulated: ModuleType) -> None:
    asked = own(simulated, {"metric": "Dice", "tier": "readers"}, population="readers = 3")
    values = simulated.spread(0.9, 0.05, 60)
    two = only(gate(Bench(simulated.rows(values, "Dice", readers=2)), asked)).findings[0]
    assert two.state == "INCONCLUSIVE"
    assert "2 readers where the protocol asks for 3" in two.words
    assert only(gate(Bench(simulated.rows(values, "Dice", readers=3)), asked)).state == "PASS"


def test_undefined_scores_are_counted_with_their_reasons(simulated: ModuleType) -> None:
    values = [*simulated.spread(0.8, 0.1, 60), *[math.nan] * 5]
    lost = Row(case="row 70", patient="row 70", model="m", reason="UnreadableImage: no image")
    finding = only(gate(Bench([*simulated.rows(values), lost]), own(simulated, {}))).findings[0]
    assert finding.state == "PASS"
    assert "6 of 66 items undefined (the map is constant; UnreadableImage: no image)" in finding.words
    none = only(gate(Bench(simulated.rows([math.nan] * 5)), own(simulated, {}))).findings[0]
    assert none.state == "NOT MEASURED"


def test_hits_of_every_patient_are_a_share(simulated: ModuleType) -> None:
    """Wilson's lower bound of 60 of 60 is 60 / (60 + 1.96^2); where values may be anything, nothing is known."""
    hits = only(gate(Bench(simulated.rows([1.0] * 60, "HitRate")), own(simulated, {"metric": "HitRate"}))).findings[0]
    assert hits.state == "PASS"
    assert hits.found is not None
    assert hits.found.low == pytest.approx(60 / (60 + 1.96**2), abs=1e-4)
    still = only(
        gate(Bench(simulated.rows([0.0] * 60, "SensitivityNorm")), own(simulated, {"metric": "SensitivityNorm"}))
    ).findings[0]
    assert still.state == "INCONCLUSIVE"


def test_the_same_value_everywhere_is_no_interval(simulated: ModuleType) -> None:
    finding = only(gate(Bench(simulated.rows([0.9] * 50)), own(simulated, {}))).findings[0]
    assert finding.state == "INCONCLUSIVE"
    assert finding.needed is None
    assert "every resample gives the same" in finding.words


def test_strata_are_told_and_do_not_judge(simulated: ModuleType) -> None:
    table = simulated.rows(simulated.spread(0.9, 0.05, 80))
    table = [Row(**{**vars(r), "value": r.value - (0.3 if r.correct is False else 0.0)}) for r in table]
    asked = own(simulated, {"value": 0.7}, population='strata = ["site", "correct"]')
    finding = only(gate(Bench(table), asked)).findings[0]
    assert finding.state == "PASS"
    told = {(level.column, level.name): level.state for level in finding.levels}
    assert told[("correct", "right")] == "PASS"
    assert told[("correct", "wrong")] == "FAIL"
    assert {name for column, name in told if column == "site"} == {"site 0", "site 1"}


def test_other_settings_are_another_metric(simulated: ModuleType) -> None:
    table = simulated.rows([0.9] * 30, "SensitivityNorm:samples=3")
    finding = only(gate(Bench(table), own(simulated, {"metric": "SensitivityNorm"}))).findings[0]
    assert finding.state == "NOT MEASURED"
    assert "measured SensitivityNorm:samples=3" in finding.words


def test_readings_without_a_table_are_not_measured(simulated: ModuleType) -> None:
    finding = only(gate(Bench(simulated.rows([0.9] * 30)), own(simulated, {"metric": "reads.accuracy"}))).findings[0]
    assert (finding.state, finding.words) == ("NOT MEASURED", "there is no table of reads")


def test_each_method_has_its_verdict_and_the_worst_counts(simulated: ModuleType) -> None:
    table = simulated.rows(simulated.spread(0.9, 0.1, 40)) + simulated.rows(
        simulated.spread(0.5, 0.1, 40), method="Saliency"
    )
    verdicts = gate(Bench(table), own(simulated, {}))
    assert {v.method: v.state for v in verdicts} == {"GradCAM": "PASS", "Saliency": "FAIL"}
    assert exit_code(verdicts) == 1
    assert "2 were judged" in verdicts[0].notes[-1]
    assert exit_code(gate(Bench(table), own(simulated, {}), Choice(method="gradcam"))) == 0
    with pytest.raises(UnknownName, match=r"no method 'RISE'.*it has: GradCAM, Saliency"):
        gate(Bench(table), own(simulated, {}), Choice(method="RISE"))
    with pytest.raises(UnknownName, match="no model 'other'"):
        gate(Bench(table), own(simulated, {}), Choice(model="other"))


def test_a_method_that_fits_no_model_is_not_measured(simulated: ModuleType) -> None:
    table = simulated.rows(simulated.spread(0.9, 0.1, 40))
    table.append(Row(case="case0", patient="p0", model="m", method="Rollout", reason="cannot explain this model: no"))
    states = {v.method: v for v in gate(Bench(table), own(simulated, {}))}
    assert states["Rollout"].state == "NOT MEASURED"
    assert "cannot explain this model" in states["Rollout"].findings[0].words


def test_the_cascade_holds_as_far_as_its_first_open_tier(simulated: ModuleType) -> None:
    table = simulated.rows(simulated.spread(0.9, 0.1, 60)) + simulated.rows(
        simulated.spread(0.7, 0.1, 60), "Dice", readers=3
    )
    criteria = ({}, {"metric": "Dice", "tier": "readers"}, {"metric": "reads.accuracy", "tier": "prospective"})
    verdict = only(gate(Bench(table), own(simulated, *criteria)))
    assert dict(verdict.tiers) == {"automated": "PASS", "readers": "INCONCLUSIVE", "prospective": "NOT MEASURED"}
    assert verdict.reached == "automated"
    assert verdict.state == "INCONCLUSIVE"


def test_the_change_against_an_earlier_study_is_paired(simulated: ModuleType) -> None:
    before = simulated.rows(simulated.spread(0.8, 0.2, 60))
    noise = [0.05 + (0.01 if n % 3 else -0.02) for n in range(60)]
    now = [Row(**{**vars(r), "value": r.value + d, "model": "m2"}) for r, d in zip(before, noise, strict=True)]
    finding = only(gate(Bench(now, against=before), own(simulated, {}))).findings[0]
    assert finding.change is not None
    assert finding.change.side == "better"
    assert finding.change.found.value == pytest.approx(0.05, abs=0.001)
    assert finding.change.found.high - finding.change.found.low < 0.02, "patients differ by far more: paired"
    back = only(gate(Bench(before, against=now), own(simulated, {}))).findings[0]
    assert back.change is not None
    assert back.change.side == "worse"
    assert back.state == "PASS", "told, and not judged"
    same = only(gate(Bench(now, against=now), own(simulated, {}))).findings[0]
    assert same.change is not None
    assert same.change.side == "no clear change"
    moved = [Row(**{**vars(r), "content": "another image"}) if n < 9 else r for n, r in enumerate(before)]
    partly = only(gate(Bench(now, against=moved), own(simulated, {}))).findings[0]
    assert partly.change is not None
    assert partly.change.note == "9 of 60 items have no partner (9 because the case itself changed)"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"metric": "Sharpness"}, "'c0': no metric named 'Sharpness'"),
        ({"metric": "DeletionAUC"}, "has the unit '1', and DeletionAUC is in \"target's unit\""),
        ({"metric": "SensitivityNorm"}, None),
    ],
)
def test_a_wrong_criterion_is_named(simulated: ModuleType, change: dict[str, object], words: str | None) -> None:
    bench = Bench(simulated.rows([0.9] * 10))
    if words is None:
        text = simulated.protocol(change).replace('statistic = "mean"', "parameters = { sample = 3 }")
        with pytest.raises(BadOption, match="'c0': SensitivityNorm has no parameter 'sample'"):
            gate(bench, parse_protocol(text))
        return
    with pytest.raises(InputError, match=words):
        gate(bench, own(simulated, change))


def test_units_and_strata_must_be_those_of_the_study(simulated: ModuleType) -> None:
    with pytest.raises(BadOption, match="the study measured in 'mm'"):
        gate(Bench(simulated.rows([0.9] * 10, unit="mm")), own(simulated, {}))
    with pytest.raises(BadOption, match="stratum 'scanner'"):
        gate(Bench(simulated.rows([0.9] * 10)), own(simulated, {}, population='strata = ["scanner"]'))
    with pytest.raises(InputError, match="no scores"):
        gate(Bench([Row(case="row 1", patient="row 1", model="m", reason="x")]), own(simulated, {}))


EXPECTED = {
    "research-development": ("INDICATIVE", 0),
    "emergency-triage": ("INDICATIVE", 0),
    "screening-mammography": ("INDICATIVE", 0),
    "complex-diagnostics": ("NOT MEASURED", 3),  # there is no table of reads
    "evaluation-cascade": ("NOT MEASURED", 3),
}


@pytest.mark.parametrize("name", built_in())
def test_every_protocol_of_the_package_on_a_study_that_meets_it(simulated: ModuleType, name: str) -> None:
    protocol, table = load_protocol(name), []
    for criterion in protocol.criteria:
        metric = metric_of(criterion)
        if metric is not None:
            right = criterion.value + (0.1 if criterion.relation in (">", ">=") else -0.1)
            right = 1 - right if criterion.transform != "none" else right
            values = simulated.spread(right, 0.01, 120)
            values = [v + 1e-5 * n for n, v in enumerate(values)]
            table += simulated.rows(values, spell(metric), unit=metric.card.unit, readers=3)
    verdict = only(gate(Bench(table), protocol))
    assert (verdict.state, exit_code([verdict])) == EXPECTED[name], verdict.plain()
    assert {f.state for f in verdict.findings} <= {"PASS", "NOT MEASURED"}


def test_a_verdict_as_json_and_junit(simulated: ModuleType) -> None:
    table = simulated.rows(simulated.spread(0.9, 0.1, 60)) + simulated.rows(simulated.spread(0.5, 0.1, 60), "Dice")
    table += simulated.rows(simulated.spread(0.7, 0.1, 60), "IoU")
    criteria = ({}, {"metric": "Dice"}, {"metric": "IoU"}, {"metric": "AUPRC"})
    verdict = only(gate(Bench(table), own(simulated, *criteria)))
    plain = json.loads(json.dumps(verdict.plain(), allow_nan=False))
    assert [c["verdict"] for c in plain["criteria"]] == ["PASS", "FAIL", "INCONCLUSIVE", "NOT MEASURED"]
    assert plain["verdict"] == "FAIL"
    root = ElementTree.fromstring(junit_of([verdict]))
    (suite,) = root
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("4", "1", "2")
    tags = {case.get("name"): [child.tag for child in case] for case in suite.iter("testcase")}
    assert tags == {"c0": [], "c1": ["failure"], "c2": ["error"], "c3": ["error"]}
    assert "more patients" in str(next(e for e in suite.iter("error")).get("message"))


def test_no_verdict_is_worded_as_a_clearance(simulated: ModuleType) -> None:
    table = simulated.rows(simulated.spread(0.9, 0.1, 60))
    for status in ("verified", "interpreted"):
        verdict = only(gate(Bench(table), own(simulated, {"status": status})))
        told = json.dumps(verdict.plain()).lower() + junit_of([verdict]).lower()
        assert not [w for w in ("cleared", "safe", "approved", "valid") if w in told]


def test_what_cannot_be_said_is_not_said() -> None:
    at_the_limit = Interval(0.7, 0.6, 0.8, 0.95, 40, 40, 0, "")
    assert still_needed(at_the_limit, 0.7, "mean", 1) is None
    unbounded = Interval(0.8, math.nan, math.nan, 0.95, 40, 40, 0, "")
    assert still_needed(unbounded, 0.7, "mean", 1) is None
    assert still_needed(unbounded, 0.7, "mean", 100) == 60
