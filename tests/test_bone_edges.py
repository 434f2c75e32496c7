"""The study of bone edges: its measures give what a phantom holds, and its committed results are what its page says."""

import hashlib
import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "studies" / "bone_edges"
PAGE = ROOT / "docs" / "studies" / "bone_edges.md"
MM = (3.0, 3.0, 5.0)


@pytest.fixture
def edges(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(str(FOLDER))
    yield importlib.import_module("edges")
    del sys.modules["edges"]


@pytest.fixture(scope="module")
def results() -> dict:
    return json.loads((FOLDER / "results.json").read_text(encoding="utf-8"))


@pytest.fixture
def chest(edges: ModuleType):
    """A trunk of soft tissue: a lung, bones beside it, and lobes of fat as steep and as near."""
    intensity = np.full((72, 60, 9), -1000.0)
    body = np.zeros(intensity.shape, bool)
    body[4:68, 4:56] = True
    intensity[body] = 40
    lung = np.zeros_like(body)
    lung[26:46, 20:40] = True
    intensity[lung] = -900
    intensity[14:20, 22:38] = 300
    intensity[52:58, 22:38] = -220
    return intensity, lung, body


def test_edges_are_where_the_phantom_has_them(edges, chest):
    where = edges.places(*chest, (-1000.0, 400.0), MM)
    box = np.zeros((72, 60), bool)
    box[13:21, 21:39] = True
    corners = np.zeros_like(box)
    corners[[13, 13, 20, 20], [21, 38, 21, 38]] = True  # a cross does not reach them
    inner = np.zeros_like(box)
    inner[15:19, 23:37] = True
    assert np.array_equal(where.bone_edge[:, :, 4], box & ~corners & ~inner)
    assert where.control[52:58, 22:38, 4].any()
    assert not (where.control & where.bone_edge).any()
    assert not where.control[:8].any(), "the skin is no control"
    assert where.depth[25, 30, 4] == 0, "3 mm from the lung is the first bin"
    assert where.depth[13, 30, 4] == np.digitize(13 * 3.0, edges.DEPTHS) - 1


def test_steepness_of_a_ramp_is_its_slope(edges):
    ramp = 12.0 * 3.0 * np.arange(20.0)[:, None, None] + np.zeros((20, 20, 6))
    assert edges.steepness(ramp, MM)[5:15, 5:15] == pytest.approx(12.0)


def test_known_enrichment_comes_out(edges, chest):
    where = edges.places(*chest, (-1000.0, 400.0), MM)
    values = np.ones(where.body.shape)
    values[where.bone_edge] = -5.0
    values[where.control] = 2.0
    some = edges.tally(values, where).drawn(np.arange(9))
    voxels = [int(mask.sum()) for mask in (where.bone_edge, where.control, where.body)]
    mean = (5 * voxels[0] + 2 * voxels[1] + (voxels[2] - voxels[0] - voxels[1])) / voxels[2]
    assert edges.enrichment(some) == pytest.approx(5 / mean)
    assert edges.control_enrichment(some) == pytest.approx(2 / mean)
    assert edges.by_depth(some) == pytest.approx(2.5)
    assert edges.by_both(some) == pytest.approx(2.5)
    assert 0 < edges.matched_share(some) <= 1
    assert edges.bone_sign(some) == -1
    assert edges.control_sign(some) == 1


def test_matching_takes_away_what_distance_explains(edges, chest):
    where = edges.places(*chest, (-1000.0, 400.0), MM)
    values = np.array([9.0, 7.0, 5.0, 4.0, 3.0, 2.0, 1.0])[where.depth]  # knows the distance, and nothing of bone
    some = edges.tally(values, where).drawn(np.arange(9))
    assert abs(edges.enrichment(some) - 1) > 0.05
    assert edges.by_depth(some) == pytest.approx(1.0)
    assert edges.by_both(some) == pytest.approx(1.0)


def test_an_interval_of_equal_slices_is_a_point_and_of_unequal_ones_is_not(edges, chest):
    where = edges.places(*chest, (-1000.0, 400.0), MM)
    values = np.where(where.bone_edge, 3.0, 1.0)
    same = edges.interval(edges.samples(edges.tally(values, where), edges.by_both, 0))
    assert same == {"value": 3.0, "low": 3.0, "high": 3.0}
    values = np.where(where.bone_edge, np.arange(1.0, 10.0), 1.0)
    some = edges.tally(values, where)
    drawn = edges.samples(some, edges.by_both, 0)
    found = edges.interval(drawn)
    assert found["low"] < found["value"] == 5.0 < found["high"]
    assert np.array_equal(drawn, edges.samples(some, edges.by_both, 0))
    assert edges.together([drawn, 4 * drawn], ratio=True) == pytest.approx(2 * drawn)


def test_results_are_of_the_shipped_network_and_complete(results):
    weights = ROOT / "src" / "pellucid" / "demo" / "models" / "lungs" / "weights.safetensors"
    assert results["network"]["sha256"] == hashlib.sha256(weights.read_bytes()).hexdigest()
    assert set(results["figures"]) >= {"as shipped", "zero at 40 HU", "untrained"}
    whom = {*results["series"], "both"}
    for methods in results["figures"].values():
        for figures in methods.values():
            for found in figures.values():
                assert set(found) == whom
                assert all(f["low"] <= f["high"] for f in found.values())


def test_the_page_quotes_the_results(results):
    page = PAGE.read_text(encoding="utf-8")

    def row(name: str, found: list[dict]) -> str:
        told = [f"{f['value']:.2f} [{f['low']:.2f}, {f['high']:.2f}]" for f in found]
        return f"\n| {' | '.join([name, *told])} |\n"

    matched = "over_control_same_depth_and_steepness"
    names = ("enrichment", "control_enrichment", "over_control_same_depth", matched)
    for method, figures in results["figures"]["as shipped"].items():
        assert row(method, [figures[name]["both"] for name in names]) in page, method
    for rule, others in results["rules_over"][matched].items():
        assert row(rule, [found["both"] for found in others.values()]) in page, rule
    assert "Two patients" in page
    assert "CC BY 4.0" in page
