"""Run as a script, in a process of its own: decode frames of a video by OpenCV and the ffmpeg in its wheel.

Reads ``{path, frames, most}`` as JSON from standard input; writes one block (see ``child``) with what the file says of
itself, one for each frame that was asked for, one with the number of the first damaged frame, where there is one, and a
last one with how many frames came before that or the end. Frames are decoded from the first one on: a seek lands on key
frames. It imports nothing of Pellucid, so that it starts fast.
"""

import contextlib
import json
import os
import struct
import sys
import tempfile
from typing import Any, BinaryIO

_MEMORY_BYTES = 12 << 30
# a playlist may name other files and addresses; a damaged frame must fail, and not be patched up from its neighbors
_FORMATS = "mov,avi,matroska,mpeg,mpegts,mpegvideo,h264,hevc"
_OPTIONS = f"protocol_whitelist;file|format_whitelist;{_FORMATS}|err_detect;explode"


def main() -> None:
    """Answer the request."""
    with contextlib.suppress(ImportError):  # not on Windows, where only the clock limits it
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core dump would hold the patient's image
    os.environ["OPENCV_FFMPEG_CAPTURE_OPTIONS"] = _OPTIONS
    with os.fdopen(os.dup(1), "wb") as out, tempfile.TemporaryFile() as complaints:
        os.dup2(complaints.fileno(), 1)  # what C libraries print must not mix with the pixels
        os.dup2(complaints.fileno(), 2)  # and is the only sign that a frame was patched up
        try:
            import cv2
        except ImportError:
            sys.exit(3)
        _decode(cv2, json.load(sys.stdin), out, complaints.fileno())


def _decode(cv2: Any, request: dict[str, Any], out: BinaryIO, complaints: int) -> None:
    video = cv2.VideoCapture(request["path"], cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
    if not video.isOpened():
        return
    video.set(cv2.CAP_PROP_ORIENTATION_AUTO, 0)  # the parent turns it, and says so
    about = {
        "width": int(video.get(cv2.CAP_PROP_FRAME_WIDTH)),
        "height": int(video.get(cv2.CAP_PROP_FRAME_HEIGHT)),
        "declared": int(video.get(cv2.CAP_PROP_FRAME_COUNT)),
        "fps": float(video.get(cv2.CAP_PROP_FPS)),
        "turn": int(video.get(cv2.CAP_PROP_ORIENTATION_META)),
        "codec": int(video.get(cv2.CAP_PROP_FOURCC)),
    }
    _write(out, about)
    wanted = set(request["frames"])
    if not wanted or about["width"] * about["height"] * 3 * len(wanted) > request["most"]:
        return
    number, before = 0, os.fstat(complaints).st_size
    while number <= max(wanted) and video.grab():
        if os.fstat(complaints).st_size > before:  # later frames are made from this one
            _write(out, {"damaged": number})
            break
        if number in wanted:
            good, frame = video.retrieve()
            if not good or frame.dtype != "uint8" or frame.ndim != 3:
                break
            shape = {"frame": number, "shape": frame.shape, "ms": float(video.get(cv2.CAP_PROP_POS_MSEC))}
            _write(out, shape, cv2.cvtColor(frame, cv2.COLOR_BGR2RGB).tobytes())
        number += 1
    _write(out, {"seen": number})


def _write(out: BinaryIO, header: dict[str, Any], payload: bytes = b"") -> None:
    encoded = json.dumps({**header, "bytes": len(payload)}).encode()
    out.write(struct.pack("<I", len(encoded)) + encoded + payload)


if __name__ == "__main__":
    main()
