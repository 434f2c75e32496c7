"""Golden vectors: run through the same preparation as any image, and believed only within their tolerance."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from pellucid.core.errors import BadCard, GoldenVectorMismatch
from pellucid.core.grid import Grid
from pellucid.core.image import Image, Modality
from pellucid.io.models import head_output, load_model, require_golden, run_golden

Maker = Callable[..., Path]


def picture(path: Path, modality: Modality | None, index: int | None) -> Image:
    """An image whose values are the bytes of a file, as a reader that tests can look through."""
    side = 8 if path.suffix == ".vol" else 16
    shape = (side,) * (3 if path.suffix == ".vol" else 2)
    data = torch.tensor(list(path.read_bytes()), dtype=torch.float32)[: int(torch.tensor(shape).prod())]
    return Image(data.view(1, *shape), Grid.regular(shape), modality or Modality.UNKNOWN)


def content(seed: int, size: int) -> bytes:
    return bytes(torch.randint(0, 256, (size,), generator=torch.Generator().manual_seed(seed)).tolist())


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def golden_card(python_folder: Maker, small: ModuleType) -> Maker:
    """A classifier with one golden vector, computed here without any of the code under test."""

    def make(**changes: Any) -> Path:
        data = content(1, 256)
        x = torch.tensor(list(data), dtype=torch.float32).view(1, 1, 16, 16)
        unit = (x - x.min()) / (x.max() - x.min())
        expected = small.plane()(unit)[0].tolist()
        entry = {"file": "g.img", "sha256": sha(data), "expected": expected, "tolerance": 1e-4, **changes}
        card = python_folder(golden=[entry])
        (card.parent / "g.img").write_bytes(data)
        return card

    return make


def test_a_right_model_passes(golden_card: Maker) -> None:
    loaded = load_model(golden_card(), trust_code=True)
    (result,) = require_golden(loaded, picture)
    assert result.passed
    assert result.file == "g.img"
    assert result.deviation < 1e-5
    assert run_golden(loaded, picture) == [result]


def test_a_mismatch_in_preprocessing_is_noticed(golden_card: Maker) -> None:
    card = golden_card()
    card.write_text(card.read_text().replace('scale = "unit"', 'scale = "zscore"'))
    loaded = load_model(card, trust_code=True)
    (result,) = run_golden(loaded, picture)
    assert not result.passed
    with pytest.raises(GoldenVectorMismatch) as caught:
        require_golden(loaded, picture)
    assert f"g.img by {result.deviation:.3g}" in caught.value.problem
    assert "1 of 1" in caught.value.problem


def test_changed_weights_are_noticed(golden_card: Maker, write_card: Maker) -> None:
    card = golden_card()
    state = load_file(card.parent / "weights.safetensors")
    before = sha((card.parent / "weights.safetensors").read_bytes())
    state["head.bias"] += torch.tensor([0.0, 0.25, 0.0])
    save_file(state, card.parent / "weights.safetensors")
    card.write_text(card.read_text().replace(before, sha((card.parent / "weights.safetensors").read_bytes())))
    (result,) = run_golden(load_model(card, trust_code=True), picture)
    assert result.deviation == pytest.approx(0.25, abs=1e-4)


def test_values_that_are_not_numbers_never_pass(golden_card: Maker, small: ModuleType) -> None:
    card = golden_card(tolerance=1e9)
    before = sha((card.parent / "weights.safetensors").read_bytes())
    state = small.plane().state_dict()
    state["head.bias"][0] = float("nan")
    save_file(state, card.parent / "weights.safetensors")
    card.write_text(card.read_text().replace(before, sha((card.parent / "weights.safetensors").read_bytes())))
    with pytest.raises(GoldenVectorMismatch, match="by inf"):
        require_golden(load_model(card, trust_code=True), picture)


def test_segmentations_have_means_and_points(python_folder: Maker, small: ModuleType) -> None:
    data = content(2, 512)
    x = torch.tensor(list(data), dtype=torch.float32).view(1, 1, 8, 8, 8)
    output = small.volume()(x)[0].detach()
    point = {"channel": 1, "index": [1, 2, 3], "value": float(output[1, 1, 2, 3])}
    entry = {"file": "g.vol", "sha256": sha(data), "expected": output.flatten(1).mean(1).tolist(), "at": [point]}
    changes = {
        "model__task": "segmentation",
        "inputs": [{"name": "image", "rank": 3, "size": [8, 8, 8]}],
        "output": {"labels": ["no", "yes"], "activation": "softmax"},
    }
    entry["tolerance"] = 0.01
    card = python_folder("volume", golden=[entry], **changes)
    (card.parent / "g.vol").write_bytes(data)
    assert require_golden(load_model(card, trust_code=True), picture)[0].passed
    entry["at"] = [{**point, "value": point["value"] + 1.0}]
    (result,) = run_golden(load_model(python_folder("volume", golden=[entry], **changes), trust_code=True), picture)
    assert result.deviation == pytest.approx(1.0, abs=0.01)
    for index in ([1, 2], [1, 2, 8]):
        entry["at"] = [{**point, "index": index}]
        loaded = load_model(python_folder("volume", golden=[entry], **changes), trust_code=True)
        with pytest.raises(BadCard, match="outside the output"):
            run_golden(loaded, picture)


def test_several_inputs(python_folder: Maker, small: ModuleType) -> None:
    pet, ct = content(3, 512), content(4, 512)
    arrays = [torch.tensor(list(d), dtype=torch.float32).view(1, 1, 8, 8, 8) for d in (pet, ct)]
    entry = {
        "file": {"pet": "pet.vol", "ct": "ct.vol"},
        "sha256": {"pet": sha(pet), "ct": sha(ct)},
        "expected": small.pair()(*arrays)[0].tolist(),
        "tolerance": 0.01,
    }
    inputs = [{"name": n, "rank": 3, "size": [8, 8, 8]} for n in ("pet", "ct")]
    output = {"labels": ["no", "yes"], "activation": "softmax"}
    card = python_folder("pair", golden=[entry], inputs=inputs, output=output)
    (card.parent / "pet.vol").write_bytes(pet)
    (card.parent / "ct.vol").write_bytes(ct)
    loaded = load_model(card, trust_code=True)
    assert require_golden(loaded, picture)[0].passed
    (card.parent / "ct.vol").write_bytes(pet)
    with pytest.raises(BadCard, match=r"ct\.vol is not the file that the card names"):
        run_golden(loaded, picture)
    (card.parent / "ct.vol").unlink()
    with pytest.raises(BadCard, match=r"ct\.vol is missing"):
        run_golden(loaded, picture)


def test_the_number_of_values_must_fit(golden_card: Maker) -> None:
    with pytest.raises(BadCard, match="the card has 1 values, the head 3"):
        run_golden(load_model(golden_card(expected=[1.0]), trust_code=True), picture)


def test_nothing_to_compare_without_a_card(tmp_path: Path, small: ModuleType, export: Maker) -> None:
    export("torchscript", small.plane(), (torch.rand(1, 1, 16, 16),), tmp_path / "m", True)
    assert require_golden(load_model(tmp_path / "m", trust_code=True), picture) == []


def test_the_head_in_numbers(golden_card: Maker) -> None:
    loaded = load_model(golden_card(), trust_code=True)
    image = picture(loaded.folder / "g.img", None, None)
    assert head_output(loaded, {"image": image})[0].tolist() == pytest.approx(loaded.card.golden[0].expected, abs=1e-4)
