"""The study of accuracy: its parts give what they must, a small run goes through, its page quotes it."""

import importlib
import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "studies" / "accuracy_claim"
PAGE = ROOT / "docs" / "studies" / "accuracy.md"
OURS = ("run", "picture", "relating", "networks", "pneumonia", "common")


@pytest.fixture
def study(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(str(FOLDER))
    before = list(sys.path)
    for name in OURS:
        sys.modules.pop(name, None)
    module = importlib.import_module("run")
    monkeypatch.setattr(module.relating, "BY", replace(module.relating.BY, times=200))
    yield module
    sys.path[:] = before
    for name in OURS:
        sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def results() -> dict:
    return json.loads((FOLDER / "results.json").read_text(encoding="utf-8"))


def test_designs_grow_and_give_one_logit(study):
    sizes = {}
    for design in study.networks.DESIGNS:
        module = design.build()
        assert module(torch.zeros(2, 1, 28, 28)).shape == (2, 1)
        sizes[design.name] = sum(p.numel() for p in module.parameters())
        assert any(isinstance(m, torch.nn.Dropout) for m in module) == design.strict
    assert (sizes["logistic on 4 means"], sizes["logistic on 16 means"], sizes["logistic"]) == (5, 17, 785)
    assert sizes["4 convolutions"] == max(sizes.values())
    assert len(sizes) == len(study.networks.DESIGNS)


def test_training_learns_and_is_kept(study, tmp_path):
    labels = np.arange(60) % 2
    images = torch.randn(60, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    images[labels == 1, :, :8, :8] += 2
    films, design = study.networks.Films(images, labels), study.networks.DESIGNS[4]
    one = study.networks.fit(design, films, 0, 20, tmp_path / "one.safetensors")
    assert float(((one(images)[:, 0] > 0).numpy() == labels).mean()) > 0.95
    again = study.networks.fit(design, films, 0, 20, tmp_path / "one.safetensors")
    assert torch.equal(one(images), again(images))


def points(study, sign: float):
    """Networks whose maps are the better (or worse) the higher the AUC."""
    draw, found = np.random.default_rng(0), []
    for design in range(8):
        for _ in range(3):
            auc = 0.8 + 0.02 * design + draw.normal(0, 0.002)
            values = {m: sign * s * auc for m, s in study.relating.QUALITIES.items()}
            found.append(study.relating.Point(str(design), 10**design, auc, {"any": values}))
    return found


@pytest.mark.parametrize("sign", [1, -1])
def test_a_planted_relation_is_found_with_its_sign(study, sign):
    for measure, told in study.relating.related(points(study, sign), "any", "auc").items():
        assert told["value"] == sign, measure
        assert told["networks"] == 24
        assert told["designs"] == 8
    for told in study.relating.related(points(study, sign), "any", "parameters").values():
        assert sign * told["value"] > 0.95


def test_no_relation_has_an_interval_that_holds_zero(study):
    draw = np.random.default_rng(1)
    some = [
        study.relating.Point(str(d), 1, draw.random(), {"any": {m: draw.random() for m in study.relating.QUALITIES}})
        for d in range(12)
        for _ in range(3)
    ]
    told = study.relating.related(some, "any", "auc")
    assert sum(one["low"] < 0 < one["high"] for one in told.values()) >= 5


def test_a_linear_network_repeats_itself(study):
    """Of one seed given twice the maps are the same; of a linear network noise does not move the gradient."""
    torch.manual_seed(0)
    one, films = study.networks.DESIGNS[4].build().eval(), torch.randn(3, 1, 28, 28)
    found = study.measured(one, [one], films)
    assert found["Saliency"]["AverageSensitivity"]["median"] == pytest.approx(0, abs=1e-5)
    for method in study.METHODS:
        assert found[method]["Repeatability"]["median"] == pytest.approx(1)
        assert found[method]["Repeatability"]["films"] == 3


def test_a_small_run_on_real_films(study, shared_data, tmp_path):
    designs = (study.networks.DESIGNS[4], study.networks.DESIGNS[9])
    record = study.study(shared_data, tmp_path, study.Size(60, 4, 6, (0, 1), designs))
    assert [row["design"] for row in record["networks"]] == ["logistic"] * 2 + ["1 convolution, held back"] * 2
    for row in record["networks"]:
        assert row["auc"]["value"] > 0.6
        assert set(row["measures"]) == set(study.METHODS)
    study.picture.draw(record, tmp_path / "picture.png")
    assert (tmp_path / "picture.png").stat().st_size > 10_000


def test_the_page_quotes_the_results(results):
    page = PAGE.read_text(encoding="utf-8")

    def told(found: dict) -> str:
        return f"{found['value']:+.2f} [{found['low']:+.2f}, {found['high']:+.2f}]"

    for measure in results["correlation with AUC"]["Saliency"]:
        cells = [
            told(results[f"correlation with {by}"][m][measure])
            for m in results["correlation with AUC"]
            for by in ("AUC", "size")
        ]
        assert f"\n| {measure} | {' | '.join(cells)} |\n" in page, measure
    assert f"{len(results['networks'])} networks" in page
    areas = [row["auc"]["value"] for row in results["networks"]]
    assert f"{sum(area > 0.9 for area in areas)} of the {len(areas)} networks" in page
    low, high = (f"{area:.3f}".lstrip("0") for area in (min(a for a in areas if a > 0.9), max(areas)))
    assert f"between {low} and {high}" in page
    assert "CC BY 4.0" in page
