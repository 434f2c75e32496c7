"""The arithmetic of the Shapley benchmark, on a game whose values are known; nothing depends on the clock."""

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"
SCRIPTS = sorted(p.stem for p in FOLDER.glob("*.py"))


@pytest.fixture
def shapley(monkeypatch: pytest.MonkeyPatch) -> Iterator[object]:
    monkeypatch.syspath_prepend(str(FOLDER))
    before = set(sys.modules)
    yield importlib.import_module("shapley")
    for name in set(sys.modules) - before:
        if name in SCRIPTS:
            del sys.modules[name]


def paid(pairs: float, triples: float) -> torch.Tensor:
    """Player j is worth j; the first two together ``pairs`` more, the next three ``triples`` more."""
    shown = (torch.arange(2**16)[:, None] >> torch.arange(16)) % 2 == 1
    alone = shown.double() @ torch.arange(16).double()
    return alone + pairs * shown[:, :2].all(1) + triples * shown[:, 2:5].all(1)


def test_what_is_paid_from_the_table_is_kernel_shap(shapley) -> None:
    right = np.arange(16.0)
    right[:2] += 1.5
    assert np.allclose(shapley.ours(paid(3, 0), 128, 0), right), "pairs of players cannot err"
    right[2:5] += 2
    off = np.abs(shapley.ours(paid(3, 6), 128, 0) - right).max()
    assert 1e-3 < off < 2
    assert shapley.error(lambda seed: shapley.ours(paid(3, 6), 512, seed), right, range(3)) < 0.05


def test_peers_ask_the_same_table(shapley) -> None:
    rows = np.zeros((3, 16))
    rows[1, [0, 1]], rows[2, 15] = 1, 1
    assert shapley.looked_up(paid(3, 0), rows).tolist() == [0, 4, 15]


def test_coalitions_that_are_needed(shapley) -> None:
    found = {f"ours {n}": 1 / n for n in shapley.OURS} | {"captum 2048": 1 / 300, "shap 1024": 0.0}
    assert shapley.needed(found, "captum 2048") == 384
    assert shapley.needed(found, "shap 1024") == 2 * max(shapley.OURS)


def test_films_that_are_not_there_are_told(shapley, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shapley, "FILMS", Path("nowhere.npz"))
    with pytest.raises(sys.modules["measuring"].CannotMeasure, match="PneumoniaMNIST"):
        shapley.taught()
