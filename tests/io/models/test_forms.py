"""TorchScript, torch.export and ONNX: told apart by content, right on their numbers, honest about their abilities."""

import hashlib
import importlib.util
import io
import sys
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor, nn

from pellucid.core.card import Ask
from pellucid.core.errors import BadCard, CannotDo, MissingExtra, ModelError, Untrusted
from pellucid.core.model import Model
from pellucid.core.prepare import InputSpec
from pellucid.core.probe import Probe
from pellucid.core.target import ClassScore, RegionScore
from pellucid.io.loaders.trial import find_sample, settled, tried
from pellucid.io.models import describe_abilities, load_model

Maker = Callable[..., Path]
FORMS = ("torchscript", "traced", "pt2", "onnx")
PAIR = [{"name": n, "rank": 3, "channels": 1, "size": [8, 8, 8]} for n in ("ct", "pet")]
KINDS = {
    "plane": (((1, 16, 16),), {}),
    "volume": (
        ((1, 8, 8, 8),),
        {
            "model__task": "segmentation",
            "inputs": [{"rank": 3, "size": [8, 8, 8]}],
            "output": {"labels": ["background", "organ"], "activation": "softmax"},
        },
    ),
    "pair": (
        ((1, 8, 8, 8), (1, 8, 8, 8)),
        {"inputs": PAIR[::-1], "output": {"labels": ["a", "b"], "activation": "softmax"}},
    ),
}


def draw(kind: str, batch: int, seed: int = 0) -> tuple[Tensor, ...]:
    source = torch.Generator().manual_seed(seed)
    return tuple(torch.rand(batch, *shape, generator=source) for shape in KINDS[kind][0])


def named(kind: str, inputs: tuple[Tensor, ...]) -> dict[str, Tensor]:
    return dict(zip(("pet", "ct") if kind == "pair" else ("image",), inputs, strict=True))


@pytest.fixture
def folder_with(tmp_path: Path, exported: Callable[[str, str, bool], bytes], write_card: Maker) -> Maker:
    """A card beside an exported network; the file has a name that says nothing."""

    def make(form: str, kind: str, fixed: bool = False, **changes: object) -> Path:
        (tmp_path / "network.dat").write_bytes(exported(form, kind, fixed))
        return write_card(tmp_path, **{**KINDS[kind][1], "model__weights": "network.dat", **changes})

    return make


@pytest.mark.parametrize("kind", list(KINDS))
@pytest.mark.parametrize("form", FORMS)
def test_numbers_survive_the_round_trip(folder_with: Maker, small: ModuleType, form: str, kind: str) -> None:
    loaded = load_model(folder_with(form, kind), trust_code=True)
    inputs = draw(kind, 3, seed=5)
    got = loaded.model(named(kind, inputs))
    torch.testing.assert_close(got, getattr(small, kind)()(*inputs), rtol=1e-4, atol=1e-5)
    assert torch.equal(got, loaded.model(named(kind, inputs)))
    assert loaded.model.can.batch is None
    assert loaded.notes == ()


@pytest.mark.parametrize("form", ["traced", "pt2", "onnx"])
def test_a_fixed_batch_is_met_by_cutting_and_padding(folder_with: Maker, small: ModuleType, form: str) -> None:
    loaded = load_model(folder_with(form, "plane", fixed=True), trust_code=True)
    assert loaded.model.can.batch == (None if form == "traced" else 1)
    inputs = draw("plane", 3, seed=5)
    torch.testing.assert_close(loaded.model(named("plane", inputs)), small.plane()(*inputs), rtol=1e-4, atol=1e-5)


class Reshaping(nn.Module):
    """Fixes its batch size when traced."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(16, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x.reshape(int(x.shape[0]), 16))


def test_a_traced_batch_size_is_found_by_trying(tmp_path: Path, write_card: Maker) -> None:
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch says that the batch size is being fixed, which is meant here
        torch.jit.trace(Reshaping(), torch.rand(2, 1, 4, 4)).save(str(tmp_path / "w"))
    changes = {"inputs": [{"size": [4, 4]}], "output": {"labels": ["a", "b"], "activation": "softmax"}}
    model = load_model(write_card(tmp_path, model__weights="w", **changes), trust_code=True).model
    assert model.can.batch == 2
    x = torch.rand(3, 1, 4, 4)
    torch.testing.assert_close(model({"image": x}), model.module.head(x.reshape(3, 16)))


@pytest.mark.parametrize(
    ("form", "can"),
    [
        ("torchscript", {"gradient"}),
        ("traced", {"gradient"}),
        ("pt2", {"gradient", "hooks", "edits"}),
        ("onnx", set()),
    ],
)
def test_abilities_are_as_told(folder_with: Maker, form: str, can: set[str]) -> None:
    model = load_model(folder_with(form, "plane"), trust_code=True).model
    told = {name: (yes, why) for name, yes, why in describe_abilities(model)}
    assert {name for name, (yes, _) in told.items() if yes} == can | {"batch"}
    assert all(why for _, why in told.values())
    x = draw("plane", 1)[0]
    asks = {
        "gradient": {(Ask.INPUT_GRADIENT, None)},
        "hooks": {(Ask.ACTIVATION, "features.2")},
    }
    for ability, needs in asks.items():
        if ability in can:
            Probe(model, x, ClassScore(0), needs).baseline_score
        else:
            with pytest.raises(CannotDo):
                Probe(model, x, ClassScore(0), needs).baseline_score


@pytest.mark.parametrize("form", ["torchscript", "traced", "pt2"])
def test_gradients_are_those_of_the_original(folder_with: Maker, small: ModuleType, form: str) -> None:
    model = load_model(folder_with(form, "plane"), trust_code=True).model
    x = draw("plane", 2)[0]
    probe = Probe(model, x, ClassScore("b"), {(Ask.INPUT_GRADIENT, None)})
    leaf = x.clone().requires_grad_()
    expected = torch.autograd.grad(small.plane()(leaf)[:, 1].sum(), leaf)[0]
    torch.testing.assert_close(probe.input_gradient["image"], expected, rtol=1e-4, atol=1e-6)


def test_layers_of_an_exported_program_keep_their_names(folder_with: Maker, small: ModuleType) -> None:
    loaded = load_model(folder_with("pt2", "volume", fixed=True), trust_code=True)
    model, original = loaded.model, small.volume()
    inputs = named("volume", draw("volume", 1))
    assert [s.name for s in model.layers(inputs)] == ["first", "last"]
    probe = Probe(model, inputs, RegionScore(1), {(Ask.ACTIVATION, "first"), (Ask.LAYER_GRADIENT, "first")})
    torch.testing.assert_close(probe.activation("first"), original.first(inputs["image"]), rtol=1e-4, atol=1e-5)
    assert float(probe.layer_gradient("first").abs().sum()) > 0
    edited = probe.run(edits={"first": lambda t: t * 0}).output
    expected = original.last.bias.view(1, 2, 1, 1, 1).expand_as(edited)
    torch.testing.assert_close(edited, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(probe.run().output, original(inputs["image"]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("form", ["traced", "pt2"])
def test_a_model_exported_in_training_mode_is_refused(
    tmp_path: Path, small: ModuleType, export: Maker, write_card: Maker, form: str
) -> None:
    export(form, small.plane().train(), draw("plane", 2), tmp_path / "w", True)
    with pytest.raises(ModelError, match=r"training mode"):
        load_model(write_card(tmp_path, model__weights="w"), trust_code=True)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", ["plane", "pair"])
def test_a_bare_file_says_what_it_can(folder_with: Maker, small: ModuleType, form: str, kind: str) -> None:
    path = folder_with(form, kind).with_name("network.dat")
    path.with_name("model.toml").unlink()
    if form == "traced" or (kind, form) == ("pair", "torchscript"):  # frozen: no weights to see channels from
        with pytest.raises(BadCard, match="does not say its channels"):
            load_model(path, trust_code=True)
        return
    loaded = load_model(path, trust_code=True)
    assert loaded.card is None
    assert any("no model card" in note for note in loaded.notes)
    assert len(loaded.model.identity.digest) == 64
    spec = loaded.model.inputs[0]
    assert (spec.rank, spec.channels) == ((2, 1) if kind == "plane" else (3, 1))
    inputs = dict(zip((s.name for s in loaded.model.inputs), draw(kind, 1), strict=True))
    torch.testing.assert_close(loaded.model(inputs), getattr(small, kind)()(*inputs.values()), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("form", ["torchscript", "pt2"])
def test_programs_need_trust_before_they_are_opened(folder_with: Maker, tmp_path: Path, form: str) -> None:
    card = folder_with(form, "plane")
    with pytest.raises(Untrusted) as caught:
        load_model(card)
    digest = next(w for w in caught.value.mend.split() if len(w) == 64)
    listed = tmp_path / "list.txt"
    listed.write_text(digest.upper() + "\n")
    assert load_model(card, allow_list=listed).trust == "allow-list"
    bare = tmp_path / "network.dat"
    with pytest.raises(Untrusted, match=r"network\.dat would run code") as caught:
        load_model(bare)
    assert hashlib.sha256(bare.read_bytes()).hexdigest() in caught.value.mend  # what sha256sum prints


def test_a_pickle_inside_an_exported_archive_does_not_run(
    tmp_path: Path, exported: Callable[[str, str, bool], bytes]
) -> None:
    canary = tmp_path / "canary"

    class Payload:
        def __reduce__(self) -> tuple[object, tuple[object, ...]]:
            return Path.touch, (canary,)

    evil = tmp_path / "evil.pt2"
    with zipfile.ZipFile(io.BytesIO(exported("pt2", "plane", True))) as old, zipfile.ZipFile(evil, "w") as new:
        for info in old.infolist():
            content = old.read(info)
            if info.filename.endswith("sample_inputs/model.pt"):
                buffer = io.BytesIO()
                torch.save(Payload(), buffer)
                content = buffer.getvalue()
            new.writestr(info, content)
    with pytest.raises(Untrusted, match="unpickles"):
        load_model(evil)
    assert not canary.exists()
    with pytest.raises(ModelError):
        load_model(evil, trust_code=True)
    assert canary.exists(), "torch no longer unpickles archives: adr and trust of .pt2 can be relaxed"


def test_torchscript_can_write_files_which_is_why_it_needs_trust(tmp_path: Path) -> None:
    written = tmp_path / "written"
    source = tmp_path / "writer.py"
    source.write_text(
        "import torch\n"
        "class Writer(torch.nn.Module):\n"
        "    def forward(self, x):\n"
        f"        t = torch.from_file({str(written)!r}, True, 4)\n"
        "        t.copy_(x.flatten()[:4])\n"
        "        return t\n"
    )
    spec = importlib.util.spec_from_file_location("writer_for_test", source)
    module = importlib.util.module_from_spec(spec)
    sys.modules["writer_for_test"] = module
    spec.loader.exec_module(module)
    torch.jit.script(module.Writer()).save(str(tmp_path / "w"))
    del sys.modules["writer_for_test"]
    with pytest.raises(Untrusted):
        load_model(tmp_path / "w")
    assert not written.exists()
    torch.jit.load(str(tmp_path / "w"))(torch.ones(4))
    assert written.stat().st_size == 16


def test_onnx_inputs_are_matched_by_name(folder_with: Maker, small: ModuleType) -> None:
    loaded = load_model(folder_with("onnx", "pair", inputs=PAIR))  # the card lists ct first
    pet, ct = draw("pair", 2, seed=9)
    got = loaded.model({"pet": pet, "ct": ct})
    torch.testing.assert_close(got, small.pair()(pet, ct), rtol=1e-4, atol=1e-5)
    assert loaded.trust == "not needed"


def test_onnx_without_its_weights_is_refused(tmp_path: Path, small: ModuleType) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            small.plane(), draw("plane", 1), tmp_path / "m", dynamo=True, external_data=True, verbose=False
        )
    with pytest.raises(ModelError, match="keeps weights in another file"):
        load_model(tmp_path / "m")


def test_a_missing_package_is_named(folder_with: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    card = folder_with("onnx", "plane")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingExtra, match=r"pellucid\[onnx\]"):
        load_model(card)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"inputs": [{"name": "x"}, {"name": "y"}]}, r"inputs: the card names \['x', 'y'\]"),
        ({"model__factory": "network:plane"}, "bring their own network"),
        ({"output__labels": ["a", "b", "c", "d"]}, "names 4 classes, the model gives 3"),
        ({"output__head": "scores"}, "scores"),
    ],
)
def test_cards_that_contradict_the_file(folder_with: Maker, form: str, changes: dict[str, object], said: str) -> None:
    with pytest.raises(BadCard, match=said):
        load_model(folder_with(form, "plane", **changes), trust_code=True)


@pytest.mark.parametrize("form", ["pt2", "onnx"])
def test_sizes_that_contradict_the_file(folder_with: Maker, form: str) -> None:
    card = folder_with(form, "plane", inputs=[{"channels": 3, "order": "rgb"}])
    with pytest.raises(BadCard, match="the file takes"):
        load_model(card, trust_code=True)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("keep", [0.4, 0.95])
def test_cut_off_files(folder_with: Maker, write_card: Maker, tmp_path: Path, form: str, keep: float) -> None:
    folder_with(form, "plane")
    path = tmp_path / "network.dat"
    path.write_bytes(path.read_bytes()[: int(keep * path.stat().st_size)])
    with pytest.raises(ModelError):
        load_model(write_card(tmp_path, model__weights="network.dat"), trust_code=True)


class Bypass(nn.Module):
    """Calls its layers past their hooks."""

    def __init__(self, inner: nn.Module, idle: bool) -> None:
        super().__init__()
        self.inner, self.idle = inner, nn.ReLU() if idle else None

    def forward(self, x: Tensor) -> Tensor:
        if self.idle is not None:
            self.idle(x)
        features = nn.functional.conv2d(x, self.inner.features[0].weight, self.inner.features[0].bias)
        return features.mean((2, 3))


@pytest.mark.parametrize(("idle", "hooks"), [(False, False), (True, True)])
def test_dead_hooks_and_dead_edits_are_noticed(small: ModuleType, idle: bool, hooks: bool) -> None:
    model = Model(Bypass(small.plane(), idle).eval(), (InputSpec(size=(16, 16)),))
    found = tried(model, find_sample(model))
    assert (found.gradient, found.hooks, found.edits) == (True, hooks, False)
    assert "does not change its output" in found.why["edits"]
    eager = settled(model)
    assert eager.can.hooks
    assert eager.channels == 4


def test_a_module_that_runs_on_nothing_is_noted() -> None:
    model = Model(nn.Linear(3, 2), (InputSpec(size=(4, 4)),))
    found = settled(model)
    assert found.channels is None
    assert "could not be tried" in found.notes[0]
