"""An explanation with values of one's own, on the source of one's own: no model is needed to write objects."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from pellucid.core.explanation import Attribution, Explanation, Prediction, Provenance, Reference
from pellucid.explain.cam import GradCAM
from pellucid.io.objects.marks import Made
from pellucid.io.objects.source import open_source
from pellucid.io.reader import read_cases

MADE = Provenance(
    case="case-1", input_digest="a" * 64, model="net 1", model_digest="b" * 64, card_digest="c" * 64, target="nodule",
    method="GradCAM", settings={"relu": True}, layer="features.3", infill=None, seed=7, precision="float32",
    device="cpu", shared=(1, 1), own=(0, 0), ms=12.5, versions={"pellucid": "0.1", "torch": "2.13"},
    created="2026-01-02T03:04:05+00:00", applicability="applies",
)  # fmt: skip


@pytest.fixture
def made_of() -> Callable[..., Made]:
    """An explanation of a file or folder, its map a formula of the voxel's place or values of the test's own."""

    def make(
        path: Path,
        values: np.ndarray | None = None,
        signed: bool = True,
        provenance: Provenance = MADE,
        null: float | None = None,
    ) -> Made:
        case = read_cases(path).cases[0]
        image = case.images["image"]
        if values is None:
            values = np.random.default_rng(11).normal(size=image.grid.shape).astype(np.float32)
        answer = Attribution({"image": torch.from_numpy(values)[None, None]}, "logit", signed)
        reference = Reference(2.0, null, 0.05, 10, 10, "planted") if null is not None else None
        said = Prediction("nodule", 1.0, "logit", 0.7, None, "nodule", {"nodule": 0.7})
        explanation = Explanation(answer, provenance, said, image, reference=reference)
        return Made(explanation, GradCAM.card, open_source(case.files["image"], image), "GradCAM")

    return make
