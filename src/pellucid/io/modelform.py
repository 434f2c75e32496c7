"""Which form a model file has, seen from its content and never from its name."""

import tomllib
import zipfile
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import BinaryIO

from pellucid.core.errors import ModelError
from pellucid.io.modelcard import CARD_NAME

_CARD_BYTES = 1 << 20
_ONNX_FIELDS = frozenset({1, 2, 3, 4, 5, 6, 7, 8, 14, 20, 25, 26})  # of ModelProto in onnx.proto
_ONNX_GRAPH = 7
_ACCEPTED = (
    f"a {CARD_NAME}, a folder with one, a MONAI bundle folder (configs/metadata.json), a trained nnU-Net v2 "
    "(plans.json), a Hugging Face folder (config.json, model.safetensors), or a file of TorchScript, torch.export "
    "(.pt2) or ONNX"
)


class Form(StrEnum):
    """The forms in which models come."""

    CARD = "model card"
    STATE = "torch weights"
    SAFETENSORS = "safetensors"
    TORCHSCRIPT = "TorchScript"
    EXPORTED = "torch.export archive"
    ONNX = "ONNX"
    BUNDLE = "MONAI bundle"
    NNUNET = "trained nnU-Net"
    HUGGINGFACE = "Hugging Face folder"


def detect_form(path: Path) -> Form:
    """What a file or folder holds.

    Raises:
        ModelError: nothing that could be a model.
    """
    if path.is_dir():
        if (path / CARD_NAME).is_file():
            return Form.CARD
        form = folder_form(path)
        if form is not None:
            return form
        raise ModelError(f"the folder {path.name} holds no model", f"give {_ACCEPTED}")
    if not path.is_file():
        raise ModelError(f"there is no model {path.name}", f"give {_ACCEPTED}")
    with path.open("rb") as file:
        form = _of_file(file, path.stat().st_size)
    if form is None:
        raise ModelError(f"{path.name} is no model in a form that can be read", f"give {_ACCEPTED}")
    return form


def folder_form(path: Path) -> Form | None:
    """What a folder is laid out as, whether or not a card lies in it; None: as nothing that is known."""
    if not path.is_dir():
        return None
    if is_bundle(path):
        return Form.BUNDLE
    if is_nnunet(path):
        return Form.NNUNET
    return Form.HUGGINGFACE if is_huggingface(path) else None


def is_bundle(path: Path) -> bool:
    """Whether a folder is laid out as a MONAI bundle."""
    return (path / "configs" / "metadata.json").is_file()


def is_nnunet(path: Path) -> bool:
    """Whether a folder is a trained nnU-Net v2: of a data set, of a configuration (with its plans), or of a fold."""
    if path.name.startswith("fold_") and (path.parent / "plans.json").is_file():
        return True
    return (path / "plans.json").is_file() or any(path.glob("*__*__*/plans.json"))


def is_huggingface(path: Path) -> bool:
    """Whether a folder is laid out as on the Hugging Face hub: a configuration, and weights in one file or several."""
    weights = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin")
    return (path / "config.json").is_file() and any((path / name).is_file() for name in weights)


def _of_file(file: BinaryIO, size: int) -> Form | None:
    head = file.read(16)
    if head[:2] == b"PK":
        return _of_archive(file)
    if len(head) > 8 and head[8:9] == b"{" and 2 <= int.from_bytes(head[:8], "little") <= size - 8:
        return Form.SAFETENSORS
    if head[:2] in (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"):
        return Form.STATE  # a pickle of before torch 1.6; read with weights_only like the rest
    if _is_onnx(file, size):
        return Form.ONNX
    return Form.CARD if _is_toml(file, size) else None


def _of_archive(file: BinaryIO) -> Form | None:
    try:
        with zipfile.ZipFile(file) as archive:
            names = archive.namelist()
    except zipfile.BadZipFile:
        return None
    if "serialized_exported_program.json" in names or any(n.endswith("/archive_format") for n in names):
        return Form.EXPORTED
    inner = {n.partition("/")[2] for n in names}
    if any(n.startswith("code/") for n in inner):
        return Form.TORCHSCRIPT
    return Form.STATE if "data.pkl" in inner else None


def _is_onnx(file: BinaryIO, size: int) -> bool:
    """Walk the top-level fields of the protobuf message: those of a ModelProto, with a graph among them."""
    seen = set()
    try:
        for number in _fields(file, size):
            if number not in _ONNX_FIELDS:
                return False
            seen.add(number)
    except ValueError:
        return False
    return _ONNX_GRAPH in seen


def _fields(file: BinaryIO, size: int) -> Iterator[int]:
    file.seek(0)
    while file.tell() < size:
        key = _varint(file)
        kind = key & 7
        if kind == 0:
            _varint(file)
        elif kind == 2:
            length = _varint(file)
            if file.tell() + length > size:
                raise ValueError("a field longer than the file")
            file.seek(length, 1)
        else:
            raise ValueError("a kind of field that ModelProto does not have")
        yield key >> 3


def _varint(file: BinaryIO) -> int:
    value = 0
    for shift in range(0, 64, 7):
        byte = file.read(1)
        if not byte:
            raise ValueError("the file ends inside a number")
        value |= (byte[0] & 0x7F) << shift
        if byte[0] < 0x80:
            return value
    raise ValueError("a number of more than 64 bits")


def _is_toml(file: BinaryIO, size: int) -> bool:
    """Whether it is text that could be a card; one with a slip in it is still a card, and gets its error there."""
    if size > _CARD_BYTES:
        return False
    file.seek(0)
    try:
        text = file.read().decode("utf-8")
    except UnicodeDecodeError:
        return False
    try:
        return "model" in tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError):
        return "[model]" in text
