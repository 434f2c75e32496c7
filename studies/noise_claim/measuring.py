"""How far the map of a noisy copy is from the map of the image, in four measures, case by case."""

import logging
import math
import time
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tables
import torch
from numpy.typing import NDArray
from subjects import Batch, Subject, map_of, of_case
from torch import Tensor

from pellucid.core.explainer import Explainer
from pellucid.core.probe import Probe
from pellucid.metrics.likeness import spearman, structure, top_overlap
from pellucid.metrics.randomization.edges import edge_map
from pellucid.metrics.robustness.noise import Bank

LOG = logging.getLogger("noise_claim")
SIGMAS = (0.01, 0.05, 0.1)
MEASURES = ("relative L2", "1 - Spearman", "1 - SSIM", "1 - top-tenth overlap")
SAME_DICE = 0.9  # ours: a segmentation whose mask keeps this overlap says the same
EDGES, ITSELF = "edges of the image (no network)", "the image itself (no network)"
COLUMNS = ("network", "patient", "case", "method", "sigma", "copies", "kept")
TEXTS = COLUMNS[:4]


@dataclass(frozen=True)
class Plan:
    """What is done with one network.

    Args:
        count: cases.
        copies: noisy copies of each case and size of noise.
        methods: by name; None stands for a control without a network.
    """

    count: int
    copies: int
    methods: Mapping[str, Explainer | None]


def changes(before: NDArray[np.float64], after: NDArray[np.float64]) -> tuple[float, ...]:
    """The four measures of one pair of maps, 0 for the same map; NaN where a measure says nothing.

    The relative L2 distance has no upper end; rank correlation is of the signed map (up to 2 for one turned around),
    structure of each map brought to 0 to 1, and the strongest tenth is of magnitudes.
    """
    if not (np.isfinite(before).all() and np.isfinite(after).all() and before.any()):
        return (math.nan,) * len(MEASURES)
    overlap = top_overlap(np.abs(before).ravel(), np.abs(after).ravel())
    return (
        float(np.linalg.norm(after - before) / np.linalg.norm(before)),
        1 - spearman(before.ravel(), after.ravel()),
        1 - structure(before, after),
        math.nan if overlap is None else 1 - overlap,
    )


def noisy(one: Subject, batch: Batch, sigma: float, copies: int) -> list[Tensor]:
    """Copies with Gaussian noise, every case with draws of its own; a larger sigma scales the same draws."""
    each = []
    for index, name in enumerate(batch.names):
        alone = one.probe(None, of_case(batch, index, zlib.crc32(name.encode())))
        each.append([x[one.model.primary] for x in Bank("gaussian", sigma, copies).inputs(alone)])
    return [torch.cat([copy[number] for copy in each]) for number in range(copies)]


def same(one: Subject, before: Tensor, after: Tensor) -> Tensor:
    """Whether each case is still called the same: the side of an even score, or the mask of the explained label."""
    spec = one.model.output
    old, new = (spec.predicted(output)[:, [one.label]].flatten(1) for output in (before, after))
    if spec.task == "classification":
        return (old == new).all(1)
    return 2 * (old & new).sum(1) >= SAME_DICE * (old.sum(1) + new.sum(1))


def drawn(name: str, method: Explainer | None, probe: Probe) -> NDArray[np.float64]:
    """The maps of a method, or of a control."""
    if method is not None:
        return map_of(method, probe).double().numpy()
    if name == EDGES:
        return edge_map(probe).double().numpy()
    return probe.inputs[probe.model.primary].mean(1).double().numpy()


def measured(one: Subject, batch: Batch, plan: Plan) -> Iterator[dict[str, object]]:
    """One row for each case, method and size of noise."""
    copies = {sigma: noisy(one, batch, sigma, plan.copies) for sigma in SIGMAS}
    before = one.probe(None, batch).output
    kept = {s: torch.stack([same(one, before, one.probe(None, batch, x).output) for x in copies[s]]) for s in SIGMAS}
    for name, method in plan.methods.items():
        here = one.probe(method, batch)
        needs = [] if method is None else method.needs(one.model, here.inputs)
        old = drawn(name, method, here)
        for sigma in SIGMAS:
            elsewhere = [here.elsewhere({one.model.primary: x}, needs) for x in copies[sigma]]
            new = [drawn(name, method, probe) for probe in elsewhere]
            for index, case in enumerate(batch.names):
                found = np.array([changes(old[index], maps[index]) for maps in new])
                mine = kept[sigma][:, index].numpy()
                head = (one.name, batch.patients[index], case, name, sigma, plan.copies, int(mine.sum()))
                values = {m: _mean(found[mine, i]) for i, m in enumerate(MEASURES)}
                every = {f"{m}, all copies": _mean(found[:, i]) for i, m in enumerate(MEASURES)}
                yield {**dict(zip(COLUMNS, head, strict=True)), **values, **every}


def _mean(values: NDArray[np.float64]) -> float:
    """Over copies; NaN without one, or where one has no value."""
    return float(values.mean()) if len(values) else math.nan


def fill(one: Subject, plan: Plan, path: Path, seconds: float) -> bool:
    """Measure the cases that the file does not hold yet, batch by batch, until the time is over.

    Returns:
        Whether all cases are there.
    """
    rows = tables.read(path, TEXTS) if path.is_file() else []
    until = time.monotonic() + seconds
    done = {row["case"] for row in rows}
    for batch in one.batches:
        if set(batch.names) <= done:
            continue
        if time.monotonic() > until:
            return False
        started = time.monotonic()
        rows += measured(one, batch, plan)
        tables.write(rows, path)
        taken = time.monotonic() - started
        LOG.info("%s: %s and %d more, %.0f s", one.name, batch.names[0], len(batch.names) - 1, taken)
    return True
