"""What a data set's file says: where its cases lie in a folder, and what is known of each."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Literal

from pydantic import ConfigDict, TypeAdapter

from pellucid.core.errors import BadOption, UnknownName
from pellucid.core.image import Modality
from pellucid.io.declaration import read_declaration

SETS = Path(__file__).parent / "sets"
_STRICT = ConfigDict(extra="forbid", strict=True)
Template = str
Templates = str | tuple[str, ...]


@dataclass(frozen=True)
class Where:
    """Which paths of the folder are cases.

    Args:
        path: regular expression of the whole path below the folder, with ``/``; its named groups become fields. What
            stands before it (the user may have given an outer folder) becomes the field ``root``; ``path`` is all of
            it, and ``dir`` the part before the last name.
        of: whether a case is a ``file`` or a ``folder``.
        beside: what must lie there too; a path without it is no case.
        text: what the first bytes of the first of ``beside`` must hold.
    """

    __pydantic_config__ = _STRICT

    path: str
    of: Literal["file", "folder"] = "file"
    beside: tuple[Template, ...] = ()
    text: str = ""


@dataclass(frozen=True)
class Table:
    """A file that says something of cases.

    Args:
        file: where it lies; the first of several that is there.
        form: ``csv``, ``json``, or ``lines`` of ``key: value``.
        key: the column that names the case; empty: the file is about one case only.
        of: what stands there for a case.
        delimiter: of a CSV.
        list: of a JSON entry, the key of its list of rows.
        required: whether a folder without it is refused.
    """

    __pydantic_config__ = _STRICT

    file: Templates
    form: Literal["csv", "json", "lines"] = "csv"
    key: str = ""
    of: Template = ""
    delimiter: str = ","
    list: str = ""
    required: bool = True


@dataclass(frozen=True)
class Fact:
    """Something known of a case, as words.

    Args:
        of: template; of several the first whose fields are all there.
        words: what is written for which value; other values stay as they are, and "" leaves the fact out.
        table: with ``columns``: first the names of those columns whose number is ``above``, then ``of``.
        columns: see ``table``.
        above: see ``table``.
    """

    __pydantic_config__ = _STRICT

    of: Templates = ()
    words: Mapping[Template, str] = field(default_factory=dict)
    table: str = ""
    columns: tuple[str, ...] = ()
    above: float = 0.5


@dataclass(frozen=True)
class Source:
    """Where an image lies.

    Args:
        file: file or DICOM folder; the first of several that is there.
        modality: what tells it, where the images of a data set differ; another word than a modality's is passed over.
        volumes: of a 4-D file, the JSON entry that names its volumes by number, such as ``dataset.modality``.
    """

    __pydantic_config__ = _STRICT

    file: Templates
    modality: str | Fact = ""
    volumes: str = ""


@dataclass(frozen=True)
class Mask:
    """A region drawn as an image.

    Args:
        name: of the region; empty: as ``labels`` says.
        file: the mask; all files that a pattern with ``*`` finds are united.
        values: that belong to it, of a picture as in the file; empty: everything that is not zero.
        labels: the JSON entry that names the values, such as ``dataset.labels``.
        reader: who drew it.
        required: whether a case without the file is listed as failed.
        slices: the folder of DICOM files that the masks belong to one by one, in the order of their numbers.
    """

    __pydantic_config__ = _STRICT

    file: Templates
    name: str = ""
    values: tuple[int, ...] = ()
    labels: str = ""
    reader: str = ""
    required: bool = True
    slices: Template = ""


@dataclass(frozen=True)
class Box:
    """Rectangles of a table, one region for each name; several of one name are united.

    Args:
        table: with a row for each rectangle.
        name: template of the region's name, from the row.
        words: a region's name for the name in the table.
        edges: columns of left, top, width and height, or with ``corners`` of left, top, right and bottom, in pixels.
        corners: see ``edges``.
        frame: templates of width and height of the picture that the pixels were counted on; empty: the image itself.
    """

    __pydantic_config__ = _STRICT

    table: str
    name: Template
    edges: tuple[str, str, str, str]
    words: Mapping[str, str] = field(default_factory=dict)
    corners: bool = False
    frame: tuple[Template, Template] | None = None


@dataclass(frozen=True)
class Outline:
    """Contours of a file in a form of its own.

    Args:
        file: where it lies.
        form: ``lidc-xml`` (each nodule becomes a case, each reader a region) or ``osirix-plist``.
        words: a region's name for the name in the file.
        required: whether a case without the file is listed as failed.
    """

    __pydantic_config__ = _STRICT

    file: Templates
    form: Literal["lidc-xml", "osirix-plist"]
    words: Mapping[str, str] = field(default_factory=dict)
    required: bool = True


@dataclass(frozen=True)
class Collection:
    """A data set: what its file says.

    Args:
        name: by which it is asked for.
        title: with the years or versions whose layout this is.
        modality: of its images.
        source: address where it is had, or where its layout is described.
        license: of the images, as their owner states it.
        citation: the paper to cite.
        layout: the folder, drawn for a person.
        cases: which paths are cases.
        images: by input name of a model.
        case: template of a case's name.
        caution: what one should know before relying on it.
        tables: by name.
        masks: drawn regions.
        boxes: rectangles.
        outlines: contours.
        patient: which cases are of one patient.
        group: site, scanner or view, for strata.
        label: the reference label.
        covariates: numbers.
        traits: technical facts that the files do not say: view, body part.
        notes: sentences that every picture of a case carries.
    """

    __pydantic_config__ = _STRICT

    name: str
    title: str
    modality: str
    source: str
    license: str
    citation: str
    layout: str
    cases: Where
    images: Mapping[str, Source]
    case: Template
    caution: str = ""
    tables: Mapping[str, Table] = field(default_factory=dict)
    masks: tuple[Mask, ...] = ()
    boxes: tuple[Box, ...] = ()
    outlines: tuple[Outline, ...] = ()
    patient: str | Fact = ""
    group: str | Fact = ""
    label: str | Fact = ""
    covariates: Mapping[str, str | Fact] = field(default_factory=dict)
    traits: Mapping[str, str | Fact] = field(default_factory=dict)
    notes: tuple[Template, ...] = ()


_SCHEMA = TypeAdapter(Collection)


@cache
def collections() -> Mapping[str, Collection]:
    """Every data set that comes with the package, by name."""
    found = [load_collection(path) for path in sorted(SETS.glob("*.toml"))]
    return {one.name: one for one in found}


def find_collection(name: str) -> Collection:
    """A data set by its name, or by the path of a TOML file of one's own.

    Args:
        name: as ``pellucid collections`` lists it, or a path that ends in ``.toml``.

    Raises:
        UnknownName: no such data set.
        BadOption: the file says something else than it may.
    """
    if name.endswith(".toml"):
        return load_collection(Path(name))
    known = collections()
    if name not in known:
        raise UnknownName(
            f"there is no data set {name[:40]!r}", f"data sets: {', '.join(known)}; or a TOML of your own"
        )
    return known[name]


def load_collection(path: Path) -> Collection:
    """A data set from its file.

    Args:
        path: of the TOML.

    Raises:
        InputError: the file cannot be read.
        BadOption: not TOML, or a key that is missing, unknown or of another type.
    """
    found = read_declaration(path, _SCHEMA, "data set", "docs/collections.md")
    _check(found)
    return found


def _check(one: Collection) -> None:
    try:
        re.compile(one.cases.path)
    except re.error as error:
        raise BadOption(f"data set {one.name}: cases.path is no regular expression: {error}", "correct it") from error
    if one.modality not in list(Modality):
        raise BadOption(f"data set {one.name}: modality {one.modality!r} is unknown", f"one of {', '.join(Modality)}")
    if not one.images:
        raise BadOption(f"data set {one.name}: expected at least one image", "write [images.image]")
    named = {box.table for box in one.boxes} | {f.table for f in facts_of(one) if f.table}
    missing = sorted(named - set(one.tables))
    if missing:
        raise BadOption(f"data set {one.name}: table {missing[0]!r} is used and not declared", "write [tables.NAME]")


def facts_of(one: Collection) -> tuple[Fact, ...]:
    """Every fact that a data set declares, those written as a plain template too.

    Args:
        one: the data set.
    """
    sources = [source.modality for source in one.images.values()]
    every = (one.patient, one.group, one.label, *one.covariates.values(), *one.traits.values(), *sources)
    return tuple(f if isinstance(f, Fact) else Fact(f) for f in every if f)


def first_of(templates: Templates) -> tuple[str, ...]:
    """One template or several as several.

    Args:
        templates: as declared.
    """
    return (templates,) if isinstance(templates, str) else tuple(templates)
