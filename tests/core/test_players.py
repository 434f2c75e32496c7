"""Players named in one line of text: cut once per image, and every voxel belongs to one of them."""

import pytest
import torch
from torch import nn

import pellucid.core.players as module
from pellucid.core.errors import BadOption, InputError, UnknownName
from pellucid.core.grid import Grid
from pellucid.core.model import Model
from pellucid.core.players import Players, parse_players, players_of
from pellucid.core.prepare import InputSpec
from pellucid.core.probe import Probe, Scene
from pellucid.core.target import ClassScore


@pytest.mark.parametrize(
    ("text", "players"),
    [
        ("grid:4", Players("grid", (4,))),
        (" grid:2x4x4 ", Players("grid", (2, 4, 4))),
        ("superpixels:30", Players("superpixels", (30,))),
        ("supervoxels:30", Players("superpixels", (30,))),
        ("regions", Players("regions")),
        ("regions:lung+upper lobe", Players("regions", names=("lung", "upper lobe"))),
    ],
)
def test_text_names_players(text, players):
    assert parse_players(text) == players


@pytest.mark.parametrize(
    "text", ["", "grid", "grid:", "grid:0", "grid:-2", "grid:2x2x2x2", "superpixels:3x3", "superpixels", "organs:3"]
)
def test_other_text_is_refused_with_the_words_there_are(text):
    with pytest.raises(BadOption, match="write grid:4"):
        parse_players(text)


def probe_of(x, regions=None, grid=None):
    net = nn.Sequential(nn.Flatten(), nn.LazyLinear(2))
    net(x)
    scene = Scene(regions=regions or {}, grids={"image": grid} if grid else {})
    return Probe(Model(net, (InputSpec(rank=x.ndim - 2),)), x, ClassScore(0), scene=scene)


def test_blocks_are_shared_by_the_batch_and_superpixels_are_each_image_its_own():
    x = torch.rand(2, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    blocks = players_of(probe_of(x), "grid:4")
    assert len(blocks) == 2
    assert blocks[0] is blocks[1]
    assert blocks[0].count == 16
    first, second = players_of(probe_of(x), "superpixels:9")
    assert not torch.equal(first.labels, second.labels)
    assert torch.equal(second.labels, players_of(probe_of(x[1:]), "superpixels:9")[0].labels)


def test_a_thin_axis_has_a_block_for_each_voxel():
    assert players_of(probe_of(torch.rand(1, 1, 2, 8, 8)), "grid:4")[0].count == 2 * 4 * 4


def test_an_image_is_cut_once(monkeypatch):
    cuts = []
    monkeypatch.setattr(module, "superpixels", lambda *a: cuts.append(1) or module.tiles((32, 32), (2, 2)))
    probe = probe_of(torch.rand(1, 1, 32, 32))
    assert players_of(probe, "superpixels:4") is players_of(probe.at(0), "superpixels:4")
    assert len(cuts) == 1
    players_of(probe, "superpixels:5")
    assert len(cuts) == 2


def test_supervoxels_are_compact_on_the_probe_s_grid():
    x = torch.rand(1, 1, 8, 32, 32, generator=torch.Generator().manual_seed(0)) * 0.01
    (units,) = players_of(probe_of(x, grid=Grid.regular((8, 32, 32), (4.0, 1.0, 1.0))), "supervoxels:8")
    edges = [e * s for e, s in zip(units.extent(), (4.0, 1.0, 1.0), strict=True)]
    assert max(edges) < 2 * min(edges)


def test_regions_of_the_case_play_with_the_rest():
    mask = torch.zeros(8, 8, dtype=torch.bool)
    mask[:3] = True
    probe = probe_of(torch.rand(1, 1, 8, 8), {"lung": mask, "other": ~mask})
    assert players_of(probe, "regions")[0].names == ("lung", "other")
    assert players_of(probe, "regions:lung")[0].names == ("lung", "rest")
    with pytest.raises(UnknownName, match="regions: lung, other"):
        players_of(probe, "regions:liver")


@pytest.mark.parametrize("text", ["grid:9x9", "grid:2x2x2", "regions", "superpixels:400"])
def test_what_cannot_be_cut_so_is_refused(text):
    with pytest.raises(InputError):
        players_of(probe_of(torch.rand(1, 1, 8, 8)), text)
