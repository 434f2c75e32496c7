"""Methods that ask thousands of forwards: their loops beside the bare forwards, Occlusion beside captum and MONAI, RISE
beside the paper's, and peak memory.

A taught network and images that it never saw, another one in each round. One thread; CPU time.
"""

import copy
import json
import sys
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any

import torch
from engines import FASTER, built, probe_of
from measuring import Measured, Setting, Timed, alternate, at_least, at_most, deviation, ratio, run, table, within
from paths import GROWTH, peak
from peak import PERTURBING, small_volume
from taught import Taught, brains
from torch import Tensor, nn

from pellucid.core.engine import Engine
from pellucid.core.explainer import Explainer
from pellucid.core.infill import Constant
from pellucid.core.probe import Probe
from pellucid.explain.lime import LIME
from pellucid.explain.occlusion import Occlusion
from pellucid.explain.rise import RISE
from pellucid.explain.shapley import KernelSHAP

FILL = Constant(0.0)
ROUNDS, FEW_ROUNDS = 20, 7
OVERHEAD, SAME = 1.1, 1e-4
WINDOW, STEP, AT_ONCE = 32, 16, 8
PAPER = 4000  # masks of the paper's RISE
FEW, MANY, EDGE = 64, 512, 64
METHODS: dict[str, Explainer] = {
    "RISE": RISE(128, None, infill=FILL),
    "Occlusion": Occlusion(16, 16, infill=FILL),
    "KernelSHAP": KernelSHAP("grid:4", 128, infill=FILL),
    "LIME": LIME(samples=256, infill=FILL),
}
Bars = list[dict[str, Any]]


class Turns:
    """One side of a comparison: another image at each call, the same order for every side."""

    def __init__(self, make: Callable[[Any], object], subjects: Iterable[Any]) -> None:
        self.make, self.subjects, self.made = make, cycle(list(subjects)), 0

    def __call__(self) -> object:
        self.made += 1
        return self.make(next(self.subjects))


def opened(taught: Taught, items: int, engine: Engine | None) -> list[Probe]:
    """Probes whose shared pass is made: a prediction precedes every explanation."""
    probes = [probe_of(taught, i).through(engine) for i in range(items)]
    for probe in probes:
        float(probe.baseline_score[0])
    return probes


def bare(network: nn.Module, engine: Engine | None, count: int, probe: Probe) -> Tensor:
    """As many forwards of the same images, in the same batches, and nothing else."""
    x = probe.inputs[probe.model.primary].repeat(AT_ONCE, 1, 1, 1)
    parts = [min(AT_ONCE, count - first) for first in range(0, count, AT_ONCE)]
    if engine is not None:
        return torch.cat([engine({probe.model.primary: x[:n]}) for n in parts])
    with torch.no_grad():
        return torch.cat([network(x[:n]) for n in parts])


def overhead(
    taught: Taught, engines: dict[str, Engine], names: Sequence[str], setting: Setting, rounds: int
) -> tuple[dict[str, Any], Bars]:
    """The time of each method's loop over that of its bare forwards, on each engine."""
    found, bars = {}, []
    for name in names:
        engine = None if name == "eager" else engines[name]
        for title, method in METHODS.items():
            probe = opened(taught, 1, engine)[0]
            method(probe)
            count = probe.spent.own.forwards
            forwards = partial(bare, taught.model.module, engine, count)
            sides = {
                "bare forwards": Turns(forwards, opened(taught, rounds + 1, engine)),
                title: Turns(method, opened(taught, rounds + 1, engine)),
            }
            timed = alternate(sides, rounds, setting)
            found[f"{title}, {name}"] = {"forwards": count, "sides": table(timed, "bare forwards", setting.clock)}
            over = ratio(timed[title], timed["bare forwards"], setting.clock)
            bars.append(at_most(OVERHEAD, f"{title} / its {count} bare forwards, {name}", over))
    return found, bars


def captum_occlusion(network: nn.Module, probe: Probe) -> Tensor:
    """Captum's map of the same windows and fill; it tells the fall of the score."""
    from captum.attr import Occlusion as Theirs

    x = next(iter(probe.inputs.values()))
    made = Theirs(network).attribute(
        x,
        sliding_window_shapes=(1, WINDOW, WINDOW),
        strides=(1, STEP, STEP),
        baselines=0.0,
        target=_label(probe),
        perturbations_per_eval=AT_ONCE,
    )
    return made.detach()


def monai_occlusion(network: nn.Module, probe: Probe) -> Tensor:
    """MONAI's map of the same windows and fill; it tells the score that is left."""
    from monai.visualize import OcclusionSensitivity

    x = next(iter(probe.inputs.values()))
    made = OcclusionSensitivity(
        network, WINDOW, AT_ONCE, mode=0.0, overlap=1 - STEP / WINDOW, activate=False, verbose=False
    )
    with torch.no_grad():
        return made(x)[0][:, _label(probe)][:, None]


def _label(probe: Probe) -> int:
    return int(probe.target.name.split()[-1])


def occlusion(taught: Taught, engines: dict[str, Engine], setting: Setting, rounds: int) -> tuple[dict[str, Any], Bars]:
    """The same windows from captum, MONAI and ours on each engine."""
    method, network = Occlusion(WINDOW, STEP, infill=FILL), copy.deepcopy(taught.model.module)
    plain = opened(taught, rounds + 1, None)
    ours = {name: [p.through(engines[name]) for p in plain] for name in FASTER}
    sides: dict[str, Turns] = {
        "captum": Turns(partial(captum_occlusion, network), plain),
        "MONAI": Turns(partial(monai_occlusion, network), plain),
        **{name: Turns(method, probes) for name, probes in ours.items()},
    }
    timed, bars = alternate(sides, rounds, setting), []
    for peer in ("captum", "MONAI"):
        for name, bar in FASTER.items():
            faster = ratio(timed[peer], timed[name], setting.clock)
            bars.append(at_least(bar, f"Occlusion, {peer} / {name}", faster))
    apart = [compared(method, network, plain[i], ours["openvino"][i]) for i in range(rounds)]
    for peer in ("captum", "MONAI"):
        worst = max(each[peer] for each in apart)
        bars.append(within(SAME, f"Occlusion, largest difference from {peer} over its largest value", worst))
    words = {
        "windows": f"{WINDOW} px, stride {STEP}",
        "images": rounds,
        "sides": table(timed, "captum", setting.clock),
    }
    return words, bars


def compared(method: Occlusion, network: nn.Module, plain: Probe, fast: Probe) -> dict[str, float]:
    """Largest difference from each peer's map, as a share of its maximum, on an exact engine."""
    (found,) = method(fast).maps.values()
    left = plain.baseline_score.view(-1, 1, 1, 1) - monai_occlusion(network, plain)
    return {"captum": deviation(found, captum_occlusion(network, plain)), "MONAI": deviation(found, left)}


def rise(taught: Taught, engines: dict[str, Engine], setting: Setting, rounds: int) -> tuple[dict[str, Any], Bars]:
    """Time of a forward of the paper's RISE and of ours, times the forwards that each takes.

    The paper's are bare forwards of the module: its masks are made beforehand.
    """
    method, few = METHODS["RISE"], 16
    sides = {
        "paper": Turns(partial(bare, taught.model.module, None, few), opened(taught, rounds + 1, None)),
        "ours": Turns(method, opened(taught, rounds + 1, engines["openvino-bf16"])),
    }
    timed = alternate(sides, rounds, setting)
    each = {"paper": _over(timed["paper"], few), "ours": _over(timed["ours"], method.masks)}
    faster = ratio(each["paper"], each["ours"], setting.clock)
    words: dict[str, Any] = {
        "images": rounds,
        "ms of a forward, the paper's": round(1000 * each["paper"].median(setting.clock), 2),
        "ms of a forward, ours with bf16": round(1000 * each["ours"].median(setting.clock), 2),
    }
    words["paper's forward / ours"] = [round(v, 2) for v in (faster.median, faster.low, faster.high)]
    bars = []
    for scale, times in fewer_forwards().items():
        whole = Measured(*(times * v for v in (faster.median, faster.low, faster.high)))
        words[f"times fewer forwards, {scale}"] = round(times, 2)
        bars.append(at_least(20, f"RISE-{PAPER} of the paper / ours at its map correlation, bf16, {scale}", whole))
    return words, bars


def _over(timed: Timed, count: int) -> Timed:
    return Timed({clock: [s / count for s in seconds] for clock, seconds in timed.seconds.items()})


def memory(setting: Setting) -> tuple[dict[str, Any], Bars]:
    """Peaks in fresh processes, with few and with many samples."""
    found, bars = {"network": small_volume(EDGE).name}, []
    for name in PERTURBING:
        few, many = (peak(name, samples, EDGE, setting) for samples in (FEW, MANY))
        found[name] = {f"{FEW} samples": few, f"{MANY} samples": many}
        bars.append(within(GROWTH, f"peak memory of {name} at {EDGE}^3, {MANY} samples / {FEW}", round(many / few, 4)))
    return found, bars


def fewer_forwards() -> dict[str, float]:
    """By network and score, the paper's 4000 forwards over ours at its map correlation, as ``rise.py`` found them."""
    found: dict[str, float] = {}
    for kept in sorted(Path(__file__).with_name("results").glob("rise_*.json")):
        for bar in json.loads(kept.read_text(encoding="utf-8"))["bars"]:
            unit, _, what = bar["bar"].partition(": ")
            if what.startswith(f"forwards of paper {PAPER} / ours"):
                found[f"{kept.stem.removeprefix('rise_')}, {unit}"] = float(bar["measured"])
    return found


def measure(setting: Setting) -> dict[str, Any]:
    """Memory first: a child inherits the high mark of its parent."""
    kept, bars = memory(setting)
    rounds = FEW_ROUNDS if setting.light else ROUNDS
    taught = brains()
    engines = built(probe_of(taught, 0))
    loops, found = overhead(taught, engines, ("openvino-int8",), setting, rounds)
    bars += found
    if not setting.light:
        more, found = overhead(taught, engines, ("eager", "openvino-bf16"), setting, FEW_ROUNDS)
        loops, bars = loops | more, [*bars, *found]
    windows, found = occlusion(taught, engines, setting, rounds)
    bars += found
    paper, found = rise(taught, engines, setting, rounds)
    return {
        **taught.words,
        "loops": loops,
        "Occlusion": windows,
        "RISE": paper,
        "peak_memory_mib": kept,
        "bars": [*bars, *found],
    }


if __name__ == "__main__":
    sys.exit(run("loops", measure))
