"""What the benchmark of perturbation loops compares is alike on both sides; nothing depends on the clock."""

import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from pellucid.core.model import Model
from pellucid.core.prepare import InputSpec
from pellucid.core.target import ClassScore
from pellucid.engines.eager import eager
from pellucid.explain.occlusion import Occlusion

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"
SCRIPTS = sorted(p.stem for p in FOLDER.glob("*.py"))


@pytest.fixture
def loops(monkeypatch: pytest.MonkeyPatch) -> Iterator[object]:
    monkeypatch.syspath_prepend(str(FOLDER))
    before = set(sys.modules)
    yield importlib.import_module("loops")
    for name in set(sys.modules) - before:
        if name in SCRIPTS or name == "torchvision._meta_registrations":
            del sys.modules[name]


@pytest.fixture
def taught(loops):
    """A small network in the place of the one that is taught for minutes."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        conv, linear = nn.Conv2d(1, 6, 5, 2), nn.Linear(6, 3)
    network = nn.Sequential(conv, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), linear).eval()
    images = torch.rand(4, 1, 64, 64, generator=torch.Generator().manual_seed(1))
    targets = tuple(ClassScore(i % 3) for i in range(4))
    return importlib.import_module("taught").Taught(
        "tiny", Model(network, (InputSpec(channels=1),)), images, targets, images, ""
    )


@pytest.mark.filterwarnings("ignore:Using a non-tuple sequence")  # in MONAI
def test_the_same_windows_give_captums_and_monais_map(loops, taught) -> None:
    plain = loops.opened(taught, 2, None)
    fast = [p.through(eager(taught.model)) for p in plain]
    method = Occlusion(loops.WINDOW, loops.STEP, infill=loops.FILL)
    for slow, quick in zip(plain, fast, strict=True):
        found = loops.compared(method, taught.model.module, slow, quick)
        assert set(found) == {"captum", "MONAI"}
        assert max(found.values()) < 1e-5
        assert method.cost(slow).forwards == 9


def test_bare_forwards_are_as_many_as_the_method_makes(loops, taught) -> None:
    probe = loops.opened(taught, 1, None)[0]
    for count in (3, 8, 21):
        for engine in (None, eager(taught.model)):
            assert len(loops.bare(taught.model.module, engine, count, probe)) == count
    assert probe.spent.own.forwards == 0  # the prediction is not the method's


def test_both_sides_see_the_same_images_in_the_same_order(loops) -> None:
    seen: dict[str, list[int]] = {"ours": [], "theirs": []}
    ours, theirs = (loops.Turns(seen[k].append, range(3)) for k in seen)
    for _ in range(5):
        ours()
        theirs()
    assert seen["ours"] == seen["theirs"] == [0, 1, 2, 0, 1]


def test_fewer_forwards_are_counted_at_the_papers_correlation(loops, monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(loops, "__file__", str(tmp_path / "loops.py"))
    assert loops.fewer_forwards() == {}
    (tmp_path / "results").mkdir()
    bars = [
        {"bar": "logit: forwards of paper 4000 / ours at its correlation: at least 8", "measured": 9.5},
        {"bar": "logit: forwards of normalized 2000 / ours at its correlation: at least 2", "measured": 2.5},
    ]
    (tmp_path / "results" / "rise_nodule.json").write_text(json.dumps({"bars": bars}))
    assert loops.fewer_forwards() == {"nodule, logit": 9.5}


def test_what_cannot_be_measured_is_told_and_leaves_no_file(loops, monkeypatch, tmp_path, capsys) -> None:
    measuring = importlib.import_module("measuring")
    for name, value in measuring.ONE_THREAD.items():
        monkeypatch.setenv(name, value)
    threads = torch.get_num_threads()

    def absent(setting):
        raise measuring.CannotMeasure("no images")

    monkeypatch.setattr(sys, "argv", ["x", "--out", str(tmp_path), "--light"])
    assert measuring.run("x", absent) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["absent"], told["bars"], list(tmp_path.iterdir())) == ("no images", [], [])
    assert measuring.run("x", lambda setting: {"light": setting.light, "bars": []}) == 0
    assert json.loads((tmp_path / "x_light.json").read_text())["light"] is True
    torch.set_num_threads(threads)
