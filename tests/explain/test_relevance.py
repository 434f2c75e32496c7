"""LRP and deep Taylor against second implementations, closed forms and captum.

Of the defects measured in peers, right here: B14 (captum has no rule for most layers of a 3-D network), B17 (zennit
loses or doubles relevance at residual sums, instance normalization and functional ReLU, without a word).
"""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from pellucid.core.errors import BadOption, CannotDo
from pellucid.core.model import Model, OutputSpec
from pellucid.core.prepare import InputSpec
from pellucid.core.probe import Probe, Scene
from pellucid.core.target import ClassScore, Margin, RegionScore
from pellucid.explain.relevance import LRP, DeepTaylor

SHAPE = {2: (5, 6), 3: (4, 3, 5)}
ranks = pytest.mark.parametrize("rank", [2, 3])


def conv(rank, *args, **more):
    return (nn.Conv2d if rank == 2 else nn.Conv3d)(*args, **more)


def chained(rank, bias=True):
    """Affine maps, and the network that has a rectifier between each two."""
    torch.manual_seed(rank)
    size = 2 * torch.Size(SHAPE[rank]).numel()
    head = nn.Sequential(nn.Flatten(), nn.Linear(size, 3, bias=bias))
    maps = [conv(rank, 2, 3, 3, padding=1, bias=bias), conv(rank, 3, 2, 3, padding=1, bias=bias), head]
    maps = [m.double() for m in maps]
    return maps, lambda act: nn.Sequential(maps[0], act, maps[1], act, maps[2])


def opened(net, rank, x, target=None, output=None, scene=None, precision="float32"):
    model = Model(net, (InputSpec(rank=rank, channels=x.shape[1], order="rgb"),), output or OutputSpec())
    return Probe(model, x, target or ClassScore(1), scene=scene, precision=precision)


def noise(*shape, seed=3):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def close(ours, theirs, relative=1e-6):
    return float((ours - theirs).abs().max()) <= relative * float(theirs.abs().max())


def own_range(item):
    """Least and greatest value of each channel, at every voxel: what is known without a card."""
    ends = {"low": item.flatten(1).amin(1), "high": item.flatten(1).amax(1)}
    return {k: v.view(-1, *(1,) * (item.ndim - 1)).expand_as(item).flatten().numpy() for k, v in ends.items()}


CASES = {
    "0": (LRP("0"), ["0", "0", "0"], {}),
    "epsilon": (LRP("epsilon", epsilon=0.05), ["epsilon"] * 3, {"epsilon": 0.05}),
    "gamma": (LRP("gamma", gamma=0.4), ["gamma"] * 3, {"raised": 0.4}),
    "alpha-beta": (LRP("alpha-beta", alpha=3.0), ["alpha-beta"] * 3, {"alpha": 3.0}),
    "z+": (LRP("z+"), ["alpha-beta"] * 3, {"alpha": 1.0}),
    "epsilon-gamma": (LRP("epsilon-gamma"), ["gamma", "gamma", "epsilon"], {"epsilon": 1e-6}),
    "epsilon-alpha2-beta1": (LRP("epsilon-alpha2-beta1"), ["alpha-beta", "alpha-beta", "0"], {"epsilon": 1e-6}),
    "epsilon-plus": (LRP(), ["alpha-beta", "alpha-beta", "0"], {"alpha": 1.0, "epsilon": 1e-6}),
    "epsilon-plus-flat": (LRP("epsilon-plus-flat"), ["flat", "alpha-beta", "0"], {"alpha": 1.0, "epsilon": 1e-6}),
    "w2": (LRP(first="w2"), ["w2", "alpha-beta", "0"], {"alpha": 1.0, "epsilon": 1e-6}),
    "zB": (LRP(first="zB"), ["zB", "alpha-beta", "0"], {"alpha": 1.0, "epsilon": 1e-6}),
}


@ranks
@pytest.mark.parametrize("slope", [0.0, 0.3])
@pytest.mark.parametrize("name", CASES)
def test_every_rule_equals_the_second_implementation(name, slope, rank, reference):
    maps, joined = chained(rank)
    x = noise(2, 2, *SHAPE[rank])
    x[:, :, 1] = 0  # background, which flat and zB give relevance and the others none
    method, rules, options = CASES[name]
    answer = method(opened(joined(nn.LeakyReLU(slope, inplace=True)), rank, x))
    for i in range(2):
        first = own_range(x[i])
        expected = reference("lrp").lrp(
            maps, x[i : i + 1], torch.tensor([0.0, 1, 0]).double(), rules, [options | first] * 3, slope
        )
        assert close(answer.maps["image"][i].flatten(), expected)


@ranks
@pytest.mark.parametrize("first", ["z+", "w2", "zB"])
def test_deep_taylor_equals_the_second_implementation_and_sums_to_the_score(first, rank, reference):
    maps, joined = chained(rank)
    x = noise(3, 2, *SHAPE[rank]).abs()
    maps[2][1].bias.data += 1  # a score above zero
    probe = opened(joined(nn.ReLU()), rank, x, target=ClassScore(None))
    answer = DeepTaylor(first)(probe)
    assert float(answer.maps["image"].min()) >= 0
    assert bool((probe.baseline_score > 0).all())
    assert torch.allclose(answer.maps["image"].flatten(1).sum(1), probe.baseline_score, rtol=1e-6)
    pick = int(probe.output[0].argmax())
    expected = reference("deep_taylor").deep_taylor(maps, x[:1], pick, first, **own_range(x[0]))
    assert close(answer.maps["image"][0].flatten(), expected)


def test_deep_taylor_has_nothing_to_divide_in_a_negative_score():
    net = nn.Sequential(nn.Flatten(), nn.Linear(16, 2))
    x = torch.rand(1, 1, 4, 4)
    target = ClassScore(int(net(x).argmin()))
    net[1].bias.data -= 10
    answer = DeepTaylor()(opened(net, 2, x, target))
    assert not answer.maps["image"].any()
    assert any("nothing to divide" in w for w in answer.warnings)


@ranks
def test_rule_0_is_input_times_gradient_without_biases(rank):
    _, joined = chained(rank, bias=False)
    x = noise(2, 2, *SHAPE[rank]).requires_grad_()
    net = joined(nn.ReLU())
    score = net(x)[:, 1]
    gradient = torch.autograd.grad(score.sum(), x)[0]
    answer = LRP("0")(opened(net, rank, x.detach()))
    assert close(answer.maps["image"], (x * gradient).detach(), 1e-12)
    assert torch.allclose(answer.maps["image"].flatten(1).sum(1), score.detach(), rtol=1e-10)
    assert float(answer.gap.max()) < 1e-10
    assert not answer.warnings


class Everything(nn.Module):
    """The layers that captum has no rule for, a residual sum, a concatenation, functional and reused activations."""

    def __init__(self, rank, bias=False):
        super().__init__()
        more = {"bias": bias}
        n = "2d" if rank == 2 else "3d"
        self.conv = conv(rank, 2, 4, 3, padding=1, **more)
        self.batch = getattr(nn, f"BatchNorm{n}")(4)
        self.instance = getattr(nn, f"InstanceNorm{n}")(4, affine=True)
        self.group = nn.GroupNorm(2, 4)
        self.again = conv(rank, 4, 4, 3, padding=1, **more)
        self.up = getattr(nn, f"ConvTranspose{n}")(4, 4, 2, 2, **more)
        self.pool = getattr(nn, f"AvgPool{n}")(2)
        self.prelu, self.silu = nn.PReLU(), nn.SiLU(inplace=True)
        self.layer, self.head = nn.LayerNorm(8), nn.Linear(8, 3, **more)

    def forward(self, x):
        a = F.leaky_relu(self.instance(self.conv(x)), 0.1)
        a = a + F.gelu(self.group(self.again(a)))
        b = self.silu(self.up(self.pool(a)))
        b = F.interpolate(b, size=a.shape[2:], mode="nearest")
        c = self.prelu(self.batch(self.again(b)))
        c += a
        a = torch.cat([F.relu(c, inplace=True), torch.tanh(b) * torch.sigmoid(a)], 1)
        return self.head(self.layer(a.flatten(2).mean(2)))


def without_shift(net):
    for m in net.modules():
        if getattr(m, "running_mean", None) is not None:
            m.running_mean.zero_()
            m.running_var.uniform_(0.5, 2.0)
        if getattr(m, "bias", None) is not None:
            nn.init.zeros_(m.bias)
    return net


@ranks
@pytest.mark.parametrize("rule", ["0", "epsilon", "gamma", "epsilon-plus", "epsilon-plus-flat"])
def test_layers_that_peers_have_no_rule_for_conserve(rule, rank):  # B14, B17
    torch.manual_seed(1)
    net = without_shift(Everything(rank)).double()
    x = noise(2, 2, *(8,) * rank)
    answer = LRP(rule)(opened(net, rank, x))
    score = net.eval()(x)[:, 1].detach()
    assert torch.allclose(answer.difference, score, rtol=1e-9)
    assert float((answer.ledger.unexplained / score).abs().max()) < 1e-6
    assert set(answer.ledger.by_cause()) <= {"stabilizer"}  # z+ has nothing to divide where no contribution is positive
    assert torch.allclose(answer.ledger.arrived, score, rtol=0.1 if "plus" in rule else 1e-3)


def test_captum_refuses_such_a_network():  # B14
    from captum.attr import LRP as Theirs

    net = without_shift(Everything(3)).eval()
    with pytest.raises(TypeError, match="no rule"):
        Theirs(net).attribute(torch.randn(1, 2, 8, 8, 8), target=1)


def test_a_residual_sum_divides_in_proportion():  # B17: without a canonizer the peer returns twice the score
    class Residual(nn.Module):
        def forward(self, x):
            return (x + 3 * x.abs()).flatten(1).sum(1, keepdim=True)

    x = noise(1, 1, 3, 3)
    net = Residual()
    answer = LRP()(opened(net, 2, x, ClassScore(0)))
    assert torch.allclose(answer.maps["image"], x + 3 * x.abs())


@ranks
def test_an_instance_norm_with_a_leaky_rectifier_keeps_all(rank):  # B17: the peer's sum is zero
    torch.manual_seed(0)
    norm = nn.InstanceNorm2d(4) if rank == 2 else nn.InstanceNorm3d(4)
    head = nn.Sequential(nn.AdaptiveMaxPool2d(1) if rank == 2 else nn.AdaptiveMaxPool3d(1), nn.Flatten())
    net = nn.Sequential(conv(rank, 1, 4, 3, bias=False), norm, nn.LeakyReLU(0.01), head, nn.Linear(4, 2, bias=False))
    x = noise(2, 1, *(7,) * rank)
    answer = LRP("epsilon")(opened(net.double(), rank, x))
    assert torch.allclose(answer.maps["image"].flatten(1).sum(1), net(x)[:, 1].detach(), rtol=1e-3)


@pytest.mark.parametrize("rule", ["0", "epsilon", "epsilon-plus", "epsilon-gamma", "epsilon-alpha2-beta1"])
def test_the_ledger_accounts_for_what_biases_norms_and_constants_took(rule):
    torch.manual_seed(2)
    net = Everything(2, bias=True)
    net.batch.running_mean.normal_(0, 0.2)
    nn.init.normal_(net.instance.bias, 0, 0.2)
    nn.init.normal_(net.layer.bias, 0, 0.2)
    x = noise(2, 2, 8, 8)
    answer = LRP(rule)(opened(net.double(), 2, x))
    ledger = answer.ledger
    assert float((ledger.unexplained / ledger.start).abs().max()) < 1e-4
    assert {"bias", "shift of a norm"} <= set(ledger.by_cause())
    places = {e.place for e in ledger.entries}
    assert {"instance", "layer", "head"} <= places
    assert any("of the score arrived at the image" in w for w in answer.warnings) == bool(
        (ledger.lost.abs() > 0.1).any()
    )


def test_batch_norm_is_folded_into_the_convolution_before_it(reference):
    torch.manual_seed(3)
    body = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3)).double()
    norm = body[1]
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.5, 2)
    nn.init.normal_(norm.weight)  # half of them below zero: contributions change sides
    nn.init.normal_(norm.bias)
    head = nn.Sequential(nn.Flatten(), nn.Linear(27, 2)).double()
    x = noise(1, 1, 5, 5)
    answer = LRP()(opened(nn.Sequential(body, nn.ReLU(), head), 2, x))
    body.eval()
    options = [{"alpha": 1.0, "epsilon": 1e-6}] * 2
    expected = reference("lrp").lrp([body, head], x, torch.tensor([0.0, 1]).double(), ["alpha-beta", "0"], options)
    assert close(answer.maps["image"].flatten(), expected)


class Calls(nn.Module):
    """A bias-free network with one operation of a test's choice in it."""

    def __init__(self, operation):
        super().__init__()
        torch.manual_seed(4)
        self.conv, self.operation = nn.Conv2d(1, 4, 3, bias=False), operation
        self.head = nn.LazyLinear(2, bias=False)

    def forward(self, x):
        return self.head(self.operation(self.conv(x)).flatten(1))


def halves(a):
    first, second = a.chunk(2, 1)
    return first.softmax(-1) @ second.transpose(-1, -2)


def overwritten(a):
    out = torch.zeros(len(a), 4, 8, 8, dtype=a.dtype)
    out[:, :, 1:7, 1:7] = a
    out[:, 0] *= 2
    return out


def halves_in_place(a):
    a[:, :2].mul_(3)
    a.sub_(a[:, 1:2].clone() / 3)
    F.silu(a, inplace=True)
    F.leaky_relu_(a[:, 1:], 0.5)
    return a


KEEP = {
    "product of two features": lambda a: a * a.flip(1),
    "power": lambda a: a**3,
    "gate behind": lambda a: torch.sigmoid(a.mean((2, 3), keepdim=True)) * a,
    "gate in place": lambda a: a.mul_(torch.sigmoid(a.mean((2, 3), keepdim=True))),
    "attention": halves,
    "einsum": lambda a: torch.einsum("bchw,bdhw->bcd", a.softmax(1), a),
    "fused attention": lambda a: F.scaled_dot_product_attention(a, a.flip(1), a),
    "standardized by hand": lambda a: (a - a.mean((2, 3), keepdim=True)) / a.std((2, 3), keepdim=True),
    "difference": lambda a: torch.sub(a, a.flip(1), alpha=2),
    "loop": lambda a: torch.stack([2 * part for part in a], 0),
    "glu": lambda a: F.glu(a, 1),
    "overwritten": overwritten,
    "views in place": halves_in_place,
    "pixel shuffle": lambda a: F.pixel_shuffle(a, 2),
    "pad and roll": lambda a: F.pad(a.roll(1, -1), (1, 2)),
    "maxima": lambda a: torch.maximum(a, a.flip(-1)).amax(1, keepdim=True),
    "parameter alone": lambda a: a @ nn.Parameter(torch.eye(6, dtype=a.dtype) * 2).T,
}


@pytest.mark.parametrize("name", KEEP)
def test_operations_conserve(name):
    net = Calls(KEEP[name]).double()
    x = noise(2, 1, 8, 8)
    score = net(x)[:, 1].detach()
    for method in (LRP("0"), LRP("epsilon"), LRP("epsilon", first="w2")):
        answer = method(opened(net, 2, x))
        assert torch.allclose(answer.maps["image"].flatten(1).sum(1), score, rtol=1e-3), method


@pytest.mark.parametrize(
    ("operation", "constant"),
    [
        (lambda a: a + 2, "constant"),
        (lambda a: 2 - a, "constant"),
        (lambda a: a - torch.full((6,), 0.5), "constant"),
        (lambda a: a.sub_(0.5), "constant"),
        (lambda a: torch.sigmoid(a) + F.softplus(a), "stabilizer"),
    ],
)
def test_constants_are_written_down(operation, constant):
    net = Calls(operation).double()
    x = noise(2, 1, 8, 8)
    net(x)  # its lazy layer is made
    ledger = LRP("0")(opened(net, 2, x)).ledger
    assert float((ledger.unexplained / ledger.start).abs().max()) < 1e-6
    if constant == "constant":
        assert constant in ledger.by_cause()


class Doubled(torch.autograd.Function):
    @staticmethod
    def forward(_ctx, x):
        return 2 * x

    @staticmethod
    def backward(_ctx, g):
        return 2 * g


@pytest.mark.parametrize(
    ("operation", "named"),
    [
        (torch.erf, "erf"),
        (torch.exp, "exp"),
        (lambda a: 1 / a, "div"),
        (lambda a: a.log_softmax(1), "log_softmax"),
        (Doubled.apply, "DoubledBackward"),
    ],
)
def test_an_operation_without_a_rule_is_named_with_its_place(operation, named):
    class Odd(nn.Module):
        def forward(self, a):
            return operation(a) + 0

    net = nn.Sequential(nn.Conv2d(1, 2, 3), Odd(), nn.Flatten(), nn.LazyLinear(2))
    x = torch.rand(1, 1, 6, 6) + 1
    net(x)
    with pytest.raises(CannotDo, match=f"{named}.* in 1.*fallback=gradient"):
        LRP()(opened(net, 2, x))
    answer = LRP(fallback="gradient")(opened(net, 2, x))
    assert any(named in w and "gradient times input" in w for w in answer.warnings)


def test_low_precision_is_refused():
    net, x = nn.Sequential(nn.Flatten(), nn.Linear(16, 2)), torch.rand(1, 1, 4, 4)
    with pytest.raises(CannotDo, match="bfloat16 has too few digits"):
        LRP()(opened(net, 2, x, precision="bfloat16"))
    with pytest.raises(CannotDo, match="float16 has too few digits"):
        DeepTaylor()(opened(net.half(), 2, x))


@pytest.mark.parametrize("bad", [{"epsilon": 0.0}, {"gamma": -1.0}, {"alpha": 0.5}])
def test_parameters_outside_their_range(bad):
    with pytest.raises(BadOption, match="expected epsilon"):
        LRP(**bad)


def test_targets_that_are_not_linear_say_what_was_divided():
    net = nn.Sequential(nn.Flatten(), nn.Linear(16, 2, bias=False))
    answer = LRP()(opened(net, 2, torch.rand(1, 1, 4, 4), ClassScore(1, scale="score")))
    assert any("not linear" in w for w in answer.warnings)
    assert not any("not linear" in w for w in LRP()(opened(net, 2, torch.rand(1, 1, 4, 4), Margin(0, 1))).warnings)


def test_a_segmentation_and_the_range_of_its_card():
    torch.manual_seed(6)
    net = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1, bias=False), nn.ReLU(), nn.Conv2d(4, 2, 1, bias=False))
    spec = InputSpec(window=(-100.0, 300.0), scale="unit")
    box = torch.zeros(8, 8, dtype=torch.bool)
    box[2:5, 3:6] = True
    scene = Scene(regions={"box": box}, affine={"image": ((-100.0,), (400.0,))})
    x = torch.rand(1, 1, 8, 8) * 0.5 + 0.2
    probe = Probe(Model(net, (spec,), OutputSpec("segmentation")), x, RegionScore(1, "box"), scene=scene)
    answer = LRP("epsilon", first="zB")(probe)
    assert torch.allclose(answer.maps["image"].sum(), probe.baseline_score, rtol=1e-3)
    from pellucid.explain.inputrange import input_range

    low, high = input_range(probe, "image")
    assert (float(low), float(high)) == (0.0, 1.0)
