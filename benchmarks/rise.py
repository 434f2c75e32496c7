"""RISE: how many forwards reach the map correlation of the paper's estimator, on a trained network and real films.

The truth is the map of many masks (another seed, the same family). Both sides see the same images, fill and score: the
model score of pneumonia, as in the paper, and the logit (``head``). By default one film; ``--images 20`` takes long.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pellucid.core.infill import Constant
from pellucid.core.model import Model
from pellucid.core.probe import Probe, Scene
from pellucid.core.target import ClassScore
from pellucid.explain.rise import RISE
from pellucid.io.models import load_model

ROOT = Path(__file__).resolve().parents[1]
CARD = ROOT / "src" / "pellucid" / "demo" / "models" / "pneumonia" / "model.toml"
FILMS = ROOT.parent / "shared" / "data" / "xray_pneumoniamnist" / "pneumoniamnist.npz"
FILL = Constant(0.0)
PAPER = (500, 1000, 2000, 4000)
ASKED = (0.8, 0.9, 0.95)


def opened(model: Model, x: Tensor, scale: str, seed: int) -> Probe:
    """A probe of one film."""
    return Probe(model, x, ClassScore("pneumonia", scale), scene=Scene(seed=seed))


def paper(probe: Probe, counts: tuple[int, ...]) -> dict[str, Tensor]:
    """The paper's map, sum f m / (N E[m]), and the mask-normalized one, of independent masks."""
    family = RISE().family(probe.grid)
    generator = torch.Generator().manual_seed(probe.scene.seed)
    drawn = family.draw(torch.rand(max(counts), family.dimensions, generator=generator, dtype=torch.float64))
    keeps = drawn.full(probe.baseline_score)
    scores = torch.cat([probe.score({"image": k[:, None] * probe.inputs["image"]}) for k in keeps.split(32)])
    out = {}
    for n in counts:
        total = torch.einsum("n,nij->ij", scores[:n], keeps[:n])
        out[f"paper {n}"], out[f"normalized {n}"] = total / (n * family.shown), total / keeps[:n].sum(0)
    return out


def correlation(map_: Tensor, truth: Tensor) -> float:
    """Pearson's."""
    return float(torch.corrcoef(torch.stack([map_.flatten(), truth.flatten()]))[0, 1])


def measured(model: Model, x: Tensor, scale: str, masks: int) -> dict[str, tuple[int, float, float]]:
    """Of one film: forwards, correlation with the truth, and what reliability was stated, by estimator."""
    truth = RISE(masks, None, infill=FILL)(opened(model, x, scale, 99)).maps["image"]
    theirs = paper(opened(model, x, scale, 5), PAPER)
    found = {k: (int(k.split()[1]), correlation(v, truth), 0.0) for k, v in theirs.items()}
    for asked in ASKED:
        probe = opened(model, x, scale, 1)
        answer = RISE(4096, asked, infill=FILL)(probe)
        stated = float(answer.warnings[-1].split()[1])
        found[f"ours {asked}"] = (probe.spent.own.forwards, correlation(answer.maps["image"], truth), stated)
    for count in (128, 256, 512, 1024):
        answer = RISE(count, None, infill=FILL)(opened(model, x, scale, 1))
        stated = float(answer.warnings[-1].split()[1])
        found[f"ours {count}"] = (count, correlation(answer.maps["image"], truth), stated)
    return found


def main() -> None:
    """Print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=1)
    parser.add_argument("--truth", type=int, default=4096)
    parser.add_argument("--scales", nargs="+", default=["score", "head"])
    given = parser.parse_args()
    torch.set_num_threads(1)
    model = load_model(CARD).model
    data = np.load(FILMS)
    sick = data["test_images"][data["test_labels"][:, 0] == 1][: given.images]
    films = torch.from_numpy(sick).float()[:, None, None] / 255
    words = {
        "model": "demo pneumonia, 28 x 28",
        "precision": "float32",
        "images": len(films),
        "truth_masks": given.truth,
    }
    result: dict[str, object] = dict(words)
    for scale in given.scales:
        rows = [measured(model, x, scale, given.truth) for x in films]
        result[scale] = {
            name: {
                "forwards": float(np.median([r[name][0] for r in rows])),
                "correlation": round(float(np.median([r[name][1] for r in rows])), 4),
                "stated over true, worst": round(max(r[name][2] - r[name][1] for r in rows), 3),
            }
            for name in rows[0]
        }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
