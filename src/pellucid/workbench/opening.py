"""A case made ready for a model: network inputs, the way back, and what may replace a hidden part."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import get_args

import torch
from torch import Tensor

from pellucid.core.case import Case
from pellucid.core.errors import BadOption, BadRegion, CannotDo, InputError, ShapeMismatch, UnknownName
from pellucid.core.grid import Grid
from pellucid.core.image import Image, Modality
from pellucid.core.infill import Infill
from pellucid.core.model import Model
from pellucid.core.prepare import Prepared, prepare
from pellucid.core.probe import Scene
from pellucid.core.target import BoundTarget, ClassScore, Label, Margin, Part, RegionScore, Scale, Target
from pellucid.guide.modality import modality_guide
from pellucid.workbench.readers import with_consensus


@dataclass(frozen=True, eq=False)
class Opened:
    """A case on a model's grid.

    Args:
        case: as read.
        model: that will see it.
        prepared: by input.
        scene: grids, regions on the network's grid, fills, seed.
    """

    case: Case
    model: Model
    prepared: Mapping[str, Prepared]
    scene: Scene

    @property
    def inputs(self) -> dict[str, Tensor]:
        """A batch of one."""
        return {name: p.tensor[None] for name, p in self.prepared.items()}

    @property
    def image(self) -> Image:
        """The primary image."""
        return self.images[self.model.primary]

    @property
    def images(self) -> Mapping[str, Image]:
        """The case's images under the model's input names."""
        return _matched(self.case, self.model)


def open_case(case: Case, model: Model, seed: int = 0, infills: tuple[Infill, ...] | None = None) -> Opened:
    """Prepare a case for a model; where several readers marked the finding, their consensus is the region.

    Args:
        case: with one image per input of the model (a single image serves a model with one input).
        model: to be explained.
        seed: of everything random.
        infills: what hidden voxels show; None: the defaults of the modality.

    Raises:
        InputError: an image that does not fit the model's input, a region that vanishes on its grid, or a reader with
            two masks.
        CannotDo: the model takes a vector beside images.
    """
    vectors = [s.name for s in model.inputs if not s.rank]
    if vectors:
        raise CannotDo(f"the model takes {vectors}, and a case holds only images", "open a Probe with all inputs")
    case = with_consensus(case)
    images = _matched(case, model)
    prepared = {spec.name: prepare(images[spec.name], spec) for spec in model.inputs}
    masks = _masks(case, prepared[model.primary].grid)
    readers = {r.reader: masks[name] for name, r in case.regions.items() if r.reader}
    fills = infills or modality_guide(images[model.primary].modality).infills
    if len(fills) == 1:
        fills = (fills[0], fills[0])
    scene = Scene(
        grids={name: p.grid for name, p in prepared.items()},
        regions={n: m for n, m in masks.items() if len(readers) < 2 or not case.regions[n].reader},
        infills=fills,
        affine={name: (p.shift, p.scale) for name, p in prepared.items()},
        seed=seed,
        readers=readers,
    )
    return Opened(case, model, prepared, scene)


def _masks(case: Case, grid: Grid) -> dict[str, Tensor]:
    """The regions as the network sees them."""
    found = {name: region.on(grid) for name, region in case.regions.items()}
    for name, mask in found.items():
        if not bool(mask.any()):
            raise BadRegion(
                f"region {name!r} of case {case.name} has no voxel where the network looks",
                "check that mask and image show the same field",
            )
    return found


def assume_modality(case: Case, modality: Modality) -> tuple[Case, tuple[str, ...]]:
    """Give images of unknown modality the model's, and say so."""
    unknown = [name for name, image in case.images.items() if image.modality is Modality.UNKNOWN]
    if not unknown or modality is Modality.UNKNOWN:
        return case, ()
    images = {n: replace(i, modality=modality) if n in unknown else i for n, i in case.images.items()}
    return replace(case, images=images), (f"modality not stated in the file; taken from the model card: {modality}",)


def parse_target(text: str | None, model: Model) -> Target | None:
    """Read what is explained, as the command takes it.

    ``LABEL`` (a class; of a segmentation: where it is predicted), ``LABEL>OTHER`` (lead of one class),
    ``LABEL@REGION`` (a segmentation's score in a region of the case), ``LABEL@REGION/PART`` with PART ``border``,
    ``missed``, ``component`` (the largest) or ``component2`` (REGION may be empty: where it is predicted). ``score:``
    before it all: on the scale of model scores instead of logits. None: for a classifier the predicted class (for a
    single logit its positive class); for a segmentation None again, it depends on the output: see ``default_target``.

    Raises:
        InputError: a region of a classifier, or a margin on model scores.
        BadOption: no such part.
    """
    if text is None:
        return ClassScore() if model.output.task != "segmentation" else None
    scored, whole = text.startswith("score:"), text.removeprefix("score:")
    scale: Scale = "score" if scored else "head"
    first, over, other = whole.partition(">")
    if over:
        if scored:
            raise InputError(f"{text!r} asks for a lead in model scores", "a lead is read off the head: drop score:")
        return Margin(first.strip(), other.strip())
    label, _, where = whole.partition("@")
    if model.output.task == "segmentation":
        region, _, part = where.partition("/")
        kind, number = _parse_part(part.strip())
        return RegionScore(label.strip(), region.strip() or None, kind, number, scale)
    if where:
        raise InputError(f"{text!r} asks for a region score of a classifier", "leave out the part after @")
    return ClassScore(label.strip(), scale)


def spell_target(target: Target, bound: BoundTarget, model: Model) -> str:
    """A target as ``parse_target`` reads it, with the class that was explained where nobody had named one.

    Args:
        target: that was explained.
        bound: the same at the unperturbed input.
        model: of both.

    Raises:
        BadOption: a target that the command has no words for.
    """
    labels, text = model.output.labels, ""
    scored = "score:" if isinstance(target, ClassScore | RegionScore) and target.scale == "score" else ""
    if isinstance(target, ClassScore):
        target = replace(target, label=_word(bound.label if target.label is None else target.label, labels))
        text = f"{scored}{target.label}"
    elif isinstance(target, Margin):
        target = Margin(_word(target.label, labels), _word(target.other, labels))
        text = f"{target.label}>{target.other}"
    elif isinstance(target, RegionScore):
        target = replace(target, label=_word(target.label, labels))
        part = {"all": "", "component": f"/component{target.component}"}.get(target.part, f"/{target.part}")
        text = f"{scored}{target.label}" + (f"@{target.region or ''}{part}" if target.region or part else "")
    if not text or parse_target(text, model) != target:
        raise BadOption("the target cannot be written as text", "explain a target that the command can name")
    return text


def _word(label: Label | None, labels: Sequence[str]) -> str:
    """A class by its name: numbers are names too where grades are called 1, 2, 3."""
    if not isinstance(label, int) or label >= len(labels) or any(c in labels[label] for c in ">@"):
        return str(label)
    return labels[label]


def _parse_part(text: str) -> tuple[Part, int]:
    """``border``, ``missed``, ``component`` or ``component2``; nothing: all of the region."""
    name = text.rstrip("0123456789")
    number = int(text[len(name) :] or 1)
    for part in get_args(Part):
        if name == part and (part == "component" or name == text):
            return part, number
    if text:
        raise BadOption(f"no part {text!r} of a region", "parts: border, component, component2 ..., missed")
    return "all", 1


def default_target(opened: Opened) -> Target:
    """The target when nobody names one: for a segmentation the largest predicted structure that is not background."""
    model = opened.model
    if model.output.task != "segmentation":
        return ClassScore()
    with model.held(), torch.no_grad():
        output = model({k: v.to(model.device) for k, v in opened.inputs.items()})
    label: Label
    if output.shape[1] == 1:
        label = len(model.output.labels) - 1 if len(model.output.labels) == 2 else 0
    else:
        counts = model.output.predicted(output).movedim(1, 0).flatten(1).sum(1)
        if model.output.activation != "sigmoid":
            counts[0] = 0  # the background; with a sigmoid every channel is a structure
        label = int(counts.argmax())
        if not int(counts[label]):
            raise BadRegion("the model predicts background everywhere", "give --target LABEL@REGION with a region")
    return RegionScore(label)


def _matched(case: Case, model: Model) -> Mapping[str, Image]:
    names = [s.name for s in model.inputs if s.rank]
    if len(names) == 1 and len(case.images) == 1:
        return {names[0]: next(iter(case.images.values()))}
    missing = [n for n in names if n not in case.images]
    if missing:
        raise UnknownName(
            f"case {case.name} lacks the images {missing} that the model takes", f"it has: {', '.join(case.images)}"
        )
    shapes = {case.images[n].grid.rank for n in names}
    if len(shapes) > 1:
        raise ShapeMismatch(f"the images of case {case.name} have ranks {sorted(shapes)}", "give images of one rank")
    return {n: case.images[n] for n in names}
