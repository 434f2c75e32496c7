"""The optional packages behind this room, and their talk."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

from pellucid.core.errors import MissingExtra

_TALKATIVE = (
    "pynetdicom",
    "dicomweb_client",
    "retrying",
    "urllib3",
    "pydicom",
)  # they log UIDs, queries and header values
_SILENT = logging.CRITICAL + 1
_LOCK = Lock()
_LEVELS: list[list[int]] = []  # one entry for each block that runs; the first holds what stood before


@contextmanager
def optional() -> Iterator[None]:
    """Around the import of what the extra ``pacs`` brings.

    Raises:
        MissingExtra: it is not installed.
    """
    try:
        yield
    except ModuleNotFoundError:
        raise MissingExtra(
            "archives need pynetdicom, dicomweb-client and tenacity, and one of them is not installed",
            "install the extra with pip install 'pellucid[pacs]'",
        ) from None


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the libraries from logging or warning while we speak: what they say quotes the patient's identifiers."""
    loggers = [logging.getLogger(name) for name in _TALKATIVE]
    with _LOCK:
        _LEVELS.append([logger.level for logger in loggers])
        for logger in loggers:
            logger.setLevel(_SILENT)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        with _LOCK:
            before = _LEVELS[0]
            _LEVELS.pop()
            if not _LEVELS:  # the last block that ran, in any thread, gives the loggers back
                for logger, level in zip(loggers, before, strict=True):
                    logger.setLevel(level)
