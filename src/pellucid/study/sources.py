"""Where the cases of a study come from: a folder, a table, or a public data set."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

from pellucid.core.case import Case
from pellucid.core.errors import BadOption
from pellucid.io.collection import Choice, iter_collection, listed
from pellucid.io.reader import Failure, iter_cases
from pellucid.study.folder import fingerprint, regions_in
from pellucid.study.plan import Study


def cases_of(study: Study) -> Iterator[Case | Failure]:
    """The cases one by one.

    Args:
        study: the plan.

    Raises:
        PellucidError: the path of the cases holds nothing that can be read.
    """
    if study.collection is None:
        return iter_cases(study.cases)
    return iter_collection(study.cases, study.collection, _choice(study))


def fingerprint_of(study: Study, apart: Path | None = None) -> dict[str, str]:
    """The digest of the files that the cases are read from; of a data set, of each case's place and size.

    A data set is too large to be hashed whole at each start. What its files hold is in the key of each item.

    Args:
        study: the plan.
        apart: a folder that is not looked into, such as the output.
    """
    if study.collection is None:
        return fingerprint(study.cases, apart)
    _, paths = listed(study.cases, study.collection, _choice(study))
    told = [f"{p.relative_to(study.cases).as_posix()} {p.stat().st_size if p.is_file() else 0}" for p in paths]
    return {f"case {n}": hashlib.sha256(each.encode()).hexdigest() for n, each in enumerate(told, 1)}


def check_regions(study: Study) -> None:
    """Refuse a study that names a region which no case can have.

    Args:
        study: the plan.

    Raises:
        BadOption: no case has the region.
    """
    if study.collection is not None:
        drawn = [f"{m.name}@{m.reader}" if m.reader else m.name for m in study.collection.masks]
        if "" in drawn or study.collection.boxes or study.collection.outlines:
            return  # their names stand in the data set's own files
        there = sorted(drawn)
    else:
        there = regions_in(study.cases)
    missing = [r for r in study.plan.regions if r not in there]
    if missing:
        raise BadOption(f"no case has a region {missing[0]!r}", f"regions: {', '.join(there) or 'none'}")


def _choice(study: Study) -> Choice:
    return Choice(study.plan.limit, study.plan.seeds[0], study.plan.select)
