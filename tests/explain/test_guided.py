"""Guided backpropagation and deconvolution against second implementations, in every spelling of ReLU.

Of the defects measured in peers, right here: B25 (grad-cam replaces the model's ReLUs by one module of its own).
"""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from pellucid.core.errors import CannotDo
from pellucid.core.model import Abilities, OutputSpec
from pellucid.core.probe import Probe, Scene
from pellucid.core.target import ClassScore, RegionScore
from pellucid.explain.guided import Deconvolution, GuidedBackprop, guided, guided_gradient
from pellucid.testing import unchanged

RANKS = (2, 3)
METHODS = [GuidedBackprop, Deconvolution]
methods = pytest.mark.parametrize("method", METHODS)
ranks = pytest.mark.parametrize("rank", RANKS)
SHAPE = {2: (6, 8), 3: (4, 5, 6)}


def close(ours, theirs, relative):
    """Largest difference as a share of the largest value."""
    return float((ours - theirs).abs().max()) <= relative * float(theirs.abs().max())


def first_half_in_place(x):
    x[:, :2].relu_()
    x[:, 2:].relu_()
    return x


def ignoring_what_is_returned(x):
    F.relu(x, inplace=True)
    return x


RELUS = {
    "nn.ReLU": nn.ReLU(),
    "nn.ReLU in place": nn.ReLU(inplace=True),
    "F.relu": F.relu,
    "F.relu in place": lambda x: F.relu(x, inplace=True),
    "F.relu by name": lambda x: F.relu(input=x),
    "F.relu_": F.relu_,
    "torch.relu": torch.relu,
    "torch.relu_": torch.relu_,
    "Tensor.relu": lambda x: x.relu(),
    "Tensor.relu_": lambda x: x.relu_(),
    "clamp": lambda x: x.clamp(min=0),
    "clamp_": lambda x: x.clamp_(0.0),
    "torch.clamp": lambda x: torch.clamp(x, min=0),
    "clamp_min": lambda x: torch.clamp_min(x, 0),
    "clip": lambda x: x.clip(0, None),
    "threshold": nn.Threshold(0, 0),
    "threshold in place": nn.Threshold(0, 0, inplace=True),
    "returned value ignored": ignoring_what_is_returned,
    "in place on views": first_half_in_place,
}


class Chain(nn.Module):
    """Affine maps with a rectifier between each two; ``head`` ends in class scores or a map of them."""

    def __init__(self, rank, relu, nets, segmentation=False):
        super().__init__()
        conv, size = nets.CONV[rank], int(np.prod(SHAPE[rank]))
        self.first = nn.Sequential(conv(2, 4, 3, padding=1), nets.NORM[rank](4))
        self.second, self.relu = conv(4, 3, 3, padding=1), relu
        self.head = conv(3, 3, 1) if segmentation else nn.Sequential(nn.Flatten(), nn.Linear(3 * size, 3))

    @property
    def chain(self):
        """The affine maps."""
        return [self.first, self.second, self.head]

    def forward(self, x):
        return self.head(self.relu(self.second(self.relu(self.first(x)))))


@pytest.fixture
def made(nets):
    """A seeded chain with a rectifier."""
    return lambda rank, relu, **more: nets.seeded(lambda: Chain(rank, relu, nets, **more))


def slow(reference, method, net, x, weights, keep=None):
    """The second implementation, item by item; ``keep`` is the slope of the rectifier."""
    if method is Deconvolution:
        return torch.cat([reference("deconvolution").deconvolution(net.chain, i[None], weights) for i in x])
    more = {} if keep is None else {"keep": keep}
    return torch.cat(
        [reference("guided_backprop").guided_backprop(net.chain, i[None], weights, **more).view(1, *i.shape) for i in x]
    )


def of_class(label):
    """Weights of the head's output that make the score of a class."""
    return torch.eye(3, dtype=torch.float64)[label : label + 1]


@methods
@ranks
@pytest.mark.parametrize("spelling", RELUS)
def test_every_spelling_equals_the_second_implementation(
    spelling, rank, method, made, nets, model_of, explained, slow_of
):
    net, x = made(rank, RELUS[spelling]), nets.noise(2, 2, *SHAPE[rank])
    answer = explained(method(), model_of(net, rank), x)
    assert close(answer.maps["image"], slow_of(method, rank), 1e-6)
    assert answer.signed
    assert not answer.warnings


@pytest.fixture(scope="module")
def slow_of(reference, nets):
    """The second implementation on the chain with ReLU, once by method and rank."""
    kept = {}

    def of(method, rank):
        if (method, rank) not in kept:
            net = nets.seeded(lambda: Chain(rank, nn.ReLU(), nets))
            kept[method, rank] = slow(reference, method, net, nets.noise(2, 2, *SHAPE[rank]), of_class(1))
        return kept[method, rank]

    return of


@methods
@pytest.mark.parametrize(
    ("relu", "keep"),
    [
        (nn.ReLU6(), lambda x: (x > 0) & (x < 6)),
        (F.relu6, lambda x: (x > 0) & (x < 6)),
        (nn.Hardtanh(0, 0.5), lambda x: (x > 0) & (x < 0.5)),
        (lambda x: x.clamp(0, 0.5), lambda x: (x > 0) & (x < 0.5)),
    ],
    ids=["ReLU6", "F.relu6", "hardtanh from 0", "clamp from 0 to .5"],
)
def test_rectifiers_with_a_ceiling(relu, keep, method, made, nets, model_of, explained, reference):
    net, x = made(2, _Call(relu)), 3 * nets.noise(1, 2, *SHAPE[2])
    expected = _two_steps(net, relu, x, keep if method is GuidedBackprop else None)
    answer = explained(method(), model_of(net, 2), x)
    assert close(answer.maps["image"], expected, 1e-9)
    assert not answer.warnings


class _Call(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def _two_steps(net, relu, x, keep):
    """The backward of class 1 by hand: ``vjp`` of the affine parts, masks by ``keep`` (None: none)."""
    first = net.first(x).detach()
    second = net.second(relu(first.clone())).detach()
    third = relu(second.clone())
    relevance = torch.func.vjp(net.head, third)[1](of_class(1))[0]
    for affine, before, at in ((net.second, second, relu(first.clone())), (net.first, first, x)):
        relevance = relevance.clamp(min=0) * (1 if keep is None else keep(before))
        relevance = torch.func.vjp(affine, at)[1](relevance)[0]
    return relevance.detach()


@methods
@ranks
@pytest.mark.parametrize(
    "leaky", [nn.LeakyReLU(0.25), nn.LeakyReLU(0.25, inplace=True), nn.PReLU(init=0.25), nn.RReLU(0.125, 0.375)]
)
def test_leaky_slopes_are_kept_and_the_reader_is_told(leaky, rank, method, made, nets, model_of, explained):
    net, x = made(rank, leaky), nets.noise(2, 2, *SHAPE[rank])
    answer = explained(method(), model_of(net, rank), x)
    keep = None if method is Deconvolution else lambda v: torch.where(v > 0, 1.0, 0.25)
    for item in range(2):
        expected = _two_steps(net, lambda v: F.leaky_relu(v, 0.25), x[item : item + 1], keep)
        assert close(answer.maps["image"][item : item + 1], expected, 1e-9)
    assert answer.warnings == (
        f"{method.__name__} is defined for ReLU; this network has LeakyReLU or PReLU (2 calls), treated alike",
    )


SMOOTH = {
    "gelu": [nn.GELU(), F.gelu, lambda x: F.gelu(x, approximate="tanh")],
    "silu": [nn.SiLU(), nn.SiLU(inplace=True), F.silu],
    "elu": [nn.ELU(), nn.ELU(inplace=True), F.elu, F.elu_],
    "selu": [nn.SELU(), torch.selu, torch.selu_],
    "celu": [nn.CELU(), torch.celu],
    "softplus": [nn.Softplus(), F.softplus],
    "mish": [nn.Mish(), F.mish],
    "hardswish": [nn.Hardswish(), F.hardswish],
}


@methods
@pytest.mark.parametrize(("name", "smooth"), [(n, s) for n, kinds in SMOOTH.items() for s in kinds])
def test_smooth_activations_are_refused(name, smooth, method, made, nets, model_of, explained):
    net = made(2, nn.ReLU())
    net.head = nn.Sequential(_Call(smooth), net.head)  # one is enough, beside as many ReLUs as you like
    with (
        unchanged(net),
        pytest.raises(CannotDo, match=rf"{method.__name__} is defined for ReLU.*calls {name}, .*use S"),
    ):
        explained(method(), model_of(net, 2), nets.noise(1, 2, *SHAPE[2]))


@methods
@pytest.mark.parametrize(
    "other",
    [
        nn.Identity(),
        nn.Tanh(),
        nn.Hardtanh(),
        lambda x: x.clamp(min=1e-6),
        lambda x: x.clamp(max=0),
        lambda x: torch.clamp(x, min=torch.zeros(())),
        lambda x: F.relu(x.detach()) + x,
    ],
    ids=["none", "tanh", "hardtanh", "floor", "ceiling", "tensor", "beside the graph"],
)
def test_a_network_without_relu_is_refused(other, method, made, nets, model_of, explained):
    with pytest.raises(CannotDo, match=r"this network calls none between the image and the score\. use Saliency"):
        explained(method(), model_of(made(2, _Call(other)), 2), nets.noise(1, 2, *SHAPE[2]))


def test_gates_pass_the_plain_gradient_and_the_reader_is_told(made, nets, model_of, explained):
    net = made(2, nn.ReLU())
    net.head = nn.Sequential(nn.Sigmoid(), net.head)
    answer = explained(GuidedBackprop(), model_of(net, 2), nets.noise(1, 2, *SHAPE[2]))
    assert len(answer.warnings) == 1
    assert "sigmoid, tanh and their like (1 calls) pass the plain gradient" in answer.warnings[0]


@methods
def test_the_models_own_relus_stay(method, made, nets, model_of, explained):
    """B25: not replaced, not hooked, in place as before; weights get no gradient, training mode stays."""
    net = made(2, nn.ReLU(inplace=True)).train()
    before = dict(net.named_modules())
    with unchanged(net):
        explained(method(), model_of(net, 2), nets.noise(1, 2, *SHAPE[2]))
    assert all(module is before[name] for name, module in net.named_modules())
    assert net.relu.inplace
    assert net.training
    assert all(p.grad is None for p in net.parameters())


@methods
@ranks
def test_segmentation_of_a_region(method, rank, made, nets, model_of, explained, reference):
    net, x = made(rank, F.relu, segmentation=True), nets.noise(1, 2, *SHAPE[rank])
    box = torch.zeros(SHAPE[rank], dtype=torch.bool)
    box[(slice(1, 3), slice(2, 5), slice(1, 4))[:rank]] = True
    weights = torch.zeros(1, 3, *SHAPE[rank], dtype=torch.float64)
    weights[0, 2, box] = 1 / int(box.sum())
    model = model_of(net, rank, OutputSpec("segmentation"))
    answer = explained(method(), model, x, RegionScore(2, "box"), Scene(regions={"box": box}))
    assert close(answer.maps["image"], slow(reference, method, net, x, weights), 1e-6)


@methods
def test_several_targets_and_inputs(method, subject, explained):
    s = subject("two-images", 3)
    probe = Probe(s.model, s.inputs, [ClassScore(0), ClassScore(1)])
    together = [method()(probe.at(i)).maps for i in range(2)]
    assert probe.spent.own.forwards == probe.spent.own.backwards == 4
    for label, maps in enumerate(together):
        alone = explained(method(), s.model, s.inputs, ClassScore(label)).maps
        assert set(maps) == {"pet", "ct"}
        assert all(torch.equal(maps[n], alone[n]) for n in maps)


def test_guided_gradient_is_the_map_of_guided_backprop(subject, explained):
    s = subject("segmentation", 2)
    s.model.module.tail[0] = nn.LeakyReLU(0.1)
    probe = Probe(s.model, s.inputs, s.target, scene=s.scene)
    answer = explained(GuidedBackprop(), s.model, s.inputs, s.target, s.scene)
    assert torch.equal(guided_gradient(probe)["image"], answer.maps["image"])
    assert guided(probe).warnings == answer.warnings != ()


@methods
def test_a_model_that_hides_its_operations_is_refused(method, made, nets, model_of, explained):
    can = Abilities(rules=False, why={"rules": "an exported graph calls aten operations"})
    with pytest.raises(CannotDo, match=r"needs rules.*an exported graph calls aten operations"):
        explained(method(), model_of(made(2, nn.ReLU()), 2, can=can), nets.noise(1, 2, *SHAPE[2]))


@methods
def test_a_subclass_of_tensor(method, made, nets, model_of, explained, slow_of):
    """MONAI's transforms hand over tensors of a class of their own."""
    from monai.data import MetaTensor

    x = MetaTensor(nets.noise(2, 2, *SHAPE[2]))
    for relu in (nn.ReLU(inplace=True), ignoring_what_is_returned, F.relu):
        assert close(explained(method(), model_of(made(2, relu), 2), x).maps["image"], slow_of(method, 2), 1e-6)


@methods
def test_low_precision_stays_close(method, made, nets, model_of, explained):
    net, x = made(2, F.relu).float(), nets.noise(1, 2, *SHAPE[2]).float()
    full = explained(method(), model_of(net, 2), x).maps["image"]
    low = explained(method(), model_of(net, 2), x, precision="bfloat16").maps["image"]
    assert low.dtype == torch.float32
    assert F.cosine_similarity(low.flatten(), full.flatten(), 0) > 0.99
