"""Eight class activation maps, and three gradient maps more, out of one pass, against the peers one by one."""

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import rivals
import torch
from measuring import (
    Setting,
    alternate,
    at_least,
    at_most,
    counted,
    deviation,
    exactly,
    peak_mib,
    ratio,
    run,
    table,
    within,
)
from subjects import Subject, densenet
from torch import Tensor, nn

from pellucid.core.explainer import Explainer
from pellucid.core.explanation import Attribution
from pellucid.core.model import Model
from pellucid.core.probe import Probe
from pellucid.core.space import resize
from pellucid.core.target import ClassScore
from pellucid.explain.cam import GradCAM, GradCAMPlusPlus, HiResCAM, LayerCAM, XGradCAM
from pellucid.explain.eigen import EigenCAM, EigenGradCAM
from pellucid.explain.gradient import InputXGradient, Saliency
from pellucid.workbench.registry import spell

SIZES = ((224, 224), (96, 96, 96))
SAME = 1e-4
ONCE = {"forwards": 1, "backwards": 1}
GRADIENTS: tuple[Explainer, ...] = (Saliency(), Saliency(sign="kept"), InputXGradient())
Maps = Mapping[str, Attribution]


def explained(model: Model, image: Tensor, explainers: Sequence[Explainer], label: int) -> tuple[Probe, Maps]:
    """One probe for all methods, as the workbench opens it, and every answer."""
    inputs = {model.primary: image}
    needs = {need for explainer in explainers for need in explainer.needs(model, inputs)}
    probe = Probe(model, inputs, ClassScore(label), needs)
    return probe, {spell(explainer): explainer(probe) for explainer in explainers}


def cams(layer: str) -> tuple[Explainer, ...]:
    """Eight: what grad-cam has too, and Grad-CAM++ as its authors' code has it, which leaves the peer one map less."""
    return (
        GradCAM(layer),
        GradCAMPlusPlus(layer),
        GradCAMPlusPlus(layer, normalized=True),
        XGradCAM(layer),
        HiResCAM(layer),
        LayerCAM(layer),
        EigenCAM(layer),
        EigenGradCAM(layer),
    )


def measured(subject: Subject, setting: Setting) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Our side alone: its passes, and its time against a bare forward and a bare forward and backward to the input."""
    network, image, model, label = subject.network, subject.image, subject.model, subject.label

    def forward() -> Tensor:
        with torch.no_grad():
            return network(image)

    def backward() -> Tensor:
        x = image.clone().requires_grad_()
        return torch.autograd.grad(network(x)[:, label].sum(), x)[0]

    few = partial(explained, model, image, cams(subject.layer), label)
    many = partial(explained, model, image, (*cams(subject.layer), *GRADIENTS), label)
    started = time.process_time()
    few()
    cold = time.process_time() - started
    rounds = setting.take(21 if image.ndim == 4 else 11)
    single = alternate({"bare forward": forward, "CAMs": few}, rounds, setting)
    double = alternate({"bare forward and backward": backward, "CAMs and gradients": many}, rounds, setting)
    clock = setting.clock
    found = {
        **subject.words,
        "bare forward": "under torch.no_grad, as users predict; no inference_mode",
        "methods": [spell(explainer) for explainer in (*cams(subject.layer), *GRADIENTS)],
        "first_time_cpu_ms": round(1000 * cold, 1),
        "times": table(single, "bare forward", clock) | table(double, "bare forward and backward", clock),
    }
    if setting.device == "cuda":
        found["peak_memory_mib"] = {"bare forward": peak_mib(forward), "CAMs": peak_mib(few)}
        found["peak_memory_mib"] |= {"forward and backward": peak_mib(backward), "CAMs and gradients": peak_mib(many)}
    name = subject.name
    to_forward = ratio(single["CAMs"], single["bare forward"], clock)
    to_backward = ratio(double["CAMs and gradients"], double["bare forward and backward"], clock)
    return found, [
        *_counts(f"{name}: passes for 8 CAMs", network, few, 0),
        *_counts(f"{name}: passes for 8 CAMs and 3 gradient maps", network, many, 1),
        at_most(1.2, f"{name}: 8 CAMs / bare forward", to_forward),
        at_most(1.15, f"{name}: 8 CAMs and 3 gradient maps / one forward and backward to the input", to_backward),
    ]


def _counts(what: str, network: nn.Module, side: Callable[[], tuple[Probe, Maps]], whole: int) -> list[dict[str, Any]]:
    """The module's own hooks and the probe's account must both tell one pass."""
    spent = side()[0].spent
    account = {k: getattr(spent.shared, k) + getattr(spent.own, k) for k in ONCE}
    return [
        exactly(what, ONCE | {"backwards_to_first_layer": whole}, counted(network, side)),
        exactly(f"{what}, by Probe.spent", ONCE, account),
    ]


def compared(subject: Subject, maps: Maps, works: Sequence[str]) -> dict[str, dict[str, float]]:
    """Largest difference to each peer's map, as a share of its maximum; cells are enlarged the same way."""
    network, label = subject.copy(), subject.label
    found: dict[str, dict[str, float]] = {}
    for method in works:
        ours = maps[f"{method}:layer={subject.layer}"]
        cells = rivals.grad_cam_cells(method, network, subject, label)
        found[method] = {"to grad-cam": _away(ours, cells.map, "Eigen" in method)}
        if method == "GradCAMPlusPlus":
            right, as_theirs = rivals.plus_plus(cells, 0.0), rivals.plus_plus(cells, 1e-6)
            found[method]["grad-cam to its own formula, with B3"] = deviation(as_theirs, cells.map)
            found[method]["to that formula without B3"] = _away(ours, right, False)
    for name, peer in rivals.captum_maps(network, subject, label).items():
        found[name] = {"to captum": deviation(next(iter(maps[name].maps.values())), peer())}
    return found


def _away(ours: Attribution, cells: Tensor, signless: bool) -> float:
    """The sign of a principal component is arbitrary at the peer: the nearer of both is compared."""
    found = next(iter(ours.maps.values()))
    theirs = [sign * cells.to(found) for sign in ((1, -1) if signless else (1,))]
    theirs = [t if ours.signed else t.relu() for t in theirs]
    return min(deviation(found, resize(t, found.shape[2:])) for t in theirs)


def against(subject: Subject, setting: Setting) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The same maps from the peers one by one, in turn with ours."""
    image, label, model, theirs = subject.image, subject.label, subject.model, subject.copy()
    works, fails = rivals.working(rivals.CAMS, theirs, subject, label)
    captum = rivals.captum_maps(theirs, subject, label)
    ours = (*cams(subject.layer), *GRADIENTS)
    sides: dict[str, Callable[[], object]] = {
        "CAMs": partial(explained, model, image, cams(subject.layer), label),
        "grad-cam one by one": lambda: [rivals.grad_cam_map(m, theirs, subject, label) for m in works],
        "CAMs and gradients": partial(explained, model, image, ours, label),
        "captum one by one": lambda: [make() for make in captum.values()],
    }
    timed, clock, name = alternate(sides, setting.take(7), setting), setting.clock, subject.name
    both = timed["grad-cam one by one"].plus(timed["captum one by one"])
    deviations = compared(subject, explained(model, image, ours, label)[1], works)
    worst = max(min(v for k, v in each.items() if k.startswith("to ")) for each in deviations.values())
    found = {
        "grad-cam": works,
        "grad-cam fails": fails,
        "captum": list(captum),
        "times": table(timed, "CAMs", clock),
        "deviations": deviations,
    }
    few = ratio(timed["grad-cam one by one"], timed["CAMs"], clock)
    many = ratio(both, timed["CAMs and gradients"], clock)
    return found, [
        at_least(15, f"{name}: {len(works)} maps of grad-cam one by one / 8 CAMs", few),
        at_least(10, f"{name}: those and 3 maps of captum / 8 CAMs and 3 gradient maps", many),
        within(SAME, f"{name}: largest deviation of a map from a peer's (its Grad-CAM++ without B3)", worst),
    ]


def measure(setting: Setting) -> dict[str, Any]:
    """Both sizes."""
    cases, bars = [], []
    for size in SIZES:
        subject = densenet(size, setting.device)
        alone, held = measured(subject, setting)
        beside, beaten = against(subject, setting)
        cases.append(alone | {"peers": beside})
        bars += [*held, *beaten]
    return {"cases": cases, "bars": bars}


if __name__ == "__main__":
    sys.exit(run("panel", measure))
