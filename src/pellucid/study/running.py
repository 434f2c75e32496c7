"""Run a study: every case with every model and seed, one after the other, each kept as soon as it is done."""

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

from pellucid.core.case import Case
from pellucid.io.models import LoadedModel, load_model
from pellucid.io.reader import Failure, iter_rows
from pellucid.study.folder import Folder, Manifest
from pellucid.study.items import Item, told_of, told_of_error
from pellucid.study.plan import Study
from pellucid.study.sources import cases_of, check_regions, fingerprint_of
from pellucid.study.stopping import Stopped, Watch, in_order
from pellucid.study.table import Row, rows_of
from pellucid.workbench.delivery import checked
from pellucid.workbench.explaining import Progress
from pellucid.workbench.job import run_case
from pellucid.workbench.recording import Recorder

Advance = Callable[[str, int], None]


@dataclass(frozen=True, eq=False)
class Ready:
    """A study whose models are loaded and whose data have been looked at.

    Args:
        study: the plan.
        models: by short name.
        manifest: what the numbers will be made from.
    """

    study: Study
    models: Mapping[str, LoadedModel]
    manifest: Manifest

    @property
    def size(self) -> int | None:
        """Items, where it is known before the cases are read."""
        rows = {name.split()[1] for name in self.manifest.data if name.startswith("row ")}
        return len(rows) * len(self.models) * len(self.study.plan.seeds) if rows else None


@dataclass(frozen=True, eq=False)
class Ran:
    """The items of a study.

    Args:
        items: every one, also those that came to nothing, in the order of cases, models, seeds.
        found: how many were there already from an earlier run.
        stopped: how a study with a stopping rule ended; None: it has none.
    """

    items: tuple[Item, ...]
    found: int
    stopped: Stopped | None = None

    @property
    def failures(self) -> tuple[Item, ...]:
        """Items without numbers."""
        return tuple(item for item in self.items if item.error is not None)


def prepare(study: Study, out: Path, trust_code: bool = False, device: str = "cpu") -> Ready:
    """Load the models, run their golden vectors, and take the fingerprint of the data.

    Args:
        study: the plan.
        out: output folder, which is no part of the data.
        trust_code: let code that comes with a model run.
        device: of the models.

    Raises:
        PellucidError: a model cannot be used, or no case has a region that the study names.
    """
    check_regions(study)
    if Watch.of(study) is not None:
        in_order(study)  # what forbids a stop is told before the models load
    models = {name: checked(load_model(path, trust_code, device)).loaded for name, path in study.models.items()}
    digests = {name: f"{m.model.digest} {m.model.identity.card}".strip() for name, m in models.items()}
    return Ready(study, models, Manifest(study.plan.name, study.digest, digests, fingerprint_of(study, out)))


def run_study(ready: Ready, folder: Folder, recorder: Recorder | None = None, advance: Advance | None = None) -> Ran:
    """Every item that is not done yet; a bad one is kept with its reason and never stops the others.

    Args:
        ready: study, models.
        folder: with the items of earlier runs.
        recorder: of the audit events; None: nothing is recorded.
        advance: called with what is being done, and 1 when an item is.

    Raises:
        PellucidError: the path of the cases holds nothing that can be read.
        UnwritableOutput: an item cannot be kept.
    """
    each = _Each(ready, folder, recorder, advance or _silent)
    watch = Watch.of(ready.study)
    if watch is not None:
        return _watched(each, watch)
    ran = [one for case in _distinct(cases_of(ready.study)) for one in each.items(case)]
    return Ran(tuple(item for item, _ in ran), sum(there for _, there in ran))


@dataclass(frozen=True, eq=False)
class _Each:
    """How the items of a case are had."""

    ready: Ready
    folder: Folder
    recorder: Recorder | None
    told: Advance

    def items(self, case: Case | Failure) -> Iterator[tuple[Item, bool]]:
        """An item for each model and seed, and whether it was there already."""
        study = self.ready.study
        for name, loaded in self.ready.models.items():
            for seed in study.plan.seeds:
                blank = _blank(case, name, loaded, seed, self.ready)
                known = self.folder.done.get(blank.key)
                item = known or _done(blank, case, loaded, study, self.recorder, _telling(self.told, blank))
                if known is None:
                    self.folder.keep(item)
                yield item, known is not None
                self.told(blank.case, 1)


def _watched(each: _Each, watch: Watch) -> Ran:
    """Patient after patient, until every criterion that is watched is settled."""
    study = each.ready.study
    listed, ends = in_order(study)
    ran, rows, taken = list[tuple[Item, bool]](), list[Row](), 0
    states = watch.states(rows)
    for case, last in zip(_distinct(iter_rows(listed)), ends, strict=True):
        ran += (new := list(each.items(case)))
        rows += rows_of(item for item, _ in new)
        if not last:
            continue
        taken += 1
        states = watch.states(rows)
        if states and "INCONCLUSIVE" not in states:
            break
    seed = study.plan.stop.seed if study.plan.stop is not None else 0
    stopped = watch.ended(states, seed, taken, sum(ends))
    return Ran(tuple(item for item, _ in ran), sum(there for _, there in ran), stopped)


def _done(
    blank: Item,
    case: Case | Failure,
    loaded: LoadedModel,
    study: Study,
    recorder: Recorder | None,
    telling: Progress,
) -> Item:
    """An item with its numbers, or with the reason why it has none."""
    if isinstance(case, Failure):
        return replace(blank, error=told_of_error(case.error))
    started = time.perf_counter()
    try:
        finished = run_case(_chosen(case, study), loaded, study.request(blank.seed), recorder, telling)
        told = told_of(finished, bool(study.plan.targets))
    except Exception as error:
        if recorder is not None:
            recorder.failed("study", type(error).__name__)
        told = {"error": told_of_error(error)}
    return replace(blank, seconds=round(time.perf_counter() - started, 3), **told)


def _blank(case: Case | Failure, model: str, loaded: LoadedModel, seed: int, ready: Ready) -> Item:
    """An item with its key, before anything was computed."""
    failed = isinstance(case, Failure)
    name = case.reference if failed else case.name
    content = hashlib.sha256(str(case.error).encode()).hexdigest() if failed else _content(case)
    about = [
        version("pellucid"),
        ready.study.digest,
        name,
        content,
        model,
        loaded.model.digest,
        loaded.model.identity.card,
        seed,
    ]
    key = hashlib.sha256(json.dumps(about).encode()).hexdigest()
    if failed:
        return Item(key, name, name, None, None, content, model, seed)
    return Item(key, name, case.patient or name, case.group, case.label, content, model, seed)


def _content(case: Case) -> str:
    """SHA-256 of all that is known of a case."""
    total = hashlib.sha256()
    for name, image in sorted(case.images.items()):
        total.update(f"image {name} {image.digest} {image.modality} {sorted(image.traits.items())}".encode())
    for name, region in sorted(case.regions.items()):
        told = f"region {name} {region.source} {region.reader} {tuple(region.mask.shape)}"
        total.update(told.encode() + region.mask.cpu().contiguous().numpy().tobytes())
    total.update(str([case.label, case.group, case.patient, sorted(case.covariates.items())]).encode())
    return total.hexdigest()


def _chosen(case: Case, study: Study) -> Case:
    """The case with the regions that the study names."""
    if not study.plan.regions:
        return case
    return replace(case, regions={n: r for n, r in case.regions.items() if n in study.plan.regions})


def _distinct(cases: Iterator[Case | Failure]) -> Iterator[Case | Failure]:
    """A name for each: two cases of one name would be one row."""
    seen: dict[str, int] = {}
    for case in cases:
        if isinstance(case, Failure):
            yield case
            continue
        count = seen[case.name] = seen.get(case.name, 0) + 1
        yield case if count == 1 else replace(case, name=f"{case.name}-{count}")


def _telling(told: Advance, item: Item) -> Progress:
    return lambda what: told(f"{item.case}, {item.model}: {what}", 0)


def _silent(_what: str, _count: int) -> None:
    """Nobody listens."""
