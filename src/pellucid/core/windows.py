"""Sliding windows: a volume predicted part by part, the parts blended, as MONAI's ``sliding_window_inference`` does."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from math import ceil
from typing import Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from pellucid.core.errors import BadOption, CannotDo, ShapeMismatch

Inputs = Mapping[str, Tensor]
Start = tuple[int, ...]
_LEAST = 1e-3  # of a Gaussian weight, as in MONAI: the far corners of a window still count where nothing else does


@dataclass(frozen=True)
class SlidingWindows:
    """How a model predicts images larger than its network takes: in windows, whose outputs are averaged with weights.

    Windows lie ``int(size * (1 - overlap))`` voxels apart, the last one flush with the image's end; an image smaller
    than a window is padded about its middle, and the output cut back. All as MONAI has it, to float32's last digits.
    nnU-Net blends alike (Gaussian, overlap one half) and spreads its windows evenly over the image (``even``).

    Args:
        size: of a window in voxels, per axis.
        overlap: share of a window that the next one covers, 0 to below 1; one number, or one per axis.
        blend: ``gaussian`` (a window's middle counts most) or ``constant`` (all of it alike).
        sigma_scale: standard deviation of the Gaussian as a share of the window's size.
        padding: of images smaller than a window: ``constant``, ``reflect``, ``replicate`` or ``circular``.
        value: of ``constant`` padding, in network units.
        spread: ``flush`` (equal steps, the last window ends where the image ends) or ``even`` (as many windows, all
            steps alike to one voxel).

    Raises:
        BadOption: a number out of its range.

    Example:
        >>> SlidingWindows((4, 4), overlap=0.5).layout((6, 4)).starts
        ((0, 0), (2, 0))
    """

    size: tuple[int, ...]
    overlap: float | tuple[float, ...] = 0.25
    blend: Literal["gaussian", "constant"] = "gaussian"
    sigma_scale: float = 0.125
    padding: Literal["constant", "reflect", "replicate", "circular"] = "constant"
    value: float = 0.0
    spread: Literal["flush", "even"] = "flush"

    def __post_init__(self) -> None:
        if len(self.size) not in (2, 3) or min(self.size) < 1:
            raise BadOption(f"expected a window of 2 or 3 axes, each at least 1 voxel, got {self.size}", "correct size")
        if len(self.overlaps) != len(self.size) or not all(0 <= o < 1 for o in self.overlaps):
            raise BadOption(
                f"expected an overlap from 0 to below 1, one number or one per axis, got {self.overlap}",
                "0.25 and 0.5 are usual",
            )
        if self.sigma_scale <= 0:
            raise BadOption(f"expected sigma_scale above 0, got {self.sigma_scale}", "0.125 is usual")

    @property
    def overlaps(self) -> tuple[float, ...]:
        """One for each axis."""
        return self.overlap if isinstance(self.overlap, tuple) else (self.overlap,) * len(self.size)

    @property
    def words(self) -> str:
        """For reports: ``windows of 40 x 56 x 40 voxels, overlap 0.5, gaussian blend``."""
        size = " x ".join(map(str, self.size))
        overlap = " x ".join(f"{o:g}" for o in dict.fromkeys(self.overlaps))
        return f"windows of {size} voxels, overlap {overlap}, {self.blend} blend"

    def check(self, shapes: Iterable[tuple[int, ...]]) -> None:
        """Refuse image inputs that cannot be cut alike.

        Args:
            shapes: "batch channel *space" of each image input.

        Raises:
            ShapeMismatch: they differ in space, or have another rank than the window.
        """
        spaces = list(dict.fromkeys(s[2:] for s in shapes))
        if len(spaces) != 1:
            raise ShapeMismatch(
                f"sliding windows cut all image inputs alike, and these differ: {spaces}",
                "bring them to one grid (spacing and size of the model card)",
            )
        if len(spaces[0]) != len(self.size):
            raise ShapeMismatch(
                f"expected an image of {len(self.size)} axes for windows of {self.size}, got {spaces[0]}",
                "correct inference.size in the model card",
            )

    def layout(self, space: tuple[int, ...]) -> "Layout":
        """Where the windows lie on an image of this size."""
        return Layout(self, tuple(space))

    def of(self, inputs: Inputs) -> "Layout":
        """Where the windows lie on these inputs."""
        return self.layout(next(tuple(x.shape[2:]) for x in inputs.values() if x.ndim > 2))


@dataclass(frozen=True, eq=False)
class Layout:
    """The windows of one image size.

    Args:
        windows: their size, overlap and weights.
        space: voxels of the image.
    """

    windows: SlidingWindows
    space: tuple[int, ...]

    @cached_property
    def margins(self) -> tuple[tuple[int, int], ...]:
        """Voxels padded before and behind, per axis."""
        missing = [max(w - n, 0) for w, n in zip(self.windows.size, self.space, strict=True)]
        return tuple((m // 2, m - m // 2) for m in missing)

    @cached_property
    def padded(self) -> tuple[int, ...]:
        """Voxels of the padded image."""
        return tuple(n + sum(m) for n, m in zip(self.space, self.margins, strict=True))

    @cached_property
    def starts(self) -> tuple[Start, ...]:
        """First voxel of each window on the padded image."""
        axes: list[list[int]] = []
        for n, size, overlap in zip(self.padded, self.windows.size, self.windows.overlaps, strict=True):
            if self.windows.spread == "even":
                steps = ceil((n - size) / (size * (1 - overlap)))
                axes.append([round((n - size) * i / max(steps, 1)) for i in range(steps + 1)])
                continue
            step = max(int(size * (1 - overlap)), 1)
            axes.append([*range(0, n - size, step), n - size])
        return tuple(product(*axes))

    def weight(self, device: torch.device) -> Tensor:
        """What each voxel of a window counts in the blend: "1 1 *window"."""
        weight = torch.ones((), device=device)
        for n in self.windows.size:
            line = torch.arange(n, device=device, dtype=torch.float32) - (n - 1) / 2
            sigma = n * self.windows.sigma_scale
            line = torch.exp(line**2 / (-2 * sigma**2)) if self.windows.blend == "gaussian" else torch.ones_like(line)
            weight = weight[..., None] * line
        return weight.clamp_min(max(float(weight.min()), _LEAST))[None, None]

    def total(self, weight: Tensor) -> Tensor:
        """The weights of all windows, summed: "1 1 *padded"."""
        total = weight.new_zeros(1, 1, *self.padded)
        for start in self.starts:
            total[self.at(start)] += weight
        return total

    def at(self, start: Start) -> tuple[slice, ...]:
        """The index of one window in "batch channel *padded"."""
        cuts = (slice(s, s + n) for s, n in zip(start, self.windows.size, strict=True))
        return (slice(None), slice(None), *cuts)

    def pad(self, x: Tensor) -> Tensor:
        """An image with its margins; a vector as it is.

        Raises:
            ShapeMismatch: the image is too small to be reflected or repeated so far.
        """
        if x.ndim == 2 or self.padded == self.space:
            return x
        sides = [side for margin in reversed(self.margins) for side in margin]
        if self.windows.padding == "constant":
            return F.pad(x, sides, value=self.windows.value)
        if self.windows.padding != "replicate" and any(
            max(m) >= n for m, n in zip(self.margins, self.space, strict=True)
        ):
            raise ShapeMismatch(
                f"an image of {self.space} cannot be padded to {self.padded} by {self.windows.padding!r}",
                "write padding = 'replicate' or 'constant'",
            )
        return F.pad(x, sides, mode=self.windows.padding)

    def widen(self, x: Tensor) -> Tensor:
        """An image with zeros as margins."""
        sides = [side for margin in reversed(self.margins) for side in margin]
        return F.pad(x, sides) if any(sides) else x

    def fold(self, x: Tensor) -> Tensor:
        """An image whose margins are added to the voxels they are copies of: the adjoint of padding."""
        if self.padded == self.space:
            return x
        with torch.inference_mode(False), torch.enable_grad():
            image = x.new_zeros(*x.shape[:2], *self.space).requires_grad_()
            return torch.autograd.grad(self.pad(image), image, x)[0]

    def unpad(self, x: Tensor) -> Tensor:
        """An image without its margins."""
        cuts = (slice(before, before + n) for (before, _), n in zip(self.margins, self.space, strict=True))
        return x[(slice(None), slice(None), *cuts)]

    def part(self, padded: Inputs, start: Start) -> dict[str, Tensor]:
        """What one window sees: images cut, vectors whole."""
        return {k: v[self.at(start)] if v.ndim > 2 else v for k, v in padded.items()}

    def reading(self, mask: Tensor) -> frozenset[Start]:
        """The windows that cover a place of the mask "batch *space"."""
        wide = self.widen(mask[:, None].float())
        return frozenset(start for start in self.starts if bool(wide[self.at(start)].any()))

    def blend(self, call: Callable[[Inputs], Tensor], inputs: Inputs, only: frozenset[Start] | None = None) -> Tensor:
        """The windows' outputs averaged with their weights: "batch class *space", float32 at least.

        Args:
            call: the head's output of one window.
            inputs: of the whole image.
            only: windows that are run; the places that others cover too are not right then. None: all.

        Raises:
            CannotDo: the network's output is not of its input's size.
        """
        padded = {k: self.pad(v) for k, v in inputs.items()}
        device = next(iter(inputs.values())).device
        weight = self.weight(device)
        out: Tensor | None = None
        for start in self.starts if only is None else sorted(only):
            one = self.checked(call(self.part(padded, start)))
            out = one.new_zeros(*one.shape[:2], *self.padded) if out is None else out
            out[self.at(start)] += one * weight
        return self.unpad(cast(Tensor, out) / self.total(weight))

    def checked(self, output: Tensor) -> Tensor:
        """A window's output as float32 at least.

        Raises:
            CannotDo: it is not of the window's size.
        """
        if tuple(output.shape[2:]) != self.windows.size:
            raise CannotDo(
                f"sliding windows blend outputs of the window's size {self.windows.size}, "
                f"got an output {tuple(output.shape)}",
                "leave inference out of the model card, or name the full-size output with output.head",
            )
        return output if output.dtype == torch.float64 else output.float()
