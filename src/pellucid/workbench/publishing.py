"""The explanations of a case as DICOM objects in the study of their source, each read back before it counts."""

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from pellucid.core.atomic import make_folder, write_bytes
from pellucid.core.case import Case
from pellucid.core.errors import BadOption, BadRegion, PellucidError, UnwritableOutput
from pellucid.core.model import Model
from pellucid.io.models import GoldenResult, LoadedModel
from pellucid.io.objects import maps, record, segment
from pellucid.io.objects.identity import encode
from pellucid.io.objects.maps import Encoding, parametric_map, quantum
from pellucid.io.objects.marks import Made
from pellucid.io.objects.proof import RoundTrip, round_trip
from pellucid.io.objects.recipe import Recipe
from pellucid.io.objects.record import Ruling, structured_report
from pellucid.io.objects.segment import segmentation
from pellucid.io.objects.source import Source, check_dicom, open_source
from pellucid.show.rules import NO_NULL, decide
from pellucid.workbench.displaying import displayed
from pellucid.workbench.exporting import FOLDER, Export, Publication, Published
from pellucid.workbench.job import Finished, Request
from pellucid.workbench.recording import Recorder
from pellucid.workbench.reissuing import earlier_reports
from pellucid.workbench.repeating import recipe_of
from pellucid.workbench.telling import told_of

_NO_FRAME = (
    "expected an image with a frame of reference, which a Parametric Map needs (PS3.3 A.75.3), got one without",
    "take the map from the archive, or see it in the other objects",
)
_NAMES = {maps.KIND: "parametric map", segment.KIND: "segmentation"}
_STEM = 120  # characters of a file name, before its kind

Proof = Callable[[Path], RoundTrip]


def check_publishable(case: Case, model: Model) -> None:
    """Check that a case came from DICOM files, before hours are spent on it.

    Raises:
        BadOption: it did not.
    """
    check_dicom(case.files.get(_primary(case, model), ()))


def bind(done: Finished) -> Source:
    """The source of a case, opened again: nothing may be written where it is not what was explained.

    Raises:
        SourceChanged: the files hold something else.
        PellucidError: they cannot be read.
    """
    case = done.opened.case
    name = _primary(case, done.opened.model)
    return open_source(case.files.get(name, ()), case.images[name])


def _primary(case: Case, model: Model) -> str:
    """The name of the image that is the model's first input: it gives the objects their study and their place."""
    return model.primary if model.primary in case.images else next(iter(case.images))


def publish(
    done: Finished,
    source: Source,
    request: Request,
    model: tuple[LoadedModel, Sequence[GoldenResult]],
    folder: Path,
    recorder: Recorder | None = None,
) -> Finished:
    """Write the objects of every explanation of a case; what one kind cannot do does not lose the others.

    Args:
        done: the case.
        source: as ``bind`` gave it.
        request: that was made, with ``dicom``.
        model: loaded, and how its golden vectors came out.
        folder: of the case; objects lie in a folder of their own inside it.
        recorder: of the audit events; None: nothing is recorded.

    Raises:
        UnwritableOutput: the folder cannot be written.
    """
    here = make_folder(folder / FOLDER)
    found, skipped = [], []
    for place, stem in enumerate(_stems(done)):
        one = _published(_Task(done, place, source, request, here / stem), model)
        found.extend(one.objects)
        skipped.extend(one.skipped)
    publication = Publication(tuple(found), tuple(skipped))
    if recorder is not None:
        for each in found:
            recorder.exported(done.opened.case.name, f"dicom.{each.kind}", each.digest, (each.uid,))
    return replace(done, published=publication, files={**done.files, **publication.files})


@dataclass(frozen=True, eq=False)
class _Task:
    """One explanation of a case, to be written under a path that lacks the kind."""

    done: Finished
    place: int
    source: Source
    request: Request
    stem: Path

    @cached_property
    def made(self) -> Made:
        panel = self.done.panel
        return Made(
            panel.explanations[self.place], panel.made_by[self.place].card, self.source, panel.names[self.place]
        )

    @cached_property
    def recipe(self) -> Recipe | None:
        """None where a fill or setting has no spelling; only the report, which rests on it, is lost then."""
        try:
            return recipe_of(self.done, self.place, self.request)
        except BadOption:
            return None

    @cached_property
    def values(self) -> NDArray[np.float32]:
        return self.made.explanation.numpy()[0]

    @property
    def wanted(self) -> Export:
        return self.request.dicom or Export()


def _published(task: _Task, model: tuple[LoadedModel, Sequence[GoldenResult]]) -> Publication:
    """Everything of one explanation; the report comes last, since it speaks of the others."""
    objects: dict[str, Dataset] = {}
    found: list[Published] = []
    skipped: list[tuple[str, str, str]] = []

    def attempt(kind: str, make: Callable[[], tuple[Dataset, Proof | None]]) -> None:
        try:
            dataset, proof = make()
            found.append(_saved(task, kind, dataset, proof))
            objects[kind] = dataset
        except PellucidError as error:
            skipped.append((kind, task.made.title, f"{error.problem}; {error.mend}"))

    attempt(maps.KIND, lambda: _map(task))
    if task.wanted.segmentation:
        attempt(segment.KIND, lambda: _segment(task))
    notes = task.done.opened.case.notes
    shown = displayed(task.made, notes, objects.get(maps.KIND), task.recipe)
    for kind, dataset in shown.objects.items():
        attempt(kind, lambda dataset=dataset: (dataset, None))
    skipped.extend((kind, task.made.title, reason) for kind, reason in shown.skipped)
    attempt(record.KIND, lambda: (_report(task, model, tuple(objects.values()), found), None))
    return Publication(tuple(found), tuple(skipped))


def _saved(task: _Task, kind: str, dataset: Dataset, proof: Proof | None) -> Published:
    """Written, and read back; what does not come back as it was does not stay."""
    content = encode(dataset)
    path = write_bytes(task.stem.with_name(f"{task.stem.name}.{kind}.dcm"), content)
    trip = proof(path) if proof is not None else None
    if trip is not None and not trip.passed:
        path.unlink()
        raise UnwritableOutput(
            f"expected the {_NAMES[kind]} to come back as it was written, but {trip.words}",
            "report this image's geometry",
        )
    digest = hashlib.sha256(content).hexdigest()
    return Published(kind, task.made.title, path, digest, str(dataset.SOPInstanceUID), trip)


def _stems(done: Finished) -> list[str]:
    """Method and target as the beginning of file names, told apart where only their signs differ."""
    panel = done.panel
    texts = [f"{name}-{e.provenance.target}" for name, e in zip(panel.names, panel.explanations, strict=True)]
    stems = [re.sub(r"[^A-Za-z0-9]+", "-", text).strip("-")[:_STEM] for text in texts]
    return [stem if stems.count(stem) == 1 else f"{stem}-{place + 1}" for place, stem in enumerate(stems)]


def _map(task: _Task) -> tuple[Dataset, Proof]:
    if task.source.geometry is None:
        raise BadOption(*_NO_FRAME)
    placed, encoding = task.source.volume(task.values), task.wanted.encoding
    step = quantum(placed) if encoding is Encoding.UINT16 else 0.0
    dataset = parametric_map(task.made, placed, task.recipe, encoding)
    return dataset, lambda path: round_trip(path, placed, step)


def _segment(task: _Task) -> tuple[Dataset, Proof]:
    display = decide(task.made.explanation, task.values)
    region = display.region(task.values)
    if region is None:
        why = NO_NULL if display.shown else display.notes[0]
        raise BadRegion(f"expected a map with a region, got one without: {why}", "leave --segmentation out")
    if not region.any():
        raise BadRegion("expected a map that rises above its null somewhere, got none", "leave --segmentation out")
    placed = task.source.flat_map(region) if task.source.flat else task.source.volume(region)
    dataset = segmentation(task.made, placed, task.recipe)
    return dataset, lambda path: round_trip(path, placed)


def _report(
    task: _Task,
    model: tuple[LoadedModel, Sequence[GoldenResult]],
    objects: tuple[Dataset, ...],
    found: Sequence[Published],
) -> Dataset:
    proved = [
        Ruling(f"geometry of the {_NAMES[one.kind]}", "pass", one.trip.words, one.trip.error)
        for one in found
        if one.trip is not None
    ]
    if task.recipe is None:
        raise BadOption("expected settings that can be written down, got one that text cannot say", "use a named fill")
    told = told_of(task.done, task.place, *model, objects, proved)
    if task.wanted.replaces is not None:
        told = replace(told, predecessors=earlier_reports(task.wanted.replaces, task.recipe, task.source.study))
    return structured_report(task.made, task.recipe, told)
