"""Every method and metric there is, and how to make one from text."""

import importlib
import os
import pkgutil
import types
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from importlib.metadata import entry_points
from typing import Any, Literal, Union, get_args, get_origin

from pellucid.core.card import Declared, Family
from pellucid.core.card import find_declared as _find
from pellucid.core.errors import BadOption, UnknownName
from pellucid.core.explainer import CohortExplainer, Explainer
from pellucid.core.infill import Infill, parse_infill, spell_infill
from pellucid.core.metric import Metric, PanelMetric

DISABLE = "PELLUCID_DISABLE"  # families or methods that are left out, separated by commas


@cache
def load_all() -> None:
    """Import every module that declares methods or metrics: ours, and those of installed packages.

    Other packages announce theirs by the entry points ``pellucid.explainers`` and ``pellucid.metrics``.
    """
    for name in ("pellucid.explain", "pellucid.metrics"):  # by name: the face hides the room behind a function
        package = importlib.import_module(name)
        for module in pkgutil.walk_packages(package.__path__, f"{name}."):
            importlib.import_module(module.name)
    for group in ("pellucid.explainers", "pellucid.metrics"):
        for point in entry_points(group=group):
            point.load()


def explainers() -> dict[str, type[Explainer]]:
    """Every explanation method by name, sorted, without what ``$PELLUCID_DISABLE`` leaves out."""
    load_all()
    return {name: cls for name, cls in sorted(Explainer.registry.items()) if not _left_out(cls)}


def cohort_methods() -> dict[str, type[CohortExplainer]]:
    """Every method that explains a model from many cases, by name, sorted, likewise."""
    load_all()
    return {name: cls for name, cls in sorted(CohortExplainer.registry.items()) if not _left_out(cls)}


def metrics() -> dict[str, type[Metric] | type[PanelMetric]]:
    """Every metric by name, sorted: of one map, and of all maps of a case together."""
    load_all()
    return dict(sorted({**Metric.registry, **PanelMetric.registry}.items()))


def make_explainer(text: str) -> Explainer:
    """An explainer from ``Occlusion`` or ``Occlusion:window=16,stride=8``.

    Raises:
        UnknownName: no such method.
        BadOption: no such parameter, or a value of the wrong type.

    Example:
        >>> make_explainer("occlusion:window=16")
        Occlusion(window=16.0, stride=None, infill=None)
    """
    load_all()
    return _make(Explainer, text)


def make_cohort_method(text: str) -> CohortExplainer:
    """A cohort method from ``PermutationImportance:repeats=20``; errors as ``make_explainer``."""
    load_all()
    return _make(CohortExplainer, text)


def make_metric(text: str) -> Metric | PanelMetric:
    """A metric from ``Dice`` or ``Dice:threshold=otsu``; errors as ``make_explainer``."""
    name = text.partition(":")[0].strip().lower()
    panel = name in {known.lower() for known in metrics() if known in PanelMetric.registry}
    return _make(PanelMetric if panel else Metric, text)


def spell(declared: Explainer | CohortExplainer | Metric | PanelMetric) -> str:
    """A method or metric as text: its name, and the parameters that differ from their defaults.

    Example:
        >>> spell(make_explainer("Occlusion:window=16,stride=8"))
        'Occlusion:window=16,stride=8'
    """
    changed = [
        (p.name, getattr(declared, p.name)) for p in declared.parameters() if getattr(declared, p.name) != p.default
    ]
    return ":".join(filter(None, (declared.name, ",".join(f"{name}={_plain(value)}" for name, value in changed))))


def spell_whole(declared: Explainer | Metric | PanelMetric, layer: str | None = None) -> str:
    """A method or metric with every parameter: the text gives the same one whatever the defaults become.

    Args:
        declared: the method or metric.
        layer: the resolved name, written in place of None.

    Raises:
        BadOption: a value that text cannot say.

    Example:
        >>> spell_whole(make_explainer("Occlusion:window=16,infill=blur:5"))
        'Occlusion:window=16.0,stride=none,infill=blur:5.0'
    """
    values = declared.settings()
    if layer is not None and values.get("layer", layer) is None:
        values["layer"] = layer
    text = ":".join(filter(None, (declared.name, ",".join(f"{k}={_exact(v)}" for k, v in values.items()))))
    base = next(kind for kind in (Metric, PanelMetric, Explainer) if isinstance(declared, kind))
    if _make(base, text).settings() != values:
        raise BadOption(f"the settings of {declared.name} cannot be written as text", "use numbers, words and fills")
    return text


def _exact(value: object) -> str:
    if isinstance(value, Infill):
        return spell_infill(value)
    if value is None or isinstance(value, bool):
        return str(value).lower()
    return repr(value) if isinstance(value, float) else str(value)


def told_apart(declared: Sequence[Explainer | CohortExplainer | Metric | PanelMetric]) -> list[str]:
    """The name of each, with its parameters where one name stands for several settings.

    Example:
        >>> told_apart([make_metric(m) for m in ("Dice", "HitRate", "HitRate:radius_mm=5")])
        ['Dice', 'HitRate', 'HitRate:radius_mm=5']
    """
    spelled = [spell(one) for one in declared]
    settings = Counter(text.partition(":")[0] for text in dict.fromkeys(spelled))
    return [text if settings[one.name] > 1 else one.name for one, text in zip(declared, spelled, strict=True)]


def _plain(value: object) -> str:
    if isinstance(value, Infill):
        return value.words
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def _left_out(method: type[Explainer] | type[CohortExplainer]) -> bool:
    """Whether ``$PELLUCID_DISABLE`` names the method or its family: a site may have to do without (a patent claim).

    Raises:
        BadOption: the variable names something that is neither.
    """
    words = {w.strip().lower() for w in os.environ.get(DISABLE, "").split(",") if w.strip()}
    known = {f.value for f in Family} | {n.lower() for n in (*Explainer.registry, *CohortExplainer.registry)}
    if unknown := words - known:
        raise BadOption(
            f"{DISABLE} names no method or family: {', '.join(sorted(unknown))}",
            f"families: {', '.join(f.value for f in Family)}",
        )
    return method.card.family.value in words or method.__name__.lower() in words


def _make(base: type[Declared], text: str) -> Any:
    name, _, rest = text.partition(":")
    declared = _found(base, name.strip())
    if issubclass(declared, Explainer | CohortExplainer) and _left_out(declared):
        raise UnknownName(f"{declared.__name__} is left out here", f"it is named in ${DISABLE}; choose another method")
    known = {p.name: p for p in declared.parameters()}
    chosen: dict[str, object] = {}
    for part in filter(None, (p.strip() for p in rest.split(","))):
        key, found, value = part.partition("=")
        if not found or key not in known:
            raise BadOption(
                f"{declared.__name__} has no parameter {key!r}",
                f"parameters: {', '.join(known) or 'none'}; write NAME:parameter=value",
            )
        chosen[key] = _parse(key, value, known[key].type)
    return declared(**chosen)


def _found(base: type[Declared], name: str) -> type:
    """A declared class by name; a method of the other kind is refused with the command that takes it."""
    try:
        return _find(base, name)
    except UnknownName as unknown:
        one = base is Explainer
        known = CohortExplainer.registry if one else Explainer.registry if base is CohortExplainer else {}
        if name.lower() not in {other.lower() for other in known}:
            raise
        command = "explains a model from many cases: pellucid cohort" if one else "explains one case: pellucid explain"
        raise UnknownName(unknown.problem, f"{name} {command} takes it; {unknown.mend}") from unknown


def _parse(key: str, text: str, kind: object) -> object:
    options = get_args(kind) if get_origin(kind) in (types.UnionType, Union) else (kind,)
    if type(None) in options and text.lower() == "none":
        return None
    if Infill in options:
        return parse_infill(text)
    words = [w for o in options if get_origin(o) is Literal for w in get_args(o)]
    if text in words or str in options:
        return text
    if bool in options:
        words += ["true", "false"]
        if text.lower() in words:
            return text.lower() == "true"
    for number in (int, float):
        if number in options:
            with suppress(ValueError):
                return number(text)
    expected = [str(w) for w in words] + [o.__name__ for o in (int, float) if o in options]
    if not expected:
        raise BadOption(f"{key} cannot be given as text", "set it from Python")
    raise BadOption(f"{key} must be {' or '.join(expected)}, got {text!r}", "correct the value")
