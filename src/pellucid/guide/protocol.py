"""Protocols: which numbers must hold before an explanation is relied upon, each with its source."""

import hashlib
import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Literal

from pydantic import ConfigDict, TypeAdapter, ValidationError

from pellucid.core.errors import BadOption, UnknownName

Relation = Literal[">", ">=", "<", "<="]
SourceStatus = Literal["verified", "interpreted", "unverified"]
Tier = Literal["automated", "readers", "prospective"]
Statistic = Literal["mean", "median", "p95", "share"]
Parameters = Mapping[str, float | int | str | bool]
TIERS: tuple[Tier, ...] = ("automated", "readers", "prospective")
_STRICT = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


@dataclass(frozen=True)
class Criterion:
    """One number that must hold.

    Args:
        id: unique in the protocol.
        tier: ``automated`` checks, ``readers`` before use, or ``prospective`` use (the review's Principle 5).
        dimension: what it is evidence of, such as faithfulness.
        metric: a class name of ``pellucid metrics``, or a measure of readers as ``reads.NAME``.
        relation: between the statistic and ``value``.
        value: the limit, in ``unit``.
        unit: of the limit; must be the metric's.
        quote: what the source says, word for word.
        source: where.
        source_status: ``verified`` in a primary source, ``interpreted`` where the source leaves it open, ``unverified``
            where the source's own reference was looked for and not found.
        note: what was decided that the source does not say.
        parameters: of the metric; those not named keep their defaults.
        statistic: over the cases: ``mean``, ``median``, ``p95`` or ``share`` (of cases whose value is 1).
        transform: ``none``, or ``1 - value`` where the source counts the other way.
    """

    __pydantic_config__ = _STRICT

    id: str
    tier: Tier
    dimension: str
    metric: str
    relation: Relation
    value: float
    unit: str
    quote: str
    source: str
    source_status: SourceStatus
    note: str = ""
    parameters: Parameters = field(default_factory=dict)
    statistic: Statistic = "mean"
    transform: Literal["none", "1 - value"] = "none"

    @property
    def words(self) -> str:
        """The criterion in one line.

        Example:
            >>> load_protocol("research-development").criteria[1].words
            'mean SensitivityNorm < 0.3'
        """
        settings = ",".join(f"{k}={v}" for k, v in self.parameters.items())
        name = f"{self.metric}:{settings}" if settings else self.metric
        shown = f"1 - {name}" if self.transform == "1 - value" else name
        unit = "" if self.unit == "1" else f" {self.unit}"
        return f"{self.statistic} {shown} {self.relation} {self.value:g}{unit}"


@dataclass(frozen=True)
class Population:
    """Whom the numbers must be about.

    Args:
        unit: what is drawn independently; scores of one unit are one cluster.
        min_units: below this number nothing passes.
        strata: columns in each of whose levels the criteria are told as well.
        readers: least number of readers for criteria about readers.
    """

    __pydantic_config__ = _STRICT

    unit: Literal["patient", "case"] = "patient"
    min_units: int = 1
    strata: tuple[str, ...] = ()
    readers: int = 0


@dataclass(frozen=True)
class Protocol:
    """Criteria for one use of explanations.

    Args:
        id: as ``pellucid gate --protocol`` takes it.
        version: counts up with every change of a criterion.
        title: of the clinical scenario.
        source: of the whole.
        criteria: at least one.
        population: whom the numbers must be about.
        confidence: of every interval.
        digest: SHA-256 of the file, set on reading.
    """

    __pydantic_config__ = _STRICT

    id: str
    version: int
    title: str
    source: str
    criteria: tuple[Criterion, ...]
    population: Population = field(default_factory=Population)
    confidence: float = 0.95
    digest: str = ""

    @property
    def indicative(self) -> tuple[Criterion, ...]:
        """Criteria that no primary source states as they are: with one of these, nothing is more than indicative."""
        return tuple(c for c in self.criteria if c.source_status != "verified")


_SCHEMA = TypeAdapter(Protocol)


@cache
def built_in() -> tuple[str, ...]:
    """Names of the protocols in the package."""
    folder = resources.files("pellucid.guide").joinpath("protocols")
    return tuple(sorted(f.name.removesuffix(".toml") for f in folder.iterdir() if f.name.endswith(".toml")))


def load_protocol(name: str) -> Protocol:
    """A protocol of the package by name, or of the user's own by path.

    Raises:
        UnknownName: no such name and no such file.
        BadOption: the file is no protocol; the message names the key.

    Example:
        >>> load_protocol("screening-mammography").population.readers
        3
    """
    if name in built_in():
        return parse_protocol(resources.files("pellucid.guide").joinpath(f"protocols/{name}.toml").read_text("utf-8"))
    path = Path(name)
    if not path.is_file():
        raise UnknownName(f"no protocol named {name!r}", f"give a file, or one of: {', '.join(built_in())}")
    try:
        return parse_protocol(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, OSError) as error:
        raise BadOption(f"{path.name} cannot be read as text: {error}", "save it as UTF-8") from error


def parse_protocol(text: str) -> Protocol:
    """A protocol from TOML.

    Raises:
        BadOption: not TOML, a key that is missing, unknown or of another type, or a criterion given twice.
    """
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise BadOption(f"the protocol is not TOML: {error}", "correct the line that is named") from error
    raw["criteria"] = raw.pop("criterion", [])
    raw["digest"] = hashlib.sha256(text.encode()).hexdigest()
    try:
        found = _SCHEMA.validate_json(json.dumps(raw, default=str))  # strict python wants tuples and instances
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(p) for p in first["loc"])
        raise BadOption(f"protocol key {place!r}: {first['msg']}", "docs/protocols.md lists every key") from error
    _check(found)
    return found


def _check(protocol: Protocol) -> None:
    names = [c.id for c in protocol.criteria]
    if not names:
        raise BadOption("expected at least one [[criterion]], got none", "docs/protocols.md has an example")
    twice = sorted({n for n in names if names.count(n) > 1})
    if twice:
        raise BadOption(f"criterion {twice[0]!r} is given twice", "give each an id of its own")
    if not 0.5 < protocol.confidence < 1:
        raise BadOption(f"expected a level between 0.5 and 1, got {protocol.confidence}", "0.95 is usual")
    if protocol.population.min_units < 1 or protocol.version < 1:
        raise BadOption("expected min_units and version of at least 1", "correct [population] or version")
