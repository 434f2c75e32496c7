"""What the four training scripts share: options, the loop, intervals, and how weights and results are written."""

import argparse
import hashlib
import json
import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn
from torch.nn import functional

ROOT = Path(__file__).resolve().parent.parent
MODELS = ROOT / "src" / "pellucid" / "demo" / "models"
RESULTS = ROOT / "training" / "results"
CHECKPOINTS = ROOT / "out" / "training"
SEEDS = (0, 1, 2)
LOG = logging.getLogger("training")
Interval = dict[str, float]


@dataclass(frozen=True)
class Options:
    """What a training script was asked for.

    Args:
        data: folder of the data sets.
        iterations: optimizer steps per seed.
        reuse: take a seed's checkpoint of an earlier run where there is one, and only evaluate it.
    """

    data: Path
    iterations: int
    reuse: bool


@dataclass(frozen=True)
class Recipe:
    """One network's training: what is fixed before any data is seen.

    Args:
        name: of the network, and of its folder and result file.
        build: factory of the untrained module.
        iterations: optimizer steps.
        peak_rate: highest learning rate, reached after 50 steps, then falling to 0 with power 0.9.
    """

    name: str
    build: Callable[[], nn.Module]
    iterations: int
    peak_rate: float


@dataclass(frozen=True)
class Trained:
    """A trained module after its weights went through half precision, as they ship.

    Args:
        module: in evaluation mode.
        seed: it was trained from.
        seconds: of training, on one thread.
        iterations: optimizer steps taken.
    """

    module: nn.Module
    seed: int
    seconds: float
    iterations: int


def options(iterations: int) -> Options:
    """Read the command line; one thread, and a log line per hundred steps."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data", help="folder of the data sets")
    parser.add_argument("--iterations", type=int, default=iterations, help="optimizer steps per seed")
    parser.add_argument("--reuse", action="store_true", help="evaluate the checkpoints of an earlier run")
    read = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(1)
    return Options(read.data, read.iterations, read.reuse)


def train(
    recipe: Recipe, seed: int, chosen: Options, loss_of: Callable[[nn.Module, np.random.Generator], Tensor]
) -> Trained:
    """Train one seed for a fixed number of steps, or take its checkpoint when that was asked for.

    Args:
        recipe: what to train and for how long.
        seed: of the initial weights, of dropout and of every random draw of the batches.
        chosen: the command line.
        loss_of: draws a batch from the generator and gives the module's loss on it.
    """
    checkpoint = CHECKPOINTS / f"{recipe.name}-{seed}.safetensors"
    note = checkpoint.with_suffix(".json")
    torch.manual_seed(seed)
    module = recipe.build()
    if not (chosen.reuse and checkpoint.exists()):
        generator = np.random.default_rng(seed)
        seconds = _optimize(recipe, module, chosen.iterations, lambda: loss_of(module, generator))
        save_weights(module, checkpoint)
        write_json({"seconds": round(seconds, 1), "iterations": chosen.iterations}, note)
    load_weights(module, checkpoint)
    return Trained(module.eval(), seed, **json.loads(note.read_text(encoding="utf-8")))


def _optimize(recipe: Recipe, module: nn.Module, iterations: int, loss_now: Callable[[], Tensor]) -> float:
    optimizer = torch.optim.AdamW(module.parameters(), recipe.peak_rate, weight_decay=1e-3)
    started = time.monotonic()
    module.train()
    for step in range(iterations):
        rate = recipe.peak_rate * min(1.0, (step + 1) / 50) * (1 - step / iterations) ** 0.9
        for group in optimizer.param_groups:
            group["lr"] = rate
        loss = loss_now()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(module.parameters(), 5.0)
        optimizer.step()
        if step % 100 == 99:
            LOG.info("%s step %d loss %.4f, %.0f s", recipe.name, step + 1, loss.item(), time.monotonic() - started)
    return time.monotonic() - started


def soft_dice_loss(score: Tensor, truth: Tensor) -> Tensor:
    """One minus the Dice overlap of scores in [0, 1] with a mask, over all items and positions of each channel.

    Args:
        score: batch first, channel second.
        truth: of the same shape, 0 or 1.
    """
    axes = (0, *range(2, score.ndim))
    overlap = 2 * (score * truth).sum(axes) + 1
    return 1 - (overlap / ((score + truth).sum(axes) + 1)).mean()


def resize(image: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize (C, H, W) bilinearly with half-pixel centers, antialiased when shrinking."""
    return functional.interpolate(image[None], size=size, mode="bilinear", antialias=True, align_corners=False)[0]


def save_weights(module: nn.Module, path: Path) -> None:
    """Write the weights in half precision, atomically."""
    state = {
        name: (value.detach().half() if value.is_floating_point() else value).contiguous()
        for name, value in module.state_dict().items()
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    save_file(state, partial)
    partial.chmod(0o644)  # safetensors makes it readable to its owner only, and the wheel would keep that
    partial.replace(path)


def load_weights(module: nn.Module, path: Path) -> None:
    """Read half-precision weights back into a single-precision module."""
    module.load_state_dict(load_file(path))


def write_json(content: dict, path: Path) -> None:
    """Write JSON, atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    partial.replace(path)


def _percentiles(center: float, draws: Sequence[float]) -> Interval:
    low, high = np.percentile(draws, [2.5, 97.5])
    return {"value": round(float(center), 4), "low": round(float(low), 4), "high": round(float(high), 4)}


def mean_interval(values: Sequence[float], groups: Sequence[object], draws: int = 4000) -> Interval:
    """Mean over groups of the group's mean, with a 95% bootstrap interval that draws whole groups.

    Args:
        values: one per item.
        groups: patient of each item.
        draws: of the bootstrap, from seed 0.
    """
    array, owner = np.asarray(values, dtype=float), np.asarray(groups)
    means = np.array([array[owner == one].mean() for one in np.unique(owner)])
    generator = np.random.default_rng(0)
    return _percentiles(means.mean(), [generator.choice(means, len(means)).mean() for _ in range(draws)])


def auc_interval(labels: NDArray, scores: NDArray, groups: NDArray, draws: int = 1000) -> Interval:
    """Area under the ROC curve with a 95% bootstrap interval that draws whole groups (seed 0)."""
    generator = np.random.default_rng(0)
    names = np.unique(groups)
    members = [np.flatnonzero(groups == one) for one in names]
    areas = []
    for _ in range(draws):
        rows = np.concatenate([members[index] for index in generator.integers(len(names), size=len(names))])
        if 0 < labels[rows].sum() < len(rows):
            areas.append(roc_auc_score(labels[rows], scores[rows]))
    return _percentiles(roc_auc_score(labels, scores), areas)


def share_interval(hits: NDArray, groups: NDArray) -> Interval:
    """Share of items that hit, with a 95% bootstrap interval that draws whole groups (seed 0)."""
    generator = np.random.default_rng(0)
    names = np.unique(groups)
    good = np.array([hits[groups == one].sum() for one in names], dtype=float)
    size = np.array([(groups == one).sum() for one in names], dtype=float)
    picks = [generator.integers(len(names), size=len(names)) for _ in range(4000)]
    return _percentiles(good.sum() / size.sum(), [good[rows].sum() / size[rows].sum() for rows in picks])


def at_specificity(scores: NDArray, labels: NDArray, specificity: float = 0.95) -> float:
    """Lowest threshold at which at least this share of the normals is called normal (score below it)."""
    normals = np.sort(scores[labels == 0])
    needed = math.ceil(specificity * len(normals)) - 1
    return float(np.nextafter(normals[needed], np.inf))


def publish(recipe: Recipe, runs: Sequence[tuple[Trained, dict]], validation_score: str, report: dict) -> None:
    """Ship the seed that did best on validation, and write down what every seed reached.

    Args:
        recipe: of the network.
        runs: each seed's trained module and its figures, a dict with ``validation`` and ``test``.
        validation_score: key in ``validation`` that chooses the seed.
        report: what else belongs into the result file: data, splits, baselines.
    """
    best, figures = max(runs, key=lambda run: run[1]["validation"][validation_score]["value"])
    weights = MODELS / recipe.name / "weights.safetensors"
    save_weights(best.module, weights)
    parameters = sum(value.numel() for value in best.module.parameters())
    record = {
        "network": recipe.name,
        "parameters": parameters,
        "weights": {
            "file": f"src/pellucid/demo/models/{recipe.name}/weights.safetensors",
            "bytes": weights.stat().st_size,
            "sha256": hashlib.sha256(weights.read_bytes()).hexdigest(),
            "precision": "float16",
        },
        "training": {
            "iterations": best.iterations,
            "peak_rate": recipe.peak_rate,
            "torch": torch.__version__,
            "threads": 1,
            "seconds": {str(run.seed): run.seconds for run, _ in runs},
        },
        "shipped_seed": best.seed,
        "chosen_by": f"validation {validation_score}, never the test score",
        "shipped": figures,
        "seeds": {str(run.seed): values for run, values in runs},
        "intervals": "95% bootstrap, whole patients drawn; they do not hold the variance between seeds",
        **report,
    }
    write_json(record, RESULTS / f"{recipe.name}.json")
    LOG.info("%s: shipped seed %d: %s", recipe.name, best.seed, json.dumps(figures))
