"""Engines at the workbench: what a reader is told, which passes go through them, and that nothing else changes."""

from dataclasses import dataclass
from typing import Any

import pytest
import torch

from pellucid.core.engine import Engine
from pellucid.core.errors import BadOption, UnknownName
from pellucid.core.target import ClassScore
from pellucid.engines import choosing
from pellucid.engines.choosing import Offer
from pellucid.engines.selfcheck import Limit
from pellucid.explain.gradient import Saliency
from pellucid.explain.occlusion import Occlusion
from pellucid.explain.path import IntegratedGradients
from pellucid.metrics.faithfulness.curves import DeletionAUC, InsertionAUC
from pellucid.metrics.randomization.weights import ModelParameterRandomization
from pellucid.workbench import hastening
from pellucid.workbench.checking import calculation_checks
from pellucid.workbench.evaluating import score_panel
from pellucid.workbench.explaining import Manner, explain_case
from pellucid.workbench.hastening import through_engine
from pellucid.workbench.opening import open_case


@dataclass(frozen=True, eq=False)
class Twice(Engine):
    """The module's scores, as they are or spoiled."""

    model: Any = None
    spoil: float = 0.0

    def _run(self, inputs):
        with self.model.held():
            out = self.model({k: v.clone() for k, v in inputs.items()})
        return out + self.spoil * torch.sin(1e4 * out)


@pytest.fixture
def planted(monkeypatch):
    """One engine to choose from: ``planted`` keeps the scores, ``spoiled`` does not."""

    def offer(name, spoil):
        return Offer(
            name, "cpu", Limit(0.999, 0.01), lambda s: Twice(name, "planted", 8, False, s.model, spoil), 0.3, 0
        )

    offers = (offer("planted", 0.0), offer("spoiled", 1.0))

    def chosen(probe, allowed, budget=None):
        return choosing.choose_engine(probe, allowed, budget, offers)

    choosing._built.clear()
    monkeypatch.setattr(hastening, "choose_engine", chosen)
    monkeypatch.setattr(hastening, "AUTOMATIC", ("planted", "spoiled"))
    yield
    choosing._built.clear()


METHODS = [Saliency(), Occlusion(window=4.0), IntegratedGradients(steps=2)]


def panel_of(classifier, case, engine, methods=METHODS):
    return explain_case(open_case(case, classifier), [ClassScore("bright")], methods, Manner(engine=engine))


@pytest.mark.usefixtures("planted")
def test_only_what_hides_is_computed_by_the_engine_and_says_so(classifier, make_case) -> None:
    fast, plain = (panel_of(classifier, make_case(), e) for e in ("planted", "eager"))
    made = {e.provenance.method: e.provenance for e in fast.explanations}
    assert {n: p.engine for n, p in made.items()} == {
        "Saliency": "eager",
        "Occlusion": "planted",
        "IntegratedGradients": "eager",
    }
    said = [w for w in made["Occlusion"].warnings if w.startswith("computed with planted (planted): effect error 0%")]
    assert len(said) == 1
    assert "r 1.0000 on 16 masks" in said[0]
    assert not [w for n in ("Saliency", "IntegratedGradients") for w in made[n].warnings if "planted" in w]
    for ours, theirs in zip(fast.explanations, plain.explanations, strict=True):
        assert torch.allclose(ours.attribution.maps["image"], theirs.attribution.maps["image"], atol=1e-5)
        assert ours.provenance.own == theirs.provenance.own
        assert theirs.provenance.engine == "eager"


@pytest.mark.usefixtures("planted")
def test_an_engine_that_was_refused_is_told_where_it_was_wanted(classifier, make_case) -> None:
    panel = panel_of(classifier, make_case(), "spoiled")
    saliency, occlusion, _ = (e.provenance for e in panel.explanations)
    assert occlusion.engine == "eager"
    assert any(
        w.startswith("the engine spoiled was refused and the module itself used: it errs") for w in occlusion.warnings
    )
    assert not [w for w in saliency.warnings if "spoiled" in w]


@pytest.mark.usefixtures("planted")
def test_metrics_go_through_the_engine_and_checks_do_not(classifier, make_case) -> None:
    panel = panel_of(classifier, make_case(), "planted")
    before = panel.probes[0].spent.engine
    calculation_checks(panel)
    assert panel.probes[0].spent.engine == before
    scores = score_panel(panel, make_case(), [DeletionAUC(steps=3, random_orders=1)])
    assert panel.probes[0].spent.engine > before
    assert {s.plain()["settings"]["engine"] for s in scores} == {"planted"}


@pytest.mark.usefixtures("planted")
def test_auto_leaves_a_few_forwards_to_the_module(classifier, make_case) -> None:
    few = panel_of(classifier, make_case(), "auto", [Occlusion(window=8.0, stride=8.0)]).explanations[0].provenance
    assert few.engine == "eager"
    assert not [w for w in few.warnings if "engine" in w]
    many = panel_of(classifier, make_case(), "auto", [Occlusion(window=2.0, stride=1.0)]).explanations[0].provenance
    assert many.engine == "planted"


@pytest.mark.usefixtures("planted")
def test_auto_counts_what_the_metrics_will_ask(classifier, make_case) -> None:
    few, opened = [Occlusion(window=8.0, stride=8.0)], open_case(make_case(), classifier)
    engines = {}
    for metrics in ((), (ModelParameterRandomization(levels=40),), (DeletionAUC(steps=40), InsertionAUC(steps=40))):
        manner = Manner(engine="auto", metrics=metrics)
        probe = explain_case(opened, [ClassScore("bright")], few, manner).probes[0]
        engines[len(metrics)] = probe.engine.name if probe.engine else "eager"
    assert engines == {0: "eager", 1: "eager", 2: "planted"}


@pytest.mark.usefixtures("planted")
def test_a_metric_alone_is_worth_an_engine_that_is_asked_for(classifier, make_case) -> None:
    opened, metrics = open_case(make_case(), classifier), (DeletionAUC(),)
    manner = Manner(engine="planted", metrics=metrics)
    panel = explain_case(opened, [ClassScore("bright")], [Saliency()], manner)
    assert panel.explanations[0].provenance.engine == "eager"
    score_panel(panel, make_case(), metrics)
    assert panel.probes[0].spent.engine > 0


def test_without_a_method_that_hides_nothing_is_built(classifier, make_case) -> None:
    panel = panel_of(classifier, make_case(), "openvino", [Saliency()])
    assert panel.probes[0].engine is None


def test_half_precision_twice_is_refused(classifier, make_case) -> None:
    opened = open_case(make_case(), classifier)
    with pytest.raises(BadOption, match="float32 with the engine"):
        explain_case(opened, [ClassScore("bright")], [Occlusion()], Manner("bfloat16", engine="auto"))


def test_an_engine_that_does_not_exist_is_refused(classifier, make_case) -> None:
    probe = panel_of(classifier, make_case(), "eager").probes[0]
    with pytest.raises(UnknownName, match="engines: eager"):
        through_engine(probe, [Occlusion()], "warp")
