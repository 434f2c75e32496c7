"""The technical lung network: its card says what was measured, and it explains a real CT series in DICOM."""

import json
import tomllib
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np

from pellucid.demo.cases import MODELS
from pellucid.io.models import load_model
from pellucid.workbench.delivery import checked

FOLDER = MODELS / "lungs"
RESULTS = Path(__file__).resolve().parents[2] / "training" / "results" / "lungs.json"


def test_the_card_keeps_its_promises_and_says_what_it_is() -> None:
    loaded = load_model(FOLDER)
    assert all(result.passed for result in checked(loaded).golden)
    assert loaded.trust == "not needed"
    card, record = tomllib.loads((FOLDER / "model.toml").read_text()), json.loads(RESULTS.read_text())
    measured = record["shipped"]["test"]
    row = card["performance"][0]
    assert (row["value"], row["low"], row["high"]) == tuple(measured["dice"][k] for k in ("value", "low", "high"))
    assert row["low"] > 0.8
    assert card["model"]["sha256"] == record["weights"]["sha256"]
    facts = card["facts"]
    assert "technical model" in facts["intended_use"]
    assert "clinical use" in facts["out_of_scope"]
    assert "threshold" in facts["training_data"]
    assert "two patients" in facts["gaps"]


def test_a_real_series_is_explained_where_the_lung_lies(
    pellucid: Callable[..., object], shared_data: Path, tmp_path: Path
) -> None:
    series = shared_data / "ct_lung_boxes" / "Lung_Dx-A0001_s1"
    done = pellucid("explain", series, "--model", FOLDER, "--out", tmp_path, "--json", "--method", "LRP")
    assert done.code == 0, done.err
    case = done.json["cases"][0]
    assert [(e["method"], e["target"]) for e in case["explanations"]] == [("LRP", "lung where predicted")]
    values = np.abs(nib.load(case["files"]["nifti LRP"]).get_fdata())
    assert sorted(values.shape) == [15, 512, 512]
    assert values.max() > 0
