"""Explanations on disk and back without losing a bit: tensors as safetensors, everything else as JSON."""

import hashlib
import json
import re
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load, save
from torch import Tensor

from pellucid.core.atomic import make_folder, write_bytes, write_text
from pellucid.core.errors import InputError, NonFinite
from pellucid.core.explanation import Attribution, Explanation, Prediction, Provenance, Reference
from pellucid.core.grid import Affine, Calibration, Grid
from pellucid.core.image import Image, Modality
from pellucid.core.prepare import Prepared
from pellucid.io.guard import reading

FORMAT, VERSION = "pellucid explanation", 1
_AGAIN = "make the explanation again, or copy it again from where it was made"
_WANTED = ("a complete saved explanation", _AGAIN)


def save_explanation(explanation: Explanation, folder: Path, name: str | None = None, keep_input: bool = True) -> Path:
    """Write an explanation as ``NAME.safetensors`` and ``NAME.json``; ``load_explanation`` gives it back bit for bit.

    The tensors are the maps as they are, the collapsed map on the image's grid (``on_image``) and both affines; the
    JSON has the rest, the SHA-256 of the tensors, and its own. The image and the network's input lie in a third file
    named after their hash, which the explanations of one case share. The view is not kept, and of the frame of
    reference only a pseudonym.

    Args:
        explanation: whose answer is a map.
        folder: made where missing; an earlier explanation of the same name is replaced.
        name: of the files; None: case, method and target.
        keep_input: False leaves out the image; the map still comes back onto its grid.

    Returns:
        The path of the JSON file.

    Raises:
        UnwritableOutput: the folder cannot be written; nothing half-written is left.
        UnknownName: the answer is no map.
        NonFinite: a number of the provenance or prediction is NaN or infinite.
    """
    answer, prov = explanation.attribution, explanation.provenance
    stem = re.sub(r"[^A-Za-z0-9._-]+", "-", name or f"{prov.case}-{prov.method}-{prov.target}").strip("-.") or "map"
    files = {f"{stem}.safetensors": save(_tensors(explanation))}
    content = _content(explanation, answer)
    content["tensors"] = _named(*next(iter(files.items())))
    source = save(_inputs(explanation)) if keep_input and _inputs(explanation) else None
    if source is not None:
        name = f"input-{hashlib.sha256(source).hexdigest()[:16]}.safetensors"
        files[name] = source
        content["input"] = _named(name, source)
    content["digest"] = _digest(content)
    folder = make_folder(Path(folder))
    for name, written in files.items():
        if not _is_there(folder / name, written):
            write_bytes(folder / name, written)
    return write_text(folder / f"{stem}.json", json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def load_explanation(path: Path) -> Explanation:
    """Read back what ``save_explanation`` wrote.

    Args:
        path: of the JSON, or of the tensors beside it.

    Raises:
        UnreadableImage: a file is missing or cannot be parsed.
        InputError: a file is not the one that was written, or comes from a newer version.
    """
    path = Path(path)
    path = path.with_name(path.name.removesuffix(".safetensors") + ".json") if path.suffix == ".safetensors" else path
    with reading(*_WANTED):
        content = json.loads(path.read_text("utf-8"))
        if content["format"] != FORMAT or content["version"] != VERSION:
            raise InputError(
                f"expected a {FORMAT} of version {VERSION}, got version {content['version']!s:.20}",
                "read it with the version of Pellucid that wrote it",
            )
        if _digest(content) != content["digest"]:
            raise InputError("expected the saved explanation as it was written, its JSON was changed", _AGAIN)
        tensors = _checked(path.parent, content["tensors"])
        source = _checked(path.parent, content["input"]) if content["input"] else {}
        return _explanation(content, tensors, source)


def _tensors(explanation: Explanation) -> dict[str, Tensor]:
    found = {f"map.{name}": _flat(values) for name, values in explanation.attribution.maps.items()}
    found |= {f"error.{name}": _flat(values) for name, values in (explanation.attribution.error or {}).items()}
    if explanation.attribution.difference is not None:
        found["difference"] = _flat(explanation.attribution.difference)
    found["on_image"] = _flat(explanation.on_image())
    if explanation.prepared is not None:
        found["affine.network"] = torch.from_numpy(explanation.prepared.grid.matrix)
        found["affine.image"] = torch.from_numpy(explanation.prepared.source.matrix)
    return found


def _flat(values: Tensor) -> Tensor:
    return values.detach().cpu().contiguous().clone()


def _inputs(explanation: Explanation) -> dict[str, Tensor]:
    """The image and the network's input, once for all explanations of the case."""
    found = {}
    if explanation.image is not None:
        found["image"] = _flat(explanation.image.data)
    if explanation.prepared is not None:
        found["prepared"] = _flat(explanation.prepared.tensor)
    return found


def _named(name: str, content: bytes) -> dict[str, str]:
    return {"file": name, "sha256": hashlib.sha256(content).hexdigest()}


def _is_there(path: Path, content: bytes) -> bool:
    return path.is_file() and path.stat().st_size == len(content) and path.read_bytes() == content


def _content(explanation: Explanation, answer: Attribution) -> dict[str, Any]:
    image, prepared = explanation.image, explanation.prepared
    return {
        "format": FORMAT,
        "version": VERSION,
        "input": None,
        "answer": {
            "kind": answer.kind,
            "inputs": list(answer.maps),
            "unit": answer.unit,
            "signed": answer.signed,
            "collapse": answer.collapse,
            "cell": [float(c) for c in answer.cell],
            "warnings": list(answer.warnings),
            "error": None if answer.error is None else list(answer.error),
        },
        "provenance": _provenance(explanation.provenance),
        "prediction": asdict(explanation.prediction) if explanation.prediction else None,
        "reference": asdict(explanation.reference) if explanation.reference else None,
        "image": image
        and {
            "grid": _grid(image.grid),
            "modality": str(image.modality),
            "unit": image.unit,
            "window": image.window and list(image.window),
            "traits": dict(image.traits),
        },
        "prepared": prepared
        and {
            "grid": _grid(prepared.grid),
            "source": _grid(prepared.source),
            "shift": list(prepared.shift),
            "scale": list(prepared.scale),
            "notes": list(prepared.notes),
        },
    }


def _provenance(provenance: Provenance) -> dict[str, Any]:
    values = {f.name: getattr(provenance, f.name) for f in fields(provenance)}
    values["settings"] = {key: _encoded(value) for key, value in provenance.settings.items()}
    values["versions"] = dict(provenance.versions)
    return {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}


def _encoded(value: object) -> Any:
    """JSON knows no tuple; what is neither number, text nor list of them is kept as its text."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, tuple | list):
        return {type(value).__name__: [_encoded(v) for v in value]}
    return value if isinstance(value, bool | int | float | str | None) else {"text": str(value)}


def _decoded(value: Any) -> object:
    if not isinstance(value, dict):
        return value
    kind, inner = next(iter(value.items()))
    if kind == "text":
        return inner
    parts = [_decoded(v) for v in inner]
    return tuple(parts) if kind == "tuple" else parts


def _grid(grid: Grid) -> dict[str, Any]:
    return {
        "shape": list(grid.shape),
        "affine": [list(row) for row in grid.affine],
        "calibration": str(grid.calibration),
        "frame_of_reference": grid.frame,
        "letters": grid.letters and list(grid.letters),
    }


def _digest(content: dict[str, Any]) -> str:
    """SHA-256 of everything but itself, in one spelling."""
    plain = {key: value for key, value in content.items() if key != "digest"}
    try:
        text = json.dumps(plain, sort_keys=True, separators=(",", ":"), allow_nan=False)
    except ValueError:
        raise NonFinite(
            "expected finite numbers in an explanation to save, got NaN or infinity", "look at its prediction and scale"
        ) from None
    return hashlib.sha256(text.encode()).hexdigest()


def _checked(folder: Path, named: dict[str, str]) -> dict[str, Tensor]:
    if Path(named["file"]).name != named["file"]:
        raise InputError("expected the tensors beside the JSON, got a path that leads elsewhere", _AGAIN)
    content = (folder / named["file"]).read_bytes()
    if hashlib.sha256(content).hexdigest() != named["sha256"]:
        raise InputError("expected the tensors as they were written, got others (the SHA-256 differs)", _AGAIN)
    return load(content)


def _explanation(content: dict[str, Any], tensors: dict[str, Tensor], source: dict[str, Tensor]) -> Explanation:
    answer = content["answer"]
    attribution = Attribution(
        {name: tensors[f"map.{name}"] for name in answer["inputs"]},
        answer["unit"],
        answer["signed"],
        answer["collapse"],
        tuple(answer["cell"]),
        {name: tensors[f"error.{name}"] for name in answer["error"]} if answer.get("error") else None,
        tensors.get("difference"),
        warnings=tuple(answer["warnings"]),
    )
    return Explanation(
        attribution,
        _provenance_from(content["provenance"]),
        Prediction(**content["prediction"]) if content["prediction"] else None,
        _image_from(content["image"], source.get("image")),
        _prepared_from(content["prepared"], source.get("prepared")),
        Reference(**content["reference"]) if content["reference"] else None,
    )


def _provenance_from(plain: dict[str, Any]) -> Provenance:
    values = {key: tuple(value) if isinstance(value, list) else value for key, value in plain.items()}
    values["settings"] = {key: _decoded(value) for key, value in plain["settings"].items()}
    return Provenance(**values)


def _grid_from(plain: dict[str, Any]) -> Grid:
    affine: Affine = tuple((r[0], r[1], r[2], r[3]) for r in plain["affine"])
    letters = plain["letters"]
    return Grid(
        tuple(plain["shape"]),
        affine,
        Calibration(plain["calibration"]),
        plain["frame_of_reference"],
        tuple(letters) if letters else None,
    )


def _image_from(plain: dict[str, Any] | None, data: Tensor | None) -> Image | None:
    if plain is None or data is None:
        return None
    window = plain["window"]
    return Image(
        data,
        _grid_from(plain["grid"]),
        Modality(plain["modality"]),
        plain["unit"],
        (window[0], window[1]) if window else None,
        plain["traits"],
    )


def _prepared_from(plain: dict[str, Any] | None, tensor: Tensor | None) -> Prepared | None:
    if plain is None:
        return None
    grid = _grid_from(plain["grid"])
    return Prepared(
        torch.empty(0, *grid.shape) if tensor is None else tensor,  # no channel was kept; the way back was
        grid,
        _grid_from(plain["source"]),
        tuple(plain["shift"]),
        tuple(plain["scale"]),
        tuple(plain["notes"]),
    )
