"""An engine against the module on masks of the very image: how far the effects differ, and how long each takes."""

import time
from dataclasses import dataclass
from itertools import islice

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from pellucid.core.card import Cost
from pellucid.core.engine import Engine
from pellucid.core.masking import Stream
from pellucid.core.model import Inputs
from pellucid.core.probe import Probe

MASKS = 16
CALIBRATION = 8  # masks that an engine is calibrated with
COHORT = 24  # images at most
_BYTES = 2**28  # of images to calibrate with, where they are large
FORWARDS = MASKS + 1 + 14  # of one check with its timing, for a batch of one
_CELLS = 7  # along each axis of a mask
_MODES = {1: "linear", 2: "bilinear", 3: "trilinear"}


@dataclass(frozen=True)
class Limit:
    """What a precision may cost.

    Args:
        r: lowest Pearson correlation of the effects.
        error: largest root mean square error of the effects, as a share of their standard deviation.
    """

    r: float
    error: float


@dataclass(frozen=True)
class EngineReport:
    """What an engine is worth for one image.

    Args:
        name: as ``--engine`` takes it.
        precision: of the arithmetic, in words.
        batch: items at once, as measured best.
        ms_each: milliseconds of one item; None: not measured.
        effect_error: rms error of the effects of 16 masks over their standard deviation, worst target.
        r: Pearson correlation of these effects with float32, worst target.
        build_s: seconds of export, compilation and calibration.
        refused: (name, reason) of the others that were asked for.
    """

    name: str
    precision: str
    batch: int
    ms_each: float | None = None
    effect_error: float = 0.0
    r: float = 1.0
    build_s: float = 0.0
    refused: tuple[tuple[str, str], ...] = ()

    @property
    def words(self) -> str:
        """To stand beside a map.

        Example:
            >>> EngineReport("openvino-bf16", "bfloat16", 8, 30.0, 0.0092, 0.99996).words
            'computed with openvino-bf16 (bfloat16): effect error 0.92%, r 1.0000 on 16 masks of this image'
        """
        return (
            f"computed with {self.name} ({self.precision}): effect error {100 * self.effect_error:.2g}%, "
            f"r {self.r:.4f} on {MASKS} masks of this image"
        )


class Masked:
    """Versions of a probe's batch with random blobs hidden: 16 to compare on, others to calibrate with.

    Args:
        probe: with its first infill and its seed.
    """

    def __init__(self, probe: Probe) -> None:
        shape = probe.grid.shape
        generator = torch.Generator().manual_seed(probe.scene.seed)
        cells = tuple(min(_CELLS, n) for n in shape)
        self.coarse = (torch.rand((MASKS + CALIBRATION, 1, *cells), generator=generator) < 0.5).float()
        self.probe, self.stream, self.shape = probe, Stream(probe.through(None)), shape

    def versions(self, first: int, count: int) -> Inputs:
        """So many versions of the batch from ``first`` on; the comparison masks are used again when they run out."""
        chosen = self.coarse[[i % MASKS for i in range(first, first + count)]]
        return self.stream.masked(self._fine(chosen))

    def calibration(self) -> Inputs:
        """Inputs as they will come, for what must know their range: whole images, and each as many times masked.

        Of the scene's background, where there is one; else of the batch, hidden by each of its fills. Masks are others
        than those that are compared on.
        """
        background = self.probe.scene.background
        if background is None:
            return self._own()
        count = len(next(iter(background.values())))
        each = sum(x[:1].numel() * x.element_size() for x in background.values())
        most = min(count, COHORT, max(CALIBRATION, _BYTES // each))
        chosen = torch.linspace(0, count - 1, most).round().long()
        items = {name: x[chosen] for name, x in background.items()}
        cohort = Probe(self.probe.model, items, self.probe.targets, scene=self.probe.scene)
        drawn = self.coarse[MASKS:][torch.arange(len(chosen)) % CALIBRATION]
        masked = Stream(cohort).masked(self._fine(drawn).transpose(0, 1))
        return self._cut({name: torch.cat([x, masked[name]]) for name, x in cohort.inputs.items()})

    def _own(self) -> Inputs:
        fills = self.probe.scene.infills[:2]
        parts = [Stream(self.stream.probe, fill).masked(self._fine(self.coarse[MASKS:])) for fill in fills]
        return self._cut(
            {name: torch.cat([x, *(part[name] for part in parts)]) for name, x in self.probe.inputs.items()}
        )

    def _cut(self, inputs: Inputs) -> Inputs:
        """What an engine is given: items whole, or a window of each, another one from item to item."""
        windows = self.probe.model.inference
        if windows is None:
            return inputs
        layout = windows.of(inputs)
        padded = {name: layout.pad(x) for name, x in inputs.items()}
        count = len(next(iter(inputs.values())))
        step = max(1, len(layout.starts) // count)
        parts = [layout.part(padded, layout.starts[i * step % len(layout.starts)]) for i in range(count)]
        return {name: torch.cat([part[name][i : i + 1] for i, part in enumerate(parts)]) for name in inputs}

    def _fine(self, coarse: Tensor) -> Tensor:
        return F.interpolate(coarse, size=self.shape, mode=_MODES[len(self.shape)], align_corners=False)

    def effects(self, engine: Engine) -> Float[Tensor, "target mask item"]:
        """How far each mask lets each target's score fall, as the engine has it."""
        probe, step = self.probe, max(1, engine.batch // self.probe.batch)
        whole = self._scores(engine, probe.inputs)
        parts = [self._scores(engine, self.versions(i, min(step, MASKS - i))) for i in range(0, MASKS, step)]
        return whole - torch.cat(parts, 1)

    def _scores(self, engine: Engine, x: Inputs) -> Float[Tensor, "target version item"]:
        output = self.probe.by_engine(engine, x)
        self.probe.spent.checks += Cost(len(output))
        found = [self.probe.at(i).target(output).double() for i in range(len(self.probe.targets))]
        return torch.stack(found).view(len(found), -1, self.probe.batch)

    def timing(self, engine: Engine) -> tuple[float, int]:
        """Milliseconds of one item at the best of up to three micro-batches, and that micro-batch."""
        sizes = (engine.batch,) if engine.fixed else sorted({1, max(1, engine.batch // 2), engine.batch})
        return min((self._milliseconds(engine, size), size) for size in sizes)

    def _milliseconds(self, engine: Engine, size: int) -> float:
        x = self.versions(0, -(-size // self.probe.batch))
        x = {k: v[:size] for k, v in x.items()}
        best = float("inf")
        for _ in range(2 if size == 1 else 1):
            started = time.perf_counter()
            self.probe.by_engine(engine, x)
            self.probe.spent.checks += Cost(size)
            best = min(best, 1000 * (time.perf_counter() - started) / size)
        return best


def deviation(found: Tensor, reference: Tensor) -> tuple[float, float]:
    """Effect error and Pearson correlation over the masks, worst of all targets and items.

    Effects that no mask moves have neither: (infinity, 0), unless both agree to the last digit.

    Args:
        found: "target mask item", of the engine.
        reference: the same of the module.
    """
    off = (found - reference).pow(2).mean(1).sqrt()
    spread = reference.std(1, correction=0)
    if bool((spread == 0).any()):
        return (0.0, 1.0) if bool((off == 0).all()) else (float("inf"), 0.0)
    error = off / spread
    a, b = found - found.mean(1, keepdim=True), reference - reference.mean(1, keepdim=True)
    scale = (a.pow(2).mean(1).sqrt() * spread).clamp_min(torch.finfo(torch.float64).tiny)
    r = (a * b).mean(1) / scale
    return float(error.max()), float(r.min().clamp(max=1.0))


def first_reason(error: Exception) -> str:
    """An exporter's complaint in one line."""
    lines = (line.strip() for line in str(error).splitlines())
    text = next(islice((line for line in lines if line), 1), "no reason given")
    return f"{type(error).__name__}: {text[:160]}"
