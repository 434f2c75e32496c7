"""FullGrad against grad-cam's, and against one forward and backward; AblationCAM in the same rounds."""

import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import rivals
import torch
from measuring import Setting, alternate, at_least, counted, ratio, run, table
from panel import explained
from subjects import densenet
from torch import Tensor

from pellucid.explain.channels import AblationCAM
from pellucid.explain.fullgrad import FullGrad


def measure(setting: Setting) -> dict[str, Any]:
    """Both methods on one image; ``pellucid verify`` compares the maps, which differ in scaling.

    AblationCAM has no rival here: grad-cam runs the whole network again for each of 1024 channels, for minutes.
    """
    subject = densenet((224, 224), setting.device)
    network, image, label, clock = subject.network, subject.image, subject.label, setting.clock
    theirs = subject.copy()

    def backward() -> Tensor:
        x = image.clone().requires_grad_()
        return torch.autograd.grad(network(x)[:, label].sum(), x)[0]

    def ours(explainer: FullGrad | AblationCAM) -> Callable[[], object]:
        return partial(explained, subject.model, image, [explainer], label)

    sides: dict[str, Callable[[], object]] = {
        "FullGrad": ours(FullGrad()),
        "bare forward and backward": backward,
        "grad-cam FullGrad": partial(rivals.grad_cam_map, "FullGrad", theirs, subject, label),
        "AblationCAM": ours(AblationCAM(subject.layer)),
    }
    timed = alternate(sides, setting.take(7), setting)
    peer, bare = timed["grad-cam FullGrad"], timed["bare forward and backward"]
    return {
        **subject.words,
        "times": table(timed, "FullGrad", clock),
        "passes": {name: counted(network, sides[name]) for name in ("FullGrad", "AblationCAM")},
        "FullGrad / one forward and backward": vars(ratio(timed["FullGrad"], bare, clock)),
        "bars": [at_least(8, f"{subject.name}: grad-cam FullGrad / FullGrad", ratio(peer, timed["FullGrad"], clock))],
    }


if __name__ == "__main__":
    sys.exit(run("fullgrad", measure))
