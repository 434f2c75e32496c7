"""Metrics in one shared sweep beside Quantus one by one: time and forwards; same network, image, map and settings.

Curves: deletion and insertion, in the order of a map and in the reverse, and under two fills. Maps are handed to both
sides as ranks, so that neither's rule for ties counts.
"""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import rivals_quantus as rivals
import torch
from films import films
from loops import Turns
from measuring import Passes, Setting, alternate, at_least, counted, middle, ratio, run, table, within
from taught import brains
from torch import Tensor, nn

from pellucid.core.engine import Engine
from pellucid.core.explanation import Attribution
from pellucid.core.infill import Constant
from pellucid.core.metric import Metric, Score
from pellucid.core.model import Model
from pellucid.core.probe import Probe
from pellucid.core.sweep import Sweep, SweptMetric
from pellucid.core.target import ClassScore, Target
from pellucid.engines.choosing import OFFERS
from pellucid.engines.sample import Sample
from pellucid.engines.selfcheck import Masked
from pellucid.explain.gradient import Saliency
from pellucid.metrics.complexity import Entropy, Sparseness
from pellucid.metrics.faithfulness.curves import DeletionAUC, InsertionAUC
from pellucid.metrics.faithfulness.flipping import PixelFlipping, RegionPerturbation, Selectivity
from pellucid.metrics.faithfulness.infidelity import Infidelity
from pellucid.metrics.faithfulness.road import ROAD
from pellucid.metrics.faithfulness.singles import FaithfulnessEstimate, Monotonicity
from pellucid.metrics.faithfulness.subsets import FaithfulnessCorrelation
from pellucid.metrics.faithfulness.superpixels import IROF
from pellucid.metrics.robustness.sensitivity import AverageSensitivity, LocalLipschitz, MaxSensitivity
from pellucid.metrics.robustness.stability import (
    RelativeInputStability,
    RelativeOutputStability,
    RelativeRepresentationStability,
)

EXPLAINER = Saliency()
BLACK = 0.0
TOLERANCE, HALF = 0.005, "openvino-bf16"
IMAGES, SLICES = 8, 4
FASTER = {"exact": 2, "tolerance": 8, f"tolerance, {HALF}": 15}
BLOCKS, BLOCK, SUBSETS = 7, 4, 100
COPIES = (200, 50)  # noisy copies: as many as Quantus takes by itself, and fewer


@dataclass(frozen=True, eq=False)
class Case:
    """An image with the map that is scored.

    Args:
        model: the network.
        x: "1 1 row column".
        target: that is explained.
        label: its number among the logits.
        ranks: of the pixels of its gradient map, "1 1 row column": no two alike.
        steps: points of a curve after the first; they divide the pixels.
    """

    model: Model
    x: Tensor
    target: Target
    label: int
    ranks: Tensor
    steps: int

    def probe(self, engine: Engine | None = None) -> Probe:
        """A fresh one, which remembers no score."""
        return Probe(self.model, self.x, self.target, EXPLAINER.needs(self.model, self._named)).through(engine)

    def turned(self, sign: int) -> Tensor:
        """The ranks, or those of the reverse order; never below zero, which Quantus refuses."""
        return self.ranks if sign > 0 else self.ranks.max() - self.ranks

    def answer(self, sign: int = 1) -> Attribution:
        """The map as ours takes it."""
        return Attribution({self.model.primary: self.turned(sign)}, "1", signed=True)

    @property
    def _named(self) -> dict[str, Tensor]:
        return {self.model.primary: self.x}


def case(model: Model, x: Tensor, target: Target, label: int, steps: int) -> Case:
    """With the ranks of the absolute gradient."""
    found = EXPLAINER(Probe(model, x, target, EXPLAINER.needs(model, {model.primary: x}))).collapsed(model.primary)
    order = found.flatten().argsort(stable=True)
    ranks = torch.empty(len(order), dtype=torch.float64).index_copy_(
        0, order, torch.arange(len(order), dtype=torch.float64)
    )
    return Case(model, x, target, label, ranks.view(1, 1, *x.shape[2:]), steps)


def slices(count: int) -> tuple[str, list[Case]]:
    """Of the brain, on the network taught here: two rows of pixels at a step."""
    found = brains()
    made = [case(found.model, found.unseen[i : i + 1], t, t.label, 64) for i, t in enumerate(found.targets[:count])]
    return found.name, made


def chests(count: int) -> tuple[str, list[Case]]:
    """Films on the demo's network for pneumonia, 28 x 28: seven pixels at a step."""
    found = films("pneumonia", count)
    model = _plain(found.model)
    target = ClassScore(found.label, "head")
    return str(found.words["model"]), [case(model, x[None], target, 0, 112) for x in found.images]


def _plain(model: Model) -> Model:
    """Without the memory of the images that it has seen."""
    return replace(model, module=model.module.network)


def asked(
    one: Case, signs: Sequence[int], fills: Sequence[float], tolerance: float | None, probe: Probe
) -> list[Score]:
    """Areas of deletion and insertion for each sign of the map and each fill, in one sweep."""
    askings = [
        made(one.steps, infill=Constant(fill), random_orders=0, tolerance=tolerance).asking(
            probe, one.answer(sign), EXPLAINER, None
        )
        for sign in signs
        for fill in fills
        for made in (DeletionAUC, InsertionAUC)
    ]
    return [score for score in Sweep(probe, EXPLAINER, askings).run() if isinstance(score, Score)]


def theirs(one: Case, signs: Sequence[int], fills: Sequence[float]) -> list[Tensor]:
    """The same curves without their first point, one call of Quantus each."""
    make = partial(rivals.curve, one.model.module, one.x, one.label)
    return [make(one.turned(s), f, one.steps, deleting) for s in signs for f in fills for deleting in (True, False)]


def engine_of(one: Case) -> Engine:
    """bfloat16 in OpenVINO."""
    probe = one.probe()
    build = next(o.build for o in OFFERS if o.name == HALF)
    return build(Sample(one.model, probe.inputs, Masked(probe).calibration))


def spans(scores: Sequence[Score]) -> Tensor:
    """Highest less lowest score of each curve."""
    return torch.tensor([max(s.detail["curve"][0]) - min(s.detail["curve"][0]) for s in scores])


def off(scores: Sequence[Score], exact: Sequence[Score]) -> float:
    """The largest difference of an area, as a share of the curve's span."""
    gaps = torch.stack([s.values - e.values for s, e in zip(scores, exact, strict=True)])[:, 0].abs()
    return float((gaps / spans(exact)).max())


def agreement(exact: Sequence[Score], peers: Sequence[Tensor]) -> float:
    """The largest difference of a point of a curve from Quantus's, as a share of the curve's span."""
    gaps = [
        float((torch.tensor(ours.detail["curve"][0])[1:].double() - other.double()).abs().max())
        for ours, other in zip(exact, peers, strict=True)
    ]
    return float((torch.tensor(gaps) / spans(exact)).max())


def _watched(module: nn.Module, make: Callable[[], Any]) -> tuple[Any, int]:
    """What is made, and with how many forwards of the module."""
    with Passes(module) as passes:
        return make(), passes.forwards


def curves(
    name: str, cases: list[Case], fills: Callable[[Case], list[float]], signs: Sequence[int], setting: Setting
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Four curves of one network: time, forwards, and how near the areas are."""
    half = engine_of(cases[0])
    ways = {"exact": (None, None), "tolerance": (TOLERANCE, None)}
    ways |= {f"exact, {HALF}": (None, half), f"tolerance, {HALF}": (TOLERANCE, half)}

    def ours(way: str) -> Callable[[Case], list[Score]]:
        tolerance, engine = ways[way]
        return lambda one: asked(one, signs, fills(one), tolerance, one.probe(engine))

    sides = {"Quantus": Turns(lambda one: theirs(one, signs, fills(one)), cases)}
    sides |= {way: Turns(ours(way), cases) for way in ways}
    timed = alternate(sides, setting.take(7), setting)
    made = {way: [_watched(cases[0].model.module, partial(ours(way), one)) for one in cases] for way in ways}
    exact = [scores for scores, _ in made["exact"]]
    errors = {way: [off(m[0], e) for m, e in zip(each, exact, strict=True)] for way, each in made.items()}
    peers, count = _watched(cases[0].model.module, partial(theirs, cases[0], signs, fills(cases[0])))
    near = agreement(exact[0], peers)
    # an engine's forwards do not reach the module's hooks
    found = {"Quantus": [count]} | {way: [n for _, n in made[way]] for way in ways if HALF not in way}
    bars = [
        at_least(bar, f"Quantus / ours, {way}: {name}", ratio(timed["Quantus"], timed[way], setting.clock))
        for way, bar in FASTER.items()
    ]
    bars += [within(TOLERANCE, f"largest area off, {way}: {name}", max(errors[way])) for way in ways if way != "exact"]
    bars.append(within(1e-4, f"largest point off Quantus's curve, exact: {name}", near))
    words = {"curves": name, "steps": cases[0].steps, "size": list(cases[0].x.shape), "images": len(cases)}
    words |= {"forwards": found, "sides": table(timed, "Quantus", setting.clock), "areas off": errors}
    return words, bars


def removal(name: str, cases: list[Case], setting: Setting) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """ROAD at nine shares."""

    def ours(one: Case) -> Score:
        probe = one.probe()
        return ROAD(9)(probe, one.answer(), EXPLAINER, None)

    def peers(one: Case) -> object:
        return rivals.road(one.model.module, one.x, one.label, one.ranks)

    timed = alternate({"Quantus": Turns(peers, cases), "ours": Turns(ours, cases)}, setting.take(7), setting)
    module = cases[0].model.module
    forwards = {n: counted(module, partial(s, cases[0]))["forwards"] for n, s in (("Quantus", peers), ("ours", ours))}
    bar = at_least(3, f"ROAD: Quantus / ours, {name}", ratio(timed["Quantus"], timed["ours"], setting.clock))
    return {"ROAD": name, "forwards": forwards, "sides": table(timed, "Quantus", setting.clock)}, [bar]


def suite(copies: int) -> dict[str, Metric]:
    """Ours by the name of Quantus's, with the settings of ``rivals.suite``."""
    fill, squares = Constant(BLACK), BLOCKS**2
    return {
        "PixelFlipping": PixelFlipping(squares, infill=fill),
        "RegionPerturbation": RegionPerturbation(squares, BLOCK, infill=fill),
        "Selectivity": Selectivity(squares, BLOCK, infill=fill),
        "IROF": IROF(81, 81, infill=fill),  # as many superpixels as Quantus asks for
        "FaithfulnessCorrelation": FaithfulnessCorrelation(BLOCKS, SUBSETS, infill=fill),
        "FaithfulnessEstimate": FaithfulnessEstimate(BLOCKS, infill=fill),
        "Monotonicity": Monotonicity(BLOCKS, infill=fill),
        "Infidelity": Infidelity(samples=squares, infill=fill),
        "ROAD": ROAD(9),
        "MaxSensitivity": MaxSensitivity(copies),
        "AvgSensitivity": AverageSensitivity(copies),
        "LocalLipschitzEstimate": LocalLipschitz(copies),
        "RelativeInputStability": RelativeInputStability(copies),
        "RelativeOutputStability": RelativeOutputStability(copies),
        "RelativeRepresentationStability": RelativeRepresentationStability(copies),
        "Sparseness": Sparseness(),
        "Complexity": Entropy(),
    }


def whole(name: str, one: Case, copies: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Forwards of every metric that both sides have: Quantus's one by one, ours together and one by one."""
    module, settings = one.model.module, rivals.suite(BLOCKS, BLOCK, SUBSETS, copies)

    def together(metrics: Sequence[Metric]) -> None:
        probe = one.probe()
        swept = [m for m in metrics if isinstance(m, SweptMetric)]
        Sweep(probe, EXPLAINER, [m.asking(probe, one.answer(), EXPLAINER, None) for m in swept]).run()
        for metric in metrics:
            if metric not in swept:
                metric(probe, one.answer(), EXPLAINER, None)

    peers = {
        n: counted(module, partial(rivals.run, n, chosen, module, one.x, one.label, one.ranks))["forwards"]
        for n, chosen in settings.items()
    }
    alone = {n: counted(module, partial(together, [m]))["forwards"] for n, m in suite(copies).items()}
    shared = counted(module, partial(together, list(suite(copies).values())))["forwards"]
    total = sum(peers.values())
    what = f"forwards of Quantus / ours, {len(peers)} metrics, {copies} noisy copies: {name}"
    bar = at_least(5, what, middle([total / shared] * 7))
    left_out = "SensitivityN: Quantus's correlates over images, and fails on one"
    words = {
        "suite": name,
        "noisy copies": copies,
        "left out": left_out,
        "Quantus": peers,
        "ours alone": alone,
        "ours together": shared,
        "Quantus in all": total,
    }
    return words, [bar | {"interval": None}]


def black_alone(_one: Any) -> list[float]:
    """The one fill of the curves in both orders."""
    return [BLACK]


def black_and_mean(one: Any) -> list[float]:
    """The two fills of one image."""
    return [BLACK, float(one.x.mean())]


def measure(setting: Setting) -> dict[str, Any]:
    """Curves, ROAD and the suite."""
    count = 2 if setting.light else IMAGES
    chest, pictures = chests(count)
    parts = [whole(chest, pictures[0], copies) for copies in COPIES]
    parts.append(curves(f"del/ins, most/least first, {chest}", pictures, black_alone, (1, -1), setting))
    parts.append(curves(f"del/ins, two fills, {chest}", pictures, black_and_mean, (1,), setting))
    parts.append(removal(chest, pictures, setting))
    if not setting.light:
        brain, cut = slices(SLICES)
        parts.append(removal(brain, cut, setting))
        parts.append(curves(f"del/ins, most/least first, {brain}", cut, black_alone, (1, -1), setting))
    bars = [bar for _, found in parts for bar in found]
    return {"patched": rivals.PATCHED, "parts": [words for words, _ in parts], "bars": bars}


if __name__ == "__main__":
    sys.exit(run("evaluation", measure))
