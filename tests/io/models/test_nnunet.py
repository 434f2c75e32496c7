"""A trained nnU-Net v2: made here as nnU-Net writes it, and held against its own network and formulas."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet, ResidualEncoderUNet

from pellucid.core.errors import BadCard, ModelError, Untrusted, WeightsMismatch
from pellucid.core.grid import Calibration, Grid, as_affine
from pellucid.core.image import Image, Modality
from pellucid.core.prepare import prepare
from pellucid.io.modelform import Form
from pellucid.io.models import load_model

NAME = "nnUNetTrainer__nnUNetPlans__3d_fullres"
PLAIN: dict[str, Any] = {
    "n_stages": 3,
    "features_per_stage": [4, 8, 8],
    "conv_op": "torch.nn.modules.conv.Conv3d",
    "kernel_sizes": [[1, 3, 3], [3, 3, 3], [3, 3, 3]],
    "strides": [[1, 1, 1], [1, 2, 2], [2, 2, 2]],
    "n_conv_per_stage": [1, 1, 1],
    "n_conv_per_stage_decoder": [1, 1],
    "conv_bias": True,
    "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
    "norm_op_kwargs": {"eps": 1e-05, "affine": True},
    "dropout_op": None,
    "dropout_op_kwargs": None,
    "nonlin": "torch.nn.LeakyReLU",
    "nonlin_kwargs": {"inplace": True},
}
IMPORTED = ["conv_op", "norm_op", "dropout_op", "nonlin"]
SEEN = {"mean": 60.0, "median": 55.0, "std": 80.0, "min": -900.0, "max": 1200.0}


def plans(**changes: Any) -> dict[str, Any]:
    full = {
        "patch_size": [4, 16, 16],
        "spacing": [3.0, 1.5, 1.5],
        "normalization_schemes": ["CTNormalization"],
        "use_mask_for_norm": [False],
        "architecture": {
            "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
            "arch_kwargs": PLAIN,
            "_kw_requires_import": IMPORTED,
        },
        **changes,
    }
    return {
        "dataset_name": "Dataset099_Organ",
        "plans_name": "nnUNetPlans",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "configurations": {"3d_fullres": full},
        "foreground_intensity_properties_per_channel": {
            "0": {**SEEN, "percentile_00_5": -160.0, "percentile_99_5": 240.0}
        },
    }


def built(arguments: dict[str, Any], channels: int, heads: int, kind: type = PlainConvUNet) -> torch.nn.Module:
    """The network as nnU-Net trains it: with the heads of deep supervision."""
    torch.manual_seed(7)
    named = {
        "conv_op": torch.nn.Conv3d,
        "norm_op": torch.nn.InstanceNorm3d,
        "dropout_op": None,
        "nonlin": torch.nn.LeakyReLU,
    }
    return kind(input_channels=channels, num_classes=heads, deep_supervision=True, **{**arguments, **named})


def save(path: Path, network: torch.nn.Module, more: dict[str, Any] | None = None) -> None:
    """A checkpoint with all that nnU-Net's trainer keeps beside the weights."""
    path.parent.mkdir(parents=True, exist_ok=True)
    held = {
        "network_weights": network.state_dict(),
        "optimizer_state": {"state": {}, "param_groups": [{"lr": 0.01}]},
        "grad_scaler_state": None,
        "logging": {"mean_fg_dice": [np.float64(0.5), np.float32(0.25)], "epoch": [np.int64(3)]},
        "_best_ema": np.float64(0.75),
        "current_epoch": 1000,
        "init_args": {"fold": 0, "device": torch.device("cpu")},
        "trainer_name": "nnUNetTrainer",
        "inference_allowed_mirroring_axes": (0, 1, 2),
        **(more or {}),
    }
    torch.save(held, path)


@pytest.fixture
def trained(tmp_path: Path) -> Callable[..., Path]:
    """The folder of a trained configuration."""

    def make(
        told: dict[str, Any] | None = None,
        labels: dict[str, Any] | None = None,
        channels: dict[str, str] | None = None,
        heads: int = 3,
        network: torch.nn.Module | None = None,
        name: str = NAME,
    ) -> Path:
        folder = tmp_path / "Dataset099_Organ" / name
        folder.mkdir(parents=True)
        (folder / "plans.json").write_text(json.dumps(told or plans()), encoding="utf-8")
        dataset = {
            "channel_names": channels or {"0": "CT"},
            "labels": labels or {"background": 0, "liver": 1, "tumor": 2},
            "numTraining": 131,
            "file_ending": ".nii.gz",
        }
        (folder / "dataset.json").write_text(json.dumps(dataset), encoding="utf-8")
        save(folder / "fold_0" / "checkpoint_final.pth", network or built(PLAIN, len(dataset["channel_names"]), heads))
        return folder

    return make


def scan(shape: tuple[int, ...] = (6, 20, 24)) -> Image:
    """A CT whose axes lie as DICOM's axial slices do: to the head, the back and the left."""
    axes = np.eye(4)
    axes[:3, :3] = np.array([[0, 0, 1.5], [0, 1.5, 0], [3.0, 0, 0]])
    grid = Grid(shape, as_affine(axes), Calibration.PATIENT)
    values = torch.randn(1, *shape, generator=torch.Generator().manual_seed(1)) * 300
    return Image(values, grid, Modality.CT, "HU")


def test_the_network_of_the_plans_gives_what_nnunet_gives(trained: Callable[..., Path]) -> None:
    folder = trained()
    loaded = load_model(folder)
    assert loaded.form is Form.NNUNET
    assert loaded.trust == "not needed"
    x = torch.randn(2, 1, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    reference = built(PLAIN, 1, 3).eval()
    with torch.no_grad():
        wanted = reference(x)[0]  # the first head of deep supervision is the one in full resolution
        assert torch.allclose(loaded.model.module(x), wanted, atol=1e-6)
    assert loaded.model.output.labels == ("background", "liver", "tumor")
    assert loaded.model.output.activation == "softmax"
    assert loaded.model.can.gradient
    assert loaded.model.can.hooks


def test_its_card_says_what_nnunet_would_do(trained: Callable[..., Path]) -> None:
    loaded = load_model(trained())
    card = loaded.card
    assert card is not None
    assert (card.model.name, card.model.version) == ("Dataset099_Organ", NAME)
    assert card.modality == (Modality.CT,)
    assert card.model.weights == "fold_0/checkpoint_final.pth"
    (spec,) = card.inputs
    assert (spec.name, spec.spacing, spec.orientation) == ("image", (3.0, 1.5, 1.5), "SPL")
    windows = loaded.model.inference
    assert (windows.size, windows.overlap, windows.blend, windows.spread) == ((4, 16, 16), 0.5, "gaussian", "even")
    image = scan()
    wanted = (image.data.clamp(-160, 240) - 60.0) / 80.0
    assert torch.allclose(prepare(image, spec).tensor, wanted, atol=1e-5), "no resampling is needed, and none is done"
    said = " ".join(loaded.notes)
    for doubt in ("how its training images lay", "cubic splines", "mirrored copies"):
        assert doubt in said


def test_a_volume_goes_through_its_windows(trained: Callable[..., Path]) -> None:
    loaded = load_model(trained())
    x = prepare(scan(), loaded.model.inputs[0]).tensor[None]
    layout = loaded.model.inference.layout(tuple(x.shape[2:]))
    assert layout.starts == tuple((z, y, x) for z in (0, 2) for y in (0, 4) for x in (0, 8))
    reference, weight = built(PLAIN, 1, 3).eval(), layout.weight(torch.device("cpu"))
    total, count = torch.zeros(1, 3, 6, 20, 24), torch.zeros(1, 1, 6, 20, 24)
    with torch.no_grad():
        for z, y, w in layout.starts:
            part = (..., slice(z, z + 4), slice(y, y + 16), slice(w, w + 16))
            total[part] += weight * reference(x[part])[0]
            count[part] += weight
        assert torch.allclose(loaded.model({"image": x}), total / count, atol=1e-5)


def test_axes_and_letters_follow_the_plans(trained: Callable[..., Path]) -> None:
    told = plans(spacing=[1.5, 3.0, 1.5])
    told["transpose_forward"] = [1, 0, 2]
    loaded = load_model(trained(told))
    assert loaded.model.inputs[0].orientation == "PSL"
    image = scan()
    moved = prepare(image, loaded.model.inputs[0]).tensor[0]
    assert torch.allclose(moved, ((image.data[0].clamp(-160, 240) - 60) / 80).transpose(0, 1), atol=1e-5)


def test_a_reader_that_turned_every_image_says_how_they_lay(trained: Callable[..., Path]) -> None:
    told = plans()
    told["image_reader_writer"] = "NibabelIOWithReorient"
    loaded = load_model(trained(told))
    assert loaded.model.inputs[0].orientation == "SAR", "RAS, from the last axis to the first"
    assert "how its training images lay" not in " ".join(loaded.notes)
    image = scan()
    turned = prepare(image, loaded.model.inputs[0]).tensor[0]
    assert torch.allclose(turned, ((image.data[0].clamp(-160, 240) - 60) / 80).flip(1, 2), atol=1e-5)


def test_several_channels_are_several_images(trained: Callable[..., Path]) -> None:
    told = plans(normalization_schemes=["ZScoreNormalization"] * 2, use_mask_for_norm=[True, True])
    loaded = load_model(trained(told, channels={"0": "T1w", "1": "FLAIR"}))
    assert [s.name for s in loaded.model.inputs] == ["T1w", "FLAIR"]
    assert loaded.card.modality == (Modality.MRI,)
    parts = [torch.randn(1, 1, 4, 16, 16, generator=torch.Generator().manual_seed(n)) for n in (0, 1)]
    with torch.no_grad():
        wanted = built(PLAIN, 2, 3).eval()(torch.cat(parts, 1))[0]
        got = loaded.model(dict(zip(("T1w", "FLAIR"), parts, strict=True)))
    assert torch.allclose(got, wanted, atol=1e-5)
    assert any("inside the body's mask" in note for note in loaded.notes)


def test_regions_that_overlap_get_a_sigmoid(trained: Callable[..., Path]) -> None:
    labels = {"background": 0, "whole tumor": [1, 2, 3], "core": [2, 3], "enhancing": 3, "ignore": 4}
    loaded = load_model(trained(labels=labels))
    assert loaded.model.output.labels == ("whole tumor", "core", "enhancing")
    assert loaded.model.output.activation == "sigmoid"


def test_residual_encoders_and_the_plans_of_older_versions(trained: Callable[..., Path], tmp_path: Path) -> None:
    residual = {k: v for k, v in PLAIN.items() if k != "n_conv_per_stage"} | {"n_blocks_per_stage": [1, 1, 1]}
    told = plans()
    told["configurations"]["3d_fullres"]["architecture"] = {
        "network_class_name": "dynamic_network_architectures.architectures.unet.ResidualEncoderUNet",
        "arch_kwargs": residual,
        "_kw_requires_import": IMPORTED,
    }
    network = built(residual, 1, 3, ResidualEncoderUNet)
    loaded = load_model(trained(told, network=network))
    x = torch.randn(1, 1, 4, 16, 16)
    with torch.no_grad():
        assert torch.allclose(loaded.model.module(x), network.eval()(x)[0], atol=1e-6)
    old = plans()
    full = old["configurations"]["3d_fullres"]
    del full["architecture"]
    full |= {
        "UNet_class_name": "PlainConvUNet",
        "UNet_base_num_features": 4,
        "unet_max_num_features": 8,
        "n_conv_per_stage_encoder": [1, 1, 1],
        "n_conv_per_stage_decoder": [1, 1],
        "pool_op_kernel_sizes": PLAIN["strides"],
        "conv_kernel_sizes": PLAIN["kernel_sizes"],
    }
    again = load_model(trained(old, name="nnUNetTrainer__nnUNetPlansOld__3d_fullres"))
    with torch.no_grad():
        assert torch.allclose(again.model.module(x), built(PLAIN, 1, 3).eval()(x)[0], atol=1e-6)


def test_the_folder_of_the_data_set_or_of_a_fold_will_do(trained: Callable[..., Path]) -> None:
    folder = trained()
    torch.manual_seed(9)
    other = built(PLAIN, 1, 3)
    with torch.no_grad():
        for value in other.parameters():
            value.add_(0.1)
    save(folder / "fold_3" / "checkpoint_best.pth", other)
    first = load_model(folder.parent)
    assert first.card.model.weights == "fold_0/checkpoint_final.pth"
    assert any("fold_0 of 2 trained folds" in note for note in first.notes)
    third = load_model(folder / "fold_3")
    assert third.card.model.weights == "fold_3/checkpoint_best.pth"
    assert first.model.digest != third.model.digest
    other_plans = folder.parent / "nnUNetTrainer__nnUNetPlans__2d"
    other_plans.mkdir()
    (other_plans / "plans.json").write_text("{}", encoding="utf-8")
    with pytest.raises(ModelError, match="one trained configuration of nnU-Net, got nnUNetTrainer__nnUNetPlans__2d, "):
        load_model(folder.parent)


def test_what_is_inherited_and_what_needs_another_network(trained: Callable[..., Path]) -> None:
    told = plans()
    told["configurations"]["3d_cascade_fullres"] = {"inherits_from": "3d_fullres", "previous_stage": "3d_lowres"}
    told["configurations"]["3d_small"] = {"inherits_from": "3d_fullres", "patch_size": [4, 8, 8]}
    told["configurations"]["3d_round"] = {"inherits_from": "3d_round"}
    folder = trained(told)
    small = folder.rename(folder.with_name("nnUNetTrainer__nnUNetPlans__3d_small"))
    assert load_model(small).model.inference.size == (4, 8, 8)
    for name, problem in (
        ("3d_cascade_fullres", "second stage of a cascade"),
        ("3d_round", "no configuration"),
        ("2d", "no"),
    ):
        with pytest.raises(BadCard, match=problem):
            load_model(small.rename(folder.with_name(f"nnUNetTrainer__nnUNetPlans__{name}")))
        small = folder.with_name(f"nnUNetTrainer__nnUNetPlans__{name}")
    with pytest.raises(ModelError, match="a folder named TRAINER__PLANS__CONFIGURATION"):
        load_model(small.rename(folder.with_name("mine")))


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"normalization_schemes": ["MyNormalization"]}, "normalization 'MyNormalization' is not known"),
        ({"spacing": None}, "do not say enough"),
        ({"architecture": {"network_class_name": "os.system", "arch_kwargs": {"command": "x"}}}, "that is not known"),
        (
            {"architecture": {"network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
                              "arch_kwargs": {**PLAIN, "nonlin": "subprocess.Popen"}, "_kw_requires_import": IMPORTED}},
            "no building block of torch",
        ),
        (
            {"architecture": {"network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
                              "arch_kwargs": {**PLAIN, "n_stages": 9}, "_kw_requires_import": IMPORTED}},
            "cannot be built",
        ),
    ],
)  # fmt: skip
def test_plans_that_say_something_else_are_refused(
    change: dict[str, Any], problem: str, trained: Callable[..., Path]
) -> None:
    with pytest.raises(BadCard, match=problem):
        load_model(trained(plans(**change)))


def test_weights_of_another_network_and_a_checkpoint_with_code(trained: Callable[..., Path], tmp_path: Path) -> None:
    folder = trained(heads=4)
    with pytest.raises(WeightsMismatch, match="do not fit the network"):
        load_model(folder)
    mark = tmp_path / "ran"

    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.mkdir, (str(mark),)

    save(folder / "fold_0" / "checkpoint_final.pth", built(PLAIN, 1, 3), {"logging": Evil()})
    with pytest.raises(Untrusted, match="pickled code"):
        load_model(folder, trust_code=True)
    assert not mark.exists()
    (folder / "plans.json").write_text("[1", encoding="utf-8")
    with pytest.raises(BadCard, match=r"plans\.json cannot be read"):
        load_model(folder)


def test_a_card_in_its_folder_says_it_better(trained: Callable[..., Path]) -> None:
    folder = trained()
    digest = load_model(folder).model.digest
    (folder / "model.toml").write_text(
        f"""
[model]
name = "organ"
version = "1"
task = "segmentation"
modality = ["ct"]
weights = "."
sha256 = "{digest}"
license = "MIT"
[[inputs]]
name = "image"
rank = 3
channels = 1
orientation = "SAR"
[output]
labels = ["background", "liver", "tumor"]
activation = "softmax"
""",
        encoding="utf-8",
    )
    loaded = load_model(folder)
    assert loaded.model.inputs[0].orientation == "SAR"
    assert loaded.model.identity.name == "organ"
