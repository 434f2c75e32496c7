"""Questions of several metrics merged: the same numbers as each alone, fewer forwards, errors kept apart."""

import pytest
import torch
from torch import nn

from pellucid.core.card import Cost
from pellucid.core.errors import NonFinite
from pellucid.core.infill import Constant, ItemMean
from pellucid.core.metric import Score
from pellucid.core.model import Model
from pellucid.core.prepare import InputSpec
from pellucid.core.probe import Probe
from pellucid.core.sweep import Hidden, Moved, Placed, Sweep
from pellucid.core.target import ClassScore
from pellucid.explain.gradient import InputXGradient


def probe_of(net=None, items=2):
    torch.manual_seed(0)
    net = net or nn.Sequential(nn.Flatten(), nn.Linear(16, 4), nn.Tanh(), nn.Linear(4, 2))
    model = Model(net, (InputSpec(rank=2),))
    x = torch.rand(items, 1, 4, 4)
    explainer = InputXGradient()
    return Probe(model, x, ClassScore(1), explainer.needs(model, {"image": x})), explainer


def masks(*seeds):
    def make():
        for seed in seeds:
            yield (torch.rand(2, 4, 4, generator=torch.Generator().manual_seed(seed)) > 0.5).float()

    return make


def score_of(values):
    return Score("test", values)


def hiding(make, fill):
    (rows,) = yield (Hidden(make, fill),)
    return score_of(rows.mean(0))


def shifted(by):
    def make(probe):
        return [{"image": probe.inputs["image"] + b} for b in by]

    return make


def moving(probe, by):
    (found,) = yield (Moved(lambda: shifted(by)(probe), lambda again: (again.answer.maps["image"].sum(), again.score)),)
    return score_of(torch.stack([score for _, score in found]).mean(0).double())


def test_masks_that_metrics_share_are_evaluated_once():
    probe, explainer = probe_of()
    askings = [hiding(masks(1, 2, 3), ItemMean()), hiding(masks(2, 3, 4), ItemMean()), hiding(masks(1), Constant(0.0))]
    sweep = Sweep(probe, explainer, askings)
    assert sweep.cost == Cost(5)
    before = probe.spent.own
    together = sweep.run()
    assert probe.spent.own.forwards - before.forwards == 5 * 2
    for make, fill, got in zip(
        (masks(1, 2, 3), masks(2, 3, 4), masks(1)), (ItemMean(),) * 2 + (Constant(0.0),), together, strict=True
    ):
        alone, explainer = probe_of()
        assert torch.allclose(Sweep(alone, explainer, [hiding(make, fill)]).run()[0].values, got.values, rtol=1e-6)


def test_what_was_asked_before_is_remembered():
    probe, explainer = probe_of()
    Sweep(probe, explainer, [hiding(masks(1, 2), ItemMean())]).run()
    spent = probe.spent.own
    again = Sweep(probe, explainer, [hiding(masks(2, 1), ItemMean())])
    assert again.cost == Cost(0)
    again.run()
    assert probe.spent.own == spent


def test_inputs_that_metrics_perturb_alike_are_explained_once():
    probe, explainer = probe_of()
    sweep = Sweep(probe, explainer, [moving(probe, (0.1, 0.2)), moving(probe, (0.2, 0.3))])
    assert sweep.cost == Cost(3, 3)
    before = probe.spent.own
    first, second = sweep.run()
    assert probe.spent.own.forwards - before.forwards == 3 * 2
    expected = [probe.score({"image": probe.inputs["image"] + b}) for b in (0.1, 0.2, 0.3)]
    assert torch.allclose(first.values, torch.stack(expected[:2]).mean(0).double(), atol=1e-6)
    assert torch.allclose(second.values, torch.stack(expected[1:]).mean(0).double(), atol=1e-6)


def test_scores_at_other_inputs_equal_the_probes():
    probe, explainer = probe_of()

    def asking():
        (rows,) = yield (Placed(lambda: shifted((0.1, 0.5))(probe)),)
        return score_of(rows[1])

    got = Sweep(probe, explainer, [asking()]).run()[0]
    assert torch.allclose(got.values, probe.score({"image": probe.inputs["image"] + 0.5}).double(), atol=1e-6)


class Fragile(nn.Module):
    def forward(self, x):
        flat = x.flatten(1)
        return torch.where(flat.min() < 0, torch.nan, flat[:, :2])


def test_one_metric_that_fails_leaves_the_others_their_scores():
    probe, explainer = probe_of(Fragile())
    bad, good = hiding(masks(1), Constant(-1.0)), hiding(masks(1), Constant(0.5))
    wrong, right = Sweep(probe, explainer, [bad, good]).run()
    assert isinstance(wrong, NonFinite)
    assert torch.isfinite(right.values).all()


def test_questions_may_follow_answers_and_be_several():
    probe, explainer = probe_of()

    def asking():
        first, second = yield Hidden(masks(1), ItemMean()), Hidden(masks(1), Constant(0.0))
        (third,) = yield (Hidden(masks(2), ItemMean()),)
        return score_of(first[0] + second[0] + third[0])

    def refusing():
        yield from ()
        return score_of(torch.full((2,), torch.nan, dtype=torch.float64))

    got, nothing = Sweep(probe, explainer, [asking(), refusing()]).run()
    rows = [
        Sweep(*probe_of(), [hiding(m, f)]).run()[0].values
        for m, f in ((masks(1), ItemMean()), (masks(1), Constant(0.0)), (masks(2), ItemMean()))
    ]
    assert torch.allclose(got.values, sum(rows), rtol=1e-6)
    assert nothing.values.isnan().all()


@pytest.mark.parametrize("items", [1, 2])
def test_the_model_and_the_map_are_as_before(items):
    probe, explainer = probe_of(items=items)
    before = explainer(probe).maps["image"].clone()
    Sweep(probe, explainer, [moving(probe, (0.1,))]).run()
    assert torch.equal(explainer(probe).maps["image"], before)


def test_a_layer_is_read_in_the_pass_that_explains():
    probe, explainer = probe_of()
    make = shifted((0.1, 0.2))

    def asking(layers):
        (found,) = yield (Moved(lambda: make(probe), lambda again: again.activation, layers),)
        return score_of(torch.stack([f["1"].sum(1) if f else torch.zeros(2) for f in found]).sum(0))

    def blind():
        (found,) = yield (Moved(lambda: make(probe), lambda again: again.score),)
        return score_of(torch.stack(found).sum(0))

    reading, _ = Sweep(probe, explainer, [asking(("1",)), blind()]).run()
    assert probe.spent.own == Cost(4, 4)
    expected = sum(probe.run(x, layers=("1",)).activation["1"].sum(1) for x in make(probe))
    assert torch.allclose(reading.values, expected)


def test_masks_of_all_items_and_of_each_may_meet():
    probe, explainer = probe_of()
    one = torch.zeros(1, 4, 4)
    one[:, :2] = 1
    both = Sweep(probe, explainer, [hiding(lambda: [one], ItemMean()), hiding(masks(1), ItemMean())]).run()
    alone = Sweep(*probe_of(), [hiding(lambda: [one.expand(2, 4, 4)], ItemMean())]).run()
    assert torch.allclose(both[0].values, alone[0].values, rtol=1e-6)
