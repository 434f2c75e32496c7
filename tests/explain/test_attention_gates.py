"""SpatialGate and ChannelGate: the picture and, beside it, what taking the gate away does."""

import numpy as np
import pytest
import torch
from monai.networks.blocks import ChannelSELayer
from monai.networks.nets import AttentionUnet
from torch import nn

from pellucid.core.errors import CannotDo, UnknownLayer
from pellucid.core.model import Model, OutputSpec
from pellucid.core.prepare import InputSpec
from pellucid.core.probe import Probe, Scene
from pellucid.core.space import resize
from pellucid.core.target import ClassScore, RegionScore
from pellucid.explain.gates import ChannelGate, SpatialGate
from pellucid.testing import small_model


def answered(method, model, x, target, scene=None):
    return method(Probe(model, x, target, method.needs(model, {"image": x}), scene))


@pytest.mark.parametrize("rank", [2, 3])
def test_gates_of_the_attention_unet(rank):
    torch.manual_seed(0)
    net = AttentionUnet(rank, 1, 2, (4, 8, 16), (2, 2)).eval()
    model = Model(net, (InputSpec(rank=rank),), OutputSpec("segmentation"))
    x, box = torch.randn(2, 1, *(16,) * rank), torch.zeros((16,) * rank, dtype=torch.bool)
    box[(slice(4, 12),) * rank] = True
    kept, gates = [], [m.psi for m in net.modules() if type(m).__name__ == "AttentionBlock"]
    hook = gates[0].register_forward_hook(lambda _m, _a, o: kept.append(o))
    whole = net(x)[:, 1][:, box].mean(1).detach()
    hook.remove()
    hook = gates[0].register_forward_hook(lambda _m, _a, o: o * 0 + o.mean(tuple(range(2, o.ndim)), keepdim=True))
    level = net(x)[:, 1][:, box].mean(1).detach()
    hook.remove()
    answer = answered(SpatialGate(), model, x, RegionScore(1, "box"), Scene(regions={"box": box}))
    assert torch.allclose(answer.maps["image"], kept[0])
    assert answer.cell == (1.0,) * rank
    told = f"from {float(whole[0]):.3g} to {float(level[0]):.3g}; {float(whole[1]):.3g} to {float(level[1]):.3g}"
    assert told in answer.warnings[0]
    inner = SpatialGate(layer="model.1.submodule.1.attention.psi.2")
    answer = answered(inner, model, x, RegionScore(1, "box"), Scene(regions={"box": box}))
    assert answer.cell == (2.0,) * rank


class Squeezed(nn.Module):
    """MONAI's squeeze and excitation between a convolution and a linear head."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.gate = nn.Conv2d(1, 8, 3, 2, 1), ChannelSELayer(2, 8, r=2)
        self.head = nn.Linear(8 * 16, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.gate(self.conv(x)).flatten(1))


def test_channels_behind_which_all_is_linear_sum_to_the_effect(reference):
    torch.manual_seed(0)
    net = Squeezed().eval()
    x, model = torch.randn(2, 1, 8, 8), Model(net, (InputSpec(),))
    answer = answered(ChannelGate(), model, x, ClassScore(1))
    features = net.conv(x).detach()
    gate = net.gate.fc(features.mean((2, 3))).detach()
    slope = net.head.weight[1].detach().view(8, 4, 4).numpy()
    for item in range(2):
        cells = reference("channel_gate").cells(slope, gate[item].numpy(), features[item].numpy())
        shown = resize(torch.from_numpy(cells).float()[None, None], (8, 8))[0]
        assert torch.allclose(answer.maps["image"][item], shown, atol=1e-6)
        mean = gate[item].mean() * features[item]
        effect = (net(x)[item, 1] - net.head(mean.flatten())[1]).detach()
        assert np.isclose(float(effect), cells.sum(), atol=1e-5)
    assert f"sum to {cells.sum():.3g}" in answer.warnings[1].replace(", ", " sum to ")


def test_a_spatial_gate_by_hand(reference):
    class Gated(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.gate = nn.Conv2d(1, 3, 2, 2), nn.Sequential(nn.Conv2d(3, 1, 1), nn.Sigmoid())
            self.head = nn.Linear(3 * 16, 2)

        def forward(self, x):
            y = self.conv(x)
            return self.head((y * self.gate(y)).flatten(1))

    torch.manual_seed(1)
    net, x = Gated(), torch.randn(1, 1, 8, 8)
    answer = answered(SpatialGate(), Model(net, (InputSpec(),)), x, ClassScore(0))
    y = net.conv(x).detach()
    gate = net.gate(y)[0, 0].detach().numpy()

    def score(values):
        return float(net.head(torch.from_numpy(values).float().flatten())[0].detach())

    effect = reference("spatial_gate").effect(score, y[0].numpy(), gate)
    whole = float(net(x)[0, 0].detach())
    assert f"from {whole:.3g} to {whole - effect:.3g}" in answer.warnings[0]


def test_networks_without_gates_are_refused():
    model, x, _ = small_model(2, "classification")
    for method, what in ((SpatialGate(), "places"), (ChannelGate(), "channels")):
        with pytest.raises(CannotDo, match=f"no attention gate over {what}"):
            method.needs(model, {"image": x})
    with pytest.raises(UnknownLayer, match="no gate over places"):
        SpatialGate(layer="inner.0.0").needs(model, {"image": x})


def test_a_sigmoid_at_the_output_is_no_gate():
    net = nn.Sequential(nn.Conv2d(1, 1, 3, 1, 1), nn.Sequential(nn.Conv2d(1, 1, 1), nn.Sigmoid()))
    model = Model(net, (InputSpec(),), OutputSpec("segmentation", activation="none", unit="probability"))
    with pytest.raises(CannotDo, match="no attention gate"):
        SpatialGate().needs(model, {"image": torch.zeros(1, 1, 8, 8)})


def test_what_a_gate_multiplies_must_be_seen():
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.fc, self.gate, self.head = (
                nn.Conv2d(1, 4, 2),
                nn.Linear(4, 4),
                nn.Sigmoid(),
                nn.Linear(4, 2),
            )

        def forward(self, x):
            y = self.conv(x)
            g = self.gate(self.fc(y.mean((2, 3))))
            return self.head(torch.einsum("bc,bcxy->bc", g, y))

    with pytest.raises(CannotDo, match="multiplies was not seen"):
        answered(ChannelGate(), Model(Odd(), (InputSpec(),)), torch.randn(1, 1, 8, 8), ClassScore(0))
