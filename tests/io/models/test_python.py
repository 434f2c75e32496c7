"""Python factories with safetensors or torch weights: right weights in, wrong ones refused, no code without leave."""

import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from pellucid.core.errors import BadCard, Untrusted, WeightsMismatch
from pellucid.core.probe import Probe
from pellucid.core.target import ClassScore
from pellucid.io.modelform import Form
from pellucid.io.models import describe_abilities, load_model

Maker = Callable[..., Path]


def test_a_factory_beside_its_card(python_folder: Maker, small: ModuleType) -> None:
    card = python_folder()
    loaded = load_model(card, trust_code=True)
    x = torch.rand(2, 1, 16, 16, generator=torch.Generator().manual_seed(1))
    assert torch.equal(loaded.model({"image": x}), small.plane()(x))
    assert (loaded.form, loaded.trust, loaded.folder) == (Form.SAFETENSORS, "--trust-code", card.parent)
    assert loaded.model.identity.digest == loaded.card.model.sha256
    assert loaded.model.output.labels == ("a", "b", "c")
    assert not loaded.model.module.training
    assert all(can for _, can, _ in describe_abilities(loaded.model))
    assert load_model(card.parent, trust_code=True).model.digest == loaded.model.digest  # the folder is enough


def test_loading_twice_gives_the_same_model_and_leaves_random_numbers_alone(python_folder: Maker) -> None:
    card = python_folder("pair", inputs=_pair_inputs(), output={"labels": ["a", "b"], "activation": "softmax"})
    before = torch.get_rng_state()
    first, second = (load_model(card, trust_code=True).model for _ in range(2))
    assert torch.equal(torch.get_rng_state(), before)
    source = torch.Generator().manual_seed(0)
    inputs = {"pet": torch.rand(1, 1, 8, 8, 8, generator=source), "ct": torch.rand(1, 1, 8, 8, 8, generator=source)}
    assert torch.equal(first(inputs), second(inputs))
    assert not torch.equal(first(inputs), first({"pet": inputs["ct"], "ct": inputs["pet"]}))


def _pair_inputs() -> list[dict[str, object]]:
    return [{"name": n, "rank": 3, "channels": 1, "size": [8, 8, 8]} for n in ("pet", "ct")]


@pytest.mark.parametrize("call", ["positional", "keyword"])
def test_inputs_reach_their_arguments(python_folder: Maker, small: ModuleType, call: str) -> None:
    changes = {"output": {"labels": ["a", "b"], "activation": "softmax"}, "model__call": call}
    loaded = load_model(python_folder("pair", inputs=_pair_inputs(), **changes), trust_code=True)
    pet, ct = torch.rand(2, 1, 1, 8, 8, 8)
    assert torch.equal(loaded.model({"ct": ct, "pet": pet}), small.pair()(pet, ct))


def test_options_are_arguments_of_the_factory(python_folder: Maker, small: ModuleType) -> None:
    card = python_folder(model__options={"classes": 2}, output__labels=["a", "b"])
    with pytest.raises(
        WeightsMismatch, match=r"2 of another shape or kind \(head.weight \(3, 8\) float32 for \(2, 8\)"
    ):
        load_model(card, trust_code=True)


def test_a_network_of_pellucid_itself_needs_no_trust(tmp_path: Path, write_card: Maker) -> None:
    from pellucid.demo import networks

    save_file(networks.pneumonia().state_dict(), tmp_path / "weights.safetensors")
    settings = {"model__factory": "pellucid.demo.networks:pneumonia", "inputs": [{"size": [28, 28]}]}
    labels = {"labels": ["no", "yes"], "activation": "sigmoid"}
    card = write_card(tmp_path, output=labels, **settings)
    loaded = load_model(card)
    assert loaded.trust == "not needed"
    assert loaded.model({"image": torch.zeros(1, 1, 28, 28)}).shape == (1, 1)
    for wrong in ("pellucid.io.trust:sha256_of", "pellucid.demo.networks:ResidualClassifier"):
        card = write_card(tmp_path, output=labels, **{**settings, "model__factory": wrong})
        with pytest.raises(BadCard, match="builds no network"):
            load_model(card)
    card = write_card(tmp_path, output=labels, **settings, model__options={"path": "x"})
    with pytest.raises(Untrusted, match="with arguments from the card"):
        load_model(card)


def test_half_precision_weights_are_cast(python_folder: Maker, small: ModuleType, write_card: Maker) -> None:
    card = python_folder()
    state = {k: v.half() if v.is_floating_point() else v for k, v in small.plane().state_dict().items()}
    save_file(state, card.parent / "weights.safetensors")
    loaded = load_model(write_card(card.parent, model__factory="network:plane"), trust_code=True)
    assert {p.dtype for p in loaded.model.module.parameters()} == {torch.float32}
    assert loaded.notes == ()  # widening is exact
    x = torch.rand(1, 1, 16, 16)
    torch.testing.assert_close(loaded.model({"image": x}), small.plane()(x), atol=0.02, rtol=0.02)


def test_weights_that_lose_digits_are_noted(python_folder: Maker, small: ModuleType, write_card: Maker) -> None:
    card = python_folder()
    state = {k: v.double() if v.is_floating_point() else v for k, v in small.plane().state_dict().items()}
    save_file(state, card.parent / "weights.safetensors")
    loaded = load_model(write_card(card.parent, model__factory="network:plane"), trust_code=True)
    assert any("rounded" in note for note in loaded.notes)


@pytest.mark.parametrize("wrap", ["plain", "checkpoint", "parallel", "keyed", "legacy"])
def test_torch_weights(python_folder: Maker, small: ModuleType, write_card: Maker, wrap: str) -> None:
    folder = python_folder().parent
    state = small.plane().state_dict()
    wrapped = {
        "plain": state,
        "checkpoint": {"state_dict": state, "epoch": 3},
        "parallel": {f"module.{k}": v for k, v in state.items()},
        "keyed": {"ema": state, "state_dict": {k: v * 0 for k, v in state.items()}},
        "legacy": state,
    }[wrap]
    torch.save(wrapped, folder / "w.bin", _use_new_zipfile_serialization=wrap != "legacy")
    key = {"model__weights_key": "ema"} if wrap == "keyed" else {}
    card = write_card(folder, model__factory="network:plane", model__weights="w.bin", **key)
    loaded = load_model(card, trust_code=True)
    x = torch.rand(1, 1, 16, 16)
    assert loaded.form is Form.STATE
    assert torch.equal(loaded.model({"image": x}), small.plane()(x))


def test_weights_that_do_not_fit_are_listed(python_folder: Maker, small: ModuleType, write_card: Maker) -> None:
    folder = python_folder().parent
    state = dict(small.plane().state_dict())
    state["extra.weight"] = torch.zeros(2)
    state["head.bias"] = torch.zeros(4)
    del state["features.0.weight"], state["features.0.bias"]
    save_file(state, folder / "weights.safetensors")
    with pytest.raises(WeightsMismatch) as caught:
        load_model(write_card(folder, model__factory="network:plane"), trust_code=True)
    assert "2 missing (features.0.weight (4, 1, 3, 3), features.0.bias (4,))" in caught.value.problem
    assert "1 left over (extra.weight (2,))" in caught.value.problem
    assert "1 of another shape or kind (head.bias (4,) float32 for (3,) float32)" in caught.value.problem


def test_other_weights_than_the_card_names(python_folder: Maker) -> None:
    card = python_folder(model__sha256="a" * 64)
    with pytest.raises(WeightsMismatch, match=f"expected SHA-256 {'a' * 64}, got"):
        load_model(card, trust_code=True)


@pytest.mark.parametrize("keep", [0.5, 0.97])
@pytest.mark.parametrize("name", ["weights.safetensors", "w.pt"])
def test_cut_off_weights(python_folder: Maker, small: ModuleType, write_card: Maker, name: str, keep: float) -> None:
    folder = python_folder().parent
    torch.save(small.plane().state_dict(), folder / "w.pt")
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[: int(keep * len(content))])
    from pellucid.core.errors import ModelError

    with pytest.raises(ModelError) as caught:
        load_model(write_card(folder, model__factory="network:plane", model__weights=name), trust_code=True)
    assert name in caught.value.problem


class Payload:
    """A pickle that runs a command when it is loaded."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.touch, (self.canary,)


@pytest.mark.parametrize("form", ["torch", "legacy", "raw", "module"])
@pytest.mark.parametrize("trust", [False, True])
def test_pickled_code_never_runs(
    python_folder: Maker, write_card: Maker, tmp_path: Path, form: str, trust: bool
) -> None:
    folder, canary = python_folder().parent, tmp_path / "canary"
    path = folder / "w.pt"
    if form == "raw":
        path.write_bytes(pickle.dumps({"a": Payload(canary)}))
    elif form == "module":
        torch.save(nn.Linear(2, 2), path)
    else:
        held = {"a": torch.zeros(1), "b": Payload(canary)}
        torch.save(held, path, _use_new_zipfile_serialization=form == "torch")
    card = write_card(folder, model__factory="network:plane", model__weights="w.pt")
    with pytest.raises(Untrusted):
        load_model(card, trust_code=trust)
    assert not canary.exists()


def test_the_payload_would_have_run(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    pickle.loads(pickle.dumps({"a": Payload(canary)}))
    assert canary.exists()


def test_a_factory_runs_only_with_leave(python_folder: Maker, tmp_path: Path) -> None:
    card, canary = python_folder(), tmp_path / "canary"
    network = card.parent / "network.py"
    network.write_text(f"from pathlib import Path\nPath({str(canary)!r}).touch()\n" + network.read_text())
    known = set(sys.modules)
    with pytest.raises(Untrusted) as caught:
        load_model(card)
    assert not canary.exists()
    assert set(sys.modules) <= known
    assert "--trust-code" in caught.value.mend
    digest = next(w for w in caught.value.mend.split() if len(w) == 64)
    allow_list = tmp_path / "trusted.txt"
    allow_list.write_text(f"# models of our clinic\n{digest}  # small\n")
    assert load_model(card, allow_list=allow_list).trust == "allow-list"
    assert canary.exists()


@pytest.mark.parametrize("changed", ["model.toml", "network.py", "deeper/more.py"])
def test_a_changed_file_is_no_longer_on_the_allow_list(python_folder: Maker, tmp_path: Path, changed: str) -> None:
    card = python_folder()
    (card.parent / "deeper").mkdir()
    (card.parent / "deeper" / "more.py").write_text("x = 1\n")
    with pytest.raises(Untrusted) as caught:
        load_model(card)
    allow_list = tmp_path / "trusted.txt"
    allow_list.write_text(next(w for w in caught.value.mend.split() if len(w) == 64))
    assert load_model(card, allow_list=allow_list).trust == "allow-list"
    with (card.parent / changed).open("a") as file:
        file.write("# changed\n")
    with pytest.raises(Untrusted):
        load_model(card, allow_list=allow_list)


def test_byte_code_beside_a_factory_is_never_used(python_folder: Maker, tmp_path: Path) -> None:
    card, canary = python_folder(), tmp_path / "canary"
    network = card.parent / "network.py"
    code = compile(f"from pathlib import Path\nPath({str(canary)!r}).touch()\n", str(network), "exec")
    import importlib._bootstrap_external as external
    import importlib.util

    stat = network.stat()
    cached = Path(importlib.util.cache_from_source(str(network)))
    cached.parent.mkdir()
    cached.write_bytes(external._code_to_timestamp_pyc(code, int(stat.st_mtime), stat.st_size))
    before = sorted(card.parent.rglob("*"))
    load_model(card, trust_code=True)
    assert not canary.exists()
    assert sorted(card.parent.rglob("*")) == before  # nothing is written beside the model


def test_files_beside_a_card_import_each_other(python_folder: Maker) -> None:
    card = python_folder()
    folder = card.parent
    (folder / "nets").mkdir()
    (folder / "network.py").rename(folder / "nets" / "blocks.py")
    (folder / "network.py").write_text("from .nets.blocks import plane\n")
    assert load_model(card, trust_code=True).model({"image": torch.zeros(1, 1, 16, 16)}).shape == (1, 3)


def test_an_installed_factory_is_found_without_importing_it(
    python_folder: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    canary = tmp_path / "canary"
    package = tmp_path / "site" / "zoo_for_test"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(f"from pathlib import Path\nPath({str(canary)!r}).touch()\n")
    card = python_folder(model__factory="zoo_for_test.nets:plane")
    (package / "nets.py").write_bytes((card.parent / "network.py").read_bytes())
    monkeypatch.syspath_prepend(tmp_path / "site")
    with pytest.raises(Untrusted, match="zoo_for_test"):
        load_model(card)
    assert not canary.exists()
    assert load_model(card, trust_code=True).trust == "--trust-code"
    assert canary.exists()


@pytest.mark.parametrize(
    ("factory", "said"),
    [
        ("absent_for_test:plane", "no module 'absent_for_test'"),
        ("network:plain", "no function 'plain'"),
        ("network:seeded", "network:seeded failed"),
        ("broken:plane", "importing broken failed: ZeroDivisionError"),
        ("broken2:make", "expected a torch module"),
        ("os:getcwd", "expected a torch module"),
    ],
)
def test_factories_that_build_no_network(python_folder: Maker, factory: str, said: str) -> None:
    card = python_folder(model__factory=factory)
    (card.parent / "broken.py").write_text("1 / 0\n")
    (card.parent / "broken2.py").write_text("def make():\n    return 3\n")
    with pytest.raises(BadCard, match=said):
        load_model(card, trust_code=True)


def test_weights_without_a_card_or_a_factory(python_folder: Maker) -> None:
    card = python_folder()
    with pytest.raises(BadCard, match="nothing says which network"):
        load_model(card.parent / "weights.safetensors")
    text = card.read_text()
    card.write_text("\n".join(line for line in text.splitlines() if not line.startswith("factory")))
    with pytest.raises(BadCard, match=r"model\.factory"):
        load_model(card, trust_code=True)


def test_a_network_that_switches_gradients_off_says_so(python_folder: Maker) -> None:
    card = python_folder()
    network = card.parent / "network.py"
    network.write_text(
        network.read_text().replace("    def forward(self, x", "    @torch.no_grad()\n    def forward(self, x", 1)
    )
    loaded = load_model(card, trust_code=True)
    assert not loaded.model.can.gradient
    assert "switches gradients off" in loaded.model.can.why["gradient"]


def test_labels_must_be_as_many_as_the_outputs(python_folder: Maker) -> None:
    with pytest.raises(BadCard, match="names 2 classes, the model gives 3"):
        load_model(python_folder(output__labels=["a", "b"]), trust_code=True)


def test_a_loaded_model_is_explained(python_folder: Maker) -> None:
    from pellucid.core.card import Ask

    model = load_model(python_folder(), trust_code=True).model
    x = torch.rand(1, 1, 16, 16, generator=torch.Generator().manual_seed(3))
    needs = {(Ask.INPUT_GRADIENT, None), (Ask.ACTIVATION, "features.4"), (Ask.LAYER_GRADIENT, "features.4")}
    probe = Probe(model, x, ClassScore("b"), needs)
    leaf = x.clone().requires_grad_()
    expected = torch.autograd.grad(model.module(leaf)[:, 1].sum(), leaf)[0]
    torch.testing.assert_close(probe.input_gradient["image"], expected)
    assert probe.layer_gradient("features.4").shape == (1, 8, 8, 8)
