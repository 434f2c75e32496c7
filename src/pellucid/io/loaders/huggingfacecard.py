"""A model card from the configuration, the image processor and the README of a Hugging Face folder."""

from collections.abc import Mapping
from typing import Any, Literal

from pellucid.core.card import Task
from pellucid.core.errors import BadCard, BadOption
from pellucid.core.image import Modality
from pellucid.core.prepare import InputSpec
from pellucid.io.cardschema import NOT_STATED, Facts, ModelCard, ModelEntry, OutputEntry

_BYTES = 255.0  # a processor takes 8-bit pictures; here they are read as [0, 1]
_WAYS = {0: "the nearest pixel", 1: "Lanczos", 3: "bicubic splines", 4: "boxes", 5: "Hamming"}  # Pillow's; 2 is linear
_Table = Mapping[str, Any]


def huggingface_card(
    config: _Table, processor: _Table | None, front: _Table, task: str, folder: str
) -> tuple[ModelCard, tuple[str, ...]]:
    """The card that the folder's own files amount to, and doubts about what they leave open.

    Args:
        config: of the network.
        processor: of its images; None: the folder has none.
        front: head of the README.
        task: ``classification`` or ``segmentation``, as the architecture has it.
        folder: its name, where the README gives none.

    Raises:
        BadCard: sizes or numbers that are none.
    """
    notes = ["what kind of images it was trained on is not said in a form that can be checked"]
    try:
        spec = _input(config, processor, notes)
    except (TypeError, ValueError, KeyError, BadOption) as error:
        raise BadCard(
            f"preprocessor_config.json does not say how images are prepared ({type(error).__name__})",
            'write a model.toml into the folder, with weights = "."',
        ) from error
    output, kind = _output(config, task, notes)
    license_, base = front.get("license"), front.get("base_model")
    entry = ModelEntry(
        name=str(front.get("model_name") or folder),
        version=str(config.get("transformers_version") and f"transformers {config['transformers_version']}")
        or NOT_STATED,
        task=kind,
        modality=(Modality.UNKNOWN,),
        weights=NOT_STATED,
        sha256="",
        license=_words(license_),
        source=_words(base),
    )
    facts = Facts(training_data=_words(front.get("datasets")))
    return ModelCard(entry, (spec,), output, facts=facts), tuple(notes)


def _words(told: object) -> str:
    return ", ".join(map(str, told)) if isinstance(told, list) and told else str(told or NOT_STATED)


def _input(config: _Table, processor: _Table | None, notes: list[str]) -> InputSpec:
    channels = int(config.get("num_channels", 3))
    order: Literal["gray", "gray-repeated", "bgr"] = "gray" if channels == 1 else "gray-repeated"
    if processor is None:
        notes.append("the folder does not say how images are prepared: values are left as they are")
        side = config.get("image_size")
        sides = (int(side),) * 2 if isinstance(side, int) else tuple(map(int, side)) if isinstance(side, list) else None
        return InputSpec(channels=channels, order=order, size=sides)
    size, fit = _geometry(processor, notes)
    mean, std = _intensity(processor, channels)
    notes.append(
        "the image processor takes pictures of 8 bits, read here as [0, 1]; a gray one is copied to all channels"
    )
    if channels == 3 and processor.get("do_flip_channel_order"):  # MobileViT
        order = "bgr"
        notes.append("color goes in as blue, green, red; a gray picture is refused")
    return InputSpec(channels=channels, order=order, size=size, fit=fit, mean=mean, std=std)


def _geometry(processor: _Table, notes: list[str]) -> tuple[tuple[int, int] | None, Literal["stretch", "cover"]]:
    size = _sides(processor.get("size")) if processor.get("do_resize", True) else None
    cut = _sides(processor.get("crop_size")) if processor.get("do_center_crop") else None
    told = processor.get("size")
    way = _WAYS.get(processor.get("resample")) if size is not None else None
    if way:
        notes.append(f"resized by {way} when trained; here linearly")
    if cut is not None:
        if size != cut or "crop_pct" in processor:
            notes.append(f"resized to {size} and cut to {cut} when trained; here the picture's middle fills {cut}")
        return cut, "cover"
    if size is not None and isinstance(told, Mapping) and "shortest_edge" in told:
        notes.append(
            f"only the short side is brought to {size[0]} when trained; here the picture is also cut to a square"
        )
        return size, "cover"
    return size, "stretch"


def _sides(told: object) -> tuple[int, int] | None:
    if told is None:
        return None
    if isinstance(told, int):
        return told, told
    if isinstance(told, Mapping):
        edge = told.get("shortest_edge")
        return (int(edge), int(edge)) if edge is not None else (int(told["height"]), int(told["width"]))
    raise ValueError("size")


def _intensity(processor: _Table, channels: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation for pictures in [0, 1]: (factor x - offset - mean) / std of the processor, rewritten."""
    factor = _BYTES * (float(processor.get("rescale_factor", 1 / _BYTES)) if processor.get("do_rescale", True) else 1.0)
    offset = 1.0 if processor.get("offset") or processor.get("rescale_offset") else 0.0
    normalized = bool(processor.get("do_normalize", True)) and processor.get("image_mean") is not None
    mean = _each(processor["image_mean"], channels) if normalized else (0.0,) * channels
    std = _each(processor["image_std"], channels) if normalized else (1.0,) * channels
    again = _each(processor["image_std"], channels) if _twice(processor) else (1.0,) * channels
    return tuple((m + offset) / factor for m in mean), tuple(s * t / factor for s, t in zip(std, again, strict=True))


def _twice(processor: _Table) -> bool:
    """Whether a classifier's processor divides by its deviation once more: EfficientNet's does where it is not told."""
    named = str(processor.get("image_processor_type") or processor.get("feature_extractor_type") or "")
    told = processor.get("include_top", named.startswith("EfficientNet"))
    return bool(told) and processor.get("image_std") is not None


def _each(told: object, channels: int) -> tuple[float, ...]:
    if isinstance(told, int | float):
        return (float(told),) * channels
    values = tuple(float(v) for v in told) if isinstance(told, list) else ()
    return values[:1] if channels == 1 and values else values


def _output(config: _Table, task: str, notes: list[str]) -> tuple[OutputEntry, Task]:
    named = config.get("id2label")
    labels: tuple[str, ...] = ()
    if isinstance(named, Mapping) and all(str(k).isdecimal() for k in named):
        labels = tuple(str(named[k]) for k in sorted(named, key=int))
    if not labels:
        notes.append("the configuration does not name the classes")
        labels = tuple(f"class {n}" for n in range(int(config.get("num_labels", 2))))
    problem = config.get("problem_type")
    if problem == "regression" or (len(labels) == 1 and problem is None):
        return OutputEntry(labels, "none", unit="as trained"), "regression"
    if problem == "multi_label_classification" or len(labels) == 1:
        names = (f"not {labels[0]}", labels[0]) if len(labels) == 1 else labels
        return OutputEntry(names, "sigmoid"), "classification"
    return OutputEntry(labels, "softmax"), "segmentation" if task == "segmentation" else "classification"
