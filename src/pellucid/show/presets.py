"""Windows that a reader calls by a key: the report's first, then those of the modality."""

import tomllib
from functools import cache
from importlib import resources
from typing import Any

import numpy as np

from pellucid.core.image import Image
from pellucid.show.raster import is_color, window_of

Preset = tuple[str, float, float]
_MOST = 9  # keys 1 to 9
_UNITS = {"ct": "HU", "pet": "SUV"}
_NARROW = (5.0, 95.0)


def presets(image: Image) -> tuple[Preset, ...]:
    """Name, black and white of each window, for keys 1 to 9.

    Conventional windows only where the unit is the modality's (HU, SUV); elsewhere the whole range and a narrow one.
    A color image has none: it is drawn as stored.
    """
    if is_color(image):
        return ()
    first = window_of(image)
    found: list[Preset] = [("as in the report", first.low, first.high)]
    table = _table().get(str(image.modality), {})
    if table and _UNITS[str(image.modality)] in image.unit.upper():
        found += [(name, w["center"] - w["width"] / 2, w["center"] + w["width"] / 2) for name, w in table.items()]
    else:
        values = image.data[0].detach().cpu().float().numpy()
        sample = values.ravel()[:: max(1, values.size // 500_000)]
        found.append(("whole range", float(values.min()), float(values.max())))
        found.append(("narrow (percentiles 5 to 95)", *(float(v) for v in np.percentile(sample, _NARROW))))
    return tuple(p for p in found if p[2] > p[1])[:_MOST]


@cache
def _table() -> dict[str, dict[str, dict[str, float]]]:
    read: dict[str, Any] = tomllib.loads(resources.files("pellucid.show").joinpath("windows.toml").read_text("utf-8"))
    return {name: row for name, row in read.items() if isinstance(row, dict)}
