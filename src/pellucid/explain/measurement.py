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

    The group (site, scanner), where it is known of all cases, counts as one column of 0 and 1 for each group.

    Raises:
        BadRegion: a region is missing in a case, or a covariate is not known of all.
    """
    names = [f"{what} of {title}" for title in cases.parts.names for what in ("mean", "sd")]
    image = cases.image_of(model)
    regions = torch.stack([region_moments(cases, image, case) for case in range(cases.size)])
    columns = dict(zip(names, regions.flatten(1).T, strict=True))
    vectors = {title: vector_of(cases, title) for title in cases.vectors}
    for name, facts in {**_groups(cases), **cases.covariates, **vectors}.items():
        unknown = int((~torch.isfinite(facts)).sum())
        if unknown:
            raise BadRegion(
                f"the covariate {name!r} is not known of all cases: {unknown} of {cases.size} have none",
                "fill it in, leave out those cases, or leave the column out",
            )
        columns[name] = facts.double()
    return Measured(tuple(columns), torch.stack([v.cpu() for v in columns.values()], 1))


def region_moments(cases: Cohort, name: str, case: int) -> Tensor:
    """Mean and standard deviation in each region of one image, channels together: "part moment", float64.

    Raises:
        BadRegion: a region has no voxel in this case.
    """
    image = cases.inputs[name][case].double().mean(0).flatten().cpu()
    labels = cases.parts.on([case])[0].flatten().cpu().long()
    titles = cases.parts.names

    def summed(values: Tensor) -> Tensor:
        return torch.bincount(labels, values, len(titles) + 1)

    count = summed(torch.ones_like(image))  # of label 0, outside, too
    missing = [title for title, n in zip(titles, count[1:].tolist(), strict=True) if not n]
    if missing:
        which = f"case {cases.names[case]}" if cases.names else f"case {case + 1}"
        raise BadRegion(f"{which} has no voxel of the region {missing[0]!r}", "leave the region out of the label map")
    mean = summed(image) / count.clamp_min(1)
    spread = (summed((image - mean[labels]) ** 2) / count.clamp_min(1)).sqrt()
    return torch.stack([mean, spread], 1)[1:]


def vector_of(cases: Cohort, title: str) -> Tensor:
    """One value of a vector input for each case, float64."""
    name, place = cases.vectors[title]
    return torch.stack([x[place] for x in cases.inputs[name]]).double().cpu()


def _groups(cases: Cohort) -> dict[str, Tensor]:
    """0 and 1 for each group but the first, which is told by the others being 0."""
    known = [g for g in cases.groups if g is not None]
    if len(known) < cases.size:
        return {}
    return {f"group {g}": torch.tensor([float(own == g) for own in known]) for g in sorted(set(known))[1:]}
