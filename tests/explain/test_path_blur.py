"""Blur integrated gradients, and the diffusion that blurs, against a second implementation and closed forms."""

import re

import pytest
import torch
from torch import nn

from pellucid.core.card import Cost
from pellucid.core.errors import BadOption, CannotDo
from pellucid.core.grid import Grid
from pellucid.core.infill import Constant
from pellucid.core.probe import Probe, Scene
from pellucid.core.space import blur
from pellucid.core.target import ClassScore
from pellucid.explain.blurpath import BlurIG, scale_space
from pellucid.explain.path import IntegratedGradients

SPACING = {2: (0.7, 1.9), 3: (2.5, 0.8, 1.1)}


def close(ours, theirs, relative):
    """Largest difference as a share of the largest value."""
    return float((ours - theirs).abs().max()) <= relative * float(theirs.abs().max())


def placed(s, rank):
    """The subject's scene, in millimeters, no two axes alike; a second image has half the voxel."""
    images = [n for n, x in s.inputs.items() if x.ndim > 2]
    spacing = {n: tuple(v / (1 + i) for v in SPACING[rank]) for i, n in enumerate(images)}
    grids = {n: Grid.regular(s.inputs[n].shape[2:], spacing[n]) for n in images}
    return Scene(grids, s.scene.regions), spacing


@pytest.mark.parametrize("rank", [2, 3])
@pytest.mark.parametrize(
    "kind", ["classification", "margin", "segmentation", "regression", "two-images", "image-and-vector"]
)
def test_equal_to_the_second_implementation(kind, rank, subject, explained, reference):
    s, second = subject(kind, rank), reference("blur_ig")
    scene, spacing = placed(s, rank)
    answer = explained(BlurIG(5, 4.0), s.model, s.inputs, s.target, scene)
    slow = second.blur_ig(s.score, s.item(0), spacing, 4.0, 5)
    assert set(answer.maps) == set(spacing)
    for name in spacing:
        assert close(answer.maps[name][:1], slow[name], 1e-10)
    blurred = {**s.item(0), **{n: second.blurred(s.inputs[n][:1], 4.0, spacing[n]) for n in spacing}}
    assert torch.allclose(answer.difference[:1], (s.score(s.item(0)) - s.score(blurred)).detach(), atol=1e-12)


@pytest.mark.parametrize("rank", [2, 3])
def test_many_steps_reach_the_integral(rank, nets, model_of, explained, reference):
    """Of the exact derivative in the scale, on a smooth network."""
    tail = nn.Sequential(nn.SiLU(), nn.Flatten(), nn.Linear(4 * 3**rank, 3), nn.Softplus())
    net, x = nets.seeded(lambda: nn.Sequential(nets.CONV[rank](2, 4, 3), *tail)), nets.noise(1, 2, *(5,) * rank)
    scene = Scene({"image": Grid.regular((5,) * rank, SPACING[rank])})
    maps = explained(BlurIG(400, 3.0), model_of(net, rank), x, scene=scene).maps["image"]
    spacing = {"image": SPACING[rank]}
    slow = reference("blur_ig").integral(lambda i: net(i["image"])[:, 1], {"image": x}, spacing, 3.0, 60)
    assert close(maps, slow["image"], 1e-4)


class Quadratic(nn.Module):
    """x'Qx."""

    def __init__(self, q):
        super().__init__()
        self.q = nn.Parameter(q)

    def forward(self, x):
        flat = x.flatten(1)
        return ((flat @ self.q) * flat).sum(1, keepdim=True)


@pytest.mark.parametrize("steps", [1, 3])
def test_linear_and_quadratic_scores_complete_with_any_number_of_steps(steps, nets, model_of, explained, reference):
    x, method = nets.noise(2, 1, 4, 4), BlurIG(steps, 2.0)
    blurred = reference("blur_ig").blurred(x, 2.0, (1.0, 1.0))
    net = nets.linear(4)
    got = explained(method, model_of(net, 2, channels=(1,)), x, ClassScore(0)).maps["image"]
    assert torch.allclose(got, net[1].weight.detach().view(1, 1, 4, 4) * (x - blurred), atol=1e-13)
    answer = explained(method, model_of(Quadratic(nets.noise(16, 16)), 2, channels=(1,)), x, ClassScore(0))
    assert float(answer.gap.max()) < 1e-12


@pytest.mark.parametrize("kind", ["classification", "segmentation", "two-images"])
def test_the_gap_closes(kind, subject, explained):
    s = subject(kind, 2)
    scene, _ = placed(s, 2)
    gaps = [float(explained(BlurIG(n), s.model, s.inputs, s.target, scene).gap.max()) for n in (4, 256)]
    assert gaps[1] < 0.02
    assert gaps[1] < gaps[0]


def test_the_gap_is_told(model_of, explained):
    class Step(nn.Module):
        def forward(self, x):
            return torch.sigmoid(400 * (x.flatten(1).amax(1, keepdim=True) - 0.3))

    x = torch.zeros(1, 1, 8, 8)
    x[..., 4, 4] = 1
    answer = explained(BlurIG(2), model_of(Step(), 2, channels=(1,)), x, ClassScore(0))
    assert re.match("completeness gap [0-9]+% of the score difference with 2 steps: ", answer.warnings[0])


def test_dark_voxels_can_speak(nets, model_of, explained):
    """With a constant reference what equals it gets zero, whatever it means; here no value is special."""
    net, x = nets.linear(6), nets.noise(1, 1, 6, 6)
    x[..., 2:4, 2:4] = 0
    model = model_of(net, 2, channels=(1,))
    path = explained(IntegratedGradients(4, Constant(0.0)), model, x, ClassScore(0)).maps["image"]
    ours = explained(BlurIG(4, 2.0), model, x, ClassScore(0)).maps["image"]
    assert bool((path[..., 2:4, 2:4] == 0).all())
    assert bool((ours[..., 2:4, 2:4] != 0).all())


def test_a_flat_image_gets_nothing(nets, model_of, explained):
    x = torch.full((1, 1, 6, 6), 3.0, dtype=torch.float64)
    answer = explained(BlurIG(4), model_of(nets.linear(6), 2, channels=(1,)), x, ClassScore(0))
    assert float(answer.maps["image"].abs().max()) < 1e-13
    assert answer.warnings == ()


def test_an_input_without_space_is_held_fixed_and_that_is_told(subject, explained):
    s = subject("image-and-vector", 2)
    answer = explained(BlurIG(64), s.model, s.inputs, s.target)
    assert answer.warnings == ("input 'covariates' was held fixed: it cannot be blurred",)
    assert list(answer.maps) == ["image"]


def test_without_an_image_it_is_refused(nets, model_of, explained):
    model = model_of(nets.linear(5, 1), 0, channels=(5,))
    with pytest.raises(CannotDo, match="is an image to blur"):
        explained(BlurIG(2), model, nets.noise(2, 5), ClassScore(0))


def test_cost_and_words(subject):
    s = subject("classification", 2)
    scene, _ = placed(s, 2)
    probe = Probe(s.model, s.inputs, s.target, (), scene)
    BlurIG(7)(probe)
    assert probe.spent.own == Cost(8, 7) * 2
    assert BlurIG().stand_in(probe) == "blur, sigma 1.7"  # a sixth of the root of (8 x 0.7) x (10 x 1.9)
    assert BlurIG(sigma_max=3.5).stand_in(probe) == "blur, sigma 3.5"


def test_an_item_alone_equals_the_item_in_a_batch(subject, explained):
    s = subject("two-images", 3)
    together = explained(BlurIG(11), s.model, s.inputs, s.target)
    for i in range(2):
        alone = explained(BlurIG(11), s.model, s.item(i), s.target)
        for name in s.inputs:
            assert close(together.maps[name][i : i + 1], alone.maps[name], 1e-12)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"steps": 0}, "at least 1 step, got 0"),
        ({"sigma_max": 0.0}, "above 0"),
        ({"sigma_max": float("nan")}, "above 0"),
    ],
)
def test_what_cannot_be_is_refused(change, told):
    with pytest.raises(BadOption, match=told):
        BlurIG(**change)


@pytest.mark.parametrize("rank", [2, 3])
def test_diffusion_equals_the_heat_equation(rank, nets, reference):
    x = nets.noise(2, 2, *(9, 7, 6)[:rank])
    for sigma in (0.3, 2.0, 40.0):
        slow = reference("blur_ig").blurred(x, sigma, SPACING[rank])
        assert torch.allclose(scale_space(x, SPACING[rank]).at(sigma), slow, atol=1e-12)


def test_diffusion_keeps_the_mean_and_makes_no_new_extreme(nets):
    x = nets.noise(1, 1, 12, 9)
    space = scale_space(x, (1.0, 1.0))
    assert space.at(0) is x
    for sigma in (0.2, 0.7, 3.0):
        y = space.at(sigma)
        assert float((y.mean() - x.mean()).abs()) < 1e-14
        assert float(x.min()) < float(y.min()) < float(y.max()) < float(x.max())
    assert torch.allclose(space.at(500.0), x.mean().expand_as(x), atol=1e-12)


def test_diffusion_goes_on_where_it_stopped(nets):
    """A blur of 3 and then one of 4 is a blur of 5."""
    x = nets.noise(1, 1, 12, 9)
    twice = scale_space(scale_space(x, (1.0, 2.0)).at(3.0), (1.0, 2.0)).at(4.0)
    assert torch.allclose(twice, scale_space(x, (1.0, 2.0)).at(5.0), atol=1e-13)


def test_the_width_is_in_millimeters_on_every_axis():
    """Voxels of 4 x 1 mm: one point spreads to a variance of sigma^2 in mm along both."""
    x = torch.zeros(1, 1, 41, 161, dtype=torch.float64)
    x[..., 20, 80] = 1
    y = scale_space(x, (4.0, 1.0)).at(9.0)[0, 0]
    for axis, spacing in ((0, 4.0), (1, 1.0)):
        profile = y.sum(1 - axis)
        place = (torch.arange(len(profile)) - len(profile) // 2) * spacing
        assert float((profile * place**2).sum()) == pytest.approx(81, rel=1e-6)
    assert float(y.min()) >= -1e-15


def test_away_from_the_edge_it_is_a_gaussian(nets):
    x = nets.noise(1, 1, 60, 60)
    ours, theirs = scale_space(x, (1.0, 1.0)).at(3.0), blur(x, (3.0, 3.0))
    inner = (..., slice(12, 48), slice(12, 48))
    assert close(ours[inner], theirs[inner], 0.03)
