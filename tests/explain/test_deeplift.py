"""DeepLIFT and DeepSHAP: the closed forms, completeness where peers lose it, and operations without a rule."""

import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from captum.attr import DeepLift as CaptumDeepLift
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.networks.nets import AttentionUnet, DenseNet121, SegResNet, UNet
from torch import nn

from pellucid.core.errors import BadOption, CannotDo
from pellucid.core.infill import Constant
from pellucid.core.model import OutputSpec
from pellucid.core.probe import Scene
from pellucid.core.target import ClassScore, RegionScore
from pellucid.explain.deeplift import DeepLIFT, DeepSHAP
from tests.explain.conftest import run, wrap

ZERO = DeepLIFT(baseline=Constant())


def vector(layers):
    """A network of 16 pixels and one score."""
    return nn.Sequential(nn.Flatten(), *layers).double().eval()


def first(net, x, explainer=ZERO):
    return run(explainer, wrap(net, 2, channels=(x.shape[1],)), x, ClassScore(0))


def weights(layer):
    return layer.weight.detach().numpy(), layer.bias.detach().numpy()


@pytest.fixture
def x():
    torch.manual_seed(1)
    return torch.randn(1, 1, 4, 4, dtype=torch.float64)


def relu(v):
    return np.maximum(v, 0)


def test_relu_network_is_the_product_of_its_matrices(reference, x):
    torch.manual_seed(0)
    lift, layers = reference("deep_lift"), [nn.Linear(16, 9), nn.ReLU(), nn.Linear(9, 5), nn.Sigmoid(), nn.Linear(5, 1)]
    net = vector(layers)
    stages = [
        lift.linear(*weights(layers[0])),
        lift.elementwise(relu, lambda v: v > 0),
        lift.linear(*weights(layers[2])),
        lift.elementwise(lambda v: 1 / (1 + np.exp(-v)), lambda _v: np.nan),
        lift.linear(*weights(layers[4])),
    ]
    expected = lift.deep_lift(stages, x.numpy().ravel(), np.zeros(16))
    assert np.allclose(first(net, x).maps["image"].numpy().ravel(), expected, atol=1e-6)


def test_largest_and_normalized_are_right(reference, x):
    torch.manual_seed(2)
    lift, last = reference("deep_lift"), nn.Linear(4, 1)
    net = nn.Sequential(nn.InstanceNorm2d(1), nn.MaxPool2d(2), nn.Flatten(), last).double().eval()
    at = np.arange(16).reshape(4, 4)
    groups = [at[r : r + 2, c : c + 2].ravel() for r in (0, 2) for c in (0, 2)]
    stages = [lift.standardized(1e-5), lift.largest(groups), lift.linear(*weights(last))]
    start = torch.linspace(-1, 1, 16, dtype=torch.float64).flip(0).view(1, 1, 4, 4)
    model = wrap(net, 2, channels=(1,))
    answer = run(DeepSHAP(), model, x, ClassScore(0), Scene(background={"image": start}))
    expected = lift.deep_lift(stages, x.numpy().ravel(), start.numpy().ravel())
    assert np.allclose(answer.maps["image"].numpy().ravel(), expected, atol=1e-6)
    assert float(answer.gap.max()) < 1e-9


@given(seed=st.integers(0, 10_000), kind=st.sampled_from(["relu", "gelu", "silu", "prelu", "leaky", "elu", "softmax"]))
@settings(max_examples=25, deadline=None)
def test_every_bend_completes(seed, kind):
    torch.manual_seed(seed)
    bend = {
        "relu": nn.ReLU(),
        "gelu": nn.GELU(),
        "silu": nn.SiLU(),
        "prelu": nn.PReLU(3),
        "leaky": nn.LeakyReLU(0.2),
        "elu": nn.ELU(inplace=True),
        "softmax": nn.Softmax(dim=1),
    }[kind]
    net = nn.Sequential(nn.Conv2d(2, 3, 3), bend, nn.MaxPool2d(3, 1), nn.Flatten(), nn.Linear(48, 1)).double().eval()
    answer = first(net, torch.randn(2, 2, 8, 8, dtype=torch.float64))
    assert float(answer.gap.max()) < 1e-8


class Functional(nn.Module):
    """Reused and functional operations, a residual in place, a gate, and attention over rows."""

    def __init__(self):
        super().__init__()
        self.conv, self.head, self.act = nn.Conv2d(2, 4, 3, padding=1), nn.Linear(4, 2), nn.ReLU()

    def forward(self, x):
        a = self.act(self.conv(x))
        a = a + F.silu(a - 0.1)
        a = a * torch.sigmoid(a.mean((2, 3), keepdim=True))
        b = F.layer_norm(a, a.shape[1:])
        b += a
        rows = b.mean(3).transpose(1, 2)
        rows = F.scaled_dot_product_attention(rows, rows, rows) + torch.einsum("bnc,bnc->bn", rows, rows)[..., None]
        return self.head(F.relu(rows).amax(1) / (1 + rows.square().mean(1)))


def captum(net, x):
    """Captum's map of class 1 against zero; it warns that it puts hooks on the network."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return CaptumDeepLift(net).attribute(x.requires_grad_(), torch.zeros_like(x), target=1).detach()


def test_functional_operations_complete_where_captum_loses_them():
    """B15: captum's hooks see modules alone, and silently give something else."""
    torch.manual_seed(0)
    net, x = Functional().double().eval(), torch.randn(2, 2, 6, 6, dtype=torch.float64)
    answer = run(ZERO, wrap(net, 2), x, ClassScore(1))
    difference = (net(x) - net(torch.zeros_like(x)))[:, 1].detach()
    assert torch.allclose(answer.difference.double(), difference, atol=1e-6)
    assert float(answer.gap.max()) < 1e-6
    theirs = captum(net, x)
    assert float((theirs.flatten(1).sum(1) - difference).abs().max()) > 0.05 * float(difference.abs().max())


@pytest.mark.parametrize("pool", [nn.AvgPool2d(2), nn.MaxPool2d(2)], ids=["mean", "largest"])
def test_modules_of_relu_equal_captum(pool):
    torch.manual_seed(0)
    layers = [nn.Conv2d(1, 4, 3), pool, nn.Conv2d(4, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3)]
    net, x = nn.Sequential(*layers).double().eval(), torch.randn(2, 1, 10, 10, dtype=torch.float64)
    answer = run(ZERO, wrap(net, 2, channels=(1,)), x, ClassScore(1))
    assert torch.allclose(answer.maps["image"].double(), captum(net, x), atol=1e-6)


def test_pooling_right_behind_relu_is_right_where_captum_loses_the_sum(reference):
    torch.manual_seed(0)
    lift, last = reference("deep_lift"), nn.Linear(4, 1)
    net = nn.Sequential(nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), last).double().eval()
    x, start = torch.randn(2, 1, 1, 4, 4, dtype=torch.float64)
    at = np.arange(16).reshape(4, 4)
    groups = [at[r : r + 2, c : c + 2].ravel() for r in (0, 2) for c in (0, 2)]
    stages = [lift.elementwise(relu, lambda v: v > 0), lift.largest(groups), lift.linear(*weights(last))]
    expected = lift.deep_lift(stages, x.numpy().ravel(), start.numpy().ravel())
    model = wrap(net, 2, channels=(1,))
    answer = run(DeepSHAP(), model, x, ClassScore(0), Scene(background={"image": start}))
    assert np.allclose(answer.maps["image"].numpy().ravel(), expected, atol=1e-6)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        theirs = CaptumDeepLift(net).attribute(x.clone().requires_grad_(), start, target=0)
    difference = float((net(x) - net(start)).detach())
    assert expected.sum() == pytest.approx(difference)
    assert abs(float(theirs.detach().sum()) - difference) > 0.1 * abs(difference)


@pytest.mark.parametrize(
    ("make", "rank"),
    [
        (lambda: UNet(3, 1, 2, (4, 8), (2,), num_res_units=1), 3),
        (lambda: SegResNet(3, init_filters=8, blocks_down=(1, 1), blocks_up=(1,)), 3),
        (lambda: AttentionUnet(2, 1, 2, (4, 8), (2,)), 2),
        (lambda: DenseNet121(2, 1, 2, init_features=8, growth_rate=4, block_config=(2, 2)), 2),
    ],
    ids=["UNet", "SegResNet", "AttentionUnet", "DenseNet"],
)
def test_networks_of_monai_complete(make, rank):
    torch.manual_seed(3)
    net, x = make().eval(), torch.randn(2, 1, *(16,) * rank)
    segments = not isinstance(net, DenseNet121)
    output = OutputSpec("segmentation" if segments else "classification", labels=("a", "b"))
    box = torch.zeros((16,) * rank, dtype=torch.bool)
    box[(slice(4, 12),) * rank] = True
    target = RegionScore(1, "box") if segments else ClassScore(1)
    answer = run(ZERO, wrap(net, rank, output, channels=(1,)), x, target, Scene(regions={"box": box}))
    assert float(answer.gap.max()) < 1e-3
    assert answer.warnings == ()


@pytest.mark.parametrize("first_axis", ["batch", "token"])
def test_multihead_attention_and_a_transformer_complete(first_axis):
    torch.manual_seed(4)

    class Transformer(nn.Module):
        def __init__(self):
            super().__init__()
            first = first_axis == "batch"
            self.embed = nn.Conv2d(1, 8, 4, 4)
            self.block = nn.TransformerEncoderLayer(8, 2, 16, activation="gelu", batch_first=first)
            self.head = nn.Linear(8, 2)

        def forward(self, x):
            tokens = self.embed(x).flatten(2).permute(*((0, 2, 1) if first_axis == "batch" else (2, 0, 1)))
            return self.head(self.block(tokens).mean(1 if first_axis == "batch" else 0))

    net, x = Transformer().double().eval(), torch.randn(2, 1, 8, 8, dtype=torch.float64)
    answer = run(ZERO, wrap(net, 2, channels=(1,)), x, ClassScore(1))
    difference = (net(x) - net(torch.zeros_like(x)))[:, 1].detach()
    assert torch.allclose(answer.maps["image"].double().flatten(1).sum(1), difference, atol=1e-6)


def test_what_has_no_rule_is_named_with_its_place():
    class Sorting(nn.Module):
        def forward(self, x):
            return x.flatten(1).sort(1).values[:, :2]

    net, x = nn.Sequential(nn.ReLU(), Sorting()), torch.rand(1, 1, 4, 4)
    with pytest.raises(CannotDo, match=r"sort \(in layer 1\)"):
        first(net, x)
    answer = first(net, x, DeepLIFT(fallback="gradient"))
    assert any("sort (in layer 1)" in w for w in answer.warnings)


def test_a_network_that_turns_elsewhere_at_the_reference_is_refused():
    class Turning(nn.Module):
        def forward(self, x):
            return x.flatten(1).relu() if x.sum() > 0 else x.flatten(1).sigmoid()

    with pytest.raises(CannotDo, match="runs otherwise at the reference"):
        first(Turning(), torch.rand(1, 1, 4, 4))


def test_low_precision_is_refused(x):
    net = vector([nn.Linear(16, 2)]).float()
    with pytest.raises(CannotDo, match="too few digits"):
        run(ZERO, wrap(net, 2, channels=(1,)), x.float(), precision="bfloat16")


def test_what_does_not_depend_on_the_image_needs_no_rule():
    class Table(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = nn.Parameter(torch.randn(4))

        def forward(self, x):
            return x.flatten(1)[:, :4] * self.table.sort().values

    assert float(first(Table(), torch.rand(1, 1, 4, 4)).gap.max()) < 1e-6


def test_deepshap_of_a_linear_score_is_exact(reference, x):
    shap, layer = reference("deep_shap"), nn.Linear(16, 1)
    normal = torch.randn(5, 1, 4, 4, dtype=torch.float64)
    model = wrap(vector([layer]), 2, channels=(1,))
    answer = run(DeepSHAP(), model, x, ClassScore(0), Scene(background={"image": normal}))
    flat = normal.numpy().reshape(5, 16)
    expected = shap.exact_linear(weights(layer)[0][0], x.numpy().ravel(), flat)
    assert np.allclose(answer.maps["image"].numpy().ravel(), expected, atol=1e-6)
    each = [weights(layer)[0][0] * (x.numpy().ravel() - r) for r in flat]
    assert np.allclose(answer.error["image"].numpy().ravel(), shap.deep_shap(each)[1], atol=1e-6)


def test_no_references_is_refused():
    with pytest.raises(BadOption, match="at least 1 reference"):
        DeepSHAP(references=0)
