"""What is handed to the peers of coalition and cohort methods, and the formula of one of them, on closed forms."""

from itertools import permutations

import pytest
import torch

from pellucid.explain.owen import halved, similar
from pellucid.verify.cohorts import cohort_of, effects, points_of
from pellucid.verify.evidence import Evidence
from pellucid.verify.games import GAME_FORMULAS
from pellucid.verify.handing import HANDS, linkage
from pellucid.verify.ours import Explained, explained
from pellucid.verify.peers import networks, with_players
from pellucid.verify.peers.with_sklearn import _Orders
from pellucid.verify.subjects import PATCHES, Prepared, Subject
from pellucid.workbench.registry import make_cohort_method, make_explainer

NONE: frozenset[str] = frozenset()
LINEAR = Subject("linear-2d", "film", (6, 4), layer="")
PLAYERS = "players=grid:2,infill=0"


def made(subject: Subject, items: int = 1) -> Prepared:
    """On a phantom, so that no image is read."""
    draw = torch.Generator().manual_seed(2)
    x = torch.randn(items, 1, *subject.shape, generator=draw, dtype=torch.float64)
    net = networks.build(subject.network, 1, subject.cells)
    return Prepared(subject, net, x, (1,) * items)


def worth(prepared: Prepared, players: torch.Tensor) -> torch.Tensor:
    """What each player adds to a linear score."""
    parts = (prepared.net.head.weight[1].detach().view_as(prepared.x) * prepared.x).flatten()
    return torch.zeros(int(players.max()) + 1, dtype=torch.float64).index_add_(0, players.flatten(), parts)


@pytest.fixture
def linear() -> Prepared:
    return made(LINEAR)


def test_kernel_shap_on_a_linear_score(linear: Prepared) -> None:
    """On a linear score both forms give each part its own sum, whatever coalitions were drawn."""
    handed = HANDS["players"](linear, make_explainer(f"KernelSHAP:{PLAYERS}"), Explained(linear.x, linear.x))
    drawn = torch.tensor([[1, 1, 1, 1], [0, 0, 0, 0], [1, 0, 0, 1], [1, 1, 0, 0], [0, 0, 0, 1], [1, 0, 1, 0]])
    formula = GAME_FORMULAS["captum KernelShap"]
    evidence = Evidence(linear, torch.zeros(0), handed | {"drawn": drawn})
    players = handed["players"][0]
    right = (worth(linear, players) / torch.bincount(players.flatten()))[players][None, None]
    assert torch.allclose(formula.values(evidence, NONE), right)
    assert torch.allclose(formula.values(evidence, formula.defects), right)


def test_kernel_shap_without_the_defect_is_the_mean_over_all_orders() -> None:
    """And with it another thing, on a score that is not linear."""
    prepared = made(Subject("dense-2d", "film", (6, 4)))
    handed = HANDS["players"](prepared, make_explainer(f"KernelSHAP:{PLAYERS}"), Explained(prepared.x, prepared.x))
    players, net = handed["players"][0], prepared.net

    def paid(shown: set[int]) -> float:
        keep = torch.isin(players, torch.tensor(sorted(shown), dtype=torch.long))
        with torch.no_grad():
            return float(net(prepared.x * keep)[0, 1])

    values = torch.zeros(4, dtype=torch.float64)
    for order in permutations(range(4)):
        for place, player in enumerate(order):
            values[player] += (paid(set(order[: place + 1])) - paid(set(order[:place]))) / 24
    right = (values / torch.bincount(players.flatten()))[players][None, None]
    drawn = torch.tensor([[1, 1, 1, 1], [0, 0, 0, 0], [1, 0, 0, 1], [1, 1, 0, 0], [0, 0, 0, 1], [1, 0, 1, 0]])
    formula = GAME_FORMULAS["captum KernelShap"]
    evidence = Evidence(prepared, torch.zeros(0), handed | {"drawn": drawn})
    assert torch.allclose(formula.values(evidence, NONE), right)
    assert not torch.allclose(formula.values(evidence, formula.defects), right, rtol=1e-3)


def test_coalitions_are_read_off_the_images(linear: Prepared) -> None:
    method = make_explainer(f"OneAtATime:{PLAYERS}")
    handed = HANDS["coalitions"](linear, method, explained(method, linear))
    assert torch.equal(handed["shown"][:, 0], ~torch.eye(4, dtype=torch.bool))


def test_a_tree_is_written_as_scipy_does() -> None:
    from scipy.cluster.hierarchy import is_valid_linkage, leaves_list

    centers = torch.tensor([[0.0, 0.0], [0.0, 1.0], [5.0, 0.0], [5.0, 1.0], [9.0, 0.5]])
    for tree in (halved(centers), similar(centers)):
        rows = linkage(tree).numpy()
        assert is_valid_linkage(rows)
        assert sorted(leaves_list(rows)) == [0, 1, 2, 3, 4]
        joined = [{p} for p in range(5)]
        for one, two, _, count in rows:
            joined.append(joined[int(one)] | joined[int(two)])
            assert len(joined[-1]) == count
        groups = {frozenset(m.nonzero()[:, 0].tolist()) for m in tree.members}
        assert groups == {frozenset(j) for j in joined}


def test_the_peers_game_paints_and_shares(linear: Prepared) -> None:
    """The values of a linear game, asked for one by one, come back on the voxels of their parts."""
    players = torch.arange(6)[:, None].expand(6, 4) // 3
    alone = with_players._painted(lambda score, n, _i, _g: score(torch.eye(n)) - score(torch.zeros(1, n)), shared=True)
    found = alone(linear.net, linear.x, [1], "", {"players": players[None]})["map"]
    assert torch.allclose(found[0, 0], (worth(linear, players) / 12)[players])


def test_orders_are_left_one_after_the_other() -> None:
    """A column that is shuffled again and again has, after each repeat, the order that was asked for."""
    asked = torch.stack([torch.randperm(7, generator=torch.Generator().manual_seed(s)) for s in range(3)]).numpy()
    told, column = _Orders(asked), torch.arange(7).numpy()
    places = torch.arange(7).numpy()
    for order in asked:
        told.shuffle(places)
        column = column[places]
        assert (column == order).all()


def test_a_cohort_as_a_row_of_numbers() -> None:
    subject = Subject("pooled-2d", PATCHES, (6, 6), layer="")
    prepared = made(subject, 12)
    cohort = cohort_of(prepared)
    assert points_of(cohort, 3).shape == (9, 3)
    curves = effects(make_cohort_method("PartialDependence:points=3"), prepared).map
    assert curves.shape == (1, 9 * 3 * 13)
    first = curves[0, : 3 * 13].view(13, 3)
    assert torch.allclose(first[0], first[1:].mean(0)), "the mean curve comes before those of the cases"
    handed = HANDS["orders"](prepared, make_cohort_method("PermutationImportance:repeats=2"), Explained(curves, curves))
    assert handed["orders"].sort(1).values.tolist() == [list(range(12))] * 2
    assert handed["parts"].unique().tolist() == list(range(9))
    assert effects(make_cohort_method("PermutationImportance:repeats=2,loss=change"), prepared).map.shape == (1, 9)
    assert effects(make_cohort_method("GlobalSurrogate:depth=2"), prepared).map.shape == (1, 19)
