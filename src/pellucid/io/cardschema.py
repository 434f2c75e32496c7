"""The tables of ``model.toml`` as frozen data; ``docs/model_card.md`` explains every key."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from pydantic import ConfigDict

from pellucid.core.card import Task
from pellucid.core.image import Modality
from pellucid.core.model import OutputSpec
from pellucid.core.prepare import InputSpec
from pellucid.core.windows import SlidingWindows

NOT_STATED = "not stated"
Span = tuple[float, float]


@dataclass(frozen=True)
class ModelEntry:
    """``[model]``: identity, and how the network is built.

    Args:
        name: of the model.
        version: as its makers count.
        task: ``classification``, ``segmentation`` or ``regression``.
        modality: kinds of images it was trained on.
        weights: file beside the card (or the folder of a MONAI bundle).
        sha256: of the weights.
        license: of the weights, SPDX where possible.
        factory: ``package.module:function`` that builds the network, where the weights do not.
        options: keyword arguments of the factory.
        weights_key: entry of the weights file that holds the tensors, where they are not at its top.
        source: where the model comes from: a paper, a repository and its commit.
        layer: default for methods that read a layer.
        call: inputs are passed ``positional``, by ``keyword`` or as one ``dict``.
    """

    name: str
    version: str
    task: Task
    modality: tuple[Modality, ...]
    weights: str
    sha256: str
    license: str
    factory: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    weights_key: str | None = None
    source: str = NOT_STATED
    layer: str | None = None
    call: Literal["positional", "keyword", "dict"] = "positional"


@dataclass(frozen=True)
class OutputEntry:
    """``[output]``: see ``core.model.OutputSpec``; the task stands in ``[model]``.

    Args:
        labels: of the classes in order; two for a single logit (negative first).
        activation: ``softmax``, ``sigmoid`` or ``none``.
        unit: of the head.
        head: what to take from a tuple, list or dict output.
        operating_point: by label, the head value from which the model says yes.
        operating_point_source: on which cases it was chosen.
    """

    labels: tuple[str, ...]
    activation: Literal["softmax", "sigmoid", "none"]
    unit: str = "logit"
    head: str | int | None = None
    operating_point: Mapping[str, float] = field(default_factory=dict)
    operating_point_source: str = NOT_STATED


@dataclass(frozen=True)
class AppliesTo:
    """``[applies_to]``: images the model may be used on; a list of allowed values, or a range [low, high].

    What is empty is not checked.

    Args:
        modality: where it differs from ``[model]``.
        rank: spatial axes of the image.
        body_part: as DICOM writes it.
        view: such as ``PA``.
        laterality: ``L`` or ``R``.
        contrast: phase, such as ``portal venous``; ``yes`` is all that most DICOM headers say.
        kernel: reconstruction kernel.
        sequence: of the MR, as DICOM's ScanningSequence writes it (``SE``, ``GR``).
        photometric: such as ``MONOCHROME2``.
        age: years, range.
        slice_mm: distance of slices, range.
        max_extent_mm: longest side of the field of view, at most.
        min_extent_mm: longest side of the field of view, at least.
        min_size: voxels of the shortest side, at least (of a volume: of each side).
    """

    modality: tuple[Modality, ...] = ()
    rank: tuple[int, ...] = ()
    body_part: tuple[str, ...] = ()
    view: tuple[str, ...] = ()
    laterality: tuple[str, ...] = ()
    contrast: tuple[str, ...] = ()
    kernel: tuple[str, ...] = ()
    sequence: tuple[str, ...] = ()
    photometric: tuple[str, ...] = ()
    age: Span | None = None
    slice_mm: Span | None = None
    max_extent_mm: float | None = None
    min_extent_mm: float | None = None
    min_size: int | None = None


@dataclass(frozen=True)
class GoldenPoint:
    """One head value inside an output with spatial extent.

    Args:
        channel: of the head.
        index: voxel of the network's output.
        value: expected, in the head's unit.
    """

    channel: int
    index: tuple[int, ...]
    value: float


@dataclass(frozen=True)
class Golden:
    """``[[golden]]``: an image beside the card and the head values that the model must give for it.

    Args:
        file: image, or a table with one image per input name.
        sha256: of the file, or a table likewise.
        expected: head value per channel; of an output with spatial extent its mean.
        tolerance: largest difference allowed, in the head's unit.
        at: single head values, for an output with spatial extent.
        values: of inputs that are plain vectors, by input name.
        modality: of the image, where the file does not say.
        index: which frame or page, where the file has several.
    """

    file: str | Mapping[str, str]
    sha256: str | Mapping[str, str]
    expected: tuple[float, ...]
    tolerance: float = 1e-3
    at: tuple[GoldenPoint, ...] = ()
    values: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    modality: Modality | None = None
    index: int | None = None

    def files(self, card: "ModelCard") -> Mapping[str, str]:
        """The image of each input."""
        return _by_input(self.file, card)

    def digests(self, card: "ModelCard") -> Mapping[str, str]:
        """The SHA-256 of each input's image."""
        return _by_input(self.sha256, card)


@dataclass(frozen=True)
class Facts:
    """``[facts]``: what a reader must know before believing the model.

    Args:
        intended_use: what it is for.
        out_of_scope: what it is not for.
        training_data: which, from where, how many.
        gaps: who and what is missing in the training data.
        owner: who answers for it.
        clearance: regulatory status with its identifier, or ``none: research``.
        last_change: what changed, and when.
    """

    intended_use: str = NOT_STATED
    out_of_scope: str = NOT_STATED
    training_data: str = NOT_STATED
    gaps: str = NOT_STATED
    owner: str = NOT_STATED
    clearance: str = "none: research"
    last_change: str = NOT_STATED


@dataclass(frozen=True)
class Performance:
    """``[[performance]]``: one measured figure with its 95% interval.

    Args:
        metric: such as ``AUC`` or ``Dice``.
        value: measured.
        low: of the interval.
        high: of the interval.
        n: cases.
        data: which, in words; held out from training.
        note: how the interval was made, and what limits it.
    """

    metric: str
    value: float
    low: float
    high: float
    n: int
    data: str
    note: str = ""


@dataclass(frozen=True)
class ModelCard:
    """Everything that ``model.toml`` says; ``docs/model_card.md`` explains every key.

    Args:
        model: identity and construction.
        inputs: in the order of the network's arguments.
        output: what comes out.
        inference: sliding windows, where an image does not go in whole.
        applies_to: images it may be used on.
        golden: inputs with known outputs.
        facts: use, data, owner.
        performance: measured.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid", strict=True)

    model: ModelEntry
    inputs: tuple[InputSpec, ...]
    output: OutputEntry
    inference: SlidingWindows | None = None
    applies_to: AppliesTo = field(default_factory=AppliesTo)
    golden: tuple[Golden, ...] = ()
    facts: Facts = field(default_factory=Facts)
    performance: tuple[Performance, ...] = ()

    @property
    def modality(self) -> tuple[Modality, ...]:
        """Kinds of images it may be used on."""
        return self.applies_to.modality or self.model.modality

    @property
    def output_spec(self) -> OutputSpec:
        """The output as the core knows it."""
        out = self.output
        return OutputSpec(self.model.task, out.labels, out.activation, out.unit, out.head, out.operating_point)


def _by_input(value: str | Mapping[str, str], card: ModelCard) -> Mapping[str, str]:
    first = next((s.name for s in card.inputs if s.rank), "")
    return {first: value} if isinstance(value, str) else value


TABLES: dict[tuple[str, ...], type] = {
    (): ModelCard,
    ("model",): ModelEntry,
    ("inputs",): InputSpec,
    ("output",): OutputEntry,
    ("inference",): SlidingWindows,
    ("applies_to",): AppliesTo,
    ("golden",): Golden,
    ("golden", "at"): GoldenPoint,
    ("facts",): Facts,
    ("performance",): Performance,
}
