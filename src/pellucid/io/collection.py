"""The door for public data sets: a folder that the user has, read by the data set's own file."""

import random
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path

from pellucid.core.case import Case
from pellucid.core.errors import BadOption, PellucidError, UnreadableImage
from pellucid.core.image import Image, Modality
from pellucid.io.collections.declared import Collection, Source, collections, find_collection
from pellucid.io.collections.facts import Shelf, number
from pellucid.io.collections.marks import Drawn, boxes
from pellucid.io.collections.outlines import Finding, lidc, osirix
from pellucid.io.collections.places import Place, expand, places
from pellucid.io.folder import safe_name
from pellucid.io.guard import reading
from pellucid.io.reader import Cases, Failure, read_cases, read_image
from pellucid.io.table import PRIMARY

_TRIED = 20  # cases that tell which data set a folder is


@dataclass(frozen=True)
class Choice:
    """Which cases of a data set are read.

    Args:
        limit: at most so many paths, drawn at random; None: all.
        seed: of the draw.
        where: only cases whose field or ``table.column`` has this value.
    """

    limit: int | None = None
    seed: int = 0
    where: Mapping[str, str] = field(default_factory=dict)


def read_collection(folder: str | Path, name: str | Collection | None = None, choice: Choice | None = None) -> Cases:
    """All cases of a public data set in a folder, with regions, labels and patients.

    Args:
        folder: the data set as its owner packs it, or a folder around it.
        name: as ``pellucid collections`` lists it, or a TOML of one's own; None: told by the layout.
        choice: which cases; None: all.

    Returns:
        The cases, and beside them those that could not be read.

    Raises:
        UnreadableImage: the folder holds no case of the data set, or a table is missing.
        UnknownName: no such data set.
        BadOption: the layout fits several data sets, or none.
    """
    found = list(iter_collection(folder, name, choice))
    cases, failures = [c for c in found if isinstance(c, Case)], [f for f in found if isinstance(f, Failure)]
    return Cases(tuple(cases), tuple(failures))


def iter_collection(
    folder: str | Path, name: str | Collection | None = None, choice: Choice | None = None
) -> Iterator[Case | Failure]:
    """The same one by one, for data sets that do not fit into memory; names are distinct.

    Args:
        folder: as ``read_collection``.
        name: as ``read_collection``.
        choice: as ``read_collection``.
    """
    shelf, chosen = _listed(folder, name, choice)
    seen = Counter[str]()
    for turn, place in enumerate(chosen, 1):
        made = _cases(place, shelf)
        try:
            while (case := _step(made)) is not None:
                seen[case.name] += 1
                count = seen[case.name]
                yield case if count == 1 else replace(case, name=f"{case.name}-{count}")
        except PellucidError as error:
            yield Failure(f"case {turn} of {len(chosen)}", error)


def _step(made: Iterator[Case]) -> Case | None:
    """The next case; whatever a damaged file makes a library raise is the case's failure, and ends nothing else."""
    with reading("a case of the data set", "unpack the data set again"):
        return next(made, None)


def listed(
    folder: str | Path, name: str | Collection | None = None, choice: Choice | None = None
) -> tuple[Collection, tuple[Path, ...]]:
    """The data set of a folder and the paths that would be read, without reading them.

    Args:
        folder: as ``read_collection``.
        name: as ``read_collection``.
        choice: as ``read_collection``.
    """
    shelf, chosen = _listed(folder, name, choice)
    return shelf.collection, tuple(place.folder / place.path for place in chosen)


def _listed(folder: str | Path, name: str | Collection | None, choice: Choice | None) -> tuple[Shelf, list[Place]]:
    folder = _folder(folder)
    known = find_collection(name) if isinstance(name, str) else name
    shelf = Shelf(known or detect(folder))
    return shelf, _chosen(folder, shelf, choice or Choice())


def detect(folder: Path) -> Collection:
    """The one data set whose layout a folder has.

    Args:
        folder: that the user gave.

    Raises:
        BadOption: several, or none.
    """
    found = [one for one in collections().values() if _fits(_folder(folder), one)]
    if len(found) == 1:
        return found[0]
    names = ", ".join(one.name for one in found)
    raise BadOption(
        f"expected the layout of one public data set, got one of {names or 'none that is known'}",
        "name it with --collection; pellucid collections shows every layout",
    )


def _folder(folder: str | Path) -> Path:
    path = Path(folder)
    if not path.is_dir():
        raise UnreadableImage("expected the folder of a data set, got none", "check the path")
    return path


def _fits(folder: Path, collection: Collection) -> bool:
    """Whether there are cases, their images and tables are there, and of each required mask some are."""
    shelf, some = Shelf(collection), list(islice(places(folder, collection.cases), _TRIED))
    needed = [t.file for t in collection.tables.values() if t.required]
    needed += [source.file for source in collection.images.values()]
    if not some or not all(some[0].files(each) for each in needed):
        return False
    drawn = [mark.file for mark in (*collection.masks, *collection.outlines) if mark.required]
    try:
        return all(any(p.files(file, lambda key, p=p: shelf.look(key, p)) for p in some) for file in drawn)
    except PellucidError:
        return False


def _chosen(folder: Path, shelf: Shelf, choice: Choice) -> list[Place]:
    """The paths that are read, in natural order."""
    every = list(places(folder, shelf.collection.cases))
    if not every:
        raise UnreadableImage(
            f"expected the layout of {shelf.collection.title}, got a folder without a case of it",
            "pellucid collections shows the layout",
        )
    for place in every[:1]:
        for name in shelf.collection.tables:
            shelf.rows(name, place)  # a table that is missing is told once, and not for every case
    kept = [p for p in every if all(shelf.look(key, p) == value for key, value in choice.where.items())]
    if not kept:
        fields = [f for f in every[0].fields if f not in ("path", "dir", "root")]
        fields += [f"{table}.COLUMN" for table in shelf.collection.tables]
        raise BadOption(
            f"none of {len(every)} cases has what --select asks for", f"its fields: {', '.join(fields) or 'none'}"
        )
    if choice.limit is None or choice.limit >= len(kept):
        return kept
    if choice.limit < 1:
        raise BadOption(f"expected a limit of at least 1, got {choice.limit}", "write for example --limit 20")
    drawn = random.Random(choice.seed).sample(range(len(kept)), choice.limit)
    return [kept[n] for n in sorted(drawn)]


def _cases(place: Place, shelf: Shelf) -> Iterator[Case]:
    """A case, or one for each finding where readers marked several."""
    told = shelf.collection
    case = _with_facts(_with_images(place, shelf), place, shelf)
    drawn = Drawn(place, shelf, case)
    regions = {name: region for mask in told.masks for name, region in drawn.regions(mask).items()}
    for box in told.boxes:
        regions |= boxes(box, shelf, place, drawn.grid)
    case = replace(case, regions=regions)
    for finding in _findings(place, drawn, told):
        yield replace(
            case,
            name=case.name + finding.suffix,
            regions={**regions, **finding.regions},
            covariates={**case.covariates, **finding.covariates},
        )


def _findings(place: Place, drawn: Drawn, told: Collection) -> Iterator[Finding]:
    """What the contours hold; one finding without a region where there are none."""
    found = _outlined(place, drawn, told)
    yield next(found, Finding({}))
    yield from found


def _outlined(place: Place, drawn: Drawn, told: Collection) -> Iterator[Finding]:
    for outline in told.outlines:
        files = place.files(outline.file)
        if not files and outline.required:
            raise UnreadableImage("expected a file of contours beside the image, got none", "unpack the data set again")
        for file in files:
            if outline.form == "lidc-xml":
                yield from lidc(file, drawn.case, drawn.grid)
            else:
                yield osirix(file, outline.words, drawn.grid)


def _with_images(place: Place, shelf: Shelf) -> Case:
    told = shelf.collection
    images: dict[str, Image] = {}
    files: dict[str, tuple[Path, ...]] = {}
    for name, source in told.images.items():
        path = next(iter(place.files(source.file, lambda key: shelf.look(key, place))), None)
        if path is None:
            raise UnreadableImage(f"expected the image {name!r} of the case, got none", "unpack the data set again")
        for called, (image, members) in _read(path, name, source, place, shelf).items():
            images[called], files[called] = image, members
    name = safe_name(expand(told.case, lambda key: shelf.look(key, place)) or place.path) or "case"
    return Case(name, images, files=files)


def _read(
    path: Path, name: str, source: Source, place: Place, shelf: Shelf
) -> dict[str, tuple[Image, tuple[Path, ...]]]:
    """An image, or the named volumes of a 4-D file."""
    said = shelf.fact(source.modality, place) if source.modality else None
    modality = Modality(said if said in list(Modality) else shelf.collection.modality)
    if path.is_dir():
        found = read_cases(path, modality)
        if len(found.cases) != 1 or found.failures:
            raise next((f.error for f in found.failures), None) or UnreadableImage(
                f"expected one series in the folder of a case, got {len(found.cases)}", "leave the one that is meant"
            )
        return {name: (found.cases[0].images[PRIMARY], found.cases[0].files[PRIMARY])}
    told = shelf.entry(source.volumes, place) if source.volumes else None
    if not isinstance(told, Mapping) or len(told) < 2:
        return {name: (read_image(path, modality), (path,))}
    numbered = sorted((int(key), str(value)) for key, value in told.items() if str(key).isdecimal())
    return {safe_name(value): (read_image(path, modality, index), (path,)) for index, value in numbered}


def _with_facts(case: Case, place: Place, shelf: Shelf) -> Case:
    told = shelf.collection
    traits = {name: said for name, fact in told.traits.items() if (said := shelf.fact(fact, place))}
    images = {name: replace(image, traits={**traits, **image.traits}) for name, image in case.images.items()}
    numbers = {name: number(shelf.fact(fact, place)) for name, fact in told.covariates.items()}
    patient, group, label = (shelf.fact(f, place) if f else None for f in (told.patient, told.group, told.label))
    notes = (expand(note, lambda key: shelf.look(key, place)) for note in told.notes)
    return replace(
        case,
        images=images,
        covariates={name: value for name, value in numbers.items() if value is not None},
        label=label,
        group=group,
        patient=patient,
        notes=tuple(note for note in notes if note),
    )
