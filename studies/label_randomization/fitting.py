"""The small network of the study, trained on true labels, on shuffled ones, or on another task that can be learned."""

import time
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn
from torch.nn import functional

Labels = Literal["true", "shuffled", "brightness"]
KINDS: tuple[Labels, ...] = ("true", "shuffled", "brightness")
BATCH = 50
RATE = 2e-3


@dataclass(frozen=True, eq=False)
class Films:
    """Films at 28 x 28 pixels.

    Args:
        images: (N, 1, 28, 28), after ``standardized`` in standard deviations from the mean gray.
        labels: (N,), 1 is pneumonia.
    """

    images: Tensor
    labels: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Fitted:
    """A trained network.

    Args:
        module: in evaluation mode.
        labels: it was trained on.
        seed: of its first weights and of the order of the films.
        remembered: share of the films trained on that it calls as it was told.
        auc: on held-out films, of their true labels.
        learned: the same of what it was taught; of shuffled labels nothing can be known of a held-out film: NaN.
        seconds: of training, of the processor.
    """

    module: nn.Module
    labels: Labels
    seed: int
    remembered: float
    auc: float
    learned: float
    seconds: float


def network() -> nn.Module:
    """Three convolutions and two linear layers, wide enough to remember a thousand films: one logit."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(32, 32, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(32 * 49, 64),
        nn.ReLU(),
        nn.Linear(64, 1),
    )


def balanced(films: Films, each: int, seed: int = 0) -> Films:
    """As many films of either label, drawn from a seed."""
    draw = np.random.default_rng(seed)
    rows = [draw.choice(np.flatnonzero(films.labels == one), each, replace=False) for one in (0, 1)]
    rows = np.sort(np.concatenate(rows))
    return Films(films.images[torch.from_numpy(rows)], films.labels[rows])


def standardized(films: Films, like: Films) -> Films:
    """Gray values in standard deviations from the mean of ``like``: zero is its mean gray."""
    return Films((films.images - like.images.mean()) / like.images.std(), films.labels)


def shuffled(labels: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    """The same labels in an order that knows nothing of the films."""
    return np.random.default_rng([seed, 1]).permutation(labels)


def bright(films: Films, level: float) -> NDArray[np.int64]:
    """Which films are brighter on average than ``level``: a task that the network can learn and no physician asks."""
    return (films.images.flatten(1).mean(1) > level).numpy().astype(np.int64)


def fit(films: Films, held_out: Films, kind: Labels, seed: int, epochs: int) -> Fitted:
    """Train for a fixed number of epochs without augmentation, so that shuffled labels can be learned by heart.

    Networks of one seed begin with the same weights and see the films in the same order: only the labels differ.
    """
    level = float(films.images.flatten(1).mean(1).median())
    told = {
        "true": films.labels,
        "shuffled": shuffled(films.labels, seed),
        "brightness": bright(films, level),
    }[kind]
    wanted, started = torch.from_numpy(told.astype(np.float32))[:, None], time.process_time()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = network()
    order = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(module.parameters(), RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    for _ in range(epochs):
        for rows in torch.randperm(len(told), generator=order).split(BATCH):
            loss = functional.binary_cross_entropy_with_logits(module(films.images[rows]), wanted[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        schedule.step()
    seconds = time.process_time() - started
    module.eval()
    with torch.inference_mode():
        remembered = float(((module(films.images) > 0).float() == wanted).float().mean())
        scores = module(held_out.images)[:, 0].numpy()
    truth = {"true": held_out.labels, "brightness": bright(held_out, level)}.get(kind)
    learned = float("nan") if truth is None else float(roc_auc_score(truth, scores))
    return Fitted(module, kind, seed, remembered, float(roc_auc_score(held_out.labels, scores)), learned, seconds)
