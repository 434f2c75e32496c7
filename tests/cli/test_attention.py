"""Methods that read attention through the command, on a real film and the demo's vision transformer."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from pellucid.core.card import Family
from pellucid.demo.cases import MODELS
from pellucid.io.archive import load_explanation
from pellucid.io.models import load_model
from pellucid.workbench.delivery import checked
from pellucid.workbench.registry import explainers

GATES = {"SpatialGate", "ChannelGate"}
CARD = MODELS / "pneumonia_transformer" / "model.toml"


def test_attention_of_a_real_film(pellucid: Callable[..., object], shared_data: Path, tmp_path: Path) -> None:
    path = sorted((shared_data / "xray_nih" / "images").glob("*.jpg"))[0]
    family = {name for name, cls in explainers().items() if cls.card.family is Family.ATTENTION} | {"AttnLRP"}
    wanted = [word for name in sorted(family - GATES) for word in ("--method", name)]
    done = pellucid("explain", path, "--model", CARD, "--out", tmp_path / "o", "--override", "--json", *wanted)
    assert done.code == 0, done.err
    case = done.json["cases"][0]
    assert {e["method"] for e in case["explanations"]} == family - GATES
    for name in family - GATES:
        found = load_explanation(Path(case["files"][f"archive {name}"]))
        assert np.isfinite(found.numpy()).all()
        assert found.numpy().any()
        assert found.attribution.cell == ((1.0, 1.0) if name == "AttnLRP" else (4.0, 4.0))


def test_gates_are_refused_where_there_are_none(
    pellucid: Callable[..., object], shared_data: Path, tmp_path: Path
) -> None:
    path = sorted((shared_data / "xray_nih" / "images").glob("*.jpg"))[0]
    done = pellucid("explain", path, "--model", CARD, "--out", tmp_path / "o", "--override", "--method", "SpatialGate")
    assert done.code == 2
    assert "no attention gate over places" in done.err


def test_a_convolutional_network_refuses_the_family(
    pellucid: Callable[..., object], shared_data: Path, tmp_path: Path
) -> None:
    path = sorted((shared_data / "xray_nih" / "images").glob("*.jpg"))[0]
    card = MODELS / "pneumonia" / "model.toml"
    done = pellucid(
        "explain", path, "--model", card, "--out", tmp_path / "o", "--override", "--method", "AttentionRollout"
    )
    assert done.code == 2
    assert "no attention over tokens" in done.err
    assert "GradCAM" in done.err


def test_the_transformer_gives_the_scores_its_card_promises() -> None:
    loaded = load_model(CARD)
    assert all(r.passed for r in checked(loaded).golden)
    assert loaded.trust == "not needed"
