"""Explanations made by formula: every value of the map is known."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from pellucid.core.explanation import Attribution, Explanation, Prediction, Provenance, Reference
from pellucid.core.grid import Calibration, Grid, as_affine
from pellucid.core.image import Image, Modality
from pellucid.core.prepare import Prepared

Make = Callable[..., Explanation]


def provenance(**changes: object) -> Provenance:
    values = {
        "case": "case-1",
        "input_digest": "a" * 64,
        "model": "toy 1.0",
        "model_digest": "b" * 64,
        "card_digest": "c" * 64,
        "target": "lesion",
        "method": "GradCAM",
        "settings": {"steps": 8},
        "layer": "features.3",
        "infill": "local mean",
        "seed": 0,
        "precision": "float32",
        "device": "cpu",
        "shared": (1, 1),
        "own": (8, 0),
        "ms": 12.5,
        "versions": {"pellucid": "0"},
        "created": "2026-01-01T00:00:00+00:00",
        "applicability": "applies",
        "warnings": ("the model score is saturated",),
    }
    return Provenance(**(values | changes))


def prediction(value: float = 2.0, threshold: float | None = 0.5, **changes: object) -> Prediction:
    values = {
        "label": "lesion",
        "value": value,
        "unit": "logit",
        "score": 0.88,
        "threshold": threshold,
        "predicted": "lesion",
        "scores": {"normal": 0.12, "lesion": 0.88},
    }
    return Prediction(**(values | changes))


def reference(scale: float = 4.0, null: float | None = 1.0) -> Reference:
    return Reference(scale, null, 0.05, 200, 100, "formula-made normals")


def ramp_map(shape: tuple[int, ...], low: float = -3.0, high: float = 3.0) -> torch.Tensor:
    return torch.linspace(low, high, int(np.prod(shape))).view(shape)


@pytest.fixture
def make() -> Make:
    """An explanation of a formula-made image; every part may be replaced."""

    def build(values: torch.Tensor | None = None, **parts: object) -> Explanation:
        values = ramp_map((24, 32)) if values is None else values
        grid = parts.pop("grid", None) or Grid.regular(values.shape)
        signed = bool(parts.pop("signed", True))
        cell = parts.pop("cell", (1.0,) * values.ndim)
        modality = parts.pop("modality", Modality.XRAY)
        data = parts.pop("data", None)
        image = Image(torch.rand((1, *values.shape)) if data is None else data, grid, modality, "[0,1]")
        unit = str(parts.pop("unit", "logit"))
        answer = Attribution({"image": values[None, None].float()}, unit=unit, signed=signed, cell=cell)
        prepared = Prepared(image.data, grid, grid, (0.0,), (1.0,))
        defaults = {
            "provenance": provenance(),
            "prediction": prediction(),
            "image": image,
            "prepared": prepared,
            "reference": reference(),
        }
        return Explanation(answer, **(defaults | parts))

    return build


def coded_grid(shape: tuple[int, int, int], codes: str, spacing: tuple[float, float, float], tilt: float = 0.0) -> Grid:
    """A patient grid whose axes grow toward ``codes`` (such as ``RAS``), turned by ``tilt`` degrees about head-feet."""
    direction = {
        "L": (0, 1),
        "R": (0, -1),
        "P": (1, 1),
        "A": (1, -1),
        "H": (2, 1),
        "S": (2, 1),
        "F": (2, -1),
        "I": (2, -1),
    }
    matrix = np.eye(4)
    matrix[:3, :3] = 0
    for axis, code in enumerate(codes):
        body, sign = direction[code]
        matrix[body, axis] = sign * spacing[axis]
    a = np.deg2rad(tilt)
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]]
    matrix = turn @ matrix
    matrix[:3, 3] = -(matrix[:3, :3] @ ((np.asarray(shape) - 1) / 2))
    return Grid(shape, as_affine(matrix), Calibration.PATIENT)


@pytest.fixture
def coded() -> Callable[..., Grid]:
    """Patient grids by axis codes."""
    return coded_grid


@pytest.fixture
def stated() -> Callable[..., Provenance]:
    """A provenance with some fields replaced."""
    return provenance
