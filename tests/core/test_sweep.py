"""Questions of several metrics merged: the same numbers as each alone, fewer forwards, errors kept apart."""

import pytest
import torch
from torch import nn

from pellucid.core.card import Ask, Cost
from pellucid.core.errors import NonFinite
from pellucid.core.infill import Constant, ItemMean
from pellucid.core.metric import Score
from pellucid.core.model import Model
from pellucid.core.prepare import InputSpec
from pellucid.core.probe import Probe
from pellucid.core.sweep import Hidden, Moved, Placed, Sweep, _digest
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


def test_a_layer_at_the_image_is_read_once_and_not_where_the_shared_pass_has_it():
    for needs, forwards in (((), 1 + 2), ([(Ask.ACTIVATION, "1")], 2)):
        plain, explainer = probe_of()
        probe = Probe(plain.model, plain.inputs, ClassScore(1), [*explainer.needs(plain.model, plain.inputs), *needs])
        make = shifted((0.1, 0.2))

        def asking(probe=probe, make=make):
            (found,) = yield (Moved(lambda: make(probe), lambda again: again.before["1"], ("1",)),)
            return score_of(torch.stack([f.sum(1) for f in found]).mean(0))

        sweep = Sweep(probe, explainer, [asking(), asking()])
        assert sweep.cost == Cost(forwards, 2)
        found = sweep.run()[0].values
        assert probe.spent.own == Cost(2 * forwards, 2 * 2)
        assert torch.allclose(found, probe.run(layers=("1",)).activation["1"].sum(1))


def test_named_inputs_are_made_once_and_found_again_by_name():
    probe, explainer = probe_of()
    made = []

    def named(by):
        def inputs():
            for b in by:
                made.append(b)
                yield {"image": probe.inputs["image"] + b}

        (found,) = yield (Moved(inputs, lambda again: again.score, keys=tuple(f"shift {b}" for b in by)),)
        return score_of(torch.stack(found).mean(0).double())

    sweep = Sweep(probe, explainer, [named((0.1, 0.2)), named((0.2, 0.1)), named((0.1, 0.2, 0.3))])
    assert (sweep.cost, made) == (Cost(3, 3), [])
    first, second, third = sweep.run()
    assert made == [0.1, 0.2, 0.1, 0.2, 0.3]  # the second question finds all its inputs answered
    assert torch.equal(first.values, second.values)
    alone = Sweep(*probe_of(), [moving(probe, (0.1, 0.2, 0.3))]).run()[0]
    assert torch.allclose(third.values, alone.values, rtol=1e-6)


def test_what_tells_masks_apart_is_computed_once(monkeypatch):
    probe, explainer = probe_of()
    hashed = []
    monkeypatch.setattr("pellucid.core.sweep._digest", lambda *a, f=_digest: hashed.append(1) or f(*a))
    sweep = Sweep(probe, explainer, [hiding(masks(1, 2, 3), ItemMean()), hiding(masks(2, 3), ItemMean())])
    assert (sweep.cost, sweep.cost) == (Cost(3), Cost(3))
    sweep.run()
    assert len(hashed) == 5


def test_what_may_follow_an_answer_is_in_the_cost():
    probe, explainer = probe_of()

    def asking():
        (rows,) = yield (Hidden(masks(1, 2), ItemMean(), then=3),)
        (more,) = yield (Hidden(masks(3), ItemMean()),)
        return score_of(rows.mean(0) + more[0])

    sweep = Sweep(probe, explainer, [asking()])
    assert sweep.cost == Cost(2 + 3)
    sweep.run()
    assert probe.spent.own.forwards == 3 * 2


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


def test_a_metric_that_fails_spares_those_of_the_same_fill():
    """Alone, the other one would have its score: so it has it beside the one that fails."""
    probe, explainer = probe_of(Fragile())
    black = torch.zeros(1, 4, 4)
    part = torch.ones(1, 4, 4)
    part[:, :1] = 0

    def elsewhere(by):
        (rows,) = yield (Placed(lambda: shifted((by,))(probe)),)
        return score_of(rows[0])

    askings = [hiding(lambda: [part, black], Constant(-1.0)), hiding(lambda: [1 - black], Constant(-1.0))]
    askings += [elsewhere(-2.0), elsewhere(0.5), moving(probe, (-2.0,)), moving(probe, (0.5,))]
    found = Sweep(probe, explainer, askings).run()
    assert [isinstance(f, NonFinite) for f in found] == [True, False] * 3


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

    sweep = Sweep(probe, explainer, [asking(("1",)), blind()])
    assert sweep.cost == Cost(2 + 1, 2)  # one more forward: the layer at the image itself
    reading, _ = sweep.run()
    assert probe.spent.own == Cost(2 * 3, 2 * 2)
    expected = sum(probe.run(x, layers=("1",)).activation["1"].sum(1) for x in make(probe))
    assert torch.allclose(reading.values, expected)


def test_masks_of_all_items_and_of_each_may_meet():
    probe, explainer = probe_of()
    one = torch.zeros(1, 4, 4)
    one[:, :2] = 1
    both = Sweep(probe, explainer, [hiding(lambda: [one], ItemMean()), hiding(masks(1), ItemMean())]).run()
    alone = Sweep(*probe_of(), [hiding(lambda: [one.expand(2, 4, 4)], ItemMean())]).run()
    assert torch.allclose(both[0].values, alone[0].values, rtol=1e-6)
