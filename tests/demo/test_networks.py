"""The demo's networks: shapes, finite gradients also on flat black, and the weights that ship."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from scipy.ndimage import uniform_filter

from pellucid.demo import networks

ROOT = Path(__file__).resolve().parents[2]
MODELS = Path(networks.__file__).parent / "models"
CASES = {
    "vessels": ((2, 3, 64, 96), (2, 1, 64, 96)),
    "hippocampus": ((2, 1, 16, 24, 20), (2, 3, 16, 24, 20)),
    "pneumonia": ((3, 1, 28, 28), (3, 1)),
    "nodule": ((3, 1, 128, 128), (3, 1)),
    "lungs": ((2, 1, 16, 24, 20), (2, 1, 16, 24, 20)),
}
every_network = pytest.mark.parametrize("name", CASES)


def trained(name: str) -> torch.nn.Module:
    module = getattr(networks, name)()
    module.load_state_dict(load_file(MODELS / name / "weights.safetensors"))
    return module


@every_network
def test_shape_size_and_mode(name):
    module = getattr(networks, name)()
    given, expected = CASES[name]
    with torch.inference_mode():
        assert module(torch.rand(given)).shape == expected
    assert not module.training
    assert sum(value.numel() for value in module.parameters()) <= 300_000
    assert not any(getattr(layer, "inplace", False) for layer in module.modules())


@every_network
@pytest.mark.parametrize("fill", ["noise", "black", "half black", "one white pixel"])
def test_gradient_is_finite(name, fill):
    image = torch.zeros(CASES[name][0])
    if fill == "noise":
        image = torch.rand(CASES[name][0], generator=torch.Generator().manual_seed(0))
    elif fill == "half black":
        image[..., : image.shape[-1] // 2] = 0.5
    elif fill == "one white pixel":
        image[..., 7, 7] = 1.0
    image.requires_grad_()
    (gradient,) = torch.autograd.grad(trained(name)(image).sum(), image)
    assert torch.isfinite(gradient).all()
    if fill == "noise":
        assert gradient.abs().max() > 0


@every_network
def test_an_item_alone_equals_the_item_in_a_batch(name):
    module = trained(name)
    images = torch.rand(CASES[name][0], generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        together = module(images)
        alone = torch.cat([module(image[None]) for image in images])
    assert torch.allclose(together, alone, rtol=1e-4, atol=1e-4)


@every_network
def test_weights_ship_in_half_precision_and_are_those_that_were_measured(name):
    path = MODELS / name / "weights.safetensors"
    assert path.stat().st_size < 600_000
    floating = [value for value in load_file(path).values() if value.is_floating_point()]
    assert floating
    assert all(value.dtype == torch.float16 and torch.isfinite(value).all() for value in floating)
    record = json.loads((ROOT / "training" / "results" / f"{name}.json").read_text(encoding="utf-8"))
    assert record["weights"]["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert set(record["seeds"]) == {"0", "1", "2"}


def test_local_contrast_is_the_formula_on_a_full_field():
    image = torch.rand((1, 3, 70, 90), generator=torch.Generator().manual_seed(2), dtype=torch.float64) * 0.5 + 0.3
    got = networks.LocalContrast(41)(image)[0].numpy()
    pixels = image[0].numpy()
    inside = np.ones((70, 90))
    box = [uniform_filter(plane, 41, mode="constant") for plane in pixels]
    share = uniform_filter(inside, 41, mode="constant")
    residue = pixels - np.stack(box) / share
    local = np.sqrt(np.stack([uniform_filter(plane**2, 41, mode="constant") for plane in residue]) / share + 1e-6)
    overall = np.sqrt((residue**2).mean(axis=(1, 2), keepdims=True) + 1e-6)
    np.testing.assert_allclose(got, residue / (0.5 * local + 0.5 * overall), rtol=1e-6, atol=1e-9)


def test_local_contrast_does_not_see_what_lies_outside_the_field():
    inside = torch.rand((1, 3, 32, 32), generator=torch.Generator().manual_seed(3)) * 0.5 + 0.3
    bare = networks.LocalContrast()(inside)
    framed = networks.LocalContrast()(torch.nn.functional.pad(inside, (16, 16, 16, 16), value=0.05))
    assert torch.allclose(framed[..., 16:48, 16:48], bare, atol=1e-4)
    assert not framed[..., :16, :].any()


def features_and_logit(module: torch.nn.Module, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    kept = []
    handle = module.stages.register_forward_hook(lambda _module, _inputs, output: kept.append(output.detach()))
    with torch.inference_mode():
        logit = module(image)
    handle.remove()
    return kept[0], logit


def test_pneumonia_logit_is_linear_in_the_mean_of_the_last_stage():
    module = trained("pneumonia")
    features, logit = features_and_logit(module, torch.rand(CASES["pneumonia"][0]))
    assert features.shape[2:] == (8, 8)
    by_hand = features.mean((2, 3)) @ module.head.weight.T + module.head.bias
    assert torch.allclose(logit, by_hand, atol=1e-5)


def test_nodule_logit_is_the_soft_maximum_of_its_cells():
    module = trained("nodule")
    features, logit = features_and_logit(module, torch.rand(CASES["nodule"][0]))
    assert features.shape[2:] == (16, 16)
    cells = torch.einsum("bchw,c->bhw", features, module.head.weight[0, :, 0, 0]) + module.head.bias
    assert torch.allclose(logit[:, 0], cells.exp().sum((1, 2)).log(), atol=1e-4)


@pytest.mark.parametrize("name", ["pneumonia", "nodule"])
def test_brightness_and_contrast_of_a_film_do_not_move_the_score(name):
    module = trained(name)
    film = torch.rand(CASES[name][0], generator=torch.Generator().manual_seed(4))
    with torch.inference_mode():
        assert torch.allclose(module(film), module(0.5 * film + 0.2), atol=0.1)
