"""Reference inputs that an image is compared with: normal cases where there are some, else fills of the image."""

from collections.abc import Iterator, Mapping
from functools import cached_property
from math import prod

import torch
from torch import Tensor

from pellucid.core.errors import ShapeMismatch
from pellucid.core.infill import Blur, Infill
from pellucid.core.masking import Stream
from pellucid.core.probe import Probe

# standard deviation as a share of the image's edge. The second fill of most modalities, the flat mean, is left out:
# where a network normalizes contrast the gradient has no bound beside a flat image, and rare draws would decide the map
_BLURS = (1 / 16, 1 / 8)


class References:
    """References by index, each shaped as the batch; of a background larger than asked for a random choice.

    They are the scene's background items; without them the default fill of the modality and two blurred copies of the
    image. A background stays where it is: an item of it is brought to the model when it is asked for.

    Args:
        probe: whose image is compared.
        baseline: the only reference; None: the background or the three fills.
        most: at most so many.
        generator: chooses among the background; None: one from the scene's seed.

    Raises:
        ShapeMismatch: a background that lacks an input, or whose items are shaped otherwise.
    """

    def __init__(
        self, probe: Probe, baseline: Infill | None, most: int, generator: torch.Generator | None = None
    ) -> None:
        self._probe, self._baseline = probe, baseline
        self._generator = generator or torch.Generator().manual_seed(probe.scene.seed)
        self._background = self._matching()
        self._known = len(self._fills if self._background is None else next(iter(self._background.values())))
        self.count = min(self._known, most)

    @property
    def words(self) -> str:
        """What they are, for a caption."""
        if self._background is None:
            return ", ".join(fill.words for fill in self._fills)
        return f"{self.count} background items"

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Mapping[str, Tensor]]:
        return (self[i] for i in range(self.count))

    def __getitem__(self, index: int) -> Mapping[str, Tensor]:
        """One reference for every item of the batch."""
        if self._background is None:
            return self._filled[index]
        inputs, chosen = self._probe.inputs, self._chosen[index]
        moved = {n: items[chosen].to(inputs[n]) for n, items in self._background.items()}
        return {n: moved[n].expand_as(x) if n in moved else x for n, x in inputs.items()}

    @cached_property
    def _filled(self) -> list[Mapping[str, Tensor]]:
        return [Stream(self._probe, fill).fill for fill in self._fills]

    @cached_property
    def _chosen(self) -> list[int]:
        return torch.randperm(self._known, generator=self._generator).tolist()

    @cached_property
    def _fills(self) -> tuple[Infill, ...]:
        """What stands for references where there is no background."""
        if self._baseline is not None:
            return (self._baseline,)
        grid = self._probe.grid
        edge = prod(n * s for n, s in zip(grid.shape, grid.spacing, strict=True)) ** (1 / grid.rank)
        blurs = (Blur(float(f"{share * edge:.2g}")) for share in _BLURS)
        return tuple(dict.fromkeys((self._probe.scene.infills[0], *blurs)))

    def _matching(self) -> Mapping[str, Tensor] | None:
        """The scene's reference items, where they are what the image is compared with."""
        background, inputs = self._probe.scene.background, self._probe.inputs
        if self._baseline is not None or background is None:
            return None
        wanted = {n: tuple(x.shape[1:]) for n, x in inputs.items() if x.is_floating_point()}
        got = {n: tuple(background[n].shape[1:]) for n in wanted if n in background}
        counts = {len(background[n]) for n in got}
        if got != wanted or len(counts) != 1 or 0 in counts:
            raise ShapeMismatch(
                f"expected a background of items shaped {wanted}, got {got} with {sorted(counts)} items",
                "give as many reference items for every input, prepared as the case is",
            )
        return {n: background[n] for n in wanted}
