"""Models with several named inputs, heads inside containers, and layers by name."""

from collections import namedtuple

import pytest
import torch
from torch import nn

from pellucid.core.card import Ask, Cost
from pellucid.core.errors import BadCard, CannotDo, ShapeMismatch, UnknownLayer
from pellucid.core.masking import Stream
from pellucid.core.model import Abilities, Model, OutputSpec
from pellucid.core.prepare import InputSpec
from pellucid.core.probe import Probe
from pellucid.core.target import ClassScore

NEED = (Ask.INPUT_GRADIENT, None)


class Joint(nn.Module):
    """Two images of different channel counts, a vector and a class index, multiplied so that gradients mix."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.pet, self.ct = nn.Conv2d(1, 3, 3, padding=1), nn.Conv2d(2, 3, 3, padding=1)
        self.age, self.site = nn.Linear(4, 3), nn.Embedding(5, 3)
        for p in self.parameters():
            p.data = torch.randn(p.shape, generator=generator)

    def forward(self, pet, ct, age, site):
        images = self.pet(pet).tanh().mean((2, 3)) * self.ct(ct).tanh().mean((2, 3))
        return images * self.age(age) + self.site(site[:, 0])


class JointDict(Joint):
    def forward(self, batch):
        return super().forward(batch["pet"], batch["ct"], batch["age"], batch["site"])


class JointKeywords(Joint):
    def forward(self, *, site, age, ct, pet):
        return super().forward(pet, ct, age, site)


SPECS = (
    InputSpec("pet", channels=1),
    InputSpec("ct", channels=2, order="rgb"),
    InputSpec("age", rank=0, channels=4),
    InputSpec("site", rank=0, channels=1),
)
CALLS = {"positional": Joint, "keyword": JointKeywords, "dict": JointDict}


@pytest.fixture
def batch(draw):
    return {
        "site": torch.tensor([[4], [0]]),
        "age": draw(2, 4, seed=1),
        "ct": draw(2, 2, 6, 6, seed=2),
        "pet": draw(2, 1, 8, 8, seed=3),
    }


@pytest.mark.parametrize("call", CALLS)
def test_the_gradients_of_all_inputs_come_from_one_pass(batch, call) -> None:
    model = Model(CALLS[call](), SPECS, call=call)
    probe = Probe(model, batch, ClassScore(2), [NEED])
    leaves = {k: v.clone().requires_grad_(v.is_floating_point()) for k, v in batch.items()}
    score = Joint()(**leaves)[:, 2]
    names = ["pet", "ct", "age"]
    expected = dict(zip(names, torch.autograd.grad(score.sum(), [leaves[n] for n in names]), strict=True))
    assert torch.allclose(probe.baseline_score, score.detach())
    assert set(probe.input_gradient) == set(names)  # an index has no gradient
    for name in names:
        assert torch.allclose(probe.input_gradient[name], expected[name], atol=1e-7)
    assert probe.spent.shared == Cost(2, 2)
    assert (model.primary, model.rank, probe.grid.shape) == ("pet", 2, (8, 8))


def test_masking_hides_the_inputs_of_the_masks_shape_together(batch) -> None:
    model = Model(Joint(), SPECS)
    batch["ct"] = torch.nn.functional.interpolate(batch["ct"], (8, 8))
    probe = Probe(model, batch, ClassScore(2))
    keep = torch.ones(3, 1, 8, 8)
    keep[1, 0, 2:4] = 0
    keep[2] = 0
    masked = Stream(probe).masked(keep)
    for name in ("pet", "ct"):
        versions = masked[name].view(3, *batch[name].shape)
        assert torch.equal(versions[0], batch[name])
        assert bool((versions[1][:, :, 2:4] == 0).all())
        assert torch.equal(versions[1][:, :, 4:], batch[name][:, :, 4:])
        assert bool((versions[2] == 0).all())
    for name in ("age", "site"):
        assert torch.equal(masked[name], batch[name].repeat(3, 1))


def test_an_input_of_another_shape_is_not_hidden(batch) -> None:
    masked = Stream(Probe(Model(Joint(), SPECS), batch, ClassScore(2))).masked(torch.zeros(2, 1, 8, 8))
    assert torch.equal(masked["ct"], batch["ct"].repeat(2, 1, 1, 1))
    assert bool((masked["pet"] == 0).all())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda b: b.pop("age"), "add 'age'"),
        (lambda b: b.update(ct=b["ct"][:, :1]), r"'ct' expects \(batch, 2 channel"),
        (lambda b: b.update(age=b["age"][:1]), "as many items"),
        (lambda b: b.update(site=b["site"][:, 0]), "'site'"),
    ],
)
def test_inputs_that_do_not_fit_are_named(batch, change, words) -> None:
    change(batch)
    with pytest.raises(ShapeMismatch, match=words):
        Probe(Model(Joint(), SPECS), batch, ClassScore(2))


def test_a_bare_tensor_is_not_enough_for_several_inputs(batch) -> None:
    with pytest.raises(ShapeMismatch, match="add 'ct'"):
        Probe(Model(Joint(), SPECS), batch["pet"], ClassScore(2))


def test_integers_alone_have_no_gradient() -> None:
    site = Model(nn.Sequential(nn.Embedding(5, 3), nn.Flatten()), (InputSpec("site", rank=0),))
    probe = Probe(site, {"site": torch.tensor([[2]])}, ClassScore(1), [NEED])
    with pytest.raises(CannotDo, match="integers"):
        probe.input_gradient
    assert Probe(site, {"site": torch.tensor([[2]])}, ClassScore(1)).baseline_score.shape == (1,)


# heads

Pair = namedtuple("Pair", "features logits")


class Headed(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.kind, self.conv = kind, nn.Conv2d(1, 3, 3)

    def forward(self, x):
        features = self.conv(x)
        logits = features.mean((2, 3))
        return {
            "dict": {"aux": logits * 0, "logits": logits},
            "tuple": (logits, features),
            "list": [features, logits, logits * 0],
            "named": Pair(features, logits),
        }[self.kind]


@pytest.mark.parametrize(("kind", "head"), [("dict", "logits"), ("tuple", 0), ("list", 1), ("list", -2), ("named", 1)])
def test_the_head_names_what_is_taken(draw, kind, head) -> None:
    module, x = Headed(kind), draw(2, 1, 6, 6)
    model = Model(module, output=OutputSpec(head=head))
    probe = Probe(model, x, ClassScore(1), [NEED, (Ask.LAYER_GRADIENT, "conv")])
    expected = module.conv(x).mean((2, 3))[:, 1].detach()
    assert torch.allclose(probe.baseline_score, expected)
    assert torch.allclose(probe.layer_gradient("conv")[:, 1], torch.full((2, 4, 4), 1 / 16))


@pytest.mark.parametrize(
    ("kind", "head", "words"),
    [
        ("dict", "scores", r"no 'scores': a dict with \['aux', 'logits'\]"),
        ("tuple", 2, "no 2: a tuple of 2"),
        ("tuple", "logits", "no 'logits'"),
        ("dict", None, "expected a tensor from the model, got a dict with"),
        ("list", None, "got a list of 3"),
    ],
)
def test_a_head_that_is_not_there_is_named(draw, kind, head, words) -> None:
    model = Model(Headed(kind), output=OutputSpec(head=head))
    with pytest.raises(BadCard, match=words):
        Probe(model, draw(1, 1, 6, 6), ClassScore(1)).output


# layers


class Tupled(nn.Module):
    """A recurrent-like layer that gives two maps, as a tuple, a list or a named tuple."""

    def __init__(self, kind):
        super().__init__()
        self.kind, self.a, self.b = kind, nn.Conv2d(1, 2, 3, padding=1), nn.Conv2d(1, 4, 3, padding=1)

    def forward(self, x):
        return {"tuple": tuple, "list": list, "named": Pair._make}[self.kind]((self.a(x), self.b(x)))


class Around(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.both, self.relu = Tupled(kind), nn.ReLU(inplace=True)

    def forward(self, x):
        out = self.both(x)
        a, b = (out.features, out.logits) if self.both.kind == "named" else out
        return torch.cat([self.relu(a).mean((2, 3)), self.relu(b).mean((2, 3))], 1)


@pytest.mark.parametrize("kind", ["tuple", "list", "named"])
def test_a_layer_with_several_outputs_names_its_element(draw, kind) -> None:
    module, x = Around(kind), draw(2, 1, 6, 6)
    model = Model(module)
    names = [s.name for s in model.layers({"image": x})]
    assert names == ["both.a", "both.b", "both[0]", "both[1]", "relu#1", "relu#2"]
    needs = [(ask, f"both[{i}]") for ask in (Ask.ACTIVATION, Ask.LAYER_GRADIENT) for i in (0, 1)]
    probe = Probe(model, x, ClassScore(3), needs)
    assert torch.equal(probe.activation("both[1]"), module.both.b(x).detach())
    assert bool((probe.layer_gradient("both[0]") == 0).all())  # class 3 does not depend on it
    positive = (module.both.b(x)[:, 1] > 0).float() / 36
    assert torch.allclose(probe.layer_gradient("both[1]")[:, 1], positive)
    silenced = probe.run(edits={"both[1]": torch.zeros_like})
    assert bool((silenced.output[:, 2:] == 0).all())
    assert torch.equal(silenced.output[:, :2], probe.output[:, :2])
    with pytest.raises(UnknownLayer, match=r"both\[0\], both\[1\]"):
        model.resolve("both", {"image": x})


def test_a_layer_called_twice_is_numbered(small, draw) -> None:
    module, x = small(), draw(1, 2, 8, 8)
    model = Model(module, (InputSpec(channels=2, order="rgb"),))
    needs = [(ask, f"relu#{i}") for ask in (Ask.ACTIVATION, Ask.LAYER_GRADIENT) for i in (1, 2)]
    probe = Probe(model, x, ClassScore(1), needs)
    module.eval()
    first = module.norm(module.first(x)).clamp_min(0)
    second = module.second(first).clamp_min(0)
    module.train()
    assert torch.allclose(probe.activation("relu#1"), first.detach())
    assert torch.allclose(probe.activation("relu#2"), second.detach())
    assert probe.layer_gradient("relu#1").shape == first.shape
    assert probe.layer_gradient("relu#2").shape == second.shape
    with pytest.raises(UnknownLayer, match="relu#1, relu#2"):
        model.resolve("relu", {"image": x})


def test_monai_densenet_overwrites_its_features_in_place(draw) -> None:
    """``class_layers.relu`` is in place: without a clone ``features`` would hold what comes after it."""
    from monai.networks.nets import DenseNet

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = DenseNet(2, 1, 3, init_features=8, growth_rate=4, block_config=(2, 2)).eval().double()
        module.features.norm5.bias.data -= 0.3
    x = draw(1, 1, 32, 32).double()
    layer = "features.norm5"
    probe = Probe(Model(module), x, ClassScore(1), [(Ask.ACTIVATION, layer), (Ask.LAYER_GRADIENT, layer)])
    kept, gradient = probe.activation(layer), probe.layer_gradient(layer)
    assert torch.equal(kept, module.features(x).detach())
    assert bool((kept < 0).any())
    # the gradient is that of the output of the layer: a small step along it changes the score by the product
    step = draw(*kept.shape, seed=5).double() * 1e-6
    assert bool((kept.abs() > step.abs()).all())
    up, down = (probe.run(edits={layer: lambda t, s=s: t + s * step}).score[0] for s in (1, -1))
    assert float((up - down) / 2) == pytest.approx(float((gradient * step).sum()), rel=1e-6)


def test_a_layer_behind_a_condition_is_named_when_it_is_not_called(draw) -> None:
    class Gated(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Conv2d(1, 2, 3), nn.Conv2d(1, 2, 3)

        def forward(self, x):
            return (self.a(x) if float(x.mean()) > 0 else self.b(x)).mean((2, 3))

    x = draw(1, 1, 6, 6).abs()
    probe = Probe(Model(Gated()), x, ClassScore(0), [(Ask.ACTIVATION, "a")])
    assert probe.activation("a").shape == (1, 2, 4, 4)
    with pytest.raises(UnknownLayer, match="does not call 'a'"):
        probe.run({"image": -x}, layers=("a",))


# a fixed batch size


class Four(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner, self.seen = inner, []

    def forward(self, x):
        self.seen.append(len(x))
        assert len(x) == 4
        return self.inner(x)


@pytest.mark.parametrize("items", [1, 3, 4, 6, 9])
def test_a_fixed_batch_size_is_met_by_padding(small, draw, items) -> None:
    x = draw(items, 2, 8, 8)
    spec = (InputSpec(channels=2, order="rgb"),)
    fixed = Model(Four(small()), spec, can=Abilities(batch=4))
    free = Model(small(), spec)
    needs = [NEED, *((ask, "inner.second") for ask in (Ask.ACTIVATION, Ask.LAYER_GRADIENT))]
    padded = Probe(fixed, x, ClassScore(1), needs)
    plain = Probe(free, x, ClassScore(1), [(a, n and n.removeprefix("inner.")) for a, n in needs])
    pairs = [
        (padded.baseline_score, plain.baseline_score),
        (padded.output, plain.output),
        (padded.input_gradient["image"], plain.input_gradient["image"]),
        (padded.activation("inner.second"), plain.activation("second")),
        (padded.layer_gradient("inner.second"), plain.layer_gradient("second")),
    ]
    for ours, theirs in pairs:
        assert ours.shape == theirs.shape
        assert torch.allclose(ours, theirs, atol=1e-6)
    assert set(fixed.module.seen) == {4}
    assert padded.spent.shared == Cost(items, items)


def test_a_fixed_batch_size_counts_calls_of_a_layer_per_run(small, draw) -> None:
    x = draw(6, 2, 8, 8)
    spec = (InputSpec(channels=2, order="rgb"),)
    fixed, free = Model(Four(small()), spec, can=Abilities(batch=4)), Model(small(), spec)
    padded = Probe(fixed, x, ClassScore(1), [(Ask.ACTIVATION, "inner.relu#2")])
    plain = Probe(free, x, ClassScore(1), [(Ask.ACTIVATION, "relu#2")])
    assert torch.allclose(padded.activation("inner.relu#2"), plain.activation("relu#2"), atol=1e-6)
    ours, theirs = padded.run(edits={"inner.relu#2": torch.tanh}), plain.run(edits={"relu#2": torch.tanh})
    assert torch.allclose(ours.score[0], theirs.score[0], atol=1e-6)
