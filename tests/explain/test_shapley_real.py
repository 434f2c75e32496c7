"""The Shapley family on a real film with a planted nodule and a real brain volume, with networks that were trained.

The nodule's outline is exact, so the part that holds most of it must earn most.
"""

import pytest
import torch

from pellucid.core.players import players_of
from pellucid.demo.cases import packaged
from pellucid.explain.owen import PartitionSHAP
from pellucid.explain.shapley import ExactShapley, KernelSHAP
from pellucid.io.models import load_model
from pellucid.workbench.job import Request, run_case


@pytest.fixture(scope="module")
def cases(pytestconfig):
    """Packaged cases by name, and networks by name."""
    folder = pytestconfig.rootpath / "src" / "pellucid" / "demo" / "models"
    return {c.case.name: c for c in packaged()}, lambda name: load_model(folder / name / "model.toml")


@pytest.mark.parametrize("name", ["planted-nodule-upper-image-left", "planted-nodule-upper-image-right"])
@pytest.mark.parametrize(
    "methods",
    [
        (KernelSHAP("grid:4", 200), PartitionSHAP("grid:4", 120)),
        (KernelSHAP("superpixels:30", 200),),
        (ExactShapley("regions"), KernelSHAP("regions"), PartitionSHAP("regions")),
    ],
    ids=lambda m: m[0].players,
)
def test_the_part_with_the_nodule_earns_most(name, methods, cases):
    found, network = cases
    panel = run_case(found[name].case, network("nodule"), Request(("nodule",), methods, checks=False)).panel
    probe = panel.probes[0]
    (units,) = players_of(probe, methods[0].players)
    nodule = probe.scene.regions["nodule"]
    shared = torch.bincount(units.labels[nodule], minlength=units.count)
    holds = set((shared > 0.25 * shared.max()).nonzero()[:, 0].tolist())
    for explanation in panel.explanations:
        answer = explanation.attribution
        assert float(answer.gap.max()) < 1e-5
        values = units.means(answer.collapsed()[0].double().cpu()) * units.sizes
        assert int(values.argmax()) in holds, explanation.provenance.method
        assert float(values.max()) > 0


def test_a_volume_and_its_segmentation(cases):
    found, network = cases
    methods = (ExactShapley("grid:1x2x2"), PartitionSHAP(samples=66))
    brain = found["left-hippocampus"]
    asked = Request((), methods, crop=brain.crop, checks=False)
    panel = run_case(brain.case, network("hippocampus"), asked).panel
    for explanation in panel.explanations:
        answer = explanation.attribution
        assert answer.collapsed().ndim == 4
        assert float(answer.gap.max()) < 1e-4
        assert float(answer.collapsed().abs().max()) > 0
