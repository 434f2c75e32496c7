"""Another model that prepares the image in its own way: its map is brought to the grid of the first."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from pellucid.core.model import Identity
from pellucid.core.prepare import InputSpec
from pellucid.core.target import ClassScore
from pellucid.explain.gradient import InputXGradient
from pellucid.metrics.robustness.retrained import Repeatability
from pellucid.workbench.evaluating import score_panel
from pellucid.workbench.explaining import explain_case
from pellucid.workbench.job import Request, _other
from pellucid.workbench.opening import open_case


@pytest.fixture
def finer(classifier):
    """The same network behind another preparation: twice the size, other gray values, cropped to a square."""
    spec = InputSpec(size=(32, 32), scale="unit", mean=(0.1,), fit="cover")
    return replace(classifier, inputs=(spec,), identity=Identity("finer"), _traces={}, _defaults={}, findings={})


@pytest.mark.parametrize("shape", [(32, 32), (48, 32)])
def test_maps_line_up(classifier, finer, make_case, shape) -> None:
    """The image as the other network sees it, brought back, is the image as the first one sees it."""
    opened = open_case(make_case(shape), classifier)
    other = _other(finer, opened, Request())
    assert other.inputs is not None
    assert other.onto is not None
    assert other.inputs["image"].shape[2:] == (32, 32)
    here, back = opened.inputs["image"][0, 0].numpy(), other.onto(other.inputs["image"][:, 0])[0].numpy()
    assert back.shape == here.shape
    seen = slice(None) if shape == (32, 32) else slice(3, 13)  # cover cuts the longer side
    assert np.corrcoef(back[seen].ravel(), here[seen].ravel())[0, 1] > 0.95
    assert np.corrcoef(back[seen].ravel(), np.roll(here, 3, 1)[seen].ravel())[0, 1] < 0.8


def test_it_is_compared_and_the_same_preparation_is_not_made_twice(classifier, finer, make_case) -> None:
    case = make_case()
    opened = open_case(case, classifier)
    same = _other(replace(classifier, identity=Identity("same")), opened, Request())
    assert same.inputs is None
    others = (same, _other(finer, opened, Request()))
    opened = replace(opened, scene=replace(opened.scene, retrained=others))
    panel = explain_case(opened, [ClassScore("bright")], [InputXGradient()])
    score = score_panel(panel, case, [Repeatability()])[0].score
    assert score.detail["left out"] == {}
    exactly, nearly = (row[0] for row in score.detail["spearman"])
    assert exactly == 1
    assert 0.5 < nearly < 1
    assert float(score.values) == pytest.approx((exactly + nearly) / 2)
    assert torch.isfinite(score.values).all()
