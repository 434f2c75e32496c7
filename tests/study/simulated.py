"""A study with known scores, written as a run would write it."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from pellucid.study.folder import MANIFEST, SCORES, Manifest
from pellucid.study.table import Row, write_rows

CRITERION = """[[criterion]]
id = "{id}"
tier = "{tier}"
dimension = "faithfulness"
metric = "{metric}"
relation = "{relation}"
value = {value}
unit = "1"
quote = "q"
source = "s"
source_status = "{status}"
statistic = "{statistic}"
"""
USUAL = {
    "tier": "automated",
    "metric": "Sparseness",
    "relation": ">",
    "value": 0.7,
    "status": "verified",
    "statistic": "mean",
}


def protocol(*criteria: Mapping[str, object], population: str = "") -> str:
    """A protocol from what differs from the usual criterion."""
    head = f'id = "own"\nversion = 1\ntitle = "A use"\nsource = "s"\n[population]\n{population}\n'
    told = [CRITERION.format(**{"id": f"c{n}", **USUAL, **c}) for n, c in enumerate(criteria)]
    return head + "\n".join(told)


def spread(mean: float, deviation: float, count: int) -> list[float]:
    """Values with exactly this mean and (population) standard deviation, half of them on either side."""
    return [mean + (deviation if n % 2 else -deviation) for n in range(count)]


def rows(values: Sequence[float], metric: str = "Sparseness", method: str = "GradCAM", **more: object) -> list[Row]:
    """One patient for each value, at one of two sites, half of the predictions right."""
    made = []
    for n, value in enumerate(values):
        row = Row(
            case=f"case{n}",
            patient=f"p{n}",
            site=f"site {n // 2 % 2}",
            content=hashlib.sha256(str(n).encode()).hexdigest(),
            model="m",
            correct=n // 4 % 2 == 0,
            target="default",
            method=method,
            metric=metric,
            value=value,
            reason="" if np.isfinite(value) else "the map is constant",
            direction="higher",
        )
        made.append(replace(row, **more))
    return made


def write_study(folder: Path, table: Sequence[Row]) -> Path:
    """The folder of a study that is done."""
    folder.mkdir(parents=True, exist_ok=True)
    write_rows(table, folder / SCORES)
    whole = Manifest(
        "simulated", "settings", {"m": "weights"}, {}, scores=hashlib.sha256((folder / SCORES).read_bytes()).hexdigest()
    )
    (folder / MANIFEST).write_text(json.dumps(asdict(whole)))
    return folder
