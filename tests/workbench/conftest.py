"""A classifier and a segmenter that look for bright voxels, and cases to show them."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pellucid.core.case import Case, Region
from pellucid.core.explanation import Attribution, Explanation, Prediction, Provenance, Reference
from pellucid.core.grid import Calibration, Grid, as_affine
from pellucid.core.image import Image, Modality
from pellucid.core.model import Identity, Model, OutputSpec
from pellucid.core.prepare import InputSpec, Prepared


class Bright(nn.Module):
    """Three classes: dark, middling, bright; counts the items it sees."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.relu, self.last = nn.Conv2d(1, 3, 3, padding=1), nn.ReLU(inplace=True), nn.Linear(3, 3)
        generator = torch.Generator().manual_seed(0)
        self.conv.weight.data = torch.rand(3, 1, 3, 3, generator=generator) / 9
        self.conv.bias.data.zero_()
        self.last.weight.data = torch.tensor([[-4.0, -4.0, -4.0], [1.0, -1.0, 0.5], [4.0, 3.0, 5.0]])
        self.last.bias.data = torch.tensor([0.5, 0.0, 0.5])
        self.items = 0

    def forward(self, x: Tensor) -> Tensor:
        self.items += len(x)
        return self.last(self.relu(self.conv(x)).mean((2, 3)))


@pytest.fixture
def classifier() -> Model:
    spec = InputSpec(size=(16, 16), scale="unit")
    output = OutputSpec(labels=("dark", "middling", "bright"))
    return Model(Bright().train(), (spec,), output, Identity("finder", "1.2", card="c" * 64))


@pytest.fixture
def segmenter() -> Model:
    module = nn.Conv2d(1, 3, 1)
    module.weight.data = torch.tensor([0.0, 2.0, 8.0]).view(3, 1, 1, 1)
    module.bias.data = torch.tensor([0.5, 0.0, -4.0])
    output = OutputSpec("segmentation", ("background", "vessel", "bleeding"))
    return Model(module, (InputSpec(),), output)


@pytest.fixture
def make_case() -> Callable[..., Case]:
    def make(shape: tuple[int, ...] = (32, 32), modality: Modality = Modality.XRAY, name: str = "image") -> Case:
        data = torch.rand(1, *shape, generator=torch.Generator().manual_seed(1)) * 0.2
        lesion = torch.zeros(shape, dtype=torch.bool)
        lesion[(slice(6, 14), slice(18, 26), slice(2, 6))[: len(shape)]] = True
        data[:, lesion] = 1.0
        grid = Grid.regular(shape, (0.5,) * len(shape))
        image = Image(data, grid, modality)
        return Case("case-7", {name: image}, {"lesion": Region(lesion, grid)}, notes=("PLANTED square",))

    return make


def _explained(values: object, grid: Grid | None = None, **parts: object) -> Explanation:
    """A map whose every value is known, on the image's own grid."""
    data = torch.as_tensor(np.asarray(values, np.float32))
    grid = grid or Grid.regular(tuple(data.shape))
    stated = {"case": "case-1", "input_digest": "a" * 64, "model": "toy 1", "model_digest": "b" * 64, "card_digest": "",
              "target": "lesion", "method": "GradCAM", "settings": {}, "layer": None, "infill": None, "seed": 0,
              "precision": "float32", "device": "cpu", "shared": (1, 1), "own": (0, 0), "ms": 1.0,
              "versions": {"pellucid": "0"}, "created": "2026-01-01T00:00:00", "applicability": "applies"}  # fmt: skip
    made = Provenance(**(stated | {k: parts.pop(k) for k in list(parts) if k in stated}))
    image = Image(torch.arange(data.numel()).reshape(1, *data.shape).float(), grid, Modality.CT)
    cell = parts.pop("cell", (1.0,) * data.ndim)
    unit, signed = str(parts.pop("unit", "logit")), bool(parts.pop("signed", True))
    null, score = parts.pop("null", None), float(parts.pop("score", 2.0))
    answer = Attribution({"image": data[None, None]}, unit, signed, cell=cell)
    prediction = Prediction(made.target, score, "logit", 0.9, 0.5, made.target, {made.target: 0.9})
    known = None if null is None else Reference(4.0, float(null), 0.05, 100, 100, "formula-made normals")
    prepared = parts.pop("prepared", None) or Prepared(image.data, grid, grid, (0.0,), (1.0,))
    return Explanation(answer, made, prediction, image, prepared, known)


@pytest.fixture(scope="session")
def explained() -> Callable[..., Explanation]:
    """Explanations made by formula; ``cell`` in voxels, ``null`` and ``score`` in logits (operating point 0.5)."""
    return _explained


@pytest.fixture(scope="session")
def oblique() -> Callable[..., Grid]:
    """Patient grids of anisotropic voxels, turned about head-feet; axes grow toward ``codes``."""

    def make(shape: Sequence[int], spacing: Sequence[float], codes: str = "LPH", degrees: float = 0.0) -> Grid:
        a = np.deg2rad(degrees)
        matrix = np.eye(4)
        matrix[:2, :2] = [[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]]
        matrix[:3, :3] = matrix[:3, :3] @ np.diag(spacing)
        matrix[:3, 3] = (-40.0, 25.0, 300.0)
        return Grid(tuple(shape), as_affine(matrix), Calibration.PATIENT).reoriented(codes)

    return make
