"""The gradient of a sliding-window prediction: does its memory grow with the volume, beyond the volume itself?"""

import argparse
import json
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import torch
from measuring import ONE_THREAD, CannotMeasure, Setting, run, within
from monai.inferers.utils import sliding_window_inference
from torch import Tensor, nn

from pellucid.core.card import Ask
from pellucid.core.model import Model, OutputSpec
from pellucid.core.prepare import InputSpec
from pellucid.core.probe import Probe, Scene
from pellucid.core.target import RegionScore
from pellucid.core.windows import SlidingWindows

WINDOWS = SlidingWindows((64, 64, 64), 0.25)
CLASSES, WIDTH = 2, 8
EDGES = (128, 192)
BALL = 12  # voxels: radius of the region, in the middle of the volume, where windows meet
GROWTH = 1.1  # what an allocator may waste
# float32 arrays of the volume's size that are held at once: the blend and its cotangent, each of all classes, the sum
# of weights, and the gradient
HELD = 2 * CLASSES + 2
GIVES_BACK = {"MALLOC_MMAP_THRESHOLD_": str(2**16)}  # freed blocks go back to the system at once


def opened(edge: int) -> Probe:
    """A volume of noise with a ball as region, and three convolutions at full resolution with random weights."""
    torch.manual_seed(0)
    network = nn.Sequential(*_block(1), *_block(WIDTH), *_block(WIDTH), nn.Conv3d(WIDTH, CLASSES, 1)).eval()
    line = (torch.arange(edge) - edge / 2).square()
    ball = (line[:, None, None] + line[:, None] + line) < BALL**2
    model = Model(network, (InputSpec(rank=3),), OutputSpec("segmentation"), inference=WINDOWS)
    x = torch.randn(1, 1, edge, edge, edge)
    return Probe(model, x, RegionScore(1, "ball"), ((Ask.INPUT_GRADIENT, None),), Scene(regions={"ball": ball}))


def _block(channels: int) -> tuple[nn.Module, ...]:
    return nn.Conv3d(channels, WIDTH, 3, 1, 1), nn.InstanceNorm3d(WIDTH), nn.ReLU()


def by_autograd(probe: Probe) -> Tensor:
    """The same, with MONAI's blend and the graph of every window."""
    x = probe.inputs["image"].clone().requires_grad_()
    network = probe.model.module
    blend = sliding_window_inference(x, WINDOWS.size, 1, network, WINDOWS.overlap, WINDOWS.blend)
    ball = probe.scene.regions["ball"]
    return torch.autograd.grad(blend[:, 1][:, ball].mean(), x)[0]  # pyright: ignore[reportArgumentType, reportCallIssue]


def child(side: str, edge: int) -> dict[str, Any]:
    """MiB above what the process held before, and the processor's seconds."""
    torch.set_num_threads(1)
    probe = opened(edge)
    process = psutil.Process()
    before, began = process.memory_info().rss, process.cpu_times().user
    found = by_autograd(probe) if side == "monai" else probe.input_gradient["image"]
    most = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # KiB on Linux
    return {
        "mib": round((most - before) / 2**20, 1),
        "volume_mib": round(HELD * 4 * edge**3 / 2**20, 1),
        "cpu_s": round(process.cpu_times().user - began, 1),
        "windows": [probe.spent.windows.forwards, probe.spent.windows.backwards],
        "norm": float(found.double().norm()),
    }


def peak(side: str, edge: int) -> dict[str, Any]:
    """What a fresh process says."""
    command = [sys.executable, str(Path(__file__)), "--side", side, "--edge", str(edge)]
    env = os.environ | ONE_THREAD | GIVES_BACK
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=env)
    return json.loads(done.stdout.strip().splitlines()[-1])


def measure(setting: Setting) -> dict[str, Any]:
    """Two volumes, and at the smaller one autograd through MONAI's blend."""
    if setting.device != "cpu":
        raise CannotMeasure("a process tells its peak in main memory only: leave out --device")
    ours = {edge: peak("pellucid", edge) for edge in EDGES}
    theirs = peak("monai", EDGES[0])
    small, large = (ours[edge]["mib"] - ours[edge]["volume_mib"] for edge in EDGES)
    few, many = EDGES
    return {
        "model": f"three convolutions of {WIDTH} channels at full resolution, random weights",
        "windows": WINDOWS.words,
        "pellucid": {f"{edge}^3": found for edge, found in ours.items()},
        "autograd through MONAI's blend": {f"{few}^3": theirs},
        "deviation of the gradient's norm": abs(ours[few]["norm"] / theirs["norm"] - 1),
        "bars": [
            within(
                GROWTH, f"peak without {HELD} arrays of the volume's size, {many}^3 / {few}^3", round(large / small, 4)
            ),
            within(
                0.4, f"peak at {few}^3 / autograd's through MONAI's blend", round(ours[few]["mib"] / theirs["mib"], 4)
            ),
        ],
    }


if __name__ == "__main__":
    if "--side" in sys.argv:
        parser = argparse.ArgumentParser()
        parser.add_argument("--side")
        parser.add_argument("--edge", type=int)
        given = parser.parse_args()
        print(json.dumps(child(given.side, given.edge)))
        sys.exit(0)
    sys.exit(run("windows", measure))
