"""ExactShapley and KernelSHAP on images against second implementations, closed forms, the axioms and captum.

Of the defects measured in peers, right here: B20 (plain random sampling, no enumeration, a crash with one player).
"""

import numpy as np
import pytest
import torch
from torch import nn

from pellucid.core.errors import BadOption, BadRegion
from pellucid.core.grid import Calibration, Grid
from pellucid.core.infill import Blur, Constant, ItemMean
from pellucid.core.players import players_of
from pellucid.core.probe import Probe, Scene
from pellucid.core.target import ClassScore
from pellucid.core.units import tiles
from pellucid.explain.owen import PartitionSHAP
from pellucid.explain.shapley import ExactShapley, KernelSHAP

KINDS = ("classification", "margin", "segmentation", "regression", "single-logit-negative", "dict-head")
KINDS += ("two-images", "image-and-vector")
METHODS = (ExactShapley, KernelSHAP, PartitionSHAP)
HALF = Constant(0.4)


def close(ours, theirs, relative):
    """Largest difference as a share of the largest value."""
    return float(np.abs(np.asarray(ours) - theirs).max()) <= relative * float(np.abs(theirs).max())


def second_game(reference, s, i, counts):
    """The game of one item in the second implementation, and its labels."""
    item = s.item(i)
    labels = tiles(next(iter(item.values())).shape[2:], counts).labels.numpy()
    fills = {name: torch.full_like(x, 0.4) for name, x in item.items()}
    return reference("exact_shapley").payoff(lambda x: s.score(x).detach(), item, fills, labels), labels


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("rank", "text", "counts"), [(2, "grid:2x3", (2, 3)), (3, "grid:1x2x2", (1, 2, 2))])
def test_equal_to_the_second_implementation(kind, rank, text, counts, subject, explained, reference):
    s = subject(kind, rank)
    answer = explained(ExactShapley(text, HALF), s.model, s.inputs, s.target, s.scene)
    for i in range(len(next(iter(s.inputs.values())))):
        value, labels = second_game(reference, s, i, counts)
        slow = reference("exact_shapley").shapley(value, labels.max() + 1)
        assert close(answer.maps[s.model.primary][i, 0], reference("exact_shapley").spread(slow, labels), 1e-10)


@pytest.mark.parametrize("kind", KINDS)
def test_the_regression_on_all_coalitions_is_exact(kind, subject, explained, reference):
    s = subject(kind, 2)
    exact = explained(ExactShapley("grid:2x4", HALF), s.model, s.inputs, s.target, s.scene)
    kernel = explained(KernelSHAP("grid:2x4", 2**8, infill=HALF), s.model, s.inputs, s.target, s.scene)
    name = s.model.primary
    assert close(kernel.maps[name], exact.maps[name].numpy(), 1e-8)
    assert float(kernel.error[name].max()) == 0
    value, labels = second_game(reference, s, 0, (2, 4))
    slow = reference("exact_shapley").spread(reference("kernel_shap").kernel_shap(value, 8), labels)
    assert close(exact.maps[name][0, 0], slow, 1e-8)


@pytest.mark.parametrize("rank", [2, 3])
def test_equal_to_captum(rank, subject, explained):
    from captum.attr import ShapleyValues

    s = subject("classification", rank)
    text = "grid:2x3" if rank == 2 else "grid:2x2x1"
    answer = explained(ExactShapley(text, Constant(0.3)), s.model, s.inputs)
    units = tiles(s.inputs["image"].shape[2:], (2, 3) if rank == 2 else (2, 2, 1))
    theirs = ShapleyValues(s.model.module).attribute(
        s.inputs["image"], baselines=0.3, target=1, feature_mask=units.labels[None, None], perturbations_per_eval=8
    )
    ours = answer.maps["image"] * units.sizes.double()[units.labels]
    assert close(ours, theirs[:, :1].detach().numpy(), 1e-5)  # captum adds up in float32: 1e-7 in the score


@pytest.mark.parametrize("method", [ExactShapley("grid:3"), KernelSHAP("grid:4", 100), PartitionSHAP("grid:4", 30)])
@pytest.mark.parametrize("kind", ["classification", "segmentation", "image-and-vector"])
@pytest.mark.parametrize("rank", [2, 3])
def test_the_map_sums_to_the_difference(method, kind, rank, subject, explained):
    s = subject(kind, rank)
    method = (
        type(method)("grid:2", *([method.samples] if isinstance(method, KernelSHAP) else [])) if rank == 3 else method
    )
    answer = explained(method, s.model, s.inputs, s.target, s.scene)
    assert float(answer.gap.max()) < 1e-6
    fills = [Constant(0.0), ItemMean()]
    images = {n: x for n, x in s.inputs.items() if x.ndim > 2}
    empty = [s.score({**s.inputs, **{n: f(x, (1.0,) * rank, None) for n, x in images.items()}}) for f in fills]
    expected = (s.score(s.inputs) - torch.stack(empty).mean(0)).detach()
    assert torch.allclose(answer.difference, expected, rtol=1e-10, atol=1e-12)


def cells(net):
    """A score of a 1 x M image whose voxels are the players."""

    class Cells(nn.Module):
        def forward(self, x):
            return net(x.flatten(1))[:, None]

    return Cells()


@pytest.mark.parametrize("method", [ExactShapley("grid:1x6"), KernelSHAP("grid:1x6", 64)])
def test_products_are_shared_equally(method, model_of, explained):
    """f = x1 x2 x3 + x4 x5 + x6 at (1, ..., 6) with nobody at 0: 6 in three parts, 20 in two, 6 alone."""
    net = cells(lambda x: x[:, 0] * x[:, 1] * x[:, 2] + x[:, 3] * x[:, 4] + x[:, 5])
    x = torch.arange(1.0, 7.0, dtype=torch.float64).view(1, 1, 1, 6)
    scene = Scene(infills=(Constant(0.0),))
    maps = explained(method, model_of(net, 2, channels=(1,)), x, ClassScore(0), scene).maps["image"]
    assert maps.flatten().tolist() == pytest.approx([2, 2, 2, 10, 10, 6], abs=1e-12)


@pytest.mark.parametrize(
    "method",
    [
        ExactShapley("grid:1x6", Constant(0.3)),
        KernelSHAP("grid:1x12", 80, infill=Constant(0.3)),
        KernelSHAP("grid:1x12", 30, infill=Constant(0.3)),
        PartitionSHAP("grid:1x12", 1000, infill=Constant(0.3)),
    ],
)
def test_a_linear_score_gives_weight_times_difference(method, nets, model_of, explained):
    cells_ = int(method.players.split("x")[1])
    weight, x = nets.noise(cells_), nets.noise(2, 1, 1, cells_, seed=3)
    net = cells(lambda v: v @ weight)
    answer = explained(method, model_of(net, 2, channels=(1,)), x, ClassScore(0))
    assert torch.allclose(answer.maps["image"], weight * (x - 0.3), atol=1e-12)
    if answer.error is not None:
        assert float(answer.error["image"].max()) < 1e-12


@pytest.mark.parametrize("method", [ExactShapley("grid:1x8"), PartitionSHAP("grid:1x8", 1000)])
def test_a_player_without_effect_gets_nothing_and_equals_get_equals(method, model_of, explained):
    net = cells(lambda x: torch.tanh(x[:, 0] * x[:, 1] + x[:, 0] + x[:, 1]) * x[:, 4] + x[:, 6].exp())
    x = torch.tensor([0.5, 0.5, 3.0, 1.0, 2.0, -1.0, 0.2, 7.0], dtype=torch.float64).view(1, 1, 1, 8)
    maps = explained(method, model_of(net, 2, channels=(1,)), x, ClassScore(0)).maps["image"].flatten()
    assert maps[[2, 3, 5, 7]].abs().max() < 1e-14
    assert float(maps[0]) == pytest.approx(float(maps[1]), abs=1e-14)
    assert maps[[0, 4, 6]].abs().min() > 0.01


@pytest.mark.parametrize("method", METHODS)
def test_one_player_gets_all(method, subject, explained):
    """B20: captum's regression on one player crashes."""
    s = subject("classification", 2)
    answer = explained(method("grid:1", infill=HALF), s.model, s.inputs)
    expected = (s.score(s.inputs) - s.score({"image": torch.full_like(s.inputs["image"], 0.4)})).detach()
    assert torch.allclose(answer.maps["image"].flatten(1).sum(1), expected, atol=1e-12)
    assert answer.maps["image"][0].unique().numel() == 1


@pytest.mark.parametrize("method", METHODS)
def test_every_player_s_share_is_even_over_its_voxels(method, subject, explained):
    s = subject("classification", 3)
    mask = torch.zeros(4, 6, 8, dtype=torch.bool)
    mask[1:3, 2:5, 1:7] = True
    scene = Scene(regions={"organ": mask, "other": torch.roll(mask, 3, 1) & ~mask})
    maps = explained(method("regions"), s.model, s.inputs, s.target, scene).maps["image"]
    for name in scene.regions:
        assert maps[0, 0][scene.regions[name]].unique().numel() == 1
    rest = ~(mask | scene.regions["other"])
    assert maps[0, 0][rest].unique().numel() == 1
    assert maps[0].unique().numel() == 3


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("players", ["grid:2x3", "superpixels:4"])
def test_an_item_alone_equals_the_item_in_a_batch(method, players, subject, explained):
    """Each item has superpixels of its own, and as many of them as it likes."""
    s = subject("classification", 2)
    s = type(s)(s.model, {"image": nn.functional.interpolate(s.inputs["image"], scale_factor=3)}, s.target, s.score)
    together = explained(method(players), s.model, s.inputs)
    for i in range(2):
        alone = explained(method(players), s.model, s.item(i))
        assert close(together.maps["image"][i : i + 1], alone.maps["image"].numpy(), 1e-9)


def test_cell_is_the_extent_of_a_player_and_the_grid_has_millimeters(subject, explained):
    s = subject("classification", 3)
    assert explained(ExactShapley("grid:2x1x2"), s.model, s.inputs).cell == (2.0, 6.0, 4.0)
    grid = Grid.regular((4, 6, 8), (5.0, 1.0, 1.0), Calibration.PATIENT)
    probe = Probe(s.model, s.inputs, s.target, scene=Scene(grids={"image": grid}))
    tree = PartitionSHAP("grid:4x2x2").hierarchies(probe)[0]
    first = tree.members[tree.parts[0][0]]
    centers = players_of(probe, "grid:4x2x2")[0].centers()[first]
    assert centers[:, 0].tolist() == [0.0] * 4 + [1.0] * 4  # cut along the thick axis: 15 mm between its centers


def test_two_fills_are_averaged_and_their_spread_is_told(nets, model_of, explained):
    net, x = nets.linear(8), nets.noise(2, 1, 8, 8) + 3
    net[1].weight.data.abs_()
    model, scene = model_of(net, 2, channels=(1,)), Scene(infills=(Constant(0.0), ItemMean(), Blur(1.0)))
    both = explained(ExactShapley("grid:2"), model, x, ClassScore(0), scene)
    first, second = (
        explained(ExactShapley("grid:2", f), model, x, ClassScore(0)).maps["image"] for f in scene.infills[:2]
    )
    assert torch.allclose(both.maps["image"], (first + second) / 2, atol=1e-13)
    assert "differ by up to" in both.warnings[0]
    assert "(constant 0 (network units); mean of the image)" in both.warnings[0]
    same = Scene(infills=(Constant(0.0), Constant(0.0)))
    probe = Probe(model, x, ClassScore(0), scene=same)
    assert ExactShapley("grid:2")(probe).warnings == ()
    assert probe.spent.own.forwards == 2 * 15  # one fill is scored once


def test_a_vector_is_held_and_that_is_said(subject, explained):
    s = subject("image-and-vector", 2)
    answer = explained(KernelSHAP("grid:2", infill=HALF), s.model, s.inputs)
    assert answer.warnings == ("input 'covariates' was held fixed: it has another shape",)
    assert list(answer.maps) == ["image"]


@pytest.mark.parametrize(
    ("method", "error", "says"),
    [
        (lambda: ExactShapley("grid:4"), BadOption, "at most 14 players, got 16.*KernelSHAP"),
        (lambda: KernelSHAP("grid:8x8", 100), BadOption, "at least 128 samples for 64 players"),
        (lambda: PartitionSHAP("grid:8x8", 32), BadOption, "64 players and 32 samples"),
        (lambda: KernelSHAP("regions"), BadRegion, "no regions to be players"),
        (lambda: KernelSHAP("squares:3"), BadOption, "names no players"),
        (lambda: ExactShapley("organs"), BadOption, "names no players"),
        (lambda: PartitionSHAP("grid"), BadOption, "names no players"),
        (lambda: KernelSHAP(samples=1), BadOption, "at least 2 samples"),
        (lambda: PartitionSHAP(samples=3), BadOption, "at least 4 samples"),
        (lambda: KernelSHAP(tolerance=0.0), BadOption, "tolerance above 0"),
    ],
)
def test_what_cannot_be_played_is_refused_before_any_pass(method, error, says, subject):
    s = subject("classification", 2)
    probe = Probe(s.model, s.inputs, s.target)
    with pytest.raises(error, match=says):
        method()(probe)
    assert probe.spent.own.forwards == 0


def test_low_precision_gives_float32_close_to_full(subject, explained):
    s = subject("classification", 2)
    s.model.module.float()
    s.model.module.tail.fc.weight.data.mul_(50)
    x = s.inputs["image"].float()
    full, low = (
        explained(ExactShapley("grid:2", HALF), s.model, x, precision=p).maps["image"] for p in ("float32", "bfloat16")
    )
    assert low.dtype == full.dtype == torch.float32
    assert torch.nn.functional.cosine_similarity(low.flatten(), full.flatten(), 0) > 0.95
    assert not torch.equal(low, full)
