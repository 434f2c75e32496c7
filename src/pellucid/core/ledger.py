"""Where relevance went that did not reach the input."""

from dataclasses import dataclass
from typing import Any

from jaxtyping import Float
from torch import Tensor

_NONE = 1e-12  # a score of zero has no shares


@dataclass(frozen=True, eq=False)
class Entry:
    """What one operation kept for itself.

    Args:
        place: path of the layer; empty for the model itself.
        operation: of torch.
        cause: what took it, such as ``bias``.
        amount: per item, in the target's unit; negative where the operation added relevance.
    """

    place: str
    operation: str
    cause: str
    amount: Float[Tensor, " batch"]


@dataclass(frozen=True, eq=False)
class Ledger:
    """Relevance that set out from the score, that arrived at the input, and that stayed on the way.

    Args:
        start: per item, what set out: the score, for a target that is linear in the model's output.
        arrived: per item, over all inputs.
        entries: what stayed where, the largest first.

    Example:
        >>> import torch
        >>> entry = Entry("head", "linear", "bias", torch.tensor([0.5]))
        >>> Ledger(torch.tensor([2.0]), torch.tensor([1.5]), (entry,)).unexplained
        tensor([0.])
    """

    start: Float[Tensor, " batch"]
    arrived: Float[Tensor, " batch"]
    entries: tuple[Entry, ...] = ()

    @property
    def unexplained(self) -> Float[Tensor, " batch"]:
        """What no entry accounts for: rounding, or constants that the model computes in a way that is not seen."""
        return self.start - self.arrived - sum((e.amount for e in self.entries), self.start.new_zeros(()))

    @property
    def lost(self) -> Float[Tensor, " batch"]:
        """What did not arrive, as a share of what set out."""
        return (self.start - self.arrived) / self.start.abs().clamp_min(_NONE)

    def by_cause(self) -> dict[str, Float[Tensor, " batch"]]:
        """Amounts by cause, summed over the layers, the largest first."""
        totals: dict[str, Tensor] = {}
        for entry in self.entries:
            totals[entry.cause] = totals[entry.cause] + entry.amount if entry.cause in totals else entry.amount
        return dict(sorted(totals.items(), key=lambda item: -float(item[1].abs().sum())))

    def plain(self) -> dict[str, Any]:
        """As JSON types."""
        rows = [(e.place, e.operation, e.cause, e.amount.tolist()) for e in self.entries]
        return {
            "start": self.start.tolist(),
            "arrived": self.arrived.tolist(),
            "entries": [dict(zip(("place", "operation", "cause", "amount"), row, strict=True)) for row in rows],
        }
