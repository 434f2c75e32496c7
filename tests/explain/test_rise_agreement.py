"""A map's frequencies weighed by the agreement of its independent parts."""

import pytest
import torch

from pellucid.core.infill import Constant
from pellucid.core.target import ClassScore
from pellucid.explain.agreement import weighed
from pellucid.explain.rise import RISE

CASES = [((28, 24), (4.0, 3.0)), ((12, 16, 14), (3.0, 4.0, 3.5))]


def waves(shape, cycles=1.5):
    """A smooth map: a wave along each axis, several cells long."""
    out = torch.ones(shape, dtype=torch.float64)
    for axis, n in enumerate(shape):
        line = torch.cos(cycles * torch.pi * (torch.arange(n).double() + 0.5) / n)
        out = out * line.view(*(n if a == axis else 1 for a in range(len(shape))))
    return out


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize(("shape", "cell"), CASES)
def test_parts_that_agree_leave_the_map_as_it_is(shape, cell):
    map_ = noise(2, *shape)
    assert torch.allclose(weighed(map_, map_.expand(4, *map_.shape), cell), map_, atol=1e-12)


@pytest.mark.parametrize(("shape", "cell"), CASES)
def test_noise_on_a_smooth_map_is_lowered_and_the_mean_stays(shape, cell):
    truth = 3 + waves(shape)
    parts = truth + noise(4, 1, *shape)
    pooled = parts.mean(0)
    found = weighed(pooled, parts, cell)
    assert float((found - truth).norm()) < 0.5 * float((pooled - truth).norm())
    assert float(found.mean()) == pytest.approx(float(pooled.mean()))


def test_chance_alone_is_weighed_down_to_little():
    parts = noise(4, 1, 28, 28)
    found = weighed(parts.mean(0), parts, (4.0, 4.0))
    assert 0 < float(found.std()) < 0.35 * float(parts.mean(0).std())


def test_items_are_weighed_each_by_itself_and_a_flat_one_stays():
    parts = torch.stack([waves((16, 16)) + noise(4, 16, 16), torch.full((4, 16, 16), 2.0).double()], 1)
    both = weighed(parts.mean(0), parts, (4.0, 4.0))
    assert torch.allclose(both[:1], weighed(parts.mean(0)[:1], parts[:, :1], (4.0, 4.0)), atol=1e-12)
    assert torch.allclose(both[1], parts[0, 1], atol=1e-12)


def test_a_smooth_effect_is_found_with_fewer_masks(nets, model_of, explained):
    """A score that is not linear in the mask: what the linear fit leaves is noise that the weights lower."""
    weight = waves((28, 28), 3.0)

    class Curved(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(weight)

        def forward(self, x):
            rough = (x * nets.noise(28, 28, seed=5)).flatten(1).sum(1, keepdim=True)
            return (self.weight * x).flatten(1).sum(1, keepdim=True) + rough**2

    x, model = torch.ones(1, 1, 28, 28).double(), model_of(Curved(), 2, channels=(1,))
    truth = explained(RISE(8192, None, infill=Constant(0.0), reduce_variance=False), model, x, ClassScore(0))

    def correlation(reduce):
        method = RISE(128, None, infill=Constant(0.0), reduce_variance=reduce)
        map_ = explained(method, model, x, ClassScore(0)).maps["image"]
        return float(torch.corrcoef(torch.stack([map_.flatten(), truth.maps["image"].flatten()]))[0, 1])

    assert correlation(True) > correlation(False) + 0.02
