"""Quality against forwards of every method that samples masked images, on a trained network and real films.

Twelve blocks play, so that all 4096 coalitions can be asked: Shapley values are exact. A method that has another limit
is measured against its own: LIME and PartitionSHAP with many samples, Occlusion with the finest stride. Captum's
KernelShap runs beside ours on the same blocks, fill and score (the logit). RISE has figures of its own (``rise.py``).
The file is written anew after each film.
"""

import argparse
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from films import WHAT, Films, films
from measuring import Setting, surroundings
from torch import Tensor

from pellucid.core.explainer import Explainer
from pellucid.core.infill import Constant
from pellucid.core.players import players_of
from pellucid.explain.lime import LIME
from pellucid.explain.occlusion import Occlusion
from pellucid.explain.owen import PartitionSHAP
from pellucid.explain.sensitivity import MorrisSensitivity
from pellucid.explain.shapley import ExactShapley, KernelSHAP

FILL, BLOCKS = Constant(0.0), "grid:3x4"
SAMPLES = (32, 64, 128, 256, 512, 1024, 2048)
SPLITS = (16, 24, 32, 48, 64, 96, 128)
TRAJECTORIES = (3, 5, 10, 20, 40, 80)
STRIDES = (4, 8, 14)  # of an image's edge; the window is a quarter of it
FINEST, MANY = 28, 4096
SEEDS = (1,)


@dataclass(frozen=True, eq=False)
class Point:
    """One map on the way to its limit.

    Args:
        forwards: that were asked.
        map: that came out.
        error: standard error of each value as the method states it; None: it states none.
        same: whether values are in the unit of the map they are measured against. Shapley values are shared among a
            player's voxels here; where another method paints the whole value on each voxel, only correlation is told
            (the blocks differ in size by a tenth, which moves a correlation by .005 at most).
    """

    forwards: int
    map: Tensor
    error: Tensor | None = None
    same: bool = True


def ours(some: Films, film: int, method: Explainer, seed: int = 0) -> Point:
    """The map of one film."""
    probe = some.probe(film, "head", seed)
    answer = method(probe)
    error = answer.error["image"] if answer.error else None
    return Point(probe.spent.own.forwards, answer.maps["image"], error)


def captum(some: Films, film: int, samples: int, seed: int) -> Point:
    """Captum's KernelShap on the same blocks, from black."""
    from captum.attr import KernelShap

    x = some.images[film : film + 1]
    blocks = players_of(some.probe(film, "head", 0), BLOCKS)[0].labels[None, None]
    torch.manual_seed(seed)
    with torch.no_grad():
        found = KernelShap(some.model.module).attribute(
            x, 0, target=0, feature_mask=blocks, n_samples=samples, perturbations_per_eval=8
        )
    return Point(samples, found, same=False)


def curves(some: Films, film: int) -> Iterator[tuple[str, Tensor, list[Point]]]:
    """Of each method: name, the map that it is measured against, and its maps in order of forwards."""

    def run(make: Callable[[Any], Explainer], steps: tuple[Any, ...], seeds: tuple[int, ...] = SEEDS) -> list[Point]:
        return [ours(some, film, make(step), seed) for step in steps for seed in seeds]

    exact = ours(some, film, ExactShapley(players=BLOCKS, infill=FILL)).map
    yield "KernelSHAP", exact, run(lambda n: KernelSHAP(BLOCKS, samples=n, infill=FILL), SAMPLES)
    yield "captum KernelShap", exact, [captum(some, film, n, s) for n in SAMPLES for s in SEEDS]
    switched = run(lambda n: MorrisSensitivity(BLOCKS, n, infill=FILL), TRAJECTORIES)
    yield "MorrisSensitivity", exact, [replace(p, same=False) for p in switched]
    limit = ours(some, film, LIME(samples=MANY, players=BLOCKS, infill=FILL), 9).map
    yield "LIME", limit, run(lambda n: LIME(samples=n, players=BLOCKS, infill=FILL), SAMPLES)
    yield "LIME's limit against Shapley values", exact, [Point(MANY, limit, same=False)]
    limit = ours(some, film, PartitionSHAP(BLOCKS, samples=MANY, infill=FILL)).map
    yield "PartitionSHAP", limit, run(lambda n: PartitionSHAP(BLOCKS, n, FILL), SPLITS, (0,))
    yield "PartitionSHAP's limit against Shapley values", exact, [Point(MANY, limit)]
    edge = some.images.shape[-1]
    limit = ours(some, film, Occlusion(edge / 4, edge / FINEST, FILL)).map
    yield "Occlusion", limit, run(lambda n: Occlusion(edge / 4, edge / n, FILL), STRIDES, (0,))


def judged(point: Point, truth: Tensor) -> dict[str, float | int | None]:
    """Correlation with the truth, and errors in standard deviations of the truth: true, and as stated."""
    away, spread = point.map - truth, float(truth.std())
    together = torch.stack([point.map.flatten(), truth.flatten()])
    flat = float(point.map.std()) == 0
    stated = None if point.error is None or not point.same else float((point.error**2).mean().sqrt()) / spread
    return {
        "forwards": point.forwards,
        "correlation": 0.0 if flat else round(float(torch.corrcoef(together)[0, 1]), 4),
        "error": round(float((away**2).mean().sqrt()) / spread, 4) if point.same else None,
        "stated": None if stated is None else round(stated, 4),
    }


def summary(rows: list[dict[str, list[dict[str, Any]]]]) -> dict[str, list[dict[str, Any]]]:
    """By method and step: medians over films and seeds."""
    out: dict[str, list[dict[str, Any]]] = {}
    for name in rows[0]:
        seeds = len(rows[0][name]) // len({p["step"] for p in rows[0][name]})
        groups = [[p for r in rows for p in r[name][i : i + seeds]] for i in range(0, len(rows[0][name]), seeds)]
        out[name] = [
            {
                key: None if group[0][key] is None else round(float(np.median([p[key] for p in group])), 4)
                for key in ("forwards", "correlation", "error", "stated")
            }
            for group in groups
        ]
    return out


def one(some: Films, film: int) -> dict[str, list[dict[str, Any]]]:
    """All curves of one film."""
    out = {}
    for name, truth, points in curves(some, film):
        seeds = len(SEEDS) if name in ("KernelSHAP", "captum KernelShap", "MorrisSensitivity", "LIME") else 1
        out[name] = [judged(p, truth) | {"step": i // seeds} for i, p in enumerate(points)]
    return out


def main() -> None:
    """Measure one network, film by film."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("network", choices=tuple(WHAT))
    parser.add_argument("--films", type=int, default=20)
    parser.add_argument("--out", type=Path, default=Path(__file__).resolve().parent / "results")
    given = parser.parse_args()
    torch.set_num_threads(1)
    some = films(given.network, given.films)
    rows: list[dict[str, list[dict[str, Any]]]] = []
    for film in range(given.films):
        rows.append(one(some, film))
        some.forget()
        result = {
            "benchmark": f"samplers_{given.network}",
            "surroundings": surroundings(Setting()),
            "subject": some.words | {"films": film + 1, "players": BLOCKS, "fill": "black", "unit": "logit"},
            "bars": [],
            "summary": summary(rows),
        }
        given.out.mkdir(parents=True, exist_ok=True)
        part = given.out / f"samplers_{given.network}.json.part"
        part.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        part.replace(part.with_suffix(""))
    print(json.dumps(result))


if __name__ == "__main__":
    main()
