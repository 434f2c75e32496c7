"""Run as a script, in a process of its own: read a NRRD or MetaImage file by SimpleITK.

Reads ``{path, reader, index, most}`` as JSON from standard input; writes one block (see ``child``): geometry and sizes
in the header, and float32 values, the component last, where the size allows and the index says which. It imports
nothing of Pellucid, so that it starts fast.
"""

import contextlib
import json
import math
import os
import struct
import sys
from typing import Any

_MEMORY_BYTES = 12 << 30  # of address space: the image itself may have 2 GiB, twice


def main() -> None:
    """Answer the request."""
    with contextlib.suppress(ImportError):  # not on Windows, where only the clock limits it
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core dump would hold the patient's image
    with os.fdopen(os.dup(1), "wb") as out:
        os.dup2(2, 1)  # what C libraries print must not mix with the values
        try:
            import SimpleITK
        except ImportError:
            sys.exit(3)
        header, values = _read(SimpleITK, json.load(sys.stdin))
        encoded = json.dumps(header).encode()
        out.write(struct.pack("<I", len(encoded)) + encoded)
        out.write(values)


def _read(itk: Any, request: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
    itk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    reader = itk.ImageFileReader()
    reader.SetImageIO(request["reader"])
    reader.SetFileName(request["path"])
    reader.ReadImageInformation()
    size, components = [int(n) for n in reader.GetSize()], int(reader.GetNumberOfComponents())
    header = {
        "size": size,
        "components": components,
        "spacing": list(reader.GetSpacing()),
        "direction": list(reader.GetDirection()),
        "origin": list(reader.GetOrigin()),
        "type": itk.GetPixelIDValueAsString(reader.GetPixelID()),
        "bytes": 0,
    }
    volumes = size[3] if len(size) > 3 else 1
    index = request["index"] if request["index"] is not None else 0
    fits = len(size) <= 4 and components * math.prod(size) <= request["most"]
    if not fits or not 0 <= index < max(volumes, components) or "complex" in header["type"]:
        return header, b""
    if len(size) == 4:
        reader.SetExtractSize([*size[:3], 0])
        reader.SetExtractIndex([0, 0, 0, index if volumes > 1 else 0])
    image = reader.Execute()  # a view of an image that nobody holds shows what came after it
    values = itk.GetArrayViewFromImage(image).astype("<f4").tobytes()
    return {**header, "bytes": len(values)}, values


if __name__ == "__main__":
    main()
