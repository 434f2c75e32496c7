"""Tensors on disk instead of in memory, for cohorts that do not fit; gone when the process is."""

import tempfile
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import IO, overload

import numpy as np
import torch
from torch import Tensor

from pellucid.core.errors import UnwritableOutput


class Spool(Sequence[Tensor]):
    """Tensors of any shape in one nameless file: a killed process leaves nothing behind.

    Args:
        stream: of an open file that nobody else writes.

    Example:
        >>> spool = Spool.opened(Path(tempfile.gettempdir()))
        >>> spool.append(torch.arange(6.0).view(2, 3))
        >>> spool[0].shape, len(spool)
        (torch.Size([2, 3]), 1)
    """

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._places: list[tuple[int, tuple[int, ...], np.dtype]] = []
        self._end = 0

    @classmethod
    def opened(cls, folder: Path) -> "Spool":
        """An empty one on the disk of a folder.

        Raises:
            UnwritableOutput: the folder cannot be written.
        """
        try:
            stream = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 -- lives as long as what it holds is asked for
        except OSError as error:
            raise _full(error) from None
        spool = cls(stream)
        weakref.finalize(spool, stream.close)
        return spool

    def append(self, tensor: Tensor) -> None:
        """Write one at the end.

        Raises:
            UnwritableOutput: the disk is full.
        """
        plain = np.ascontiguousarray(tensor.detach().cpu().numpy())
        try:
            self._stream.seek(self._end)
            self._stream.write(plain.tobytes())
            self._stream.flush()
        except OSError as error:
            raise _full(error) from None
        self._places.append((self._end, plain.shape, plain.dtype))
        self._end += plain.nbytes

    def __len__(self) -> int:
        return len(self._places)

    @overload
    def __getitem__(self, index: int) -> Tensor: ...
    @overload
    def __getitem__(self, index: slice) -> list[Tensor]: ...
    def __getitem__(self, index: int | slice) -> Tensor | list[Tensor]:
        """One, mapped from the file: pages are read when they are looked at. Copy on write."""
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        start, shape, dtype = self._places[index]
        return torch.from_numpy(np.memmap(self._stream, dtype, "c", start, shape))


def _full(error: OSError) -> UnwritableOutput:
    return UnwritableOutput(
        f"cases cannot be put down in the output folder ({error.strerror or type(error).__name__})",
        "free space, or choose another --out",
    )
