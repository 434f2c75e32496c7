"""The order in which a map ranks the parts of an image; what is equal but for rounding is tied, by a fixed rule."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pellucid.core.units import Units
from pellucid.metrics.maps import ranked


def most_first(units: Units, maps: Float[Tensor, "batch *space"]) -> Int[Tensor, "batch unit"]:
    """Units by the mean of the map, the highest first; of tied ones the one that comes first in the image.

    Means are taken in double precision and compared on a grid of some thousand steps: equal means of different values
    are summed in different orders, and their last digits must not decide which part is hidden first.

    Args:
        units: of the image.
        maps: to rank by.
    """
    plain = maps.nan_to_num(0.0, 0.0, 0.0)
    single = units.count == plain[0].numel()
    means = plain.flatten(1) if single else torch.stack([units.means(m.double()) for m in plain]).to(maps)
    return ranked(means).argsort(dim=1, descending=True, stable=True)
