"""Do maps of LRP and guided backpropagation change by more than 40% under minor noise, and more than other maps?

Run from the root: ``.venv/bin/python studies/noise_claim/run.py --data ../shared/data --out out/noise_claim``; one
thread, some ten minutes a network. Cases that the output folder already holds are not measured again, so that it may be
stopped and run again. Once all are there, ``results.json`` and ``cases.csv`` beside this file and the picture in
``docs/images`` are written.
"""

import argparse
import json
import logging
from collections.abc import Sequence
from pathlib import Path

import measuring
import picture
import summary
import tables
import torch
from subjects import NETWORKS, ROOT, subject

from pellucid.core.atomic import write_text
from pellucid.workbench.registry import make_explainer

HERE = Path(__file__).resolve().parent
PATHS = {  # short where one pass takes long
    "pneumonia": ("IntegratedGradients:steps=16", "SmoothGrad:samples=16", "Occlusion:window=6,stride=3"),
    "nodule": ("IntegratedGradients:steps=16", "SmoothGrad:samples=16", "Occlusion:window=24,stride=16"),
    "hippocampus": ("IntegratedGradients:steps=6", "SmoothGrad:samples=6"),
    "vessels": ("IntegratedGradients:steps=6", "SmoothGrad:samples=6"),
}
COUNTS = {"pneumonia": (40, 3), "nodule": (16, 2), "hippocampus": (6, 1), "vessels": (8, 1)}  # cases, copies
RULES = ("0", "epsilon,epsilon=0.1", "gamma", "alpha-beta")
FEWER_RULES = {"hippocampus": RULES[:2]}


def plan(network: str) -> measuring.Plan:
    """The methods and cases of a network."""
    fallback = "fallback=gradient" if network == "nodule" else ""  # it ends in a logsumexp, which has no rule
    relevance = {summary.LRP: "LRP:" + fallback} | {
        f"LRP {rule.split(',')[0]}": ",".join(filter(None, (f"LRP:rule={rule}", fallback)))
        for rule in FEWER_RULES.get(network, RULES)
    }
    plain = ("Saliency", "InputXGradient", "GradCAM", "HiResCAM", *PATHS[network])
    texts = {"GuidedBackprop": "GuidedBackprop", **relevance} | {text.split(":")[0]: text for text in plain}
    methods = {name: make_explainer(text.rstrip(":")) for name, text in texts.items()}
    count, copies = COUNTS[network]
    return measuring.Plan(count, copies, methods | {measuring.EDGES: None, measuring.ITSELF: None})


def study(data: Path, out: Path, networks: Sequence[str], seconds: float) -> bool:
    """Measure what is not there yet; whether all is."""
    complete = True
    for network in networks:
        chosen = plan(network)
        one = subject(network, data, chosen.count)
        complete &= measuring.fill(one, chosen, out / f"{network}.csv", seconds)
    return complete


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--out", type=Path, default=ROOT / "out" / "noise_claim")
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=NETWORKS)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="for each network; then it stops")
    chosen = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(1)
    chosen.out.mkdir(parents=True, exist_ok=True)
    study(chosen.data, chosen.out, chosen.networks, chosen.seconds)
    paths = [chosen.out / f"{network}.csv" for network in NETWORKS]
    if not all(path.is_file() for path in paths):
        return
    rows = [row for path in paths for row in tables.read(path, measuring.TEXTS)]
    tables.write(rows, HERE / "cases.csv")
    record = summary.record(rows)
    write_text(HERE / "results.json", json.dumps(record, indent=1) + "\n")
    picture.draw(record, ROOT / "docs" / "images" / "noise.png")


if __name__ == "__main__":
    main()
