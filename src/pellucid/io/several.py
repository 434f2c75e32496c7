"""Several images of one file, such as frames of a loop: one case of each, all of one patient."""

from dataclasses import replace
from pathlib import Path

from pellucid.core.case import Case
from pellucid.core.errors import BadOption, PellucidError
from pellucid.io.folder import safe_name
from pellucid.io.formats import Format, find_format, image_format
from pellucid.io.index import Axes, Index
from pellucid.io.reader import Cases, Failure, iter_cases, read_cases
from pellucid.io.selection import Choosing
from pellucid.io.table import PRIMARY
from pellucid.io.tiffstack import read_stack
from pellucid.io.video import read_frames


def read_chosen(path: Path, index: Index = None, choosing: Choosing | None = None) -> Cases:
    """The cases of a path, where an index may say which images of its files.

    Args:
        path: see ``read_cases``.
        index: one image of each file, a range of them (each image is a case, named after its number), or a place on
            the named axes of a TIFF.
        choosing: how one series of a study is found.

    Raises:
        PellucidError: as ``read_cases``; with a range the images that cannot be read are listed beside the others.
    """
    if isinstance(index, Axes):
        return Cases((_placed(path, index),))
    if not isinstance(index, range):
        return read_cases(path, index=index, choosing=choosing)
    if path.is_file() and find_format(path) is Format.VIDEO:
        return Cases(_frames(path, index))
    cases: list[Case] = []
    failures: list[Failure] = []
    whole: dict[int, str] = {}
    for number in index:
        try:
            for place, found in enumerate(iter_cases(path, index=number, choosing=choosing)):
                if isinstance(found, Failure):
                    failures.append(Failure(f"{found.reference}, index {number}", found.error))
                    continue
                name = whole.setdefault(place, found.name)  # a DICOM is called after what one image of it holds
                cases.append(replace(found, name=f"{name}-{number}", patient=found.patient or name))
        except PellucidError as error:
            failures.append(Failure(f"index {number}", error))
    if not cases and failures:
        raise failures[0].error
    return Cases(tuple(cases), tuple(failures))


def _placed(path: Path, index: Axes) -> Case:
    if not path.is_file() or image_format(path) is not Format.TIFF:
        raise BadOption(
            "expected a TIFF for an index with axes, got another kind of file or a folder", "give a number: --index 3"
        )
    return Case(_name(path), {PRIMARY: read_stack(path, index)}, files={PRIMARY: (path,)})


def _name(path: Path) -> str:
    return safe_name(path.name.rpartition(".")[0] or path.name) or "image"


def _frames(path: Path, index: range) -> tuple[Case, ...]:
    """In one go: frame by frame, each would be decoded from the first on."""
    name = _name(path)
    images = read_frames(path, index)
    return tuple(
        Case(f"{name}-{number}", {PRIMARY: image}, patient=name, files={PRIMARY: (path,)})
        for number, image in zip(index, images, strict=True)
    )
