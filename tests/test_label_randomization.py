"""The study of shuffled labels: its parts give what they must, a small run goes through, its page quotes it."""

import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "studies" / "label_randomization"
PAGE = ROOT / "docs" / "studies" / "label_randomization.md"
OURS = ("run", "picture", "comparing", "fitting", "pneumonia", "common")


@pytest.fixture
def study(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(str(FOLDER))
    before, others = list(sys.path), {name: sys.modules.pop(name) for name in OURS if name in sys.modules}
    yield importlib.import_module("run")
    sys.path[:] = before
    for name in OURS:
        sys.modules.pop(name, None)
    sys.modules.update(others)


@pytest.fixture(scope="module")
def results() -> dict:
    return json.loads((FOLDER / "results.json").read_text(encoding="utf-8"))


def films(study, count):
    """Half of them with a bright corner, which is what the labels say."""
    labels = np.arange(count) % 2
    images = torch.randn(count, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    images[labels == 1, :, :8, :8] += 2
    return study.fitting.Films(images, labels)


def test_a_pair_of_one_seed_differs_in_its_labels_only(study):
    some = films(study, 40)
    one, two, again = (study.fitting.fit(some, some, kind, 3, 1) for kind in ("true", "shuffled", "true"))
    assert all(torch.equal(a, b) for a, b in zip(one.module.parameters(), again.module.parameters(), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(one.module.parameters(), two.module.parameters(), strict=True))
    told = study.fitting.shuffled(some.labels, 3)
    assert told.sum() == some.labels.sum()
    assert (told != some.labels).any()
    assert (study.fitting.shuffled(some.labels, 4) != told).any()


def test_the_network_learns_labels_and_its_score_of_true_ones_shows_it(study):
    training, held_out = films(study, 60), films(study, 80)
    one = study.fitting.fit(training, held_out, "true", 0, 6)
    assert one.remembered > 0.95
    assert one.auc > 0.95


def test_another_task_is_learned_too(study):
    training, held_out = films(study, 60), films(study, 80)
    for some in (training, held_out):
        some.images[::3] += 0.5
    level = float(training.images.flatten(1).mean(1).median())
    assert study.fitting.bright(training, level).sum() == 30
    one = study.fitting.fit(training, held_out, "brightness", 0, 10)
    assert one.learned > 0.9
    assert one.learned != one.auc


def test_films_are_standardized_by_those_trained_on(study):
    some, other = films(study, 20), films(study, 10)
    got = study.fitting.standardized(some, some)
    assert float(got.images.mean()) == pytest.approx(0, abs=1e-5)
    assert float(got.images.std()) == pytest.approx(1, abs=1e-5)
    back = study.fitting.standardized(other, some).images * some.images.std() + some.images.mean()
    assert torch.allclose(back, other.images, atol=1e-5)


def test_known_maps_have_known_similarities(study):
    """True networks of all seeds agree; shuffled ones are their negatives, or have nothing to do with them."""
    base, comparing = torch.randn(5, 28, 28, generator=torch.Generator().manual_seed(1)), study.comparing
    maps = {("true", s): base for s in (0, 1)} | {(kind, s): -base for kind in study.fitting.KINDS[1:] for s in (0, 1)}
    told = comparing.summary(comparing.similarities(maps, True, (0, 1)))
    assert told["ranks"]["lost with the labels"] == {"value": 2.0, "low": 2.0, "high": 2.0}
    assert told["ranks of magnitudes"]["lost with the labels"] == {"value": 0.0, "low": 0.0, "high": 0.0}
    other = torch.randn(2, 5, 28, 28, generator=torch.Generator().manual_seed(2))
    told = comparing.summary(comparing.similarities(maps | {("shuffled", s): other[s] for s in (0, 1)}, True, (0, 1)))
    for measure in comparing.MEASURES:
        assert told[measure]["true, true"]["value"] == pytest.approx(1)
        assert abs(told[measure]["true, shuffled"]["value"]) < 0.1
        assert abs(told[measure]["shuffled, shuffled"]["value"]) < 0.1
        assert told[measure]["films"] == 5


def test_a_film_without_a_map_is_left_out_and_counted(study):
    base = torch.randn(4, 28, 28, generator=torch.Generator().manual_seed(3))
    blank = torch.cat([torch.zeros(1, 28, 28), base[1:]])
    maps = {(kind, s): base if kind == "true" else blank for kind in study.fitting.KINDS for s in (0, 1)}
    told = study.comparing.summary(study.comparing.similarities(maps, True, (0, 1)))
    assert told["ranks"]["films"] == 3
    assert told["ranks"]["true, shuffled"]["value"] == pytest.approx(1)


def test_an_interval_holds_its_mean(study):
    draw = np.random.default_rng(0)
    found = study.comparing.interval(draw.normal(0.3, 0.1, 100))
    assert found["low"] < found["value"] < found["high"]
    assert found["high"] - found["low"] == pytest.approx(2 * 1.96 * 0.1 / 10, rel=0.3)


def test_a_small_run_on_real_films(study, shared_data, monkeypatch, tmp_path):
    few = {name: study.METHODS[name] for name in (*study.picture.SHOWN, "edges of the image (no network)")}
    monkeypatch.setattr(study, "METHODS", few)
    record, shown, maps = study.study(shared_data, study.Size(each=10, shown=3, epochs=1, seeds=(0, 1)))
    assert len(shown.labels) == 6
    assert set(record["figures"]) == set(few)
    edges = record["figures"]["edges of the image (no network)"]
    for measure in study.comparing.MEASURES:
        assert [edges[measure][kind]["value"] for kind in study.comparing.PAIRS] == [1.0] * 5
        assert edges[measure]["lost with the labels"]["value"] == 0
    study.picture.draw(shown, maps, record, tmp_path / "picture.png")
    assert (tmp_path / "picture.png").stat().st_size > 10_000


def test_the_page_quotes_the_results(results):
    page = PAGE.read_text(encoding="utf-8")

    def told(found: dict) -> str:
        return f"{found['value']:.2f} [{found['low']:.2f}, {found['high']:.2f}]"

    for method, figures in results["figures"].items():
        for measure in ("ranks of magnitudes", "ranks"):
            kinds = ("true, true", "true, shuffled", "true, brightness", "lost with the labels")
            row = " | ".join([method, *(told(figures[measure][kind]) for kind in kinds)])
            assert f"\n| {row} |\n" in page, (method, measure)
    for kind in ("true", "shuffled", "brightness"):
        assert ", ".join(f"{auc:.2f}" for auc in results["networks"][kind]["auc_held_out"]) in page
        assert min(results["networks"][kind]["remembered"]) > 0.99
    assert "CC BY 4.0" in page
