"""PartitionSHAP against shap's PartitionExplainer: the same pixels in the same hierarchy, as many evaluations.

shap compiles parts of itself at its first call in a process (numba): the first map and later ones are told apart.
"""

import sys
import time
from collections.abc import Callable
from functools import partial
from itertools import count
from typing import Any

import numpy as np
import rivals_shapley as rivals
import torch
from measuring import Measured, Setting, alternate, at_least, deviation, ratio, run, table, within
from shapley import BLACK, opened, taught
from torch import Tensor

from pellucid.core.model import Model
from pellucid.core.prepare import InputSpec
from pellucid.explain.owen import PartitionSHAP
from pellucid.verify.handing import linkage

SPLIT, PIXELS, AT_ONCE = 1024, "grid:28", 16


def seconds(side: Callable[[], object]) -> float:
    """CPU time of one run."""
    started = time.process_time()
    side()
    return round(time.process_time() - started, 3)


def measure(setting: Setting) -> dict[str, Any]:
    """Owen values of every pixel, each round of another film."""
    network, images, words = taught()
    model = Model(network, (InputSpec(rank=2, channels=1),))
    explainer = PartitionSHAP(PIXELS, SPLIT, BLACK)
    tree = linkage(explainer.hierarchies(opened(model, images[0]))[0]).numpy()

    def own(x: Tensor) -> Tensor:
        return explainer(opened(model, x)).maps["image"]

    def theirs(x: Tensor) -> Tensor:
        return rivals.shap_partition(model.module, x, SPLIT, AT_ONCE, tree)

    def bare(x: Tensor) -> None:
        with torch.no_grad():
            for part in x.expand(SPLIT, *x.shape[1:]).contiguous().split(AT_ONCE):
                model.module(part)

    def in_turn(side: Callable[[Tensor], object]) -> Callable[[], object]:
        turn = count()
        return lambda: side(images[next(turn) % len(images)])

    first = {name: seconds(partial(side, images[0])) for name, side in (("ours", own), ("shap", theirs))}
    sides = {"PartitionSHAP": own, "shap PartitionExplainer": theirs, "bare forwards": bare}
    timed = alternate({k: in_turn(v) for k, v in sides.items()}, setting.take(len(images)), setting)
    faster = ratio(timed["shap PartitionExplainer"], timed["PartitionSHAP"], setting.clock)
    gaps = [deviation(own(x), theirs(x)) for x in images]
    once = first["shap"] / first["ours"]
    bars = [
        at_least(2, f"shap / PartitionSHAP, {SPLIT} evaluations, first map of a process", Measured(once, once, once)),
        at_least(2, f"shap / PartitionSHAP, {SPLIT} evaluations, later maps", faster),
        within(1e-4, "PartitionSHAP and shap: median deviation over the films", float(np.median(gaps))),
    ]
    told = {"evaluations": SPLIT, "players": PIXELS, "first_map_cpu_s": first, "largest_deviation": max(gaps)}
    return words | told | {"times": table(timed, "bare forwards", setting.clock), "bars": bars}


if __name__ == "__main__":
    sys.exit(run("partition", measure))
