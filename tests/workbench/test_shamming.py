"""The sham test: it passes the place of a planted finding, fails a map that points elsewhere, and sees a fill paint."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from pellucid.core.case import Case, Region
from pellucid.core.grid import Grid
from pellucid.core.image import Image
from pellucid.core.infill import Constant
from pellucid.core.model import Model, OutputSpec
from pellucid.core.prepare import InputSpec
from pellucid.core.target import ClassScore
from pellucid.explain.byhand import AskByHand
from pellucid.explain.gradient import Saliency
from pellucid.explain.occlusion import Occlusion
from pellucid.explain.sensitivity import OneAtATime
from pellucid.workbench.checking import calculation_checks
from pellucid.workbench.explaining import explain_case
from pellucid.workbench.opening import open_case
from pellucid.workbench.shamming import sham_checks, top_region, warned

SIZE = 24
DARK = (Constant(0.3), Constant(0.2))


class Finder(nn.Module):
    """The logit of "finding" is the share of bright voxels, in tenths of a percent, about a half."""

    def forward(self, x):
        share = 100 * torch.sigmoid(40 * (x - 0.8)).mean((1, 2, 3))
        return torch.stack([torch.zeros_like(share), share - 1], 1)


@pytest.fixture
def paneled():
    def run(*explainers, fills=DARK, point=None, box=(slice(6, 9), slice(12, 15))):
        image = 0.4 * torch.rand(1, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
        lesion = torch.zeros(SIZE, SIZE, dtype=torch.bool)
        lesion[box] = True
        image[:, lesion] = 1.0
        grid = Grid.regular((SIZE, SIZE))
        case = Case("case", {"image": Image(image, grid)}, {"lesion": Region(lesion, grid)})
        output = OutputSpec(labels=("none", "finding"), operating_point={} if point is None else {"finding": point})
        opened = open_case(case, Model(Finder(), (InputSpec(),), output), infills=fills)
        return explain_case(opened, [ClassScore("finding")], list(explainers))

    return run


EVERY = (Occlusion(window=4, stride=2), OneAtATime("grid:8"), AskByHand())


def test_the_place_of_a_planted_finding_does_more_than_any_other(paneled) -> None:
    panel = paneled(*EVERY, Saliency())
    before = panel.probes[0].spent.own
    checks = sham_checks(panel)
    assert [c.name for c in checks] == [f"sham test of {n}" for n in ("Occlusion", "OneAtATime", "AskByHand")]
    assert [c.state for c in checks] == ["pass"] * 3
    assert panel.probes[0].spent.own == before
    assert panel.probes[0].spent.checks.forwards == 2 * 2 * (
        1 + 8
    )  # places (a block is the region), fills, eight others
    assert "hiding the region (1.6% of the image)".replace("1.6", "2") in checks[2].words
    assert "8 places of that size and shape elsewhere change it by 0" in checks[2].words
    assert warned(panel, checks).explanations == panel.explanations


def test_a_map_that_points_elsewhere_fails_and_is_warned_of(paneled) -> None:
    panel = paneled(Occlusion(window=4, stride=2))
    (one,) = panel.explanations
    turned = replace(one.attribution, maps={"image": one.attribution.maps["image"].flip(2, 3)})
    panel = replace(panel, explanations=(replace(one, answer=turned),))
    checks = calculation_checks(panel)
    (sham,) = [c for c in checks if c.name == "sham test of Occlusion"]
    assert sham.state == "fail"
    assert "do at least as much" in sham.words
    assert "the sham test failed" in warned(panel, checks).explanations[0].provenance.warnings[-1]


def test_a_fill_that_paints_the_finding_is_seen(paneled) -> None:
    white = (Constant(1.0), Constant(1.0))
    (check,) = sham_checks(paneled(AskByHand(), fills=white, point=2.0))
    assert check.state == "fail"
    assert "at 8 of them the fill alone moves the score across the operating point" in check.words
    (fine,) = sham_checks(paneled(AskByHand(), point=0.2))
    assert fine.state == "pass"


def test_a_place_is_tried_once_however_many_maps_are_strongest_there(paneled) -> None:
    panel = paneled(OneAtATime("grid:8"), Occlusion(window=3, stride=3))
    sham_checks(panel)
    assert panel.probes[0].spent.checks.forwards == 2 * (1 + 8)


def test_what_fits_nowhere_else_is_not_measured(paneled) -> None:
    (check,) = sham_checks(paneled(AskByHand(), box=(slice(4, 20), slice(4, 20))))
    assert check.state == "not measured"
    assert "fits nowhere else" in check.words
    (check,) = sham_checks(paneled(OneAtATime("grid:1")))
    assert check.words == "the map is flat: no other place to compare it with"


def test_the_strongest_place_is_a_unit_or_at_least_a_cell() -> None:
    blocks = torch.zeros(8, 8)
    blocks[4:6, 2:4], blocks[0:2, 0:2] = 5.0, 4.0
    assert torch.equal(top_region(blocks, (2, 2)), blocks == 5)
    point = torch.zeros(8, 8)
    point[7, 0] = 1
    found = top_region(point, (3, 4))
    assert found.nonzero().amin(0).tolist() == [5, 0]
    assert found.nonzero().amax(0).tolist() == [7, 3]
    assert int(found.sum()) == 12
    assert top_region(torch.full((4, 4), -2.0), (1, 1)) is None
    below = torch.full((4, 4), -2.0)
    below[1, 2] = -1.0  # a mean score: 0 is not neutral
    assert int(top_region(below, (1, 1)).sum()) == 1
