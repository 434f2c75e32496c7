"""Asking by hand: closed forms of a linear score, mirror sides by the patient's axes, sham places, refusals."""

import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

import pellucid
from pellucid.core.errors import BadOption, BadRegion, UnknownName
from pellucid.core.grid import Calibration, Grid
from pellucid.core.infill import Constant
from pellucid.core.model import Model, OutputSpec
from pellucid.core.prepare import InputSpec
from pellucid.core.probe import Probe, Scene
from pellucid.core.target import ClassScore
from pellucid.explain.byhand import AskByHand, ask_region, sentence

FILLS = (Constant(0.0), Constant(1.0))


def probed(shape=(16, 16), grid=None, fills=FILLS):
    torch.manual_seed(0)
    count = int(torch.tensor(shape).prod())
    net = nn.Sequential(nn.Flatten(), nn.Linear(count, 2)).double()
    x = torch.rand(1, 1, *shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    scene = Scene(grids={"image": grid} if grid else {}, infills=fills, seed=4)
    model = Model(net, (InputSpec(rank=len(shape), channels=1),), OutputSpec(labels=("no", "yes")))
    return Probe(model, x, ClassScore("yes"), scene=scene)


def box(shape=(16, 16), *spans):
    mask = torch.zeros(shape, dtype=torch.bool)
    mask[tuple(slice(*s) for s in spans or [(2, 5), (3, 7)])] = True
    return mask


def weight(probe):
    return probe.model.module[1].weight[1].detach().view(probe.inputs["image"].shape[2:])


def test_a_linear_score_loses_what_the_region_gave():
    probe, region = probed(), box()
    w, x = weight(probe), probe.inputs["image"][0, 0]
    reply = ask_region(probe, region, "hide")
    zero, one = float((w * (0 - x))[region].sum()), float((w * (1 - x))[region].sum())
    assert [after - reply.before for _, after in reply.fills] == pytest.approx([zero, one], abs=1e-9)
    assert reply.difference == pytest.approx((zero + one) / 2, abs=1e-9)
    assert reply.spread == pytest.approx(abs(zero - one), abs=1e-9)
    assert reply.share == pytest.approx(12 / 256)
    kept = ask_region(probe, region, "keep")
    outside = float((w * (0.5 - x))[~region].sum())
    assert kept.difference == pytest.approx(outside, abs=1e-9)


def test_sham_places_are_as_large_away_and_seeded():
    probe, region = probed(), box()
    first, again = ask_region(probe, region), ask_region(probed(), region)
    assert first == again
    assert first.shams == 8
    assert first.sham_low <= first.sham <= first.sham_high
    w, x = weight(probe), probe.inputs["image"][0, 0]
    gains = w * (0.5 - x)
    possible = [
        float(gains[r : r + 3, c : c + 4].sum())
        for r in range(14)
        for c in range(13)
        if int(region[r : r + 3, c : c + 4].sum()) <= 1
    ]
    assert min(abs(v - first.sham_low) for v in possible) < 1e-9
    assert min(abs(v - first.sham_high) for v in possible) < 1e-9
    assert ask_region(replace_seed(probe, 5), region).sham != first.sham


def replace_seed(probe, seed):
    return Probe(probe.model, probe.inputs, probe.targets, scene=replace(probe.scene, seed=seed))


def test_a_picture_is_mirrored_along_its_columns_and_says_so():
    probe, region = probed(), box()
    x = probe.inputs["image"][0, 0]
    both = region | region.flip(1)
    expected = float((weight(probe) * (x.flip(1) - x))[both].sum())
    reply = ask_region(probe, region, "swap")
    assert reply.difference == pytest.approx(expected, abs=1e-9)
    assert reply.fills == ()
    assert any("columns of the image" in words for words in reply.notes)


def test_a_volume_is_mirrored_along_the_axis_from_right_to_left():
    shape = (4, 6, 8)
    grid = Grid.regular(shape, (1.0, 1.0, 1.0), Calibration.PATIENT)  # the first axis runs to the left
    assert grid.letters[0] == "L"
    probe, region = probed(shape, grid), box(shape, (0, 1), (1, 4), (2, 5))
    x = probe.inputs["image"][0, 0]
    both = region | region.flip(0)
    reply = ask_region(probe, region, "swap")
    assert reply.difference == pytest.approx(float((weight(probe) * (x.flip(0) - x))[both].sum()), abs=1e-9)
    assert not any("columns" in words for words in reply.notes)
    with pytest.raises(BadOption, match="states no sides"):
        ask_region(probed(shape), region, "swap")


def test_a_film_from_the_side_has_no_mirror_side():
    film = Grid.regular((16, 16), letters=("F", "P"))
    with pytest.raises(BadOption, match="does not show left and right"):
        ask_region(probed(grid=film), box(), "swap")


def test_a_region_that_fits_nowhere_else_has_no_sham_test_and_says_so():
    reply = ask_region(probed(), box((16, 16), (0, 16), (0, 14)))
    assert (reply.sham, reply.shams) == (None, 0)
    assert any("no sham test" in words for words in reply.notes)
    assert "elsewhere" not in sentence(reply)


def test_fills_that_disagree_are_told():
    probe = probed(fills=(Constant(-50.0), Constant(50.0)))
    assert any("opposite directions" in words for words in ask_region(probe, box()).notes)


@pytest.mark.parametrize(
    ("region", "do", "error", "words"),
    [
        (box((16, 16), (0, 0), (0, 0)), "hide", BadRegion, "a part of the image"),
        (box((8, 8)), "hide", BadRegion, "of shape"),
        (box(), "burn", BadOption, "hide, keep or swap"),
    ],
)
def test_what_cannot_be_is_refused(region, do, error, words):
    with pytest.raises(error, match=words):
        ask_region(probed(), region, do)


def test_in_python_in_under_a_second():
    net = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(128, 2))
    x = torch.rand(1, 1, 64, 64)
    started = time.perf_counter()
    reply = pellucid.ask(net, x, box((64, 64), (10, 20), (10, 30)), "hide", target=1)
    assert time.perf_counter() - started < 1
    with torch.no_grad():
        assert reply.before == pytest.approx(float(net.eval()(x)[0, 1]), abs=1e-5)
    assert reply.plain()["fills"][0]["after"] == reply.fills[0][1]


def curved(shape=(8, 8), regions=None, grid=None):
    torch.manual_seed(3)
    conv = {2: nn.Conv2d, 3: nn.Conv3d}[len(shape)]
    net = nn.Sequential(conv(1, 3, 3), nn.Tanh(), nn.Flatten(), nn.LazyLinear(2)).double()
    x = torch.rand(2, 1, *shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    net(x)
    model = Model(net, (InputSpec(rank=len(shape), channels=1),), OutputSpec(labels=("no", "yes")))
    scene = Scene(grids={"image": grid} if grid else {}, regions=regions or {}, infills=FILLS, seed=4)
    return Probe(model, x, ClassScore("yes"), scene=scene)


@pytest.mark.parametrize("do", ["hide", "keep", "swap"])
@pytest.mark.parametrize("shape", [(8, 8), (5, 6, 7)])
def test_the_method_is_its_second_implementation(do, shape, reference):
    grid = Grid.regular(shape, (1.0,) * 3, Calibration.PATIENT) if len(shape) == 3 else None
    axis = 0 if grid else 1
    mask = box(shape, *[(1, 3)] * len(shape))
    probe = curved(shape, {"spot": mask}, grid)
    answer = AskByHand(do=do)(probe)
    net = probe.model.module
    for item, x in enumerate(probe.inputs["image"].numpy()):
        values, falls = reference("ask_by_hand").ask_by_hand(
            lambda seen: net(torch.from_numpy(seen.copy())[None]).detach()[0, 1],
            x, mask.numpy(), do, [np.full_like(x, fill.value) for fill in FILLS], axis,
        )  # fmt: skip
        assert answer.maps["image"][item, 0].numpy() == pytest.approx(values, abs=1e-12)
    assert probe.spent.own.forwards == AskByHand(do=do).cost(probe).forwards * 2
    alone = Probe(probe.model, probe.inputs["image"][1:], ClassScore("yes"), scene=probe.scene)
    assert ask_region(alone, mask, do).difference == pytest.approx(-np.mean(falls), abs=1e-12)
    assert answer.cell == (2.0,) * len(shape)


def test_small_regions_lie_over_large_ones():
    large, small = box((8, 8), (0, 6), (0, 6)), box((8, 8), (2, 4), (2, 4))
    probe = curved(regions={"small": small, "large": large})
    both = AskByHand()(probe).maps["image"]
    one, two = (AskByHand(region=name)(probe).maps["image"] for name in ("large", "small"))
    assert torch.equal(both, torch.where(small, two, one))


@pytest.mark.parametrize(
    ("method", "regions", "error", "words"),
    [
        (AskByHand(), {}, BadRegion, "no region to ask about.*--region"),
        (AskByHand(region="lung"), {"spot": box((8, 8))}, UnknownName, "no region 'lung'.*regions: spot"),
        (AskByHand(do="keep"), {"a": box((8, 8)), "b": box((8, 8))}, BadOption, "one region to show alone, got 2"),
        (AskByHand(do="burn"), {"a": box((8, 8))}, BadOption, "hide, keep or swap"),
        (AskByHand(), {"all": torch.ones(8, 8, dtype=torch.bool)}, BadRegion, "a part of the image"),
    ],
)
def test_the_method_refuses_before_any_pass(method, regions, error, words):
    probe = curved(regions=regions)
    with pytest.raises(error, match=words):
        method(probe)
    assert probe.spent.own.forwards == 0
