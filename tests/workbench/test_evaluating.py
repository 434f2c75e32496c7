"""Scores of a panel, and what is written about it, with nothing about who the patient is."""

import json
import math
from dataclasses import replace

import pytest

from pellucid.audit.log import AuditLog
from pellucid.core.case import Region
from pellucid.core.target import ClassScore
from pellucid.explain.cam import GradCAM, HiResCAM
from pellucid.explain.gradient import InputXGradient
from pellucid.plan.budget import Pace
from pellucid.workbench.budgeting import duration
from pellucid.workbench.evaluating import ALL_MAPS, score_panel, truth_region
from pellucid.workbench.explaining import explain_case
from pellucid.workbench.opening import open_case
from pellucid.workbench.recording import Recorder, output_hash
from pellucid.workbench.registry import make_metric


def region(case, source):
    return Region(case.regions["lesion"].mask, case.regions["lesion"].grid, source)


def test_truth_is_planted_before_expert_before_the_rest(make_case) -> None:
    case = make_case()
    sources = ["predicted", "drawn", "atlas", "expert", "planted"]
    for i in range(len(sources)):
        known = {s: region(case, s) for s in sources[: i + 1]}
        assert truth_region(replace(case, regions=known)) == (None if i == 0 else sources[i])
    assert truth_region(replace(case, regions={})) is None


def test_every_metric_of_every_map(classifier, make_case) -> None:
    case, said = make_case(), []
    panel = explain_case(open_case(case, classifier), [ClassScore("bright")], [InputXGradient(), GradCAM()])
    metrics = [make_metric(m) for m in ("HitRate", "IoU", "DeletionAUC:steps=4")]
    scored = score_panel(panel, case, metrics, said.append)
    assert [(s.method, s.metric.name, s.region) for s in scored] == [
        (m, n, r)
        for m in ("InputXGradient", "GradCAM")
        for n, r in (("HitRate", "lesion"), ("IoU", "lesion"), ("DeletionAUC", None))
    ]
    # by map and fill: 3 points of the map and of 2 random orders, and the image with everything hidden, once
    assert said[0] == "3 metrics of 2 maps: at most 40 forwards, 0 backwards"
    assert said[1:3] == ["metrics of InputXGradient", "HitRate of InputXGradient"]
    assert panel.probes[0].spent.own.forwards == 2 * (10 + 3)  # the second map's random orders are the first's
    assert scored[0].value == 1.0  # the lesion is all there is to see
    assert scored[1].value > 0.8
    assert json.loads(json.dumps(scored[1].plain()))["value"] == pytest.approx(scored[1].value)


def test_a_metric_of_all_maps_has_one_row_for_each_target(classifier, make_case) -> None:
    case, said = make_case(), []
    targets, methods = [ClassScore("bright"), ClassScore("dark")], [InputXGradient(), GradCAM(), HiResCAM()]
    panel = explain_case(open_case(case, classifier), targets, methods)
    metrics = [make_metric("MethodAgreement"), make_metric("Sparseness")]
    scored = score_panel(panel, case, metrics, announce=said.append)
    assert said == ["2 metrics of 6 maps: at most 0 forwards, 0 backwards"]
    timed: list[str] = []
    score_panel(panel, case, [make_metric("DeletionAUC:steps=4")], announce=timed.append, pace=Pace(0.5))
    assert timed[0].startswith("1 metric of 6 maps: at most ")
    count = int(timed[0].split("at most ")[1].split(" ")[0])
    assert timed[0].endswith(f", about {duration(count / 2)} here")
    together = [s for s in scored if s.method == ALL_MAPS]
    assert [(s.target, s.metric.name, s.region) for s in together] == [
        ("bright", "MethodAgreement", None),
        ("dark", "MethodAgreement", None),
    ]
    assert len(scored) == 6 + 2
    assert together[0].score.detail["methods"] == [["InputXGradient", "GradCAM", "HiResCAM"]]
    assert -1 <= together[0].value <= 1
    plain = json.loads(json.dumps(together[0].plain(), allow_nan=False))
    assert plain["settings"] == {"measure": "spearman"}
    assert plain["method"] == ALL_MAPS


def test_what_is_undefined_is_null_with_a_reason_and_stops_nothing(classifier, make_case) -> None:
    case = replace(make_case(), regions={})
    panel = explain_case(open_case(case, classifier), [ClassScore("bright")], [InputXGradient()])
    hit, deletion = score_panel(panel, case, [make_metric("HitRate"), make_metric("DeletionAUC:steps=4")])
    assert math.isnan(hit.value)
    assert hit.reason
    plain = json.loads(json.dumps(hit.plain(), allow_nan=False))
    assert (plain["value"], plain["reason"]) == (None, hit.reason)
    assert deletion.reason == ""
    assert math.isfinite(deletion.value)


def test_the_hash_follows_the_map(classifier, make_case) -> None:
    opened = open_case(make_case(), classifier)
    first, again = (explain_case(opened, [ClassScore("bright")], [GradCAM()]).explanations[0] for _ in range(2))
    assert output_hash(first) == output_hash(again)
    first.attribution.maps["image"][0, 0, 3, 3] += 1e-6
    assert output_hash(first) != output_hash(again)


def test_the_record_names_no_patient(classifier, make_case, tmp_path) -> None:
    case = replace(make_case(), name="DOE^JANE")
    opened = open_case(case, classifier)
    made = explain_case(opened, [ClassScore("bright")], [GradCAM("relu")]).explanations[0]
    log = AuditLog(tmp_path / "audit.jsonl", actor="reader-1", role="user")
    recorder = Recorder(log)
    recorder.configured(classifier, {"seed": 1, "out": "/data/DOE^JANE/1963-04-05"})
    recorder.created(made)
    recorder.exported(case.name, "report", "a" * 64)
    recorder.failed("explain", "UnreadableImage")
    text = (tmp_path / "audit.jsonl").read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    assert len(lines) >= 4
    assert "DOE" not in text
    assert "1963" not in text
    assert classifier.digest in text
    assert output_hash(made) in text
    assert "relu" in text
