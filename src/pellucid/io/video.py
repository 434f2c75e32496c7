"""Frames of a video, each as a picture: decoded in order by a process of its own, so that the number is the frame."""

from collections.abc import Sequence
from math import isfinite
from pathlib import Path

import numpy as np
import torch

from pellucid.core.errors import BadOption, UnreadableImage
from pellucid.core.grid import Grid
from pellucid.core.image import Image, Modality
from pellucid.io import guard
from pellucid.io.child import START_SECONDS, Block, ask
from pellucid.io.formats import Format
from pellucid.io.guard import check_values, reading

_AGAIN = "copy or export the video again"
_SECONDS_PER_FRAME = 0.05
_MOST_FRAMES = 500_000  # five and a half hours at 25 a second
_LOSSLESS = {"FFV1", "HFYU", "FFVH", "RAW ", "\0\0\0\0"}
_TURNS = {0: 0, 90: 3, 180: 2, 270: 1}  # quarters against the clock that put it upright


def read_video(path: Path, modality: Modality | None = None, index: int | None = None) -> Image:
    """One frame of a video, as RGB in [0, 1] and in pixels.

    Args:
        path: of the file.
        modality: what made the images.
        index: of the frame, from 0.

    Raises:
        UnreadableImage: damaged at or before the frame, cut short, or too large.
        BadOption: no index, or a frame that the video does not have.
        MissingExtra: OpenCV is not installed.
    """
    return read_frames(path, [index], modality)[0] if index is not None else _refuse(path)


def read_frames(path: Path, frames: Sequence[int], modality: Modality | None = None) -> list[Image]:
    """Several frames of a video, decoded in one go from its first.

    A frame that its decoder complains of, and all after it, are refused: ffmpeg fills holes from frames before, and
    numbers would slip. VP8 and others without checksums show no damage. A turn that the file states is applied;
    interlaced fields stay woven, since the file does not say in a way that could be trusted.

    Args:
        path: of the file.
        frames: numbers from 0, rising.
        modality: what made the images.

    Returns:
        One image each; ``traits`` say the frame, its time in seconds, frames a second and the turn.

    Raises:
        UnreadableImage: as ``read_video``.
        BadOption: a frame that the video does not have.
    """
    if min(frames) < 0 or max(frames) >= _MOST_FRAMES:
        raise BadOption(f"expected frames from 0 to {_MOST_FRAMES - 1}, got {max(frames)}", "cut the video")
    with reading("a complete video", _AGAIN):
        about, blocks = _ask(path, frames)
        found = {int(b.header["frame"]): b for b in blocks if "frame" in b.header}
        absent = [number for number in frames if number not in found]
        if absent:
            raise _short(absent[0], blocks, int(about["declared"]))
        return [_image(found[number], about, modality) for number in frames]


def _ask(path: Path, frames: Sequence[int]) -> tuple[dict[str, float], list[Block]]:
    request = {"path": str(path.resolve()), "frames": list(frames), "most": guard.MAX_VALUES}
    seconds = START_SECONDS + _SECONDS_PER_FRAME * (max(frames, default=0) + 1)
    blocks = ask("videochild.py", request, seconds, "opencv-python-headless formats")
    if not blocks:
        raise UnreadableImage("expected a complete video, got damaged or incomplete data", _AGAIN)
    about = blocks[0].header
    check_values((int(about["width"]), int(about["height"]), 3, max(1, len(frames))), "frames of a video")
    return about, blocks[1:]


def _refuse(path: Path) -> Image:
    with reading("a complete video", _AGAIN):
        about, _ = _ask(path, [])
    count, rate = int(about["declared"]), float(about["fps"])
    told = f"{count} frames, {rate:g} a second" if count > 0 and isfinite(rate) else "frames"
    raise BadOption(
        f"expected one frame, got a video ({told}, as its header says)",
        "choose one by its number from 0, or several: START:STOP:STEP",
    )


def _short(wanted: int, blocks: list[Block], declared: int) -> UnreadableImage | BadOption:
    """Why a frame did not come: damage, the end, or an end before what the header declares."""
    damaged = next((int(b.header["damaged"]) for b in blocks if "damaged" in b.header), None)
    seen = next((int(b.header["seen"]) for b in blocks if "seen" in b.header), None)
    if damaged is not None:
        return UnreadableImage(
            f"expected frame {wanted}, got a video that is damaged at frame {damaged}",
            f"{_AGAIN}, or take a frame before that one",
        )
    if seen is None:
        return UnreadableImage(f"expected frame {wanted}, got a decoder that ended before it", _AGAIN)
    if wanted < declared:
        return UnreadableImage(
            f"expected frame {wanted}, got a video that ends after {seen} frames and declares {declared}", _AGAIN
        )
    return BadOption(f"expected a frame from 0 to {seen - 1}, got {wanted}", "choose a frame that exists")


def _image(block: Block, about: dict[str, float], modality: Modality | None) -> Image:
    pixels = np.frombuffer(block.payload, np.uint8).reshape(block.header["shape"])
    turn = int(about["turn"]) % 360
    if turn not in _TURNS:
        raise UnreadableImage(f"expected a video turned by quarters, got {turn} degrees", "save it upright")
    upright = np.ascontiguousarray(np.moveaxis(np.rot90(pixels, _TURNS[turn]), -1, 0))
    data = torch.from_numpy(upright).to(torch.float32) / 255
    codec = int(about["codec"]).to_bytes(4, "little", signed=False).decode("latin-1").upper()
    traits: dict[str, str | float] = {
        "format": str(Format.VIDEO),
        "lossy": "no" if codec in _LOSSLESS else "yes",
        "photometric": "RGB",
        "frame": float(block.header["frame"]),
        "turned_deg": float(turn),
    }
    if block.header["ms"] > 0 or block.header["frame"] == 0:  # the last frame of an MPEG stream has no time
        traits["time_s"] = round(float(block.header["ms"]) / 1000, 4)
    if isfinite(about["fps"]) and about["fps"] > 0:
        traits["fps"] = round(float(about["fps"]), 4)
    return Image(data, Grid.regular(tuple(data.shape[1:])), modality or Modality.UNKNOWN, "[0,1]", traits=traits)
