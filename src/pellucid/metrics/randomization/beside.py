"""A map beside the same method's maps of another model or another class."""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from pellucid.core.errors import PellucidError
from pellucid.core.explainer import Explainer
from pellucid.core.perwindow import answered
from pellucid.core.probe import Probe
from pellucid.metrics.maps import NO_MAP, on_grid
from pellucid.metrics.randomization.alike import Maps, Measure, Similarity


@dataclass(frozen=True, eq=False)
class Again:
    """A map made once more.

    Args:
        maps: on the network's grid; NaN where there is none.
        refused: why there is none; empty where there is one.
    """

    maps: Maps
    refused: str = ""


def made_again(explainer: Explainer, there: Probe, probe: Probe) -> Again:
    """What an explainer shows at another probe of the same images; passes are counted as the first probe's own.

    Args:
        explainer: that answered at ``probe`` with a map.
        there: of another model or target.
        probe: as first asked.
    """
    nothing = torch.full((probe.batch, *probe.grid.shape), torch.nan)
    try:
        maps = on_grid(answered(explainer, there), probe)
    except PellucidError as error:
        return Again(nothing, f"{explainer.name} refuses there: {error.problem}")
    finally:
        probe.spent.own += there.spent.shared + there.spent.own
    return Again(nothing, NO_MAP) if maps is None else Again(maps)


class Beside:
    """How alike a map is to each of several others, as it is and in its magnitude; NaN where it cannot be compared.

    Args:
        maps: that the others are compared with.
        by: the similarity.
        signed: whether the maps have both signs.
    """

    def __init__(self, maps: Maps, by: Similarity, signed: bool) -> None:
        self.measure, self._sizes = Measure(by, signed), Measure(by, signed=False)
        self._here, self._size = self.measure.ready(maps), self._sizes.ready(maps.abs())
        self._last: Tensor = torch.full_like(self._here, torch.nan)
        self._alike: list[Tensor] = []
        self._magnitudes: list[Tensor] = []
        self._refused: dict[str, None] = {}

    @property
    def hopeless(self) -> bool:
        """Whether the map of no item can be compared with anything: then nothing need be asked."""
        return bool(torch.isnan(self._here).flatten(1).any(1).all())

    def add(self, again: Again) -> None:
        """Compare one more."""
        ready = self.measure.ready(again.maps)
        self._last = torch.where(torch.isnan(ready), self._last, ready)  # the last that can be compared
        self._alike.append(self.measure.alike(self._here, ready))
        self._magnitudes.append(self._sizes.alike(self._size, self._sizes.ready(again.maps.abs())))
        self._refused |= {again.refused: None} if again.refused else {}

    @property
    def alike(self) -> Float[Tensor, "other batch"]:
        """The similarities."""
        return torch.stack(self._alike)

    @property
    def magnitudes(self) -> Float[Tensor, "other batch"]:
        """The similarities of the magnitudes: what a reader sees first."""
        return torch.stack(self._magnitudes)

    def reasons(self, values: Float[Tensor, " batch"]) -> tuple[str, ...]:
        """Why values are NaN; empty where they are not."""
        why = "; ".join(self._refused) or self.measure.words
        return tuple("" if ok else why for ok in torch.isfinite(values).tolist())

    def detail(self, seed: int) -> dict[str, Any]:
        """The chance level of the last comparison, and what was refused."""
        return {"chance": self.measure.chance(self._here, self._last, seed), "refused": list(self._refused)}
