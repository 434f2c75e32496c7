"""Calculation checks: whether maps were computed as declared. They say nothing about whether the model is right."""

from collections.abc import Callable

import torch
from torch import Tensor

from pellucid.core.card import Ask
from pellucid.core.explainer import LayerExplainer
from pellucid.core.explanation import Attribution
from pellucid.core.probe import Probe
from pellucid.core.space import per_item
from pellucid.show.sections import Check
from pellucid.workbench.explaining import Panel, Progress
from pellucid.workbench.shamming import sham_checks

_GAP = 0.05  # of the score difference
_OFF = 0.05  # of the gradient's length
_NOISE = 0.25  # standard error over the map, both as root mean squares
_STEPS = (3e-3, 3e-4)  # of the length of the input: the first for float32's digits, the second for kinks of ReLU


def calculation_checks(panel: Panel, progress: Progress | None = None) -> tuple[Check, ...]:
    """Check each map of a panel, and the gradients they rest on.

    Args:
        panel: of one case; its probes count what the checks cost apart (``spent.checks``).
        progress: called with what is being checked.
    """
    checks: list[Check] = []
    for explanation, title in zip(panel.explanations, panel.titles, strict=True):
        if isinstance(explanation.answer, Attribution):
            checks += _completeness(explanation.answer, title) + _sampling(explanation.answer, title)
    checks += [_maps(panel)]
    if progress is not None:
        progress("sham tests")
    checks += sham_checks(panel)
    for probe, layers in _by_target(panel):
        if progress is not None:
            progress(f"checking the gradient of {probe.target.name}")
        checks += _gradients(probe, layers)
    return tuple(checks)


def _completeness(answer: Attribution, title: str) -> list[Check]:
    if answer.gap is None:
        return []
    gap = float(answer.gap.max())
    words = f"the values miss the sum they promise by {gap:.1%} of it (limit {_GAP:.0%}, ours)"
    return [Check(f"completeness of {title}", "pass" if gap <= _GAP else "fail", words, gap)]


def _sampling(answer: Attribution, title: str) -> list[Check]:
    if answer.error is None:
        return []
    name = next(iter(answer.maps))
    size = float(answer.maps[name].square().mean().sqrt())
    share = float(answer.error[name].square().mean().sqrt()) / size if size else float("inf")
    words = f"the standard error is {share:.0%} of the map's typical size (limit {_NOISE:.0%}, ours)"
    if share > _NOISE:
        words += ": another seed gives another map; draw more samples"
    return [Check(f"sampling error of {title}", "pass" if share <= _NOISE else "fail", words, share)]


def _maps(panel: Panel) -> Check:
    """Maps that show nothing, or only evidence against."""
    odd: dict[str, list[str]] = {"blank": [], "without evidence for the target": []}
    for explanation, title in zip(panel.explanations, panel.titles, strict=True):
        if isinstance(explanation.answer, Attribution):
            values = explanation.answer.collapsed()
            if not bool(values.any()):
                odd["blank"].append(title)
            elif float(values.max()) <= 0:
                odd["without evidence for the target"].append(title)
    found = [f"{what}: {', '.join(which)}" for what, which in odd.items() if which]
    if not found:
        return Check("maps that show something", "pass", f"none of {len(panel.titles)} is blank or all negative")
    return Check("maps that show something", "fail", "; ".join(found))


def _by_target(panel: Panel) -> list[tuple[Probe, tuple[str, ...]]]:
    """A probe of each target, with the layers that methods read its gradient at."""
    found: dict[int, tuple[Probe, dict[str, None]]] = {}
    for explainer, probe in zip(panel.made_by, panel.probes, strict=True):
        layers = found.setdefault(probe.aim, (probe, {}))[1]
        if isinstance(explainer, LayerExplainer) and Ask.LAYER_GRADIENT in explainer.card.asks:
            layers[probe.model.resolve(explainer.layer, probe.inputs)] = None
    return [(probe.through(None).checking(), tuple(layers)) for probe, layers in found.values()]


def _gradients(probe: Probe, layers: tuple[str, ...]) -> list[Check]:
    """Central differences against the gradients that the shared pass gave."""
    checks: list[Check] = []
    if probe.asked(Ask.INPUT_GRADIENT, None):
        for name, gradient in probe.input_gradient.items():
            at = probe.inputs[name]

            def moved(steps: Tensor, name: str = name, at: Tensor = at) -> Tensor:
                x = {k: _tiled(v, len(steps)) for k, v in probe.inputs.items()}
                x[name] = (at[None] + steps).flatten(0, 1)
                return probe.score(x)

            checks.append(_spot(probe, f"input {name}", at, gradient, moved))
    for layer in layers:

        def replaced(steps: Tensor, layer: str = layer) -> Tensor:
            return probe.behind(layer, lambda a: a + steps.flatten(0, 1).to(a), len(steps))

        if probe.model.can.batch is None and probe.model.can.edits and probe.model.inference is None:
            checks.append(
                _spot(probe, f"layer {layer}", probe.activation(layer), probe.layer_gradient(layer), replaced)
            )
    return checks


def _spot(probe: Probe, what: str, at: Tensor, gradient: Tensor, score: Callable[[Tensor], Tensor]) -> Check:
    """Slopes along the gradient and along a random direction, by steps of two lengths; the better length counts.

    A random direction sees what the gradient leaves out (a part cut from the graph); the gradient itself has the
    largest slope, hence the most digits.
    """
    name = f"gradient to {what}, for {probe.target.name}"
    if probe.precision != "float32":
        return Check(name, "not measured", f"{probe.precision} has too few digits for differences")
    length = gradient.flatten(1).norm(dim=1)
    if not bool((length > 0).all()):
        return Check(name, "fail", "the gradient is zero everywhere: the score does not react to any small change")
    draw = torch.randn(gradient.shape[1:], generator=torch.Generator().manual_seed(probe.scene.seed)).to(gradient)
    directions = (gradient / per_item(length, gradient), draw[None] / draw.norm())
    reach = at.flatten(1).norm(dim=1).clamp_min(1e-6)
    worst = 0.0
    for direction in directions:
        promised = (gradient * direction).flatten(1).sum(1)
        steps = torch.stack([sign * size * per_item(reach, at) * direction for size in _STEPS for sign in (1, -1)])
        found = score(steps).view(len(_STEPS), 2, probe.batch)
        slopes = (found[:, 0] - found[:, 1]) / (2 * torch.tensor(_STEPS).to(reach)[:, None] * reach)
        off = (slopes - promised).abs() / (length if direction is directions[0] else length / draw.numel() ** 0.5)
        worst = max(worst, float(off.amin(0).max()))
    words = f"central differences differ from it by at most {worst:.1%} (limit {_OFF:.0%}, ours)"
    if worst > _OFF:
        words += ": the module may cut or replace part of its graph, or its score bends sharply here"
    return Check(name, "pass" if worst <= _OFF else "fail", words, worst)


def _tiled(x: Tensor, versions: int) -> Tensor:
    return x.repeat(versions, *(1,) * (x.ndim - 1))
