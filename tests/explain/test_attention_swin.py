"""Attention methods on Swin transformers: shifted windows, padding and patch merging, against dense matrices."""

import numpy as np
import pytest
import torch
from monai.networks.nets.swin_unetr import SwinTransformer, SwinUNETR, WindowAttention
from torch import nn

from pellucid.core.errors import CannotDo
from pellucid.core.model import Model, OutputSpec
from pellucid.core.prepare import InputSpec
from pellucid.core.probe import Probe, Scene
from pellucid.core.space import resize
from pellucid.core.target import ClassScore, RegionScore
from pellucid.core.tokens import attention_of
from pellucid.explain.attention import RawAttention, origin
from pellucid.explain.rollout import AttentionRollout, GradientAttentionRollout

SIZES = {2: (24, 40), 3: (12, 8, 16)}
WINDOW = {2: (4, 3), 3: (2, 3, 3)}


class Classifier(nn.Module):
    """Two stages of two blocks, the second block of each shifted; merging between them, padding in both."""

    def __init__(self, rank: int) -> None:
        super().__init__()
        self.swin = SwinTransformer(
            1, 8, WINDOW[rank], (2,) * rank, (2, 2, 1, 1), (2, 2, 2, 2), spatial_dims=rank, patch_norm=True
        )
        self.head = nn.Linear(16, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The second stage's tokens, before their merging, averaged."""
        x = self.swin.pos_drop(self.swin.patch_embed(x))
        x = self.swin.layers1[0](x)
        stage = self.swin.layers2[0]
        merge, stage.downsample = stage.downsample, None
        x = stage(x)
        stage.downsample = merge
        return self.head(x.flatten(2)[:, :, ::3].mean(2))  # of every third token, so that they are not all alike


@pytest.fixture(params=[2, 3])
def swin(request: pytest.FixtureRequest) -> tuple[Model, torch.Tensor]:
    """The network in double precision with weights large enough that attention is not uniform, and two images."""
    rank = request.param
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        net = Classifier(rank)
        with torch.no_grad():
            for p in net.parameters():
                p.add_(torch.randn_like(p) * 0.3)
        x = torch.randn(2, 1, *SIZES[rank])
    return Model(net.double().eval(), (InputSpec(rank=rank),)), x.double()


def captured(net: nn.Module, x: torch.Tensor) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Weights and gradients of the four blocks, by hooks on MONAI's softmax: per item, windows, heads, n, n."""
    kept: list[torch.Tensor] = []
    layers = [m for m in net.modules() if isinstance(m, WindowAttention)]
    hooks = [m.softmax.register_forward_hook(lambda _m, _a, o: kept.append(o)) for m in layers]
    score = net(x)[:, 1].sum()
    for hook in hooks:
        hook.remove()
    found = torch.autograd.grad(score, kept)
    split = [
        (w.detach().unflatten(0, (2, -1)).numpy(), g.unflatten(0, (2, -1)).numpy())
        for w, g in zip(kept, found, strict=True)
    ]
    return [w for w, _ in split], [g for _, g in split]


def layout(rank: int, block: int) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """Grid, window and shift of a block, by the paper: half a window in every second block, none in a lone window."""
    grid = tuple(-(-n // (2 if block < 2 else 4)) for n in SIZES[rank])
    window = tuple(min(w, g) for w, g in zip(WINDOW[rank], grid, strict=True))
    shift = tuple(w // 2 if block % 2 and g > w else 0 for w, g in zip(WINDOW[rank], grid, strict=True))
    return grid, window, shift


def test_maps_equal_dense_matrices(swin, reference):
    model, x = swin
    rank, second = x.dim() - 2, reference("attention_rollout")
    weights, gradients = captured(model.module, x)
    methods = (AttentionRollout(), GradientAttentionRollout(), GradientAttentionRollout(normalized=True))
    probes = [Probe(model, x, ClassScore(1), m.needs(model, {"image": x})) for m in methods]
    answers = [method(probe).maps["image"] for method, probe in zip(methods, probes, strict=True)]
    start = origin(probes[0], attention_of(model, {"image": x})[-1]).numpy()
    assert np.allclose(start.sum(1), 1)
    for item in range(2):
        rolled, pairs = [], []
        for block in range(4):
            places = layout(rank, block)
            w, g = weights[block][item], gradients[block][item]
            if block == 2:
                merge = second.merging(layout(rank, 0)[0])
                rolled.append(("merge", merge))
                pairs.append(merge)
            rolled.append(second.dense(w.mean(1), *places))
            pairs.append(second.dense(np.maximum(w * g, 0).mean(1), *places))
        wanted = [second.rollout(rolled, start[item])]
        for normalized in (False, True):
            row = start[item]
            for one in reversed(pairs):
                if one.shape[0] != one.shape[1]:
                    row = row @ one
                    continue
                whole = np.eye(len(one)) + one
                row = row @ (whole / whole.sum(1, keepdims=True) if normalized else whole)
            wanted.append(row)
        for answer, row in zip(answers, wanted, strict=True):
            shown = resize(torch.from_numpy(row).reshape(1, 1, *layout(rank, 0)[0]), SIZES[rank])[0]
            assert torch.allclose(answer[item], shown, rtol=0, atol=1e-6 * float(shown.max()))


def test_rows_of_windows_sum_to_one(swin):
    model, x = swin
    probe = Probe(model, x, ClassScore(1), RawAttention().needs(model, {"image": x}))
    for weights in probe.attention.weights:
        assert torch.allclose(weights.sum(-1), torch.ones((), dtype=torch.float64))


@pytest.mark.parametrize("flash", [False, True])
def test_segmentation_in_two_and_three_dimensions(flash):
    for rank, side in ((2, (64, 32)), (3, (32, 32, 64))):
        torch.manual_seed(0)
        net = SwinUNETR(1, 2, feature_size=12, num_heads=(1, 2, 2, 2), window_size=4, depths=(2, 1, 1, 1),
                        spatial_dims=rank, use_flash_attention=flash).eval()  # fmt: skip
        model = Model(net, (InputSpec(rank=rank),), OutputSpec("segmentation"))
        x, box = torch.randn(1, 1, *side), torch.zeros(side, dtype=torch.bool)
        box[(slice(0, 16),) * rank] = True
        for method in (RawAttention(), AttentionRollout(), GradientAttentionRollout()):
            needs = method.needs(model, {"image": x})
            probe = Probe(model, x, RegionScore(1, "box"), needs, Scene(regions={"box": box}))
            answer = method(probe)
            assert torch.isfinite(answer.maps["image"]).all()
            assert answer.maps["image"].shape == x.shape
            assert answer.cell == ((16.0,) * rank if isinstance(method, RawAttention) else (2.0,) * rank)
            assert torch.allclose(probe.output, net(x), atol=1e-4)


def test_checkpointed_layers_are_refused_with_the_mend():
    torch.manual_seed(0)
    net = SwinUNETR(1, 2, feature_size=12, num_heads=(1, 2, 2, 2), depths=(1, 1, 1, 1), spatial_dims=2)
    for module in net.modules():
        if type(module).__name__ in ("SwinTransformerBlock", "BasicLayer"):
            module.use_checkpoint = True
    model, x = Model(net, (InputSpec(),), OutputSpec("segmentation")), torch.randn(1, 1, 64, 64)
    method = GradientAttentionRollout()
    box = torch.ones(64, 64, dtype=torch.bool)
    with pytest.raises(CannotDo, match=r"activation checkpointing.*use_checkpoint=False"):
        method(Probe(model, x, RegionScore(1, "box"), method.needs(model, {"image": x}), Scene(regions={"box": box})))
