"""Streams of changed inputs to scores or gradients: never all of them in memory, as many at once as fit."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property
from itertools import islice
from typing import Any

import psutil
import torch
from jaxtyping import Float
from torch import Tensor

from pellucid.core.engine import ran_out
from pellucid.core.errors import BadOption
from pellucid.core.infill import Infill, filled
from pellucid.core.probe import Probe

_MOST = {"cuda": 256, "cpu": 8}  # measured: on a CPU more than 8 at once is slower for each ...
_TINY, _CACHED = 64, 24 << 20  # ... but for small networks: up to 64 while all layers' outputs stay within 24 MiB
_SHARE = 0.5  # of the free memory


def free_bytes(device: torch.device) -> int:
    """Memory that a stream may fill."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return psutil.virtual_memory().available


class Stream:
    """Evaluate many versions of a probe's batch, in chunks that fit the memory.

    The first chunk size comes from the free memory and the size of the model's activations; when memory runs out all
    the same, chunks are halved.

    Args:
        probe: of the batch.
        infill: what hidden voxels show; None: the scene's first.
        gradient: whether chunks will be differentiated (they cost about three times the memory).
    """

    def __init__(self, probe: Probe, infill: Infill | None = None, gradient: bool = False) -> None:
        self.probe = probe
        self.infill = infill or probe.scene.infills[0]
        each = probe.model.activation_bytes(probe.inputs) * probe.batch * (3 if gradient else 1)
        fits = int(_SHARE * free_bytes(probe.model.device) / max(each, 1))
        most = _MOST.get(probe.model.device.type, 8)
        if not gradient:
            tiny = min(_TINY, _CACHED * probe.batch // max(each, 1))
            most = probe.engine.batch if probe.engine else max(most, tiny)
        self.chunk = max(1, min(fits, max(1, most // probe.batch)))

    @cached_property
    def fill(self) -> Mapping[str, Tensor]:
        """What stands at each voxel of each input when it is hidden."""
        if self.probe.scene.fills is not None:
            return self.probe.scene.fills(self.infill)
        grids = {name: self.probe.scene.grids.get(name) for name in self.probe.inputs}
        spacing = {
            name: grid.spacing if grid else (1.0,) * (self.probe.inputs[name].ndim - 2) for name, grid in grids.items()
        }
        return filled(self.infill, self.probe.inputs, spacing, self.probe.scene.affine)

    def masked(self, keep: Float[Tensor, "version any *space"]) -> dict[str, Tensor]:
        """``keep * x + (1 - keep) * fill`` for every image input of the mask's shape; others stay as they are.

        Args:
            keep: 1 shows the voxel, 0 hides it; second axis 1 (the same for all items) or batch.
        """
        out = {}
        for name, x in self.probe.inputs.items():
            versions = len(keep)
            if x.shape[2:] != keep.shape[2:]:
                out[name] = x.repeat(versions, *(1,) * (x.ndim - 1))
                continue
            k = keep.to(x).unsqueeze(2)  # version, item, channel, *space
            mixed = torch.lerp(self.fill[name].to(x)[None], x[None], k)  # in one go; at 0 and 1 exactly one of the two
            out[name] = mixed.expand(versions, len(x), *x.shape[1:]).reshape(versions * len(x), *x.shape[1:])
        return out

    def scores(self, keeps: Iterable[Float[Tensor, "any *space"]]) -> Iterator[Float[Tensor, " batch"]]:
        """The target's value for each mask, in order.

        Args:
            keeps: each "1 *space" (shared by the batch) or "batch *space".

        Raises:
            BadOption: not even one version fits into memory.
        """

        def score(some: list[Tensor]) -> Tensor:
            shared = len({len(keep) for keep in some}) > 1  # masks of all items beside masks of each
            return self.probe.score(
                self.masked(torch.stack([k.expand(self.probe.batch, *k.shape[1:]) if shared else k for k in some]))
            )

        yield from self._in_chunks(keeps, score)

    def _in_chunks(self, items: Iterable[Any], score: Callable[[list[Any]], Tensor]) -> Iterator[Tensor]:
        waiting: list[Any] = []
        source = iter(items)
        while True:
            waiting.extend(islice(source, max(0, self.chunk - len(waiting))))
            if not waiting:
                return
            try:
                done = score(waiting[: self.chunk])
            except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
                self._shrink(error)
                continue
            yield from done.view(-1, self.probe.batch)
            del waiting[: self.chunk]

    def placed(self, inputs: Iterable[Mapping[str, Tensor]]) -> Iterator[Float[Tensor, " batch"]]:
        """The target's value at each of some inputs, in order; inputs are drawn as they are needed.

        Args:
            inputs: each one version of the batch: every input, shaped as the probe's.

        Raises:
            BadOption: not even one version fits into memory.
        """

        def score(points: list[Mapping[str, Tensor]]) -> Tensor:
            return self.probe.score({n: torch.cat([p[n] for p in points]) for n in self.probe.inputs})

        yield from self._in_chunks(inputs, score)

    def gradients(self, points: Iterable[Mapping[str, Tensor]]) -> Iterator[Mapping[str, Tensor]]:
        """The target's gradient at each point, by input name, in order; points are drawn as they are needed.

        Args:
            points: each one version of the batch: every input, shaped as the probe's.

        Raises:
            BadOption: not even one version fits into memory.
        """
        waiting: list[Mapping[str, Tensor]] = []
        source = iter(points)
        while True:
            waiting.extend(islice(source, max(0, self.chunk - len(waiting))))
            if not waiting:
                return
            count = min(self.chunk, len(waiting))
            try:
                done = self.probe.gradient({n: torch.cat([p[n] for p in waiting[:count]]) for n in self.probe.inputs})
            except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
                self._shrink(error)
                continue
            del waiting[:count]
            parts = {name: g.view(count, self.probe.batch, *g.shape[1:]) for name, g in done.items()}
            yield from ({name: g[i] for name, g in parts.items()} for i in range(count))

    def _shrink(self, error: Exception) -> None:
        """Halve the chunk when memory ran out; anything else is the caller's to see."""
        if not ran_out(error):
            raise error
        if self.chunk == 1:
            raise BadOption(
                "not even one version of the batch fits into memory", "explain fewer items at once or a crop"
            ) from error
        self.chunk //= 2
        if self.probe.model.device.type == "cuda":
            torch.cuda.empty_cache()
