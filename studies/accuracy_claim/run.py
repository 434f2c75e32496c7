"""Are more accurate networks explained worse? Networks from a regression on pixels to a wide convolutional one.

Run from the root: ``.venv/bin/python studies/accuracy_claim/run.py --data ../shared/data --out out/accuracy_claim``;
one thread, some minutes. Weights that the output folder already holds are taken from there. Results go to
``results.json`` beside this file, the picture to ``docs/images/accuracy.png``.
"""

import argparse
import json
import logging
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "training"))

import networks
import numpy as np
import picture
import pneumonia
import relating
import torch
from common import auc_interval
from torch import Tensor, nn

from pellucid.core.atomic import make_folder, write_text
from pellucid.core.explainer import Explainer
from pellucid.core.infill import Constant
from pellucid.core.metric import Metric
from pellucid.core.model import Model, OutputSpec
from pellucid.core.probe import Probe, Retrained, Scene
from pellucid.core.target import ClassScore
from pellucid.explain.gradient import Saliency
from pellucid.explain.path import IntegratedGradients
from pellucid.metrics.complexity import Sparseness
from pellucid.metrics.faithfulness.normalized import NormalizedDeletionAUC, NormalizedInsertionAUC
from pellucid.metrics.randomization.weights import ModelParameterRandomization
from pellucid.metrics.robustness.retrained import Repeatability
from pellucid.metrics.robustness.sensitivity import AverageSensitivity

LOG = logging.getLogger("accuracy_claim")
METHODS: Mapping[str, Explainer] = {"IntegratedGradients": IntegratedGradients(steps=16), "Saliency": Saliency()}
SPEC = OutputSpec(labels=("normal", "pneumonia"), activation="sigmoid")
GRAY = Constant()  # zero is the mean gray of the films trained on
METRICS: tuple[Metric, ...] = (
    NormalizedDeletionAUC(steps=16, block=4.0, infill=GRAY, random_orders=4),
    NormalizedInsertionAUC(steps=16, block=4.0, infill=GRAY, random_orders=4),
    ModelParameterRandomization(levels=1, draws=3),
    AverageSensitivity(samples=5),
    Sparseness(),
    Repeatability(),
)


@dataclass(frozen=True)
class Size:
    """How much is done.

    Args:
        each: films of either label that are trained on.
        shown: held-out films with pneumonia whose maps are measured, at most.
        epochs: of training.
        seeds: of each design.
        designs: of networks.
    """

    each: int = 350
    shown: int = 30
    epochs: int = 15
    seeds: tuple[int, ...] = (0, 1, 2)
    designs: tuple[networks.Design, ...] = networks.DESIGNS


def films_of(data: Path, each: int) -> tuple[networks.Films, networks.Films]:
    """Balanced films to train on (drawn from seed 0), and the official test films; zero is the mean gray."""
    parts, _ = pneumonia.parts_of(data)
    draw, labels = np.random.default_rng(0), parts["training"].labels
    rows = np.sort(np.concatenate([draw.choice(np.flatnonzero(labels == one), each, replace=False) for one in (0, 1)]))
    images = parts["training"].images[torch.from_numpy(rows)]
    middle, spread = images.mean(), images.std()
    training = networks.Films((images - middle) / spread, labels[rows])
    return training, networks.Films((parts["test"].images - middle) / spread, parts["test"].labels)


def measured(module: nn.Module, others: Sequence[nn.Module], films: Tensor) -> dict[str, dict[str, dict]]:
    """By method and measure: median over films, the middle half of them, and how many have a value.

    Args:
        module: explained.
        others: of the same design, from other seeds.
        films: with pneumonia, which it calls so.
    """
    scene = Scene(retrained=tuple(Retrained(Model(one, output=SPEC)) for one in others))
    found: dict[str, dict[str, dict]] = {}
    for name, method in METHODS.items():
        model = Model(module, output=SPEC)
        probe = Probe(model, films, ClassScore("pneumonia"), method.needs(model, {"image": films}), scene)
        answer, found[name] = method(probe), {}
        for metric in METRICS:
            score = metric(probe, answer, method, None)
            values = score.values
            if isinstance(metric, ModelParameterRandomization):  # signs change with any fresh weight
                values = torch.tensor(score.detail["of the magnitudes"])
            found[name][metric.name] = spread_of(values.double().numpy())
    return found


def spread_of(values: np.ndarray) -> dict[str, float | int]:
    """Median and middle half of what is defined."""
    there = values[np.isfinite(values)]
    if not len(there):
        return {"median": float("nan"), "lower": float("nan"), "upper": float("nan"), "films": 0}
    ends = [round(float(v), 4) for v in np.percentile(there, [50, 25, 75])]
    return {**dict(zip(("median", "lower", "upper"), ends, strict=True)), "films": len(there)}


def described(design: networks.Design, seeds: Mapping[int, nn.Module], test: networks.Films, shown: int) -> list[dict]:
    """What every seed of one design reaches, and the quality of its maps."""
    rows = []
    for seed, module in seeds.items():
        started = time.process_time()
        with torch.inference_mode():
            logits = torch.cat([module(batch) for batch in test.images.split(256)])[:, 0].double().numpy()
        right = np.flatnonzero((test.labels == 1) & (logits > 0))
        chosen = np.sort(np.random.default_rng(0).permutation(right)[:shown])
        others = [other for at, other in seeds.items() if at != seed]
        row = {
            "design": design.name,
            "held_back": design.strict,
            "seed": seed,
            "parameters": sum(p.numel() for p in module.parameters()),
            "auc": auc_interval(test.labels, logits, np.arange(len(logits)), 500),
            "sensitivity": round(float((logits[test.labels == 1] > 0).mean()), 4),
            "specificity": round(float((logits[test.labels == 0] <= 0).mean()), 4),
            "films": len(chosen),
            "measures": measured(module, others, test.images[torch.from_numpy(chosen)]),
        }
        LOG.info("%s %d: AUC %.3f, %.0f s", design.name, seed, row["auc"]["value"], time.process_time() - started)
        rows.append(row)
    return rows


def study(data: Path, out: Path, size: Size) -> dict:
    """Every network, its AUC, the quality of its maps, and how they go together."""
    training, test = films_of(data, size.each)
    rows = []
    for design in size.designs:
        name = design.name.replace(", ", "-").replace(" ", "-")
        modules = {
            s: networks.fit(design, training, s, size.epochs, out / f"{name}-{s}.safetensors") for s in size.seeds
        }
        rows += described(design, modules, test, size.shown)
    points = [
        relating.Point(
            row["design"],
            row["parameters"],
            row["auc"]["value"],
            {method: {m: v["median"] for m, v in some.items()} for method, some in row["measures"].items()},
        )
        for row in rows
    ]
    return {
        "question": "are more accurate networks explained worse (the review's section 6.5)?",
        "data": "PneumoniaMNIST (MedMNIST v2), CC BY 4.0, official parts, duplicates dropped",
        "films": {"trained_on": len(training.labels), "test": len(test.labels), "explained": size.shown},
        "epochs": size.epochs,
        "metrics": {metric.name: _plain(metric.settings()) for metric in METRICS},
        "intervals": f"95%; of AUC: films drawn anew; of correlations: {relating.BY.words}, drawing designs",
        "networks": rows,
        "correlation with AUC": {method: relating.related(points, method, "auc") for method in METHODS},
        "correlation with size": {method: relating.related(points, method, "parameters") for method in METHODS},
        "torch": torch.__version__,
    }


def _plain(settings: Mapping[str, object]) -> dict[str, object]:
    return {k: v if isinstance(v, int | float | str | None) else str(v) for k, v in settings.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--out", type=Path, default=ROOT / "out" / "accuracy_claim")
    chosen = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(1)
    record = study(chosen.data, make_folder(chosen.out), Size())
    write_text(Path(__file__).with_name("results.json"), json.dumps(record, indent=1) + "\n")
    picture.draw(record, ROOT / "docs" / "images" / "accuracy.png")


if __name__ == "__main__":
    main()
