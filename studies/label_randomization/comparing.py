"""How similar the maps of two networks are, film by film, and what labels take away of that, with intervals."""

from collections.abc import Mapping, Sequence
from itertools import combinations, permutations

import numpy as np
import torch
from fitting import KINDS, Fitted
from numpy.typing import NDArray
from torch import Tensor

from pellucid.metrics.randomization.alike import Measure

DRAWS = 4000
MEASURES = ("ranks", "ranks of magnitudes", "SSIM")
PAIRS = ("true, true", "true, shuffled", "true, brightness", "same start: true, shuffled", "shuffled, shuffled")
Maps = Mapping[tuple[str, int], Tensor]


def pairs_of(seeds: Sequence[int]) -> dict[str, list[tuple[tuple[str, int], tuple[str, int]]]]:
    """Networks that are compared, by kind of pair; a network is its labels and its seed."""
    return {
        PAIRS[0]: [(("true", a), ("true", b)) for a, b in combinations(seeds, 2)],
        PAIRS[1]: [(("true", a), ("shuffled", b)) for a, b in permutations(seeds, 2)],
        PAIRS[2]: [(("true", a), ("brightness", b)) for a, b in permutations(seeds, 2)],
        PAIRS[3]: [(("true", a), ("shuffled", a)) for a in seeds],
        PAIRS[4]: [(("shuffled", a), ("shuffled", b)) for a, b in combinations(seeds, 2)],
    }


def similarities(maps: Maps, signed: bool, seeds: Sequence[int]) -> dict[str, dict[str, NDArray[np.float64]]]:
    """By measure and kind of pair, "pair film".

    Args:
        maps: "film 28 28" of each network.
        signed: whether they have both signs.
        seeds: of the networks.
    """
    found = {}
    for name, measure, part in zip(
        MEASURES,
        (Measure("spearman"), Measure("spearman"), Measure("ssim", signed)),
        (lambda m: m, torch.abs, lambda m: m),
        strict=True,
    ):
        ready = {key: measure.ready(part(one)) for key, one in maps.items()}
        found[name] = {
            kind: torch.stack([measure.alike(ready[a], ready[b]) for a, b in pairs]).numpy()
            for kind, pairs in pairs_of(seeds).items()
        }
    return found


def interval(values: NDArray[np.float64]) -> dict[str, float]:
    """Mean over films, with the middle 95% of draws of whole films (seed 0); films without a value are left out."""
    values = values[np.isfinite(values)]
    if not len(values):
        return {"value": float("nan"), "low": float("nan"), "high": float("nan")}
    draw = np.random.default_rng(0)
    means = values[draw.integers(len(values), size=(DRAWS, len(values)))].mean(1)
    ends = [values.mean(), *np.percentile(means, [2.5, 97.5])]
    return {name: round(float(v), 3) for name, v in zip(("value", "low", "high"), ends, strict=True)}


def summary(found: dict[str, dict[str, NDArray[np.float64]]]) -> dict[str, dict]:
    """By measure: each kind of pair, what shuffled labels take away, and the lowest and highest pair of networks."""
    told = {}
    for name, kinds in found.items():
        films = {kind: _mean(values, 0) for kind, values in kinds.items()}
        told[name] = {
            **{kind: interval(values) for kind, values in films.items()},
            "lost with the labels": interval(films[PAIRS[0]] - films[PAIRS[1]]),
            "lost with the task": interval(films[PAIRS[0]] - films[PAIRS[2]]),
            "range over pairs": {kind: _range(values) for kind, values in kinds.items()},
            "films": int(np.isfinite(films[PAIRS[0]] - films[PAIRS[1]]).sum()),
        }
    return told


def _mean(values: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
    """Over those that have a value; NaN where none has."""
    there = np.isfinite(values)
    count = there.sum(axis)
    return np.where(count > 0, np.where(there, values, 0).sum(axis) / np.maximum(count, 1), np.nan)


def _range(values: NDArray[np.float64]) -> list[float]:
    means = _mean(values, 1)
    means = means[np.isfinite(means)]
    return [round(float(means.min()), 3), round(float(means.max()), 3)] if len(means) else []


def described(fitted: Sequence[Fitted]) -> dict[str, dict]:
    """What each kind of training reached, seed by seed."""
    return {
        kind: {
            "remembered": [round(one.remembered, 4) for one in fitted if one.labels == kind],
            "auc_held_out": [round(one.auc, 4) for one in fitted if one.labels == kind],
            "auc_of_what_was_taught": [round(one.learned, 4) for one in fitted if one.labels == kind == "brightness"],
        }
        for kind in KINDS
    }
