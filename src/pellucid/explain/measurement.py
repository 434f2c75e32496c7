"""What is measured of each case: the mean and spread of each region, and the covariates."""

from dataclasses import dataclass

import torch
from torch import Tensor

from pellucid.core.cohort import Cohort
from pellucid.core.errors import BadRegion
from pellucid.core.model import Model


@dataclass(frozen=True, eq=False)
class Measured:
    """A table of one row for each case.

    Args:
        names: of the columns.
        values: "case column", float64.
    """

    names: tuple[str, ...]
    values: Tensor


def measure(model: Model, cases: Cohort) -> Measured:
    """Mean and standard deviation of each region of the primary image, covariates, and values of vector inputs.

    Raises:
        BadRegion: a region is missing in a case, or a covariate is not known of all.
    """
    image = cases.inputs[cases.image_of(model)].double().mean(1)  # channels together
    columns: dict[str, Tensor] = {}
    for index, name in enumerate(cases.parts.names):
        inside = cases.parts.inside(index).expand_as(image).flatten(1).to(image)
        count = inside.sum(1)
        if bool((count == 0).any()):
            raise BadRegion(
                f"{int((count == 0).sum())} cases have no voxel of the region {name!r}", "leave it out of the label map"
            )
        mean = (image.flatten(1) * inside).sum(1) / count
        square = (((image.flatten(1) - mean[:, None]) * inside) ** 2).sum(1) / count
        columns[f"mean of {name}"], columns[f"sd of {name}"] = mean, square.sqrt()
    for name, facts in {**_vectors(cases), **cases.covariates}.items():
        if not bool(torch.isfinite(facts).all()):
            raise BadRegion(f"the covariate {name!r} is not known of all cases", "fill it in, or leave the column out")
        columns[name] = facts.double()
    return Measured(tuple(columns), torch.stack([v.cpu() for v in columns.values()], 1))


def _vectors(cases: Cohort) -> dict[str, Tensor]:
    """The values of vector inputs by name."""
    found = {}
    for name, x in cases.inputs.items():
        if x.ndim == 2:
            titles = cases.columns.get(name) or tuple(f"{name} {k + 1}" for k in range(x.shape[1]))
            found |= {title: x[:, k] for k, title in enumerate(titles)}
    return found
