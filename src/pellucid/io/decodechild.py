"""Run as a script, in a process of its own: decode what may end or stall the process that decodes it.

Reads ``[[path, decoder], ...]`` as JSON from standard input; writes for each file the length of a JSON header (4 bytes,
little-endian), the header and the pixels. It imports nothing of Pellucid, so that it starts fast.
"""

import contextlib
import json
import os
import struct
import sys

from pydicom import dcmread

_MEMORY_BYTES = 12 << 30  # of address space: the image itself may have 2 GiB


def main() -> None:
    """Decode every file of the request, in order; the first that fails ends it."""
    with contextlib.suppress(ImportError):  # not on Windows, where only the clock limits it
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core dump would hold the patient's image
    with os.fdopen(os.dup(1), "wb") as out:
        os.dup2(2, 1)  # what C libraries print must not mix with the pixels
        for path, decoder in json.load(sys.stdin):
            dataset = dcmread(path, force=True)
            dataset.decompress(decoding_plugin=decoder, generate_instance_uid=False)
            header = {
                "bytes": len(dataset.PixelData),
                "photometric": str(dataset.PhotometricInterpretation),
                "planar": dataset.get("PlanarConfiguration"),
            }
            encoded = json.dumps(header).encode()
            out.write(struct.pack("<I", len(encoded)) + encoded)
            out.write(dataset.PixelData)
            out.flush()


if __name__ == "__main__":
    main()
