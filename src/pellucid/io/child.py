"""A process of its own for decoders that a hostile file can end, stall or fill the memory with."""

import json
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from pellucid.core.errors import MissingExtra, UnreadableImage

START_SECONDS = 20.0
VALUES_PER_SECOND = 1e6
_ABSENT = 3  # exit code of a child whose decoder is not installed


class Block(NamedTuple):
    """One answer of a child.

    Args:
        header: what it says, as JSON types.
        payload: the bytes that belong to it.
    """

    header: dict[str, Any]
    payload: bytes


def ask(script: str, request: object, seconds: float, needs: str = "") -> list[Block]:
    """Run a script of this room in a process of its own, and return the blocks that it wrote before it ended.

    A block is four bytes (the length of the header, little-endian), a JSON header with the key ``bytes``, and as many
    bytes. What the decoder prints is dropped: it quotes header values.

    Args:
        script: file name beside this one.
        request: sent to it as JSON.
        seconds: after which it is stopped.
        needs: ``PACKAGE EXTRA`` of the optional package that it imports, where it does.

    Raises:
        UnreadableImage: it did not end in time.
        MissingExtra: its decoder is not installed.
    """
    try:
        done = subprocess.run(
            [sys.executable, "-I", str(Path(__file__).with_name(script))],
            input=json.dumps(request).encode(),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise UnreadableImage(
            f"expected pixels that decode within {seconds:.0f} s, got some that do not",
            "export the image again, or uncompressed",
        ) from None
    if done.returncode == _ABSENT and needs:
        package, extra = needs.split()
        raise MissingExtra(
            f"reading this file needs the package {package}, which is not installed",
            f"pip install 'pellucid[{extra}]'",
        )
    return list(_blocks(done.stdout))


def _blocks(content: bytes) -> Iterator[Block]:
    """Whole blocks only: a child that died left the last one unfinished."""
    at = 0
    while len(content) >= at + 4:
        start = at + 4 + struct.unpack_from("<I", content, at)[0]
        if len(content) < start:
            return
        header = json.loads(content[at + 4 : start])
        at = start + int(header["bytes"])
        if len(content) < at:
            return
        yield Block(header, content[start:at])
