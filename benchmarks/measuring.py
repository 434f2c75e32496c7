"""How the benchmarks measure: both sides alternating in one process, counted passes, ratios with their interval."""

import argparse
import gc
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from scipy import stats
from threadpoolctl import threadpool_info
from torch import Tensor, nn

ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
LEAST_ROUNDS = 7
LEVEL = 0.95
PACKAGES = (
    *("pellucid", "torch", "monai", "numpy", "scipy", "captum", "grad-cam", "openvino", "nncf"),
    *("highdicom", "pydicom", "simpleitk", "itk"),
)
Side = Callable[[], object]


class CannotMeasure(RuntimeError):
    """Something that a benchmark needs is not on this machine."""


@dataclass(frozen=True)
class Setting:
    """How one benchmark was started.

    Args:
        device: ``cpu`` or ``cuda``.
        rounds: what rounds are multiplied with; never fewer than ``LEAST_ROUNDS`` are taken.
        strict: whether an unmet bar is an exit status.
        out: folder for the JSON; None: only printed.
        light: fewer images and methods, where a benchmark takes many minutes.
    """

    device: str = "cpu"
    rounds: float = 1.0
    strict: bool = False
    out: Path | None = None
    light: bool = False

    @property
    def clock(self) -> str:
        """The clock that is judged: with a GPU the processor's own time says nothing."""
        return "wall" if self.device == "cuda" else "cpu"

    def take(self, rounds: int) -> int:
        """Rounds to take where ``rounds`` are usual."""
        return max(LEAST_ROUNDS, round(rounds * self.rounds))

    def settle(self) -> None:
        """Wait until the device has done what it was given."""
        if self.device == "cuda":
            torch.cuda.synchronize()


@dataclass(frozen=True)
class Timed:
    """Seconds of each round, by clock: ``cpu`` of the process, ``wall``."""

    seconds: Mapping[str, list[float]] = field(default_factory=lambda: {"cpu": [], "wall": []})

    def median(self, clock: str) -> float:
        """Seconds of the middle round."""
        return statistics.median(self.seconds[clock])

    def plus(self, other: "Timed") -> "Timed":
        """Both one after the other, round by round."""
        both = {k: [a + b for a, b in zip(v, other.seconds[k], strict=True)] for k, v in self.seconds.items()}
        return Timed(both)


@dataclass(frozen=True)
class Measured:
    """A median and its interval."""

    median: float
    low: float
    high: float


class Passes:
    """Counts what a module did while it is watched: forwards, backwards, and backwards that reached its first layer.

    The hooks of torch are asked, not the code under test.
    """

    def __init__(self, module: nn.Module) -> None:
        self.forwards = self.backwards = self.to_first_layer = 0
        first = next(m for m in module.modules() if not list(m.children()))
        self._handles = [
            module.register_forward_hook(self._output),
            first.register_forward_hook(self._first),
        ]

    def __enter__(self) -> "Passes":
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()

    @property
    def counts(self) -> dict[str, int]:
        """For the JSON."""
        return {"forwards": self.forwards, "backwards": self.backwards, "backwards_to_first_layer": self.to_first_layer}

    def _output(self, _module: nn.Module, _args: object, output: Tensor) -> None:
        self.forwards += len(output)
        if output.requires_grad:
            output.register_hook(self._backward)

    def _first(self, _module: nn.Module, _args: object, output: Tensor) -> None:
        if output.requires_grad:
            output.register_hook(self._reached)

    def _backward(self, gradient: Tensor) -> None:
        self.backwards += len(gradient)

    def _reached(self, gradient: Tensor) -> None:
        self.to_first_layer += len(gradient)


def counted(module: nn.Module, side: Side) -> dict[str, int]:
    """Passes of one run."""
    with Passes(module) as passes:
        side()
    return passes.counts


def alternate(sides: Mapping[str, Side], rounds: int, setting: Setting) -> dict[str, Timed]:
    """Run every side once for warmth, then once a round, back and forth, so that a busy machine slows all alike."""
    timed = {name: Timed() for name in sides}
    for side in sides.values():
        side()
    for number in range(rounds):
        gc.collect()
        for name in list(sides)[:: 1 if number % 2 == 0 else -1]:
            setting.settle()
            cpu, wall = time.process_time(), time.perf_counter()
            kept = sides[name]()
            setting.settle()
            timed[name].seconds["cpu"].append(time.process_time() - cpu)
            timed[name].seconds["wall"].append(time.perf_counter() - wall)
            del kept
    return timed


def peak_mib(side: Side) -> float:
    """Most memory of the GPU that one run holds, in MiB."""
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    side()
    torch.cuda.synchronize()
    return round((torch.cuda.max_memory_allocated() - before) / 2**20, 1)


def middle(values: Sequence[float]) -> Measured:
    """Median with the distribution-free interval of order statistics (for 7 values it is their range)."""
    interval = stats.quantile_test(list(values)).confidence_interval(LEVEL)
    return Measured(statistics.median(values), float(interval.low), float(interval.high))


def ratio(over: Timed, under: Timed, clock: str) -> Measured:
    """Median of the ratios of the rounds."""
    return middle([a / b for a, b in zip(over.seconds[clock], under.seconds[clock], strict=True)])


def at_most(limit: float, what: str, measured: Measured) -> dict[str, Any]:
    """A bar that the upper end of the interval must not pass."""
    return _bar(f"{what}: at most {limit:g}", measured, measured.high <= limit)


def at_least(limit: float, what: str, measured: Measured) -> dict[str, Any]:
    """A bar that the median must reach; whether the whole interval does is told beside it."""
    return _bar(f"{what}: at least {limit:g}", measured, measured.median >= limit) | {
        "whole_interval": measured.low >= limit
    }


def exactly(what: str, expected: Mapping[str, int], found: Mapping[str, int]) -> dict[str, Any]:
    """A bar on counts."""
    return {"bar": f"{what}: {dict(expected)}", "measured": dict(found), "interval": None, "met": expected == found}


def within(limit: float, what: str, value: float) -> dict[str, Any]:
    """A bar on one number that has no spread."""
    return {"bar": f"{what}: at most {limit:g}", "measured": value, "interval": None, "met": bool(value <= limit)}


def _bar(text: str, measured: Measured, met: bool) -> dict[str, Any]:
    interval = [round(measured.low, 4), round(measured.high, 4)]
    return {"bar": text, "measured": round(measured.median, 4), "interval": interval, "met": bool(met)}


def deviation(ours: Tensor, theirs: Tensor) -> float:
    """Largest difference as a share of the largest value of theirs."""
    ours, theirs = ours.detach().double().cpu(), theirs.detach().double().cpu()
    return float((ours - theirs).abs().max() / theirs.abs().max().clamp_min(1e-300))


def table(timed: Mapping[str, Timed], base: str, clock: str) -> dict[str, Any]:
    """Milliseconds of both clocks and the ratio to one side, for every side."""
    rows = {}
    for name, each in timed.items():
        against = ratio(each, timed[base], clock)
        rows[name] = {
            "cpu_ms": round(1000 * each.median("cpu"), 2),
            "wall_ms": round(1000 * each.median("wall"), 2),
            "ratio": round(against.median, 4),
            "ratio_interval": [round(against.low, 4), round(against.high, 4)],
            "ratio_to": base,
            "rounds": len(each.seconds[clock]),
        }
    return rows


def surroundings(setting: Setting) -> dict[str, Any]:
    """What the figures depend on; no name of a machine."""
    found = {d.metadata["Name"].lower(): d.version for d in metadata.distributions()}
    pools = [{k: p[k] for k in ("user_api", "internal_api", "num_threads")} for p in threadpool_info()]
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "device": torch.cuda.get_device_name() if setting.device == "cuda" else platform.machine(),
        "cores": os.cpu_count(),
        "vector_instructions": torch.backends.cpu.get_cpu_capability(),
        "judged_clock": setting.clock,
        "threads": {"torch": torch.get_num_threads(), "pools": pools},
        "load": [round(load, 1) for load in os.getloadavg()],
        "versions": {"python": platform.python_version()} | {n: found[n] for n in PACKAGES if n in found},
    }


@contextmanager
def _silenced() -> Iterator[None]:
    """Peers print; only the JSON belongs on standard output."""
    told, sys.stdout = sys.stdout, sys.stderr
    try:
        yield
    finally:
        sys.stdout = told


def run(name: str, measure: Callable[[Setting], dict[str, Any]]) -> int:
    """Pin the threads, measure, print one JSON object on the last line, and write it where asked.

    Args:
        name: of the benchmark and its file.
        measure: gives ``bars`` (as ``at_most`` and its kin make them) among what it likes to tell; where it raises
            ``CannotMeasure``, that is told instead, and no file is written.
    """
    if any(os.environ.get(key) != value for key, value in ONE_THREAD.items()):
        # numerical libraries read these when they are loaded, and that has happened
        os.execve(sys.executable, sys.orig_argv, os.environ | ONE_THREAD)
    setting = _asked()
    torch.set_num_threads(1)
    with _silenced():
        try:
            found = measure(setting)
        except CannotMeasure as absent:
            found = {"absent": str(absent), "bars": []}
    result = {"benchmark": name, "surroundings": surroundings(setting)} | found
    if setting.out is not None and "absent" not in found:
        setting.out.mkdir(parents=True, exist_ok=True)
        suffix = ("" if setting.device == "cpu" else f"_{setting.device}") + ("_light" if setting.light else "")
        whole = setting.out / f"{name}{suffix}.json.part"
        whole.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        whole.replace(whole.with_suffix(""))
    print(json.dumps(result))
    return int(setting.strict and not all(bar["met"] for bar in result["bars"]))


def _asked() -> Setting:
    parser = argparse.ArgumentParser(description="prints one JSON object on its last line")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--rounds", type=float, default=1.0, help="multiple of the usual rounds; never under 7")
    parser.add_argument("--strict", action="store_true", help="exit status 1 when a bar is not met")
    parser.add_argument("--out", type=Path, help="folder to write NAME.json to")
    parser.add_argument("--light", action="store_true", help="fewer images and methods; writes NAME_light.json")
    given = parser.parse_args()
    return Setting(given.device, given.rounds, given.strict, given.out, given.light)
