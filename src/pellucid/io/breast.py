"""Mammograms: the side and view that their headers state must agree with each other, and with where the breast lies."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from pellucid.core.errors import UnreadableImage
from pellucid.io.dicomfacts import values_of

# ViewCodeSequence, PS3.16 CID 4014, by SNOMED CT and by the older SRT: what ViewPosition writes
_VIEWS = {
    **dict.fromkeys(("399162004", "R-10242"), "CC"),
    **dict.fromkeys(("399368009", "R-10226"), "MLO"),
    **dict.fromkeys(("399260004", "R-10224"), "ML"),
    **dict.fromkeys(("399352003", "R-10228"), "LM"),
    **dict.fromkeys(("399099002", "R-10230"), "LMO"),
}
_EDGE = 0.2  # of the width: the chest wall's side is full of breast there, the other is air
_BRIGHT = 0.15  # of the range of values above the darkest
_FULLER = 3.0  # times as much breast at one edge as at the other, to call it the chest wall's
_LEAST = 0.1  # of an edge


def check_breast(header: Dataset, pixels: NDArray[Any]) -> dict[str, str | float]:
    """What a mammogram's header says of side and view, compared with itself and with the picture.

    The chest wall lies where the breast fills the edge of the image. PatientOrientation says on which side that must
    be; where it is absent, the usual hanging (left breast with its chest wall at the left) only raises a doubt. Bad at:
    raw images (FOR PROCESSING), implants and magnified views, where the edges decide nothing and nothing is said.

    Args:
        header: of the object.
        pixels: "row column", larger is brighter as displayed.

    Returns:
        ``view``, ``laterality`` where they are stated, and ``doubt`` in words.

    Raises:
        UnreadableImage: statements that contradict each other, or the picture.
    """
    side = _agreed("sides", [header.get("ImageLaterality"), header.get("Laterality")], ("L", "R"))
    codes = [item.get("CodeValue", "") for item in header.get("ViewCodeSequence") or ()]
    coded = [_VIEWS[str(code)] for code in codes if str(code) in _VIEWS]
    view = _agreed("views", [header.get("ViewPosition"), *coded], tuple(_VIEWS.values()))
    found: dict[str, str | float] = {}
    found |= {"view": view} if view else {}
    found |= {"laterality": side} if side else {}
    wall = chest_wall(pixels) if header.get("PresentationIntentType") != "FOR PROCESSING" else None
    across = next(iter(str(v)[:1] for v in values_of(header.get("PatientOrientation"))), "")
    if wall is None:
        return found
    if across in ("A", "P"):
        expected = "left" if across == "A" else "right"  # columns grow to the front: the wall is where they begin
        if wall != expected:
            raise UnreadableImage(
                f"expected the chest wall at the image's {expected} as PatientOrientation states, the breast lies "
                f"at its {wall}",
                "the image or its header was mirrored: ask where it comes from before its side is believed",
            )
    elif side and wall != {"L": "left", "R": "right"}[side]:
        found["doubt"] = (
            f"stated as the {'left' if side == 'L' else 'right'} breast, with its chest wall at the image's {wall}: "
            "mirrored, or hung unusually; the side is not certain"
        )
    return found


def chest_wall(pixels: NDArray[Any]) -> str | None:
    """The edge of the image at which the breast begins: ``left`` or ``right`` of the screen; None where neither."""
    values = np.asarray(pixels, dtype=np.float64)[:: max(1, pixels.shape[0] // 256), :: max(1, pixels.shape[1] // 256)]
    low, high = np.percentile(values, (1, 99))
    if high <= low or values.shape[1] < 10:
        return None
    inside = values > low + _BRIGHT * (high - low)
    width = max(1, int(_EDGE * values.shape[1]))
    left, right = inside[:, :width].mean(), inside[:, -width:].mean()
    if max(left, right) < _LEAST or max(left, right) < _FULLER * min(left, right):
        return None
    return "left" if left > right else "right"


def _agreed(what: str, stated: list[Any], known: tuple[str, ...]) -> str:
    said = {str(value).strip().upper() for value in stated if value not in (None, "")} & set(known)
    if len(said) > 1:
        raise UnreadableImage(
            f"expected one statement of the mammogram, its header states {len(said)} {what}",
            "ask where the image comes from before its side or view is believed",
        )
    return next(iter(said), "")
