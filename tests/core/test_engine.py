"""Engines: only scores go through them, in their micro-batch, counted, checked, and level with the module."""

import pytest
import torch
from torch import nn

from pellucid.core.card import Ask, Cost
from pellucid.core.engine import Engine
from pellucid.core.errors import NonFinite
from pellucid.core.masking import Stream
from pellucid.core.model import Model
from pellucid.core.probe import Probe
from pellucid.core.target import ClassScore


class Planted(Engine):
    """The sum of each item and its double, plus something; remembers how many items came at once."""

    def __init__(self, batch=4, fixed=False, plus=0.0, dtype=torch.float32):
        super().__init__("planted", "planted", batch, fixed)
        object.__setattr__(self, "seen", [])
        object.__setattr__(self, "plus", plus)
        object.__setattr__(self, "dtype", dtype)

    def _run(self, inputs):
        x = inputs["image"]
        self.seen.append(len(x))
        total = x.flatten(1).sum(1)
        return (torch.stack([total, 2 * total], 1) + self.plus).to(self.dtype)


class Totals(nn.Module):
    def forward(self, x):
        total = x.flatten(1).sum(1)
        return torch.stack([total, 2 * total], 1)


def probe_of(x, engine, *targets):
    return Probe(Model(Totals()), x, targets or (ClassScore(1),), engine=engine)


@pytest.mark.parametrize(("fixed", "seen"), [(False, [4, 4, 1]), (True, [4, 4, 4])])
def test_items_come_in_micro_batches(draw, fixed, seen) -> None:
    x = draw(9, 1, 3, 5)
    engine = Planted(4, fixed, dtype=torch.float64)
    out = engine({"image": x})
    assert engine.seen == seen
    assert out.dtype == torch.float32
    assert torch.allclose(out[:, 1], 2 * x.flatten(1).sum(1))


def test_only_the_score_goes_through_the_engine(draw) -> None:
    x, engine = draw(2, 1, 3, 5), Planted()
    probe = Probe(Model(Totals()), x, ClassScore(1), [(Ask.INPUT_GRADIENT, None)], engine=engine)
    assert torch.equal(probe.input_gradient["image"], torch.full_like(x, 2))
    assert torch.allclose(probe.gradient({"image": x})["image"], torch.full_like(x, 2))
    probe.run({"image": x})
    assert engine.seen == []
    assert torch.allclose(probe.score({"image": 3 * x}), 6 * x.flatten(1).sum(1))
    assert engine.seen == [2, 2]  # the unperturbed input once, then what was asked


def test_its_passes_are_counted_like_the_modules(draw) -> None:
    x = draw(2, 1, 3, 5)
    probe = probe_of(x, Planted())
    probe.score({"image": x.repeat(3, 1, 1, 1)})
    probe.checking().score({"image": x})
    assert (probe.spent.own, probe.spent.checks, probe.spent.engine) == (Cost(6), Cost(2), 8)
    assert probe.spent.shared == Cost(4)  # the module and the engine, each once for both items


def test_what_it_gives_too_much_everywhere_is_taken_off(draw) -> None:
    x, engine = draw(2, 1, 3, 5), Planted(plus=0.25)
    probe = probe_of(x, engine, ClassScore(0), ClassScore(1))
    for aim in (0, 1):
        at = probe.at(aim)
        assert torch.allclose(at.score(probe.inputs), at.baseline_score, atol=1e-5)
        assert torch.allclose(at.score({"image": 0 * x}), torch.zeros(2), atol=1e-5)


def test_not_a_number_is_refused(draw) -> None:
    probe = probe_of(draw(1, 1, 3, 5), Planted(plus=torch.nan))
    with pytest.raises(NonFinite, match="NaN or infinite"):
        probe.score(probe.inputs)


def test_another_model_is_not_evaluated_by_it(draw) -> None:
    probe = probe_of(draw(1, 1, 3, 5), Planted())
    assert probe.on(Model(Totals())).engine is None
    assert probe.at(0).engine is probe.engine
    assert probe.through(None).engine is None


@pytest.mark.parametrize(("batch", "items", "chunk"), [(64, 1, 64), (64, 3, 21), (2, 3, 1)])
def test_a_stream_takes_its_chunk_from_the_engine(draw, batch, items, chunk) -> None:
    probe = probe_of(draw(items, 1, 3, 5), Planted(batch))
    assert Stream(probe).chunk == chunk
    assert Stream(probe, gradient=True).chunk == max(1, 8 // items)
