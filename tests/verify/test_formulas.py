"""The formulas against loops over closed forms: with a defect and without."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from pellucid.verify.bridges import enlarged, ranged
from pellucid.verify.formulas import FORMULAS, first_component, grad_cam, plus_plus
from pellucid.verify.peers import networks
from pellucid.verify.subjects import Prepared, Subject

NONE: frozenset[str] = frozenset()


def cells(seed: int = 0, shape: tuple[int, ...] = (1, 3, 2, 4)) -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(shape, generator=draw, dtype=torch.float64) for _ in range(2))  # type: ignore[return-value]


@pytest.mark.parametrize("defects", [(), ("B1",), ("B2",), ("B3",), ("B2", "B3")])
def test_plus_plus_by_loops(defects: tuple[str, ...]) -> None:
    a, g = cells()
    g[0, 1, 0, 0] = 0
    out = np.zeros((2, 4))
    for k in range(3):
        act, grad = a[0, k].numpy(), g[0, k].numpy()
        weight = 0.0
        for i in np.ndindex(2, 4):
            third = (act * grad**3).sum() if "B2" in defects else act.sum() * grad[i] ** 3
            below = 2 * grad[i] ** 2 + third + (1e-6 if "B3" in defects else 0)
            alpha = grad[i] ** 2 if "B1" in defects else 0.0 if grad[i] == 0 else grad[i] ** 2 / below
            weight += alpha * max(grad[i], 0)
        out += weight * act
    assert np.allclose(plus_plus(a, g, frozenset(defects), 1e-6)[0, 0].numpy(), out, rtol=1e-12)


def test_an_absolute_constant_bites_where_gradients_are_small() -> None:
    """B3: on a score divided by ten thousand the peer's weight nearly vanishes, the formula's does not."""
    a, g = cells(shape=(1, 1, 2, 2))
    a, g = a.abs(), 1e-5 * g.abs()
    share = plus_plus(a, g, frozenset({"B3"}), 1e-6) / plus_plus(a, g, NONE, 1e-6)
    assert float(share.max()) < 0.01


def test_grad_cam_by_loops() -> None:
    a, g = cells(1, (2, 3, 2, 2, 3))
    for item in range(2):
        out = sum(float(g[item, k].mean()) * a[item, k] for k in range(3))
        assert torch.allclose(grad_cam(a, g)[item, 0], out.clamp_min(0))


def test_first_component_of_rank_one() -> None:
    """A = u v: the map is the centered u, and B12 is a matter of sign alone."""
    u = torch.rand(12, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    v = torch.tensor([0.3, 2.0, 1.0], dtype=torch.float64)
    x = (v[:, None] * u).view(1, 3, 3, 4)
    expected = (u - u.mean()) * v.norm()
    assert torch.allclose(first_component(x, NONE).flatten(), expected)
    free = first_component(x, frozenset({"B12"})).flatten()
    assert torch.allclose(free.abs(), expected.abs())


def test_range_and_enlarging() -> None:
    values = torch.tensor([[[[0.0, 4.0]]], [[[2.0, 3.0]]]])
    evidence: Any = SimpleNamespace(x=torch.zeros(2, 1, 1, 4))
    assert torch.equal(ranged(values, evidence).amax((1, 2, 3)), torch.ones(2))
    assert torch.allclose(enlarged(values, evidence)[0, 0, 0], torch.tensor([0.0, 1.0, 3.0, 4.0]))


@pytest.fixture
def evidence() -> Any:
    from pellucid.verify.evidence import Evidence

    draw = torch.Generator().manual_seed(0)
    x = torch.randn(1, 1, 6, 4, generator=draw, dtype=torch.float64)
    subject = Subject("linear-2d", "film", (6, 4), layer="")
    noise = 0.1 * torch.randn(5, *x.shape, generator=draw, dtype=torch.float64)
    return Evidence(Prepared(subject, networks.build("linear-2d", 1, 24), x, (2,)), noise)


def test_trapezoid_on_a_linear_score(evidence: Any) -> None:
    """B19: the sum of the map is (n - 1) / n of the score's difference; mended it is all of it."""
    formula = FORMULAS["captum trapezoid"]
    bias = evidence.net.head.bias[2].detach()
    whole = evidence.score[0] - bias
    assert torch.isclose(formula.values(evidence, NONE).sum(), whole)
    assert torch.isclose(formula.values(evidence, formula.defects).sum(), 0.9 * whole)


def test_root_mean_square_on_a_linear_score(evidence: Any) -> None:
    """B7: of a constant gradient the magnitude is its absolute value; the peer's is less by the root of n."""
    formula = FORMULAS["monai SmoothGrad"]
    right = evidence.net.head.weight[2].detach().abs().view(1, 1, 6, 4)
    assert torch.allclose(formula.values(evidence, NONE), right)
    assert torch.allclose(formula.values(evidence, formula.defects), right / 5**0.5)


def test_networks_are_the_same_each_time_and_normalize() -> None:
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    for name in ("pooled-2d", "dense-2d", "faint-2d", "functional-2d"):
        one, two = (networks.build(name, 3, 16) for _ in range(2))
        assert torch.equal(one(x), two(x)), name
        assert torch.equal(one(x), networks.plain(two)(x)), name
        assert one(x).shape == (2, networks.LABELS)
    norm = networks.build("pooled-2d", 3, 16).norm1
    assert float(norm.running_mean.abs().min()) > 0
    assert float((norm.running_var - 1).abs().min()) > 0


def test_a_segmentation_becomes_one_value() -> None:
    mask = torch.zeros(4, 4, dtype=torch.bool)
    mask[1, 2] = mask[3, 0] = True
    maps = torch.arange(32.0).view(1, 2, 4, 4)
    seen = networks.Regional(torch.nn.Identity(), 1, mask)(maps)
    assert seen.shape == (1, 1)
    assert float(seen) == float((maps[0, 1, 1, 2] + maps[0, 1, 3, 0]) / 2)
