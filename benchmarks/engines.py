"""Engines for perturbed images beside the module: time of a forward, and how far the effects of masks differ.

Taught networks, images that they never saw; int8 is calibrated on images that they did see.
"""

import statistics
import sys
from collections.abc import Iterable
from functools import partial
from itertools import cycle
from typing import Any

from measuring import Setting, Timed, alternate, at_least, middle, ratio, run, table, within
from subjects import densenet
from taught import Taught, brains, hippocampi
from torch import Tensor

from pellucid.core.engine import Engine
from pellucid.core.probe import Probe, Scene
from pellucid.core.target import ClassScore
from pellucid.engines.choosing import OFFERS
from pellucid.engines.eager import eager
from pellucid.engines.sample import Sample
from pellucid.engines.selfcheck import MASKS, Masked, deviation

FASTER = {"openvino": 1.3, "openvino-bf16": 2.5, "openvino-int8": 4.5}
EXACT, LEAST_R = 1e-4, {"openvino-bf16": 0.998, "openvino-int8": 0.99}
IMAGES, FEW = 24, 8
ROUNDS = 11
LARGE = (96, 96, 96)


def probe_of(taught: Taught, item: int, cohort: bool = True) -> Probe:
    """A probe of one unseen image, aimed at its own label; what the network was taught on is its background."""
    x, model = taught.unseen[item : item + 1], taught.model
    background = {model.primary: taught.seen} if cohort else None
    return Probe(model, x, taught.targets[item], scene=Scene(background=background))


def built(probe: Probe, names: Iterable[str] = tuple(FASTER)) -> dict[str, Engine]:
    """The module, and the engines of these names."""
    sample = Sample(probe.model, probe.inputs, Masked(probe).calibration)
    return {"eager": eager(probe.model)} | {o.name: o.build(sample) for o in OFFERS if o.name in names}


def timed(taught: Taught, engines: dict[str, Engine], setting: Setting) -> dict[str, Timed]:
    """Every engine on the same masked images, another image in each round."""
    chosen = [Masked(probe_of(taught, i)).versions(0, engines["eager"].batch) for i in range(FEW)]
    turns = {name: cycle(chosen) for name in engines}

    def once(name: str) -> Tensor:
        return engines[name](next(turns[name]))

    return alternate({name: partial(once, name) for name in engines}, setting.take(ROUNDS), setting)


def effects(taught: Taught, engines: dict[str, Engine], images: int) -> dict[str, list[tuple[float, float]]]:
    """Effect error and correlation of each engine on each unseen image, beside the module's effects."""
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in engines if name != "eager"}
    for item in range(images):
        masked = Masked(probe_of(taught, item))
        reference = masked.effects(engines["eager"])
        for name, each in found.items():
            each.append(deviation(masked.effects(engines[name]), reference))
    return found


def measured(taught: Taught, setting: Setting) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """One network: time and faithfulness of each engine."""
    engines, name = built(probe_of(taught, 0)), taught.name
    alone = "openvino-int8, calibrated on one image"
    lonely = probe_of(taught, 0, cohort=False)
    build = next(o.build for o in OFFERS if o.name == "openvino-int8")
    without = {alone: build(Sample(lonely.model, lonely.inputs, Masked(lonely).calibration))}
    rows = timed(taught, engines, setting)
    found = effects(taught, engines | without, FEW if setting.light else IMAGES)
    bars = [
        at_least(bar, f"{side} over eager, {name}", ratio(rows["eager"], rows[side], setting.clock))
        for side, bar in FASTER.items()
    ]
    bars.append(within(EXACT, f"largest effect error of openvino, {name}", max(e for e, _ in found["openvino"])))
    for side, least in LEAST_R.items():
        bars.append(at_least(least, f"r of {side} over images, {name}", middle([r for _, r in found[side]])))
    words = {
        "images": len(found["openvino"]),
        "masks": MASKS,
        "items at once": engines["eager"].batch,
        "sides": table(rows, "eager", setting.clock),
        "effects": {side: _summary(each) for side, each in found.items()},
    }
    return taught.words | words, bars


def _summary(each: list[tuple[float, float]]) -> dict[str, float]:
    errors, rs = zip(*each, strict=True)
    return {
        "effect_error_median": statistics.median(errors),
        "effect_error_largest": max(errors),
        "r_median": statistics.median(rs),
        "r_smallest": min(rs),
    }


def large(setting: Setting) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Time alone of a large 3-D network with weights as they come: what a forward costs does not depend on them."""
    subject = densenet(LARGE)
    probe = Probe(subject.model, subject.image, ClassScore(subject.label))
    engines, x = built(probe), Masked(probe).versions(0, 1)
    rows = alternate({name: partial(engine, x) for name, engine in engines.items()}, setting.take(ROUNDS), setting)
    bars = [
        at_least(bar, f"{side} over eager, {subject.name}", ratio(rows["eager"], rows[side], setting.clock))
        for side, bar in FASTER.items()
    ]
    return subject.words | {"items at once": 1, "sides": table(rows, "eager", setting.clock)}, bars


def measure(setting: Setting) -> dict[str, Any]:
    """In 2-D and in 3-D."""
    parts = [measured(taught, setting) for taught in (brains(), hippocampi())]
    if not setting.light:
        parts.append(large(setting))
    return {"networks": [words for words, _ in parts], "bars": [bar for _, bars in parts for bar in bars]}


if __name__ == "__main__":
    sys.exit(run("engines", measure))
