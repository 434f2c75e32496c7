"""LRP's epsilon-plus composite against zennit's, and against one forward and backward to the input."""

import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import rivals_relevance as rivals
import torch
from measuring import Setting, alternate, at_least, at_most, counted, deviation, ratio, run, table, within
from panel import explained
from subjects import densenet
from torch import Tensor

from pellucid.explain.relevance import LRP


def measure(setting: Setting) -> dict[str, Any]:
    """One image; the peer has the same rules, batch normalization included, where its own composite lets all pass."""
    subject = densenet((224, 224), setting.device)
    network, image, label, clock = subject.network, subject.image, subject.label, setting.clock
    theirs = rivals.without_in_place(subject.copy())

    def backward() -> Tensor:
        x = image.clone().requires_grad_()
        return torch.autograd.grad(network(x)[:, label].sum(), x)[0]

    ours = partial(explained, subject.model, image, [LRP()], label)
    sides: dict[str, Callable[[], object]] = {
        "LRP epsilon-plus": ours,
        "bare forward and backward": backward,
        "zennit epsilon-plus": partial(rivals.epsilon_plus, theirs, image, label),
    }
    timed = alternate(sides, setting.take(9), setting)
    mine, bare = timed["LRP epsilon-plus"], timed["bare forward and backward"]
    peer = timed["zennit epsilon-plus"]
    (found,) = next(iter(ours()[1].values())).maps.values()
    away = deviation(found, rivals.epsilon_plus(theirs, image, label))
    return {
        **subject.words,
        "times": table(timed, "LRP epsilon-plus", clock),
        "passes": counted(network, ours),
        "zennit / one forward and backward": vars(ratio(peer, bare, clock)),
        "bars": [
            at_most(2.5, f"{subject.name}: LRP epsilon-plus / one forward and backward", ratio(mine, bare, clock)),
            at_least(1.0, f"{subject.name}: zennit / LRP epsilon-plus", ratio(peer, mine, clock)),
            within(1e-4, f"{subject.name}: largest difference of both maps, of the largest value", away),
        ],
    }


if __name__ == "__main__":
    sys.exit(run("relevance", measure))
