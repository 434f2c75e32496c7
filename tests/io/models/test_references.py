"""Display references beside a card: written whole, read back equal, bound to the weights they were measured on."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from pellucid.core.errors import BadCard, UnwritableOutput
from pellucid.core.explanation import Reference
from pellucid.io.models import load_model
from pellucid.io.references import read_references, write_references

TABLE = {
    "GradCAM": {
        "b": Reference(4.5, 1.25, 0.05, 100, 50, "adults of one site"),
        "a": Reference(2.0, None, 0.05, 9, 0, "x"),
    },
    "Saliency": {"b": Reference(0.1, 0.0, 0.05, 10, 20, "children")},
}


def test_round_trip(tmp_path: Path) -> None:
    path = write_references(tmp_path, TABLE)
    assert read_references(tmp_path) == (TABLE, ())
    assert list(json.loads(path.read_text())["GradCAM"]) == ["a", "b"]
    before = path.read_bytes()
    write_references(tmp_path, {m: dict(reversed(t.items())) for m, t in reversed(TABLE.items())})
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["references.json"]


def test_none_where_there_is_no_file(tmp_path: Path) -> None:
    assert read_references(tmp_path) == ({}, ())


def test_references_of_other_weights_are_left_out(tmp_path: Path) -> None:
    write_references(tmp_path, TABLE, "a" * 64)
    assert read_references(tmp_path, "a" * 64) == (TABLE, ())
    assert read_references(tmp_path) == (TABLE, ())
    found, doubts = read_references(tmp_path, "b" * 64)
    assert found == {}
    assert "other weights" in doubts[0]


def test_a_loaded_model_brings_its_references(python_folder: Callable[..., Path]) -> None:
    card = python_folder()
    write_references(card.parent, TABLE)
    assert load_model(card, trust_code=True).references == TABLE
    write_references(card.parent, TABLE, "b" * 64)
    loaded = load_model(card, trust_code=True)
    assert loaded.references == {}
    assert any("other weights" in n for n in loaded.notes)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "is not JSON"),
        ("[]", "expected|valid|object"),
        ('{"GradCAM": {"b": {"scale": 1}}}', "GradCAM.b.null"),
        ('{"GradCAM": {"b": 3}}', "GradCAM.b"),
        (json.dumps({"M": {"b": {**vars(TABLE["Saliency"]["b"]), "scale": 0.0}}}), "M.b: expected a scale above 0"),
        (json.dumps({"M": {"b": {**vars(TABLE["Saliency"]["b"]), "extra": 0.0}}}), "M.b.extra"),
    ],
)
def test_malformed_references(tmp_path: Path, content: str, said: str) -> None:
    (tmp_path / "references.json").write_text(content)
    with pytest.raises(BadCard, match=said) as caught:
        read_references(tmp_path)
    assert "references.json" in caught.value.problem


def test_what_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(UnwritableOutput):
        write_references(tmp_path / "absent", TABLE)
    with pytest.raises(BadCard, match="expected a scale above 0"):
        write_references(tmp_path, {"M": {"b": Reference(float("nan"), None, 0.05, 1, 1, "")}})
    assert not list(tmp_path.iterdir())
