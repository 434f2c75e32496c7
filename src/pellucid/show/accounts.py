"""A ledger of relevance as a table: what set out, what stayed where, what arrived."""

from dataclasses import dataclass

from pellucid.core.ledger import Ledger
from pellucid.show.answers import percent
from pellucid.show.words import MINUS, number

_ROWS = 8  # more of them say less
_LEAST = 1e-4  # of what set out: less is rounding


@dataclass(frozen=True)
class AccountRow:
    """One line.

    Args:
        place: layer and operation, or what the line is.
        cause: what kept relevance there.
        amount: in the target's unit.
        share: of what set out; empty where that is zero.
    """

    place: str
    cause: str
    amount: str
    share: str


def account_rows(ledger: Ledger) -> tuple[AccountRow, ...]:
    """The first item's account: the score, the largest entries with what the others sum to, what arrived.

    Example:
        >>> import torch
        >>> for row in account_rows(Ledger(torch.tensor([2.0]), torch.tensor([1.5]))):
        ...     print(row.place, row.amount, row.share)
        Set out from the score 2 100%
        Arrived at the image 1.5 75%
    """
    whole = float(ledger.start[0])

    def row(place: str, cause: str, amount: float) -> AccountRow:
        share = amount / whole if whole else 0.0
        words = f"{MINUS if share < 0 else ''}{percent(abs(share))}" if whole else ""
        return AccountRow(place, cause, number(amount), words)

    entries = sorted(ledger.entries, key=lambda e: -abs(float(e.amount[0])))
    entries = [e for e in entries if abs(float(e.amount[0])) > _LEAST * abs(whole)]
    told = [
        row(f"{e.place or 'the model itself'} ({e.operation})", e.cause, float(e.amount[0])) for e in entries[:_ROWS]
    ]
    if entries[_ROWS:]:
        rest = sum(float(e.amount[0]) for e in entries[_ROWS:])
        told.append(row(f"{len(entries) - _ROWS} more operations", "together", rest))
    arrived = row("Arrived at the image", "", float(ledger.arrived[0]))
    return (row("Set out from the score", "", whole), *told, arrived)
