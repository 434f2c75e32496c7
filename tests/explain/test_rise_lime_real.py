"""RISE and LIME on a real film with a planted nodule, and on a brain volume with a segmentation."""

import pytest
import torch

from pellucid.core.infill import Constant
from pellucid.demo.cases import packaged
from pellucid.explain.lime import LIME
from pellucid.explain.rise import RISE
from pellucid.io.models import load_model
from pellucid.workbench.job import Request, run_case

FILL = Constant(0.0)


@pytest.fixture(scope="module")
def explained(pytestconfig):
    """The panel of a packaged case."""
    folder, found = pytestconfig.rootpath / "src" / "pellucid" / "demo" / "models", {c.case.name: c for c in packaged()}

    def run(name, *methods):
        case = found[name]
        request = Request((case.target,), methods, crop=case.crop, override=case.override, checks=False)
        return run_case(case.case, load_model(folder / case.model / "model.toml"), request).panel

    return run


@pytest.mark.parametrize("name", ["planted-nodule-upper-image-left", "planted-nodule-upper-image-right"])
def test_the_nodule_counts_most(name, explained):
    panel = explained(name, RISE(128, None, cell=24.0), LIME(samples=150, players="superpixels:30"))
    nodule = panel.probes[0].scene.regions["nodule"]
    for one in panel.explanations:
        values = one.attribution.collapsed()[0]
        assert float(values[nodule].max()) == float(values.max())
        assert float(values[nodule].mean()) > float(values[~nodule].quantile(0.75))


def test_a_segmentation_of_a_volume_depends_on_its_own_surroundings(explained):
    panel = explained("left-hippocampus", RISE(32, None, infill=FILL), LIME(samples=16, players="grid:2", infill=FILL))
    predicted = panel.probes[0]
    for one in panel.explanations:
        values = one.attribution.collapsed()[0]
        assert values.shape == predicted.grid.shape
        assert bool(torch.isfinite(values).all())
        assert float(values.std()) > 0
        assert float(one.attribution.error["image"].amax()) > 0
