"""Who an object is: a key of what made the map, and UIDs that follow from it and from the object's own bytes."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import dcmwrite, write_dataset

from pellucid.core.atomic import write_bytes
from pellucid.core.explanation import Provenance

_MAKING = (
    "input_digest", "model", "model_digest", "card_digest", "target", "method", "settings", "layer", "infill", "seed",
    "precision", "engine", "versions",
)  # fmt: skip
_PIXELS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
_OWN = ("SOPInstanceUID", "SeriesInstanceUID", "DimensionOrganizationUID")
_CLOCK = ("InstanceCreationDate", "InstanceCreationTime", "ContributionDateTime", "SeriesDate", "SeriesTime")
_UUID_BYTES = 16  # a UID under 2.25 is the decimal of 128 bits
_IMPLEMENTATION = "2.25.176021318117432180354620517263014127893"
_PREAMBLE = bytes(128)


def content_key(made: Provenance) -> str:
    """SHA-256 of what made a map: input, model, card, target, method, settings, seed, precision, engine, versions.

    Equal keys mean the same question asked of the same pixels. Nothing about the patient goes in, nor a time, a
    device or a duration: the same explanation made again tomorrow has the same key.
    """
    plain = made.plain()
    return digest_of({name: plain[name] for name in _MAKING})


def canonical(content: Mapping[str, Any]) -> str:
    """JSON in one spelling: sorted, without spaces, ASCII only."""
    return json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)


def digest_of(content: Mapping[str, Any]) -> str:
    """SHA-256 of the canonical JSON."""
    return hashlib.sha256(canonical(content).encode()).hexdigest()


def stamp(dataset: Dataset, key: str, kind: str) -> Dataset:
    """Give a finished object its UIDs: the same bytes get the same UID wherever and whenever they are written.

    Each UID is 2.25 and 128 bits of a SHA-256 over the key, the kind and the encoded object without its own UIDs.
    Times of writing are taken out first; those that the standard demands must already be the source's (``marks``).
    To be called last: a change afterwards would leave the UID of another object.

    Args:
        dataset: complete but for its UIDs; changed in place.
        key: of ``content_key``.
        kind: of object, such as ``pm``.

    Returns:
        The same data set.
    """
    for part in _parts(dataset):
        _give_lengths(part)
        for keyword in _CLOCK:
            if keyword in part:
                delattr(part, keyword)
    _set_uids(dataset, dict.fromkeys(_OWN, "2.25.0"))
    total = hashlib.sha256(f"{key}\n{kind}\n{dataset.file_meta.TransferSyntaxUID}\n".encode())
    _hash_into(total, dataset)
    own = {name: uid_of(total.hexdigest(), name) for name in _OWN}
    _set_uids(dataset, own)
    return dataset


def uid_of(*parts: str) -> str:
    """A UID under 2.25 from 128 bits of the SHA-256 of some texts.

    Example:
        >>> uid_of("a", "b") == uid_of("a", "b"), uid_of("a", "b") == uid_of("ab"), uid_of("a")[:5]
        (True, False, '2.25.')
    """
    found = hashlib.sha256("\n".join(parts).encode()).digest()
    return f"2.25.{int.from_bytes(found[:_UUID_BYTES], 'big')}"


def encode(dataset: Dataset) -> bytes:
    """The object as a DICOM file, with a preamble of zeros: what a foreign preamble holds could be run as a program."""
    stream = BytesIO()
    meta = dataset.file_meta
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = dataset.SOPClassUID, dataset.SOPInstanceUID
    meta.ImplementationClassUID, meta.ImplementationVersionName = _IMPLEMENTATION, "PELLUCID"
    dataset.preamble = _PREAMBLE
    dcmwrite(stream, dataset, enforce_file_format=True)
    return stream.getvalue()


def write_object(dataset: Dataset, path: Path) -> Path:
    """Write a stamped object whole or not at all.

    Raises:
        UnwritableOutput: the folder cannot be written.
    """
    return write_bytes(path, encode(dataset))


def _parts(dataset: Dataset) -> Iterator[Dataset]:
    """The data set and every item of its sequences."""
    yield dataset
    for element in dataset:
        if element.VR == "SQ":
            for item in element.value:
                yield from _parts(item)


def _give_lengths(part: Dataset) -> None:
    """Sequences with their lengths: what a source left open an archive may close, and the bytes would be others."""
    part.is_undefined_length_sequence_item = False
    for element in part:
        if element.VR == "SQ":
            element.is_undefined_length = False


def _set_uids(dataset: Dataset, uids: Mapping[str, str]) -> None:
    """Only where the object has them; a reference to the source's series keeps its own."""
    places = (dataset, *dataset.get("DimensionOrganizationSequence", ()), *dataset.get("DimensionIndexSequence", ()))
    for place in places:
        for keyword, uid in uids.items():
            if keyword in place:
                setattr(place, keyword, uid)
    dataset.file_meta.MediaStorageSOPInstanceUID = uids["SOPInstanceUID"]


def _hash_into(total: "hashlib._Hash", dataset: Dataset) -> None:
    """The encoded data set without its pixels, then the pixels as they lie in memory: they are not copied."""
    pixels = [dataset[name] for name in _PIXELS if name in dataset]
    for element in pixels:
        del dataset[element.tag]
    stream = DicomBytesIO()
    stream.is_little_endian, stream.is_implicit_VR = True, False
    try:
        write_dataset(stream, dataset)
        total.update(stream.getvalue())
    finally:
        for element in pixels:
            dataset.add(element)
    for element in pixels:
        total.update(f"{element.tag}".encode())
        total.update(element.value)
