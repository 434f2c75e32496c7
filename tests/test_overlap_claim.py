"""The study of overlap: its parts give what they must, a small run goes through, its page quotes it."""

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
FOLDER = ROOT / "studies" / "overlap_claim"
PAGE = ROOT / "docs" / "studies" / "overlap.md"
OURS = ("run", "picture", "overlapping", "crops", "fitting", "nodule", "common")
PAIR = ("GradCAMPlusPlus", "GradCAM")


@pytest.fixture
def study(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(str(FOLDER))
    before = list(sys.path)
    for name in OURS:
        sys.modules.pop(name, None)
    yield importlib.import_module("run")
    sys.path[:] = before
    for name in OURS:
        sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def results() -> dict:
    return json.loads((FOLDER / "results.json").read_text(encoding="utf-8"))


def test_corners_hold_what_they_say(study):
    draw = np.random.default_rng(0)
    mask = np.zeros((90, 110), dtype=bool)
    mask[20:50, 30:60] = True
    dark = draw.random(mask.shape) < 0.02
    dark[:, :12] = True
    holding, empty = study.crops.corners(mask, dark)
    side = study.crops.SIDE
    every = [(r, c) for r in range(90 - side + 1) for c in range(110 - side + 1)]
    share = {at: mask[at[0] : at[0] + side, at[1] : at[1] + side].mean() for at in every}
    black = {at: dark[at[0] : at[0] + side, at[1] : at[1] + side].mean() for at in every}
    low, high = study.crops.HELD
    lit = [at for at in every if black[at] <= study.crops.DARK_SHARE]
    assert [tuple(at) for at in holding] == [at for at in lit if low <= share[at] <= high]
    assert [tuple(at) for at in empty] == [at for at in lit if share[at] == 0]
    assert len(holding)
    assert len(lit) < len(every)


def test_a_perfect_map_a_wrong_one_and_a_blank_one(study):
    lesion = torch.zeros(20, 20, dtype=torch.bool)
    lesion[2:10, 2:12] = True  # 80 of 400: the top 20%
    found = study.overlapping.scores(lesion.double(), lesion)
    for name in ("area", "Otsu", "half of max", "top 20%"):
        assert [found[o, name] for o in study.overlapping.OVERLAPS] == [1, 1, 1, 1]
    assert found["coverage", "top 10%"] == pytest.approx(0.5)
    assert found["precision", "top 10%"] == pytest.approx(1)
    assert found["IoU", "top 10%"] == pytest.approx(0.5)
    assert found["Dice", "top 10%"] == pytest.approx(2 / 3)
    assert found["hit", "none"] == 1
    wrong = study.overlapping.scores(1 - lesion.double(), lesion)
    assert wrong["coverage", "half of max"] == 0
    assert wrong["share marked", "half of max"] == pytest.approx(0.8)
    assert wrong["hit", "none"] == 0
    blank = study.overlapping.scores(torch.zeros(20, 20), lesion)
    assert all(np.isnan(blank[key]) for key in study.overlapping.COMBINATIONS)


def made(study, better: float, worse: float):
    """A setting whose scores are known: every crop the same but for a little that both methods share."""
    noise = np.random.default_rng(0).normal(0, 0.05, 30)
    other = np.random.default_rng(1).normal(0, 0.01, 30)
    keys = [*study.overlapping.COMBINATIONS, *(("share marked", t) for t in study.overlapping.THRESHOLDS)]
    tables = {
        PAIR[0]: [dict.fromkeys(keys, better + n + o) for n, o in zip(noise, other, strict=True)],
        PAIR[1]: [dict.fromkeys(keys, worse + n) for n in noise],
    }
    return study.overlapping.Setting("made", "last", tables, np.repeat(np.arange(15), 2).astype(str))


def test_a_planted_gap_is_found_and_counted(study):
    told = study.overlapping.summary(made(study, 0.75, 0.4))
    assert len(told["rows"]) == 21
    for row in told["rows"]:
        assert row["gap"]["value"] == pytest.approx(0.35, abs=0.01)
        assert row["gap"]["low"] > 0.32
        assert row["crops"] == 30
        assert row["images"] == 15
        assert row["first"][PAIR[0]] == 1
    whole = study.overlapping.tally([told])
    assert len(whole["as large as the claim"]) == whole["combinations"] == 21
    assert whole["above 0, interval too"] == 21
    assert whole["range when only one choice moves"]["threshold"]["largest"] == 0
    none = study.overlapping.tally([study.overlapping.summary(made(study, 0.4, 0.41))])
    assert none["as large as the claim"] == []
    assert none["below 0, interval too"] == 21


def test_a_blank_map_is_left_out_and_counted(study):
    setting = made(study, 0.75, 0.4)
    blank = dict.fromkeys(setting.tables[PAIR[1]][0], np.nan)
    tables = {PAIR[0]: setting.tables[PAIR[0]], PAIR[1]: [blank, *setting.tables[PAIR[1]][1:]]}
    told = study.overlapping.summary(replace(setting, tables=tables))
    assert told["blank maps"] == {PAIR[0]: 0, PAIR[1]: 1}
    assert {row["crops"] for row in told["rows"]} == {29}
    assert all(row["blank counts as none"] > row["gap"]["value"] for row in told["rows"])


def test_the_network_learns_a_bright_square(study, tmp_path):
    draw, shots = np.random.default_rng(0), []
    for at in range(8):
        mask = np.zeros((100, 130), dtype=bool)
        mask[30:55, 20:45] = True
        pixels = (draw.integers(0, 60, (100, 130)) + 120 * mask).astype(np.uint8)[..., None]
        shots.append(study.crops.Shot(str(at), pixels, mask, *study.crops.corners(mask, np.zeros_like(mask))))
    module = study.fitting.fit(shots, 0, 12, tmp_path / "square-0.safetensors")
    held = study.crops.drawn(shots, 2, np.random.default_rng(1))
    given = study.logits(module, held.images)
    assert given[held.labels == 1].min() > given[held.labels == 0].max()
    again = study.fitting.fit(shots, 0, 12, tmp_path / "square-0.safetensors")
    assert np.array_equal(study.logits(again, held.images), given)


def test_a_small_run_on_real_images(study, shared_data, monkeypatch, tmp_path):
    monkeypatch.setattr(study, "LEARNED", 0.0)
    monkeypatch.setattr(study.overlapping, "BY", replace(study.overlapping.BY, times=100, kind="percentile"))
    monkeypatch.setattr(study.crops, "ZOOM", {"polyps": study.crops.ZOOM["polyps"]})
    record = study.study(shared_data, tmp_path, study.Size(images=8, films=4, each=2, steps=8, seeds=(0,)))
    assert set(record["networks"]) == {"polyps 0", "nodules"}
    assert record["networks"]["nodules"]["auc"]["value"] > 0.7
    for one in record["settings"]:
        assert set(one["blank maps"]) == {*study.METHODS, "center blob", "edges of the image"}
        assert one["blank maps"]["center blob"] == one["blank maps"]["edges of the image"] == 0
    study.picture.draw(record, tmp_path / "picture.png")
    assert (tmp_path / "picture.png").stat().st_size > 10_000


def test_the_page_quotes_the_results(results):
    page = PAGE.read_text(encoding="utf-8")
    tally = results["tally"]
    for network, found in results["networks"].items():
        auc = found["auc"]
        row = f"| {network} | {auc['value']:.2f} [{auc['low']:.2f}, {auc['high']:.2f}] |"
        assert row in page, network
        assert found["learned"] == (auc["low"] >= results["counts if the lower bound of its AUC reaches"])
    assert f"{len(tally['as large as the claim'])} of {tally['combinations']} combinations" in page
    assert f"in {tally['above 0, interval too']}, behind in {tally['below 0, interval too']}." in page
    own = tally["each may have its own threshold"]
    assert f"{own['as large as the claim']} of {own['pairs']} pairs" in page
    assert (tally["first at least .73, second at most .41"] == []) == ("No combination gives\n73% and 41%" in page)
    for choice, found in tally["range when only one choice moves"].items():
        assert f"| {choice} | {100 * found['median']:.0f} | {100 * found['largest']:.0f} |" in page, choice
