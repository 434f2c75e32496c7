"""Do maps know what a network was taught? One network trained on true labels, shuffled ones and another task.

Run from the root: ``.venv/bin/python studies/label_randomization/run.py --data ../shared/data``; one thread, some
minutes. Results go to ``studies/label_randomization/results.json``, the picture to
``docs/images/label_randomization.png``.
"""

import argparse
import json
import logging
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import comparing
import fitting
import torch
from torch import Tensor

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "training"))

import picture
import pneumonia

from pellucid.core.atomic import write_text
from pellucid.core.explainer import Explainer
from pellucid.core.model import Model, OutputSpec
from pellucid.core.probe import Probe
from pellucid.core.target import ClassScore
from pellucid.explain.cam import GradCAM, HiResCAM
from pellucid.explain.deeplift import DeepLIFT
from pellucid.explain.eigen import EigenCAM
from pellucid.explain.gradient import InputXGradient, Saliency
from pellucid.explain.guided import GuidedBackprop
from pellucid.explain.noise import SmoothGrad
from pellucid.explain.occlusion import Occlusion
from pellucid.explain.path import IntegratedGradients
from pellucid.explain.relevance import LRP, DeepTaylor
from pellucid.metrics.randomization.edges import EdgeDetector

LOG = logging.getLogger("label_randomization")
METHODS: Mapping[str, Explainer] = {
    "Saliency": Saliency(),
    "SmoothGrad": SmoothGrad(samples=20),
    "InputXGradient": InputXGradient(),
    "IntegratedGradients": IntegratedGradients(steps=16),
    "DeepLIFT": DeepLIFT(),
    "GuidedBackprop": GuidedBackprop(),
    "LRP 0": LRP(rule="0"),
    "LRP z+": LRP(rule="z+"),
    "DeepTaylor": DeepTaylor(),
    "GradCAM": GradCAM(),
    "HiResCAM": HiResCAM(),
    "EigenCAM": EigenCAM(),
    "Occlusion": Occlusion(window=6.0, stride=3.0),
    "edges of the image (no network)": EdgeDetector(),
}
SPEC = OutputSpec(labels=("normal", "pneumonia"), activation="sigmoid")


@dataclass(frozen=True)
class Size:
    """How much is done.

    Args:
        each: films of either label that are trained on.
        shown: films of either label, held out, whose maps are compared.
        epochs: of training.
        seeds: of networks.
    """

    each: int = 350
    shown: int = 60
    epochs: int = 60
    seeds: tuple[int, ...] = (0, 1, 2, 3)


def maps_of(fitted: fitting.Fitted, method: Explainer, films: fitting.Films) -> Tensor:
    """The maps of all films for pneumonia, "film 28 28"."""
    model = Model(fitted.module, output=SPEC)
    probe = Probe(model, films.images, ClassScore("pneumonia"), method.needs(model, {"image": films.images}))
    return method(probe).collapsed().detach()


def trained(size: Size, training: fitting.Films, test: fitting.Films) -> list[fitting.Fitted]:
    """Every network: each kind of labels from each seed."""
    found = []
    for seed in size.seeds:
        for kind in fitting.KINDS:
            one = fitting.fit(training, test, kind, seed, size.epochs)
            LOG.info("%s %d: remembers %.3f, AUC %.3f, %.0f s", kind, seed, one.remembered, one.auc, one.seconds)
            found.append(one)
    return found


def compared(
    fitted: Sequence[fitting.Fitted], films: fitting.Films, seeds: Sequence[int]
) -> tuple[dict[str, dict], dict[str, comparing.Maps]]:
    """The figures of each method, and its maps."""
    figures, shown = {}, {}
    for name, method in METHODS.items():
        started = time.process_time()
        maps = {(one.labels, one.seed): maps_of(one, method, films) for one in fitted}
        figures[name] = comparing.summary(comparing.similarities(maps, method.card.signed, seeds))
        shown[name] = maps
        lost = figures[name]["ranks of magnitudes"]["lost with the labels"]
        LOG.info("%s: lost with the labels %s, %.0f s", name, lost, time.process_time() - started)
    return figures, shown


def study(data: Path, size: Size) -> tuple[dict, fitting.Films, dict[str, comparing.Maps]]:
    """Everything that is measured; the films whose maps were compared, and the maps."""
    parts, dropped = pneumonia.parts_of(data)
    raw = fitting.balanced(fitting.Films(parts["training"].images, parts["training"].labels), size.each)
    training = fitting.standardized(raw, raw)
    test = fitting.standardized(fitting.Films(parts["test"].images, parts["test"].labels), raw)
    films = fitting.balanced(test, size.shown)
    fitted = trained(size, training, test)
    figures, maps = compared(fitted, films, size.seeds)
    record = {
        "question": "do maps differ between a network that learned the labels and one that learned shuffled ones?",
        "data": "PneumoniaMNIST (MedMNIST v2), CC BY 4.0, official parts, duplicates dropped",
        "dropped": dropped,
        "films": {"trained_on": 2 * size.each, "compared": 2 * size.shown, "test": len(test.labels)},
        "epochs": size.epochs,
        "seeds": list(size.seeds),
        "networks": comparing.described(fitted),
        "intervals": f"95%, {comparing.DRAWS} draws of whole films, for the file names no patients; "
        "they do not hold the variance between networks: see the range over pairs",
        "figures": figures,
        "torch": torch.__version__,
    }
    return record, films, maps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    chosen = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(1)
    record, films, maps = study(chosen.data, Size())
    write_text(Path(__file__).with_name("results.json"), json.dumps(record, indent=1) + "\n")
    picture.draw(films, maps, record, ROOT / "docs" / "images" / "label_randomization.png")


if __name__ == "__main__":
    main()
