"""Weights that others trained, with their architectures as factories beside the card, on real images."""

import hashlib
import math
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from pellucid.core.errors import Untrusted, WeightsMismatch
from pellucid.core.prepare import prepare
from pellucid.io.models import LoadedModel, head_output, load_model, require_golden
from pellucid.io.reader import read_image

Maker = Callable[..., Path]
SOURCES = Path(__file__).resolve().parent / "sources"
CUT = math.log(0.42 / 0.58)  # the published threshold of 0.42 on the sigmoid, as a logit


@pytest.fixture
def wnet(tmp_path: Path, shared_data: Path, write_card: Maker) -> Path:
    """Card of the W-Net: weights read with ``weights_only``, its architecture beside them."""
    shutil.copy(shared_data / "model_retina_lwnet" / "wnet_drive_state_dict.pt", tmp_path / "w.pt")
    shutil.copy(SOURCES / "wnet.py", tmp_path / "wnet.py")
    return write_card(
        tmp_path,
        model__name="lwnet",
        model__task="segmentation",
        model__modality=["fundus"],
        model__weights="w.pt",
        model__factory="wnet:vessels",
        inputs=[{"channels": 3, "order": "rgb", "size": [512, 512], "crop": "field"}],
        output={"labels": ["background", "vessel"], "activation": "sigmoid", "operating_point": {"vessel": CUT}},
    )


def dice(loaded: LoadedModel, photograph: Path, vessels: Path) -> float:
    image, truth = read_image(photograph), read_image(vessels).data[0] > 0.5
    prepared = prepare(image, loaded.model.inputs[0])
    logits = prepared.restore(head_output(loaded, {"image": image}))[0, 0]
    found = (logits > CUT) & prepared.seen
    return 2 * float((found & truth).sum()) / float(found.sum() + truth.sum())


def test_vessels_of_a_real_photograph(wnet: Path, shared_data: Path) -> None:
    loaded = load_model(wnet, trust_code=True)
    folder = shared_data / "fundus_vessels" / "DRIVE" / "training"
    photographs = sorted((folder / "images").iterdir())[:2]
    truths = sorted((folder / "1st_manual").iterdir())[:2]
    scores = [dice(loaded, *pair) for pair in zip(photographs, truths, strict=True)]
    assert min(scores) > 0.78, scores  # published mean on DRIVE: 0.826


def test_the_architecture_is_code_and_needs_leave(wnet: Path) -> None:
    with pytest.raises(Untrusted, match="wnet:vessels"):
        load_model(wnet)


def test_other_weights_do_not_fit(wnet: Path, shared_data: Path, write_card: Maker) -> None:
    shutil.copy(shared_data / "model_retina_lwnet" / "big_wnet_drive_av_state_dict.pt", wnet.parent / "w.pt")
    card = wnet.read_text().splitlines()
    digest = hashlib.sha256((wnet.parent / "w.pt").read_bytes()).hexdigest()
    wnet.write_text("\n".join(f'sha256 = "{digest}"' if line.startswith("sha256") else line for line in card))
    with pytest.raises(WeightsMismatch, match="left over"):
        load_model(wnet, trust_code=True)


@pytest.fixture
def meshnet(tmp_path: Path, shared_data: Path, write_card: Maker) -> Maker:
    """Card of a MeshNet, whose weights are a list of layers."""

    def make(name: str, channels: int, dilations: list[int], **changes: object) -> Path:
        shutil.copy(shared_data / "model_brainchop" / name, tmp_path / "w.pt")
        shutil.copy(SOURCES / "meshnet.py", tmp_path / "meshnet.py")
        return write_card(
            tmp_path,
            model__name="meshnet",
            model__task="segmentation",
            model__modality=["mri"],
            model__weights="w.pt",
            model__factory="meshnet:build",
            model__options={"channels": channels, "dilations": dilations},
            inputs=[{"rank": 3, "scale": "unit"}],
            output={"labels": ["background", "white", "gray"], "activation": "softmax"},
            **changes,
        )

    return make


MESHNETS = {
    "model5_gw_ae_torch_layers.pt": (5, [1, 2, 4, 8, 16, 8, 4, 2, 1]),
    "model11_gw_ae_torch_layers.pt": (11, [1, 2, 4, 8, 4, 2, 2, 1]),
}


def test_tissue_of_a_real_head(meshnet: Maker, shared_data: Path) -> None:
    name = "model11_gw_ae_torch_layers.pt"
    loaded = load_model(meshnet(name, *MESHNETS[name]), trust_code=True)
    image = read_image(shared_data / "model_brainchop" / "t1_crop.nii.gz")
    whole = prepare(image, loaded.model.inputs[0]).tensor
    middle = tuple(slice(n // 2 - 32, n // 2 + 32) for n in whole.shape[1:])
    part = whole[(slice(None), *middle)][None]
    with torch.no_grad():
        found = loaded.model({"image": part})[0].argmax(0)
    brightness = [float(part[0, 0][found == label].mean()) for label in (1, 2)]
    shares = [float((found == label).float().mean()) for label in (1, 2)]
    assert brightness[0] > brightness[1] + 0.02  # in T1, white matter is brighter than gray
    assert min(shares) > 0.1


@pytest.mark.parametrize("name", list(MESHNETS))
def test_a_list_of_layers_fills_a_network(meshnet: Maker, shared_data: Path, name: str) -> None:
    loaded = load_model(meshnet(name, *MESHNETS[name]), trust_code=True)
    stored = torch.load(shared_data / "model_brainchop" / name, weights_only=True)
    for own, held in zip(loaded.model.module, stored, strict=True):
        assert torch.equal(own.weight, held["weight"])
        assert torch.equal(own.bias, held["bias"])
    layers = loaded.model.layers({"image": torch.zeros(1, 1, 8, 8, 8)})
    assert [layer.name for layer in layers] == [str(i) for i in range(len(stored))]


def test_a_wrong_architecture_is_told_by_its_first_layers(meshnet: Maker) -> None:
    with pytest.raises(WeightsMismatch, match=r"0\.weight \(5, 1, 3, 3, 3\)"):
        load_model(meshnet("model5_gw_ae_torch_layers.pt", 6, MESHNETS["model5_gw_ae_torch_layers.pt"][1]), True)


def test_a_golden_vector_of_a_real_volume(meshnet: Maker, shared_data: Path, tmp_path: Path) -> None:
    name = "model5_gw_ae_torch_layers.pt"
    small = {"file": "crop.nii.gz", "sha256": "", "expected": [0.0, 0.0, 0.0], "tolerance": 1e-4}
    _crop(shared_data / "model_brainchop" / "t1_crop.nii.gz", tmp_path / "crop.nii.gz")
    small["sha256"] = hashlib.sha256((tmp_path / "crop.nii.gz").read_bytes()).hexdigest()
    loaded = load_model(meshnet(name, *MESHNETS[name], golden=[small]), trust_code=True)
    output = head_output(loaded, {"image": read_image(tmp_path / "crop.nii.gz")})
    small["expected"] = output[0].flatten(1).mean(1).tolist()
    again = load_model(meshnet(name, *MESHNETS[name], golden=[small]), trust_code=True)
    assert require_golden(again)[0].deviation < 1e-5


def _crop(source: Path, target: Path) -> None:
    import nibabel as nib

    volume = nib.load(source)
    nib.save(volume.slicer[100:124, 100:124, 100:124], target)
