"""A method's map against its map on fresh weights, case by case, with what chance alone would give."""

import logging
import math
import time
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import tables
import torch
from subjects import Batch, Subject
from torch import Tensor

from pellucid.core.errors import CannotDo, PellucidError
from pellucid.core.explainer import Explainer
from pellucid.core.explanation import Answer, Attribution
from pellucid.core.perwindow import answered
from pellucid.core.probe import Probe
from pellucid.core.target import RegionScore
from pellucid.metrics.maps import on_grid
from pellucid.metrics.randomization.alike import Measure
from pellucid.metrics.randomization.classes import RandomLogit
from pellucid.metrics.randomization.edges import likeness_to_edges
from pellucid.metrics.randomization.efficient import entropies, sturges
from pellucid.metrics.randomization.fresh import fresh_maps, stages_of

LOG = logging.getLogger("randomization_claim")
VIEWS = ("ranks", "magnitudes")
TEXTS = ("network", "patient", "case", "method", "reason")
VALUES = (
    *(column for view in VIEWS for column in (view, f"{view}, chance up to")),
    "rise of entropy",
    "similar to edges",
    "other class",
    "other class, chance up to",
)
EVERYWHERE = "everywhere"


@dataclass(frozen=True, eq=False)
class Pair:
    """Two maps of each case that should not be alike.

    Args:
        one: of the trained network, "case *space".
        other: of fresh weights, or of another class.
        signed: whether they have both signs.
        seed: of the shifts.
    """

    one: Tensor
    other: Tensor
    signed: bool
    seed: int


def everywhere(one: Subject) -> Subject:
    """A segmentation explained over the whole image: over its own finding, every map would share the place."""
    if not isinstance(one.target, RegionScore):
        return one
    batches = tuple(
        replace(b, scene=replace(b.scene, regions={EVERYWHERE: torch.ones(b.x.shape[2:], dtype=torch.bool)}))
        for b in one.batches
    )
    return replace(one, target=replace(one.target, region=EVERYWHERE), batches=batches)


def views(pair: Pair) -> Iterator[tuple[str, Measure, Tensor, Tensor]]:
    """Two ways to compare: ranks of the map, and of its magnitude, which is what a reader sees first."""
    yield VIEWS[0], Measure("spearman"), pair.one, pair.other
    yield VIEWS[1], Measure("spearman", signed=False), pair.one.abs(), pair.other.abs()


def compared(pair: Pair) -> dict[str, list[float]]:
    """By view: the similarity, and the upper end of what shifted maps give."""
    found = {}
    for name, measure, one, other in views(pair):
        a, b = measure.ready(one), measure.ready(other)
        found[name] = measure.alike(a, b).tolist()
        found[f"{name}, chance up to"] = measure.chance(a, b, pair.seed)["high"]
    return found


def tried(one: Subject, batch: Batch, method: Explainer) -> dict[str, list[float]]:
    """Everything that is measured of one method on some cases, each a list over cases.

    Raises:
        CannotDo: the answer is no map on the grid of the image.
    """
    probe = one.probe(method, batch)
    answer = answered(method, probe)
    here = on_grid(answer, probe)
    if here is None or not isinstance(answer, Attribution):
        raise CannotDo("the answer is no map on the grid of the image", "nothing")
    again = next(fresh_maps(probe, method, stages_of(one.model.module, 1)))
    if again.refused:
        raise CannotDo(again.refused, "nothing")
    fresh = again.maps
    found = compared(Pair(here, fresh, answer.signed, batch.scene.seed))
    bins = sturges(here[0].numel())
    before = entropies(here, bins)
    found["rise of entropy"] = ((entropies(fresh, bins) - before) / before).tolist()
    found["similar to edges"] = likeness_to_edges(Measure("spearman", answer.signed), here, probe)
    return found | other_class(probe, answer, method)


def other_class(probe: Probe, answer: Answer, method: Explainer) -> dict[str, list[float]]:
    """The similarity to the map of another class, where the network has several outputs."""
    nothing = [math.nan] * probe.batch
    if probe.output.shape[1] < 2:
        return {"other class": nothing, "other class, chance up to": nothing}
    score = RandomLogit()(probe, answer, method, None)
    chance = score.detail["chance"]["high"] if score.detail else nothing
    return {"other class": score.values.tolist(), "other class, chance up to": chance}


def measured(one: Subject, batch: Batch, methods: Mapping[str, Explainer]) -> Iterator[dict[str, object]]:
    """One row for each method and case; a method that refuses has no values, and its reason.

    Fresh weights differ from batch to batch, since the batch's first case gives the seed.
    """
    batch = replace(batch, scene=replace(batch.scene, seed=zlib.crc32(batch.names[0].encode())))
    for name, method in methods.items():
        found: dict[str, list[float]] = dict.fromkeys(VALUES, [math.nan] * len(batch.names))
        reason = ""
        try:
            found |= tried(one, batch, method)
        except PellucidError as error:
            reason = error.problem
        for index, case in enumerate(batch.names):
            head = (one.name, batch.patients[index], case, name, reason)
            yield dict(zip(TEXTS, head, strict=True)) | {key: float(found[key][index]) for key in VALUES}


def fill(one: Subject, methods: Mapping[str, Explainer], path: Path, seconds: float) -> bool:
    """Measure the cases that the file does not hold yet, batch by batch, until the time is over.

    Returns:
        Whether all cases are there.
    """
    rows = tables.read(path, TEXTS) if path.is_file() else []
    until, done = time.monotonic() + seconds, {row["case"] for row in rows}
    for batch in one.batches:
        if set(batch.names) <= done:
            continue
        if time.monotonic() > until:
            return False
        started = time.monotonic()
        rows += measured(one, batch, methods)
        tables.write(rows, path)
        taken = time.monotonic() - started
        LOG.info("%s: %s and %d more, %.0f s", one.name, batch.names[0], len(batch.names) - 1, taken)
    return True
