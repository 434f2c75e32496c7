"""Many cases to one answer: gathered on the network's grid, explained together, written as one page."""

import hashlib
import json
import platform
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import torch
from torch import Tensor

from pellucid.core.atomic import write_text
from pellucid.core.case import Case
from pellucid.core.cohort import Cohort, Parts, blocks_of
from pellucid.core.errors import BadOption, CannotDo, NotApplicable, PellucidError, ShapeMismatch
from pellucid.core.explainer import CohortExplainer
from pellucid.core.explanation import Effects, Explanation, Provenance
from pellucid.core.image import Modality
from pellucid.core.infill import Infill
from pellucid.core.space import resample
from pellucid.core.target import Target
from pellucid.io.labelmap import LabelMap
from pellucid.io.modelcard import check_applicability
from pellucid.io.models import LoadedModel
from pellucid.io.reader import Failure
from pellucid.show.report import render_effects
from pellucid.workbench.explaining import Progress
from pellucid.workbench.opening import Opened, assume_modality, open_case, parse_target
from pellucid.workbench.recording import Recorder

PAGE = "cohort.html"
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
        digest: SHA-256 over the images.
        warnings: that every answer carries.
    """

    cohort: Cohort
    failures: tuple[tuple[str, PellucidError], ...]
    applicability: str
    digest: str
    warnings: tuple[str, ...]


@dataclass(eq=False)
class _Pile:
    """What has been gathered so far."""

    tensors: dict[str, list[Tensor]] = field(default_factory=dict)
    labels: list[Tensor] = field(default_factory=list)
    cases: list[tuple[str, str | None, str | None, Mapping[str, float]]] = field(default_factory=list)
    failures: list[tuple[str, PellucidError]] = field(default_factory=list)
    verdicts: list[str] = field(default_factory=list)
    notes: dict[str, int] = field(default_factory=dict)
    first: Opened | None = None
    digests: list[str] = field(default_factory=list)


def gather(
    cases: Iterable[Case | Failure], loaded: LoadedModel, wish: Wish, progress: Progress | None = None
) -> Gathered:
    """Prepare every case; one that cannot be used is listed and never stops the others.

    Args:
        cases: as read, one by one: images are dropped once they are on the network's grid.
        loaded: the model.
        wish: regions, fills, seed.
        progress: called with the name of each case.

    Raises:
        PellucidError: no case can be used; or the target does not fit the model.
    """
    target = _target(wish, loaded)
    pile = _Pile()
    for case in cases:
        if isinstance(case, Failure):
            pile.failures.append((case.reference, case.error))
            continue
        if progress is not None:
            progress(case.name)
        try:
            _add(pile, case, loaded, wish)
        except PellucidError as error:
            pile.failures.append((case.name, error))
    if pile.first is None:
        raise pile.failures[0][1] if pile.failures else BadOption("there are no cases", "give a folder or a CSV")
    cohort = _stacked(pile, pile.first, target, wish)
    worst = max(pile.verdicts, key=_ORDER.index)
    counts = ", ".join(f"{v} {pile.verdicts.count(v)}" for v in dict.fromkeys(pile.verdicts))
    warnings = [f"{words} ({count} of {cohort.size} cases)" for words, count in pile.notes.items()]
    warnings += [f"{len(pile.failures)} cases could not be used and are left out"] if pile.failures else []
    said = f"model card on {cohort.size} cases: {counts}"
    said += "; explained although the card excludes cases" if worst == "excluded" else ""
    return Gathered(
        cohort,
        tuple(pile.failures),
        said,
        hashlib.sha256("".join(pile.digests).encode()).hexdigest(),
        (*loaded.notes, *warnings),
    )


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
    found = [check_applicability(card, image) for image in case.images.values()]
    worst = max(found, key=lambda v: _ORDER.index(v.verdict))
    if worst.verdict == "excluded" and not override:
        raise NotApplicable(
            f"the model {loaded.model.identity.name} does not apply to case {case.name}: {worst.words}",
            "leave the case out, or pass --override",
        )
    return case, worst.verdict


def _add(pile: _Pile, case: Case, loaded: LoadedModel, wish: Wish) -> None:
    case, verdict = admitted(case, loaded, wish.override)
    opened = open_case(case, loaded.model, wish.seed, wish.infills)
    for name, prepared in opened.prepared.items():
        there = pile.tensors.get(name)
        if there and there[0].shape != prepared.tensor.shape:
            raise ShapeMismatch(
                f"case {case.name} has shape {tuple(prepared.tensor.shape)} on the network's grid, the first case "
                f"{tuple(there[0].shape)}",
                "give the model card an input size, or images of one size",
            )
    divided = _divided(opened, wish.atlas) if wish.atlas is not None else None
    for name, prepared in opened.prepared.items():
        pile.tensors.setdefault(name, []).append(prepared.tensor)
    if divided is not None:
        pile.labels.append(divided)
    pile.cases.append((case.name, case.label, case.group, case.covariates))
    pile.verdicts.append(verdict)
    for words in dict.fromkeys((*case.notes, *opened.prepared[loaded.model.primary].notes)):
        pile.notes[words] = pile.notes.get(words, 0) + 1
    pile.digests += [image.digest for image in opened.images.values()]
    pile.first = pile.first or opened


def _divided(opened: Opened, atlas: LabelMap) -> Tensor:
    """The label map on the network's grid of a case."""
    labels, _ = atlas.on(opened.image.grid)
    grid = opened.prepared[opened.model.primary].grid
    moved = resample(torch.from_numpy(labels.astype("float32"))[None, None], opened.image.grid, grid, mode="nearest")
    return moved[0, 0].round().long()


def _stacked(pile: _Pile, first: Opened, target: Target, wish: Wish) -> Cohort:
    inputs = {name: torch.stack(found) for name, found in pile.tensors.items()}
    names, labels, groups, facts = zip(*pile.cases, strict=True)
    titles = sorted({name for fact in facts for name in fact})
    return Cohort(
        inputs=inputs,
        target=target,
        parts=_parts(pile, inputs[first.model.primary].shape[2:], wish),
        labels=labels,
        groups=groups,
        covariates={t: torch.tensor([fact.get(t, float("nan")) for fact in facts]) for t in titles},
        names=names,
        scene=first.scene,
    )


def _parts(pile: _Pile, shape: Sequence[int], wish: Wish) -> Parts:
    if wish.atlas is None:
        return blocks_of(tuple(shape), wish.blocks)
    labels = torch.stack(pile.labels)
    if bool((labels == labels[:1]).all()):
        labels = labels[:1]
    there = [n for n in sorted(wish.atlas.names) if bool((labels == n).any())]
    table = torch.zeros(max(wish.atlas.names) + 1, dtype=torch.long)
    table[there] = torch.arange(1, len(there) + 1)
    return Parts(table[labels], tuple(wish.atlas.names[n] for n in there))


def explain_cohort(gathered: Gathered, loaded: LoadedModel, explainer: CohortExplainer) -> Explanation:
    """Run one method on gathered cases.

    Raises:
        PellucidError: of the method.
    """
    model, cohort = loaded.model, gathered.cohort
    if model.rank not in explainer.card.space or model.output.task not in explainer.card.tasks:
        raise CannotDo(
            f"{explainer.name} is not for a {model.rank}-D {model.output.task} model", "choose another method"
        )
    before, started = model.identity, time.perf_counter()
    answer = explainer(model, cohort)
    ms = 1000 * (time.perf_counter() - started)
    made = Provenance(
        case=f"{cohort.size} cases",
        input_digest=gathered.digest,
        model=f"{before.name} {before.version}".strip(),
        model_digest=model.digest,
        card_digest=before.card,
        target=cohort.opened(model).target,
        method=explainer.name,
        settings=explainer.settings(),
        layer=None,
        infill=None,
        seed=cohort.scene.seed,
        precision="float32",
        device=model.device.type,
        shared=(0, 0),
        own=answer.spent,
        ms=round(ms, 1),
        versions={"pellucid": version("pellucid"), "torch": torch.__version__, "python": platform.python_version()},
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        applicability=gathered.applicability,
        warnings=(*gathered.warnings, *answer.warnings),
    )
    return Explanation(answer, made)


def plain_cohort(explanation: Explanation, gathered: Gathered, page: Path) -> dict[str, object]:
    """The result as JSON types."""
    failures = [
        {"case": n, "error": type(e).__name__, "problem": e.problem, "mend": e.mend} for n, e in gathered.failures
    ]
    return {
        "cases": list(gathered.cohort.names),
        "provenance": explanation.provenance.plain(),
        "effects": effects_of(explanation).plain(),
        "failures": failures,
        "files": {"report": str(page)},
    }


def effects_of(explanation: Explanation) -> Effects:
    """The answer of a method for cohorts.

    Raises:
        CannotDo: it is of another kind.
    """
    if not isinstance(explanation.answer, Effects):
        raise CannotDo(f"expected effects, got {explanation.answer.kind}", "use a method for cohorts")
    return explanation.answer


def deliver_cohort(explanation: Explanation, gathered: Gathered, folder: Path, recorder: Recorder) -> dict[str, object]:
    """Write the page and ``results.json``, and record both.

    Args:
        explanation: of the cohort.
        gathered: what it was made from.
        folder: that exists.
        recorder: of the audit events.

    Returns:
        The result as JSON types.

    Raises:
        UnwritableOutput: the folder cannot be written.
    """
    recorder.created(explanation)
    page = write_text(folder / PAGE, render_effects(explanation, effects_of(explanation)))
    results = plain_cohort(explanation, gathered, page)
    write_text(folder / "results.json", json.dumps(results, indent=1, ensure_ascii=False, allow_nan=False))
    recorder.exported("cohort", explanation.provenance.method, hashlib.sha256(page.read_bytes()).hexdigest())
    return results
