"""The arithmetic of the benchmarks, and the panel's measurement on a tiny network; nothing depends on the clock."""

import ast
import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import nn

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"
SCRIPTS = sorted(p.stem for p in FOLDER.glob("*.py"))


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Iterator[object]:
    """Import a script of the folder by name, and forget all of them afterwards."""
    monkeypatch.syspath_prepend(str(FOLDER))
    before = set(sys.modules)

    def load(name: str) -> ModuleType:
        return importlib.import_module(name)

    yield load
    for name in set(sys.modules) - before:
        if name in SCRIPTS or name == "torchvision._meta_registrations":
            del sys.modules[name]


def tiny(script):
    network = nn.Sequential(
        nn.Conv2d(1, 4, 3, 2, 1), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)
    )
    return script("subjects").subject("tiny", network, (16, 16), "2")


def test_every_script_can_be_imported(script):
    assert len(SCRIPTS) > 5
    for name in SCRIPTS:
        assert script(name).__doc__


def test_every_benchmark_is_run(script):
    measuring = {
        p.stem
        for p in FOLDER.glob("*.py")
        if any(isinstance(n, ast.FunctionDef) and n.name == "measure" for n in ast.parse(p.read_text()).body)
    }
    assert set(script("run").BENCHMARKS) == measuring


def test_ratio_is_the_median_of_the_rounds_with_their_range(script):
    measuring = script("measuring")
    over, under = measuring.Timed(), measuring.Timed()
    over.seconds["cpu"].extend([2.0, 4.0, 6.0, 8.0, 10.0, 12.0, 70.0])
    under.seconds["cpu"].extend([1.0, 2.0, 2.0, 2.0, 2.0, 2.0, 7.0])
    assert measuring.ratio(over, under, "cpu") == measuring.Measured(4.0, 2.0, 10.0)


def test_interval_narrows_with_rounds(script):
    found = script("measuring").middle([float(i) for i in range(21)])
    assert (found.median, found.low, found.high) == (10.0, 5.0, 15.0)


def test_a_bar_looks_at_the_end_that_it_names(script):
    measuring = script("measuring")
    wide = measuring.Measured(1.1, 1.0, 1.3)
    assert not measuring.at_most(1.2, "x", wide)["met"]
    assert measuring.at_most(1.3, "x", wide)["met"]
    least = measuring.at_least(1.05, "x", wide)
    assert (least["met"], least["whole_interval"]) == (True, False)
    assert not measuring.at_least(1.2, "x", wide)["met"]
    assert not measuring.within(0.25, "x", 0.26)["met"]
    assert not measuring.exactly("x", {"forwards": 1}, {"forwards": 2})["met"]


def test_never_fewer_than_seven_rounds(script):
    assert script("measuring").Setting(rounds=0.01).take(21) == 7


def test_passes_are_counted_by_the_module_itself(script):
    measuring, subject = script("measuring"), tiny(script)
    x = subject.image.clone().requires_grad_()

    def twice():
        subject.network(subject.image)
        torch.autograd.grad(subject.network(x)[:, 0].sum(), x)

    found = measuring.counted(subject.network, twice)
    assert found == {"forwards": 2, "backwards": 1, "backwards_to_first_layer": 1}


def test_panel_of_a_tiny_network(script):
    panel, measuring = script("panel"), script("measuring")
    found, bars = panel.measured(tiny(script), measuring.Setting(rounds=0.1))
    counts = [bar for bar in bars if "passes" in bar["bar"]]
    assert len(counts) == 4
    assert all(bar["met"] for bar in counts)
    assert len(found["methods"]) == 11
    assert {row["rounds"] for row in found["times"].values()} == {7}
    assert json.loads(json.dumps(found)) == found


def test_gradient_maps_equal_captum(script):
    panel, subject = script("panel"), tiny(script)
    maps = panel.explained(subject.model, subject.image, panel.GRADIENTS, subject.label)[1]
    found = panel.compared(subject, maps, ())
    assert set(found) == set(maps)
    assert max(each["to captum"] for each in found.values()) < 1e-5


def test_table_shows_a_bar_that_is_not_met(script):
    run = script("run")
    bar = {"bar": "x: at most 1", "measured": 2.0, "interval": [1.5, 3.0], "met": False}
    table = run.tabled({"panel": {"bars": [bar]}, "paths": {"exit": 1, "bars": []}})
    assert list(table.columns[4].cells) == ["NO", "NO"]
    assert next(iter(table.columns[3].cells)) == "1.5 to 3"
