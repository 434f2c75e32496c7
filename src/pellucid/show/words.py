"""How numbers, lengths and scores are written in pictures and reports."""

from collections.abc import Sequence
from math import floor, isfinite, log10

import numpy as np

from pellucid.core.explanation import Explanation, Prediction
from pellucid.core.grid import Calibration, Grid
from pellucid.core.image import Modality

MINUS, TIMES, RANGE = "\u2212", "\u00d7", "\u2013"
CHECKS = "Calculation checks say nothing about whether the model is right."
RESEARCH = "Research use \u2014 not a medical device \u2014 not for diagnosis"

_LENGTHS = {
    Calibration.PATIENT: "mm",
    Calibration.DETECTOR: "mm at the detector",
    Calibration.CALIBRATED: "mm (calibrated in the image)",
    Calibration.NOMINAL: "mm (nominal)",
    Calibration.NONE: "px",
}


def number(value: float | None) -> str:
    """Three significant digits, a true minus sign, a dash for what is undefined.

    Example:
        >>> number(1234.5), number(0.03141), number(7.0)
        ('1230', '0.0314', '7')
    """
    if value is None or not isfinite(value):
        return "\u2014"
    if value == 0:
        return "0"
    digits = max(0, 2 - floor(log10(abs(value))))
    text = f"{round(value, 2 - floor(log10(abs(value)))):.{min(digits, 12)}f}"
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return text.replace("-", MINUS)


def unit_word(unit: str) -> str:
    """A unit as a reader may see it: what a head calls a probability is a model score until it is calibrated."""
    return "model score" if unit == "probability" else unit


def modality_word(modality: Modality) -> str:
    """A modality as a reader writes it.

    Example:
        >>> modality_word(Modality.MRI), modality_word(Modality.XRAY)
        ('MRI', 'X-ray')
    """
    return modality.upper() if len(modality) == 3 or modality is Modality.CT else modality.capitalize()


def length_unit(grid: Grid) -> str:
    """The unit of a length on a grid, with what it means: ``mm``, ``mm at the detector``, ``px`` ..."""
    return _LENGTHS[grid.calibration]


def edges(lengths: Sequence[float], unit: str) -> str:
    """The edges of a box.

    Example:
        >>> edges((52.0, 52.0), "mm").replace(TIMES, "x")
        '52 x 52 mm'
    """
    return f" {TIMES} ".join(number(v) for v in lengths) + f" {unit}"


def image_cell(explanation: Explanation) -> tuple[float, ...]:
    """Native resolution along the axes of the grid on which the map is drawn, in that grid's unit; empty: not stated.

    The network's axes may run in another order than the image's: each image axis takes the network axis closest to it.
    """
    cell, _ = explanation.cell
    prepared = explanation.prepared
    if not cell or prepared is None:
        return tuple(cell)
    rank = prepared.source.rank
    ours, theirs = (g.matrix[:3, :rank] / np.asarray(g.spacing) for g in (prepared.source, prepared.grid))
    nearest = np.abs(ours.T @ theirs).argmax(1)
    return tuple(float(cell[int(n)]) for n in nearest)


def cell_words(explanation: Explanation) -> str:
    """Native resolution in words; no statement about the map may be finer."""
    cell, _ = explanation.cell
    if not cell:
        return "native resolution not stated by the method"
    prepared = explanation.prepared
    if prepared is None:
        return f"native resolution {edges(cell, 'px of the network input')}"
    grid = prepared.source
    words = f"native resolution {edges(image_cell(explanation), length_unit(grid))}"
    if grid.calibration is not Calibration.NONE:
        return words
    share = max(c / n for c, n in zip(image_cell(explanation), grid.shape, strict=True))
    return f"{words} of the image ({number(float(f'{100 * share:.2g}'))}% of its edge)"


def score_words(prediction: Prediction) -> str:
    """What the model said, with its operating point, in one sentence."""
    unit = unit_word(prediction.unit)
    parts = [f"{prediction.label}: "]
    if prediction.score is not None:
        parts.append(f"model score {number(prediction.score)} ")
        parts.append(f"({number(prediction.value)} {unit})" if unit != "model score" else "")
    else:
        parts.append(f"{number(prediction.value)} {unit}")
    said = "".join(parts).strip()
    if prediction.threshold is None:
        return f"{said}; the model card names no operating point"
    side = "below" if prediction.below_threshold else "at or above"
    return f"{said}; {side} the operating point {number(prediction.threshold)} {unit}"


def class_words(prediction: Prediction) -> str:
    """Whether the explained class is the one the model scores highest."""
    if prediction.label == prediction.predicted:
        return f"The explained class, {prediction.label}, is the one with the highest model score."
    return (
        f"The explained class is {prediction.label}; the highest model score is that of {prediction.predicted}. "
        f"The maps speak of {prediction.label} only."
    )


def cost_words(explanation: Explanation) -> str:
    """Passes through the model and time of one map."""
    return f"{pass_words(explanation)}; {number(explanation.provenance.ms)} ms"


def pass_words(explanation: Explanation) -> str:
    """Passes through the model of one map: the same wherever it is made."""
    p = explanation.provenance
    own = _passes(p.own)
    shared = _passes(p.shared)
    first = f"{own} of its own" if own else "no pass of its own"
    second = f", {shared} shared with the other maps" if shared else ""
    return f"{first}{second}"


def _passes(count: tuple[int, int]) -> str:
    names = ("forward", "backward")
    return " + ".join(f"{n} {name}{'s' if n != 1 else ''}" for n, name in zip(count, names, strict=True) if n)
