"""Which engine is the fastest for this model on this machine, among those that keep the effects of masks."""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from pellucid.core.engine import Engine
from pellucid.core.errors import MissingExtra, PellucidError, UnknownName
from pellucid.core.probe import Probe
from pellucid.engines.cuda import cuda_graph
from pellucid.engines.eager import eager, eager_bfloat16
from pellucid.engines.onnx import onnx_float32
from pellucid.engines.openvino import openvino_bfloat16, openvino_float32, openvino_int8
from pellucid.engines.sample import Sample
from pellucid.engines.selfcheck import FORWARDS, EngineReport, Limit, Masked, deviation, first_reason

EAGER = "eager"
_EXACT, _HALF, _INT8 = Limit(0.9999, 1e-4), Limit(0.998, 0.1), Limit(0.99, 0.2)
_KEPT = 8  # engines held in memory


@dataclass(frozen=True)
class Offer:
    """An engine that may be built.

    Args:
        name: as ``--engine`` takes it.
        device: where the model must be.
        limit: of its precision.
        build: makes it.
        share: time of a forward over the module's, as measured on DenseNet121; for what is worth trying.
        seconds: that building took there.
    """

    name: str
    device: str
    limit: Limit
    build: Callable[[Sample], Engine]
    share: float
    seconds: float


OFFERS = (
    Offer("cuda", "cuda", _EXACT, cuda_graph, 0.3, 2),
    Offer("openvino-int8", "cpu", _INT8, openvino_int8, 0.2, 15),
    Offer("openvino-bf16", "cpu", _HALF, openvino_bfloat16, 0.35, 4),
    Offer("eager-bf16", "cpu", _HALF, eager_bfloat16, 0.45, 0.1),
    Offer("openvino", "cpu", _EXACT, openvino_float32, 0.7, 4),
    Offer("onnx", "cpu", _EXACT, onnx_float32, 0.75, 4),
)
AUTOMATIC = (EAGER, "cuda", "openvino-bf16", "openvino", "onnx")  # int8 only when asked: it errs by some percent
_built: OrderedDict[tuple[object, ...], tuple[Engine, float]] = OrderedDict()
_lock = threading.Lock()


def choose_engine(
    probe: Probe, allowed: Iterable[str], budget: int | None = None, offers: tuple[Offer, ...] = OFFERS
) -> tuple[Engine | None, EngineReport]:
    """The fastest engine allowed that passes its self-check; None where it is the module itself.

    Each is built (once for a model and input shape), compared with the module in float32 on 16 masks of the image,
    refused where the effects err beyond the limit of its precision, and timed. Where none is left, the module is
    taken, with the reasons.

    Args:
        probe: of the image, with all targets.
        allowed: names; ``eager`` among them: the module is taken where it is as fast.
        budget: forwards to come: engines that would not repay being built and checked are left out, and the first
            that passes is taken. None: no matter how many.
        offers: what can be built.

    Raises:
        UnknownName: no such engine.
        MissingExtra: the only engine allowed needs a package that is not installed.
    """
    names = tuple(dict.fromkeys(allowed))
    wanted = _named(names, offers)
    reason = _hopeless(probe, wanted, budget)
    if reason:
        return None, _as_it_is(probe, [(o.name, reason) for o in wanted])
    bench = _Bench(probe)
    passed: list[tuple[Engine, EngineReport]] = []
    refused: list[tuple[str, str]] = []
    for offer in sorted(wanted, key=lambda o: o.share):
        why = bench.not_worth(offer, budget) if not passed else "another, usually faster, passed"
        result = why if budget is not None and why else bench.tried(offer, strict=names == (offer.name,))
        if isinstance(result, str):
            refused.append((offer.name, result))
        else:
            passed.append(result)
    if EAGER in names or not passed:
        passed.append((bench.module, bench.plain))
    engine, report = min(passed, key=lambda p: p[1].ms_each or 0.0)
    refused += [(r.name, f"slower: {r.ms_each:.3g} ms") for _, r in passed if r is not report and r.name != EAGER]
    return None if report.name == EAGER else engine, replace(report, refused=tuple(refused))


def measure_engines(
    probe: Probe, offers: tuple[Offer, ...] = OFFERS
) -> tuple[tuple[EngineReport, ...], tuple[tuple[str, str], ...]]:
    """Every engine on this machine: reports of the module and of those that pass, and why the others are refused."""
    if not probe.model.rank:
        return (_as_it_is(probe, []),), tuple((o.name, _NO_IMAGE) for o in offers)
    bench = _Bench(probe)
    found = [(o.name, bench.tried(o, strict=False)) for o in offers]
    passed = [r[1] for _, r in found if not isinstance(r, str)]
    return (bench.plain, *passed), tuple((name, r) for name, r in found if isinstance(r, str))


_NO_IMAGE = "the model takes no image to mask"


def _named(names: tuple[str, ...], offers: tuple[Offer, ...]) -> list[Offer]:
    known = {o.name: o for o in offers}
    unknown = [n for n in names if n not in known and n != EAGER]
    if unknown:
        raise UnknownName(f"no engine {unknown[0]!r}", f"engines: {', '.join((EAGER, *known))}")
    return [known[n] for n in names if n != EAGER]


def _hopeless(probe: Probe, wanted: list[Offer], budget: int | None) -> str:
    """Why nothing need even be measured; empty where something may be worth it."""
    if not wanted:
        return "not asked for"
    if not probe.model.rank:
        return _NO_IMAGE
    if budget is not None and budget <= 2 * FORWARDS:
        return f"{budget} forwards would not repay being checked"
    return ""


def _as_it_is(probe: Probe, refused: list[tuple[str, str]]) -> EngineReport:
    module = eager(probe.model.window)
    return EngineReport(module.name, module.precision, module.batch, refused=tuple(refused))


class _Bench:
    """One image on which engines are tried; the module goes first."""

    def __init__(self, probe: Probe) -> None:
        self.probe, self.masked = probe, Masked(probe)
        self.module = self._fitting(eager(probe.model.window))
        self.effects, ms, batch = self._examined(self.module)
        self.plain = EngineReport(EAGER, self.module.precision, batch, ms)

    def not_worth(self, offer: Offer, budget: int | None) -> str:
        """Why so many forwards would not repay the engine; empty where they would."""
        if budget is None:
            return ""
        each = (self.plain.ms_each or 0.0) / 1000
        even = (offer.seconds / max(each, 1e-9) + FORWARDS * offer.share) / (1 - offer.share)
        return f"{budget} forwards would not repay building it (about {even:.0f} would)" if budget < even else ""

    def tried(self, offer: Offer, strict: bool) -> tuple[Engine, EngineReport] | str:
        """The engine with its figures, or why it is refused; ``strict``: a missing package is an error."""
        model = self.probe.model
        if model.device.type != offer.device:
            return f"it is for models on {offer.device}, and this one is on {model.device.type}"
        try:
            engine, seconds = self._built(offer)
            effects, ms, batch = self._examined(self._fitting(engine))
            error, r = deviation(effects, self.effects)
        except MissingExtra as missing:
            if strict:
                raise
            return str(missing)
        except PellucidError as problem:
            return problem.problem
        except Exception as problem:  # exporters and compilers share no base
            return first_reason(problem)
        if not (error <= offer.limit.error and r >= offer.limit.r):
            limits = f"limits {100 * offer.limit.error:g}% and {offer.limit.r}"
            return f"it errs: effect error {100 * error:.2g}%, r {r:.4f} on the masks of this image ({limits})"
        # the engine itself stays as built: it is shared
        return replace(engine, batch=batch), EngineReport(offer.name, engine.precision, batch, ms, error, r, seconds)

    def _examined(self, engine: Engine) -> tuple[Tensor, float, int]:
        """Effects, milliseconds, items at once: half as many as long as memory runs out."""
        while True:
            try:
                return self.masked.effects(engine), *self.masked.timing(engine)
            except (torch.OutOfMemoryError, MemoryError):
                if engine.fixed or engine.batch == 1:
                    raise
                engine = replace(engine, batch=engine.batch // 2)

    def _fitting(self, engine: Engine) -> Engine:
        """With no more items at once than memory was found for."""
        if engine.fixed:
            return engine
        return replace(engine, batch=max(1, min(engine.batch, self.masked.stream.chunk * self.probe.batch)))

    def _built(self, offer: Offer) -> tuple[Engine, float]:
        model, inputs = self.probe.model.window, self.probe.model.seen(self.probe.inputs)
        shapes = tuple(tuple(x.shape[1:]) for x in inputs.values())
        real = self.probe.scene.background is not None  # what int8 is calibrated on
        key = (offer.name, model.digest, model.output.head, model.call, shapes, torch.get_num_threads(), real)
        with _lock:
            if key not in _built:
                started = time.perf_counter()
                engine = offer.build(Sample(model, inputs, self.masked.calibration))
                _built[key] = engine, time.perf_counter() - started
            _built.move_to_end(key)
            while len(_built) > _KEPT:
                _built.popitem(last=False)
            return _built[key]
