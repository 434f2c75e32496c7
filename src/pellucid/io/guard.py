"""What every reader does around somebody else's decoder: bound the size, keep names out of messages."""

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from math import prod
from pathlib import Path

from pellucid.core.errors import PellucidError, UnreadableImage, UnwritableOutput

MAX_VALUES = 2**29  # voxels x channels of one image: 2 GiB as float32, a CT of 2048 slices of 512 x 512
MAX_FILE_BYTES = 4 * MAX_VALUES

_READING: ContextVar[bool] = ContextVar("reading", default=False)
# These write header values (names, numbers, file names) into their log.
_TALKATIVE = ("pydicom", "nibabel.global", "tifffile", "highdicom.base", "highdicom.image", "highdicom.seg.sop")


class _SilentWhileReading(logging.Filter):
    """Drops records of a decoder while Pellucid reads: they quote header values, and so the patient's name."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not _READING.get()


for _name in _TALKATIVE:
    logging.getLogger(_name).addFilter(_SilentWhileReading())


@contextmanager
def reading(expected: str, mend: str) -> Iterator[None]:
    """Run a decoder: whatever it raises becomes one error that quotes nothing of the file.

    Args:
        expected: what the file should hold, such as ``a complete PNG``.
        mend: what the reader can do.

    Raises:
        UnreadableImage: the decoder failed; its own message is not passed on, since it may hold the patient's name.
    """
    token = _READING.set(True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # they quote header values too
            yield
    except PellucidError:
        raise
    except MemoryError:
        raise UnreadableImage(
            f"expected {expected} that fits into memory, got one that does not", "crop it, or use a larger machine"
        ) from None
    except Exception as error:
        kind = type(error).__name__
        raise UnreadableImage(f"expected {expected}, got damaged or incomplete data ({kind})", mend) from None
    finally:
        _READING.reset(token)


@contextmanager
def writing(what: str) -> Iterator[None]:
    """Run an encoder of objects that hold the patient's identity: its errors and logs are not passed on.

    Args:
        what: is written, such as ``parametric map``.

    Raises:
        UnwritableOutput: the encoder refused what it was given.
    """
    token = _READING.set(True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except (PellucidError, MemoryError):
        raise
    except Exception as error:
        raise UnwritableOutput(
            f"expected a source from which a {what} can be made, the encoder refused it ({type(error).__name__})",
            "use the maps in the archive or as NIfTI, and report the kind of image",
        ) from None
    finally:
        _READING.reset(token)


def check_values(sizes: Sequence[int], what: str) -> None:
    """Refuse an image by its declared size, before anything is allocated for it.

    Raises:
        UnreadableImage: the size is not positive, or beyond ``MAX_VALUES``.
    """
    text = " x ".join(str(n) for n in sizes)
    if not sizes or min(sizes) < 1:
        raise UnreadableImage(
            f"expected {what} with at least one voxel, its header declares {text}", "export the image again"
        )
    if prod(sizes) > MAX_VALUES:
        raise UnreadableImage(
            f"expected {what} of at most {MAX_VALUES} values, its header declares {text}",
            "export the part or the resolution that the model needs",
        )


def check_file(path: Path) -> int:
    """The size of a file in bytes.

    Raises:
        UnreadableImage: it does not exist, cannot be opened, is empty or is beyond ``MAX_FILE_BYTES``.
    """
    try:
        if not path.is_file():
            raise UnreadableImage("expected an image file, got a path where there is none", "check the path")
        size = path.stat().st_size
        with path.open("rb"):
            pass
    except OSError as error:
        raise UnreadableImage(
            f"expected a file that can be opened, got {type(error).__name__}", "check the path and its permissions"
        ) from None
    if size == 0:
        raise UnreadableImage("expected an image, got an empty file (0 bytes)", "copy or export it again")
    if size > MAX_FILE_BYTES:
        raise UnreadableImage(
            f"expected a file of at most {MAX_FILE_BYTES} bytes, got {size}", "export the part that the model needs"
        )
    return size
