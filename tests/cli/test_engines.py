"""``pellucid models engines`` and ``--engine``."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom.data
import pytest
from safetensors.numpy import load_file

from pellucid.demo.cases import MODELS
from pellucid.engines.choosing import OFFERS

Command = Callable[..., object]
MODEL = MODELS / "pneumonia" / "model.toml"


@pytest.fixture
def film() -> Path:
    """A chest film that lies in an installed package."""
    path = pydicom.data.get_testdata_file("RG1_UNCR.dcm", download=False)
    assert path is not None
    return Path(str(path))


def test_every_engine_is_listed_with_its_figures_or_the_reason(pellucid: Command, film: Path) -> None:
    done = pellucid("models", "engines", film, "--model", MODEL, "--json")
    assert done.code == 0, done.err
    rows, refused = done.json["engines"], done.json["refused"]
    assert rows[0]["name"] == "eager"
    assert rows[0]["speedup"] == 1.0
    assert {*(r["name"] for r in rows), *(r["name"] for r in refused)} == {"eager", *(o.name for o in OFFERS)}
    assert all(r["ms_each"] > 0 and r["r"] > 0.98 for r in rows)
    assert all(r["why"] for r in refused)
    words = pellucid("models", "engines", film, "--model", MODEL).out
    assert "measured on this machine" in words
    assert "cuda refused: it is for models on cuda" in words


def test_an_explanation_names_its_engine_and_its_error(pellucid: Command, film: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    run = ("explain", film, "--model", MODEL, "--override", "--no-checks", "--method", "Occlusion:window=64,stride=64")
    fast = pellucid(*run, "--engine", "onnx", "--out", tmp_path / "fast", "--json")
    assert fast.code == 0, fast.err
    made = fast.json["cases"][0]["explanations"][0]
    assert made["engine"] == "onnx"
    assert any(w.startswith("computed with onnx (float32): effect error") for w in made["warnings"])
    page = Path(fast.json["cases"][0]["files"]["report"]).read_text(encoding="utf-8")
    assert "computed with onnx (float32): effect error" in page
    plain = pellucid(*run, "--out", tmp_path / "plain", "--json")
    assert plain.json["cases"][0]["explanations"][0]["engine"] == "eager"
    found = [next(f.glob("*/Occlusion.safetensors")) for f in (tmp_path / "fast", tmp_path / "plain")]
    maps = [load_file(f)["map.image"] for f in found]
    assert np.abs(maps[0] - maps[1]).max() <= 1e-4 * np.abs(maps[1]).max()


def test_an_engine_of_no_name_is_refused(pellucid: Command, film: Path, tmp_path: Path) -> None:
    words = ("explain", film, "--model", MODEL, "--override", "--method", "Occlusion", "--engine", "warp")
    done = pellucid(*words, "--out", tmp_path)
    assert done.code == 2
    assert "no engine 'warp'" in done.err
    assert "engines: eager" in done.err
