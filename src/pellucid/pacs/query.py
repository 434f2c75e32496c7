"""What is looked for in an archive; read from a file, since a command line stays in the shell's history."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, final

from pellucid.core.errors import BadOption
from pellucid.pacs.uids import is_uid

UID_KEYS = ("StudyInstanceUID", "SeriesInstanceUID")
STUDY_KEYS = ("PatientID", "PatientName", "AccessionNumber", "StudyID", "StudyDate", "StudyDescription")
SERIES_KEYS = ("Modality", "SeriesNumber", "SeriesDescription", "BodyPartExamined")
KEYS = (*UID_KEYS, *STUDY_KEYS, *SERIES_KEYS)
_TEXT = re.compile(r"[^\\\x00-\x1f]{1,64}")  # PS3.5 6.2: a backslash would make two values of one


@final
@dataclass(frozen=True)
class Query:
    """Keys and values that a series must fit; ``*`` and ``?`` stand for other letters where the archive takes them.

    Args:
        keys: by DICOM keyword.
    """

    keys: Mapping[str, str] = field(repr=False)

    def __post_init__(self) -> None:
        unknown = sorted(set(self.keys) - set(KEYS))
        if unknown:
            raise BadOption(f"unknown key in the query ({len(unknown)} in all)", f"keys: {', '.join(KEYS)}")
        if not self.keys:
            raise BadOption("expected a query with at least one key, got none", f"keys: {', '.join(KEYS)}")
        for key, value in self.keys.items():
            if key in UID_KEYS and not is_uid(value):
                raise BadOption(f"{key} is not a valid UID", "digits and dots, at most 64 letters (PS3.5 9.1)")
            if not _TEXT.fullmatch(value) or not value.strip("*? "):
                raise BadOption(
                    f"{key} is empty, all wildcard, or holds a letter that none may", "give at most 64 plain letters"
                )


@final
@dataclass(frozen=True)
class Match:
    """One series that an archive has.

    Args:
        study: its study's UID; ``series`` its own.
        modality: as the archive says; two letters or so.
        number: of the series.
        instances: how many objects, where the archive tells.
    """

    study: str = field(repr=False)
    series: str = field(repr=False)
    modality: str = ""
    number: int = 0
    instances: int | None = None

    def keys(self) -> dict[str, str]:
        """The query that finds this series alone."""
        return dict(zip(UID_KEYS, (self.study, self.series), strict=True))


def read_queries(text: str) -> tuple[Query, ...]:
    """Queries from JSON: one object, or a list of them as ``find`` writes it.

    Raises:
        BadOption: something else; values are not quoted.
    """
    mend = 'write for example {"PatientID": "123", "Modality": "CT"}, or give what `pellucid dicom find --out` wrote'
    try:
        raw = json.loads(text)
    except (json.JSONDecodeError, RecursionError):
        raise BadOption("the query is not JSON", mend) from None
    items = raw if isinstance(raw, list) else [raw]
    if not items or not all(_flat(item) for item in items):
        raise BadOption("expected a query as a JSON object of texts, or a list of them", mend)
    return tuple(Query(item) for item in items)


def _flat(item: Any) -> bool:
    return isinstance(item, dict) and all(isinstance(value, str) for value in item.values())


def match_of(told: Mapping[str, Any]) -> Match | None:
    """A series as an archive describes it; None where its UIDs are not valid, since they go into the next request."""
    study, series = (str(told.get(key) or "") for key in UID_KEYS)
    if not (is_uid(study) and is_uid(series)):
        return None
    modality = str(told.get("Modality") or "")
    shown = modality if re.fullmatch(r"[A-Z]{1,16}", modality) else ""
    return Match(study, series, shown, _count(told.get("SeriesNumber")) or 0, _count(told.get("Instances")))


def _count(value: Any) -> int | None:
    try:
        return int(value)
    except (TypeError, ValueError):
        return None
