"""Our side for methods that need many cases: a cohort of patches of one picture, and their tables as one row."""

import torch
from torch import Tensor

from pellucid.core.cohort import Cohort, blocks_of
from pellucid.core.explainer import CohortExplainer
from pellucid.core.explanation import Effects
from pellucid.core.target import ClassScore
from pellucid.verify.ours import Explained
from pellucid.verify.subjects import Prepared

_LABEL = 0


def cohort_of(prepared: Prepared) -> Cohort:
    """The patches as cases, each with the label that the network itself predicts, so that both classes occur."""
    with torch.no_grad():
        labels = prepared.net(prepared.x).argmax(1).tolist()
    return Cohort(
        {prepared.model.primary: prepared.x},
        ClassScore(_LABEL),
        blocks_of(prepared.x.shape[2:], 3),
        labels=tuple(str(label) for label in labels),
        scene=prepared.scene,
    )


def points_of(cohort: Cohort, points: int) -> Tensor:
    """The mean intensities of each region between the cohort's 5th and 95th percentile: "region point"."""
    image = next(iter(cohort.inputs.values())).mean(1)
    means = torch.stack([image[:, cohort.parts.inside(k)[0]].mean(1) for k in range(len(cohort.parts.names))])
    return torch.quantile(means, torch.linspace(0.05, 0.95, points, dtype=means.dtype), dim=1).T


def effects(method: CohortExplainer, prepared: Prepared) -> Explained:
    """What a cohort method finds, its numbers in a fixed order: "1 number"."""
    cohort = cohort_of(prepared)
    answer = method(prepared.model, cohort)
    return Explained(torch.tensor(_numbers(answer, cohort.parts.names), dtype=torch.float64)[None], torch.zeros(0))


def _numbers(answer: Effects, regions: tuple[str, ...]) -> list[float]:
    """Of a curve its mean and each case's own; of a surrogate its R2 and its rows; of others the rows."""
    rows = {row.name: row.estimate for row in answer.rows}
    if "fidelity" in answer.tables:
        told = [float(str(answer.tables["fidelity"]["R2"][0]))]
        return told + [rows[f"{what} of {name}"] for name in regions for what in ("mean", "sd")]
    if "by case" in answer.tables:
        return [rows[name] for name in regions]
    found: list[float] = []
    for name in regions:
        curve = answer.tables[f"curve of mean of {name}"]
        found += [float(str(v)) for v in curve["mean"]]
        cases = [curve[key] for key in curve if key.startswith("case ")]
        found += [float(str(v)) for case in cases for v in case]
    return found
