"""MONAI bundles: metadata becomes the card, the network is built without running anything nobody vouched for."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from monai.inferers.inferer import SlidingWindowInferer

from pellucid.core.errors import BadCard, MissingExtra, ModelError, Untrusted, WeightsMismatch
from pellucid.core.image import Modality
from pellucid.core.windows import SlidingWindows
from pellucid.io.loaders.bundlecard import bundle_card
from pellucid.io.modelform import Form
from pellucid.io.models import load_model

NETWORK = {
    "_target_": "UNet",
    "spatial_dims": "@dims",
    "in_channels": 1,
    "out_channels": 2,
    "channels": [4, 8],
    "strides": [2],
}
METADATA = {
    "name": "spleen",
    "version": "0.3",
    "intended_use": "research",
    "authors": "a team",
    "copyright": "Apache-2.0",
    "data_source": "forty scans",
    "changelog": {"0.3": "retrained", "0.2": "first"},
    "network_data_format": {
        "inputs": {
            "image": {
                "type": "image",
                "format": "hounsfield",
                "modality": "CT",
                "num_channels": 1,
                "spatial_shape": ["8*n", "8*n", "8*n"],
                "is_patch_data": False,
                "channel_def": {"0": "image"},
            }
        },
        "outputs": {
            "pred": {
                "type": "image",
                "format": "segmentation",
                "num_channels": 2,
                "spatial_shape": ["8*n", "8*n", "8*n"],
                "channel_def": {"0": "background", "1": "spleen"},
            }
        },
    },
}
STEPS: list[dict[str, Any]] = [
    {"_target_": "LoadImaged", "keys": "image"},
    {"_target_": "EnsureChannelFirstd", "keys": "image"},
    {"_target_": "Orientationd", "keys": "image", "axcodes": "RAS"},
    {"_target_": "Spacingd", "keys": "image", "pixdim": "@pixdim", "mode": "bilinear"},
    {
        "_target_": "ScaleIntensityRanged",
        "keys": "image",
        "a_min": -57,
        "a_max": 164,
        "b_min": 0,
        "b_max": 1,
        "clip": True,
    },
]
INFERENCE: dict[str, Any] = {
    "imports": ["$import os"],
    "device": "$torch.device('cpu')",
    "dims": 3,
    "pixdim": [1.5, 1.5, 2.0],
    "network_def": NETWORK,
    "network": "$@network_def.to(@device)",
    "preprocessing": {"_target_": "Compose", "transforms": STEPS},
    "postprocessing": {
        "_target_": "Compose",
        "transforms": [{"_target_": "Activationsd", "keys": "pred", "softmax": True}],
    },
}
Maker = Callable[..., Path]


@pytest.fixture(scope="session")
def unet() -> torch.nn.Module:
    from monai.networks.nets import UNet

    with torch.random.fork_rng():
        torch.manual_seed(0)
        return UNet(3, 1, 2, (4, 8), (2,)).eval()


@pytest.fixture
def bundle(tmp_path: Path, unet: torch.nn.Module) -> Maker:
    """A bundle folder; keys of the configuration can be changed."""

    def make(as_yaml: bool = False, metadata: dict[str, Any] | None = None, **changes: Any) -> Path:
        folder = tmp_path / "spleen_bundle"
        (folder / "configs").mkdir(parents=True, exist_ok=True)
        (folder / "models").mkdir(exist_ok=True)
        (folder / "configs" / "metadata.json").write_text(json.dumps(metadata or METADATA))
        config = {k: v for k, v in {**INFERENCE, **changes}.items() if v is not None}
        text = yaml.safe_dump(config) if as_yaml else json.dumps(config)
        (folder / "configs" / f"inference.{'yaml' if as_yaml else 'json'}").write_text(text)
        torch.save(unet.state_dict(), folder / "models" / "model.pt")
        return folder

    return make


def volume() -> torch.Tensor:
    return torch.rand(1, 1, 16, 16, 16, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("as_yaml", [False, True])
def test_a_plain_bundle_needs_no_trust(bundle: Maker, unet: torch.nn.Module, as_yaml: bool) -> None:
    loaded = load_model(bundle(as_yaml))
    assert (loaded.form, loaded.trust, loaded.notes) == (Form.BUNDLE, "not needed", ())
    assert torch.equal(loaded.model({"image": volume()}), unet(volume()))
    assert loaded.model.can.hooks
    card = loaded.card
    assert (card.model.name, card.model.version, card.model.task) == ("spleen", "0.3", "segmentation")
    assert card.modality == (Modality.CT,)
    assert card.output.labels == ("background", "spleen")
    assert card.output.activation == "softmax"
    assert card.facts.intended_use == "research"
    assert card.facts.last_change == "retrained"
    spec = loaded.model.inputs[0]
    assert (spec.orientation, spec.spacing, spec.multiple) == ("RAS", (1.5, 1.5, 2.0), 8)
    assert (spec.window, spec.scale) == ((-57.0, 164.0), "unit")
    assert len(loaded.model.identity.card) == 64


def test_prepared_as_monai_prepares(bundle: Maker) -> None:
    from monai.transforms import ScaleIntensityRange

    from pellucid.core.grid import Calibration, Grid
    from pellucid.core.image import Image
    from pellucid.core.prepare import prepare

    steps = [*STEPS[:-1], {**STEPS[-1], "b_min": -1, "b_max": 1}]
    spec = load_model(bundle(preprocessing={"transforms": steps})).model.inputs[0]
    data = torch.linspace(-300, 400, 4096).reshape(1, 16, 16, 16)
    grid = Grid.regular((16, 16, 16), (1.5, 1.5, 2.0), Calibration.PATIENT)
    ours = prepare(Image(data, grid, Modality.CT), spec).tensor
    theirs = ScaleIntensityRange(-57, 164, -1, 1, clip=True)(data)
    # the grid grows toward L, P, H and the network wants R, A, S: two axes are turned round
    torch.testing.assert_close(ours, torch.as_tensor(theirs).flip(1, 2), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("normal", [{"subtrahend": 0.25, "divisor": 0.5}, {}])
def test_two_steps_of_intensity_follow_each_other_as_in_monai(bundle: Maker, normal: dict[str, float]) -> None:
    from monai.transforms import NormalizeIntensity, ScaleIntensityRange

    from pellucid.core.grid import Calibration, Grid
    from pellucid.core.image import Image
    from pellucid.core.prepare import prepare

    ranged = {**STEPS[-1], "b_min": -1, "b_max": 1}
    steps = [*STEPS[:-1], ranged, {"_target_": "NormalizeIntensityd", "keys": "image", **normal}]
    spec = load_model(bundle(preprocessing={"transforms": steps})).model.inputs[0]
    data = torch.linspace(-300, 400, 4096).reshape(1, 16, 16, 16)
    grid = Grid.regular((16, 16, 16), (1.5, 1.5, 2.0), Calibration.PATIENT)
    theirs = NormalizeIntensity(**normal)(ScaleIntensityRange(-57, 164, -1, 1, clip=True)(data))
    ours = prepare(Image(data, grid, Modality.CT), spec).tensor
    torch.testing.assert_close(ours, torch.as_tensor(theirs).flip(1, 2), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("load", "said"),
    [
        ({}, True),
        ({"reader": "PILReader"}, True),
        ({"reader": {"_target_": "PILReader", "reverse_indexing": False}}, False),
        ({"reader": "PILReader", "reverse_indexing": False}, False),
        ({"reader": "ITKReader"}, True),
        ({"reader": "ITKReader", "reverse_indexing": True}, False),
        ({"reader": "NumpyReader"}, False),
    ],
)
def test_readers_that_swap_rows_and_columns_are_told(load: dict[str, Any], said: bool) -> None:
    layout = json.loads(json.dumps(METADATA))
    for end in ("inputs", "outputs"):
        next(iter(layout["network_data_format"][end].values()))["spatial_shape"] = ["8*n", "8*n"]
    inference = {**INFERENCE, "preprocessing": {"transforms": [{**STEPS[0], **load}, *STEPS[1:2], STEPS[-1]]}}
    _, notes = bundle_card(layout, inference, "models/model.pt", "")
    assert any("columns before rows" in note for note in notes) is said


def test_axes_that_nobody_turned_are_told(bundle: Maker) -> None:
    loaded = load_model(bundle(preprocessing={"transforms": [STEPS[0], STEPS[1], STEPS[-1]]}))
    assert any("axes go in as they are stored" in note for note in loaded.notes)


@pytest.mark.parametrize(
    ("step", "said"),
    [
        ({"_target_": "CropForegroundd"}, "step CropForegroundd is not repeated"),
        ({"_target_": "my.own.Stepd"}, "step Stepd is not repeated"),
        ({"_target_": "NormalizeIntensityd", "nonzero": True}, "normalizes by the voxels that are not 0"),
        ({"_target_": "Spacingd", "pixdim": "$[1, 2]"}, "spacing None is not plain"),
        ({"_target_": "ScaleIntensityRanged", "a_min": 0, "a_max": 1}, "intensities beyond 0 to 1 are clipped"),
    ],
)
def test_preprocessing_without_a_counterpart_is_said(bundle: Maker, step: dict[str, Any], said: str) -> None:
    loaded = load_model(bundle(preprocessing={"transforms": [*STEPS, step]}))
    assert any(said in note for note in loaded.notes)


def test_what_the_metadata_leaves_open_is_said(bundle: Maker) -> None:
    layout = json.loads(json.dumps(METADATA))
    layout["network_data_format"]["inputs"]["image"] |= {"spatial_shape": [96, 96, 96], "is_patch_data": True}
    layout["network_data_format"]["outputs"]["pred"]["channel_def"] = {}
    loaded = load_model(bundle(metadata=layout, postprocessing=None, preprocessing=None))
    assert loaded.model.inputs[0].multiple == 32
    for said in ("slides a window of 96x96x96", "names 0 of 2", "softmax is assumed", "how images are prepared"):
        assert any(said in note for note in loaded.notes), said
    assert loaded.model.output.labels == ("class 0", "class 1")


INFERER = {"_target_": "SlidingWindowInferer", "roi_size": "@patch", "sw_batch_size": 4, "overlap": 0.5}


def test_sliding_windows_are_repeated(bundle: Maker) -> None:
    layout = json.loads(json.dumps(METADATA))
    layout["network_data_format"]["inputs"]["image"] |= {"spatial_shape": [96, 96, 96], "is_patch_data": True}
    inferer = {**INFERER, "mode": "gaussian", "padding_mode": "replicate"}
    loaded = load_model(bundle(metadata=layout, patch=[16, 16, 8], inferer=inferer))
    assert loaded.model.inference == SlidingWindows((16, 16, 8), 0.5, "gaussian", 0.125, "replicate")
    assert not any("window" in note for note in loaded.notes)
    assert loaded.model.inputs[0].multiple == 1  # windows are cut from any size
    x = torch.randn(1, 1, 20, 18, 13, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        theirs = SlidingWindowInferer((16, 16, 8), 4, 0.5, "gaussian", padding_mode="replicate")(x, loaded.model.module)
        assert torch.allclose(loaded.model({"image": x}), theirs, atol=1e-6)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"roi_size": [16, -1, 16]}, "are not plain: left out"),
        ({"roi_size": "$@patch[0]"}, "are not plain: left out"),
        ({"overlap": 1.5}, "left out: expected an overlap"),
        ({"mode": "triangle"}, "triangle) are not plain"),
    ],
)
def test_sliding_windows_that_cannot_be_repeated_are_said(bundle: Maker, changes: dict[str, Any], said: str) -> None:
    loaded = load_model(bundle(patch=[16, 16, 16], inferer={**INFERER, **changes}))
    assert loaded.model.inference is None
    assert any(said in note for note in loaded.notes)


def test_a_simple_inferer_takes_the_image_whole(bundle: Maker) -> None:
    assert load_model(bundle(inferer={"_target_": "SimpleInferer"})).model.inference is None


def test_a_bundle_with_a_card_of_its_own(bundle: Maker, write_card: Maker) -> None:
    import hashlib

    folder = bundle()
    digest = hashlib.sha256((folder / "models" / "model.pt").read_bytes()).hexdigest()
    changes = {
        "model__task": "segmentation",
        "inputs": [{"name": "image", "rank": 3, "multiple": 8}],
        "output": {"labels": ["nothing", "milz"], "activation": "softmax"},
    }
    write_card(folder, model__weights=".", model__sha256=digest, **changes)
    loaded = load_model(folder)
    assert (loaded.form, loaded.model.output.labels) == (Form.BUNDLE, ("nothing", "milz"))
    assert loaded.model({"image": volume()}).shape == (1, 2, 16, 16, 16)


CODE = {
    "expression": {"network_def": {**NETWORK, "in_channels": "$__import__('pathlib').Path('CANARY').touch() or 1"}},
    "expression behind a reference": {"dims": "$__import__('pathlib').Path('CANARY').touch() or 3"},
    "expression in a key": {"network_def": {**NETWORK, "act": {"$1": 1}}},
    "macro": {"network_def": {**NETWORK, "act": "%other.json::act"}},
    "foreign target": {"network_def": {"_target_": "pathlib.Path.touch", "self": "CANARY"}},
    "target inside torch": {"network_def": {"_target_": "torch.load", "f": "x"}},
    "target inside monai": {"network_def": {"_target_": "monai.bundle.run"}},
    "nested target": {"network_def": {**NETWORK, "act": {"_target_": "os.system", "command": "touch CANARY"}}},
    "bare name of something else": {"network_def": {**NETWORK, "act": {"_target_": "Compose"}}},
    "debugger": {"network_def": {**NETWORK, "_mode_": "debug"}},
    "requirement": {"network_def": {**NETWORK, "_requires_": "$print(1)"}},
    "download": {"network_def": {"_target_": "monai.networks.nets.DenseNet121", "pretrained": True}},
    "file": {"network_def": {**NETWORK, "weights_path": "x.pt"}},
    "named weights": {"network_def": {"_target_": "monai.networks.nets.TorchVisionFCModel", "weights": "DEFAULT"}},
    "download by default": {"network_def": {"_target_": "EfficientNetBN", "model_name": "efficientnet-b0"}},
}


@pytest.mark.parametrize("name", list(CODE))
def test_code_in_a_bundle_needs_trust(
    bundle: Maker, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Untrusted) as caught:
        load_model(bundle(**CODE[name]))
    assert not (tmp_path / "CANARY").exists()
    assert "--trust-code" in caught.value.mend
    assert (
        "network_def" in caught.value.problem or "dims" in caught.value.problem or "the call of" in caught.value.problem
    )


def test_expressions_that_the_network_does_not_need_are_not_run(
    bundle: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    load_model(bundle(extra="$__import__('pathlib').Path('CANARY').touch()"))
    assert not (tmp_path / "CANARY").exists()


def test_a_network_of_the_bundle_itself(bundle: Maker, unet: torch.nn.Module, tmp_path: Path) -> None:
    folder = bundle(network_def={"_target_": "scripts.nets.make", "dims": "$1 + 2"})
    (folder / "scripts").mkdir()
    (folder / "scripts" / "__init__.py").write_text("")
    (folder / "scripts" / "nets.py").write_text(
        "from monai.networks.nets import UNet\n\ndef make(dims):\n    return UNet(dims, 1, 2, (4, 8), (2,))\n"
    )
    with pytest.raises(Untrusted) as caught:
        load_model(folder)
    loaded = load_model(folder, trust_code=True)
    assert torch.equal(loaded.model({"image": volume()}), unet(volume()))
    assert "scripts" not in sys.modules
    listed = tmp_path / "list.txt"
    listed.write_text(next(w for w in caught.value.mend.split() if len(w) == 64))
    assert load_model(folder, allow_list=listed).trust == "allow-list"
    (folder / "scripts" / "nets.py").write_text("1 / 0\n")
    with pytest.raises(Untrusted):
        load_model(folder, allow_list=listed)
    with pytest.raises(BadCard, match="cannot be built"):
        load_model(folder, trust_code=True)


def test_torchscript_of_a_bundle(bundle: Maker, unet: torch.nn.Module, export: Maker) -> None:
    folder = bundle(network_def=None, network=None)
    with pytest.raises(BadCard, match="no network_def"):
        load_model(folder)
    (folder / "models" / "model.pt").unlink()
    export("traced", unet, (volume(),), folder / "models" / "model.ts", False)
    with pytest.raises(Untrusted, match="TorchScript"):
        load_model(folder)
    loaded = load_model(folder, trust_code=True)
    torch.testing.assert_close(loaded.model({"image": volume()}), unet(volume()), rtol=1e-4, atol=1e-5)
    assert not loaded.model.can.hooks
    assert loaded.card.model.name == "spleen"


def test_bundles_that_cannot_be_used(bundle: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = bundle(network_def={**NETWORK, "channels": [4, 16]})
    with pytest.raises(WeightsMismatch, match="of another shape"):
        load_model(folder)
    with pytest.raises(BadCard, match=r"cannot be built: .*nonsense"):
        load_model(bundle(network_def={**NETWORK, "nonsense": 1}))
    with pytest.raises(BadCard, match="network_data_format"):
        load_model(bundle(metadata={"name": "x"}))
    with pytest.raises(BadCard, match="num_channels"):
        load_model(bundle(metadata={"network_data_format": {"inputs": {"image": {}}, "outputs": {"pred": {}}}}))
    (bundle() / "configs" / "inference.json").write_text("{")
    with pytest.raises(BadCard, match=r"inference\.json is not JSON"):
        load_model(folder)
    folder = bundle()
    monkeypatch.setitem(sys.modules, "monai.bundle", None)
    monkeypatch.setitem(sys.modules, "monai.networks", None)
    with pytest.raises(MissingExtra, match=r"pellucid\[monai\]"):
        load_model(folder)
    (folder / "models" / "model.pt").unlink()
    with pytest.raises(ModelError, match="holds no weights"):
        load_model(folder)
