"""Gradients of a blended prediction, made window by window, are those of autograd through MONAI's blend."""

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from monai.inferers.utils import sliding_window_inference
from torch import Tensor, nn

from pellucid.core.card import Ask, Cost
from pellucid.core.errors import CannotDo, NonFinite
from pellucid.core.model import Abilities, Model, OutputSpec
from pellucid.core.prepare import InputSpec
from pellucid.core.probe import Probe, Scene
from pellucid.core.target import RegionScore, Target
from pellucid.core.windows import SlidingWindows

TO_INPUT = ((Ask.INPUT_GRADIENT, None),)
WINDOWS = {
    "gaussian": SlidingWindows((8, 8), 0.5),
    "constant": SlidingWindows((8, 6), 0.25, "constant"),
    "volume": SlidingWindows((6, 8, 4), 0.25),
    "padded": SlidingWindows((24, 8), 0.5),
    "reflected": SlidingWindows((24, 8), 0.5, padding="reflect"),
    "replicated": SlidingWindows((24, 24), 0.5, padding="replicate"),
    "circular": SlidingWindows((24, 8), 0.5, padding="circular"),
}


def network(rank: int, channels: int = 2) -> nn.Sequential:
    conv: Any = {2: nn.Conv2d, 3: nn.Conv3d}[rank]
    norm: Any = {2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d}[rank]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layers = (conv(channels, 4, 3, 1, 1), norm(4), nn.ReLU(inplace=True), nn.Dropout(0.3), conv(4, 3, 3, 1, 1))
        return nn.Sequential(*layers).double()


def opened(windows: SlidingWindows, *targets: Target, batch: int = 2, net: nn.Module | None = None) -> Probe:
    rank = len(windows.size)
    space = (17, 14, 9)[:rank]
    x = torch.randn(3, 2, *space, generator=torch.Generator().manual_seed(1), dtype=torch.float64)[:batch]
    region = torch.zeros(space, dtype=torch.bool)
    region[(slice(5, 10),) * rank] = True
    spec = InputSpec(rank=rank, channels=2, order="rgb")
    model = Model(net or network(rank), (spec,), OutputSpec("segmentation"), inference=windows)
    return Probe(model, x, targets or (RegionScore(1, "box"),), TO_INPUT, Scene(regions={"box": region}))


def by_autograd(probe: Probe, module: Callable[[Tensor], Tensor], x: Tensor | None = None) -> Tensor:
    """The same gradient by MONAI, with the graph of every window."""
    w = probe.model.inference
    assert w is not None
    x = (probe.inputs["image"] if x is None else x).detach().requires_grad_()
    blend = sliding_window_inference(x, w.size, 1, module, w.overlap, w.blend, w.sigma_scale, w.padding, w.value)
    assert isinstance(blend, Tensor)
    return torch.autograd.grad(probe.target(blend).sum(), x)[0]


@pytest.mark.parametrize("windows", WINDOWS.values(), ids=WINDOWS)
def test_gradient_is_that_of_autograd_through_the_blend(windows: SlidingWindows) -> None:
    probe = opened(windows)
    expected = by_autograd(probe, network(len(windows.size)).eval())
    gap = (probe.input_gradient["image"] - expected).abs().max() / expected.abs().max()
    assert float(gap) < 1e-6  # MONAI's weights are float32, and so are ours


def test_every_target_has_its_own_gradient() -> None:
    probe = opened(WINDOWS["gaussian"], RegionScore(0, "box"), RegionScore(2, scale="score"), RegionScore(2))
    for i in range(3):
        expected = by_autograd(probe.at(i), network(2).eval())
        assert float((probe.at(i).input_gradient["image"] - expected).abs().max()) < 1e-6 * float(expected.abs().max())


def test_windows_without_a_share_are_not_run_again() -> None:
    windows = SlidingWindows((6, 6), 0.0, "constant")
    probe = opened(windows, batch=1)
    layout = windows.of(probe.inputs)
    inside = [s for s in layout.starts if all(a < 10 and a + 6 > 5 for a in s)]
    probe.input_gradient["image"]
    assert 0 < len(inside) < len(layout.starts)
    assert probe.spent.windows == Cost(len(layout.starts) + len(inside), len(inside))
    assert probe.spent.shared == Cost(1, 1)


def test_an_item_alone_is_the_item_in_the_batch() -> None:
    together, alone = opened(WINDOWS["gaussian"]), opened(WINDOWS["gaussian"], batch=1)
    torch.testing.assert_close(together.input_gradient["image"][:1], alone.input_gradient["image"])


def test_own_passes_take_versions_of_the_batch() -> None:
    probe = opened(WINDOWS["gaussian"])
    x = torch.randn(6, 2, 17, 14, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    expected = by_autograd(probe, network(2).eval(), x)
    torch.testing.assert_close(probe.gradient({"image": x})["image"], expected, rtol=1e-5, atol=1e-8)
    w = WINDOWS["gaussian"]
    blend = sliding_window_inference(x, w.size, 1, network(2).eval(), w.overlap, w.blend)
    assert isinstance(blend, Tensor)
    torch.testing.assert_close(probe.score({"image": x}), probe.target(blend).detach(), rtol=1e-5, atol=1e-7)


def test_own_passes_leave_out_windows_that_the_target_does_not_look_at() -> None:
    windows = SlidingWindows((6, 6), 0.0, "constant")
    probe = opened(windows, RegionScore(1, "box"), RegionScore(1, "box", scale="score"), batch=1)
    layout = windows.of(probe.inputs)
    inside = sum(all(a < 10 and a + 6 > 5 for a in s) for s in layout.starts)
    for aimed in (probe, probe.at(1)):
        assert aimed.baseline_score.shape == (1,)  # the shared pass, of all windows
        before = probe.spent.windows
        x = {"image": probe.inputs["image"] * 0.7}
        assert float(aimed.score(x)) == pytest.approx(float(aimed.run(x).score[aimed.aim]), abs=1e-7)
        assert probe.spent.windows.forwards - before.forwards == inside + len(layout.starts)
        torch.testing.assert_close(
            aimed.gradient(x)["image"],
            aimed.run(x, frozenset({Ask.INPUT_GRADIENT})).input_gradient[aimed.aim]["image"],
        )


def test_edits_hold_in_every_window() -> None:
    probe = opened(WINDOWS["gaussian"])
    changed = network(2).eval()
    changed[2].register_forward_hook(lambda _m, _x, out: out * 0.5)
    done = probe.run(want=frozenset({Ask.INPUT_GRADIENT}), edits={"2": lambda out: out * 0.5})
    torch.testing.assert_close(done.input_gradient[0]["image"], by_autograd(probe, changed), rtol=1e-5, atol=1e-8)


def test_rules_hold_in_every_window() -> None:
    probe = opened(WINDOWS["gaussian"])
    inner = network(2).eval()
    smooth = nn.Sequential(inner[0], inner[1], nn.Softplus(), inner[4])
    rules: Mapping[Any, Any] = {F.relu: lambda x, inplace=False: F.softplus(x)}
    done = probe.run(want=frozenset({Ask.INPUT_GRADIENT}), rules=rules)
    torch.testing.assert_close(done.input_gradient[0]["image"], by_autograd(probe, smooth), rtol=1e-5, atol=1e-8)


def test_a_kept_graph_reaches_through_the_blend() -> None:
    probe = opened(WINDOWS["gaussian"])
    x = probe.inputs["image"].clone().requires_grad_()
    score = probe.run({"image": x}, graph=True).score[0]
    expected = by_autograd(probe, network(2).eval())
    torch.testing.assert_close(torch.autograd.grad(score.sum(), x)[0], expected, rtol=1e-5, atol=1e-8)


class Both(nn.Module):
    """Two images and a vector."""

    def __init__(self) -> None:
        super().__init__()
        self.body = network(2, channels=2)

    def forward(self, pet: Tensor, ct: Tensor, age: Tensor) -> Tensor:
        return self.body(torch.cat([pet, ct], 1)) * age[:, :, None, None].tanh()


def test_several_inputs_are_cut_alike_and_vectors_go_to_every_window() -> None:
    specs = (InputSpec("pet", 2), InputSpec("ct", 2), InputSpec("age", 0, 3))
    windows = WINDOWS["padded"]
    model = Model(Both(), specs, OutputSpec("segmentation"), inference=windows)
    draw = torch.Generator().manual_seed(3)
    x = {"pet": (1, 1, 17, 14), "ct": (1, 1, 17, 14), "age": (1, 3)}
    inputs = {k: torch.randn(*shape, generator=draw, dtype=torch.float64) for k, shape in x.items()}
    probe = Probe(model, inputs, RegionScore(1), TO_INPUT)
    found = probe.input_gradient
    held = {k: v.clone().requires_grad_() for k, v in inputs.items()}
    module = Both().eval()
    blend = sliding_window_inference(
        torch.cat([held["pet"], held["ct"]], 1),
        windows.size,
        1,
        lambda part: module(part[:, :1], part[:, 1:], held["age"]),
        windows.overlap,
        windows.blend,
    )
    assert isinstance(blend, Tensor)
    expected = torch.autograd.grad(probe.target(blend).sum(), list(held.values()))
    for name, wanted in zip(held, expected, strict=True):
        torch.testing.assert_close(found[name], wanted, rtol=1e-5, atol=1e-8)


def test_a_fixed_batch_size_is_met() -> None:
    free = opened(WINDOWS["gaussian"], batch=3)
    model = Model(
        network(2), free.model.inputs, free.model.output, can=Abilities(batch=2), inference=free.model.inference
    )
    fixed = Probe(model, free.inputs, free.targets, TO_INPUT, free.scene)
    torch.testing.assert_close(fixed.input_gradient["image"], free.input_gradient["image"])


def test_half_precision_scores_in_single() -> None:
    free = opened(WINDOWS["gaussian"], net=network(2).float())
    half = Probe(free.model, free.inputs, free.targets, TO_INPUT, free.scene, "bfloat16")
    found, wanted = half.input_gradient["image"], free.input_gradient["image"]
    assert half.output.dtype == torch.float32
    assert 0 < float((found - wanted).norm() / wanted.norm()) < 0.05


def test_layers_are_refused_with_the_mend() -> None:
    probe = opened(WINDOWS["gaussian"])
    ask = ((Ask.ACTIVATION, "2"), (Ask.LAYER_GRADIENT, "2"))
    layered = Probe(probe.model, probe.inputs, probe.targets, ask, probe.scene)
    for question in (
        lambda: layered.activation("2"),
        lambda: layered.layer_gradient("2"),
        lambda: layered.run(layers=("2",)),
        lambda: layered.run(layers=("2",), graph=True),
        lambda: layered.behind("2", lambda out: out, 1),
    ):
        with pytest.raises(CannotDo, match="window by window"):
            question()
    assert layered.spent.own == Cost()


def test_a_module_without_a_gradient_is_refused() -> None:
    class Cut(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.cat([x, x[:, :1]], 1).detach()

    with pytest.raises(CannotDo, match="cuts its graph"):
        opened(WINDOWS["gaussian"], net=Cut()).input_gradient["image"]


def test_a_score_that_is_not_finite_is_refused() -> None:
    class Infinite(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.cat([x, x[:, :1]], 1) / 0

    with pytest.raises(NonFinite):
        opened(WINDOWS["gaussian"], net=Infinite()).baseline_score
