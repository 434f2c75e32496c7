"""A zip archive of images, unpacked with care into a private folder that is gone when the process ends."""

import atexit
import os
import shutil
import stat
import struct
import zipfile
from functools import cache
from pathlib import Path, PurePosixPath
from tempfile import gettempdir, mkdtemp

import psutil

from pellucid.core.errors import UnreadableImage
from pellucid.io.guard import check_file, reading

MAX_ENTRIES = 100_000
MAX_UNPACKED_BYTES = 2**34
MAX_RATIO = 200.0  # of the bytes inside to the bytes of the archive; slices of a CT reach 20, a mask may reach more
_ALWAYS = 2**26  # an archive of this much inside is opened whatever its ratio
_MAX_DIRECTORY = 2**24  # bytes of the list at the end, which zipfile reads whole
_DEPTH, _NAME_BYTES = 16, 1024
_BLOCK = 1 << 20
_ROOM = "pellucid-unpacked-"  # then the number of the process that made it
_END, _END64, _LOCATOR = b"PK\x05\x06", b"PK\x06\x06", b"PK\x06\x07"
_MEND = "unpack it yourself and give the folder, if you trust where it comes from"


def is_zip(path: Path) -> bool:
    """Whether a file begins as a zip archive does."""
    try:
        with path.open("rb") as stream:
            return stream.read(4) in (b"PK\x03\x04", _END)
    except OSError:
        return False


def unpack(path: Path) -> Path:
    """The folder of what a zip archive holds, or the one file in it; asked again for the same archive, the same.

    Nothing is written before the list of the archive is checked, and bytes are counted while they are inflated, since
    the list may lie. Hidden files are left out. A single folder around everything is passed through.

    Raises:
        UnreadableImage: names that lead out of the archive, links, passwords, names twice, damaged data, or more
            entries, bytes or compression than images have.
    """
    check_file(path)
    found = path.stat()
    return _inner(_unpacked(path.resolve(), found.st_size, found.st_mtime_ns))


@cache  # never forgotten: cases are read from it as long as the process lives
def _unpacked(path: Path, size: int, _changed: int) -> Path:
    _sweep()
    room = Path(mkdtemp(prefix=f"{_ROOM}{os.getpid()}-"))  # 0700
    atexit.register(_remove, room, os.getpid())
    try:
        with reading("a complete zip archive", "make the archive again"):
            _check_directory(path, size)
            with zipfile.ZipFile(path) as archive:
                entries = _checked(archive, size, shutil.disk_usage(room).free)
                _extract(archive, entries, room)
    except BaseException:
        _remove(room, os.getpid())
        raise
    return room


def _sweep() -> None:
    """Remove what processes left behind that were killed before they could: it holds whole examinations."""
    for room in Path(gettempdir()).glob(f"{_ROOM}*-*"):
        owner = room.name.removeprefix(_ROOM).partition("-")[0]
        mine = not room.is_symlink() and room.is_dir() and room.stat().st_uid == os.getuid()
        if mine and owner.isdecimal() and not psutil.pid_exists(int(owner)):
            shutil.rmtree(room, ignore_errors=True)


def _remove(room: Path, owner: int) -> None:
    """Only by the process that made it: a fork that ends would take it from its parent."""
    if os.getpid() == owner:
        shutil.rmtree(room, ignore_errors=True)


def _check_directory(path: Path, size: int) -> None:
    """Measure the list at the end before zipfile reads all of it: a million entries take it half a gigabyte."""
    with path.open("rb") as stream:
        stream.seek(max(0, size - 22 - 2**16))
        tail = stream.read()
        at = tail.rfind(_END)
        if at < 0:
            raise UnreadableImage("expected a complete zip archive, got one without its end", "copy it again")
        length = struct.unpack_from("<I", tail, at + 12)[0]
        locator = tail.rfind(_LOCATOR, 0, at)
        if length == 0xFFFFFFFF and locator >= 0:
            stream.seek(struct.unpack_from("<Q", tail, locator + 8)[0])
            record = stream.read(56)
            length = struct.unpack_from("<Q", record, 40)[0] if record[:4] == _END64 else length
    if length > _MAX_DIRECTORY:
        raise _too_many(f"a list of {length} bytes")


def _checked(archive: zipfile.ZipFile, size: int, free: int) -> list[zipfile.ZipInfo]:
    """The files to write, once nothing in the list speaks against it."""
    entries = archive.infolist()
    if len(entries) > MAX_ENTRIES:
        raise _too_many(f"{len(entries)}")
    for entry in entries:
        if _leads_out(entry.orig_filename):
            raise UnreadableImage("expected names inside the zip archive, got one that leads out of it", _MEND)
        if stat.S_IFMT(entry.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise UnreadableImage("expected files in the zip archive, got a link or a device", _MEND)
        if entry.flag_bits & 1:
            raise UnreadableImage("expected a zip archive that is open, got one with a password", "unpack it yourself")
    kept = [e for e in entries if not e.is_dir() and not _hidden(e.filename)]
    if len({e.filename.casefold() for e in kept}) != len(kept):
        raise UnreadableImage("expected each name once in the zip archive, got one twice", "unpack it yourself")
    total = sum(e.file_size for e in kept)
    _check_total(total, size)
    if total > free:
        raise UnreadableImage(
            f"expected room for {total} bytes of the zip archive, got {free}",
            "free some, or set TMPDIR to another disk",
        )
    return kept


def _leads_out(name: str) -> bool:
    parts = PurePosixPath(name).parts
    return (
        not parts
        or name.startswith("/")
        or any(c in name for c in "\\\0")
        or ":" in parts[0]
        or ".." in parts
        or len(parts) > _DEPTH
        or len(name.encode("utf-8", "replace")) > _NAME_BYTES
    )


def _hidden(name: str) -> bool:
    return any(part.startswith(".") or part == "__MACOSX" for part in PurePosixPath(name).parts)


def _check_total(total: int, size: int) -> None:
    if total > MAX_UNPACKED_BYTES or (total > _ALWAYS and total > MAX_RATIO * size):
        raise UnreadableImage(
            f"expected a zip archive of at most {MAX_UNPACKED_BYTES} bytes inside, and {MAX_RATIO:g} times its own "
            f"size, got more ({size} bytes of archive)",
            _MEND,
        )


def _extract(archive: zipfile.ZipFile, entries: list[zipfile.ZipInfo], room: Path) -> None:
    size = Path(str(archive.filename)).stat().st_size
    total = 0
    for entry in entries:
        target = room.joinpath(*PurePosixPath(entry.filename).parts)
        target.parent.mkdir(parents=True, exist_ok=True)
        with archive.open(entry) as stream, target.open("xb") as out:
            while block := stream.read(_BLOCK):
                total += len(block)
                _check_total(total, size)
                out.write(block)


def _inner(folder: Path) -> Path:
    """Past the single folder that most archives wrap around their files, to a file that is alone."""
    inside = [folder]
    while len(inside) == 1:
        folder = inside[0]
        inside = list(folder.iterdir()) if folder.is_dir() else []
    return folder


def _too_many(got: str) -> UnreadableImage:
    return UnreadableImage(f"expected a zip archive of at most {MAX_ENTRIES} entries, got {got}", _MEND)
