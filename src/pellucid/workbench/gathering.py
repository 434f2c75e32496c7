"""Many cases gathered on the network's grid, one by one: images are dropped, and what the network takes is on disk."""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from pellucid.core.case import Case
from pellucid.core.cohort import Cohort, Parts, blocks_for
from pellucid.core.errors import BadOption, CannotDo, NotApplicable, PellucidError, ShapeMismatch
from pellucid.core.image import Modality
from pellucid.core.infill import Infill
from pellucid.core.model import Model
from pellucid.core.prepare import InputSpec
from pellucid.core.probe import Scene
from pellucid.core.space import resample
from pellucid.core.target import Target
from pellucid.io.labelmap import LabelMap
from pellucid.io.modelcard import check_applicability
from pellucid.io.models import LoadedModel
from pellucid.io.reader import Failure
from pellucid.io.spool import Spool
from pellucid.io.suv import in_units
from pellucid.workbench.explaining import Progress
from pellucid.workbench.opening import Opened, assume_modality, open_case, parse_target

_ORDER = ("applies", "unknown", "excluded")


@dataclass(frozen=True)
class Wish:
    """What is asked of a cohort.

    Args:
        target: as ``parse_target`` reads it; None: the positive class of a single logit.
        atlas: regions by name on each image; None: ``blocks`` along each axis.
        blocks: along each axis of the network's grid.
        infills: what a hidden part shows; None: the modality's.
        seed: of everything random.
        override: take cases that the model card excludes, and say so.
    """

    target: str | None = None
    atlas: LabelMap | None = None
    blocks: int = 3
    infills: tuple[Infill, ...] | None = None
    seed: int = 0
    override: bool = False


@dataclass(frozen=True, eq=False)
class Gathered:
    """Cases on the network's grid.

    Args:
        cohort: of those that could be used.
        failures: (case, error) of the others.
        applicability: what the model card says of them, in words.
        digest: SHA-256 over the images and regions as the network gets them.
        background: the same of the background; empty: there is none.
        warnings: that every answer carries.
    """

    cohort: Cohort
    failures: tuple[tuple[str, PellucidError], ...]
    applicability: str
    digest: str
    background: str
    warnings: tuple[str, ...]


Pool = list[Tensor] | Spool  # in memory, or on the disk of a folder


@dataclass(eq=False)
class _Pile:
    """What has been gathered so far."""

    folder: Path | None
    tensors: dict[str, Pool] = field(default_factory=dict)
    labels: Pool = field(default_factory=list)
    digests: list[str] = field(default_factory=list)
    cases: list[Case] = field(default_factory=list)  # without their images
    failures: list[tuple[str, PellucidError]] = field(default_factory=list)
    verdicts: list[str] = field(default_factory=list)
    notes: dict[str, int] = field(default_factory=dict)
    scene: Scene | None = None

    def pool(self) -> Pool:
        """An empty one."""
        return Spool.opened(self.folder) if self.folder is not None else []

    def keep(self, case: Case, inputs: Mapping[str, Tensor], labels: Tensor | None) -> None:
        """Add a case that is ready."""
        content = hashlib.sha256()
        for name, tensor in inputs.items():
            self.tensors.setdefault(name, self.pool()).append(tensor)
            content.update(f"{name} {tuple(tensor.shape)}".encode() + tensor.contiguous().numpy().tobytes())
        if labels is not None:
            self.labels.append(labels)
            content.update(labels.contiguous().numpy().tobytes())
        self.digests.append(content.hexdigest())
        name = case.name
        count = sum(name in (c.name, c.name.rpartition("-")[0]) for c in self.cases)
        self.cases.append(replace(case, images={}, regions={}, name=f"{name}-{count + 1}" if count else name))


def gather(
    cases: Iterable[Case | Failure],
    loaded: LoadedModel,
    wish: Wish,
    progress: Progress | None = None,
    background: Iterable[Case | Failure] = (),
    folder: Path | None = None,
) -> Gathered:
    """Prepare every case; one that cannot be used is listed and never stops the others.

    Args:
        cases: as read, one by one.
        loaded: the model.
        wish: regions, fills, seed.
        progress: called with the name of each case.
        background: cases that parts are taken from, such as normal ones; empty: the cohort's own.
        folder: on whose disk the prepared cases wait; None: in memory.

    Raises:
        PellucidError: no case can be used; or the target does not fit the model.
    """
    target = _target(wish, loaded)
    pile = _filled(_Pile(folder), cases, loaded, wish, progress)
    others = _filled(_Pile(folder), background, loaded, replace(wish, atlas=None), progress, required=False)
    scene = pile.scene or Scene(seed=wish.seed)
    titles = sorted({name for case in pile.cases for name in case.covariates})
    cohort = Cohort(
        inputs=pile.tensors,
        target=target,
        parts=_parts(pile, loaded.model, wish),
        labels=tuple(case.label for case in pile.cases),
        groups=tuple(case.group for case in pile.cases),
        columns={spec.name: columns_of(spec) for spec in loaded.model.inputs if not spec.rank},
        covariates={t: torch.tensor([case.covariates.get(t, float("nan")) for case in pile.cases]) for t in titles},
        names=tuple(case.name for case in pile.cases),
        scene=scene,
        background=others.tensors or None,
        digests=tuple(pile.digests),
    )
    return Gathered(
        cohort,
        (*pile.failures, *((f"background {name}", error) for name, error in others.failures)),
        _said(pile),
        _digest(pile),
        _digest(others) if others.digests else "",
        (*loaded.notes, *_warnings(pile, others)),
    )


def background_of(
    cases: Iterable[Case | Failure], loaded: LoadedModel, wish: Wish, progress: Progress | None = None
) -> dict[str, Tensor]:
    """Cases to compare one case with, by input, "case channel *space" in network units.

    Args:
        cases: normal ones, say.
        loaded: the model.
        wish: fills, seed, and whether cases that the card excludes are taken.
        progress: called with the name of each case.

    Raises:
        PellucidError: a case cannot be used: a comparison must not change in silence.
        ShapeMismatch: cases differ in size on the network's grid.
    """
    pile = _filled(_Pile(None), cases, loaded, replace(wish, atlas=None), progress)
    if pile.failures:
        raise pile.failures[0][1]
    shapes = {name: {tuple(x.shape) for x in found} for name, found in pile.tensors.items()}
    if any(len(there) > 1 for there in shapes.values()):
        raise ShapeMismatch(
            f"expected background cases of one size on the network's grid, got {shapes}",
            "give the model card an input size, or cases of one size",
        )
    return {name: torch.stack(list(found)) for name, found in pile.tensors.items()}


def _filled(
    pile: _Pile,
    cases: Iterable[Case | Failure],
    loaded: LoadedModel,
    wish: Wish,
    progress: Progress | None,
    required: bool = True,
) -> _Pile:
    """The pile with every case that can be used."""
    images = replace(loaded.model, inputs=tuple(spec for spec in loaded.model.inputs if spec.rank))
    if wish.atlas is not None:
        pile.labels = pile.pool()
    for case in cases:
        if isinstance(case, Failure):
            pile.failures.append((case.reference, case.error))
            continue
        if progress is not None:
            progress(case.name)
        try:
            _add(pile, case, loaded, images, wish)
        except PellucidError as error:
            pile.failures.append((case.name, error))
    if not pile.cases and (required or pile.failures):
        raise pile.failures[0][1] if pile.failures else BadOption("there are no cases", "give a folder or a CSV")
    return pile


def _digest(pile: _Pile) -> str:
    return hashlib.sha256("".join(pile.digests).encode()).hexdigest()


def _said(pile: _Pile) -> str:
    of = len(pile.cases)
    words = {"applies": "applies to", "unknown": "cannot tell whether it applies to", "excluded": "excludes"}
    counts = [f"{words[v]} {pile.verdicts.count(v)} of {of} cases" for v in _ORDER if v in pile.verdicts]
    excluded = ", which were explained all the same" if "excluded" in pile.verdicts else ""
    return f"the model card {', '.join(counts)}{excluded}"


def _warnings(pile: _Pile, others: _Pile) -> list[str]:
    found = [f"{words} ({count} of {len(pile.cases)} cases)" for words, count in pile.notes.items()]
    found += [f"{len(pile.failures)} cases could not be used and are left out"] if pile.failures else []
    found += [f"{len(others.failures)} background cases could not be used"] if others.failures else []
    shapes = {tuple(x.shape) for x in next(iter(pile.tensors.values()))}
    found += [f"cases have {len(shapes)} sizes on the network's grid"] if len(shapes) > 1 else []
    return found


def _target(wish: Wish, loaded: LoadedModel) -> Target:
    target = parse_target(wish.target, loaded.model)
    if target is None:
        raise BadOption("a segmentation needs one target for the whole cohort, got none", "give --target LABEL")
    if "@" in (wish.target or ""):
        raise CannotDo("the regions of single cases cannot be the target of a cohort", "give --target LABEL alone")
    return target


def admitted(case: Case, loaded: LoadedModel, override: bool = False) -> tuple[Case, str]:
    """The case with its modality, and what the model card says of it: applies, unknown or excluded.

    Raises:
        NotApplicable: the model card excludes it, and there is no ``override``.
    """
    card = loaded.card
    if card is None:
        return case, "unknown"
    modalities = [Modality(m) for m in card.modality]
    if len(modalities) == 1:
        case, _ = assume_modality(case, modalities[0])
    case, _ = in_units(case, card)
    found = [check_applicability(card, image) for image in case.images.values()]
    worst = max(found, key=lambda v: _ORDER.index(v.verdict))
    if worst.verdict == "excluded" and not override:
        raise NotApplicable(
            f"the model {loaded.model.identity.name} does not apply to case {case.name}: {worst.words}",
            "leave the case out, or pass --override",
        )
    return case, worst.verdict


def columns_of(spec: InputSpec) -> tuple[str, ...]:
    """The covariates that a vector input holds, in order.

    Raises:
        BadOption: the model card names none.
    """
    names = spec.columns or ((spec.name,) if spec.channels == 1 else ())
    if not names:
        raise BadOption(
            f"the model's input {spec.name!r} takes {spec.channels} values, and its card does not name them",
            'write columns = ["age", ...] under [[inputs]]',
        )
    return names


def vector_of(case: Case, spec: InputSpec) -> Tensor:
    """A vector input from the covariates of a case, on the scale of the model card.

    Raises:
        BadOption: the case lacks one of them.
    """
    names = columns_of(spec)
    missing = [name for name in names if name not in case.covariates]
    if missing:
        raise BadOption(
            f"case {case.name} has no covariate {missing[0]!r}, which the model takes; it has: "
            f"{', '.join(case.covariates) or 'none'}",
            f"add a column covariate:{missing[0]} to the table of cases, and fill it",
        )
    plain = torch.tensor([case.covariates[name] for name in names])
    return (plain - torch.tensor(spec.mean or 0.0)) / torch.tensor(spec.std or 1.0)


def _add(pile: _Pile, case: Case, loaded: LoadedModel, images: Model, wish: Wish) -> None:
    case, verdict = admitted(case, loaded, wish.override)
    vectors = {spec.name: vector_of(case, spec) for spec in loaded.model.inputs if not spec.rank}
    opened = open_case(case, images, wish.seed, wish.infills)
    divided = _divided(opened, wish.atlas) if wish.atlas is not None else None
    own = {name: prepared.tensor for name, prepared in opened.prepared.items()} | vectors
    pile.keep(case, {spec.name: own[spec.name] for spec in loaded.model.inputs}, divided)
    pile.verdicts.append(verdict)
    for words in dict.fromkeys((*case.notes, *opened.prepared[loaded.model.primary].notes)):
        pile.notes[words] = pile.notes.get(words, 0) + 1
    pile.scene = pile.scene or opened.scene


def _divided(opened: Opened, atlas: LabelMap) -> Tensor:
    """The label map on the network's grid of a case."""
    labels, _ = atlas.on(opened.image.grid)
    grid = opened.prepared[opened.model.primary].grid
    moved = resample(torch.from_numpy(labels.astype("float32"))[None, None], opened.image.grid, grid, mode="nearest")
    return moved[0, 0].round().short()


def _parts(pile: _Pile, model: Model, wish: Wish) -> Parts:
    if wish.atlas is None:
        return blocks_for([tuple(x.shape[1:]) for x in pile.tensors[model.primary]], wish.blocks)
    there = sorted({int(v) for labels in pile.labels for v in labels.unique()} & set(wish.atlas.names))
    table = torch.zeros(max(wish.atlas.names) + 1, dtype=torch.short)
    table[there] = torch.arange(1, len(there) + 1, dtype=torch.short)
    renamed = pile.pool()
    for labels in pile.labels:
        renamed.append(table[labels.long()])
    return Parts(renamed, tuple(wish.atlas.names[n] for n in there))
