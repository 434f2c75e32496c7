"""A map beside several readers: kappas and alpha of masks, and the benchmark that readers set one another."""

import krippendorff as peer
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score
from statsmodels.stats.inter_rater import fleiss_kappa
from torch import nn

from pellucid.core.errors import BadOption, BadRegion, UnknownName
from pellucid.core.grid import Calibration, Grid
from pellucid.core.probe import Scene
from pellucid.metrics.localization.human import HumanBenchmark
from pellucid.metrics.localization.overlap import Dice
from pellucid.metrics.localization.readers import CohenKappa, FleissKappa, KrippendorffAlpha, coded, patterns

FEW = settings(max_examples=25, deadline=None)
HALF = {"threshold": "fixed", "level": 0.5}
KAPPAS = [CohenKappa(**HALF), FleissKappa(**HALF), KrippendorffAlpha(**HALF)]
EVERY = [*KAPPAS, HumanBenchmark(**HALF)]
SHAPE = {2: (9, 12), 3: (5, 6, 7)}


@pytest.fixture(scope="module")
def valued(model_of, scored):
    """``valued(metric, map, readers, regions, spacing)`` of one "*space" map (or "item channel *space")."""

    def run(metric, values, readers, regions=None, spacing=None, region=None):
        known = dict(readers) if isinstance(readers, dict) else {f"r{i}": m for i, m in enumerate(readers, 1)}
        shape = next(iter(known.values())).shape if known else values.shape
        maps = values if values.ndim > len(shape) else values[None, None]
        model = model_of(nn.Sequential(nn.Flatten(), nn.LazyLinear(1)), len(shape))
        x = torch.zeros(len(maps), 1, *shape)
        model.module(x)
        grid = Grid.regular(tuple(shape), spacing, Calibration.NONE if spacing is None else Calibration.PATIENT)
        scene = Scene({"image": grid}, dict(regions or {}), readers=known)
        truth = next(iter(known.values()), None) if region is None else region
        return scored(metric, model, x, maps.double(), truth, scene)

    return run


def box(shape, low, high):
    out = torch.zeros(shape, dtype=torch.bool)
    out[tuple(slice(a, b) for a, b in zip(low, high, strict=True))] = True
    return out


@st.composite
def readings(draw, most=4):
    """A binary map and two readers or more, none of them empty or full, in 2-D or 3-D."""
    shape = SHAPE[draw(st.sampled_from([2, 3]))]
    generator = torch.Generator().manual_seed(draw(st.integers(0, 10**6)))
    blob = torch.rand(shape, generator=generator) < 0.4
    masks = [blob ^ (torch.rand(shape, generator=generator) < 0.2) for _ in range(draw(st.integers(3, most + 1)))]
    for mask in masks:
        mask.view(-1)[0], mask.view(-1)[-1] = True, False
    return masks[0], masks[1:]


def number(score):
    assert score.reasons == ("",)
    return float(score.values)


# kappa and alpha ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("shape", "kappa"), [((10, 20), 0.4), ((40, 50), 0.6842), ((400, 500), 0.69985)])
def test_kappa_grows_toward_dice_with_the_background(shape, kappa, valued):
    """100 voxels each, 70 of them in common, in 200, 2,000 or 200,000; the box around the readers is the same."""
    values, reader = box(shape, (0, 0), (10, 10)), box(shape, (3, 0), (10, 10))
    reader[0:3, 10:20] = True
    score = valued(CohenKappa(**HALF), values.double(), {"anna": reader})
    assert number(score) == pytest.approx(kappa, abs=5e-5)
    assert score.detail["dice"] == [{"anna": pytest.approx(0.7)}]
    assert (score.detail["roi"], score.detail["roi voxels"]) == ("the whole image", values.numel())
    assert "voxels of one image are not independent" in score.detail["interval"]


@FEW
@given(readings())
def test_cohen_equals_scikit_learn_and_the_second_implementation(valued, reference, drawn):
    values, readers = drawn
    score = valued(CohenKappa(**HALF), values, readers)
    flat = [m.flatten().numpy() for m in (values, *readers)]
    known = [cohen_kappa_score(flat[0], r) for r in flat[1:]]
    assert list(score.detail["by reader"][0].values()) == pytest.approx(known, abs=1e-12)
    assert number(score) == pytest.approx(np.mean(known), abs=1e-12)
    assert number(score) == pytest.approx(np.mean([reference("cohen_kappa").cohen_kappa(flat[0], r) for r in flat[1:]]))
    pairs = [cohen_kappa_score(a, b) for i, a in enumerate(flat[1:]) for b in flat[1 : i + 1]]
    assert score.detail["readers with each other"][0] == pytest.approx(np.mean(pairs))


@FEW
@given(readings(), st.randoms(use_true_random=False))
def test_ties_count_in_part(valued, reference, drawn, random):
    """Of a map of three levels the top area holds part of one of them: kappa of the mean over orders."""
    _, readers = drawn
    values = torch.tensor([float(random.randrange(3)) for _ in range(readers[0].numel())]).view(readers[0].shape)
    values.view(-1)[:2] = torch.tensor([0.0, 2.0])
    part = reference("iou").top_area(values.numpy(), int(readers[0].sum()))
    slow = np.mean([reference("cohen_kappa").cohen_kappa(part, r.numpy()) for r in readers])
    assert number(valued(CohenKappa("area"), values, readers)) == pytest.approx(slow, abs=1e-12)


@FEW
@given(readings())
def test_fleiss_and_alpha_equal_other_implementations(valued, reference, drawn):
    values, readers = drawn
    everyone = torch.stack([values, *readers]).flatten(1).numpy().astype(int)
    for metric, peers in (
        (FleissKappa(**HALF), (_fleiss, reference("fleiss_kappa").fleiss_kappa)),
        (KrippendorffAlpha(**HALF), (_alpha, reference("krippendorff_alpha").krippendorff_alpha)),
    ):
        score = valued(metric, values, readers)
        for other in peers:
            assert number(score) == pytest.approx(other(everyone), abs=1e-9)
            assert score.detail["readers alone"][0] == pytest.approx(other(everyone[1:]), abs=1e-9)
        assert score.detail["difference"][0] == pytest.approx(number(score) - score.detail["readers alone"][0])


def _fleiss(marks):
    ones = marks.sum(0)
    return fleiss_kappa(np.stack([ones, len(marks) - ones], 1))


def _alpha(marks):
    return peer.alpha(reliability_data=marks, level_of_measurement="nominal")


def test_a_map_that_agrees_as_readers_do_raises_agreement_and_a_random_one_lowers_it(valued):
    readers = [box((20, 20), (5, 5 + s), (14, 14 + s)) for s in (-1, 0, 1)]
    chance = torch.rand(20, 20, generator=torch.Generator().manual_seed(1))
    for metric in (FleissKappa("share", 0.2), KrippendorffAlpha("share", 0.2)):
        assert valued(metric, readers[1].double() + 0.01 * chance, readers).detail["difference"][0] > 0
        assert valued(metric, chance, readers).detail["difference"][0] < -0.2


@pytest.mark.parametrize("metric", KAPPAS, ids=lambda m: m.name)
def test_the_region_of_interest_is_what_is_counted(metric, valued):
    """As if the image ended there; the box around readers is twice as wide as they, and cut at the edge."""
    shape = (40, 30)
    readers = [box(shape, (10, 2), (18, 8)), box(shape, (10, 4), (18, 10))]
    values = box(shape, (8, 3), (17, 9)).double()
    settings = {"threshold": "fixed", "level": 0.5}
    boxed = valued(type(metric)(**settings, roi="box"), values, readers)
    cut = (slice(6, 22), slice(0, 14))
    assert boxed.detail["roi voxels"] == 16 * 14
    assert boxed.detail["roi"] == "a box around all readers, twice as wide"
    assert number(boxed) == pytest.approx(number(valued(metric, values[cut], [r[cut] for r in readers])))
    assert number(boxed) < number(valued(metric, values, readers))
    breast = box(shape, (5, 0), (25, 15))
    named = valued(type(metric)(**settings, roi="breast"), values, readers, {"breast": breast})
    assert named.detail["roi"] == "the region breast"
    assert number(named) == pytest.approx(number(valued(metric, values[5:25, :15], [r[5:25, :15] for r in readers])))
    with pytest.raises(UnknownName, match=r"no region 'lung' to count agreement in. there are: image, box, breast"):
        valued(type(metric)(**settings, roi="lung"), values, readers, {"breast": breast})


@pytest.mark.parametrize("readers", [1, 3, 18])
def test_patterns_count_every_voxel_once(readers):
    draw = np.random.default_rng(readers)
    marks = torch.from_numpy((draw.random((readers + 1, 60)) < 0.5).astype(float))
    marks[0, :10] = 0.25
    table, often = patterns(marks[0], *coded(list(marks[1:].bool())))
    assert often.sum() == pytest.approx(60)
    assert often @ table == pytest.approx(marks.sum(1).numpy())
    assert len(np.unique(table, axis=0)) == len(table) <= min(2 ** (readers + 1), 70)


# leave one reader out -------------------------------------------------------------------------------------------------


@FEW
@given(readings(), st.booleans(), st.sampled_from(["iou", "dice"]))
def test_the_benchmark_equals_the_second_implementation(valued, reference, drawn, ties, measure):
    values, readers = drawn
    second = reference("human_benchmark")
    slow = second.human_benchmark(values.numpy(), [r.numpy() for r in readers], getattr(second, measure), ties)
    score = valued(HumanBenchmark(**HALF, measure=measure, ties=ties), values, readers)
    assert number(score) == pytest.approx(slow, abs=1e-12)
    assert number(score) == pytest.approx(score.detail["map"][0] - score.detail["readers"])


@pytest.mark.parametrize("shift", [0, 1, 2, 3])
def test_a_map_that_is_one_of_two_readers(shift, valued):
    """It agrees with the other as that one does, and with itself in full: half of 1 - IoU, IoU = (6 - s) / (6 + s)."""
    readers = [box((14, 8), (1, 1), (7, 7)), box((14, 8), (1 + shift, 1), (7 + shift, 7))]
    score = valued(HumanBenchmark(), readers[0].double(), readers)
    overlap = (6 - shift) / (6 + shift)
    assert number(score) == pytest.approx((1 - overlap) / 2)
    assert score.detail["by reader"] == {"r1": pytest.approx(overlap), "r2": pytest.approx(overlap)}
    assert "none on one case" in score.detail["verdict"]


def test_a_fourth_reader_of_the_same_habits_is_as_good_as_the_others(valued):
    """Readers and map draw the same disc with the same jitter: over 60 cases the mean difference is 0."""
    axes = torch.meshgrid(torch.arange(24).double(), torch.arange(24).double(), indexing="ij")
    draw = torch.Generator().manual_seed(4)
    gaps = []
    for _ in range(60):
        jitter = torch.randn(4, 2, generator=draw).double()
        masks = [(axes[0] - 11 - a) ** 2 + (axes[1] - 12 - b) ** 2 <= 25 for a, b in jitter]
        gaps.append(number(valued(HumanBenchmark(), masks[0].double(), masks[1:])))
    assert abs(np.mean(gaps)) < 2.6 * np.std(gaps) / np.sqrt(60)
    assert np.std(gaps) < 0.2


def test_hits_are_of_one_point_each(valued):
    """The deepest point of a reader's mask, the map's peak; two peaks of which one misses count half, never in full."""
    readers = [box((16, 16), (2, 2 + s), (9, 9 + s)) for s in (0, 1, 2)]
    values = torch.zeros(16, 16)
    values[5, 6] = 1.0
    metric = HumanBenchmark(measure="hit")
    score = valued(metric, values, readers)
    assert (number(score), score.detail["readers"]) == (0, 1)
    values[14, 14] = 1.0
    assert number(valued(metric, values, readers)) == pytest.approx(-0.5)
    far = [box((16, 16), (2, 2), (5, 5)), box((16, 16), (10, 10), (13, 13))]
    missed = valued(metric, torch.rand(16, 16), far)
    assert missed.detail["by reader"] == {"r1": 0, "r2": 0}


def test_depth_is_in_millimeters(valued):
    """A mask of 5 x 7 voxels of 4 mm x 1 mm is deepest along its middle: 3 voxels of 5 lie in the other's rows."""
    reader, other = box((12, 12), (2, 2), (7, 9)), box((12, 12), (2, 0), (5, 12))
    metric = HumanBenchmark(measure="hit")
    flat = valued(metric, torch.rand(12, 12), [reader, other], spacing=(4.0, 1.0)).detail["by reader"]["r1"]
    assert flat == pytest.approx(3 / 5)
    assert valued(metric, torch.rand(12, 12), [reader, other]).detail["by reader"]["r1"] == pytest.approx(1)


# manners --------------------------------------------------------------------------------------------------------------


@FEW
@given(readings(), st.data())
@pytest.mark.parametrize("metric", EVERY, ids=lambda m: m.name)
def test_readers_and_axes_have_no_order_and_maps_no_scale(metric, valued, drawn, data):
    values, readers = drawn
    plain = number(valued(metric, values, readers))
    shuffled = data.draw(st.permutations(readers))
    axes = data.draw(st.permutations(range(values.ndim)))
    turned = number(valued(metric, 3 * values.permute(axes).double(), [r.permute(axes) for r in shuffled]))
    assert turned == pytest.approx(plain, abs=1e-12)


@pytest.mark.parametrize("metric", [*KAPPAS, HumanBenchmark()], ids=lambda m: m.name)
def test_the_more_a_map_is_corrupted_the_less_it_agrees(metric, valued, nets):
    readers = [box((16, 16), (4, 4 + s), (11, 11 + s)) for s in (-1, 0, 1)]
    noise = nets.noise(60, 1, 16, 16, seed=5)
    means = [float(valued(metric, readers[1] + s * noise, readers).values.mean()) for s in (0.0, 0.5, 30.0)]
    assert means[0] > means[1] > means[2]


@pytest.mark.parametrize("metric", EVERY, ids=lambda m: m.name)
def test_a_batch_scores_as_its_items(metric, valued, nets):
    readers = [box((9, 8), (2, 1), (6, 5)), box((9, 8), (3, 1), (7, 5))]
    maps = nets.noise(3, 1, 9, 8)
    together = valued(metric, maps, readers).values
    alone = [valued(metric, maps[i : i + 1], readers).values for i in range(3)]
    assert torch.equal(together, torch.cat(alone))
    maps[1] = torch.nan
    broken = valued(metric, maps, readers)
    assert broken.reasons == ("", "the map is not finite", "")
    assert torch.equal(broken.values[[0, 2]], together[[0, 2]])


@pytest.mark.parametrize("metric", [FleissKappa(), KrippendorffAlpha(), HumanBenchmark()], ids=lambda m: m.name)
def test_one_reader_is_undefined(metric, valued):
    reader = box((8, 8), (1, 1), (4, 4))
    for readers in ({"anna": reader}, {}):
        score = valued(metric, torch.rand(8, 8), readers, region=reader)
        assert score.reasons == ("one reader only: agreement among readers needs two or more (--region READER=MASK)",)
        assert bool(torch.isnan(score.values).all())


def test_cohen_takes_an_unnamed_expert(valued):
    score = valued(CohenKappa(), torch.rand(8, 8), {}, region=box((8, 8), (1, 1), (4, 4)))
    assert score.detail["readers"] == ["expert"]
    assert score.detail["readers with each other"] == [None]


@pytest.mark.parametrize("metric", EVERY, ids=lambda m: m.name)
def test_what_is_undefined_says_why(metric, valued):
    readers = [box((8, 8), (1, 1), (4, 4)), box((8, 8), (2, 1), (5, 4))]
    assert valued(type(metric)(), torch.ones(8, 8), readers).reasons == ("the map is constant: it has no highest part",)
    assert valued(metric, -torch.rand(8, 8) - 1, readers).reasons == ("the map has no evidence for the target",)
    with pytest.raises(BadRegion, match=r"the mask of r2 to have shape \(8, 8\), got \(8, 4\)"):
        valued(metric, torch.rand(8, 8), [readers[0], readers[1][:, :4]])
    with pytest.raises(BadRegion, match="the region is empty"):
        valued(metric, torch.rand(8, 8), readers, region=torch.zeros(8, 8, dtype=torch.bool))


@pytest.mark.parametrize("metric", KAPPAS, ids=lambda m: m.name)
def test_a_reader_who_marked_nothing_of_the_region_of_interest(metric, valued):
    readers = {"anna": box((8, 8), (1, 1), (4, 4)), "boris": box((8, 8), (6, 6), (8, 8))}
    near = {"near": box((8, 8), (0, 0), (5, 5)), "inside": box((8, 8), (2, 2), (3, 3))}
    for roi, who in (("near", "boris"), ("inside", "anna")):
        score = valued(type(metric)(roi=roi), torch.rand(8, 8), readers, near)
        assert score.reasons == (f"{who} marked nothing of the region of interest, or all of it",)


def test_readers_who_share_nothing_have_no_consensus_without_ties(valued):
    readers = [box((9, 9), (3 * i, 0), (3 * i + 2, 4)) for i in range(3)]
    values = torch.rand(9, 9)
    score = valued(HumanBenchmark(ties=False), values, readers)
    assert score.reasons == ("without r1 the readers' consensus is nothing",)
    assert valued(HumanBenchmark(), values, readers).detail["readers"] == 0


def test_a_threshold_tuned_on_the_case_is_refused(valued):
    from pellucid.metrics.localization.threshold import digest

    readers = [box((8, 8), (1, 1), (4, 4)), box((8, 8), (2, 1), (5, 4))]
    for kind in (CohenKappa, FleissKappa, KrippendorffAlpha, HumanBenchmark, Dice):
        score = valued(kind(**HALF, tuned_on=digest(readers[0])), torch.rand(8, 8), readers)
        assert score.reasons == ("the threshold was tuned on this very case",)


@pytest.mark.parametrize(
    ("wrong", "problem"),
    [
        (lambda: HumanBenchmark(measure="kappa"), "expected measure iou, dice, hit, got 'kappa'"),
        (lambda: HumanBenchmark(margin=-0.1), "expected a margin from 0 to below 1, got -0.1"),
        (lambda: FleissKappa("fixed"), "expected a level between 0 and 1"),
    ],
)
def test_settings_outside_their_range(wrong, problem):
    with pytest.raises(BadOption, match=problem):
        wrong()
