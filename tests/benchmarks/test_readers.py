"""The judge of readers finds a wrong place, a wrong value and a refusal."""

import importlib
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch, shared_data: Path, tmp_path: Path):
    monkeypatch.syspath_prepend(str(FOLDER))
    readers = importlib.import_module("readers")
    sys.modules.pop("readers")
    source = min(p for p in (shared_data / "ct_lung_boxes").iterdir() if p.is_dir())
    return readers, readers.spoiled(source, tmp_path)


def test_who_is_right_and_who_is_wrong_without_a_word(made) -> None:
    readers, folders = made
    for what in ("shuffled names", "oblique"):
        for read in (readers.by_pellucid, readers.by_simpleitk):
            assert readers.verdict(read, folders[what])["right"], what
    assert "tilted gantry" in readers.verdict(readers.by_pellucid, folders["tilted gantry"])["refused"]
    assert not readers.verdict(readers.by_simpleitk, folders["tilted gantry"])["right"]
    assert readers.verdict(readers.by_pellucid, folders["MONOCHROME1 in HU"])["largest_value"] == 0
    assert readers.verdict(readers.by_simpleitk, folders["MONOCHROME1 in HU"])["largest_value"] > 1000


def test_a_shift_and_a_swap_are_seen(made) -> None:
    readers, folders = made
    folder = folders["shuffled names"]
    good = readers.by_pellucid(folder)
    moved = good.matrix.copy()
    moved[2, 3] += 3.0
    assert readers.verdict(lambda _: replace(good, matrix=moved), folder)["right"] is False
    turned = replace(good, values=good.values.flip(2))
    assert readers.verdict(lambda _: turned, folder)["right"] is False
    assert np.isfinite(readers.verdict(readers.by_pellucid, folder)["largest_mm"])
