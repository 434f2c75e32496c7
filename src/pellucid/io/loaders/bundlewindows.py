"""The sliding windows of a MONAI bundle, as its ``inference`` configuration names them."""

from collections.abc import Mapping
from typing import Any

from pellucid.core.errors import BadOption
from pellucid.core.windows import SlidingWindows
from pellucid.io.loaders.bundleconfig import plain

_MODES = ("gaussian", "constant")
_PADDINGS = ("constant", "reflect", "replicate", "circular")


def bundle_windows(inference: Mapping[str, Any], notes: list[str]) -> SlidingWindows | None:
    """The bundle's ``SlidingWindowInferer``; None where it has another, or one that cannot be repeated, which is noted.

    Args:
        inference: the configuration, as plain data.
        notes: doubts, added to.
    """
    inferer = inference.get("inferer")
    name = str(inferer.get("_target_", "")).rpartition(".")[2] if isinstance(inferer, Mapping) else ""
    if not name.startswith("SlidingWindowInferer"):
        return None
    said: dict[str, Any] = {k: plain(inference, v) for k, v in dict(inferer or {}).items()}
    size, overlap = said.get("roi_size"), said.get("overlap", 0.25)
    mode: Any = str(said.get("mode", "constant")).lower()
    padding: Any = str(said.get("padding_mode", "constant")).lower()
    sigma, value = said.get("sigma_scale", 0.125), said.get("cval", 0.0)
    lengths = isinstance(size, list) and all(isinstance(n, int) and n > 0 for n in size)
    shares = all(isinstance(o, int | float) for o in (overlap if isinstance(overlap, list) else [overlap]))
    numbers = isinstance(sigma, int | float) and isinstance(value, int | float)
    if not (lengths and shares and numbers and mode in _MODES and padding in _PADDINGS):
        notes.append(f"the bundle's sliding windows ({size}, overlap {overlap}, {mode}) are not plain: left out")
        return None
    share = tuple(map(float, overlap)) if isinstance(overlap, list) else float(overlap)
    try:
        return SlidingWindows(tuple(size), share, mode, float(sigma), padding, float(value))
    except BadOption as error:
        notes.append(f"the bundle's sliding windows are left out: {error.problem}")
        return None
