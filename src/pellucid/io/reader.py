"""The one door for images: a file, a DICOM series folder or a CSV of cases, opened by content and not by name."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from pellucid.core.case import Case, Region, SeriesChoice
from pellucid.core.errors import BadOption, PellucidError, UnreadableImage
from pellucid.core.grid import Grid
from pellucid.core.image import Image, Modality
from pellucid.io.dicom import Survey, read_dicom, survey
from pellucid.io.dicomdir import is_dicomdir, listed_in
from pellucid.io.dynamic import read_phase
from pellucid.io.folder import files_below, files_of, safe_name
from pellucid.io.formats import Format, find_format, image_format
from pellucid.io.guard import check_file
from pellucid.io.masks import region_from
from pellucid.io.plain import PLAIN_ENDINGS, read_plain
from pellucid.io.selection import Choosing, choose
from pellucid.io.table import PRIMARY, Row, is_table, read_table
from pellucid.io.unpack import is_zip, unpack

_IMAGE_ENDINGS = (*PLAIN_ENDINGS, ".dcm")
_HASH_LENGTH = 8
_DISK = "DICOMDIR"


class Failure(NamedTuple):
    """A case that could not be read.

    Args:
        reference: which one, by its place and never by its name: ``file 3 of 12``, ``row 7``.
        error: what is wrong, and the mend.
    """

    reference: str
    error: PellucidError


@dataclass(frozen=True, eq=False)
class Cases:
    """What a path held: the cases, and beside them those that could not be read.

    Args:
        cases: in natural order of files, or in the order of the table.
        failures: the others.
        ignored: files of a folder that hold no image and do not claim to.
    """

    cases: tuple[Case, ...]
    failures: tuple[Failure, ...] = ()
    ignored: int = 0


def read_image(path: str | Path, modality: Modality | None = None, index: int | None = None) -> Image:
    """An image from a file of any format it knows, or from a folder that holds one DICOM series.

    Args:
        path: file or folder; its name and ending mean nothing.
        modality: what made the image; DICOM says it itself.
        index: page, frame or volume, from 0, of a file with several.

    Raises:
        UnreadableImage: no image, damaged, too large, or slices that form no regular volume.
        BadOption: several pages, frames or volumes and no index, or an index that does not exist.
        NonFinite: NaN or infinity among the voxels.

    Example:
        >>> import skimage
        >>> photograph = Path(skimage.__file__).parent / "data" / "retina.jpg"
        >>> read_image(photograph, Modality.FUNDUS).grid.shape
        (1411, 1411)
    """
    path = opened(path)
    found = _surveyed(path)
    if found is not None:
        return read_phase(found, modality, index)[0]
    kind = image_format(path)
    if kind is Format.DICOM:
        return read_dicom(path, modality, index)
    return read_plain(path, kind, modality, index)


def opened(path: str | Path) -> Path:
    """The path itself; of a zip archive the private folder of what it holds, or the one file in it."""
    path = Path(path)
    return unpack(path) if path.is_file() and is_zip(path) else path


def _surveyed(path: Path) -> Survey | None:
    """The DICOM images of a folder, or of those that the index of a disk names; None for any other file."""
    if path.is_dir():
        return survey(files_of(path))
    return survey(listed_in(path)) if is_dicomdir(path) else None


def survey_study(path: str | Path) -> Survey:
    """The DICOM images of a folder with all folders in it, of a zip archive, or of a DICOMDIR, by their headers.

    Raises:
        UnreadableImage: the archive, the index or the folder cannot be used.
    """
    path = opened(path)
    if path.is_dir():
        return survey(files_below(path))
    return survey(listed_in(path) if is_dicomdir(path) else [path])


def read_mask(path: str | Path, like: Grid) -> Region:
    """An expert's mask on the grid of its image; see ``read_mask_noted``."""
    return read_mask_noted(path, like)[0]


def read_mask_noted(path: str | Path, like: Grid) -> tuple[Region, str | None]:
    """An expert's mask on the grid of its image, with a sentence where it had to be resampled.

    A picture must have the image's shape. A volume in patient space is resampled (nearest) when it lies on another
    grid of the same world. Inside is what is not zero; in a JPEG, whose zeros are blurred, what is above half.

    Args:
        path: file, or folder of a DICOM series.
        like: grid of the image.

    Raises:
        BadRegion: another shape or world, empty, or full.
        UnreadableImage: no image in it.
    """
    return region_from(read_image(path), like)


def read_only_mask(cases: Cases, path: Path) -> tuple[Region, str | None]:
    """The one mask of the only case there is, on its first image, and in words what was done to it.

    Raises:
        BadOption: there is not exactly one case.
        PellucidError: as ``read_mask_noted``.
    """
    if len(cases.cases) != 1:
        raise BadOption(f"--region is one mask, and there are {len(cases.cases)} cases", "give a CSV with region:NAME")
    return read_mask_noted(path, next(iter(cases.cases[0].images.values())).grid)


def read_cases(
    path: str | Path,
    modality: Modality | None = None,
    index: int | None = None,
    choosing: Choosing | None = None,
) -> Cases:
    """All cases of a file, folder, zip archive or DICOMDIR (DICOM series, or images one by one) or a CSV of cases.

    Columns of the CSV, with paths relative to it: ``image`` (or ``image:NAME`` for several inputs), ``region:NAME``,
    ``covariate:NAME``, ``name``, ``patient``, ``label``, ``group``; ``region:NAME@READER`` is one reader's mask.
    Without a name a picture or NIfTI is called after its file, a DICOM after a hash of its content.

    Args:
        path: what to read.
        modality: of all images, where the files do not say it.
        index: see ``read_image``.
        choosing: how one series of a study is found; None: a folder must hold one.

    Raises:
        PellucidError: nothing could be read because of the path itself, the table's header, or a mixed folder.
    """
    found = list(iter_cases(path, modality, index, choosing))
    path = opened(path)
    ignored = _ignored(files_of(path)) if path.is_dir() else 0
    cases = _distinct([case for case in found if isinstance(case, Case)])
    return Cases(tuple(cases), tuple(f for f in found if isinstance(f, Failure)), ignored)


def iter_cases(
    path: str | Path,
    modality: Modality | None = None,
    index: int | None = None,
    choosing: Choosing | None = None,
) -> Iterator[Case | Failure]:
    """The same one by one, for cohorts that do not fit into memory; names are not made distinct.

    See ``read_cases`` for what it takes.
    """
    path, how = opened(path), _How(modality, index, choosing or Choosing())
    if how.choosing.number is not None and (path.is_dir() or is_dicomdir(path)):
        yield from _from_studies(survey_study(path), how)
        return
    if path.is_dir():
        yield from _from_folder(path, how)
        return
    check_file(path)
    if find_format(path) is None and is_table(path):
        yield from iter_rows(read_table(path), modality, index, choosing)
    elif is_dicomdir(path):
        yield from _from_studies(survey(listed_in(path)), how)
    else:
        yield _case(path, read_image(path, modality, index))


@dataclass(frozen=True)
class _How:
    """What is asked of every image."""

    modality: Modality | None
    index: int | None
    choosing: Choosing


def _from_folder(folder: Path, how: _How) -> Iterator[Case | Failure]:
    files = files_of(folder)
    found = survey(files)
    stacked = bool(found.members) and not found.separate
    dicom = {m.path for m in found.members} if stacked else set()
    broken = dict(found.failures)
    claimed = [f for f in files if f not in dicom and (f in broken or _claims_an_image(f, found))]
    disk = not found.members and (folder / _DISK).is_file()  # pictures beside the index of a disk are its decoration
    if disk or not (stacked or claimed):
        yield from _from_below(folder, how)
        return
    if stacked:
        yield from _from_studies(found, how)
        claimed = [f for f in claimed if f not in broken]
    for number, file in enumerate(claimed, 1):
        try:
            if file in broken:
                raise broken[file]
            yield _case(file, read_image(file, how.modality, how.index))
        except PellucidError as error:
            yield Failure(f"file {number} of {len(claimed)}", error)


def _from_below(folder: Path, how: _How) -> Iterator[Case | Failure]:
    """Folders inside folders: their studies where there is a rule to choose by, else each that holds DICOM a case."""
    files = [file for file in files_below(folder) if find_format(file) is Format.DICOM and file.name != _DISK]
    if not files:
        raise UnreadableImage("expected a folder with images, got one without", "give the folder that holds them")
    if how.choosing.chooses:
        yield from _from_studies(survey(files), how)
        return
    holding = list(dict.fromkeys(file.parent for file in files))
    for number, series in enumerate(holding, 1):
        try:
            yield _chosen(survey(files_of(series)), how)
        except PellucidError as error:
            yield Failure(f"folder {number} of {len(holding)}", error)


def _from_studies(found: Survey, how: _How) -> Iterator[Case | Failure]:
    """One case of each study; of a study of separate images one of each, since nobody says which is meant."""
    parts, told = [found], set()  # folders of stacks: a damaged file in one is part of what is said of it
    if how.choosing.card is not None and how.choosing.number is None:
        parts = [one for study in found.studies for one in (study.apart if study.separate else [study])]
    for number, part in enumerate(parts, 1):
        files = tuple(member.path for member in part.members)
        try:
            case = _chosen(part, how)
            files = case.files[PRIMARY]
            yield case
        except PellucidError as error:
            if len(parts) == 1:
                raise
            yield Failure(f"study or image {number} of {len(parts)}", error)
        told.update(file.parent for file in files if len(files) > 1)
    elsewhere = [error for path, error in found.failures if path.parent not in told]
    for number, error in enumerate(elsewhere, 1):
        yield Failure(f"file {number} of {len(elsewhere)} that cannot be read", error)


def _chosen(found: Survey, how: _How) -> Case:
    """The one series of a study as a case."""
    taken, choice = choose(found, how.choosing) if how.choosing.chooses and found.members else (found, None)
    image, paths = read_phase(taken, how.modality, how.index, how.choosing.resample)
    return _case(paths[0], image, paths, choice)


def iter_rows(
    rows: Iterable[Row | tuple[int, PellucidError]],
    modality: Modality | None = None,
    index: int | None = None,
    choosing: Choosing | None = None,
) -> Iterator[Case | Failure]:
    """One case or failure for each row of ``read_table``, in the order given. See ``read_cases`` for the rest."""
    how = _How(modality, index, choosing or Choosing())
    for row in rows:
        if not isinstance(row, Row):
            yield Failure(f"row {row[0]}", row[1])
            continue
        try:
            yield _from_row(row, how)
        except PellucidError as error:
            yield Failure(f"row {row.number}", error)


def _from_row(row: Row, how: _How) -> Case:
    read = {name: _of_row(opened(path), how) for name, path in row.images.items()}
    plain = next(iter(read.values()))
    grid = plain.images[PRIMARY].grid
    regions, notes = {}, list(plain.notes)
    for name, path in row.regions.items():
        region, note = read_mask_noted(path, grid)
        regions[name] = replace(region, reader=name.partition("@")[2].strip())
        notes.extend([f"region {name}: {note}"] if note else [])
    return replace(
        plain,
        name=(safe_name(row.name) if row.name else "") or plain.name,
        images={name: case.images[PRIMARY] for name, case in read.items()},
        regions=regions,
        covariates=row.covariates,
        label=row.label,
        group=row.group,
        patient=row.patient,
        notes=tuple(notes),
        files={name: case.files[PRIMARY] for name, case in read.items()},
    )


def _of_row(path: Path, how: _How) -> Case:
    found = _surveyed(path)
    return _case(path, read_image(path, how.modality, how.index)) if found is None else _chosen(found, how)


def _case(path: Path, image: Image, files: tuple[Path, ...] = (), series: SeriesChoice | None = None) -> Case:
    stem = path.name.removesuffix(".gz").rpartition(".")[0] or path.name
    name = "" if image.traits.get("format") == Format.DICOM else safe_name(stem)
    mended, doubt = image.traits.get("resampled"), image.traits.get("doubt")
    return Case(
        name or f"case-{image.digest[:_HASH_LENGTH]}",
        {PRIMARY: image},
        notes=((f"resampled: {mended}",) if mended else ()) + ((str(doubt),) if doubt else ()),
        series=series,
        files={PRIMARY: files or (path,)},
    )


def _distinct(cases: list[Case]) -> list[Case]:
    """The same name twice would write one result over the other."""
    seen: Counter[str] = Counter()
    named = []
    for case in cases:
        seen[case.name] += 1
        count = seen[case.name]
        named.append(case if count == 1 else replace(case, name=f"{case.name}-{count}"))
    return named


def _claims_an_image(path: Path, found: Survey) -> bool:
    """By content; a file without any is reported only where its name promises one."""
    kind = find_format(path)
    if kind is Format.DICOM:
        return any(member.path == path for member in found.members)
    return kind is not None or path.name.lower().endswith(_IMAGE_ENDINGS)


def _ignored(files: list[Path]) -> int:
    return sum(find_format(f) is None and not f.name.lower().endswith(_IMAGE_ENDINGS) for f in files)
