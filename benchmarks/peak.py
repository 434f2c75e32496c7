"""A fresh process that makes one map and tells how much memory that took; ``paths.py`` and ``loops.py`` start it.

Memory that an allocator keeps would hide the second of two measurements in one process.
"""

import argparse
import json
import resource
import sys
from collections.abc import Callable

import psutil
import rivals
import torch
from measuring import peak_mib
from panel import explained
from subjects import LABELS, Subject, densenet, subject
from torch import nn

from pellucid.core.explainer import Explainer
from pellucid.core.infill import Constant
from pellucid.explain.expected import ExpectedGradients
from pellucid.explain.lime import LIME
from pellucid.explain.noise import SmoothGrad
from pellucid.explain.occlusion import Occlusion
from pellucid.explain.owen import PartitionSHAP
from pellucid.explain.path import IntegratedGradients
from pellucid.explain.rise import RISE
from pellucid.explain.shapley import KernelSHAP

METHODS: dict[str, Callable[[int], Explainer]] = {
    "IntegratedGradients": lambda samples: IntegratedGradients(steps=samples),
    "SmoothGrad": lambda samples: SmoothGrad(samples=samples),
    "ExpectedGradients": lambda samples: ExpectedGradients(samples=samples),
}
PERTURBING: dict[str, Callable[[int], Explainer]] = {
    "RISE": lambda samples: RISE(samples, None),
    "KernelSHAP": lambda samples: KernelSHAP("grid:3", samples),
    "LIME": lambda samples: LIME(samples=samples, players="grid:3"),
    "Occlusion": lambda samples: Occlusion(64 / round(samples ** (1 / 3)), 64 / round(samples ** (1 / 3))),
    "PartitionSHAP": lambda samples: PartitionSHAP("grid:4", samples),
}


def integrated(steps: int) -> Explainer:
    """As captum has it by default: from zero, by Gauss-Legendre."""
    return IntegratedGradients(steps=steps, baseline=Constant(0.0), rule="gauss")


def small_volume(edge: int, device: str = "cpu") -> Subject:
    """A small 3-D classifier: what is asked is whether memory grows, not how fast a large network is."""
    torch.manual_seed(0)
    blocks = [_block(1, 8), _block(8, 16), _block(16, 32)]
    network = nn.Sequential(*blocks, nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(32, LABELS))
    name = f"3-D network of three strided convolutions, {edge} x {edge} x {edge}"
    return subject(name, network, (edge,) * 3, "2", device)


def _block(channels: int, wider: int) -> nn.Module:
    return nn.Sequential(nn.Conv3d(channels, wider, 3, 2, 1), nn.BatchNorm3d(wider), nn.ReLU())


def side(name: str, samples: int, edge: int, device: str) -> Callable[[], object]:
    """What is measured: ``captum`` or ``pellucid`` (integrated gradients in 2-D), or a method by name in 3-D."""
    by_name = METHODS | PERTURBING
    if name in by_name:
        volume = small_volume(edge, device)
        model, label = volume.model, volume.label
        return lambda: explained(model, volume.image, [by_name[name](samples)], label)
    image = densenet((edge, edge), device)
    model, label = image.model, image.label
    if name == "captum":
        return lambda: rivals.captum_integrated(image.network, image, label, samples)
    return lambda: explained(model, image.image, [integrated(samples)], label)


def main() -> int:
    """Print MiB above what the process held before."""
    parser = argparse.ArgumentParser()
    parser.add_argument("side")
    parser.add_argument("samples", type=int)
    parser.add_argument("edge", type=int)
    parser.add_argument("--device", default="cpu")
    given = parser.parse_args()
    torch.set_num_threads(1)
    made = side(given.side, given.samples, given.edge, given.device)
    if given.device == "cuda":
        print(json.dumps({"mib": peak_mib(made)}))
        return 0
    before = psutil.Process().memory_info().rss
    made()
    most = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # KiB on Linux
    print(json.dumps({"mib": round((most - before) / 2**20, 1)}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
