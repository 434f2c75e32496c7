"""Agreement between methods on one case: known correlations, an interval that says what it covers, and its groups."""

from dataclasses import replace

import numpy as np
import pytest
import skimage
import torch
from scipy.stats import t
from torch import nn

from pellucid.core.card import Family
from pellucid.core.errors import BadOption
from pellucid.core.explanation import Answer, Attribution
from pellucid.core.model import Model
from pellucid.core.prepare import InputSpec
from pellucid.core.probe import Probe, Scene
from pellucid.core.target import ClassScore
from pellucid.explain.cam import GradCAM, HiResCAM
from pellucid.explain.gradient import InputXGradient, Saliency
from pellucid.explain.guided import GuidedBackprop
from pellucid.explain.noise import SmoothGrad
from pellucid.explain.path import IntegratedGradients
from pellucid.metrics import agreement
from pellucid.metrics.agreement import MethodAgreement, over_places, question, spread
from pellucid.workbench.registry import make_metric, metrics

SHAPE = {2: (12, 10), 3: (6, 7, 8)}


def maps(count, *shape, shared=0.7, seed=0):
    """Positive maps that have a part in common."""
    random = np.random.default_rng(seed)
    common = random.gamma(2.0, size=shape)
    return [shared * common + (1 - shared) * random.gamma(2.0, size=shape) for _ in range(count)]


def panel_of(given, methods, cells=None):
    """Maps as the answers of methods."""
    rank = given[0].ndim
    return [
        (method, Attribution({"image": torch.from_numpy(np.array(m))[None, None]}, "logit", method.card.signed, cell=c))
        for m, method, c in zip(given, methods, cells or [(1.0,) * rank] * len(given), strict=True)
    ]


def scored(panel, shape, metric=None, seed=0):
    net = nn.Sequential(nn.Flatten(), nn.Linear(int(np.prod(shape)), 1))
    probe = Probe(
        Model(net, (InputSpec(rank=len(shape)),)), torch.zeros(1, 1, *shape), ClassScore(0), (), Scene(seed=seed)
    )
    return (metric or MethodAgreement())(probe, panel)


@pytest.mark.parametrize("rank", [2, 3])
@pytest.mark.parametrize("count", [3, 5])
def test_equal_to_the_second_implementation_with_its_interval(rank, count, reference):
    given, second = maps(count, *SHAPE[rank]), reference("method_agreement")
    score = scored(panel_of(given, [InputXGradient()] * count), SHAPE[rank])
    value, error = second.method_agreement(given), second.jackknife_error(given)
    assert float(score.values) == pytest.approx(value, abs=1e-9)
    reach = t.ppf(0.975, count - 1) * error
    low, high = score.detail["interval over methods"][0]
    assert low == pytest.approx(max(-1, value - reach), abs=1e-9)
    assert high == pytest.approx(min(1, value + reach), abs=1e-9)
    assert score.detail["pairs"] == [count * (count - 1) // 2]
    assert "neither covers other images" in score.detail["covers"]


@pytest.mark.parametrize("measure", ["spearman", "overlap", "ssim"])
def test_the_same_map_thrice_is_alike_exactly(measure):
    one = maps(1, 12, 10)[0]
    score = scored(panel_of([one, 3 * one, one], [InputXGradient()] * 3), (12, 10), MethodAgreement(measure))
    assert score.values.tolist() == [1]
    assert score.detail["interval over methods"][0] == pytest.approx([1, 1])
    assert score.detail["interval"][0] == pytest.approx([1, 1])


def test_signed_maps_are_compared_by_what_speaks_for_the_target():
    one = maps(1, 12, 10)[0] - 2
    score = scored(panel_of([one, np.maximum(one, 0)], [InputXGradient(), InputXGradient()]), (12, 10))
    assert score.values.tolist() == [1]


def test_only_methods_that_answer_one_question_are_compared():
    given = maps(5, 12, 10)
    methods = [Saliency(), InputXGradient(), GradCAM(), IntegratedGradients(), HiResCAM()]
    score = scored(panel_of(given, methods), (12, 10))
    groups = score.detail["groups"][0]
    assert {q: g["methods"] for q, g in groups.items()} == {
        "what the score reacts to": ["Saliency"],
        "what contributes to the score": ["InputXGradient", "IntegratedGradients"],
        "which region of a layer speaks for the target": ["GradCAM", "HiResCAM"],
    }
    assert score.detail["pairs"] == [2]
    square = score.detail["spearman"][0]
    assert float(score.values) == pytest.approx((square[1][3] + square[2][4]) / 2)
    assert groups["what the score reacts to"]["mean"] is None
    assert square[0][1] is not None, "pairs of other questions stand in the matrix"
    assert [square[i][i] for i in range(5)] == [1] * 5


def test_each_method_answers_one_question():
    x = torch.zeros(1, 1, 4, 4)
    probe = Probe(Model(nn.Sequential(nn.Flatten(), nn.Linear(16, 1))), x, ClassScore(0))
    answer = Attribution({"image": x}, "logit", signed=True)
    slope = replace(answer, unit="logit per network unit")
    assert question(InputXGradient(), answer, probe) == "what contributes to the score"
    assert question(GuidedBackprop(), replace(answer, unit="a.u."), probe) == "what the score reacts to"
    assert question(SmoothGrad(), slope, probe) == "what the score reacts to"
    assert question(GradCAM(), answer, probe).startswith("which region")
    assert GradCAM.card.family is Family.CAM


def test_maps_that_have_more_in_common_agree_more():
    found = [
        scored(panel_of(maps(4, 16, 16, shared=s), [InputXGradient()] * 4), (16, 16)) for s in (0.0, 0.3, 0.6, 0.9)
    ]
    assert np.all(np.diff([float(f.values) for f in found]) > 0)
    low, high = found[0].detail["interval"][0]
    assert low < 0.1
    assert high > -0.1
    assert all(f.detail["interval"][0][0] < float(f.values) < f.detail["interval"][0][1] for f in found)


def test_neither_order_nor_unit_of_the_maps_matters():
    given, methods = maps(4, 12, 10), [InputXGradient()] * 4
    one = scored(panel_of(given, methods), (12, 10))
    other = scored(panel_of([(10 ** (i - 1)) * m for i, m in enumerate(given[::-1])], methods), (12, 10))
    assert float(one.values) == pytest.approx(float(other.values), abs=1e-12)
    for interval in ("interval", "interval over methods"):
        assert one.detail[interval][0] == pytest.approx(other.detail[interval][0], abs=1e-12)


def test_maps_are_compared_on_the_coarser_cell_of_a_pair():
    """Noise finer than the cell of the coarser map does not count."""
    coarse = np.random.default_rng(1).gamma(2.0, size=(8, 8))
    fine = np.kron(coarse, np.ones((4, 4)))
    ripple = np.tile([[1.0, -1.0], [-1.0, 1.0]], (16, 16))
    panel = panel_of([fine, fine + ripple * 0.9 * fine], [GradCAM(), HiResCAM()], [(4.0, 4.0), (1.0, 1.0)])
    assert scored(panel, (32, 32)).values.tolist() == [1]


def test_the_jackknife_covers_methods_that_are_drawn():
    """Maps with one common part: nearly all intervals of six methods hold the correlation of all methods."""
    true = float(scored(panel_of(maps(20, 8, 8, shared=0.5), [InputXGradient()] * 20), (8, 8)).values)
    hit = 0
    pool = maps(20, 8, 8, shared=0.5)
    for draw in range(20):
        chosen = np.random.default_rng(draw).choice(20, 6, replace=False)
        score = scored(panel_of([pool[i] for i in chosen], [InputXGradient()] * 6), (8, 8))
        low, high = score.detail["interval over methods"][0]
        hit += low <= true <= high
    assert hit >= 17


def test_tiles_of_a_smooth_map_leave_a_wider_interval_than_voxels_would(monkeypatch):
    """Neighbors say the same: drawn one by one they would pretend to be many."""
    line = np.add.outer(np.sin(np.arange(32) / 5), np.cos(np.arange(32) / 7)) + 2.5
    panel = panel_of([line, line.T], [InputXGradient()] * 2)
    wide = scored(panel, (32, 32)).detail["interval"][0]
    monkeypatch.setattr(agreement, "_TILES", 32)
    narrow = scored(panel, (32, 32)).detail["interval"][0]
    assert wide[1] - wide[0] > 2 * (narrow[1] - narrow[0])
    assert over_places is agreement.over_places


class Sentence(Answer):
    """An answer that is no map."""

    @property
    def kind(self):
        """In one word."""
        return "sentence"


def test_what_cannot_be_compared_is_named():
    given = maps(4, 12, 10)
    given[1], given[2] = -given[1], given[2] * np.nan
    panel = [
        *panel_of(given, [InputXGradient(), IntegratedGradients(), SmoothGrad(), Saliency()]),
        (HiResCAM(), Sentence()),
    ]
    score = scored(panel, (12, 10))
    assert score.detail["left out"] == [
        {
            "IntegratedGradients": "nothing speaks for the target",
            "SmoothGrad": "not finite",
            "HiResCAM": "no map on the grid of the input",
        }
    ]
    assert score.reasons == ("fewer than two maps that answer the same question can be compared",)
    assert bool(torch.isnan(score.values).all())
    assert spread([[1.0]], [[]]) == (pytest.approx(float("nan"), nan_ok=True), None, None)


def test_questions_are_strata(reference):
    """Two groups of three: the mean weighs each by its pairs, and so does its variance."""
    second, given = reference("method_agreement"), [*maps(3, 12, 10), *maps(4, 12, 10, shared=0.3, seed=1)]
    methods = [*[InputXGradient()] * 3, *[GradCAM()] * 4]
    score = scored(panel_of(given, methods), (12, 10))
    parts = given[:3], given[3:]
    means = [second.method_agreement(p) for p in parts]
    assert float(score.values) == pytest.approx((3 * means[0] + 6 * means[1]) / 9, abs=1e-9)
    errors = [w * second.jackknife_error(p) for w, p in zip((3 / 9, 6 / 9), parts, strict=True)]
    reach = t.ppf(0.975, 5) * np.hypot(*errors)
    assert score.detail["interval over methods"][0] == pytest.approx(
        [float(score.values) - reach, min(1, float(score.values) + reach)], abs=1e-9
    )


@pytest.mark.parametrize("measure", ["spearman", "overlap", "ssim"])
def test_the_interval_over_places_lies_about_the_value(measure):
    score = scored(panel_of(maps(4, 40, 40), [InputXGradient()] * 4), (40, 40), MethodAgreement(measure))
    low, high = score.detail["interval"][0]
    assert low < float(score.values) < high
    assert high - low < 0.3


def test_two_maps_have_no_interval_over_methods():
    score = scored(panel_of(maps(2, 12, 10), [InputXGradient()] * 2), (12, 10))
    assert score.detail["interval over methods"] == [[None, None]]
    assert score.detail["interval"][0][0] < float(score.values) < score.detail["interval"][0][1]


def test_constant_maps_have_no_ranks():
    score = scored(panel_of([np.ones((12, 10))] * 3, [InputXGradient()] * 3), (12, 10))
    assert score.reasons[0].startswith("fewer than two maps")


def test_options_outside_their_range():
    with pytest.raises(BadOption, match="expected measure"):
        MethodAgreement("pearson")


def test_it_is_listed_and_made_as_every_metric():
    assert metrics()["MethodAgreement"] is MethodAgreement
    assert make_metric("methodagreement:measure=ssim") == MethodAgreement("ssim")
    assert list(metrics()) == sorted(metrics())


@pytest.mark.parametrize("items", [1, 2])
def test_a_real_photograph(items, nets, model_of):
    """Methods of one question agree more with each other than with an edge picture; each item by itself."""
    data = np.asarray(skimage.data.retina(), dtype=np.float64)[:1408, :1408].reshape(32, 44, 32, 44, 3).mean((1, 3))
    x = torch.from_numpy(data).permute(2, 0, 1)[None] / 255
    x = torch.cat([x, x.flip(-1)])[:items]
    net = nets.seeded(
        lambda: nn.Sequential(nn.Conv2d(3, 6, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(96, 2))
    )
    model, methods = model_of(net, 2, 3), (InputXGradient(), IntegratedGradients(8), GradCAM("1"), HiResCAM("1"))
    needs = {need for m in methods for need in m.needs(model, {"image": x})}
    probe = Probe(model, x, ClassScore(1), needs)
    score = MethodAgreement()(probe, [(m, m(probe)) for m in methods])
    assert bool((score.values > 0.2).all())
    assert len(score.detail["methods"]) == items
    assert score.detail["methods"][0] == [m.name for m in methods]
