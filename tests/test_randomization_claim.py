"""The study of randomization: it measures what the metrics measure, its control fails, its page quotes the results."""

import importlib
import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

from pellucid.core.perwindow import answered
from pellucid.explain.gradient import Saliency
from pellucid.explain.guided import GuidedBackprop
from pellucid.metrics.randomization.edges import EdgeDetector
from pellucid.metrics.randomization.efficient import EfficientMPRT
from pellucid.metrics.randomization.weights import ModelParameterRandomization

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "studies" / "randomization_claim"
PAGE = ROOT / "docs" / "studies" / "randomization.md"
OURS = ("run", "drawing", "trials", "verdicts", "subjects", "tables", "pneumonia", "nodule", "common")


@pytest.fixture
def study(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(str(FOLDER))
    before = list(sys.path)
    yield importlib.import_module("run")
    sys.path[:] = before
    for name in OURS:
        sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def results() -> dict:
    return json.loads((FOLDER / "results.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("method", [GuidedBackprop(), Saliency()])
def test_the_study_measures_what_the_metrics_do(study, shared_data, method):
    one = study.subject("pneumonia", shared_data, 2)
    batch = replace(one.batches[0], scene=replace(one.batches[0].scene, seed=5))
    found, probe = study.trials.tried(one, batch, method), one.probe(method, batch)
    answer = answered(method, probe)
    score = ModelParameterRandomization(levels=1)(probe, answer, method, None)
    assert found["ranks"] == pytest.approx(score.values.tolist(), abs=1e-9)
    assert found["ranks, chance up to"] == pytest.approx(score.detail["chance"]["high"], abs=1e-9)
    assert found["magnitudes"] == pytest.approx(score.detail["magnitudes"][-1], abs=1e-9)
    assert found["similar to edges"] == pytest.approx(score.detail["similar to edges"], abs=1e-9)
    rise = EfficientMPRT()(probe, answer, method, None)
    assert found["rise of entropy"] == pytest.approx(rise.values.tolist(), abs=1e-9)


def test_a_small_run_the_control_fails_and_a_refusal_is_told(study, shared_data, tmp_path):
    methods = {**study.methods("pneumonia"), study.verdicts.CONTROL: EdgeDetector()}
    few = {name: methods[name] for name in ("Saliency", "RawAttention", study.verdicts.CONTROL)}
    one = study.smaller(study.subject("pneumonia", shared_data, 4), 2)
    assert len(one.batches) == 2
    path = tmp_path / "pneumonia.csv"
    assert study.trials.fill(one, few, path, 1e9)
    record = study.verdicts.record(study.tables.read(path, study.trials.TEXTS))
    found = record["figures"]["pneumonia"]
    assert found[study.verdicts.CONTROL]["ranks"]["verdict"] == "fails"
    assert found[study.verdicts.CONTROL]["ranks"]["similarity"]["value"] == 1
    assert found[study.verdicts.CONTROL]["ranks"]["cases_failing"]["value"] == 1
    assert "attention" in record["refused"]["pneumonia"]["RawAttention"]
    assert set(record["networks"]["pneumonia"].values()) == {4}
    study.drawing.draw(record, tmp_path / "picture.png")
    assert (tmp_path / "picture.png").stat().st_size > 5_000


def test_a_segmentation_is_explained_over_the_whole_image(study, shared_data):
    one = study.trials.everywhere(study.subject("vessels", shared_data, 1))
    probe = one.probe(None, one.batches[0])
    assert float(probe.baseline_score[0]) == pytest.approx(float(probe.output.mean()), rel=1e-4)


def planted(study, over):
    """Six patients whose similarity lies so much over chance."""
    values = dict.fromkeys(study.trials.VALUES, 0.0)
    return [
        {"network": "n", "patient": f"p{i}", "case": f"c{i}", "method": "m", "reason": "", **values, "ranks": v}
        for i, v in enumerate(over)
    ]


@pytest.mark.parametrize(
    ("over", "verdict", "failing"),
    [
        ((0.2, 0.3, 0.25, 0.2, 0.3, 0.2), "fails", 1),
        ((-0.2, -0.3, -0.25, -0.2, -0.3, -0.2), "passes", 0),
        ((0.2, -0.3, 0.25, -0.2, 0.3, -0.2), "open", 0.5),
        ((float("nan"),) * 6, "undefined", None),
    ],
)
def test_planted_verdicts_come_out(study, over, verdict, failing):
    found = study.verdicts.record(planted(study, over))["figures"]["n"]["m"]["ranks"]
    assert found["verdict"] == verdict
    assert found["cases_failing"]["value"] == failing
    assert found["undefined"] == (6 if verdict == "undefined" else 0)


def test_the_control_failed_everywhere(results):
    for network, found in results["figures"].items():
        control = found["edges of the image (no network)"]
        assert control["ranks"]["verdict"] == "fails", network
        assert control["ranks"]["similarity"]["value"] == 1


def told(cell: dict | None) -> str:
    """A cell of the page: mean similarity, verdict, and the share of cases that fail with Wilson's interval."""
    if cell is None or cell["verdict"] == "undefined":
        return "" if cell is None else "undefined"
    low, share, high = (round(100 * cell["cases_failing"][name]) for name in ("low", "value", "high"))
    return f"{cell['similarity']['value']:.2f} {cell['verdict']}, {share}% [{low}, {high}]"


def test_the_page_quotes_the_results(results):
    page = PAGE.read_text(encoding="utf-8")
    for view in ("magnitudes", "ranks"):
        for method in results["fails_on"][view]:
            cells = [found.get(method, {}).get(view) for found in results["figures"].values()]
            assert f"\n| {' | '.join([method, *map(told, cells)])} |\n" in page, (view, method)
    for method, found in results["figures"]["hippocampus"].items():
        assert f"\n| {method} | {told(found['other class'])} |\n" in page, method
    assert "CC BY 4.0" in page
