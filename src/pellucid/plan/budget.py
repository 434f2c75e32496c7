"""How long one pass takes on this machine."""

import time
from dataclasses import dataclass

import torch

from pellucid.core.card import Cost
from pellucid.core.probe import Probe

_REPEATS = 3  # of which the fastest counts: on a busy machine one pass alone may take a hundred times as long


@dataclass(frozen=True)
class Pace:
    """Seconds of one pass of one item.

    Args:
        forward: of a forward.
        backward: of a backward, on top of its forward; 0: not measured.
    """

    forward: float
    backward: float = 0.0

    def seconds(self, cost: Cost) -> float:
        """How long this takes, as far as it is passes.

        Example:
            >>> Pace(0.5, 1.0).seconds(Cost(10, 2))
            7.0
        """
        return cost.forwards * self.forward + cost.backwards * self.backward


def measure_pace(probe: Probe, backward: bool) -> Pace:
    """Time a forward, and a backward where it is asked for: the fastest of three, after a first that is not timed.

    Args:
        probe: of one case, without an engine: the module itself is timed.
        backward: whether methods will need gradients.
    """
    (probe.gradient if backward else probe.score)(probe.inputs)
    forward = min(_timed(probe, gradient=False) for _ in range(_REPEATS)) / probe.batch
    both = min(_timed(probe, gradient=True) for _ in range(_REPEATS)) / probe.batch if backward else forward
    return Pace(forward, max(0.0, both - forward))


def _timed(probe: Probe, gradient: bool) -> float:
    cuda = probe.model.device.type == "cuda"
    started = time.perf_counter()
    (probe.gradient if gradient else probe.score)(probe.inputs)
    if cuda:
        torch.cuda.synchronize(probe.model.device)
    return time.perf_counter() - started
