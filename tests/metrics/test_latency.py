"""How long an explanation takes, on a clock that the test turns: no assertion depends on the machine."""

import itertools

import pytest
import torch

from pellucid.core.card import Cost
from pellucid.core.engine import Engine
from pellucid.core.errors import BadOption
from pellucid.core.explanation import Answer
from pellucid.core.probe import Probe, Scene
from pellucid.core.target import ClassScore
from pellucid.explain.cam import GradCAM
from pellucid.explain.gradient import Saliency
from pellucid.explain.occlusion import Occlusion
from pellucid.metrics.utility import Latency


@pytest.fixture
def taking(monkeypatch):
    """Every explanation takes the next of some times."""

    def turn(*seconds):
        moments = itertools.accumulate(itertools.chain.from_iterable((1.0, s) for s in seconds))
        monkeypatch.setattr(Latency, "clock", staticmethod(lambda: next(moments)))

    return turn


def timed(metric, model, x, method=None, **scene):
    method = method or Saliency()
    inputs = {"image": x}
    probe = Probe(model, inputs, [ClassScore(1), ClassScore(0)], method.needs(model, inputs), Scene(**scene))
    return metric(probe.at(1), method(probe), method, None), probe


@pytest.fixture
def model(nets, model_of):
    """A small network on a batch of two."""
    return model_of(nets.classifier(2), 2, 2), nets.noise(2, 2, 8, 10)


@pytest.mark.parametrize("count", [1, 4, 20, 40])
def test_percentiles_of_known_times(count, model, taking, reference):
    warm = [0.1 * (i * 7 % count + 1) for i in range(count)]
    taking(9.0, *warm)
    score, _ = timed(Latency(count, budget_s=2.0), *model)
    second = reference("latency").latency
    assert score.values.tolist() == pytest.approx([second(warm, 0.95)] * 2, abs=1e-9)
    assert score.detail["p50"] == pytest.approx(second(warm, 0.5), abs=1e-9)
    assert score.detail["cold"] == pytest.approx(9.0)
    assert score.detail["warm"] == pytest.approx(warm)
    assert ("means" in score.detail) == (count < 20)
    within = sum(s <= 2.0 for s in warm) / count
    assert score.detail["share within the budget"] == pytest.approx(within)
    assert score.detail["within the budget"] == (second(warm, 0.95) <= 2.0)


def test_what_came_before_counts_where_it_is_known(model, taking):
    taking(1.0, 0.5, 0.5)
    score, _ = timed(Latency(2), *model, before_s={"reading": 0.25, "preparing": 1.0})
    assert score.values.tolist() == pytest.approx([1.75, 1.75])
    assert score.detail["cold from the file"] == pytest.approx(2.25)
    assert score.detail["not in it"] == ["loading the model", "the page"]
    taking(1.0, 0.5, 0.5)
    score, _ = timed(Latency(2), *model, before_s={"preparing": 1.0})
    assert score.values.tolist() == pytest.approx([1.5, 1.5])
    assert score.detail["not in it"][0] == "reading"


@pytest.mark.parametrize("method", [Saliency(), GradCAM(), Occlusion(4.0, 4.0)], ids=lambda m: m.name)
def test_each_repeat_explains_anew_and_is_counted(method, model, taking):
    taking(*[1.0] * 4)
    metric = Latency(3)
    score, probe = timed(metric, *model, method)
    again = Probe(model[0], model[1], ClassScore(0), method.needs(model[0], {"image": model[1]}))
    method(again)
    each = again.spent.shared + again.spent.own
    assert metric.cost(probe, method) * 2 == each * 4
    method_own = method.cost(probe) * 2
    assert probe.spent.own == method_own + each * 4, "both targets share a probe, one alone is explained again"
    assert (score.detail["engine"], score.detail["precision"], score.detail["items at once"]) == ("eager", "float32", 2)
    assert "threads" in score.detail["device"]


def test_the_first_asks_a_model_that_nobody_asked(model, taking, monkeypatch):
    """Its layers are not known yet; the model itself keeps what it knows."""
    net, x = model
    net.layers({"image": x})
    known, seen, plain = dict(net._traces), [], GradCAM.needs
    monkeypatch.setattr(GradCAM, "needs", lambda self, m, y: seen.append(len(m._traces)) or plain(self, m, y))
    taking(*[1.0] * 3)
    timed(Latency(2), net, x, GradCAM())
    assert seen[1:] == [0, len(known), len(known)]
    assert net._traces == known


class Sentence(Answer):
    """An answer that is no map takes time too."""

    @property
    def kind(self):
        """In one word."""
        return "sentence"


def test_an_answer_that_is_no_map_takes_time_too(model, taking):
    taking(1.0, 0.5)
    probe = Probe(*model, ClassScore(0), Saliency().needs(model[0], {"image": model[1]}))
    assert Latency(1)(probe, Sentence(), Saliency(), None).values.tolist() == [0.5, 0.5]


def test_without_repeats(model, taking):
    taking(3.0)
    score, _ = timed(Latency(0), *model)
    assert set(score.reasons) == {"no repeats: a percentile has nothing to be taken from"}
    assert bool(torch.isnan(score.values).all())
    assert score.detail["cold"] == pytest.approx(3.0)


def test_it_is_a_time_and_less_is_better():
    card = Latency.card
    assert (card.unit, card.direction, card.repeatable) == ("s", "lower", False)
    assert Latency().cost is not None


@pytest.mark.parametrize("bad", [(-1, 2.0), (5, 0.0)])
def test_options_outside_their_range(bad):
    with pytest.raises(BadOption, match="expected repeats"):
        Latency(*bad)


def test_a_real_clock_goes_forward(model):
    score, _ = timed(Latency(2), *model)
    assert bool((score.values > 0).all())
    assert score.detail["p50"] <= score.detail["p95"]


def test_through_an_engine_where_the_method_only_looks_at_scores(model, taking):
    """Gradients are the module's own; what hides parts goes through the engine, which is named."""

    class Twice(Engine):
        def _run(self, inputs):
            return model[0](inputs)

    for method, engine in ((Occlusion(4.0, 4.0), "twice"), (Saliency(), "eager")):
        taking(1.0, 0.5)
        inputs = {"image": model[1]}
        probe = Probe(
            model[0], inputs, ClassScore(0), method.needs(model[0], inputs), engine=Twice("twice", "float32", 8)
        )
        answer = method(probe.through(None))
        before = probe.spent.own
        score = Latency(1)(probe, answer, method, None)
        assert score.detail["engine"] == engine
        spent = probe.spent.own.forwards - before.forwards
        assert spent == Latency(1).cost(probe, method).forwards * 2
    assert Latency(1).cost(probe, Saliency()) == Cost(2, 2)
