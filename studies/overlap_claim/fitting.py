"""The small network that decides whether a crop holds a lesion."""

import logging
import time
from pathlib import Path

import crops
import numpy as np
import torch
from common import load_weights, save_weights
from torch import Tensor, nn
from torch.nn import functional

from pellucid.demo.networks import Standardize, residual_stages

LOG = logging.getLogger("overlap_claim")
BATCH = 32
RATE = 3e-3


class CropClassifier(nn.Module):
    """The demo's small residual network for gray and for color crops: standardize, stem, stages, average, one logit.

    Args:
        channels: 1 or 3.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.standardize = Standardize()
        self.stem = nn.Sequential(nn.Conv2d(channels, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU())
        self.stages = residual_stages()
        self.head = nn.Linear(64, 1)

    def forward(self, x: Tensor) -> Tensor:
        """One logit per crop."""
        return self.head(self.stages(self.stem(self.standardize(x))).mean(dim=(2, 3)))


def varied(images: Tensor, draw: np.random.Generator) -> Tensor:
    """Mirrored, turned by quarters and of another gamma, each crop its own."""
    turned = [one.rot90(int(draw.integers(4)), (1, 2)) for one in images]
    turned = [one.flip(2) if draw.random() < 0.5 else one for one in turned]
    gamma = torch.from_numpy(np.exp(draw.uniform(-0.3, 0.3, (len(images), 1, 1, 1))).astype(np.float32))
    return torch.stack(turned).clamp_min(1e-4) ** gamma


def fit(shots: list[crops.Shot], seed: int, steps: int, kept: Path) -> nn.Module:
    """Train on fresh crops of the images for a fixed number of steps, or take what an earlier run kept.

    Args:
        shots: trained on.
        seed: of the first weights and of the crops.
        steps: of the optimizer.
        kept: file of the weights.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = CropClassifier(shots[0].pixels.shape[2])
    if kept.is_file():
        load_weights(module, kept)
        return module.eval()
    draw, started = np.random.default_rng(seed), time.process_time()
    optimizer = torch.optim.AdamW(module.parameters(), RATE, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=max(steps, 10))
    pool = crops.drawn(shots, 16, draw)
    rows = [np.flatnonzero(pool.labels == label) for label in (0, 1)]
    module.train()
    for step in range(steps):
        batch = pool.only(np.concatenate([draw.choice(one, BATCH // 2) for one in rows]))
        wanted = torch.from_numpy(batch.labels.astype(np.float32))[:, None]
        loss = functional.binary_cross_entropy_with_logits(module(varied(batch.images, draw)), wanted)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 100 == 99:
            LOG.info("%s step %d loss %.3f, %.0f s", kept.stem, step + 1, loss.item(), time.process_time() - started)
    save_weights(module.eval(), kept)
    load_weights(module, kept)
    return module
