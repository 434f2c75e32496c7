"""What a model can do and why not, its layers, its scores and its identity."""

import pytest
import torch
from torch import nn

from pellucid.core.card import Ask
from pellucid.core.errors import CannotDo, ShapeMismatch, UnknownLayer
from pellucid.core.layers import LayerName
from pellucid.core.masking import Stream
from pellucid.core.model import Abilities, Identity, Model, OutputSpec
from pellucid.core.prepare import InputSpec
from pellucid.core.probe import Probe
from pellucid.core.target import ClassScore

SPEC = (InputSpec(channels=2, order="rgb"),)
REASON = "it came as a black box"


def limited(module, **can):
    return Model(module, SPEC, can=Abilities(**can, why=dict.fromkeys(("gradient", "hooks", "edits", "rules"), REASON)))


@pytest.mark.parametrize(
    ("ability", "ask"),
    [
        ("gradient", lambda p: p.gradient(p.inputs)),
        ("hooks", lambda p: p.run(layers=("second",))),
        ("edits", lambda p: p.run(edits={"second": torch.relu})),
        ("rules", lambda p: p.run(rules={torch.relu: torch.tanh})),
    ],
)
def test_a_missing_ability_is_refused_with_its_reason(small, draw, ability, ask) -> None:
    probe = Probe(limited(small(), **{ability: False}), draw(1, 2, 8, 8), ClassScore(1))
    with pytest.raises(CannotDo) as caught:
        ask(probe)
    assert REASON in caught.value.problem + caught.value.mend
    assert probe.score(probe.inputs).shape == (1,)  # the rest still works
    assert len(list(Stream(probe).scores(torch.ones(3, 1, 8, 8)))) == 3


def test_the_shared_pass_is_refused_too(small, draw) -> None:
    x = draw(1, 2, 8, 8)
    probe = Probe(limited(small(), gradient=False), x, ClassScore(1), [(Ask.INPUT_GRADIENT, None)])
    with pytest.raises(CannotDo, match=REASON):
        probe.baseline_score
    with pytest.raises(CannotDo, match=r"does not show its layers.*black box"):
        Probe(limited(small(), hooks=False), x, ClassScore(1), [(Ask.ACTIVATION, "second")])


def test_layers_in_order_with_shapes(small, draw) -> None:
    model = Model(small(), SPEC)
    found = [(s.name, s.kind, s.shape) for s in model.layers({"image": draw(5, 2, 8, 8)})]
    assert found == [
        ("first", "Conv2d", (1, 4, 8, 8)),
        ("norm", "BatchNorm2d", (1, 4, 8, 8)),
        ("relu#1", "ReLU", (1, 4, 8, 8)),
        ("second", "Conv2d", (1, 6, 4, 4)),
        ("relu#2", "ReLU", (1, 6, 4, 4)),
        ("pool", "AdaptiveAvgPool2d", (1, 6, 2, 2)),
        ("drop", "Dropout", (1, 24)),
        ("last", "Linear", (1, 3)),
    ]


def test_layers_are_traced_once_per_shape(small, draw) -> None:
    module, calls = small(), []
    module.register_forward_hook(lambda *_: calls.append(1))
    model = Model(module, SPEC)
    for size in (8, 8, 16, 8, 16):
        model.layers({"image": draw(1, 2, size, size)})
        model.resolve(None, {"image": draw(3, 2, size, size)})
    assert len(calls) == 2


@pytest.mark.parametrize(("task", "name"), [("classification", "d"), ("segmentation", "b")])
def test_the_default_layer_is_the_last_or_the_coarsest(draw, task, name) -> None:
    module = nn.Sequential()
    for key, layer in {
        "a": nn.Conv2d(2, 4, 3, 2, 1),
        "b": nn.Conv2d(4, 4, 3, 2, 1),
        "c": nn.Upsample(scale_factor=4),
        "d": nn.Conv2d(4, 3, 1),
    }.items():
        module.add_module(key, layer)
    x = {"image": draw(1, 2, 16, 16)}
    assert Model(module, SPEC, OutputSpec(task=task)).resolve(None, x) == name
    assert Model(module, SPEC, OutputSpec(task=task), layer="a").resolve(None, x) == "a"
    assert Model(module, SPEC, OutputSpec(task=task), layer="a").resolve("c", x) == "c"


@pytest.mark.parametrize(
    ("layer", "words"),
    [
        ("conv9", r"'conv9' is not in the model\. layers: first, norm, relu#1.*Pass one of these, or None"),
        ("last", r"'last' has no spatial extent \(\(1, 3\)\)\. layers with it: first"),
        ("relu", r"pass one of relu#1, relu#2"),
        ("relu#3", r"pass one of relu#1, relu#2"),
        ("a#b#c", "not a layer name"),
        ("a[x]", "not a layer name"),
    ],
)
def test_a_layer_that_does_not_exist_is_answered_by_those_that_do(small, draw, layer, words) -> None:
    with pytest.raises(UnknownLayer, match=words):
        Model(small(), SPEC).resolve(layer, {"image": draw(1, 2, 8, 8)})


def test_a_model_without_space_has_no_layer_for_maps(draw) -> None:
    model = Model(nn.Sequential(nn.Flatten(), nn.Linear(16, 2)))
    with pytest.raises(UnknownLayer, match="no layer with spatial extent"):
        model.resolve(None, {"image": draw(1, 1, 4, 4)})


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("features.norm5", LayerName("features.norm5")),
        ("relu#2", LayerName("relu", 2)),
        ("encoder[0]", LayerName("encoder", None, 0)),
        ("blocks.3.attn#12[1]", LayerName("blocks.3.attn", 12, 1)),
    ],
)
def test_names_of_layers_are_read(text, parsed) -> None:
    assert LayerName.parse(text) == parsed


@pytest.mark.parametrize(
    ("spec", "output", "scores"),
    [
        (OutputSpec(), [[0.0, 0.0, torch.inf * -1]], [[0.5, 0.5, 0.0]]),
        (OutputSpec(activation="sigmoid"), [[0.0, 100.0]], [[0.5, 1.0]]),
        (OutputSpec(labels=("no", "yes")), [[0.0]], [[0.5, 0.5]]),
        (OutputSpec(labels=("no", "yes"), activation="none", unit="probability"), [[0.75]], [[0.25, 0.75]]),
        (OutputSpec(labels=("nodule",), activation="sigmoid"), [[0.0]], [[0.5]]),
        (OutputSpec("regression", activation="none", unit="mm"), [[41.5]], [[41.5]]),
    ],
)
def test_scores_of_a_head(spec, output, scores) -> None:
    assert torch.allclose(spec.scores(torch.tensor(output)), torch.tensor(scores))


def test_scores_of_a_half_precision_head_are_float32() -> None:
    assert OutputSpec().scores(torch.zeros(1, 3, dtype=torch.bfloat16)).dtype is torch.float32


def test_the_digest_follows_the_weights(small) -> None:
    digest = Model(small(), SPEC).digest
    assert len(digest) == 64
    assert Model(small(), SPEC).digest == digest
    assert Model(small().eval(), SPEC).digest == digest
    changed = small()
    changed.last.bias.data[1] += 1e-6
    assert Model(changed, SPEC).digest != digest
    moved = small()
    moved.norm.running_mean[0] += 1e-6
    assert Model(moved, SPEC).digest != digest
    assert Model(small().bfloat16(), SPEC).digest != digest
    assert Model(small(), SPEC, identity=Identity(digest="as declared")).digest == "as declared"


def test_inputs_are_missed_by_name(small, draw) -> None:
    with pytest.raises(ShapeMismatch, match="add"):
        Model(small(), SPEC)({"picture": draw(1, 2, 8, 8)})


def test_activation_bytes_are_those_of_all_layers(small, draw) -> None:
    model = Model(small(), SPEC)
    numbers = 3 * 4 * 64 + 2 * 6 * 16 + 24 + 24 + 3
    assert model.activation_bytes({"image": draw(7, 2, 8, 8)}) == 4 * numbers
    hidden = Model(small(), SPEC, can=Abilities(hooks=False))
    assert hidden.activation_bytes({"image": draw(7, 2, 8, 8)}) == 100 * 4 * 2 * 64


def test_attention_weights_are_no_default_layer() -> None:
    """(batch, head, token, token) looks like channels on a 2-D grid."""

    class Attending(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Conv2d(1, 4, 4, 4)
            self.drop = nn.Dropout(0.1)
            self.head = nn.Linear(4, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            tokens = self.embed(x).flatten(2).transpose(1, 2)
            weights = self.drop((tokens @ tokens.transpose(1, 2)).softmax(-1)[:, None])
            return self.head((weights[:, 0] @ tokens).mean(1))

    model = Model(Attending(), (InputSpec(),))
    assert model.resolve(None, {"image": torch.rand(1, 1, 16, 16)}) == "embed"
