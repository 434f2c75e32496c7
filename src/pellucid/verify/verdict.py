"""What a comparison found, and what all of them together mean."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from math import isfinite
from typing import Any


class Verdict(StrEnum):
    """Of one comparison."""

    EQUAL = "equal"
    WITHIN = "within error"  # ours is an estimate, and errs no more than it states
    EXPLAINED = "explained"
    SHOWN = "shown"  # a defect that is no matter of a map's values: the peer has it and we have not
    DIFFERS = "DIFFERS"
    NOT_RUN = "NOT RUN"


def _words(verdict: Verdict, reason: str) -> str:
    return f"{verdict} ({reason})" if reason else str(verdict)


@dataclass(frozen=True)
class Row:
    """One method, peer, network and image.

    Args:
        method: of ours, with the settings that are not the default.
        peer: by name.
        call: of the peer.
        model: network and layer.
        image: real image and its size.
        compared: what was done to which side before the two were compared.
        tolerance: of every deviation of this row.
        verdict: see ``Verdict``.
        deviation: largest difference relative to the largest absolute value of the peer's map.
        defects: of the peer that explain the deviation, by number.
        as_it_is: deviation of the peer's map from the peer's formula with the defects.
        mended: deviation of our map from that formula without the defects.
        errors: of an estimate, its largest difference in units of the standard error that it states.
        reason: why it was not run.
        here: of a metric, the mean of the first item's numbers on our side.
        there: and on the peer's.
    """

    method: str
    peer: str
    call: str
    model: str
    image: str
    compared: str
    tolerance: float
    verdict: Verdict
    deviation: float | None = None
    defects: tuple[str, ...] = ()
    as_it_is: float | None = None
    mended: float | None = None
    errors: float | None = None
    reason: str = ""
    here: float | None = None
    there: float | None = None

    @property
    def words(self) -> str:
        """The verdict with its defects or its reason."""
        if self.verdict is Verdict.WITHIN:
            return f"{self.verdict} ({self.errors:.1f} standard errors)"
        if self.verdict is Verdict.EXPLAINED:
            return f"explained {', '.join(self.defects)}"
        return _words(self.verdict, self.reason)


@dataclass(frozen=True)
class Shown:
    """A defect that is no matter of a map's values, shown in the peer and shown absent here.

    Args:
        defect: by number.
        peer: by name.
        theirs: what the peer does, as measured.
        ours: what we do, as measured.
        verdict: ``shown``, or what failed.
        reason: why it was not run.
    """

    defect: str
    peer: str
    theirs: str
    ours: str
    verdict: Verdict
    reason: str = ""

    @property
    def words(self) -> str:
        """The verdict with its reason."""
        return _words(self.verdict, self.reason)


@dataclass(frozen=True)
class Verification:
    """All rows.

    Args:
        rows: comparisons of maps.
        shown: defects shown.
        versions: of what took part, by environment.
        seconds: that it took.
    """

    rows: Sequence[Row]
    shown: Sequence[Shown] = ()
    versions: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def counts(self) -> dict[str, int]:
        """Rows by verdict."""
        found = Counter(str(r.verdict) for r in (*self.rows, *self.shown))
        return {str(v): found[str(v)] for v in Verdict}

    def passed(self, require_all: bool) -> bool:
        """Whether nothing differs, something was compared, and (if required) nothing was left out."""
        counts = self.counts
        compared = sum(counts[v] for v in (Verdict.EQUAL, Verdict.WITHIN, Verdict.EXPLAINED, Verdict.SHOWN))
        return not counts[Verdict.DIFFERS] and compared > 0 and not (require_all and counts[Verdict.NOT_RUN])

    def plain(self, require_all: bool) -> dict[str, Any]:
        """As JSON types; a deviation that is not finite is null."""
        rows = [asdict(r) | {"verdict": str(r.verdict), "defects": list(r.defects)} for r in self.rows]
        for row in rows:
            for key in ("deviation", "as_it_is", "mended", "errors", "here", "there"):
                row[key] = row[key] if isinstance(row[key], float) and isfinite(row[key]) else None
            if row["here"] is None:  # a map has many numbers
                del row["here"], row["there"]
        return {
            "rows": rows,
            "defects_shown": [asdict(s) | {"verdict": str(s.verdict)} for s in self.shown],
            "summary": self.counts,
            "passed": self.passed(require_all),
            "require_all": require_all,
            "versions": {k: dict(v) for k, v in self.versions.items()},
            "seconds": round(self.seconds, 1),
        }
