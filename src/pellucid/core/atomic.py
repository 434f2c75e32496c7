"""Files that are there whole or not at all."""

import os
import threading
from pathlib import Path

from pellucid.core.errors import UnwritableOutput


def make_folder(folder: Path) -> Path:
    """The folder, made where it is missing.

    Raises:
        UnwritableOutput: it cannot be made, or is a file; the message names it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(folder, error) from None
    return folder


def write_bytes(path: Path, content: bytes) -> Path:
    """Write under a temporary name in the same folder, then rename: a reader never sees half a file.

    Raises:
        UnwritableOutput: the folder cannot be written, or the disk is full; nothing is left behind.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.part")
    try:
        with part.open("wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        part.replace(path)
    except OSError as error:
        raise _unwritable(path.parent, error) from None
    finally:
        if part.is_file():  # only where something failed in between
            part.unlink()
    return path


def write_text(path: Path, content: str) -> Path:
    """The same for UTF-8 text."""
    return write_bytes(path, content.encode("utf-8"))


def _unwritable(folder: Path, error: OSError) -> UnwritableOutput:
    return UnwritableOutput(
        f"expected a folder that can be written, {folder} cannot ({error.strerror or type(error).__name__})",
        "give another output folder, or free space and permissions",
    )
