"""``pellucid collections``, and the options by which a command reads a public data set."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from pellucid.cli import face
from pellucid.core.case import Case
from pellucid.core.errors import BadOption
from pellucid.io.collection import Choice, iter_collection, listed, read_collection
from pellucid.io.collections.declared import Collection, collections, find_collection
from pellucid.io.reader import Cases, Failure

AUTO = "auto"
_MOST = 200  # cases that a command holds in memory, and makes a report of, without being told
Named = Annotated[
    str | None,
    typer.Option("--collection", help="The folder is this public data set: a name, auto, or a TOML of your own."),
]
Limit = Annotated[int | None, typer.Option("--limit", help="Of a data set: so many cases, drawn with --seed.")]
Select = Annotated[
    list[str] | None, typer.Option("--select", help="Of a data set: FIELD=VALUE or TABLE.COLUMN=VALUE; repeatable.")
]


@dataclass(frozen=True)
class DataSet:
    """Which cases of which public data set.

    Args:
        name: as ``--collection``.
        choice: which of its cases.
    """

    name: str
    choice: Choice

    def read(self, folder: Path) -> Cases:
        """All chosen cases; the license is shown.

        Raises:
            BadOption: more than one looks at.
        """
        known, paths = self._listed(folder)
        if self.choice.limit is None and len(paths) > _MOST:
            raise BadOption(
                f"expected at most {_MOST} cases at once, {known.name} has {len(paths)}",
                "write --limit or --select; many cases are for pellucid study",
            )
        return read_collection(folder, known, self.choice)

    def each(self, folder: Path) -> Iterator[Case | Failure]:
        """The same one by one, however many."""
        known, _ = self._listed(folder)
        return iter_collection(folder, known, self.choice)

    def _listed(self, folder: Path) -> tuple[Collection, tuple[Path, ...]]:
        known, paths = listed(folder, None if self.name == AUTO else self.name, self.choice)
        terms = f"{known.title}. License: {known.license}. Cite: {known.citation}. {known.caution}"
        face.err.print(escape(terms), soft_wrap=True, highlight=False)
        return known, paths


def data_set(name: str | None, limit: int | None, select: list[str] | None, seed: int) -> DataSet | None:
    """What the options say; None: no data set is named.

    Raises:
        BadOption: a choice of nothing, or one that is not FIELD=VALUE.
    """
    if name is None:
        if limit is not None or select:
            raise BadOption("--limit and --select choose cases of a data set, got none", "add --collection NAME")
        return None
    where = dict[str, str]()
    for text in select or ():
        field, equals, value = text.partition("=")
        if not equals or not field.strip():
            raise BadOption(f"expected --select FIELD=VALUE, got {text[:40]!r}", "write for example split.split=test")
        where[field.strip()] = value.strip()
    return DataSet(name, Choice(limit, seed, where))


def show_collections(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="One of them, or a TOML of your own.")] = None,
    as_json: face.Json = False,
) -> None:
    """List the public data sets that a folder may hold, each with its layout, license and paper."""
    with face.reported(as_json):
        chosen = [find_collection(name)] if name else list(collections().values())
        if as_json:
            face.show_json([told(one) for one in chosen])
            return
        for one in chosen:
            face.out.print(f"[bold]{one.name}[/]  {escape(one.title)} ({one.modality})", highlight=False)
            face.out.print(escape(one.layout.strip("\n")), highlight=False, soft_wrap=True)
            lines = [f"regions: {', '.join(regions(one))}"] if regions(one) else []
            lines += [f"license: {one.license}", f"cite: {one.citation}", f"from: {one.source}"]
            lines += [f"know: {one.caution}"] if one.caution else []
            face.out.print("\n".join(escape(f"  {line}") for line in lines) + "\n", highlight=False, soft_wrap=True)


def regions(one: Collection) -> list[str]:
    """Names of the regions that a data set has; those that its own files name are described."""
    drawn = [f"{m.name}@{m.reader}" if m.reader else m.name or f"as {m.labels} names them" for m in one.masks]
    boxes = [f"box of {b.name}" for b in one.boxes]
    kinds = {"lidc-xml": "nodule@readerN", "osirix-plist": "as the contours are named"}
    return [*drawn, *boxes, *(kinds[o.form] for o in one.outlines)]


def told(one: Collection) -> dict[str, object]:
    """A data set as JSON types."""
    plain = ("name", "title", "modality", "source", "license", "citation", "caution")
    facts = {fact: bool(getattr(one, fact)) for fact in ("label", "patient", "group")}
    return {
        **{key: getattr(one, key) for key in plain},
        "layout": one.layout.strip("\n"),
        "images": list(one.images),
        "regions": regions(one),
        "covariates": sorted(one.covariates),
        **facts,
    }
