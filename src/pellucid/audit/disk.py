"""Files under a lock: whole lines or none, secrets, and one-step replacement. POSIX only; on a local disk."""

import errno
import os
import secrets
import sys
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pellucid.core.errors import AuditError

if sys.platform != "win32":
    import fcntl

MAX_LINE = 262_144  # above what 1024 objects and 64 parameters fill; bounds the memory that a damaged line can take
SECRET_BYTES = 32
_BLOCK = 4096


@contextmanager
def locked(path: Path, *, shared: bool = False) -> Generator[int]:
    """Open a file for appending (or, shared, for reading), alone while the block runs; the descriptor is given.

    Raises:
        AuditError: the file cannot be opened, read or written, or the system has no ``flock``.
    """
    if sys.platform == "win32":
        raise AuditError("the audit log needs the file locks of a POSIX system", "Run on Linux, macOS or WSL")
    flags = os.O_RDONLY if shared else os.O_RDWR | os.O_APPEND | os.O_CREAT
    try:
        fd = os.open(path, flags | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
            yield fd
        finally:
            os.close(fd)
    except OSError as error:
        verb, mend = ("read", "readable") if shared else ("written", "writable")
        raise AuditError(f"{path} could not be {verb}: {error.strerror}", f"Give a file in a {mend} folder") from error


def last_line(fd: int, end: int) -> bytes:
    """What follows the last line end before offset ``end - 1``: the last line, or a torn one without its end."""
    size = _BLOCK
    while True:
        start = max(0, end - size)
        block = os.pread(fd, end - start, start)
        cut = block.rfind(b"\n", 0, max(0, len(block) - 1))
        if cut >= 0 or start == 0 or size > MAX_LINE:
            return block[cut + 1 :]
        size *= 2


def lines(path: Path, end: int) -> Iterator[bytes]:
    """The lines up to offset ``end``, one at a time; a line over ``MAX_LINE`` comes in pieces without a line end."""
    try:
        with path.open("rb") as stream:
            while end > 0 and (line := stream.readline(min(end, MAX_LINE))):
                end -= len(line)
                yield line
    except OSError as error:
        raise AuditError(f"{path} could not be read: {error.strerror}", "Give a readable file") from error


def append(fd: int, line: bytes) -> None:
    """Write a whole line, on the disk when this returns; what a full disk cut short is taken away again."""
    end = os.fstat(fd).st_size
    try:
        written = os.write(fd, line)
        os.fsync(fd)
    except OSError:
        os.ftruncate(fd, end)
        raise
    if written != len(line):
        os.ftruncate(fd, end)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def sync_folder(path: Path) -> None:
    """Make the name of a new file survive a power cut."""
    fd = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def replace(path: Path, data: bytes) -> None:
    """Write a file under another name in the same folder, then give it its name."""
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with draft.open("wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        draft.replace(path)
    except OSError:
        with suppress(OSError):  # no draft, where its folder is gone; the error to tell is the first
            draft.unlink(missing_ok=True)
        raise


def fill(path: Path) -> None:
    """Put 32 random bytes into a file that is absent or empty, with mode 0600; leave any other alone."""
    with locked(path) as fd:
        if os.fstat(fd).st_size == 0:
            append(fd, secrets.token_bytes(SECRET_BYTES))
            sync_folder(path)


def secret(path: Path) -> bytes:
    """The bytes of a key or salt file; AuditError where it is absent or shorter than 32 bytes."""
    try:
        data = path.read_bytes()
    except OSError as error:
        mend = "Restore the file; a new log may have a new key from `pellucid.audit.log.create_key`"
        raise AuditError(f"the secret {path} could not be read: {error.strerror}", mend) from error
    if len(data) < SECRET_BYTES:
        mend = "Restore the file; for a new log make one with `pellucid.audit.log.create_key`"
        raise AuditError(f"the secret {path} must hold at least {SECRET_BYTES} bytes, not {len(data)}", mend)
    return data
