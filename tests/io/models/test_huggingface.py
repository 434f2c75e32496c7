"""Folders of the Hugging Face layout: made here by transformers itself, and held against its own processing."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from PIL import Image as Picture
from safetensors.torch import load_file, save_file
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from pellucid.core.errors import BadCard, ModelError, WeightsMismatch
from pellucid.core.prepare import prepare
from pellucid.io.modelform import Form
from pellucid.io.models import head_output, load_model
from pellucid.io.reader import read_image

VIT = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "image_size": 32,
    "patch_size": 8,
    "num_channels": 3,
    "id2label": {"0": "benign", "1": "malignant", "2": "normal"},
}
RESNET = {
    "embedding_size": 8,
    "hidden_sizes": [8, 16],
    "depths": [1, 1],
    "layer_type": "basic",
    "num_channels": 1,
    "id2label": {"0": "no", "1": "yes"},
}
SEGFORMER = {
    "num_channels": 3,
    "depths": [1, 1, 1, 1],
    "hidden_sizes": [8, 8, 16, 16],
    "num_attention_heads": [1, 1, 2, 2],
    "decoder_hidden_size": 16,
    "id2label": {"0": "background", "1": "polyp"},
}
PROCESSOR = {
    "do_resize": True,
    "size": {"height": 32, "width": 32},
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": [0.5, 0.4, 0.3],
    "image_std": [0.2, 0.25, 0.5],
}
README = """---
license: apache-2.0
model_name: breast ultrasound
datasets:
- BUSI
---
# Model
"""


@pytest.fixture
def saved(tmp_path: Path) -> Callable[..., Path]:
    """A folder as save_pretrained writes it, with a processor and a README."""

    def make(kind: str, name: str, told: dict[str, Any], processor: dict[str, Any] | None = PROCESSOR) -> Path:
        folder = tmp_path / name
        torch.manual_seed(5)
        transformers.utils.logging.disable_progress_bar()
        getattr(transformers, name)(CONFIG_MAPPING[kind].from_dict(told)).eval().save_pretrained(folder)
        transformers.utils.logging.enable_progress_bar()
        if processor is not None:
            (folder / "preprocessor_config.json").write_text(json.dumps(processor), encoding="utf-8")
        (folder / "README.md").write_text(README, encoding="utf-8")
        return folder

    return make


def config(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), **changes}), encoding="utf-8")


def test_a_vision_transformer_gives_what_transformers_gives(
    saved: Callable[..., Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = saved("vit", "ViTForImageClassification", VIT)
    values = np.random.default_rng(0).integers(0, 255, (32, 32, 3), dtype=np.uint8)
    Picture.fromarray(values).save(tmp_path / "x.png")
    capfd.readouterr()
    loaded = load_model(folder)
    assert capfd.readouterr() == ("", ""), "nothing of transformers goes onto the screen"
    assert (loaded.form, loaded.trust) == (Form.HUGGINGFACE, "not needed")
    torch.manual_seed(5)
    reference = transformers.ViTForImageClassification(CONFIG_MAPPING["vit"].from_dict(VIT)).eval()
    pixels = (torch.from_numpy(values).permute(2, 0, 1) / 255 - torch.tensor([0.5, 0.4, 0.3])[:, None, None]) / (
        torch.tensor([0.2, 0.25, 0.5])[:, None, None]
    )
    with torch.no_grad():
        wanted = reference(pixel_values=pixels[None]).logits
    got = head_output(loaded, {"image": read_image(tmp_path / "x.png")})
    assert torch.allclose(got, wanted, atol=1e-5)
    assert loaded.model.output.labels == ("benign", "malignant", "normal")
    assert loaded.model.can.gradient
    assert loaded.model.can.hooks
    card = loaded.card
    assert (card.model.name, card.model.license) == ("breast ultrasound", "apache-2.0")
    assert card.facts.training_data == "BUSI"
    assert any("8 bits" in note for note in loaded.notes)


def test_a_gray_network_without_a_processor_says_what_is_not_known(saved: Callable[..., Path]) -> None:
    loaded = load_model(saved("resnet", "ResNetForImageClassification", RESNET, None))
    assert loaded.model.inputs[0].channels == 1
    assert any("does not say how images are prepared" in note for note in loaded.notes)
    assert loaded.model({"image": torch.zeros(2, 1, 32, 32)}).shape == (2, 2)


def test_a_segmentation_answers_at_the_size_of_its_image(saved: Callable[..., Path]) -> None:
    loaded = load_model(saved("segformer", "SegformerForSemanticSegmentation", SEGFORMER))
    assert loaded.model.output.task == "segmentation"
    assert loaded.model({"image": torch.zeros(1, 3, 32, 64)}).shape == (1, 2, 32, 64)


@pytest.mark.parametrize(
    ("change", "fit", "value", "said"),
    [
        ({"do_normalize": False}, "stretch", 0.6, "8 bits"),
        ({"do_rescale": False, "do_normalize": False}, "stretch", 153.0, "8 bits"),
        ({"rescale_factor": 1 / 127.5, "rescale_offset": True, "do_normalize": False}, "stretch", 0.2, ""),
        ({"size": {"shortest_edge": 36}, "do_center_crop": True, "crop_size": 32}, "cover", 0.5, "cut to"),
        ({"size": {"shortest_edge": 32}}, "cover", 0.5, "cut to a square"),
        ({"resample": 3}, "stretch", 0.5, "resized by bicubic splines when trained; here linearly"),
        ({"include_top": True}, "stretch", 2.5, "8 bits"),  # ((0.6 - 0.5) / 0.2) / 0.2
        ({"image_processor_type": "EfficientNetImageProcessor"}, "stretch", 2.5, "8 bits"),
    ],
)
def test_processors_become_inputs(
    change: dict[str, Any], fit: str, value: float, said: str, saved: Callable[..., Path], tmp_path: Path
) -> None:
    loaded = load_model(saved("vit", "ViTForImageClassification", VIT, {**PROCESSOR, **change}))
    spec = loaded.model.inputs[0]
    assert (spec.size, spec.fit) == ((32, 32), fit)
    assert said in " ".join(loaded.notes)
    Picture.fromarray(np.full((40, 40), 153, np.uint8)).save(tmp_path / "x.png")
    prepared = prepare(read_image(tmp_path / "x.png"), spec).tensor  # gray, copied to three channels
    assert float(prepared[0, 5, 5]) == pytest.approx(value, abs=1e-4)


def test_a_processor_that_swaps_colors_gets_them_swapped(saved: Callable[..., Path], tmp_path: Path) -> None:
    told = {**PROCESSOR, "do_flip_channel_order": True, "do_normalize": False}
    loaded = load_model(saved("vit", "ViTForImageClassification", VIT, told))
    Picture.fromarray(np.full((32, 32, 3), (255, 51, 0), np.uint8)).save(tmp_path / "x.png")
    prepared = prepare(read_image(tmp_path / "x.png"), loaded.model.inputs[0]).tensor
    assert prepared[:, 0, 0].tolist() == pytest.approx([0.0, 0.2, 1.0])
    assert "blue, green, red" in " ".join(loaded.notes)


def test_heads_that_are_no_softmax(saved: Callable[..., Path]) -> None:
    folder = saved("vit", "ViTForImageClassification", VIT)
    config(folder, problem_type="multi_label_classification")
    assert load_model(folder).model.output.activation == "sigmoid"
    config(folder, problem_type="regression")
    assert load_model(folder).model.output.task == "regression"


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"auto_map": {"AutoModel": "mine.Net"}}, "code of its own"),
        ({"architecture": "resnet18"}, "a model of timm"),
        ({"quantization_config": {"bits": 4}}, "quantized"),
        ({"use_pretrained_backbone": True}, "fetches a backbone"),
        ({"architectures": ["BertModel"]}, "'BertModel'"),
        ({"model_type": "mine"}, "no classifier or segmentation"),
        ({"architectures": None}, "'of no name'"),
    ],
)
def test_what_would_run_or_fetch_or_is_another_task(
    change: dict[str, Any], problem: str, saved: Callable[..., Path]
) -> None:
    folder = saved("vit", "ViTForImageClassification", VIT)
    config(folder, **change)
    with pytest.raises(ModelError, match=problem):
        load_model(folder, trust_code=True)


def test_folders_that_are_not_whole(saved: Callable[..., Path]) -> None:
    folder = saved("vit", "ViTForImageClassification", VIT)
    state = load_file(folder / "model.safetensors")
    save_file({k: v for k, v in state.items() if "classifier" not in k}, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(WeightsMismatch, match=r"2 missing \(classifier"):
        load_model(folder)
    (folder / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(WeightsMismatch, match="cannot be filled"):
        load_model(folder)
    (folder / "preprocessor_config.json").write_text('{"size": {"width": 3}}', encoding="utf-8")
    save_file(state, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(BadCard, match="does not say how images"):
        load_model(folder)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"expected model\.safetensors"):
        load_model(folder)
    (folder / "config.json").write_text("[]", encoding="utf-8")
    with pytest.raises(BadCard, match=r"config\.json is no table"):
        load_model(folder)
