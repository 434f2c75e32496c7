"""What replaces hidden voxels: there is no neutral value, so every method and metric names its own."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite

import torch
from jaxtyping import Float
from torch import Tensor

from pellucid.core.errors import BadOption
from pellucid.core.space import axes, blur, resize

_SPREAD = 0.5  # relative difference between two fills above which the reader is warned

Affine = tuple[tuple[float, ...], tuple[float, ...]]


class Infill(ABC):
    """A way to make voxels say nothing. Values are in network units."""

    @abstractmethod
    def __call__(
        self, x: Float[Tensor, "batch channel *space"], spacing: Sequence[float], affine: Affine | None
    ) -> Float[Tensor, "batch channel *space"]:
        """What stands at each voxel when it is hidden.

        Args:
            x: the unperturbed input.
            spacing: of its voxels, in the grid's unit.
            affine: (shift, scale) per channel between image unit and network unit, where known.
        """

    @property
    @abstractmethod
    def words(self) -> str:
        """For the caption: every picture names its fill."""


@dataclass(frozen=True)
class Constant(Infill):
    """One value everywhere.

    Args:
        value: in network units, or in the image's own unit (HU, SUV) with ``physical``.
        physical: whether ``value`` is in the image's unit.

    Raises:
        BadOption: a value that is not finite, or a physical one without a known intensity scale.

    Example:
        >>> import torch
        >>> Constant(-800, physical=True)(torch.zeros(1, 1, 2, 2), (1, 1), ((-600.0,), (1500.0,))).unique()
        tensor([-0.1333])
    """

    value: float = 0.0
    physical: bool = False

    def __post_init__(self) -> None:
        _check(True, self.value, "a finite fill")

    def __call__(self, x: Tensor, spacing: Sequence[float], affine: Affine | None) -> Tensor:
        """See ``Infill``."""
        if not self.physical:
            return torch.full_like(x, self.value)
        if affine is None:
            raise BadOption(
                f"the fill {self.value} is in image units, and this input's intensity scale is not known",
                "explain from an image file with a model card, or give the fill in network units",
            )
        shift, scale = (torch.tensor(v).to(x).view(-1, *(1,) * (x.ndim - 2)) for v in affine)
        return ((self.value - shift) / scale).expand_as(x).clone()

    @property
    def words(self) -> str:
        """See ``Infill``."""
        return f"constant {self.value:g} ({'image' if self.physical else 'network'} units)"


@dataclass(frozen=True)
class Blur(Infill):
    """The image itself without its fine structure.

    Args:
        sigma: standard deviation in the grid's unit (mm, or px without millimeters), above zero.

    Raises:
        BadOption: a sigma that is not positive.

    Example:
        >>> import torch
        >>> Blur(2.0)(torch.ones(1, 1, 8, 8), (1.0, 1.0), None).allclose(torch.ones(1, 1, 8, 8))
        True
    """

    sigma: float = 5.0

    def __post_init__(self) -> None:
        _check(self.sigma > 0, self.sigma, "a blur above zero: none hides nothing")

    def __call__(self, x: Tensor, spacing: Sequence[float], affine: Affine | None) -> Tensor:
        """See ``Infill``."""
        return blur(x, [self.sigma / s for s in spacing])

    @property
    def words(self) -> str:
        """See ``Infill``."""
        return f"blur, sigma {self.sigma:g}"


@dataclass(frozen=True)
class ItemMean(Infill):
    """The mean of each channel of each item: mid-gray of this very image.

    Example:
        >>> import torch
        >>> ItemMean()(torch.tensor([[[[0.0, 1.0]]]]), (1.0, 1.0), None).unique()
        tensor([0.5000])
    """

    def __call__(self, x: Tensor, spacing: Sequence[float], affine: Affine | None) -> Tensor:
        """See ``Infill``."""
        return x.mean(axes(x), keepdim=True).expand_as(x).clone()

    @property
    def words(self) -> str:
        """See ``Infill``."""
        return "mean of the image"


@dataclass(frozen=True)
class LocalMedian(Infill):
    """The median of a wide neighborhood: background tissue without the finding.

    Args:
        share: width of the neighborhood as a share of the image's shortest side, above 0 and at most 1.

    Raises:
        BadOption: a share outside this range.

    Example:
        >>> import torch
        >>> x = torch.zeros(1, 1, 16, 16); x[..., 7:9, 7:9] = 1
        >>> float(LocalMedian()(x, (1.0, 1.0), None).max())
        0.0
    """

    share: float = 0.25

    def __post_init__(self) -> None:
        _check(0 < self.share <= 1, self.share, "a share of the image above 0 and at most 1")

    def __call__(self, x: Tensor, spacing: Sequence[float], affine: Affine | None) -> Tensor:
        """See ``Infill``; the median is taken on a grid of at most 64 voxels a side, then brought back."""
        small = [min(n, 64 if x.ndim == 4 else 24) for n in x.shape[2:]]
        coarse = resize(x, small)
        half = max(1, round(self.share * min(small) / 2))
        windows = torch.nn.functional.pad(coarse, [half] * 2 * (x.ndim - 2), mode="replicate")
        for axis in axes(x):
            windows = windows.unfold(axis, 2 * half + 1, 1)
        return resize(windows.flatten(x.ndim).median(-1).values, x.shape[2:])

    @property
    def words(self) -> str:
        """See ``Infill``."""
        return f"local median over {self.share:.0%} of the image"


def _check(holds: bool, value: float, expected: str) -> None:
    if not (holds and isfinite(value)):
        raise BadOption(f"expected {expected}, got {value}", "for example 0, '-800 HU', 'blur:5' or 'median:0.25'")


def filled(
    infill: Infill, inputs: Mapping[str, Tensor], spacing: Mapping[str, Sequence[float]], affine: Mapping[str, Affine]
) -> dict[str, Tensor]:
    """The fill of every input; a vector input (no spatial axes) gets zeros.

    Args:
        infill: what hidden voxels show.
        inputs: by name, "batch channel *space".
        spacing: by name, of the voxels.
        affine: by name, see ``Infill``; missing where it is not known.
    """
    return {
        name: infill(x, spacing[name], affine.get(name))
        if x.ndim > 2 and x.is_floating_point()
        else torch.zeros_like(x)
        for name, x in inputs.items()
    }


def parse_infill(text: str) -> Infill:
    """Read a fill from the command line or a data file: ``0``, ``-800 HU``, ``blur:5``, ``mean``, ``median:0.25``.

    Raises:
        BadOption: none of these, or a number out of range.
    """
    words = text.strip().lower().split()
    name, _, number = words[0].partition(":") if words else ("", "", "")
    try:
        if name == "blur":
            return Blur(float(number)) if number else Blur()
        if name == "median":
            return LocalMedian(float(number)) if number else LocalMedian()
        if name == "mean":
            return ItemMean()
        return Constant(float(name), physical=len(words) > 1)
    except BadOption:
        raise  # a fill, with a number out of range
    except ValueError as error:
        raise BadOption(
            f"{text!r} names no fill", "write a number, '-800 HU', 'blur:5', 'mean' or 'median:0.25'"
        ) from error


def spell_infill(infill: Infill) -> str:
    """A fill as ``parse_infill`` reads it, to the last digit.

    Raises:
        BadOption: a fill of another package, which text cannot name.

    Example:
        >>> parse_infill(spell_infill(Constant(-800.0, physical=True)))
        Constant(value=-800.0, physical=True)
    """
    if isinstance(infill, Constant):
        return f"{float(infill.value)!r}{' image' if infill.physical else ''}"
    if isinstance(infill, Blur):
        return f"blur:{float(infill.sigma)!r}"
    if isinstance(infill, LocalMedian):
        return f"median:{float(infill.share)!r}"
    if isinstance(infill, ItemMean):
        return "mean"
    raise BadOption(
        f"the fill {type(infill).__name__} cannot be written as text", "use a constant, blur, mean or median"
    )


def disagreement(effects: Sequence[Tensor], fills: Sequence[Infill]) -> list[str]:
    """How far two fills disagree, in words; silent where they agree, or where there is one fill.

    Args:
        effects: for each fill, the effect of each voxel or player.
        fills: in the same order; the first two are compared.
    """
    if len(effects) < 2:
        return []
    difference = float((effects[0] - effects[1]).abs().max())
    largest = float(torch.stack(list(effects)).abs().max())
    share = difference / largest if largest > 0 else 0.0
    if share <= _SPREAD:
        return []
    return [
        f"the fills ({fills[0].words}; {fills[1].words}) differ by up to {share:.0%} of the largest effect: "
        "where they disagree the map shows the fill, not the image"
    ]
