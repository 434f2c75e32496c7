"""The one door for images: a file, a DICOM series folder or a CSV of cases, opened by content and not by name."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from pellucid.core.case import Case, Region
from pellucid.core.errors import BadOption, PellucidError, UnreadableImage
from pellucid.core.grid import Grid
from pellucid.core.image import Image, Modality
from pellucid.io.dicom import Survey, read_dicom, read_series, survey
from pellucid.io.folder import files_of, natural, safe_name
from pellucid.io.formats import Format, find_format, image_format
from pellucid.io.guard import check_file
from pellucid.io.masks import region_from
from pellucid.io.plain import PLAIN_ENDINGS, read_plain
from pellucid.io.table import PRIMARY, Row, is_table, read_table

_IMAGE_ENDINGS = (*PLAIN_ENDINGS, ".dcm")
_HASH_LENGTH = 8


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
    path = Path(path)
    if path.is_dir():
        return read_series(survey(files_of(path)), modality, index)
    kind = image_format(path)
    if kind is Format.DICOM:
        return read_dicom(path, modality, index)
    return read_plain(path, kind, modality, index)


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


def read_cases(path: str | Path, modality: Modality | None = None, index: int | None = None) -> Cases:
    """All cases of a file, a folder (a DICOM series, or images one by one) or a CSV of cases.

    Columns of the CSV, with paths relative to it: ``image`` (or ``image:NAME`` for several inputs), ``region:NAME``,
    ``covariate:NAME``, ``name``, ``patient``, ``label``, ``group``; ``region:NAME@READER`` is one reader's mask of a
    finding that several marked. Without a name a picture or NIfTI is called after its file,
    a DICOM after a hash of its content, since the file may be named after the patient.

    Args:
        path: what to read.
        modality: of all images, where the files do not say it.
        index: see ``read_image``.

    Returns:
        The cases, and beside them what could not be read.

    Raises:
        PellucidError: nothing could be read because of the path itself, the table's header, or a mixed folder.
    """
    found = list(iter_cases(path, modality, index))
    path = Path(path)
    ignored = _ignored(files_of(path)) if path.is_dir() else 0
    cases = _distinct([case for case in found if isinstance(case, Case)])
    return Cases(tuple(cases), tuple(f for f in found if isinstance(f, Failure)), ignored)


def iter_cases(
    path: str | Path, modality: Modality | None = None, index: int | None = None
) -> Iterator[Case | Failure]:
    """The same one by one, for cohorts that do not fit into memory; names are not made distinct."""
    path = Path(path)
    if path.is_dir():
        yield from _from_folder(path, modality, index)
        return
    check_file(path)
    if find_format(path) is None and is_table(path):
        yield from iter_rows(read_table(path), modality, index)
    else:
        yield _case(path, read_image(path, modality, index))


def _from_folder(folder: Path, modality: Modality | None, index: int | None) -> Iterator[Case | Failure]:
    files = files_of(folder)
    found = survey(files)
    stacked = bool(found.members) and not found.separate
    dicom = {m.path for m in found.members} if stacked else set()
    broken = dict(found.failures)
    claimed = [f for f in files if f not in dicom and (f in broken or _claims_an_image(f, found))]
    if not stacked and not claimed:
        yield from _from_subfolders(folder, modality, index)
        return
    if stacked:
        yield _case(folder, read_series(found, modality, index), _members(found))
        claimed = [f for f in claimed if f not in broken]
    for number, file in enumerate(claimed, 1):
        try:
            if file in broken:
                raise broken[file]
            yield _case(file, read_image(file, modality, index))
        except PellucidError as error:
            yield Failure(f"file {number} of {len(claimed)}", error)


def _from_subfolders(folder: Path, modality: Modality | None, index: int | None) -> Iterator[Case | Failure]:
    """A folder of DICOM series folders, one case each."""
    inner = sorted((f for f in folder.iterdir() if f.is_dir() and not f.name.startswith(".")), key=natural)
    holding = [f for f in inner if any(find_format(file) is Format.DICOM for file in files_of(f))]
    if not holding:
        raise UnreadableImage("expected a folder with images, got one without", "give the folder that holds them")
    for number, series in enumerate(holding, 1):
        try:
            found = survey(files_of(series))
            yield _case(series, read_series(found, modality, index), _members(found))
        except PellucidError as error:
            yield Failure(f"folder {number} of {len(holding)}", error)


def iter_rows(
    rows: Iterable[Row | tuple[int, PellucidError]], modality: Modality | None = None, index: int | None = None
) -> Iterator[Case | Failure]:
    """One case or failure for each row of ``read_table``, in the order given."""
    for row in rows:
        if not isinstance(row, Row):
            yield Failure(f"row {row[0]}", row[1])
            continue
        try:
            yield _from_row(row, modality, index)
        except PellucidError as error:
            yield Failure(f"row {row.number}", error)


def _from_row(row: Row, modality: Modality | None, index: int | None) -> Case:
    images, files = {}, {}
    for name, path in row.images.items():
        found = survey(files_of(path)) if path.is_dir() else None
        images[name] = read_series(found, modality, index) if found else read_image(path, modality, index)
        files[name] = _members(found) if found else (path,)
    first = next(iter(images))
    regions, notes = {}, []
    for name, path in row.regions.items():
        region, note = read_mask_noted(path, images[first].grid)
        regions[name] = replace(region, reader=name.partition("@")[2].strip())
        notes.extend([f"region {name}: {note}"] if note else [])
    plain = _case(row.images[first], images[first])
    name = safe_name(row.name) if row.name else ""
    return replace(
        plain,
        name=name or plain.name,
        images=images,
        regions=regions,
        covariates=row.covariates,
        label=row.label,
        group=row.group,
        patient=row.patient,
        notes=tuple(notes),
        files=files,
    )


def _members(found: Survey) -> tuple[Path, ...]:
    return tuple(member.path for member in found.members)


def _case(path: Path, image: Image, files: tuple[Path, ...] = ()) -> Case:
    stem = path.name.removesuffix(".gz").rpartition(".")[0] or path.name
    name = "" if image.traits.get("format") == Format.DICOM else safe_name(stem)
    return Case(name or f"case-{image.digest[:_HASH_LENGTH]}", {PRIMARY: image}, files={PRIMARY: files or (path,)})


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
