"""What a model file is, told by its content and never by its name."""

import zipfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch
from safetensors.torch import save_file

from pellucid.core.errors import ModelError
from pellucid.io.modelform import Form, detect_form
from pellucid.io.models import load_model

FORMS = ("torchscript", "traced", "pt2", "onnx")


def test_forms_are_told_by_content(
    tmp_path: Path, small: ModuleType, exported: Callable[..., bytes], card_text: Callable[..., str]
) -> None:
    expected = {}
    for form, name in zip(FORMS, (Form.TORCHSCRIPT, Form.TORCHSCRIPT, Form.EXPORTED, Form.ONNX), strict=True):
        path = tmp_path / f"{form}.txt"
        path.write_bytes(exported(form, "plane", True))
        expected[path] = name
    for path, new in ((tmp_path / "a.onnx", True), (tmp_path / "b.onnx", False)):
        torch.save(small.plane().state_dict(), path, _use_new_zipfile_serialization=new)
        expected[path] = Form.STATE
    save_file(small.plane().state_dict(), tmp_path / "c.toml")
    expected[tmp_path / "c.toml"] = Form.SAFETENSORS
    (tmp_path / "d.pt").write_text(card_text())
    expected[tmp_path / "d.pt"] = Form.CARD
    (tmp_path / "bundle" / "configs").mkdir(parents=True)
    (tmp_path / "bundle" / "configs" / "metadata.json").write_text("{}")
    expected[tmp_path / "bundle"] = Form.BUNDLE
    assert {path: detect_form(path) for path in expected} == expected


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x00",
        b"\x89PNG\r\n\x1a\n",
        b"PK\x03\x04half",
        b"hello",
        b"\x08\x07",
        b"\xff" * 99,
        b"\xff\xff\xff\xff\xff\xff\xff\x7f{}",
    ],
)
def test_what_is_no_model(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(ModelError, match="x is no model"):
        load_model(tmp_path / "x")
    with pytest.raises(ModelError, match="holds no model"):
        load_model(tmp_path)
    with pytest.raises(ModelError, match="there is no model"):
        load_model(tmp_path / "y")
    with zipfile.ZipFile(tmp_path / "z", "w") as archive:
        archive.writestr("a/b", "c")
    with pytest.raises(ModelError, match="z is no model"):
        load_model(tmp_path / "z")
