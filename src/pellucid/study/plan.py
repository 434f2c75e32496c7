"""A study file: which cases, models, methods and metrics, checked before the first case is opened."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from pydantic import ConfigDict, TypeAdapter

from pellucid.core.errors import BadOption, InputError, PellucidError
from pellucid.core.explainer import Explainer
from pellucid.core.infill import Infill, parse_infill
from pellucid.core.metric import Metric
from pellucid.guide.panel import USUAL, USUAL_METRICS
from pellucid.guide.protocol import Criterion, Protocol, load_protocol
from pellucid.io.collections.declared import Collection, find_collection
from pellucid.io.declaration import read_declaration
from pellucid.study.readings import READS, check_reading
from pellucid.workbench.job import Request
from pellucid.workbench.registry import make_explainer, make_metric, spell

_STRICT = ConfigDict(extra="forbid", strict=True)
_TABLE = "cases.csv"
_TOLD_APART = ("name", "cases", "models", "protocols", "reads", "stop")


@dataclass(frozen=True)
class Stop:
    """When a study may end before its last patient.

    Args:
        protocol: name or file; the study ends when each of its criteria that can be watched is settled.
        seed: of the order in which patients are taken.
        bounds: by metric, the least and the greatest value that there can be, where its card gives none.
    """

    __pydantic_config__ = _STRICT

    protocol: str
    seed: int = 0
    bounds: Mapping[str, tuple[float, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """What a study file says.

    Args:
        name: of the study, for tables and pages.
        cases: a folder of images (its ``cases.csv``, where it has one) or a CSV of cases, relative to the file.
        collection: the public data set that the folder of cases holds, or a TOML of one's own; empty: none.
        limit: at most so many cases of the data set; None: all.
        select: only cases of the data set whose field has this value.
        models: by a short name, the model's file or folder, relative to the file.
        targets: as ``pellucid explain --target``; empty: each model's default.
        methods: as ``--method``; empty: the usual panel.
        metrics: as ``--metric``; empty: the usual ones. Those of the protocols are added.
        seeds: each case is explained once with each.
        fills: as ``--fill``; empty: the modality's.
        regions: names of the regions that maps are compared with; empty: every region of a case.
        reads: a CSV of readings, relative to the file; empty: there are none.
        protocols: names or files, held against the table at the end.
        override: take cases that a model card excludes.
        engine: of perturbed images: ``eager``, ``auto`` or a name.
        stop: when the study may end early; None: never.
    """

    __pydantic_config__ = _STRICT

    name: str
    cases: str
    models: Mapping[str, str]
    collection: str = ""
    limit: int | None = None
    select: Mapping[str, str] = field(default_factory=dict)
    targets: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ()
    seeds: tuple[int, ...] = (0,)
    fills: tuple[str, ...] = ()
    regions: tuple[str, ...] = ()
    reads: str = ""
    protocols: tuple[str, ...] = ()
    override: bool = False
    engine: str = "eager"
    stop: Stop | None = None


_SCHEMA = TypeAdapter(Plan)


@dataclass(frozen=True)
class Study:
    """A plan with its methods and metrics made, and its paths found.

    Args:
        plan: as the file says.
        cases: folder or table.
        models: by short name, the file or folder.
        methods: explainers.
        metrics: those of the plan, then those that its protocols ask for.
        infills: what hidden voxels show; None: the modality's.
        protocols: held against the table at the end.
        reads: table of readings; None: there is none.
        digest: SHA-256 of all that the numbers depend on; comments in the file do not change it.
        stopping: the protocol by which the study may end early; None: it may not.
        bounds: stated by the study file, by metric with its parameters.
        collection: the public data set that the folder of cases holds; None: none.
    """

    plan: Plan
    cases: Path
    models: Mapping[str, Path]
    methods: tuple[Explainer, ...]
    metrics: tuple[Metric, ...]
    infills: tuple[Infill, ...] | None = None
    protocols: tuple[Protocol, ...] = ()
    reads: Path | None = None
    digest: str = field(default="")
    stopping: Protocol | None = None
    bounds: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    collection: Collection | None = None

    def request(self, seed: int) -> Request:
        """What is asked of each case.

        Args:
            seed: of everything random.
        """
        return Request(
            targets=self.plan.targets,
            methods=self.methods,
            metrics=self.metrics,
            infills=self.infills,
            seed=seed,
            override=self.plan.override,
            checks=False,
            engine=self.plan.engine,
            lenient=True,
        )


def load_study(path: Path) -> Study:
    """Read a study file, and make everything that it names.

    Args:
        path: of the TOML file.

    Raises:
        BadOption: not TOML, a key that is missing, unknown or of another type, a parameter that does not exist.
        UnknownName: no such method, metric or protocol.
        InputError: the cases or a model are not where the file says.
    """
    plan, folder = _read(path), path.resolve().parent
    protocols = tuple(load_protocol(_place(folder, p)) for p in plan.protocols)
    stopping = load_protocol(_place(folder, plan.stop.protocol)) if plan.stop is not None else None
    if stopping is not None and stopping not in protocols:
        protocols += (stopping,)
    methods = tuple({spell(e): e for e in map(make_explainer, plan.methods or USUAL)}.values())
    metrics = [make_metric(m) for m in plan.metrics or USUAL_METRICS]
    metrics += [m for p in protocols for c in p.criteria if (m := metric_of(c)) is not None]
    metrics = list({spell(m): m for m in metrics}.values())
    cases = folder / plan.cases
    for what, place in (("cases", cases), *((f"models.{n}", folder / m) for n, m in plan.models.items())):
        if not place.exists():
            raise InputError(f"{path.name} names {what} that are not there", f"correct {what}; paths begin at the file")
    reads = folder / plan.reads if plan.reads else None
    if reads is not None and not reads.is_file():
        raise InputError(f"{path.name} names a table of reads that is not there", "correct reads, or leave it out")
    collection = find_collection(_place(folder, plan.collection)) if plan.collection else None
    return Study(
        plan,
        cases / _TABLE if (cases / _TABLE).is_file() and not plan.collection else cases,
        {name: folder / model for name, model in plan.models.items()},
        methods,
        tuple(metrics),
        tuple(parse_infill(f) for f in plan.fills) or None,
        protocols,
        reads,
        _digest(plan, methods, metrics, stopping, collection),
        stopping,
        _stated(plan.stop, metrics),
        collection,
    )


def _stated(stop: Stop | None, metrics: list[Metric]) -> dict[str, tuple[float, float]]:
    """The bounds of the study file, each of a metric that is measured."""
    found, measured = {}, [spell(m) for m in metrics]
    for name, (low, high) in (stop.bounds if stop is not None else {}).items():
        metric = spell(make_metric(name))
        if metric not in measured:
            raise BadOption(f"stop.bounds names {metric}, which is not measured", f"measured: {', '.join(measured)}")
        if not low < high:
            raise BadOption(
                f"stop.bounds of {metric} are {low:g} and {high:g}", "write the least value, then the greatest"
            )
        found[metric] = (low, high)
    return found


def metric_of(criterion: Criterion) -> Metric | None:
    """The metric that a criterion is about, with its parameters; None: it is a measure of readers.

    Args:
        criterion: of a protocol.

    Raises:
        PellucidError: no such metric, measure or parameter, or the criterion's unit is not the metric's.
    """
    if criterion.metric.startswith(READS):
        check_reading(criterion)
        return None
    told = ",".join(f"{k}={str(v).lower() if isinstance(v, bool) else v}" for k, v in criterion.parameters.items())
    try:
        metric = make_metric(f"{criterion.metric}:{told}" if told else criterion.metric)
    except PellucidError as error:
        raise type(error)(f"criterion {criterion.id!r}: {error.problem}", error.mend) from error
    unit = metric.card.unit
    if criterion.unit != unit:
        raise BadOption(
            f"criterion {criterion.id!r} has the unit {criterion.unit!r}, and {spell(metric)} is in {unit!r}",
            "write the metric's unit, and a value in that unit",
        )
    return metric


def _place(folder: Path, name: str) -> str:
    """A protocol's name, or its path from the study file."""
    return str(folder / name) if (folder / name).is_file() else name


def _read(path: Path) -> Plan:
    plan = read_declaration(path, _SCHEMA, "study", "docs/evidence.md")
    _check(plan)
    return plan


def _check(plan: Plan) -> None:
    if not plan.collection and (plan.limit is not None or plan.select):
        raise BadOption("study keys 'limit' and 'select' choose cases of a data set, got none", "write collection")
    if not plan.models or not plan.seeds:
        raise BadOption("expected at least one model and one seed, got none", "write [models] and seeds = [0]")
    for key in ("targets", "methods", "metrics", "seeds", "fills", "regions", "protocols"):
        given = list(getattr(plan, key))
        twice = [str(v) for n, v in enumerate(given) if v in given[:n]]
        if twice:
            raise BadOption(f"study key {key!r} names {twice[0]!r} twice", "name it once: it would count twice")


def _digest(
    plan: Plan,
    methods: tuple[Explainer, ...],
    metrics: list[Metric],
    stopping: Protocol | None = None,
    collection: Collection | None = None,
) -> str:
    """Of the plan and of every setting, also those that keep their defaults."""
    made = [(d.name, sorted((k, str(v)) for k, v in d.settings().items())) for d in (*methods, *metrics)]
    told = {k: v for k, v in asdict(plan).items() if k not in _TOLD_APART}
    if plan.stop is not None and stopping is not None:
        told["stop"] = asdict(plan.stop) | {"protocol": stopping.digest}
    if collection is not None:
        told["collection"] = asdict(collection)
    return hashlib.sha256(json.dumps([told, sorted(plan.models), made], sort_keys=True).encode()).hexdigest()
