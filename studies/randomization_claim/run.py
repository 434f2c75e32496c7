"""Which methods fail randomization? Every method with a map, on trained and on fresh weights of five networks.

Run from the root: ``.venv/bin/python studies/randomization_claim/run.py --data ../shared/data --out
out/randomization_claim``; one thread, some minutes a network. Cases that the output folder already holds are not
measured again, so that it may be stopped and run again. Once all networks are there, ``results.json`` and ``cases.csv``
beside this file and the picture in ``docs/images`` are written.
"""

import argparse
import json
import logging
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.append(str(HERE.with_name("noise_claim")))  # cases and tables; after our own folder, whose names go first

import drawing
import tables
import torch
import trials
import verdicts
from subjects import NETWORKS, ROOT, Batch, Subject, subject

from pellucid.core.atomic import write_text
from pellucid.core.explainer import Explainer
from pellucid.metrics.randomization.edges import EdgeDetector
from pellucid.workbench.registry import explainers, make_explainer

EVERY = (*NETWORKS, "pneumonia_transformer")
COUNTS = {"pneumonia": 20, "nodule": 12, "hippocampus": 6, "vessels": 8, "pneumonia_transformer": 20}
TOGETHER = {"pneumonia": 4, "pneumonia_transformer": 4, "nodule": 4}  # cases of one draw of fresh weights; else one
NO_MAPS = ("AskByHand", "ChannelGate")  # these answer about one region given by hand, and about channels
TOO_MANY = ("ExactShapley",)  # asks for every subset
FEWER = {  # evaluations: fewer than the defaults, for time
    "IntegratedGradients": "steps=8",
    "BlurIG": "steps=8",
    "ExpectedGradients": "samples=8",
    "SmoothGrad": "samples=8",
    "SquareGrad": "samples=8",
    "VarGrad": "samples=8",
    "RISE": "masks=128",
    "LIME": "samples=100",
    "KernelSHAP": "samples=100",
    "PartitionSHAP": "samples=100",
    "MorrisSensitivity": "trajectories=2",
    "ScoreCAM": "channels=32",
}
FEWEST = {"IntegratedGradients": "steps=6", "SmoothGrad": "samples=4"}  # where one evaluation takes long
WINDOWS = {"nodule": "window=24,stride=16"}
LARGE = ("hippocampus", "vessels")  # one evaluation takes so long there that only these methods are tried
CORE = (
    "Saliency",
    "InputXGradient",
    "IntegratedGradients",
    "SmoothGrad",
    "GuidedBackprop",
    "Deconvolution",
    "DeepLIFT",
    "DeepTaylor",
    "LRP",
    "GradCAM",
    "HiResCAM",
    "EigenCAM",
    "GuidedGradCAM",
)
RULES = ("0", "gamma", "alpha-beta")


def methods(network: str) -> Mapping[str, Explainer]:
    """Every method with a map, and the control that must fail."""
    tried = CORE if network in LARGE else [name for name in explainers() if name not in NO_MAPS + TOO_MANY]
    fewer = FEWER | (FEWEST if network in LARGE else {})
    texts = {name: f"{name}:{fewer.get(name, '')}".rstrip(":") for name in tried}
    if network not in LARGE:
        texts["Occlusion"] = f"Occlusion:{WINDOWS.get(network, 'window=6,stride=3')}"
    texts |= {f"LRP {rule}": f"LRP:rule={rule}" for rule in (RULES[:1] if network in LARGE else RULES)}
    if network == "nodule":  # it ends in a logsumexp, which has no rule
        texts |= {
            name: f"{text}{',' if ':' in text else ':'}fallback=gradient"
            for name, text in texts.items()
            if name.startswith("LRP") or name in ("DeepTaylor", "DeepLIFT", "DeepSHAP")
        }
    return {**{name: make_explainer(text) for name, text in texts.items()}, verdicts.CONTROL: EdgeDetector()}


def smaller(one: Subject, size: int) -> Subject:
    """The same cases in smaller batches."""
    parts = [
        Batch(b.x[i : i + size], b.names[i : i + size], b.patients[i : i + size], b.scene)
        for b in one.batches
        for i in range(0, len(b.x), size)
    ]
    return replace(one, batches=tuple(parts))


def study(data: Path, out: Path, networks: Sequence[str], seconds: float) -> None:
    """Measure what is not there yet."""
    for network in networks:
        one = trials.everywhere(subject(network, data, COUNTS[network]))
        trials.fill(smaller(one, TOGETHER.get(network, 1)), methods(network), out / f"{network}.csv", seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--out", type=Path, default=ROOT / "out" / "randomization_claim")
    parser.add_argument("--networks", nargs="+", choices=EVERY, default=EVERY)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="for each network; then it stops")
    chosen = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(1)
    chosen.out.mkdir(parents=True, exist_ok=True)
    study(chosen.data, chosen.out, chosen.networks, chosen.seconds)
    paths = [chosen.out / f"{network}.csv" for network in EVERY]
    if not all(path.is_file() for path in paths):
        return
    columns = (*trials.TEXTS, *trials.VALUES)
    rows = [{k: row[k] for k in columns} for path in paths for row in tables.read(path, trials.TEXTS)]
    tables.write(rows, HERE / "cases.csv")
    record = verdicts.record(rows)
    write_text(HERE / "results.json", json.dumps(record, indent=1) + "\n")
    drawing.draw(record, ROOT / "docs" / "images" / "randomization.png")


if __name__ == "__main__":
    main()
