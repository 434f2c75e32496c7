"""RISE: how many forwards reach the map correlation of the paper's estimator, on trained networks and real films.

The truth is the map of many other masks of the same family; the three estimators have it as their common limit. Both
sides see the same films, fill (black, as in the paper) and score: the model score, as in the paper, and the logit.
Takes the better part of an hour for each network; the file is written anew after each film.
"""

import argparse
import json
import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from films import WHAT, Films, films
from measuring import Measured, Setting, at_least, middle, surroundings, within
from scipy.optimize import isotonic_regression
from torch import Tensor
from torch.quasirandom import SobolEngine

from pellucid.core.infill import Constant
from pellucid.core.probe import Probe
from pellucid.explain.rise import RISE, reliability_of
from pellucid.explain.tally import Tally

FILL = Constant(0.0)
SCALES = ("score", "head")
PAPER = (250, 500, 1000, 2000, 4000)
OURS = (32, 64, 128, 256, 384, 512, 768, 1024)
ASKED = (0.8, 0.9)
MOST = 1024  # the default
ENOUGH = 6  # films, for an interval of 95 %
PARTS = 8  # Sobol sequences behind the truth
BARS = {"paper 4000": 8.0, "normalized 2000": 2.0}


def limit(probe: Probe, masks: int) -> tuple[Tensor, float]:
    """The map of many masks without any weighing, and its reliability."""
    family = RISE().family(probe.grid)
    tally = Tally(family, probe.baseline_score, PARTS, linear=True)
    for part in range(PARTS):
        engine = SobolEngine(family.dimensions, scramble=True, seed=500 + PARTS * probe.scene.seed + part)
        points = family.with_opposites(engine.draw(masks // PARTS // 2, dtype=torch.float64)[:, None])
        for some in points.split(32):
            drawn = family.draw(some)
            keeps = drawn.full(probe.baseline_score)
            drawn = replace(drawn, streams=torch.full((len(some),), part))
            tally.add(drawn, keeps, shown(probe, keeps)[None, :, None])
    settled = float(reliability_of(tally.estimate(False, "ratio").effect)[0])
    return tally.estimate(True, "ratio").effect[0], round(settled, 4)


def shown(probe: Probe, keeps: Tensor) -> Tensor:
    """Scores behind masks, black where they hide."""
    return torch.cat([probe.score({"image": k[:, None] * probe.inputs["image"]}) for k in keeps.split(8)])


def paper(probe: Probe) -> dict[str, Tensor]:
    """The paper's map, sum f m / (N E[m]), and the mask-normalized one, of independent masks."""
    family = RISE().family(probe.grid)
    generator = torch.Generator().manual_seed(probe.scene.seed)
    points = torch.rand(max(PAPER), family.dimensions, generator=generator, dtype=torch.float64)
    total = cover = torch.zeros(family.shape)
    out, done = {}, 0
    for part in points.split(25):
        keeps = family.draw(part).full(probe.baseline_score)
        total, cover = total + torch.einsum("n,nij->ij", shown(probe, keeps), keeps), cover + keeps.sum(0)
        done += len(part)
        if done in PAPER:
            out[f"paper {done}"], out[f"normalized {done}"] = total / (done * family.shown), total / cover
    return out


def correlation(map_: Tensor, truth: Tensor) -> float:
    """Pearson's; 0 for a flat map."""
    if float(map_.std()) == 0:
        return 0.0
    return round(float(torch.corrcoef(torch.stack([map_.flatten(), truth.flatten()]))[0, 1]), 4)


def one(some: Films, film: int, scale: str, masks: int) -> dict[str, Any]:
    """Of one film: correlation with the truth by estimator and forwards, and what ours states of itself."""

    def ours(count: int, asked: float | None, seed: int) -> tuple[Tensor, int, float]:
        probe = some.probe(film, scale, seed)
        answer = RISE(count, asked, infill=FILL)(probe)
        return answer.maps["image"], probe.spent.own.forwards, float(answer.warnings[-1].split()[1])

    truth, settled = limit(some.probe(film, scale, film), masks)
    rivals = paper(some.probe(film, scale, 1000 + film))
    found = {name: correlation(map_, truth) for name, map_ in rivals.items()}
    stated = {}
    for count in OURS:
        map_, _, stated[str(count)] = ours(count, None, 7000 + film)
        found[f"ours {count}"] = correlation(map_, truth)
    stops = {}
    for asked in ASKED:
        map_, forwards, says = ours(MOST, asked, 7000 + film)
        stops[str(asked)] = {"forwards": forwards, "correlation": correlation(map_, truth), "stated": says}
    return {"truth_reliability": settled, "correlation": found, "stated": stated, "stops": stops}


def needed(row: dict[str, Any], rival: str) -> float:
    """How many times fewer forwards ours needs for the rival's correlation, at most as far as was measured."""
    reached = isotonic_regression([row["correlation"][f"ours {n}"] for n in OURS]).x
    wanted = row["correlation"][rival]
    log = np.interp(wanted, reached, np.log(OURS))
    return int(rival.split()[1]) / float(np.exp(log))


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Medians over the films of one score."""
    names = rows[0]["correlation"]
    return {
        "median_correlation": {n: round(float(np.median([r["correlation"][n] for r in rows])), 4) for n in names},
        "median_stops": {
            a: {k: round(float(np.median([r["stops"][a][k] for r in rows])), 4) for k in rows[0]["stops"][a]}
            for a in rows[0]["stops"]
        },
    }


def judged(rows: list[dict[str, Any]], scale: str) -> list[dict[str, Any]]:
    """The bars of one score."""
    unit = "model score" if scale == "score" else "logit"
    bars = []
    for rival, times in BARS.items():
        ratios = [needed(r, rival) for r in rows]
        found = (
            middle(ratios) if len(ratios) >= ENOUGH else Measured(statistics.median(ratios), min(ratios), max(ratios))
        )
        bars.append(at_least(times, f"{unit}: forwards of {rival} / ours at its correlation", found))
    over = [s["stated"] - s["correlation"] for r in rows for s in r["stops"].values()]
    over += [r["stated"][str(n)] - r["correlation"][f"ours {n}"] for r in rows for n in OURS]
    return [*bars, within(0.03, f"{unit}: stated reliability above the true correlation, worst", round(max(over), 4))]


def main() -> None:
    """Measure one network, film by film."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("network", choices=tuple(WHAT))
    parser.add_argument("--films", type=int, default=20)
    parser.add_argument("--truth", type=int, default=8192)
    parser.add_argument("--out", type=Path, default=Path(__file__).resolve().parent / "results")
    given = parser.parse_args()
    torch.set_num_threads(1)
    some = films(given.network, given.films)
    rows: dict[str, list[dict[str, Any]]] = {scale: [] for scale in SCALES}
    for film in range(given.films):
        for scale in SCALES:
            rows[scale].append(one(some, film, scale, given.truth))
        some.forget()
        result = {
            "benchmark": f"rise_{given.network}",
            "surroundings": surroundings(Setting()),
            "subject": some.words | {"films": film + 1, "truth_masks": given.truth, "fill": "black"},
            "bars": [bar for scale in SCALES for bar in judged(rows[scale], scale)],
            "summary": {scale: summary(rows[scale]) for scale in SCALES},
            "films": rows,
        }
        given.out.mkdir(parents=True, exist_ok=True)
        part = given.out / f"rise_{given.network}.json.part"
        part.write_text(json.dumps(result) + "\n", encoding="utf-8")
        part.replace(part.with_suffix(""))
    print(json.dumps(result))


if __name__ == "__main__":
    main()
