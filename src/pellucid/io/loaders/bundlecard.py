"""A model card from a MONAI bundle's ``metadata.json`` and the preprocessing that its ``inference`` names."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from math import gcd
from typing import Any, Literal

from pellucid.core.card import Task
from pellucid.core.errors import BadCard
from pellucid.core.image import Modality
from pellucid.core.prepare import InputSpec
from pellucid.io.cardschema import NOT_STATED, AppliesTo, Facts, ModelCard, ModelEntry, OutputEntry
from pellucid.io.loaders.bundleconfig import plain
from pellucid.io.loaders.bundlewindows import bundle_windows

_MODALITIES = {
    "ct": Modality.CT,
    "mr": Modality.MRI,
    "mri": Modality.MRI,
    "pet": Modality.PET,
    "pt": Modality.PET,
    "us": Modality.ULTRASOUND,
    "ultrasound": Modality.ULTRASOUND,
    "xray": Modality.XRAY,
    "x-ray": Modality.XRAY,
    "cxr": Modality.XRAY,
    "endoscopy": Modality.ENDOSCOPY,
    "oct": Modality.OCT,
    "histopathology": Modality.HISTOLOGY,
    "pathology": Modality.HISTOLOGY,
    "he": Modality.HISTOLOGY,
}
_NEUTRAL = re.compile(r"^(LoadImage|EnsureChannelFirst|EnsureType|ToTensor|CastToType|AddChannel|Identity)d?$")
_Config = Mapping[str, Any]


@dataclass
class _Steps:
    """The input as it takes shape while the bundle's transforms are read."""

    spec: InputSpec
    notes: list[str] = field(default_factory=list)

    def set(self, **changes: Any) -> None:
        self.spec = replace(self.spec, **changes)


def bundle_card(metadata: _Config, inference: _Config, weights: str, sha256: str) -> tuple[ModelCard, tuple[str, ...]]:
    """The card that the bundle's own files amount to, and doubts about what they leave open.

    Args:
        metadata: of the bundle.
        inference: its configuration, as plain data.
        weights: path of the weights in the bundle.
        sha256: of the weights.

    Raises:
        BadCard: ``network_data_format`` does not say the inputs and outputs.
    """
    layout = metadata.get("network_data_format")
    if not isinstance(layout, Mapping) or not layout.get("inputs") or not layout.get("outputs"):
        raise BadCard("metadata.json: network_data_format names no inputs and outputs", "add them, or a model.toml")
    notes: list[str] = []
    windows = bundle_windows(inference, notes)
    inputs = []
    for name, said in layout["inputs"].items():
        steps = _Steps(_declared(name, said))
        _read_transforms(steps, inference)
        _fit_shape(steps, said, windows is not None)
        inputs.append(steps.spec)
        notes += steps.notes
    output_name, said = next(iter(layout["outputs"].items()))
    output, task = _output(output_name, said, inference, notes)
    entry = ModelEntry(
        name=str(metadata.get("name", NOT_STATED)),
        version=str(metadata.get("version", NOT_STATED)),
        task=task,
        modality=tuple(dict.fromkeys(_modality(s) for s in layout["inputs"].values())),
        weights=weights,
        sha256=sha256,
        license=str(metadata.get("copyright", NOT_STATED)),
        source=str(metadata.get("authors", NOT_STATED)),
    )
    card = ModelCard(entry, tuple(inputs), output, windows, AppliesTo(), (), _facts(metadata), ())
    return card, tuple(dict.fromkeys(notes))


def _facts(metadata: _Config) -> Facts:
    return Facts(
        intended_use=str(metadata.get("intended_use") or metadata.get("description") or NOT_STATED),
        training_data=str(metadata.get("data_source") or metadata.get("data_type") or NOT_STATED),
        owner=str(metadata.get("authors") or NOT_STATED),
        last_change=str(next(iter(dict(metadata.get("changelog") or {}).values()), NOT_STATED)),
    )


def _modality(said: _Config) -> Modality:
    return _MODALITIES.get(str(said.get("modality", "")).strip().lower(), Modality.UNKNOWN)


def _declared(name: str, said: _Config) -> InputSpec:
    shape = said.get("spatial_shape") or []
    channels = said.get("num_channels")
    if not isinstance(channels, int) or len(shape) not in (2, 3):
        raise BadCard(
            f"metadata.json: input {name!r} needs num_channels and a spatial_shape of 2 or 3 axes, "
            f"got {channels} and {shape}",
            "add them, or a model.toml",
        )
    colored = channels == 3 and str(said.get("format", "")).lower() in ("rgb", "natural")
    return InputSpec(name, len(shape), channels, "rgb" if colored else "gray")


def _fit_shape(steps: _Steps, said: _Config, in_windows: bool) -> None:
    """Sizes that the network takes: fixed ones, or multiples as in ``16*n``; windows are cut from any size."""
    if in_windows:
        return
    shape = said["spatial_shape"]
    numbers = [n for n in shape if isinstance(n, int)]
    if len(numbers) == len(shape) and not said.get("is_patch_data"):
        if steps.spec.size is None:
            steps.set(size=tuple(numbers), fit="crop" if steps.spec.spacing else "stretch")
        return
    if len(numbers) == len(shape):
        common = gcd(*numbers)
        steps.set(multiple=min(common & -common, 32))
        sizes = "x".join(map(str, numbers))
        steps.notes.append(f"the bundle slides a window of {sizes} over the image; here the image goes in whole")
        return
    factors = [int(m[1]) for n in shape if (m := re.match(r"^\s*(\d+)\s*\*", str(n)))]
    if factors:
        steps.set(multiple=max(factors))


def _read_transforms(steps: _Steps, inference: _Config) -> None:
    """Translate the bundle's preprocessing; what has no counterpart is said, for it changes what the network sees."""
    listed = (inference.get("preprocessing") or {}).get("transforms")
    if not isinstance(listed, list):
        steps.notes.append("the bundle does not say how images are prepared")
        return
    for step in listed:
        name = str(step.get("_target_", "?")).rpartition(".")[2] if isinstance(step, Mapping) else "?"
        values = {k: plain(inference, v) for k, v in step.items()} if isinstance(step, Mapping) else {}
        reader = _READERS.get(name.removesuffix("d"))
        if reader is not None:
            reader(steps, values)
        elif not _NEUTRAL.match(name):
            steps.notes.append(f"the bundle's step {name} is not repeated")
        if name.removesuffix("d") == "LoadImage":
            _tell_axes(steps, values)
    if steps.spec.rank == 3 and steps.spec.orientation is None:
        steps.notes.append("the bundle turns images to no one orientation: axes go in as they are stored")


def _tell_axes(steps: _Steps, values: _Config) -> None:
    """MONAI's readers of pictures, Pillow's and ITK's, hand on columns before rows unless they are told not to."""
    reader = values.get("reader")
    told = reader if isinstance(reader, Mapping) else {**values, "_target_": reader}
    kind = str(told.get("_target_") or "")
    pillow = "ITK" not in kind  # what MONAI takes for pictures where none is named
    swapped = bool(told.get("reverse_indexing", pillow)) is pillow
    if steps.spec.rank == 2 and swapped and "Numpy" not in kind:
        steps.notes.append(
            "MONAI's reader puts columns before rows, here rows come first: the network sees pictures mirrored at "
            "their diagonal, which changes its answers unless it was trained not to mind"
        )


def _orientation(steps: _Steps, values: _Config) -> None:
    codes = values.get("axcodes")
    steps.set(orientation=codes) if isinstance(codes, str) else steps.notes.append("orientation is computed: left out")


def _spacing(steps: _Steps, values: _Config) -> None:
    pixdim = values.get("pixdim")
    if isinstance(pixdim, list) and len(pixdim) == steps.spec.rank and all(isinstance(v, int | float) for v in pixdim):
        steps.set(spacing=tuple(float(v) for v in pixdim))
    else:
        steps.notes.append(f"the spacing {pixdim} is not plain: left out")


def _range(steps: _Steps, values: _Config) -> None:
    low, high = values.get("a_min"), values.get("a_max")
    bottom, top = values.get("b_min", 0.0), values.get("b_max", 1.0)
    if not all(isinstance(v, int | float) for v in (low, high, bottom, top)):
        steps.notes.append("the intensity range is computed: left out")
        return
    if not values.get("clip"):
        steps.notes.append(f"intensities beyond {low} to {high} are clipped; the bundle does not")
    steps.set(window=(float(low), float(high)), scale="unit")
    _onto(steps, float(bottom), float(top))


def _onto(steps: _Steps, bottom: float, top: float) -> None:
    """From [0, 1] onto [bottom, top]: (u - mean) / std; what was said of a scale before has no effect any more."""
    if (bottom, top) == (0.0, 1.0):
        steps.set(mean=None, std=None)
    else:
        std = 1 / (top - bottom)
        channels = steps.spec.channels
        steps.set(mean=(-bottom * std,) * channels, std=(std,) * channels)


def _unit(steps: _Steps, values: _Config) -> None:
    steps.set(scale="unit")
    _onto(steps, float(values.get("minv") or 0.0), float(1.0 if values.get("maxv") is None else values["maxv"]))
    if values.get("channel_wise") and steps.spec.channels > 1:
        steps.notes.append("the bundle scales each channel alone; here they are scaled together")


def _normal(steps: _Steps, values: _Config) -> None:
    given = values.get("subtrahend"), values.get("divisor")
    if all(v is not None for v in given):
        mean, std = (tuple(map(float, v if isinstance(v, list) else [v] * steps.spec.channels)) for v in given)
        before = zip(steps.spec.mean or (0.0,) * len(mean), steps.spec.std or (1.0,) * len(std), strict=True)
        both = [(m + s * shift, s * scale) for (m, s), shift, scale in zip(before, mean, std, strict=True)]
        steps.set(mean=tuple(m for m, _ in both), std=tuple(s for _, s in both))
        return
    steps.set(scale="zscore", mean=None, std=None)
    if values.get("nonzero"):
        steps.notes.append("the bundle normalizes by the voxels that are not 0; here by all")
    if values.get("channel_wise") and steps.spec.channels > 1:
        steps.notes.append("the bundle normalizes each channel alone; here together")


def _percentiles(steps: _Steps, values: _Config) -> None:
    steps.set(percentiles=(float(values.get("lower", 0)), float(values.get("upper", 100))), scale="unit")
    _onto(steps, float(values.get("b_min") or 0.0), float(1.0 if values.get("b_max") is None else values["b_max"]))


def _resize(steps: _Steps, values: _Config) -> None:
    size = values.get("spatial_size")
    if isinstance(size, list) and len(size) == steps.spec.rank and all(isinstance(n, int) and n > 0 for n in size):
        steps.set(size=tuple(size), fit="stretch")
    else:
        steps.notes.append(f"the size {size} is not plain: left out")


_READERS: dict[str, Callable[[_Steps, _Config], None]] = {
    "Orientation": _orientation,
    "Spacing": _spacing,
    "ScaleIntensityRange": _range,
    "ScaleIntensity": _unit,
    "NormalizeIntensity": _normal,
    "ScaleIntensityRangePercentiles": _percentiles,
    "Resize": _resize,
}


def _output(name: str, said: _Config, inference: _Config, notes: list[str]) -> tuple[OutputEntry, Task]:
    channels = said.get("num_channels")
    if not isinstance(channels, int):
        raise BadCard(f"metadata.json: output {name!r} has no num_channels", "add it, or a model.toml")
    kind = f"{said.get('type', '')} {said.get('format', '')}".lower()
    task: Task = "segmentation" if "segment" in kind or "image" in kind else "classification"
    named = dict(said.get("channel_def") or {})
    labels = tuple(str(named[k]) for k in sorted(named, key=lambda k: int(k) if str(k).isdigit() else 0))
    if channels == 1 and len(labels) == 1:
        labels = (f"not {labels[0]}", labels[0])
    if len(labels) not in (channels, channels + (channels == 1)):
        notes.append(f"metadata.json names {len(labels)} of {channels} output channels; they are numbered here")
        labels = tuple(f"class {i}" for i in range(max(2, channels)))
    return OutputEntry(labels, _activation(channels, inference, notes)), task


def _activation(channels: int, inference: _Config, notes: list[str]) -> Literal["softmax", "sigmoid"]:
    listed = (inference.get("postprocessing") or {}).get("transforms")
    for step in listed if isinstance(listed, list) else []:
        if isinstance(step, Mapping) and str(step.get("_target_", "")).rpartition(".")[2].startswith("Activations"):
            if step.get("sigmoid"):
                return "sigmoid"
            if step.get("softmax"):
                return "softmax"
    guess: Literal["softmax", "sigmoid"] = "softmax" if channels > 1 else "sigmoid"
    notes.append(f"the bundle does not state its output activation; {guess} is assumed")
    return guess
