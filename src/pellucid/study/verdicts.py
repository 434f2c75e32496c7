"""What a protocol says of a study: a finding for each criterion, a verdict for each method, and never more."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from pellucid.guide.protocol import TIERS, Criterion, Protocol, Tier
from pellucid.statistics.interval import Interval

State = Literal["PASS", "FAIL", "INCONCLUSIVE", "NOT MEASURED"]
Overall = Literal["PASS", "INDICATIVE", "FAIL", "INCONCLUSIVE", "NOT MEASURED"]
Side = Literal["better", "worse", "no clear change"]
WORST: tuple[Overall, ...] = ("FAIL", "INCONCLUSIVE", "NOT MEASURED", "INDICATIVE", "PASS")
CODES: Mapping[Overall, int] = {"FAIL": 1, "INCONCLUSIVE": 3, "NOT MEASURED": 3, "INDICATIVE": 0, "PASS": 0}
SAYS = "A verdict is about these cases, this model and these limits, and says nothing about use on patients."


@dataclass(frozen=True)
class Level:
    """A criterion within one stratum; told, not judged.

    Args:
        column: of the stratum, such as ``site``.
        name: of the level.
        state: as if these were all cases.
        found: the estimate there.
    """

    column: str
    name: str
    state: State
    found: Interval


@dataclass(frozen=True)
class Change:
    """A criterion's number here less that of an earlier study, on the same cases.

    Args:
        found: the difference.
        side: from the interval, by the criterion's relation.
        note: cases that could not be paired; empty if none.
    """

    found: Interval
    side: Side
    note: str = ""


@dataclass(frozen=True)
class Finding:
    """One criterion, held against a study.

    Args:
        criterion: of the protocol.
        state: from the interval, and never from the estimate.
        words: why.
        found: the estimate; None: not measured.
        needed: patients still needed, if the estimate stays; None: not said.
        settles: where the verdict would then fall; empty: not said.
        levels: within strata.
        change: against an earlier study; None: there is none.
    """

    criterion: Criterion
    state: State
    words: str
    found: Interval | None = None
    needed: int | None = None
    settles: str = ""
    levels: tuple[Level, ...] = ()
    change: Change | None = None


@dataclass(frozen=True)
class Verdict:
    """A protocol held against one method of a study.

    Args:
        protocol: with its sources.
        model: short name.
        target: as the study names it.
        method: with its parameters.
        findings: one for each criterion, in the order of the tiers.
        notes: how many intervals were made at which level, and what else to know.
    """

    protocol: Protocol
    model: str
    target: str
    method: str
    findings: tuple[Finding, ...]
    notes: tuple[str, ...] = ()

    @property
    def state(self) -> Overall:
        """The worst finding; where none is against it, INDICATIVE unless a primary source states every criterion."""
        worst = worst_of([f.state for f in self.findings])
        return "INDICATIVE" if worst == "PASS" and self.protocol.indicative else worst

    @property
    def tiers(self) -> tuple[tuple[Tier, Overall], ...]:
        """The cascade: each tier that the protocol has, with its worst finding."""
        by_tier = {t: [f.state for f in self.findings if f.criterion.tier == t] for t in TIERS}
        return tuple((tier, worst_of(states)) for tier, states in by_tier.items() if states)

    @property
    def reached(self) -> str:
        """How far the cascade holds: the last tier before the first that does not; empty: not even the first."""
        held = ""
        for tier, state in self.tiers:
            if state != "PASS":
                break
            held = tier
        return held

    @property
    def words(self) -> str:
        """The verdict in one sentence, with what it is not."""
        if self.state == "INDICATIVE":
            loose = len(self.protocol.indicative)
            return (
                f"INDICATIVE: every criterion holds, and {loose} of {len(self.findings)} are not stated as they are by "
                "any primary source"
            )
        counts = {s: sum(f.state == s for f in self.findings) for s in ("FAIL", "INCONCLUSIVE", "NOT MEASURED")}
        told = [f"{n} {state}" for state, n in counts.items() if n]
        return f"{self.state}: {', '.join(told) or 'every criterion holds'} of {len(self.findings)} criteria"

    def plain(self) -> dict[str, object]:
        """As JSON types; what is not finite is null."""
        return {
            "protocol": self.protocol.id,
            "version": self.protocol.version,
            "digest": self.protocol.digest,
            "model": self.model,
            "target": self.target,
            "method": self.method,
            "verdict": self.state,
            "words": self.words,
            "indicative": bool(self.protocol.indicative),
            "tiers": dict(self.tiers),
            "reached": self.reached,
            "criteria": [_plain_finding(f) for f in self.findings],
            "notes": list(self.notes),
            "says": SAYS,
        }


def verdict_of(found: Interval, criterion: Criterion) -> State:
    """PASS, FAIL or INCONCLUSIVE from the bounds alone; a bound that is not known settles nothing.

    Args:
        found: the estimate.
        criterion: with its relation and value.
    """
    limit, low, high = criterion.value, found.low, found.high
    passes = {">": low > limit, ">=": low >= limit, "<": high < limit, "<=": high <= limit}
    fails = {">": high <= limit, ">=": high < limit, "<": low >= limit, "<=": low > limit}
    if passes[criterion.relation]:
        return "PASS"
    return "FAIL" if fails[criterion.relation] else "INCONCLUSIVE"


def side_of(found: Interval, criterion: Criterion) -> str:
    """Where the verdict would fall if the estimate stayed as it is.

    Args:
        found: the estimate.
        criterion: with its relation and value.
    """
    at = replace(found, low=found.value, high=found.value)
    return "" if math.isnan(found.value) or found.value == criterion.value else verdict_of(at, criterion)


def worst_of(states: Sequence[Overall]) -> Overall:
    """The worst of several verdicts; of none, NOT MEASURED.

    Example:
        >>> worst_of(["PASS", "INCONCLUSIVE", "NOT MEASURED"])
        'INCONCLUSIVE'
    """
    return min(states, key=WORST.index, default="NOT MEASURED")


def exit_code(verdicts: Sequence[Verdict]) -> int:
    """0: every method passes (or is indicative), 1: one fails, 3: one is open.

    Args:
        verdicts: of the methods.
    """
    return CODES[worst_of([v.state for v in verdicts])]


def _plain_finding(one: Finding) -> dict[str, object]:
    c = one.criterion
    return {
        "id": c.id,
        "tier": c.tier,
        "dimension": c.dimension,
        "criterion": c.words,
        "source": c.source,
        "source_status": c.source_status,
        "quote": c.quote,
        "note": c.note,
        "verdict": one.state,
        "words": one.words,
        "found": _plain(one.found),
        "patients_still_needed": one.needed,
        "would_settle_as": one.settles or None,
        "strata": [
            {"column": s.column, "level": s.name, "verdict": s.state, "found": _plain(s.found)} for s in one.levels
        ],
        "change": None
        if one.change is None
        else {"side": one.change.side, "difference": _plain(one.change.found), "note": one.change.note},
    }


def _plain(found: Interval | None) -> dict[str, Any] | None:
    if found is None:
        return None
    told = {name: getattr(found, name) for name in ("value", "low", "high")}
    plain: dict[str, Any] = {name: v if math.isfinite(v) else None for name, v in told.items()}
    counted = {"level": found.level, "items": found.count, "patients": found.clusters, "undefined": found.undefined}
    return plain | counted | {"how": found.how, "note": found.note}
