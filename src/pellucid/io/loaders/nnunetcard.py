"""A model card from the plans of a trained nnU-Net v2, and what of its pipeline is not repeated."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

from pellucid.core.errors import BadCard
from pellucid.core.image import Modality
from pellucid.core.prepare import InputSpec
from pellucid.core.windows import SlidingWindows
from pellucid.io.cardschema import NOT_STATED, Facts, ModelCard, ModelEntry, OutputEntry

_AXES = "SPL"  # slices to the head, rows to the back, columns to the left: DICOM's axial order, as SimpleITK reads it
_TURNED = (
    "NibabelIOWithReorient"  # this reader of nnU-Net turns every image to RAS, and hands its axes on from the last
)
_TURNED_AXES = "SAR"
_MODALITIES = (
    (re.compile(r"\bct\b", re.IGNORECASE), Modality.CT),
    (re.compile(r"\bpe?t\b|\bsuv\b", re.IGNORECASE), Modality.PET),
    (re.compile(r"mr|\bt[12]|flair|\badc\b|\bdwi\b", re.IGNORECASE), Modality.MRI),
)
_Table = Mapping[str, Any]


def nnunet_card(
    plans: _Table, dataset: _Table, configuration: _Table, names: tuple[str, str, str]
) -> tuple[ModelCard, tuple[str, ...]]:
    """The card that the plans amount to, and doubts about what they leave open.

    Args:
        plans: of the training.
        dataset: its description (channels and labels).
        configuration: of the plans, with what it inherits.
        names: trainer, plans and configuration.

    Raises:
        BadCard: a key is missing, or a normalization that is not known.
    """
    try:
        return _card(plans, dataset, configuration, names)
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise BadCard(
            f"the plans of {names[2]} do not say enough ({type(error).__name__}: {str(error)[:80]})",
            "use the plans.json and dataset.json of nnU-Net v2 that were written with the checkpoint",
        ) from error


def _card(
    plans: _Table, dataset: _Table, configuration: _Table, names: tuple[str, str, str]
) -> tuple[ModelCard, tuple[str, ...]]:
    channels = [str(name) for _, name in sorted(dataset["channel_names"].items(), key=lambda item: int(item[0]))]
    notes: list[str] = []
    orientation = _orientation(plans, len(configuration["patch_size"]), notes)
    inputs = [_input(n, channels, plans, configuration, orientation) for n in range(len(channels))]
    if [name.lower()[:1] for name in channels] == ["r", "g", "b"] and inputs[0].rank == 2:
        inputs = [replace(inputs[0], name="image", channels=3, order="rgb", spacing=None)]
        notes.append("a color picture: its channels are normalized together, and it is not resampled")
    _tell_steps(configuration, notes)
    size = tuple(int(n) for n in configuration["patch_size"])
    windows = SlidingWindows(size, overlap=0.5, blend="gaussian", sigma_scale=1 / 8, spread="even")
    entry = ModelEntry(
        name=str(plans["dataset_name"]),
        version="__".join(names),
        task="segmentation",
        modality=tuple(dict.fromkeys(_modality(name) for name in channels)),
        weights=NOT_STATED,
        sha256="",
        license=str(dataset.get("licence") or dataset.get("license") or NOT_STATED),
        source=str(dataset.get("reference") or NOT_STATED),
    )
    facts = Facts(training_data=f"{plans['dataset_name']}, {dataset.get('numTraining', 'unknown number of')} cases")
    return ModelCard(entry, tuple(inputs), _output(dataset), windows, facts=facts), tuple(notes)


def _modality(channel: str) -> Modality:
    return next((modality for pattern, modality in _MODALITIES if pattern.search(channel)), Modality.UNKNOWN)


def _orientation(plans: _Table, rank: int, notes: list[str]) -> str | None:
    """The letters of the network's axes: those in which images are usually read, put in the order of the plans."""
    if rank == 2:
        notes.append("a 2d configuration: it takes one slice at a time, as it is stored")
        return None
    order = [int(n) for n in plans["transpose_forward"]]
    if sorted(order) != [0, 1, 2]:
        raise ValueError("transpose_forward")
    if plans.get("image_reader_writer") == _TURNED:
        return "".join(_TURNED_AXES[n] for n in order)
    notes.append(
        "nnU-Net does not say how its training images lay; slices to the head, rows to the back and columns to the "
        "left are taken: left and right may be mixed up where it was trained otherwise"
    )
    return "".join(_AXES[n] for n in order)


def _input(
    number: int, channels: Sequence[str], plans: _Table, configuration: _Table, orientation: str | None
) -> InputSpec:
    told = _normalized(number, plans, configuration)
    spacing = tuple(float(v) for v in configuration["spacing"])
    name = re.sub(r"\W+", "_", channels[number]).strip("_") or f"channel{number}"
    return InputSpec(
        name if len(channels) > 1 else "image",
        rank=len(configuration["patch_size"]),
        orientation=orientation,
        spacing=spacing,
        **told,
    )


def _normalized(number: int, plans: _Table, configuration: _Table) -> dict[str, Any]:
    """Intensities as nnU-Net's scheme of this channel has them."""
    scheme = str(configuration["normalization_schemes"][number])
    if scheme == "ZScoreNormalization":
        return {"scale": "zscore"}
    if scheme == "CTNormalization":
        seen = plans["foreground_intensity_properties_per_channel"][str(number)]
        low, high = float(seen["percentile_00_5"]), float(seen["percentile_99_5"])
        mean, std = float(seen["mean"]), max(float(seen["std"]), 1e-8)
        # clipped, then standardized: written with the window's ends as 0 and 1
        return {
            "window": (low, high),
            "scale": "unit",
            "mean": ((mean - low) / (high - low),),
            "std": (std / (high - low),),
        }
    if scheme == "RescaleTo01Normalization":
        return {"scale": "unit"}
    if scheme in ("NoNormalization", "RGBTo01Normalization"):
        return {}  # pictures are read as [0, 1]
    raise BadCard(f"the normalization {scheme[:60]!r} is not known", "write a model.toml beside a TorchScript export")


def _tell_steps(configuration: _Table, notes: list[str]) -> None:
    """What nnU-Net does and is not repeated, for it changes what the network sees."""
    notes.append("resampled linearly; nnU-Net takes cubic splines, and the nearest slice across thick ones")
    if "ZScoreNormalization" in configuration["normalization_schemes"]:
        masked = any(configuration.get("use_mask_for_norm") or ())
        of = "inside the body's mask" if masked else "after cutting empty borders"
        notes.append(f"normalized by all voxels of the image as read; nnU-Net by those {of}")
    notes.append("predicted once; nnU-Net also averages mirrored copies unless told not to")


def _output(dataset: _Table) -> OutputEntry:
    """Classes with the background and a softmax; regions that overlap without it and with a sigmoid."""
    labels = {str(k): v for k, v in dataset["labels"].items() if k != "ignore"}
    overlapping = any(isinstance(v, list) and len(v) > 1 for v in labels.values())
    activation: Literal["softmax", "sigmoid"] = "sigmoid" if overlapping else "softmax"
    if overlapping:
        names = tuple(k for k, v in labels.items() if v not in (0, [0]))
        names = (f"not {names[0]}", names[0]) if len(names) == 1 else names
    else:
        single = {k: int(v[0] if isinstance(v, list) else v) for k, v in labels.items()}
        names = tuple(sorted(single, key=lambda k: single[k]))
    return OutputEntry(names, activation)
