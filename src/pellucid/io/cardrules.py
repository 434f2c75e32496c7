"""What makes a model card wrong, said with the key and the mend."""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from difflib import get_close_matches
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from pellucid.core.errors import BadCard, InputError

if TYPE_CHECKING:
    from pellucid.core.prepare import InputSpec
    from pellucid.io.cardschema import Golden, ModelCard

_Fault = tuple[str, str, str]  # key, problem, mend
_SHOWN = 3  # faults in one message
_UNKNOWN = ("unexpected_keyword_argument", "extra_forbidden")
_CHANNELS = {"rgb": 3, "bgr": 3}
_MENDS = {
    "sha256": "write the SHA-256 of the weights: sha256sum prints it",
    "license": "write the SPDX name of the license of the weights, or 'proprietary'",
    "modality": 'write a list such as modality = ["ct"]',
    "labels": "list the class names in the order of the output",
    "task": "write classification, segmentation or regression",
}
FACTORY = re.compile(r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*$")
_DIGEST = re.compile(r"^[0-9a-f]{64}$")


def explain_schema_errors(
    errors: Sequence[Mapping[str, Any]], raw: Mapping[str, Any], tables: Mapping[tuple[str, ...], type]
) -> BadCard:
    """What pydantic found, as one error that names the keys."""
    # a misspelled key is also missing under its right name: the misspelling is said first
    ordered = sorted(errors, key=lambda e: e["type"] not in _UNKNOWN)
    faults = [_schema_fault(e, raw, tables) for e in ordered]
    unique = list({key: (key, problem, mend) for key, problem, mend in reversed(faults)}.values())[::-1]
    more = f"; and {len(unique) - _SHOWN} more" if len(unique) > _SHOWN else ""
    return BadCard("model card: " + "; ".join(p for _, p, _ in unique[:_SHOWN]) + more, unique[0][2])


def _schema_fault(error: Mapping[str, Any], raw: Mapping[str, Any], tables: Mapping[tuple[str, ...], type]) -> _Fault:
    where, rest = _existing(error["loc"], raw)
    if error["type"] == "missing":
        key = _written((*where, rest[0]))
        return key, f"key {key} is missing", _MENDS.get(str(rest[0]), f"add {key} (docs/model_card.md explains it)")
    key = _written(where)
    if error["type"] in _UNKNOWN:
        known = _known_keys(where[:-1], tables)
        close = get_close_matches(str(where[-1]), known, 1)
        mend = f"write {close[0]!r}" if close else f"remove it; keys here: {', '.join(known)}"
        return key, f"unknown key {key}", mend
    if isinstance(error.get("ctx", {}).get("error"), InputError):  # InputSpec refuses what it cannot be
        refusal = error["ctx"]["error"]
        return key, f"{key}: {refusal.problem}", refusal.mend
    got = str(error["input"])
    wanted = error["msg"].replace("Input should be", "expected").replace("Input should have", "expected")
    mend = _MENDS.get(str(where[-1]) if where else "", f"correct {key} (docs/model_card.md explains it)")
    return key, f"{key}: {wanted}, got {got[:60]!r}", mend


def _existing(loc: Sequence[str | int], raw: Any) -> tuple[tuple[str | int, ...], tuple[str | int, ...]]:
    """The part of the location that stands in the card; pydantic adds the names of union members behind it."""
    for depth, part in enumerate(loc):
        inside = part in raw if isinstance(raw, Mapping) else isinstance(raw, list) and part in range(len(raw))
        if not inside:
            return tuple(loc[:depth]), tuple(loc[depth:])
        raw = raw[part]
    return tuple(loc), ()


def _written(loc: Sequence[str | int]) -> str:
    text = "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in loc)
    return text.lstrip(".") or "(top)"


def _known_keys(loc: Sequence[str | int], tables: Mapping[tuple[str, ...], type]) -> list[str]:
    table = tables.get(tuple(p for p in loc if isinstance(p, str)))
    return [f.name for f in fields(table)] if table is not None else []


def check_rules(card: "ModelCard", raw: Mapping[str, Any]) -> None:
    """Refuse a card whose keys contradict each other.

    Raises:
        BadCard: naming the first faults.
    """
    checks = (_model, _all_inputs, _output, _windows, _limits, _proof)
    faults = [*_not_numbers(raw, ()), *(fault for check in checks for fault in check(card))]
    if faults:
        more = f"; and {len(faults) - _SHOWN} more" if len(faults) > _SHOWN else ""
        text = "; ".join(f"{key}: {problem}" for key, problem, _ in faults[:_SHOWN])
        raise BadCard(f"model card: {text}{more}", faults[0][2])


def _not_numbers(value: object, loc: tuple[str | int, ...]) -> Iterator[_Fault]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _not_numbers(inner, (*loc, key))
    elif isinstance(value, list):
        for i, inner in enumerate(value):
            yield from _not_numbers(inner, (*loc, i))
    elif isinstance(value, float) and (math.isnan(value) or (math.isinf(value) and loc[0] != "applies_to")):
        yield _written(loc), f"expected a finite number, got {value}", "write a number"


def _model(card: "ModelCard") -> Iterator[_Fault]:
    m = card.model
    for key in ("name", "version", "license", "weights"):
        if not getattr(m, key).strip():
            yield f"model.{key}", "expected text, got nothing", f"fill in model.{key}"
    if not m.modality:
        yield "model.modality", "expected at least one modality, got none", _MENDS["modality"]
    yield from _digest("model.sha256", m.sha256)
    yield from _beside("model.weights", m.weights)
    if m.factory is not None and not FACTORY.match(m.factory):
        yield "model.factory", f"expected package.module:function, got {m.factory!r}", "write for example network:build"
    if m.options and m.factory is None:
        yield "model.options", "options are arguments of a factory, and there is none", "add model.factory"


def _digest(key: str, text: str) -> Iterator[_Fault]:
    if not _DIGEST.match(text):
        yield key, f"expected 64 digits of 0-9 and a-f, got {text[:70]!r}", _MENDS["sha256"]


def _beside(key: str, name: str) -> Iterator[_Fault]:
    """A card may only name files in its own folder."""
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or ":" in name:
        yield key, f"expected a file in the card's own folder, got {name!r}", "put the file beside the card"


def _all_inputs(card: "ModelCard") -> Iterator[_Fault]:
    names = [s.name for s in card.inputs]
    if not names:
        yield "inputs", "expected at least one input, got none", "add an [[inputs]] table"
    if len(set(names)) < len(names):
        yield "inputs", f"expected different names, got {names}", "give each [[inputs]] its own name"
    for i, spec in enumerate(card.inputs):
        for key, problem, mend in _input(spec):
            yield f"inputs[{i}].{key}", problem, mend


def _input(spec: "InputSpec") -> Iterator[_Fault]:
    if spec.rank not in (0, 2, 3):
        yield "rank", f"expected 2 or 3 spatial axes (0: a vector), got {spec.rank}", "correct the rank"
    if spec.channels < 1:
        yield "channels", f"expected 1 or more, got {spec.channels}", "correct it"
    wanted = _CHANNELS.get(spec.order)
    if spec.rank and wanted not in (None, spec.channels):
        yield "order", f"{spec.order} means {wanted} channels, got channels = {spec.channels}", "make them agree"
    yield from _intensities(spec)
    yield from _orientation(spec)


def _intensities(spec: "InputSpec") -> Iterator[_Fault]:
    pair = spec.percentiles
    if pair is not None and not 0 <= pair[0] < pair[1] <= 100:
        yield "percentiles", f"expected [low, high] in 0 to 100 with low < high, got {list(pair)}", "correct them"
    if spec.window is not None and spec.percentiles is not None:
        yield "percentiles", "a window is given too", "keep one of the two"


def _orientation(spec: "InputSpec") -> Iterator[_Fault]:
    text = spec.orientation
    if text is None:
        return
    axes = {c: k for k, pair in enumerate(("LR", "AP", "HFSI")) for c in pair}
    if spec.rank != 3 or sorted(axes.get(c, 9) for c in text.upper()) != [0, 1, 2]:
        problem = f"expected three letters, one of each of L/R, A/P and S/I, for a 3-D input, got {text!r}"
        yield "orientation", problem, "write for example RAS"


def _output(card: "ModelCard") -> Iterator[_Fault]:
    out, task = card.output, card.model.task
    labels = out.labels
    if not labels:
        yield "output.labels", "expected at least one label, got none", _MENDS["labels"]
    if len(set(labels)) < len(labels):
        yield "output.labels", f"expected different labels, got {list(labels)}", "give each class its own name"
    if out.activation == "softmax" and len(labels) < 2:
        problem = f"softmax needs two classes or more, got {len(labels)}"
        yield "output.activation", problem, "write sigmoid for a single logit"
    if out.activation != "none" and out.unit == "probability":
        problem = f"{out.activation} turns logits into scores, but output.unit says probability"
        yield "output.activation", problem, "write activation = 'none', or unit = 'logit'"
    if task == "regression" and out.activation != "none":
        yield "output.activation", f"a regression has none, got {out.activation}", "write activation = 'none'"
    for label in out.operating_point:
        if label not in labels:
            yield (
                f"output.operating_point.{label}",
                f"no such label among {list(labels)}",
                "use a name of output.labels",
            )


def _windows(card: "ModelCard") -> Iterator[_Fault]:
    windows = card.inference
    if windows is None:
        return
    if card.model.task != "segmentation":
        problem = f"sliding windows blend outputs voxel by voxel, and this is a {card.model.task}"
        yield "inference", problem, "remove the table [inference]"
    ranks = sorted({s.rank for s in card.inputs if s.rank})
    if ranks != [len(windows.size)]:
        problem = f"expected one length for each axis of the inputs (rank {ranks}), got {list(windows.size)}"
        yield "inference.size", problem, "write the window the network was trained on"


def _limits(card: "ModelCard") -> Iterator[_Fault]:
    limits = card.applies_to
    for key in ("age", "slice_mm"):
        span = getattr(limits, key)
        if span is not None and not span[0] <= span[1]:
            yield f"applies_to.{key}", f"expected [low, high] with low <= high, got {list(span)}", "swap them"
    for key in ("max_extent_mm", "min_extent_mm", "min_size"):
        value = getattr(limits, key)
        if value is not None and value <= 0:
            yield f"applies_to.{key}", f"expected a number above 0, got {value}", "correct or remove it"
    for rank in limits.rank:
        if rank not in (2, 3):
            yield "applies_to.rank", f"expected 2 or 3, got {rank}", "correct or remove it"


def _proof(card: "ModelCard") -> Iterator[_Fault]:
    for i, golden in enumerate(card.golden):
        for key, problem, mend in _golden(golden, card):
            yield f"golden[{i}].{key}", problem, mend
    for i, row in enumerate(card.performance):
        key = f"performance[{i}]"
        if not row.low <= row.value <= row.high:
            problem = f"expected low <= value <= high, got {row.low}, {row.value}, {row.high}"
            yield f"{key}.value", problem, "correct the figure or its interval"
        if row.n < 1:
            yield f"{key}.n", f"expected 1 case or more, got {row.n}", "write how many cases were measured"


def _golden(golden: "Golden", card: "ModelCard") -> Iterator[_Fault]:
    files, digests = golden.files(card), golden.digests(card)
    images = {s.name for s in card.inputs if s.rank}
    vectors = {s.name for s in card.inputs if not s.rank}
    if set(files) != images:
        yield "file", f"expected one image for each of {sorted(images)}, got {sorted(files)}", "name them by input"
    if set(digests) != set(files):
        yield "sha256", f"expected one for each of {sorted(files)}, got {sorted(digests)}", "give one for each file"
    if set(golden.values) != vectors:
        problem = f"expected values for the vector inputs {sorted(vectors)}, got {sorted(golden.values)}"
        yield "values", problem, "name them by input"
    for name in files.values():
        yield from _beside("file", name)
    for text in digests.values():
        yield from _digest("sha256", text)
    if not golden.expected:
        yield "expected", "expected the head's values, got none", "write what the model gives on this input"
    if golden.tolerance <= 0:
        yield "tolerance", f"expected a number above 0, got {golden.tolerance}", "write for example 0.001"
    for point in golden.at:
        if not 0 <= point.channel < len(golden.expected) or min(point.index, default=0) < 0:
            problem = f"no channel {point.channel} or index {list(point.index)} in the output"
            yield "at", problem, "channels and voxels count from 0"
