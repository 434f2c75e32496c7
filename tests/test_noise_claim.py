"""The study of noise: its measures give what they must, a small run goes through, its page quotes the results."""

import importlib
import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from pellucid.core.intensity import body_range
from pellucid.explain.gradient import Saliency

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "studies" / "noise_claim"
PAGE = ROOT / "docs" / "studies" / "noise.md"
OURS = ("run", "picture", "measuring", "summary", "subjects", "tables", "pneumonia", "nodule", "common")


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


def test_changes_of_known_maps(study):
    """None for the same map; a map turned around is twice its norm away, and has its strongest parts where it had."""
    changes, one = study.measuring.changes, np.random.default_rng(0).normal(size=(20, 20))
    assert changes(one, one) == pytest.approx((0, 0, 0, 0))
    turned = changes(one, -one)
    assert turned[:2] == pytest.approx((2, 2))
    assert turned[2] > 1
    assert turned[3] == 0
    assert changes(one, 3 * one) == pytest.approx((2, 0, 0, 0))
    assert all(math.isnan(v) for v in changes(one, one * math.nan))
    assert all(math.isnan(v) for v in changes(0 * one, one))


def test_noise_is_measured_by_the_range_of_the_body_and_drawn_for_each_case(study, shared_data):
    one = study.subject("pneumonia", shared_data, 4)
    batch = one.batches[0]
    small, large = (study.measuring.noisy(one, batch, sigma, 1)[0] - batch.x for sigma in (0.05, 0.1))
    assert torch.allclose(2 * small, large, atol=1e-6)
    spread = large.flatten(1).std(1) / body_range(batch.x)[:, 0]
    assert spread.tolist() == pytest.approx([0.1] * 4, rel=0.1)
    assert abs(float(np.corrcoef(large[0].flatten(), large[1].flatten())[0, 1])) < 0.15


def test_the_same_prediction_is_a_side_of_a_score_or_a_mask(study, shared_data):
    films = study.subject("pneumonia", shared_data, 2)
    assert study.measuring.same(films, torch.tensor([[1.0], [1.0]]), torch.tensor([[3.0], [-1.0]])).tolist() == [
        True,
        False,
    ]
    eyes = study.subject("vessels", shared_data, 1)
    before = torch.full((2, 1, 10, 10), -1.0)
    before[:, :, :5] = 1.0
    after = before.clone()
    after[0, :, 4, :2] = -1.0  # Dice 96 / 98
    after[1, :, 3:5] = -1.0  # Dice 60 / 80
    assert study.measuring.same(eyes, before, after).tolist() == [True, False]
    assert tuple(eyes.batches[0].x.shape) == (1, 3, 160, 160)


def test_a_small_run_keeps_what_it_measured(study, shared_data, tmp_path):
    one, measuring = study.subject("pneumonia", shared_data, 2), study.measuring
    plan = measuring.Plan(2, 1, {"Saliency": Saliency(), measuring.EDGES: None, measuring.ITSELF: None})
    path = tmp_path / "pneumonia.csv"
    assert measuring.fill(one, plan, path, 1e9)
    rows = study.tables.read(path, measuring.TEXTS)
    assert len(rows) == 2 * 3 * 3
    written = path.read_text(encoding="utf-8")
    assert measuring.fill(one, plan, path, 1e9), "what is there is not measured again"
    assert path.read_text(encoding="utf-8") == written
    for case in {row["case"] for row in rows}:
        mine = [r for r in rows if r["case"] == case and r["method"] == "Saliency"]
        assert [r["sigma"] for r in mine] == list(measuring.SIGMAS)
        first, last = (r["1 - Spearman, all copies"] for r in (mine[0], mine[-1]))
        assert first < last, "more noise, more change"


def rows_of(study, change):
    """Ten patients, every method with a change of its own and a little chance."""
    draw = np.random.default_rng(0)
    names = (*study.summary.CLAIMED, "Saliency", "GradCAM", *study.summary.CONTROLS)
    return [
        {
            "network": "n",
            "patient": f"p{case}",
            "case": f"c{case}",
            "method": name,
            "sigma": sigma,
            "copies": 1,
            "kept": 1,
            **{
                measure + suffix: change.get(name, 0.1) + 0.01 * draw.normal()
                for measure in study.measuring.MEASURES
                for suffix in ("", ", all copies")
            },
        }
        for sigma in study.measuring.SIGMAS
        for case in range(10)
        for name in names
    ]


def test_planted_answers_come_out(study):
    worst = study.summary.record(rows_of(study, dict.fromkeys(study.summary.CLAIMED, 0.6)))
    cell = worst["claim"]["n"]["0.1"]["1 - Spearman"]
    assert set(cell["most"].values()) == {"yes"}
    assert worst["figures"]["n"]["0.1"]["GuidedBackprop"]["1 - SSIM"]["exceeds"] == "yes"
    assert worst["figures"]["n"]["0.1"]["GradCAM"]["1 - SSIM"]["exceeds"] == "no"
    tame = study.summary.record(rows_of(study, {"GradCAM": 0.6}))
    cell = tame["claim"]["n"]["0.05"]["relative L2"]
    assert set(cell["most"].values()) == {"no"}
    assert cell["ranks"]["GradCAM"]["most"] == 1


def told_as(found: dict) -> str:
    """A figure as the page has it: without bounds where one patient is left, and undefined where none is."""
    if found["value"] is None:
        return "undefined"
    bounds = "" if found["low"] is None else f" [{found['low']:.2f}, {found['high']:.2f}]"
    return f"{found['value']:.2f}{bounds}"


def test_the_page_quotes_the_results(results):
    page = PAGE.read_text(encoding="utf-8")
    for network, sizes in results["figures"].items():
        assert f"\n### {network}\n" in page
        part = page.split(f"\n### {network}\n")[1].split("\n#")[0]
        for method, measures in sizes["0.05"].items():
            told = [told_as(found) for found in measures.values()]
            assert f"\n| {' | '.join([method, *told])} |\n" in part, (network, method)
        kept = results["networks"][network]["kept_share"]
        assert ", ".join(f"{kept[s]:.0%}" for s in ("0.01", "0.05", "0.1")) in part
    assert "CC BY" in page
