"""A blended prediction is MONAI's, and what cannot be cut into windows is refused with the mend."""

from typing import Any

import pytest
import torch
from monai.inferers.utils import sliding_window_inference
from torch import Tensor, nn

from pellucid.core.errors import BadOption, CannotDo, ShapeMismatch
from pellucid.core.model import Model, OutputSpec
from pellucid.core.prepare import InputSpec
from pellucid.core.windows import SlidingWindows

CASES = [
    pytest.param((8, 8), (21, 13), 0.25, "gaussian", "constant", id="gaussian"),
    pytest.param((8, 8), (21, 13), 0.5, "constant", "constant", id="constant"),
    pytest.param((8, 6), (20, 17), (0.5, 0.1), "gaussian", "constant", id="overlap-per-axis"),
    pytest.param((8, 8), (5, 20), 0.5, "gaussian", "constant", id="padded"),
    pytest.param((8, 8), (5, 20), 0.25, "constant", "reflect", id="padded-by-reflection"),
    pytest.param((8, 8), (5, 6), 0.25, "gaussian", "replicate", id="one-padded-window"),
    pytest.param((8, 8), (7, 9), 0.25, "gaussian", "circular", id="padded-in-circles"),
    pytest.param((6, 8, 4), (13, 9, 11), 0.5, "gaussian", "constant", id="volume"),
    pytest.param((6, 8, 4), (5, 9, 4), 0.99, "constant", "constant", id="volume-all-windows"),
]


def _network(rank: int, seed: int = 0) -> nn.Module:
    conv: Any = {2: nn.Conv2d, 3: nn.Conv3d}[rank]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(conv(2, 4, 3, 1, 1), nn.GELU(), conv(4, 3, 3, 1, 1)).eval()


def _model(network: nn.Module, windows: SlidingWindows) -> Model:
    rank = len(windows.size)
    spec = InputSpec(rank=rank, channels=2, order="rgb")
    return Model(network, (spec,), OutputSpec("segmentation"), inference=windows)


@pytest.mark.parametrize(("size", "space", "overlap", "blend", "padding"), CASES)
def test_blend_is_that_of_monai(size: Any, space: Any, overlap: Any, blend: Any, padding: Any) -> None:
    network = _network(len(size))
    x = torch.randn(2, 2, *space, generator=torch.Generator().manual_seed(1))
    value = 0.5 if padding == "constant" else 0.0
    model = _model(network, SlidingWindows(size, overlap, blend, 0.2, padding, value))
    with torch.no_grad():
        ours = model({"image": x})
        theirs = sliding_window_inference(
            x, size, 3, network, overlap, mode=blend, sigma_scale=0.2, padding_mode=padding, cval=value
        )
    assert isinstance(theirs, Tensor)
    assert ours.shape == theirs.shape
    assert float((ours - theirs).abs().max()) < 1e-6


@pytest.mark.parametrize(
    ("space", "starts"),
    [(110, (0, 23, 46)), (124, (0, 30, 60)), (64, (0,)), (65, (0, 1)), (40, (0,)), (128, (0, 32, 64))],
)
def test_windows_spread_evenly_over_the_image(space: int, starts: tuple[int, ...]) -> None:
    """Windows of 64 with overlap one half, as nnU-Net's rule: ceil(free / half) + 1 of them, in equal steps."""
    windows = SlidingWindows((64, 64), overlap=0.5, spread="even")
    assert [a for a, b in windows.layout((space, 64)).starts if b == 0] == list(starts)


def test_even_windows_blend_to_what_each_voxel_gets() -> None:
    """A network that looks at one voxel gives the same whatever the windows."""
    network = nn.Conv2d(1, 2, 1)
    x = torch.rand(1, 1, 21, 13)
    output = OutputSpec("segmentation", labels=("a", "b"))
    model = Model(network, (InputSpec(rank=2),), output, inference=SlidingWindows((8, 8), overlap=0.5, spread="even"))
    with torch.no_grad():
        assert torch.allclose(model({"image": x}), network(x), atol=1e-6)


def test_seams_move_the_output() -> None:
    """What equals MONAI's blend must not be the network on the whole image."""
    network, x = _network(2), torch.randn(1, 2, 20, 20, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        whole = network(x)
        ours = _model(network, SlidingWindows((8, 8)))({"image": x})
    assert float((ours - whole).abs().max()) > 0.01


def test_layers_are_those_of_one_window() -> None:
    model = _model(_network(2), SlidingWindows((8, 6)))
    x = {"image": torch.zeros(3, 2, 20, 30)}
    assert [s.shape for s in model.layers(x)] == [(1, 4, 8, 6), (1, 4, 8, 6), (1, 3, 8, 6)]
    assert model.window.inference is None
    assert model.window.window is model.window or model.window.window.inference is None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"size": (8,)}, "window of 2 or 3 axes"),
        ({"size": (8, 0)}, "at least 1 voxel"),
        ({"size": (8, 8), "overlap": 1.0}, "overlap from 0 to below 1"),
        ({"size": (8, 8), "overlap": (0.5, 0.5, 0.5)}, "one per axis"),
        ({"size": (8, 8), "sigma_scale": 0.0}, "sigma_scale above 0"),
    ],
)
def test_impossible_windows_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(BadOption, match=message):
        SlidingWindows(**settings)


def test_reflection_beyond_the_image_is_refused() -> None:
    model = _model(_network(2), SlidingWindows((16, 16), padding="reflect"))
    with pytest.raises(ShapeMismatch, match="padding = 'replicate'"):
        model({"image": torch.zeros(1, 2, 4, 20)})


def test_images_that_differ_in_size_are_refused() -> None:
    specs = (InputSpec("pet", 2), InputSpec("ct", 2))
    model = Model(nn.Identity(), specs, OutputSpec("segmentation"), inference=SlidingWindows((8, 8)))
    with pytest.raises(ShapeMismatch, match="cut all image inputs alike"):
        model.check({"pet": torch.zeros(1, 1, 20, 20), "ct": torch.zeros(1, 1, 20, 24)})


def test_window_of_another_rank_is_refused() -> None:
    model = Model(nn.Identity(), (InputSpec(rank=3),), inference=SlidingWindows((8, 8)))
    with pytest.raises(ShapeMismatch, match=r"inference\.size"):
        model.check({"image": torch.zeros(1, 1, 20, 20, 20)})


@pytest.mark.parametrize("network", [nn.AvgPool2d(2), nn.Flatten()], ids=["half-size", "no-space"])
def test_output_of_another_size_is_refused(network: nn.Module) -> None:
    with pytest.raises(CannotDo, match="outputs of the window's size"):
        _model(network, SlidingWindows((8, 8)))({"image": torch.zeros(1, 2, 20, 20)})
