"""Relevance is conserved over the networks that people use, in 2-D and 3-D: score = map + ledger.

Of the defects measured in peers, right here: B17, over whole architectures with residual sums, skips and norms.
"""

import pytest
import torch
from monai.networks import nets
from torch import nn

from pellucid.core.model import Model, OutputSpec
from pellucid.core.prepare import InputSpec
from pellucid.core.probe import Probe, Scene
from pellucid.core.target import ClassScore, RegionScore
from pellucid.explain.relevance import LRP, DeepTaylor

ranks = pytest.mark.parametrize("rank", [2, 3])


class NnUNet(nn.Module):
    """Two scales of convolution, instance normalization and leaky rectifier, with deep supervision off."""

    def __init__(self, rank):
        super().__init__()
        n = f"{rank}d"
        layer, norm, up = (getattr(nn, f"{kind}{n}") for kind in ("Conv", "InstanceNorm", "ConvTranspose"))

        def block(a, b, stride=1):
            return nn.Sequential(layer(a, b, 3, stride, 1), norm(b, affine=True), nn.LeakyReLU(0.01, inplace=True))

        self.one, self.two = nn.Sequential(block(1, 4), block(4, 4)), nn.Sequential(block(4, 6, 2), block(6, 6))
        self.up, self.out, self.head = up(6, 4, 2, 2), block(8, 4), layer(4, 2, 1)

    def forward(self, x):
        fine = self.one(x)
        return self.head(self.out(torch.cat([self.up(self.two(fine)), fine], 1)))


def swin(rank):
    return nets.SwinUNETR(
        in_channels=1, out_channels=2, feature_size=12, depths=(1, 2, 1, 1), num_heads=(1, 2, 2, 2), spatial_dims=rank
    )


def unetr(rank):
    size = (16,) * rank
    return nets.UNETR(1, 2, size, feature_size=4, hidden_size=24, mlp_dim=32, num_heads=2, spatial_dims=rank)


NETS = {
    "UNet": (lambda r: nets.UNet(r, 1, 2, (4, 8, 8), (2, 2), num_res_units=1), 8),
    "SegResNet": (lambda r: nets.SegResNet(r, 8, in_channels=1, blocks_down=(1, 1), blocks_up=(1,)), 8),
    "DenseNet": (lambda r: nets.DenseNet(r, 1, 2, init_features=8, growth_rate=4, block_config=(2, 2)), 32),
    "SwinUNETR": (swin, 32),
    "UNETR": (unetr, 16),
    "nnU-Net": (NnUNet, 8),
}


def drawn(name, rank):
    """A network in float64 with statistics and constants that are not zero, an image, a probe."""
    build, side = NETS[name]
    torch.manual_seed(5)
    net = build(rank).double().eval()
    for key, p in net.named_parameters():
        if key.endswith("bias"):
            nn.init.normal_(p, 0, 0.05)
    for module in net.modules():
        if getattr(module, "running_mean", None) is not None:
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    shape = (2 * side if name == "SwinUNETR" else side, *(side,) * (rank - 1))  # one cell has no deviation
    return net, torch.randn(1, 1, *shape, dtype=torch.float64)


def without_constants(net):
    for key, p in net.named_parameters():
        if key.endswith("bias") or "position_embeddings" in key:
            nn.init.zeros_(p)
    for module in net.modules():
        if getattr(module, "running_mean", None) is not None:
            module.running_mean.zero_()


def probed(net, x):
    rank = x.ndim - 2
    with torch.no_grad():
        seg = net(x).ndim > 2
    box = torch.zeros(x.shape[2:], dtype=torch.bool)
    box[(slice(2, 6),) * rank] = True
    target = RegionScore(1, "box") if seg else ClassScore(1)
    output = OutputSpec("segmentation" if seg else "classification")
    return Probe(Model(net, (InputSpec(rank=rank),), output), x, target, scene=Scene(regions={"box": box}))


@ranks
@pytest.mark.parametrize("name", NETS)
def test_score_is_map_and_ledger(name, rank):
    net, x = drawn(name, rank)
    probe = probed(net, x)
    for method in (LRP("epsilon"), LRP("epsilon-plus-flat")):
        ledger = method(probe).ledger
        assert torch.allclose(ledger.start, probe.baseline_score)
        moved = ledger.start.abs() + sum(e.amount.abs() for e in ledger.entries)
        assert float((ledger.unexplained.abs() / moved).max()) < 1e-3, method


@ranks
@pytest.mark.parametrize("name", NETS)
def test_the_map_is_the_whole_score_where_nothing_is_constant(name, rank):
    net, x = drawn(name, rank)
    without_constants(net)
    answer = LRP("0")(probed(net, x))
    assert torch.allclose(answer.ledger.arrived, answer.ledger.start, rtol=1e-6)
    assert not answer.warnings


@ranks
@pytest.mark.parametrize("name", ["UNet", "DenseNet", "nnU-Net"])
def test_deep_taylor_is_never_negative_and_keeps_the_score(name, rank):
    net, x = drawn(name, rank)
    probe = probed(net, x)
    last = [p for key, p in net.named_parameters() if key.endswith("bias")][-1]
    last.data += 5  # a score above zero
    answer = DeepTaylor()(probe)
    assert float(answer.maps["image"].min()) >= 0
    assert float(answer.ledger.arrived) <= float(answer.ledger.start) * (1 + 1e-9)
    moved = answer.ledger.start + sum(e.amount.abs() for e in answer.ledger.entries)
    assert float(answer.ledger.unexplained.abs() / moved) < 1e-6
