"""The earlier report of an explanation, which a new one replaces: after a late slice, say."""

from pathlib import Path

from pydicom.dataset import Dataset

from pellucid.core.errors import BadOption, PellucidError
from pellucid.io.objects.reading import Kind, OurObject, read_ours
from pellucid.io.objects.recipe import Recipe

_ENDING = "*.sr.dcm"


def check_replaceable(path: Path) -> None:
    """Check that there is a report to be replaced, before hours are spent.

    Raises:
        BadOption: there is none.
    """
    if not _reports(path):
        raise BadOption(
            "expected an earlier report of ours, or a folder with some (*.sr.dcm), got none",
            "give the dicom folder of the case's earlier results",
        )


def earlier_reports(path: Path, recipe: Recipe, study: str) -> tuple[Dataset, ...]:
    """The reports that a new one of this explanation replaces: same study, target and method with its settings.

    Args:
        path: of a report, or of a folder of them.
        recipe: of the new explanation.
        study: StudyInstanceUID of its source.
    """
    asked = (recipe.target, recipe.method)
    found = [one for one in _reports(path) if (one.recipe.target, one.recipe.method) == asked and one.study == study]
    return tuple(one.dataset for one in found)


def _reports(path: Path) -> list[OurObject]:
    """What is no report of ours is passed over: a folder holds the other objects too."""
    found = []
    for file in sorted(path.rglob(_ENDING)) if path.is_dir() else [path]:
        try:
            one = read_ours(file)
        except PellucidError:
            continue
        if one.kind is Kind.REPORT:
            found.append(one)
    return found
