"""Attention: GradientAttentionRollout against one forward and backward, and how much memory a rollout takes.

The memory is that of a process of its own, which this script starts with ``--peak``.
"""

import json
import resource
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import torch
from measuring import Setting, alternate, at_most, counted, ratio, run, table, within
from panel import explained
from subjects import LABELS, Subject
from torch import Tensor, nn

from pellucid.core.model import Model, OutputSpec
from pellucid.core.prepare import InputSpec
from pellucid.core.probe import Probe, Scene
from pellucid.core.target import RegionScore
from pellucid.explain.rollout import AttentionRollout, GradientAttentionRollout

ROUNDS = 9


class OnlyLogits(nn.Module):
    """MONAI's ViT gives its hidden states as well."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x)[0]


def transformer(device: str) -> Subject:
    """ViT-B/16 at 224 x 224, random weights."""
    from monai.networks.nets import ViT

    torch.manual_seed(0)
    network = ViT(1, (224, 224), 16, classification=True, num_classes=LABELS, spatial_dims=2, post_activation="none")
    image = torch.rand(1, 1, 224, 224).to(device)
    return Subject("MONAI ViT-B/16, 224 x 224", OnlyLogits(network).eval().to(device), image, "")


def measure(setting: Setting) -> dict[str, Any]:
    """Time of the gradient's rollout, memory of the plain one."""
    subject = transformer(setting.device)
    network, image, label, model = subject.network, subject.image, subject.label, subject.model

    def backward() -> Tensor:
        x = image.clone().requires_grad_()
        return torch.autograd.grad(network(x)[:, label].sum(), x)[0]

    ours = partial(explained, model, image, [GradientAttentionRollout()], label)
    sides = {"GradientAttentionRollout": ours, "bare forward and backward": backward}
    timed = alternate(sides, setting.take(ROUNDS), setting)
    found = ratio(timed["GradientAttentionRollout"], timed["bare forward and backward"], setting.clock)
    peak = json.loads(
        subprocess.run([sys.executable, __file__, "--peak"], capture_output=True, text=True, check=True).stdout
    )
    return {
        **subject.words,
        "times": table(timed, "GradientAttentionRollout", setting.clock),
        "passes": counted(network, ours),
        "peak": peak,
        "bars": [
            at_most(1.3, f"{subject.name}: GradientAttentionRollout / one forward and backward", found),
            within(2048, "SwinUNETR, 96 x 96 x 96: AttentionRollout, MiB above what the process held", peak["mib"]),
        ],
    }


def peak() -> None:
    """One rollout of a SwinUNETR in this process, and the most memory it ever held."""
    from monai.networks.nets import SwinUNETR

    torch.manual_seed(0)
    torch.set_num_threads(1)
    model = Model(SwinUNETR(1, 2).eval(), (InputSpec(rank=3),), OutputSpec("segmentation"))
    x, box = torch.rand(1, 1, 96, 96, 96), torch.zeros(96, 96, 96, dtype=torch.bool)
    box[30:50, 30:50, 30:50] = True
    method = AttentionRollout()
    before = psutil.Process().memory_info().rss // 1024  # the maximum is that of the process which started this one
    needs = method.needs(model, {"image": x})
    found = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    answer = method(Probe(model, x, RegionScore(1, "box"), needs, Scene(regions={"box": box})))
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # KiB on Linux
    told = {"before_mib": before, "places_mib": found, "whole_mib": most, "mib": most - before}
    print(json.dumps({k: round(v / 1024, 1) for k, v in told.items()} | {"cell": answer.cell}))


if __name__ == "__main__":
    if "--peak" in sys.argv[1:]:
        peak()
    else:
        sys.path.insert(0, str(Path(__file__).parent))
        sys.exit(run("attention", measure))
