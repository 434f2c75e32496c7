"""What of a map counts as marked: four thresholds, CheXlocalize's Otsu, tuning on other cases, mean IoU."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.filters import threshold_otsu
from torch import nn

from pellucid.core.errors import BadOption, BadRegion, UnknownName
from pellucid.core.probe import Scene
from pellucid.metrics.localization.overlap import Dice, IoU, MeanIoU
from pellucid.metrics.localization.tuning import tune_elsewhere, tune_threshold
from pellucid.workbench.registry import make_metric

FEW = settings(max_examples=25, deadline=None)
SHAPE = {2: (9, 12), 3: (5, 6, 7)}


@pytest.fixture(scope="module")
def valued(model_of, scored):
    """``valued(metric, map, region, scene)`` of one "*space" map; the model does not matter."""

    def run(metric, values, region, scene=None):
        values = torch.as_tensor(values)
        model = model_of(nn.Sequential(nn.Flatten(), nn.LazyLinear(1)), values.ndim)
        x = torch.zeros(1, 1, *values.shape)
        model.module(x)
        return scored(metric, model, x, values[None, None].double(), region, scene)

    return run


def box(shape, low, high):
    out = torch.zeros(shape, dtype=torch.bool)
    out[tuple(slice(a, b) for a, b in zip(low, high, strict=True))] = True
    return out


def hill(shape, center):
    """A smooth map with one peak of 1."""
    axes = torch.meshgrid(*(torch.arange(n).double() for n in shape), indexing="ij")
    return torch.exp(-sum((a - c) ** 2 for a, c in zip(axes, center, strict=True)) / 18)


@pytest.mark.parametrize("rank", [2, 3])
def test_fixed_takes_a_share_of_the_maximum(rank, valued):
    """A ramp of 0.1 ... 1 along the first axis: at .55 its upper half."""
    shape = (10, 4, 4)[:rank]
    ramp = torch.linspace(0.1, 1, 10, dtype=torch.float64).view(-1, *(1,) * (rank - 1)).expand(shape).contiguous()
    lower = box(shape, (5, *(0,) * (rank - 1)), (9, *(4,) * (rank - 1)))  # 4 of the 5 planes that are marked
    score = valued(IoU("fixed", 0.55), 7 * ramp, lower)
    assert float(score.values) == pytest.approx(4 / 5)
    assert score.detail == {"share marked": [0.5], "share of the region": 0.4, "chance": [pytest.approx(0.2 / 0.7)]}
    dice = valued(Dice("fixed", 0.55), 7 * ramp, lower)
    assert (float(dice.values), dice.detail["chance"]) == (pytest.approx(8 / 9), [pytest.approx(0.4 / 0.9)])


def test_chance_is_what_a_random_map_reaches(valued):
    region = box((16, 16), (3, 3), (9, 12))
    found = {Dice: [], IoU: []}
    for seed in range(200):
        values = torch.rand(16, 16, generator=torch.Generator().manual_seed(seed))
        for kind, values_of in found.items():
            score = valued(kind("share", 0.3), values, region)
            values_of.append(float(score.values) - score.detail["chance"][0])
    assert abs(np.mean(found[Dice])) < 3 * np.std(found[Dice]) / np.sqrt(200)
    assert abs(np.mean(found[IoU])) < 0.01


def test_a_map_that_speaks_against_the_target_has_no_share_of_its_maximum(valued):
    score = valued(IoU("fixed", 0.5), -hill((8, 8), (3, 3)) - 1, box((8, 8), (1, 1), (4, 4)))
    assert score.reasons == ("the map has no evidence for the target",)


@FEW
@given(st.integers(0, 10**6), st.sampled_from([2, 3]), st.floats(0.02, 0.98))
def test_the_top_share_is_that_share_whatever_the_ties(valued, seed, rank, level):
    generator = torch.Generator().manual_seed(seed)
    values = torch.randint(0, 4, SHAPE[rank], generator=generator).double()
    values.view(-1)[0], values.view(-1)[1] = 0.0, 4.0
    region = torch.rand(SHAPE[rank], generator=generator) < 0.4
    region.view(-1)[0], region.view(-1)[1] = True, False
    score = valued(Dice("share", level), values, region)
    many = max(1, round(level * values.numel()))
    assert score.detail["share marked"][0] == pytest.approx(many / values.numel())
    same = valued(Dice("share", int(region.sum()) / region.numel()), values, region)
    assert float(same.values) == pytest.approx(float(valued(Dice(), values, region).values))


@pytest.mark.parametrize("threshold", [{"threshold": "fixed", "level": 0.3}, {"threshold": "share", "level": 0.1}])
def test_a_positive_factor_and_turning_change_nothing(threshold, valued):
    values, region = hill((9, 12), (4, 7)) + 0.1 * torch.rand(9, 12).double(), box((9, 12), (2, 5), (7, 9))
    plain = valued(IoU(**threshold), values, region).values
    assert torch.allclose(plain, valued(IoU(**threshold), 4 * values, region).values)
    assert torch.allclose(plain, valued(IoU(**threshold), values.T.contiguous(), region.T.contiguous()).values)


def test_otsu_and_that_of_chexlocalize_part_only_at_the_threshold():
    """Theirs reads the map as bytes from its minimum to its maximum; ours as it is, with 256 bins between the two.

    On 200 smooth maps with noise the two masks are the same in a third, and overlap by more than .8 in all.
    """
    alike = []
    for seed in range(200):
        generator = torch.Generator().manual_seed(seed)
        center = (torch.rand(2, generator=generator) * 40 + 4).tolist()
        noise = 0.05 * torch.rand(48, 48, generator=generator)
        values = hill((48, 48), center) - 0.3 * hill((48, 48), (20, 30)) + noise
        scaled = ((values - values.min()) / (values.max() - values.min())).numpy()
        gray = (255 * scaled).astype(np.uint8)
        theirs, ours = torch.from_numpy(gray > threshold_otsu(gray)), IoU("otsu").marked(values, 1).bool()
        apart, level = torch.from_numpy(scaled)[ours != theirs], float(torch.from_numpy(scaled)[ours].min())
        assert apart.numel() == 0 or float((apart - level).abs().max()) <= 12 / 255
        alike.append(float((ours & theirs).sum() / (ours | theirs).sum()))
    assert np.mean(np.array(alike) == 1) > 0.33
    assert np.mean(alike) > 0.98
    assert min(alike) > 0.8


# tuning ---------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cases():
    """Twelve maps whose regions are where they exceed .6 of their peak, and a thirteenth at .3."""
    places = [(6 + i, 20 - i) for i in range(12)]
    pairs = [(hill((32, 32), p) * (1 + i), hill((32, 32), p) >= 0.6) for i, p in enumerate(places)]
    return [*pairs, (hill((32, 32), (15.5, 15.5)), hill((32, 32), (15.5, 15.5)) >= 0.3)]


def test_tuning_finds_the_level_that_the_regions_were_made_with(cases, valued):
    tuned = tune_threshold(cases[:12], levels=[0.2, 0.4, 0.6, 0.8])
    assert (tuned.threshold, tuned.level, tuned.cases) == ("fixed", 0.6, 12)
    assert dict(tuned.curve)[0.6] == 1
    shares = tune_threshold(cases[:12], "share", [0.01, 0.03, 0.1])
    assert (shares.threshold, shares.level) == ("share", 0.03)  # 29 of 1024 pixels
    metric = make_metric(f"Dice:{tuned.text}")
    assert metric == Dice("fixed", 0.6, tuned.tuned_on)
    values, region = cases[12]
    assert float(valued(metric, values, region).values) == float(valued(Dice("fixed", 0.6), values, region).values)


def test_a_case_is_never_scored_with_what_was_tuned_on_it(cases, valued):
    tuned = tune_threshold(cases[:12])
    for values, region in cases[:12]:
        for metric in (IoU("fixed", tuned.level, tuned.tuned_on), Dice("fixed", tuned.level, tuned.tuned_on)):
            score = valued(metric, values.flip(0), region)  # another map of the same case
            assert score.reasons == ("the threshold was tuned on this very case",)
            assert bool(torch.isnan(score.values).all())


def test_tuning_elsewhere_leaves_out_the_case_and_its_patient(cases, valued):
    """The odd one out has no say in its own threshold, and the others' has it in it."""
    each = tune_elsewhere(cases, levels=[0.3, 0.6])
    for (values, region), tuned in zip(cases, each, strict=True):
        assert tuned.cases == 12
        score = valued(IoU(tuned.threshold, tuned.level, tuned.tuned_on), values, region)
        assert score.reasons == ("",)
    odd = tune_elsewhere([cases[0], cases[12]], levels=[0.3, 0.6])
    assert [t.level for t in odd] == [0.3, 0.6]
    patients = ["a", "a", "b"]
    several = tune_elsewhere([cases[0], cases[1], cases[12]], patients, levels=[0.3, 0.6])
    assert [(t.level, t.cases) for t in several] == [(0.3, 1), (0.3, 1), (0.6, 2)]


def test_of_levels_as_good_the_middle_one(cases):
    flat = [(region.double(), region) for _, region in cases[:3]]
    assert tune_threshold(flat, levels=[0.1, 0.3, 0.5, 0.7, 0.9]).level == 0.5


def test_what_cannot_be_thresholded_is_left_out_of_tuning(cases):
    blank = torch.zeros(32, 32).double()
    assert tune_threshold([cases[0], (blank, cases[1][1])], levels=[0.6]).cases == 1
    with pytest.raises(BadOption, match="none of the maps can be thresholded"):
        tune_threshold([(blank, cases[0][1])])
    with pytest.raises(BadOption, match="expected cases and levels to tune on, got none"):
        tune_threshold([])
    with pytest.raises(BadOption, match=r"two patients or more, got 1 for 2"):
        tune_elsewhere(cases[:2], ["a", "a"])


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("fixed",), "expected a level between 0 and 1 for threshold 'fixed', got None"),
        (("share", 1.0), "expected a level between 0 and 1 for threshold 'share', got 1.0"),
        (("area", 0.5), "threshold 'area' has no level"),
        (("otsu", None, "0123456789ab"), "threshold 'otsu' has no level"),
        (("fixed", 0.5, "case-1"), "expected tuned_on as tuning gives it"),
        (("median",), "expected threshold 'area', 'otsu', 'fixed' or 'share', got 'median'"),
    ],
)
def test_settings_that_mean_nothing_are_refused(arguments, problem):
    with pytest.raises(BadOption, match=problem):
        IoU(*arguments)


# mean over classes ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shift", range(7))
@pytest.mark.parametrize("rank", [2, 3])
def test_mean_iou_of_shifted_boxes_with_and_without_the_background(rank, shift, valued, reference):
    shape = (14, 8, 8)[:rank]
    region = box(shape, (1,) * rank, (7,) * rank)
    moved = box(shape, (1 + shift, *(1,) * (rank - 1)), (7 + shift, *(7,) * (rank - 1)))
    overlap, side = (6 - shift) / (6 + shift), 6 ** (rank - 1)
    outside = (region.numel() - (6 + shift) * side) / (region.numel() - (6 - shift) * side)
    for threshold in ("area", "otsu"):
        both = valued(MeanIoU(threshold), moved.double(), region)
        slow = reference("mean_iou").mean_iou(moved.numpy(), [region.numpy()], True)
        assert float(both.values) == pytest.approx(slow, abs=1e-12)
        assert float(both.values) == pytest.approx((overlap + outside) / 2)
        assert both.detail["by class"] == {
            "region": [pytest.approx(overlap)],
            "background": [pytest.approx(outside)],
        }
        assert float(valued(MeanIoU(threshold, background=False), moved.double(), region).values) == pytest.approx(
            overlap
        )


def test_the_background_lifts_a_map_that_misses_a_small_finding(valued):
    region, values = box((40, 40), (2, 2), (5, 5)), box((40, 40), (30, 30), (33, 33)).double()
    assert float(valued(IoU(), values, region).values) == 0
    assert float(valued(MeanIoU(), values, region).values) == pytest.approx(0.5, abs=0.01)


def test_mean_iou_over_named_regions(valued):
    """Each region has its own top area: of the small one all is hit, of the large one half."""
    shape = (10, 12)
    small, large = box(shape, (0, 0), (2, 2)), box(shape, (4, 4), (8, 8))
    values = 2 * small.double() + box(shape, (4, 4), (7, 8)).double()  # 4 + 12 voxels: the large one's area in all
    scene = Scene(regions={"tumor": small, "edema": large})
    score = valued(MeanIoU(regions="tumor+edema", background=False), values, small, scene)
    assert score.detail["by class"] == {"tumor": [1.0], "edema": [pytest.approx(12 / 20)]}
    assert float(score.values) == pytest.approx(0.8)
    whole = valued(MeanIoU(regions="tumor + edema"), values, None, scene).detail["by class"]
    assert list(whole) == ["tumor", "edema", "background"]
    with pytest.raises(UnknownName, match=r"the case has no region 'cyst'. regions: tumor, edema"):
        valued(MeanIoU(regions="cyst"), values, small, scene)
    with pytest.raises(BadRegion, match="different shapes"):
        valued(MeanIoU(regions="a+b"), values, small, Scene(regions={"a": small, "b": small[:5]}))


def test_mean_iou_that_is_undefined_says_why(valued):
    region = box((8, 8), (1, 1), (4, 4))
    assert valued(MeanIoU(), torch.ones(8, 8), region).reasons == ("the map is constant: it has no highest part",)
    assert valued(MeanIoU(), hill((8, 8), (2, 2)) * torch.nan, region).reasons == ("the map is not finite",)
    assert valued(MeanIoU(), hill((8, 8), (2, 2)), None).reasons == ("no expert or planted region",)
    for bad in (~region & region, region | ~region):
        with pytest.raises(BadRegion):
            valued(MeanIoU(), hill((8, 8), (2, 2)), bad)
