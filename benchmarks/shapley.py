"""Shapley values of 16 parts of real films: coalitions until a peer's error is reached.

The truth is exact: all 65536 coalitions of each film are scored once, and every estimator is paid from that table.
"""

import sys
from collections.abc import Callable, Mapping
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import rivals_shapley as rivals
import torch
from measuring import CannotMeasure, Measured, Setting, at_most, deviation, middle, run, within
from torch import Tensor, nn

from pellucid.core.infill import Constant
from pellucid.core.model import Model
from pellucid.core.players import players_of
from pellucid.core.prepare import InputSpec
from pellucid.core.probe import Probe, Scene
from pellucid.core.target import ClassScore
from pellucid.explain.coalitions import everyone, sampled, shapley_values
from pellucid.explain.shapley import KernelSHAP

STEPS, IMAGES, PLAYERS, COUNT = 600, 21, "grid:4", 16
OURS = (128, 192, 256, 384, 512, 640, 768, 1024, 1280)
REPEATS = {"ours": 5, "peer": 3}
# peer: coalitions of it, coalitions in which its error is to be reached
PEERS = {
    "captum": (rivals.captum_kernel_shap, 2048, 512),
    "shap": (rivals.shap_kernel, 1024, 640),
    "shap, all players kept": (rivals.shap_kernel_plain, 1024, 640),
}
BLACK = Constant(0.0)
ROOT = Path(__file__).resolve().parents[1]
FILMS = ROOT.parent / "shared" / "data" / "xray_pneumoniamnist" / "pneumoniamnist.npz"


class Small(nn.Module):
    """Three convolutions, their mean and maximum, two logits."""

    def __init__(self) -> None:
        super().__init__()
        widths = (1, 8, 16, 32)
        layers = [(nn.Conv2d(a, b, 3, 2, 1), nn.BatchNorm2d(b), nn.ReLU()) for a, b in pairwise(widths)]
        self.body, self.head = nn.Sequential(*(m for layer in layers for m in layer)), nn.Linear(64, 2)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of normal and pneumonia."""
        a = self.body(x)
        return self.head(torch.cat([a.mean((2, 3)), a.amax((2, 3))], 1))


def taught() -> tuple[nn.Module, Tensor, dict[str, Any]]:
    """A network taught here in seconds, films with pneumonia that it never saw and knows, and words for the JSON."""
    if not FILMS.exists():
        raise CannotMeasure("the films of PneumoniaMNIST are not in shared/data beside the clone")
    data = np.load(FILMS)
    torch.manual_seed(0)
    network = Small()
    optimizer = torch.optim.AdamW(network.parameters(), 2e-3)
    films, labels = _films(data, "train")
    for _ in range(STEPS):
        some = torch.randint(0, len(films), (64,))
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(films[some]), labels[some]).backward()
        optimizer.step()
    network.eval()
    films, labels = _films(data, "test")
    with torch.no_grad():
        right = network(films).argmax(1) == labels
    images = films[(labels == 1) & right][:IMAGES, None]
    words = {"model": "three convolutions, taught on PneumoniaMNIST", "accuracy": round(float(right.float().mean()), 3)}
    return network, images, words | {"size": [1, 1, 28, 28], "precision": "float32", "images": len(images)}


def _films(data: Mapping[str, np.ndarray], part: str) -> tuple[Tensor, Tensor]:
    images = torch.from_numpy(data[f"{part}_images"]).float()[:, None] / 255
    return images, torch.from_numpy(data[f"{part}_labels"][:, 0]).long()


def opened(model: Model, x: Tensor, seed: int = 0) -> Probe:
    """A probe of one film, for the logit."""
    return Probe(model, x, ClassScore(1, "head"), scene=Scene(seed=seed))


def payoffs(network: nn.Module, x: Tensor, labels: Tensor) -> Tensor:
    """The score of every coalition, in the order of ``everyone``."""
    keeps = everyone(COUNT).to(x)
    with torch.inference_mode():
        found = [network(x * part[:, labels][:, None])[:, 1] for part in keeps.split(512)]
    return torch.cat(found).double()


def looked_up(paid: Tensor, rows: np.ndarray) -> np.ndarray:
    """Payoffs of coalitions that a peer asks for."""
    return paid.numpy()[rows.astype(np.int64) @ (1 << np.arange(COUNT))]


def ours(paid: Tensor, samples: int, seed: int) -> np.ndarray:
    """KernelSHAP's own strategy, paid from the table."""
    strategy = sampled(COUNT, paid[-1:], samples, None, seed)
    asked = next(strategy)
    while True:
        try:
            asked = strategy.send(paid[asked.long() @ (1 << torch.arange(COUNT))][None])
        except StopIteration as end:
            return end.value.values[0].numpy()


def error(estimate: Callable[[int], np.ndarray], truth: np.ndarray, seeds: range) -> float:
    """Median relative error over seeds."""
    return float(np.median([np.linalg.norm(estimate(seed) - truth) / np.linalg.norm(truth) for seed in seeds]))


def errors(paid: Tensor, film: int) -> dict[str, float]:
    """Of one film: error of each estimator at each number of coalitions; no draw is shared with another film."""
    truth, look = shapley_values(paid[None], COUNT)[0].numpy(), partial(looked_up, paid)
    seeds = {side: range(100 * film, 100 * film + repeats) for side, repeats in REPEATS.items()}
    found = {f"ours {n}": error(partial(ours, paid, n), truth, seeds["ours"]) for n in OURS}
    for name, (peer, samples, _) in PEERS.items():
        found[f"{name} {samples}"] = error(partial(peer, look, COUNT, samples), truth, seeds["peer"])
    return found


def needed(found: dict[str, float], peer: str) -> float:
    """The fewest coalitions that are tried with which ours errs no more than the peer; twice the most where none."""
    return float(next((n for n in OURS if found[f"ours {n}"] <= found[peer]), 2 * OURS[-1]))


def sampling(model: Model, images: Tensor) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Errors by number of coalitions, over the films."""
    players = players_of(opened(model, images[0]), PLAYERS)[0]
    tables = [payoffs(model.module, x, players.labels) for x in images]
    rows = [errors(paid, film) for film, paid in enumerate(tables)]
    bars, ratios = [], {}
    for name, (_, theirs, limit) in PEERS.items():
        peer = f"{name} {theirs}"
        what = f"coalitions of KernelSHAP until the error of {name}, {theirs}"
        bars.append(at_most(limit, what, middle([needed(r, peer) for r in rows])))
        ratios[f"error at {limit} / error of {peer}"] = spread([r[f"ours {limit}"] / r[peer] for r in rows])
    map_ = KernelSHAP(PLAYERS, 256, infill=BLACK)(opened(model, images[0], seed=3)).maps["image"]
    by_table = players.density(torch.from_numpy(ours(tables[0], 256, 3)))
    gap = deviation(map_[0, 0], by_table)
    bars.append(within(1e-4, "KernelSHAP on the film and paid from the table: deviation", gap))
    medians = {name: spread([r[name] for r in rows]) for name in rows[0]}
    return {"relative error": medians, "ratios": ratios}, bars


def spread(values: list[float]) -> dict[str, float]:
    """Median with its interval over the films."""
    found: Measured = middle(values)
    return {k: round(v, 4) for k, v in vars(found).items()}


def measure(_setting: Setting) -> dict[str, Any]:
    """On a network taught here on films of 28 pixels; nothing depends on the clock."""
    network, images, words = taught()
    found, bars = sampling(Model(network, (InputSpec(rank=2, channels=1),)), images)
    return words | {"players": COUNT, **found, "bars": bars}


if __name__ == "__main__":
    sys.exit(run("shapley", measure))
