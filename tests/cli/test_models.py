"""``pellucid models``: check, layers, reference."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image as Picture

from pellucid.demo.cases import MODELS
from pellucid.io.models import load_model

Command = Callable[..., object]


def test_check_says_what_a_model_is_and_can(pellucid: Command) -> None:
    done = pellucid("models", "check", MODELS / "nodule" / "model.toml", "--json")
    assert done.code == 0
    assert done.json["labels"] == ["no nodule", "nodule"]
    assert {a["ability"]: a["can"] for a in done.json["abilities"]}["gradient"] is True
    assert all(g["passed"] for g in done.json["golden"])
    words = pellucid("models", "check", MODELS / "nodule" / "model.toml").out
    assert "What this model can and cannot do" in words
    assert "as promised" in words
    assert done.json["form"] == "safetensors"


def test_check_names_every_doubt_of_a_file_without_a_card(pellucid: Command, tmp_path: Path) -> None:
    import torch

    net = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    torch.jit.script(net).save(str(tmp_path / "net.pt"))
    done = pellucid("models", "check", tmp_path / "net.pt", "--trust-code", "--json")
    assert done.code == 0, done.err
    assert any("no model card" in doubt for doubt in done.json["doubts"])
    assert "doubt: no model card" in pellucid("models", "check", tmp_path / "net.pt", "--trust-code").out


def test_check_says_why_a_black_box_cannot(pellucid: Command, tmp_path: Path) -> None:
    import torch

    net = torch.jit.script(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 2)))
    net.save(str(tmp_path / "net.pt"))
    card = (
        '[model]\nname = "box"\nversion = "1"\ntask = "classification"\nmodality = ["x-ray"]\nweights = "net.pt"\n'
        'sha256 = "{sha}"\nlicense = "none"\n[[inputs]]\nname = "image"\nsize = [4, 4]\n'
        '[output]\nlabels = ["a", "b"]\nactivation = "softmax"\n'
    )
    import hashlib

    (tmp_path / "model.toml").write_text(
        card.format(sha=hashlib.sha256((tmp_path / "net.pt").read_bytes()).hexdigest())
    )
    done = pellucid("models", "check", tmp_path / "model.toml", "--trust-code", "--json")
    assert done.code == 0, done.err
    lacking = {a["ability"]: a["why"] for a in done.json["abilities"] if not a["can"]}
    assert {"hooks", "edits", "rules"} <= set(lacking)
    assert all(lacking.values()), "every refusal says why"


def test_layers_lists_shapes_and_the_default(pellucid: Command) -> None:
    done = pellucid("models", "layers", MODELS / "nodule" / "model.toml", "--json")
    assert done.code == 0
    assert sum(row["default"] for row in done.json) == 1
    assert all(row["shape"][0] == 1 for row in done.json)


def test_layers_without_a_size_asks_for_an_image(pellucid: Command, classifier: Path) -> None:
    text = classifier.read_text().replace("size = [64, 64]\n", "")
    classifier.write_text(text)
    done = pellucid("models", "layers", classifier, "--trust-code")
    assert done.code == 2
    assert "--case" in done.err


def test_reference_is_measured_written_and_used(pellucid: Command, classifier: Path, tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    for folder, count in (("cohort", 3), ("normals", 59)):
        (tmp_path / folder).mkdir()
        for index in range(count):
            Picture.fromarray(draw.integers(0, 255, (24, 24), np.uint8)).save(tmp_path / folder / f"{index}.png")
    done = pellucid(
        "models", "reference", classifier, tmp_path / "cohort", "--normals", tmp_path / "normals", "--words", "noise",
        "--target", "finding", "--method", "HiResCAM", "--trust-code", "--json",
    )  # fmt: skip
    assert done.code == 0, done.err
    reference = load_model(classifier, trust_code=True).references["HiResCAM"]["finding"]
    assert reference.n_null == 59
    assert reference.n_scale == 62
    assert reference.null is not None
    assert reference.cohort == "noise"
