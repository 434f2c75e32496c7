"""Mutated DICOM, archives and indexes: whatever comes in, a reading or one of our errors, in bounded time and memory.

Run by ``make fuzz`` (``make fuzz SECONDS=3600``), and for a minute by an integration test. Each case follows from a
seed and its number, so that a finding can be made again: ``python tests/fuzz/headers.py --seed 0 --only 1234``. A
crash is any other exception, a process that ends, 5 s of processor time, 1 GB of memory, or the patient's name in a
message.
"""

import argparse
import io
import json
import logging
import resource
import signal
import struct
import subprocess
import sys
import tempfile
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pydicom
from numpy.random import Generator
from pydicom.data import get_testdata_file
from pydicom.fileset import FileSet
from pydicom.uid import DeflatedExplicitVRLittleEndian, RLELossless

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from pellucid.core.errors import PellucidError
from pellucid.io.reader import Failure, iter_cases, survey_study
from pellucid.io.selection import Choosing, candidates
from tests.io.conftest import IDENTITY, NAME, Phantom

MOST_SECONDS, MOST_BYTES = 5.0, 2**30
CANARY = ("CANARYNAME", "ZEBRA", IDENTITY)
PACKAGED = (
    *("CT_small.dcm", "MR_small.dcm", "MR_small_RLE.dcm", "MR_small_jp2klossless.dcm", "SC_rgb_small_odd_jpeg.dcm"),
    *("emri_small.dcm", "JPGLosslessP14SV1_1s_1f_8b.dcm", "liver_1frame.dcm", "reportsi.dcm"),
)
VALUES = (
    *(b"", b"\0", b"\0" * 64, b"0", b"-1", b"nan", b"inf", b"-inf", b"1e308", b"1e-308", b"9" * 64, b"0x10", b" "),
    *(b"\\" * 8, b"1\\", b"1\\2\\3\\4\\5\\6\\7", b"../../etc/passwd", b"\xff" * 16, b"20201301"),
    *(struct.pack("<H", n) for n in (0, 1, 2, 8, 255, 32767, 65535)),
    *(struct.pack("<I", n) for n in (0, 2**31 - 1, 2**31, 2**32 - 1)),
)
LENGTHS = (0, 1, 3, 7, 65535, 2**31 - 1, 2**32 - 2, 2**32 - 1)
LONG = frozenset({b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"})


class TooSlow(BaseException):
    """Not an ``Exception``: the guard around decoders must not make one of our errors of it."""


def elements(content: bytes) -> list[tuple[int, int, int]]:
    """Where each element of explicit little-endian begins, its value begins, and its length; also inside sequences."""
    found, at = [], 132 if content[128:132] == b"DICM" else 0
    while at + 8 <= len(content):
        if content[at : at + 2] == b"\xfe\xff":  # items and delimiters
            at += 8
            continue
        kind = content[at + 4 : at + 6]
        if not (kind.isalpha() and kind.isupper()):
            break
        wide = kind in LONG
        if at + 12 > len(content):
            break
        length = struct.unpack_from("<I" if wide else "<H", content, at + (8 if wide else 6))[0]
        start = at + (12 if wide else 8)
        found.append((at, start, length))
        at = start if kind == b"SQ" or length == 2**32 - 1 else start + length
    return found


def another_value(content: bytearray, rng: Generator) -> bytearray:
    """A hostile value in one element, its length corrected."""
    known = elements(bytes(content))
    if not known:
        return flipped(content, rng)
    at, start, length = known[int(rng.integers(len(known)))]
    value = VALUES[int(rng.integers(len(VALUES)))]
    value += b" " * (len(value) % 2)
    if length == 2**32 - 1 or length > len(content):
        return flipped(content, rng)
    wide = bytes(content[at + 4 : at + 6]) in LONG
    struct.pack_into("<I" if wide else "<H", content, at + (8 if wide else 6), len(value))
    return content[:start] + value + content[start + length :]


def another_length(content: bytearray, rng: Generator) -> bytearray:
    """A length that lies."""
    known = elements(bytes(content))
    if not known:
        return flipped(content, rng)
    at, _, _ = known[int(rng.integers(len(known)))]
    length = LENGTHS[int(rng.integers(len(LENGTHS)))]
    wide = bytes(content[at + 4 : at + 6]) in LONG
    struct.pack_into("<I" if wide else "<H", content, at + (8 if wide else 6), length if wide else length & 0xFFFF)
    return content


def without(content: bytearray, rng: Generator) -> bytearray:
    """One element fewer, or one twice."""
    known = [(at, start + length) for at, start, length in elements(bytes(content)) if length < len(content)]
    if not known:
        return flipped(content, rng)
    at, stop = known[int(rng.integers(len(known)))]
    return content[:at] + content[at:stop] * (2 * int(rng.integers(2))) + content[stop:]


def flipped(content: bytearray, rng: Generator) -> bytearray:
    """Some bytes of the header anew."""
    low = 0 if rng.random() < 0.1 else min(132, len(content) - 1)
    for place in rng.integers(low, min(len(content), 4000), int(rng.integers(1, 8))):
        content[place] = int(rng.integers(256))
    return content


def cut(content: bytearray, rng: Generator) -> bytearray:
    """The beginning."""
    return content[: int(rng.integers(1, max(2, len(content))))]


MUTATIONS: tuple[Callable[[bytearray, Generator], bytearray], ...] = (
    *(another_value, another_value, another_length, without, flipped, cut),
)


def saved(data: pydicom.Dataset) -> bytes:
    stream = io.BytesIO()
    data.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def corpus(room: Path) -> list[dict[str, bytes]]:
    """Files by name; one that is alone is given as a file, several as a folder."""
    made = Phantom(shape=(4, 16, 20), bright=(1, 3, 15))
    stack = {f"{k}": saved(data) for k, data in enumerate(made.datasets())}
    pet = {f"{k}": saved(data) for k, data in enumerate(made.datasets(modality="PT"))}
    single = Phantom(shape=(1, 16, 20), bright=(0, 3, 15)).datasets()[0]
    film = Phantom(shape=(1, 16, 20), bright=(0, 3, 15)).datasets()[0]
    film.Modality, film.ImageLaterality, film.PatientOrientation = "MG", "L", ["A", "F"]
    del film.ImagePositionPatient
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in stack.items():
            archive.writestr(f"a/{name}", content)
    found = [stack, stack, pet, {"film": saved(film)}, {"x.zip": packed.getvalue()}, disk(made, room)]
    for syntax in (None, DeflatedExplicitVRLittleEndian, RLELossless):
        if syntax == RLELossless:
            single.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.1"
            single.compress(RLELossless, generate_instance_uid=False)
        elif syntax is not None:
            single.file_meta.TransferSyntaxUID = syntax
        found.append({"single": saved(single)})
    paths = (get_testdata_file(name, download=False) for name in PACKAGED)
    return found + [{"file": Path(path).read_bytes()} for path in paths if path is not None]


def disk(made: Phantom, room: Path) -> dict[str, bytes]:
    files = FileSet()
    for data in made.datasets():
        data.PatientID, data.PatientName, data.StudyID = IDENTITY, NAME, "1"
        files.add(data)
    files.write(room)
    files._stage["t"].cleanup()
    return {"DICOMDIR": (room / "DICOMDIR").read_bytes()}


def tried(files: dict[str, bytes], rng: Generator, room: Path) -> str:
    """Mutate, write, read; what came of it."""
    name = sorted(files)[int(rng.integers(len(files)))]
    content = bytearray(files[name])
    for _ in range(int(rng.integers(1, 4))):
        if content:
            content = MUTATIONS[int(rng.integers(len(MUTATIONS)))](content, rng)
    for other, whole in files.items():
        (room / other).write_bytes(bytes(content) if other == name else whole)
    path = room if len(files) > 1 else room / name
    choosing = Choosing(number=1 if rng.random() < 0.2 else None, resample=bool(rng.random() < 0.3))
    said: list[str] = []
    try:
        said.extend(
            str(found.error) if isinstance(found, Failure) else repr(found.images["image"].traits)
            for found in iter_cases(path, index=0 if rng.random() < 0.3 else None, choosing=choosing)
        )
        outcome = "read"
    except PellucidError as error:
        said.append(str(error))
        outcome = "refused"
    try:
        said += [one.title + one.nature + one.problem for one in candidates(survey_study(path))]
    except PellucidError as error:
        said.append(str(error))
    leak = [part for part in CANARY for line in said if part in line]
    return f"crash: a message with {leak[0]}" if leak else outcome


def child(seed: int, numbers: Iterator[int], seconds: float, log: Path) -> None:
    """Cases one after the other; the number of each is written down before it begins."""
    logging.disable(logging.CRITICAL)
    signal.signal(signal.SIGPROF, stop)
    with tempfile.TemporaryDirectory() as outer:
        (Path(outer) / "disk").mkdir()
        seeds = corpus(Path(outer) / "disk")
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        ends = time.monotonic() + seconds
        with log.open("a") as stream:
            for number in numbers:
                if time.monotonic() > ends:
                    return
                stream.write(json.dumps({"begun": number}) + "\n")
                stream.flush()
                outcome = one(seeds, seed, number, before)
                stream.write(json.dumps({"number": number, "outcome": outcome}) + "\n")


def one(seeds: list[dict[str, bytes]], seed: int, number: int, before: int) -> str:
    rng = np.random.default_rng([seed, number])
    with tempfile.TemporaryDirectory() as folder:
        signal.setitimer(signal.ITIMER_PROF, MOST_SECONDS)
        try:
            outcome = tried(seeds[int(rng.integers(len(seeds)))], rng, Path(folder))
        except TooSlow:
            outcome = f"crash: more than {MOST_SECONDS} s"
        except Exception as error:  # what is looked for
            outcome = f"crash: {type(error).__name__}: {error}"
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
    grown = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    return f"crash: {grown} bytes of memory" if grown > MOST_BYTES else outcome


def stop(*_: object) -> None:
    raise TooSlow


def run(seed: int, seconds: float) -> tuple[Counter[str], list[tuple[int, str]]]:
    """Children until the time is over: one that ends is a finding, and the next goes on behind it.

    Returns:
        How many cases were read or refused, and the crashes by their number.
    """
    counts: Counter[str] = Counter()
    crashes: list[tuple[int, str]] = []
    ends, start = time.monotonic() + seconds, 0
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        while (left := ends - time.monotonic()) > 0:
            log.write_text("")
            words = ["--seed", str(seed), "--child", str(start), str(log), "--seconds", str(left)]
            done = subprocess.run([sys.executable, __file__, *words], check=False)
            lines = [json.loads(line) for line in log.read_text().splitlines()]
            results = {line["number"]: line["outcome"] for line in lines if "number" in line}
            begun = [line["begun"] for line in lines if "begun" in line]
            if done.returncode and (not begun or begun[-1] in results):
                raise RuntimeError(f"the fuzzer itself ended with {done.returncode}")
            if done.returncode:
                results[begun[-1]] = f"crash: the process ended with {done.returncode}"
            counts.update(r.partition(":")[0] for r in results.values())
            crashes += [(n, r) for n, r in results.items() if r.startswith("crash")]
            start = (begun[-1] + 1) if begun else start
    return counts, crashes


def main() -> int:
    """Fuzz, and say what was found; 1 where anything was."""
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--seconds", type=float, default=60.0)
    asked.add_argument("--seed", type=int, default=0)
    asked.add_argument("--only", type=int)
    asked.add_argument("--child", nargs=2)
    given = asked.parse_args()
    if given.child:
        start, log = given.child
        child(given.seed, iter(range(int(start), 2**31)), given.seconds, Path(log))
        return 0
    if given.only is not None:
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "disk").mkdir()
            seeds = corpus(Path(folder) / "disk")
            rng = np.random.default_rng([given.seed, given.only])
            sys.stdout.write(tried(seeds[int(rng.integers(len(seeds)))], rng, Path(folder)) + "\n")
        return 0
    counts, crashes = run(given.seed, given.seconds)
    sys.stdout.write(f"{counts['read']} read, {counts['refused']} refused, {len(crashes)} crashes\n")
    for number, words in crashes[:20]:
        sys.stdout.write(f"--seed {given.seed} --only {number}: {words}\n")
    return 1 if crashes else 0


if __name__ == "__main__":
    sys.exit(main())
