"""What the benchmark of the metrics compares is alike on both sides; nothing depends on the clock or on Quantus."""

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from pellucid.core.model import Model
from pellucid.core.prepare import InputSpec
from pellucid.core.target import ClassScore

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"
SCRIPTS = sorted(p.stem for p in FOLDER.glob("*.py"))
STEPS = 16


@pytest.fixture
def evaluation(monkeypatch: pytest.MonkeyPatch) -> Iterator[object]:
    monkeypatch.syspath_prepend(str(FOLDER))
    before = set(sys.modules)
    yield importlib.import_module("evaluation")
    for name in set(sys.modules) - before:
        if name in SCRIPTS or name == "torchvision._meta_registrations":
            del sys.modules[name]


@pytest.fixture
def case(evaluation):
    """A film of 28 x 28 on a small network."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        conv, linear = nn.Conv2d(1, 6, 5, 2), nn.Linear(6, 3)
    network = nn.Sequential(conv, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), linear).eval()
    x = torch.rand(1, 1, 28, 28, generator=torch.Generator().manual_seed(1))
    return evaluation.case(Model(network, (InputSpec(channels=1),)), x, ClassScore(1), 1, STEPS)


def test_the_map_has_no_ties_and_is_turned_without_values_below_zero(case) -> None:
    assert case.ranks.flatten().sort().values.tolist() == list(range(28 * 28))
    assert torch.equal(case.turned(-1), 783 - case.ranks)


@pytest.mark.parametrize(("signs", "fills", "forwards"), [((1, -1), (0.0,), 31), ((1,), (0.0, 0.5), 62)])
def test_both_orders_share_their_images_and_two_fills_do_not(evaluation, case, signs, fills, forwards) -> None:
    """A deletion ends where the insertion begins; the whole image is the shared pass."""
    counted = importlib.import_module("measuring").counted

    def four():
        return evaluation.asked(case, signs, fills, None, case.probe())

    assert len(four()) == 4  # the first lists the network's layers
    assert counted(case.model.module, four)["forwards"] == forwards + 1


def test_areas_are_compared_as_shares_of_the_span(evaluation, case) -> None:
    exact = evaluation.asked(case, (1,), (0.0,), None, case.probe())
    near = evaluation.asked(case, (1,), (0.0,), 0.05, case.probe())
    assert evaluation.off(exact, exact) == 0
    assert 0 <= evaluation.off(near, exact) < 0.05
    assert (evaluation.spans(exact) > 0).all()


def test_the_suite_has_the_same_metrics_on_both_sides(evaluation) -> None:
    rivals = importlib.import_module("rivals_quantus")
    theirs = rivals.suite(evaluation.BLOCKS, evaluation.BLOCK, evaluation.SUBSETS, 50)
    assert set(theirs) == set(evaluation.suite(50))
    assert theirs["PixelFlipping"]["features_in_step"] * evaluation.suite(50)["PixelFlipping"].steps == 28 * 28
