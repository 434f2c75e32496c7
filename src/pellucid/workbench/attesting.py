"""Whether a DICOM object of ours is what its recipe makes of its source, found out by making it again."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor

from pellucid.audit.entry import Entry
from pellucid.core.case import Case
from pellucid.core.errors import PellucidError, SourceChanged
from pellucid.core.explanation import Explanation
from pellucid.io.dicomfile import DAMAGED, open_header
from pellucid.io.guard import reading
from pellucid.io.models import LoadedModel
from pellucid.io.objects.reading import Kind, OurObject, owner
from pellucid.io.objects.recipe import MapFacts, Recipe, map_digest
from pellucid.io.objects.source import Source, open_source
from pellucid.workbench.explaining import Progress
from pellucid.workbench.job import Finished, run_case
from pellucid.workbench.recording import Recorder
from pellucid.workbench.remaking import (
    SCORES,
    Finding,
    State,
    compare_facts,
    compare_labels,
    compare_map,
    compare_region,
    compare_scores,
)
from pellucid.workbench.repeating import background_digest, request_of

TOLERANCE = 1e-5  # of the largest magnitude: float32 sums in another order, see ADR 20
_DRAWN = (Kind.PICTURE, Kind.STATE, Kind.COLORED)


@dataclass(frozen=True)
class Attestation:
    """What verifying an object found.

    Args:
        kind: of object.
        recipe: that it holds.
        findings: in the order in which they were made.
    """

    kind: Kind
    recipe: Recipe
    findings: tuple[Finding, ...]

    @property
    def verdict(self) -> State:
        """``differs`` where one thing does; ``agrees`` where everything that had to be verified was."""
        states = [one.state for one in self.findings]
        for state in ("differs", "not verified"):
            if state in states:
                return state
        return "agrees"

    def plain(self) -> dict[str, Any]:
        """As JSON types."""
        return {
            "kind": self.kind.value,
            "verdict": self.verdict,
            "method": self.recipe.method,
            "target": self.recipe.target,
            "findings": [one.plain() for one in self.findings],
        }


@dataclass(frozen=True, eq=False)
class Means:
    """With what an object is verified.

    Args:
        case: as its source is read now.
        loaded: the model that is said to be the one.
        tolerance: of a value of the map, as a share of the largest magnitude.
        background: cases the method compares with; None: none are given.
        progress: called with what is being done.
    """

    case: Case
    loaded: LoadedModel
    tolerance: float = TOLERANCE
    background: Mapping[str, Tensor] | None = None
    progress: Progress | None = field(default=None, repr=False)


def attest(ours: OurObject, means: Means) -> Attestation:
    """Make the explanation of an object again, and compare.

    First it is asked whether source, weights and card are those that the object names; where they are not, nothing is
    made again, since the difference is known. Bad at: an object and a recipe that were forged together by somebody who
    has the model; no key is involved, and agreement says only that recipe, source and model give this map.

    Args:
        ours: the object.
        means: source, model and tolerance.

    Raises:
        PellucidError: the source cannot be read, or is not DICOM.
    """
    findings = [_whole(ours), *_model(ours.recipe, means), *_described(ours)]
    source, told = _source(ours, means)
    findings += told
    if source is None or any(f.state == "differs" for f in findings if f.name in ("source", "weights", "card")):
        return Attestation(ours.kind, ours.recipe, (*findings, _not_made("source or model are not those it names")))
    try:
        done = _again(ours, means)
    except PellucidError as error:
        return Attestation(ours.kind, ours.recipe, (*findings, _not_made(f"{error.problem}; {error.mend}")))
    if ours.recipe.crop:
        source = _bound(done.opened.case, means.loaded)
    findings += _compared(ours, source, done, means)
    return Attestation(ours.kind, ours.recipe, tuple(findings))


def choose_case(cases: Sequence[Case], ours: OurObject) -> Case:
    """Of several series the one whose instances the object refers to; the first where it refers to none."""
    return max(cases, key=lambda case: len(ours.referred & _instances(case))) if len(cases) > 1 else cases[0]


def record(recorder: Recorder, found: Attestation, case: Case, ours: OurObject) -> None:
    """An object was verified; the audit record says with what result, and keeps its UID as a keyed hash.

    Args:
        recorder: of the audit events.
        found: the result.
        case: as its source was read.
        ours: the object.
    """
    agrees = found.verdict == "agrees"
    told = {"kind": found.kind.value, "verdict": found.verdict.replace(" ", "_")}
    uid = str(ours.dataset.SOPInstanceUID)
    recorder.log.record(
        Entry(
            "view",
            outcome="success" if agrees else "minor_failure",
            method="dicom.verify",
            parameters=told,
            model_hash=found.recipe.model_digest or None,
            config_hash=found.recipe.card_digest or None,
            subject=case.name,
            object_uids=(uid,),
        )
    )


def _instances(case: Case) -> frozenset[str]:
    files = next(iter(case.files.values()), ())
    with reading(*DAMAGED):
        return frozenset(str(open_header(path).get("SOPInstanceUID", "")) for path in files)


def _not_made(why: str) -> Finding:
    return Finding("map", "not verified", f"not made again: {why}")


def _whole(ours: OurObject) -> Finding:
    """Whether UID and content belong together; what is compared value by value needs it less."""
    if ours.unchanged():
        drawn = "; a drawing is not made again, so this is what binds it" if ours.kind in _DRAWN else ""
        return Finding("object", "agrees", f"its UID is the one that belongs to its content{drawn}")
    words = "changed since it was written: an archive may have corrected a name or coded the pixels anew"
    if ours.kind is Kind.MAP:  # marks and words are compared too; a segment's label is not
        return Finding("object", "agrees", f"{words}; its values are compared below")
    return Finding("object", "not verified", f"{words}, or somebody its content")


def _model(recipe: Recipe, means: Means) -> list[Finding]:
    model = means.loaded.model
    pairs = (
        ("weights", "weight file", recipe.model_digest, model.digest),
        ("card", "model card", recipe.card_digest, model.identity.card),
    )
    return [_same(name, what, wanted, found) for name, what, wanted, found in pairs if wanted or found]


def _same(name: str, what: str, wanted: str, found: str) -> Finding:
    if wanted == found:
        return Finding(name, "agrees", f"the {what} is the one that the object names (SHA-256 {wanted[:12]})")
    return Finding(
        name, "differs", f"another {what}: the object names SHA-256 {wanted[:12] or 'none'}, got {found[:12] or 'none'}"
    )


def _described(ours: OurObject) -> list[Finding]:
    """The recipe against what the object says in standard attributes."""
    said, recipe = ours.described, ours.recipe
    own = {
        "seed": str(recipe.seed),
        "precision": recipe.precision,
        "engine": recipe.engine,
        "weights_sha256": recipe.model_digest,
        "card_sha256": recipe.card_digest,
        "input_sha256": recipe.input_digest,
        "content_key": recipe.key,
    }
    apart = [name for name, value in own.items() if value and said.get(name, value) != value]
    if not said:
        return []
    if apart:
        pairs = "; ".join(f"{name} {own[name][:12]} and {said[name][:12]}" for name in apart)
        return [Finding("description", "differs", f"recipe and description contradict each other: {pairs}")]
    return [Finding("description", "agrees", "what it says in words is what its recipe says")]


def _source(ours: OurObject, means: Means) -> tuple[Source | None, list[Finding]]:
    """Whether the source is the one that the object refers to, by its instances."""
    try:
        source = _bound(means.case, means.loaded)
    except SourceChanged as error:
        return None, [Finding("source", "differs", error.problem)]
    if source.study != ours.study:
        return source, [Finding("source", "differs", "another study: the object belongs to another than the source")]
    if ours.whose != owner(source.first):
        return source, [Finding("source", "differs", "the source is of another patient than the object says")]
    own = {str(header.SOPInstanceUID) for header in source.headers}
    missing = own - ours.referred
    if ours.kind is Kind.COLORED and missing == own:
        return source, [Finding("source", "agrees", "of the same study; the object speaks of a map, not of its source")]
    if missing == own:
        return source, [Finding("source", "differs", "another series: the object refers to none of its instances")]
    words = f"the object refers to {len(own) - len(missing)} of its {len(own)} instances"
    return source, [Finding("source", "agrees", words)]


def _bound(case: Case, loaded: LoadedModel) -> Source:
    """The instances behind the image that is the model's first input."""
    primary = loaded.model.primary
    name = primary if primary in case.images else next(iter(case.images))
    return open_source(case.files.get(name, ()), case.images[name])


def _again(ours: OurObject, means: Means) -> Finished:
    recipe = ours.recipe if ours.kind is Kind.REPORT else ours.recipe.scored({})
    request = request_of(recipe, means.background)
    return run_case(means.case, means.loaded, request, None, means.progress)


def _compared(ours: OurObject, source: Source, done: Finished, means: Means) -> list[Finding]:
    explanation, recipe = done.panel.explanations[0], ours.recipe
    findings = [_input(recipe, explanation), *_around(recipe, done, means)]
    findings += [*_output(recipe, explanation), *compare_labels(ours, explanation)]
    values = explanation.numpy()[0]
    if ours.kind is Kind.MAP:
        findings += compare_map(ours, source, values, means.tolerance)
    else:
        findings += [compare_facts(recipe.made, MapFacts.of(values, explanation.attribution.unit), means.tolerance)]
    if ours.kind is Kind.REGION:
        findings += [compare_region(ours, source, explanation, values)]
    if ours.kind is Kind.REPORT:
        findings += compare_scores(ours, done.scores, "regions" in {f.name for f in findings})
    return [*findings, _software(recipe, explanation, findings)]


def _input(recipe: Recipe, explanation: Explanation) -> Finding:
    if explanation.provenance.input_digest == recipe.input_digest:
        return Finding("input", "agrees", "the image is bit for bit the one that was explained")
    return Finding("input", "differs", "the image is not the one that was explained: its values or its place differ")


def _around(recipe: Recipe, done: Finished, means: Means) -> list[Finding]:
    """Regions and other cases that the explanation may have used."""
    found = []
    regions = {
        name: map_digest(mask.cpu().numpy().astype(np.float32))
        for name, mask in done.panel.probes[0].scene.regions.items()
    }
    apart = sorted(name for name in recipe.regions if regions.get(name) != recipe.regions[name])
    if apart:
        words = "regions that the case had are missing or others here; they matter where target or metric asks for them"
        found.append(Finding("regions", "not verified", words))
    if recipe.background and background_digest(means.background) != recipe.background:
        found.append(Finding("background", "differs", "it was compared with other cases: give them with --background"))
    return found


def _output(recipe: Recipe, explanation: Explanation) -> list[Finding]:
    said = explanation.prediction
    if said is None or recipe.value is None:
        return []
    off = abs(said.value - recipe.value)
    allowed = SCORES * max(1.0, abs(recipe.value))
    words = f"the model gives the target {said.value:.6g} {said.unit}, recorded {recipe.value:.6g}"
    return [Finding("model output", "agrees" if off <= allowed else "differs", words, off)]


def _software(recipe: Recipe, explanation: Explanation, findings: Sequence[Finding]) -> Finding:
    made, now = recipe.versions, explanation.provenance.versions
    names = [name for name in sorted({*made, *now}) if made.get(name) != now.get(name)]
    apart = [f"{name} {made.get(name, 'none')} then, {now.get(name, 'none')} now" for name in names]
    if recipe.device != explanation.provenance.device:
        apart.append(f"on {recipe.device} then, on {explanation.provenance.device} now")
    if not apart:
        return Finding("software", "agrees", "the same versions, on the same kind of device")
    differs = any(f.state == "differs" for f in findings)
    return Finding("software", "differs" if differs else "agrees", "; ".join(apart))
