"""The second implementations are there, import nothing but numpy and torch, and are right where the answer is known."""

import ast
from pathlib import Path

import numpy as np
import pytest
import torch

from pellucid.workbench.registry import cohort_methods, explainers, metrics

FOLDER = Path(__file__).resolve().parent
FILES = sorted(p for p in FOLDER.glob("*.py") if not p.stem.startswith("test_"))


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_imports_only_numpy_and_torch(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    imports = [n for n in ast.walk(tree) if isinstance(n, ast.Import | ast.ImportFrom)]
    names = {a.name for n in imports if isinstance(n, ast.Import) for a in n.names}
    names |= {n.module or "" for n in imports if isinstance(n, ast.ImportFrom)}
    assert {name.split(".")[0] for name in names} <= {"numpy", "torch"}
    assert not [n for n in imports if isinstance(n, ast.ImportFrom) and n.level]
    called = {n.func.id for n in ast.walk(tree) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)}
    assert not called & {"__import__", "exec", "eval"}


@pytest.mark.parametrize("name", sorted({**explainers(), **cohort_methods(), **metrics()}))
def test_every_method_and_metric_has_one(name):
    assert name.lower() in {p.stem.replace("_", "") for p in FILES}


def test_linear_score_has_the_known_maps(reference):
    net, x = reference("networks").linear(4), reference("networks").noise(1, 1, 4, 4)
    weight = net[1].weight.detach().view(1, 1, 4, 4)

    def score(inputs):
        return net(inputs["image"])[:, 0]

    inputs = {"image": x}
    assert torch.allclose(reference("saliency").slopes(score, inputs, "image"), weight, atol=1e-9)
    assert torch.allclose(reference("input_x_gradient").input_x_gradient(score, inputs, "image"), weight * x)
    path = reference("integrated_gradients")
    maps = path.integrated_gradients(score, inputs, {"image": x * 0}, path.gauss(1))
    assert torch.allclose(maps["image"], weight * x)


def test_cams_of_a_linear_tail(reference):
    a = reference("networks").noise(1, 2, 2, 2)

    def tail(activation):
        return (activation * torch.tensor([1.0, -2.0], dtype=a.dtype).view(1, 2, 1, 1)).flatten(1).sum(1)

    expected = (a[0, 0] - 2 * a[0, 1]).numpy()
    assert np.allclose(reference("hires_cam").hires_cam(tail, a), expected)
    assert np.allclose(reference("grad_cam").grad_cam(tail, a), np.maximum(expected, 0), atol=1e-8)


def test_blocks_cover_the_axis(reference):
    corners = reference("occlusion").corners
    assert corners(8, 4, 4) == [0, 4]
    assert corners(9, 4, 4) == [0, 4, 8]
    assert corners(10, 4, 3) == [0, 3, 6]
    assert corners(3, 3, 1) == [0]


def test_ranks_share_ties(reference):
    second = reference("model_parameter_randomization")
    assert second.ranks([3.0, 1.0, 3.0, 2.0]).tolist() == [3.5, 1.0, 3.5, 2.0]
    assert second.spearman([1, 2, 3], [10, 200, 3000]) == pytest.approx(1)
    assert second.spearman([1, 2, 3], [3, 2, 1]) == pytest.approx(-1)


def test_fuzzy_overlap_of_crisp_sets(reference):
    assert reference("iou").iou(np.array([1, 1, 0, 0]), np.array([0, 1, 1, 0])) == pytest.approx(1 / 3)
    assert reference("dice").dice_of_sets([1, 1, 0, 0], [0, 1, 1, 0]) == pytest.approx(1 / 2)
    assert reference("iou").top_area(np.array([5.0, 1.0, 1.0, 0.0]), 2).tolist() == [1, 0.5, 0.5, 0]
