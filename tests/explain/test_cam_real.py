"""The class activation methods on a real chest film with a planted nodule, and a network that was trained to find it.

The outline is exact, so the brightest place of each map must lie in it, to one cell of the layer.
"""

import numpy as np
import pytest
import torch

from pellucid.demo.cases import packaged
from pellucid.io.models import load_model
from pellucid.workbench.job import Request, run_case
from pellucid.workbench.registry import make_explainer

CELL = 8
FINDING = ("GradCAM", "HiResCAM", "LayerCAM", "EigenCAM", "EigenGradCAM", "ScoreCAM", "FullGrad")
REVERSED = ("GradCAMPlusPlus", "XGradCAM", "AblationCAM")


@pytest.fixture(scope="module")
def cases(pytestconfig):
    """The planted cases and the one without, by name, and the network."""
    found = {c.case.name: c for c in packaged() if c.model == "nodule"}
    card = pytestconfig.rootpath / "src" / "pellucid" / "demo" / "models" / "nodule" / "model.toml"
    return found, load_model(card)


def explained_case(cases, name, methods):
    """Explanations of a case by several methods in one panel."""
    found, loaded = cases
    asked = Request(targets=("nodule",), methods=tuple(make_explainer(m) for m in methods), checks=False)
    return run_case(found[name].case, loaded, asked).panel


@pytest.mark.parametrize("name", ["planted-nodule-upper-image-left", "planted-nodule-upper-image-right"])
def test_the_planted_nodule_is_the_brightest_place(name, cases):
    panel = explained_case(cases, name, FINDING)
    inside = np.asarray(cases[0][name].case.regions["nodule"].mask)
    for explanation in panel.explanations:
        values = explanation.attribution.collapsed()[0].numpy()
        assert float(values.max()) > 0
        place = np.unravel_index(values.argmax(), values.shape)
        near = inside[tuple(slice(max(0, p - CELL), p + CELL + 1) for p in place)]
        assert near.any(), explanation.provenance.method
    assert len({e.provenance.layer for e in panel.explanations if e.provenance.layer}) == 1
    assert panel.probes[0].spent.shared.forwards == 1


def test_without_a_nodule_the_evidence_is_against(cases):
    panel = explained_case(cases, "nothing-planted", ("GradCAM", "LayerCAM", "HiResCAM"))
    grad, layer, hires = (e.attribution for e in panel.explanations)
    assert float(grad.collapsed().max()) == float(layer.collapsed().max()) == 0
    assert "speaks against the target" in grad.warnings[0]
    assert float(hires.collapsed().max()) < 0


def test_methods_that_a_negative_layer_reverses_say_so(cases):
    """The layer is a logit per cell, below zero nearly everywhere: by formula these may show the complement."""
    panel = explained_case(cases, "planted-nodule-upper-image-right", REVERSED)
    for explanation in panel.explanations:
        assert "choose a layer behind a ReLU" in explanation.attribution.warnings[0]
    again = explained_case(cases, "planted-nodule-upper-image-right", [f"{m}:layer=stages" for m in REVERSED])
    inside = torch.as_tensor(cases[0]["planted-nodule-upper-image-right"].case.regions["nodule"].mask)
    for explanation in again.explanations:
        assert explanation.attribution.warnings == ()
        values = explanation.attribution.collapsed()[0]
        assert float(values[inside].mean()) > 3 * float(values[~inside].mean())
