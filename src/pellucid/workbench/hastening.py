"""Perturbed images on a faster engine, where one is asked for, and what a reader is told of it."""

from collections.abc import Sequence

from pellucid.core.card import GRADIENTS, Property
from pellucid.core.errors import BadOption
from pellucid.core.explainer import Explainer
from pellucid.core.metric import Metric
from pellucid.core.probe import Probe
from pellucid.engines.choosing import AUTOMATIC, EAGER, choose_engine
from pellucid.engines.selfcheck import EngineReport

AUTO = "auto"


def through_engine(
    probe: Probe, methods: Sequence[Explainer], engine: str, metrics: Sequence[Metric] = ()
) -> tuple[Probe, EngineReport | None]:
    """The probe with its scores on an engine, and how that was chosen; None: nothing was asked for.

    Args:
        probe: with all targets.
        methods: that will ask it; those that only look at scores are what an engine is for.
        engine: ``eager``, ``auto``, or a name.
        metrics: that will score each method's map; those that hide parts of the image count as methods do.

    Raises:
        BadOption: bfloat16 forwards and an engine: which of both computes would not be known.
        UnknownName: no such engine.
        MissingExtra: it needs a package that is not installed.
    """
    if engine == EAGER:
        return probe, None
    if probe.precision != "float32":
        raise BadOption(
            f"expected float32 with the engine {engine!r}, got {probe.precision}", "leave out --precision or --engine"
        )
    asking = [m for m in methods if m.card.agnostic]
    scored = _scored(probe, methods, metrics)
    if not asking and not scored:
        return probe, None
    if engine != AUTO:
        chosen, report = choose_engine(probe, (engine,))
    else:
        each = scored + sum(m.cost(probe).forwards for m in asking)
        chosen, report = choose_engine(probe, AUTOMATIC, each * probe.batch * len(probe.targets))
        report = report if chosen else None
    return probe.through(chosen), report


def _scored(probe: Probe, methods: Sequence[Explainer], metrics: Sequence[Metric]) -> int:
    """Forwards of one item through the engine for scoring every map; other metrics run other weights, or methods."""
    hiding = [m for m in metrics if m.card.measures is Property.FAITHFULNESS]
    costs = [metric.cost(probe, method) for metric in hiding for method in methods]
    return sum(c.forwards for c in costs if not c.backwards)


def suited(probe: Probe, method: Explainer) -> Probe:
    """The probe for a method: one that takes gradients compares scores with them, and both must be the module's."""
    return probe.through(None) if method.cost(probe).backwards or method.card.asks & GRADIENTS else probe


def engine_words(report: EngineReport | None, method: Explainer, used: bool) -> tuple[str, ...]:
    """What stands beside a map: the engine that made it with its error, or why the one asked for did not."""
    if report is None:
        return ()
    if used:
        return (report.words,)
    if not method.card.agnostic:
        return ()
    return tuple(f"the engine {name} was refused and the module itself used: {why}" for name, why in report.refused)
