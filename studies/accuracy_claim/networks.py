"""Networks from a logistic regression on pixels to a wide convolutional one, and how each is trained."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from common import load_weights, save_weights
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

BATCH = 50
RATE, FEW_WEIGHTS = 1e-3, 3e-2  # a handful of weights would not get there in as many steps
DECAY = 3.0  # of networks that are held back: weights left alone would halve in some hundred steps
SIDE = 28


@dataclass(frozen=True)
class Design:
    """What a network is and how it is held back.

    Args:
        name: for tables.
        widths: channels of its convolutions; empty: none.
        hidden: width of the hidden linear layer; 0: none.
        strict: whether it is held back by dropout and strong weight decay.
        squares: side in pixels of the squares whose means it sees; 1: the pixels.
    """

    name: str
    widths: tuple[int, ...] = ()
    hidden: int = 0
    strict: bool = False
    squares: int = 1

    def build(self) -> nn.Module:
        """An untrained module of one logit: (B, 1, 28, 28) to (B, 1)."""
        layers: list[nn.Module] = []
        channels, side = 1, SIDE // self.squares
        if self.squares > 1:
            layers.append(nn.AvgPool2d(self.squares))
        for depth, width in enumerate(self.widths):
            stride = 1 if depth == 0 and len(self.widths) > 1 else 2
            layers += [nn.Conv2d(channels, width, 3, stride, 1), nn.ReLU()]
            channels, side = width, -(-side // stride)
        layers.append(nn.Flatten())
        size = channels * side * side
        if self.hidden:
            layers += [nn.Linear(size, self.hidden), nn.ReLU()]
            size = self.hidden
        if self.strict:
            layers.append(nn.Dropout(0.5))
        return nn.Sequential(*layers, nn.Linear(size, 1))


_PLAIN = (
    Design("logistic on 4 means", squares=14),
    Design("logistic on 16 means", squares=7),
    Design("logistic"),
    Design("one hidden layer", hidden=64),
    Design("1 convolution", (4,)),
    Design("2 convolutions", (8, 16)),
    Design("3 convolutions", (16, 32, 32), 32),
    Design("4 convolutions", (24, 48, 64, 64), 64),
)
DESIGNS = tuple(
    Design(one.name + (", held back" if strict else ""), one.widths, one.hidden, strict, one.squares)
    for one in _PLAIN
    for strict in (False, True)
)


@dataclass(frozen=True, eq=False)
class Films:
    """Films at 28 x 28 pixels.

    Args:
        images: (N, 1, 28, 28), in standard deviations from the mean gray of those trained on.
        labels: (N,), 1 is pneumonia.
    """

    images: Tensor
    labels: NDArray[np.int64]


def fit(design: Design, films: Films, seed: int, epochs: int, kept: Path) -> nn.Module:
    """Train for a fixed number of epochs, or take what an earlier run kept.

    Args:
        design: of the network.
        films: trained on.
        seed: of the first weights, dropout and the order of the films.
        epochs: of training.
        kept: file of the weights.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = design.build()
        if not kept.is_file():
            rate = RATE if design.squares == 1 else FEW_WEIGHTS
            _train(module, films, epochs, (rate, DECAY * RATE / rate if design.strict else 0.0))
            save_weights(module, kept)
    load_weights(module, kept)
    return module.eval()


def _train(module: nn.Module, films: Films, epochs: int, pace: tuple[float, float]) -> None:
    wanted = torch.from_numpy(films.labels.astype(np.float32))[:, None]
    optimizer = torch.optim.AdamW(module.parameters(), pace[0], weight_decay=pace[1])
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    module.train()
    for _ in range(epochs):
        for rows in torch.randperm(len(wanted)).split(BATCH):
            loss = functional.binary_cross_entropy_with_logits(module(films.images[rows]), wanted[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        schedule.step()
