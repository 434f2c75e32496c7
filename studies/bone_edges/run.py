"""Does LRP overemphasize bone edges in CT? Maps of a technical lung network on two real chest CTs, measured.

Run from the root: ``.venv/bin/python studies/bone_edges/run.py --data ../shared/data``; one thread, some minutes.
Results go to ``studies/bone_edges/results.json``, the picture to ``docs/images/bone_edges.png``. The seeds that did not
ship are measured too where ``training/lungs.py`` has left their checkpoints.
"""

import argparse
import json
import logging
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import edges
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "training"))

import lungs
import picture
from common import CHECKPOINTS, RESULTS, load_weights

from pellucid.core.atomic import write_text
from pellucid.core.case import Case
from pellucid.core.explainer import Explainer
from pellucid.core.image import Modality
from pellucid.core.model import Model
from pellucid.core.probe import Probe
from pellucid.core.target import RegionScore
from pellucid.demo.cases import MODELS
from pellucid.explain.cam import HiResCAM
from pellucid.explain.deeplift import DeepLIFT
from pellucid.explain.gradient import InputXGradient, Saliency
from pellucid.explain.path import IntegratedGradients
from pellucid.explain.relevance import LRP, DeepTaylor
from pellucid.io.models import load_model
from pellucid.io.reader import read_image
from pellucid.workbench.opening import Opened, open_case

LOG = logging.getLogger("bone_edges")
SERIES = (lungs.TEST, lungs.TRAINING)
SIDES = ("left lung", "right lung")
WATER = (40.0 - lungs.WINDOW[0]) / (lungs.WINDOW[1] - lungs.WINDOW[0])  # soft tissue of 40 HU in network units
FILLS = {"soft tissue": WATER, "air": 0.0}
FLAT = "LRP z+, flat first"
RULES: Mapping[str, Explainer] = {
    "LRP 0": LRP(rule="0"),
    "LRP epsilon (0.1)": LRP(rule="epsilon", epsilon=0.1),
    "LRP gamma": LRP(rule="gamma"),
    "LRP alpha2-beta1": LRP(rule="alpha-beta"),
    "LRP z+": LRP(rule="z+"),
    FLAT: LRP(rule="epsilon-plus-flat"),
    "DeepTaylor (zB)": DeepTaylor(),
}
OTHERS: Mapping[str, Explainer] = {
    "InputXGradient": InputXGradient(),
    "Saliency": Saliency(),
    "IntegratedGradients": IntegratedGradients(steps=16),
    "DeepLIFT": DeepLIFT(),
    "HiResCAM": HiResCAM(),
}
RATIOS = {
    "enrichment": edges.enrichment,
    "control_enrichment": edges.control_enrichment,
    "over_control_same_depth": edges.by_depth,
    "over_control_same_depth_and_steepness": edges.by_both,
}
SIGNS = {"sign_on_bone": edges.bone_sign, "sign_on_control": edges.control_sign}
ITSELF = "the image itself (no network)"
AGAINST = ("InputXGradient", "Saliency", ITSELF)


class Shifted(nn.Module):
    """The same network, fed with images whose zero is elsewhere: ``network(x + shift)``.

    Args:
        network: as shipped.
        shift: in network units.
    """

    def __init__(self, network: nn.Module, shift: float) -> None:
        super().__init__()
        self.network = network
        self.shift = shift

    def forward(self, x: Tensor) -> Tensor:
        """As the network."""
        return self.network(x + self.shift)


@dataclass(frozen=True, eq=False)
class Subject:
    """One chest, ready to be explained and measured."""

    name: str
    chest: lungs.Chest
    opened: Opened
    where: edges.Places


def subject(data: Path, name: str, model: Model) -> Subject:
    """Read a series, label it, and find its edges and lungs."""
    chest = lungs.read(data, name)
    image = read_image(data / "ct_lung_boxes" / name, Modality.CT)
    opened = open_case(Case(name, {"image": image}), model)
    middle = float(torch.nonzero(chest.body)[:, 0].float().mean())
    right = torch.arange(chest.lung.shape[0])[:, None, None] > middle  # the axis grows to the patient's right
    regions = {"left lung": chest.lung & ~right, "right lung": chest.lung & right}
    spaces = [a.numpy() for a in (chest.intensity, chest.lung, chest.body)]
    where = edges.places(*spaces, lungs.WINDOW, lungs.SPEC.spacing or ())
    return Subject(name, chest, replace(opened, scene=replace(opened.scene, regions=regions)), where)


def variants(shipped: Model) -> dict[str, tuple[Model, float, dict[str, Explainer]]]:
    """Model, shift of the input and methods: as shipped, with another zero, untrained, and of other seeds."""
    every = {**RULES, **OTHERS}
    some = {n: m for n, m in every.items() if n.startswith("LRP") or n in ("InputXGradient", "Saliency")}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        untrained = lungs.networks.lungs()
    modules: dict[str, tuple[nn.Module, float, dict[str, Explainer]]] = {
        "as shipped": (shipped.module, 0.0, every),
        # the addition is then what reads the image: a rule of its own for the first convolution would not be used
        "zero at 40 HU": (Shifted(shipped.module, WATER).eval(), WATER, {n: m for n, m in some.items() if n != FLAT}),
        "untrained": (untrained, 0.0, some),
    }
    ship = json.loads((RESULTS / "lungs.json").read_text(encoding="utf-8"))["shipped_seed"]
    for path in sorted(set(CHECKPOINTS.glob("lungs-*.safetensors")) - {CHECKPOINTS / f"lungs-{ship}.safetensors"}):
        trained = lungs.networks.lungs()
        load_weights(trained, path)
        modules[f"seed {path.stem[-1]}"] = (trained, 0.0, some)
    return {
        name: (Model(module, shipped.inputs, shipped.output), shift, methods)
        for name, (module, shift, methods) in modules.items()
    }


def maps_of(one: Subject, model: Model, shift: float, method: Explainer) -> list[NDArray]:
    """One map for each side: the mean logit of lung over that lung."""
    found = []
    for side in SIDES:
        x = one.opened.inputs["image"] - shift
        probe = Probe(model, x, RegionScore("lung", side), method.needs(model, {"image": x}), one.opened.scene)
        found.append(method(probe).collapsed()[0].double().numpy())
    return found


def sobel(one: Subject) -> NDArray:
    """How steep the image is."""
    seen = np.clip(one.chest.intensity.numpy(), *lungs.WINDOW)
    return edges.steepness(seen, lungs.SPEC.spacing or ())


def brightness(one: Subject) -> NDArray:
    """The image itself, as the network gets it: 0 for air."""
    return lungs.windowed(one.chest.intensity).double().numpy()


CONTROLS = {"Sobel of the image (no network)": sobel, ITSELF: brightness}


def tallied(one: Subject, maps: list[NDArray]) -> edges.Tally:
    """Both sides together, each with the same weight."""
    left, right = (edges.tally(values, one.where) for values in maps)
    return left + right


def figures(tallies: list[edges.Tally]) -> tuple[dict, dict[str, list[NDArray]]]:
    """Every figure of one method, per patient and both; and the draws of the enrichment, to compare methods by."""
    found, kept = {}, {}
    for name, figure in {**RATIOS, **SIGNS}.items():
        drawn = [edges.samples(some, figure, seed) for seed, some in enumerate(tallies)]
        both = edges.together(drawn, ratio=name in RATIOS)
        found[name] = {s: edges.interval(d) for s, d in zip((*SERIES, "both"), (*drawn, both), strict=True)}
        kept[name] = [*drawn, both]
    return found, kept


def compared(kept: dict[str, dict[str, list[NDArray]]]) -> dict:
    """Each rule over a gradient method, and over the bare image, on the same drawn slices."""
    name = "over_control_same_depth_and_steepness"
    return {
        figure: {
            rule: {
                other: {
                    s: edges.interval(a / b)
                    for s, a, b in zip((*SERIES, "both"), kept[rule][figure], kept[other][figure], strict=True)
                }
                for other in AGAINST
            }
            for rule in RULES
        }
        for figure in ("enrichment", name)
    }


def removal(one: Subject, model: Model) -> dict:
    """How the score changes when bone, or the control edges, become plain soft tissue, or air."""
    image, spots = one.opened.inputs["image"], {}
    near = one.where.bone | one.where.bone_edge
    probes = {side: Probe(model, image, RegionScore("lung", side), (), one.opened.scene) for side in SIDES}
    scores = {side: float(probe.baseline_score[0]) for side, probe in probes.items()}
    for name, mask in (("bone with its edges", near), ("control edges", one.where.control)):
        spots[name] = {"voxels": int(mask.sum())}
        for fill, level in FILLS.items():
            plain = torch.where(torch.from_numpy(mask), torch.tensor(level, dtype=image.dtype), image)
            after = {side: float(probe.score({"image": plain})[0]) for side, probe in probes.items()}
            spots[name][fill] = {side: round(after[side] / scores[side] - 1, 4) for side in SIDES}
    return {"score": {side: round(score, 3) for side, score in scores.items()}, **spots}


def counts(one: Subject) -> dict:
    """How many voxels and slices were measured."""
    some = edges.tally(np.ones(one.where.body.shape), one.where)
    return {
        "slices": len(some.body),
        "body": int(one.where.body.sum()),
        "bone_edges": int(one.where.bone_edge.sum()),
        "control_edges": int(one.where.control.sum()),
        "bone_edges_with_a_match": round(edges.matched_share(some.drawn(np.arange(len(some.body)))), 3),
    }


def measured(subjects: list[Subject], shipped: Model) -> tuple[dict, dict, dict]:
    """All figures by variant and method, the comparisons of the shipped network, and the maps that are drawn."""
    every, against, shown = {}, {}, {}
    for variant, (model, shift, methods) in variants(shipped).items():
        every[variant], kept = {}, {}
        for name, method in methods.items():
            started = time.monotonic()
            maps = [maps_of(one, model, shift, method) for one in subjects]
            every[variant][name], kept[name] = figures([tallied(*pair) for pair in zip(subjects, maps, strict=True)])
            LOG.info("%s, %s: %s, %.0f s", variant, name, brief(every[variant][name]), time.monotonic() - started)
            if variant == "as shipped":
                shown[name] = maps[0]
        if variant == "as shipped":
            for name, control in CONTROLS.items():
                every[variant][name], kept[name] = figures([tallied(one, [control(one)] * 2) for one in subjects])
            against = compared(kept)
    return every, against, shown


def brief(found: dict) -> str:
    """Both patients together, in one line."""
    return " ".join("{value} [{low}, {high}]".format(**found[name]["both"]) for name in found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    chosen = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(1)
    loaded = load_model(MODELS / "lungs")
    subjects = [subject(chosen.data, name, loaded.model) for name in SERIES]
    every, against, shown = measured(subjects, loaded.model)
    record = {
        "question": "does LRP overemphasize bone edges in CT (the review's section 5.4)?",
        "target": "mean logit of lung over the left and over the right lung, both maps weighing alike",
        "network": {"name": "lungs", "sha256": loaded.model.digest, "trained_on": lungs.TRAINING},
        "intervals": f"95%, {edges.DRAWS} draws of {edges.BLOCK} neighboring slices within each patient; "
        "they say nothing about other patients or other networks",
        "bins": {"mm_from_lung": edges.DEPTHS[:-1], "hu_per_mm": edges.SLOPES[:-1]},
        "series": {one.name: counts(one) for one in subjects},
        "figures": every,
        "rules_over": against,
        "removal": {one.name: removal(one, loaded.model) for one in subjects},
        "torch": torch.__version__,
    }
    write_text(Path(__file__).with_name("results.json"), json.dumps(record, indent=1) + "\n")
    picture.draw(subjects[0].chest, subjects[0].where, shown, record, ROOT / "docs" / "images" / "bone_edges.png")


if __name__ == "__main__":
    main()
