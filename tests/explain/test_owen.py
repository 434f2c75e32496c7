"""PartitionSHAP and its hierarchies against a second implementation, closed forms, and Shapley where both agree."""

import numpy as np
import pytest
import torch

from pellucid.core.errors import BadOption
from pellucid.core.infill import Constant
from pellucid.core.probe import Probe
from pellucid.core.units import tiles
from pellucid.explain.coalitions import everyone, shapley_values
from pellucid.explain.game import Found
from pellucid.explain.owen import Hierarchy, PartitionSHAP, halved, owen, similar

HALF = Constant(0.4)


def nested(tree: Hierarchy, group: int = 0):
    """A hierarchy as the second implementation takes it."""
    parts = tree.parts[group]
    if parts is None:
        return int(tree.members[group].nonzero()[0, 0])
    return nested(tree, parts[0]), nested(tree, parts[1])


def play(strategy, value) -> tuple[Found, int]:
    """Run a strategy against a payoff function; what it found, and how much it asked."""
    asked, count = next(strategy), 0
    while True:
        count += len(asked)
        try:
            asked = strategy.send(value(asked)[None])
        except StopIteration as end:
            return end.value, count


def game(count, seed=0):
    """A table of payoffs: every coalition is a law of its own."""
    table = torch.randn(2**count, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return lambda shown: table[(shown.long() << torch.arange(count)).sum(1)]


def full(value, count):
    """The score of everybody."""
    return value(torch.ones(1, count, dtype=torch.bool))[0]


def check_hierarchy(tree, count):
    assert tree.members[0].all()
    singles = []
    for group, parts in enumerate(tree.parts):
        if parts is None:
            assert int(tree.members[group].sum()) == 1
            singles.append(int(tree.members[group].nonzero()[0, 0]))
        else:
            one, other = tree.members[parts[0]], tree.members[parts[1]]
            assert one.any()
            assert other.any()
            assert not (one & other).any()
            assert torch.equal(one | other, tree.members[group])
    assert sorted(singles) == list(range(count))


@pytest.mark.parametrize("counts", [(1, 1), (1, 2), (4, 4), (3, 5), (2, 3, 4)])
def test_blocks_are_halved_between_their_rows(counts):
    units = tiles([4 * c for c in counts], counts)
    tree = halved(units.centers())
    check_hierarchy(tree, units.count)
    for members in tree.members:  # every group is a box of blocks
        centers = units.centers()[members]
        assert len(centers) == np.prod([len(c.unique()) for c in centers.T])
    depth = int(np.ceil(np.log2(counts)).sum())
    assert tree.splits <= 4**depth


def test_a_full_tree_has_as_many_splits_as_settings():
    assert halved(tiles((8, 8), (4, 4)).centers()).splits == 1 + 2 * 2 + 4 * 4 + 8 * 8
    assert halved(tiles((8, 8), (1, 1)).centers()).splits == 0


def test_neighbors_that_look_alike_join_first():
    features = torch.tensor([[0.0, 0], [0, 1], [0, 2], [10, 0], [10, 1], [3, 0.5]], dtype=torch.float64)
    tree = similar(features)
    check_hierarchy(tree, 6)
    first = tree.members[tree.parts[0][0]] if not tree.members[tree.parts[0][0]][0] else tree.members[tree.parts[0][1]]
    assert first.nonzero()[:, 0].tolist() == [3, 4]
    check_hierarchy(similar(features[:1]), 1)


@pytest.mark.parametrize("counts", [(1, 2), (2, 2), (2, 3), (1, 7)])
@pytest.mark.parametrize("seed", [0, 1])
def test_equal_to_the_second_implementation(counts, seed, reference):
    units = tiles((8, 8), counts)
    tree, value = halved(units.centers()), game(units.count, seed)
    found, asked = play(owen(tree, units.sizes, full(value, units.count), 10**6), value)

    def slow(coalition):
        return float(value(torch.tensor([[p in coalition for p in range(units.count)]]))[0])

    second = reference("partition_shap").owen(slow, nested(tree), units.count)
    assert np.allclose(found.values[0], second, atol=1e-12)
    assert asked == 1 + 2 * tree.splits


def test_two_players_are_shapley_s():
    value, units = game(2), tiles((4, 4), (1, 2))
    found, _ = play(owen(halved(units.centers()), units.sizes, full(value, 2), 9), value)
    assert torch.allclose(found.values[0], shapley_values(value(everyone(2))[None], 2)[0])


@pytest.mark.parametrize("splits", [0, 1, 2, 5, 9, 30, 10**6])
def test_whatever_is_left_unsplit_the_values_add_up(splits):
    value, units = game(9), tiles((9, 9), (3, 3))
    found, asked = play(owen(halved(units.centers()), units.sizes, full(value, 9), splits), value)
    assert float(found.values.sum()) == pytest.approx(float(full(value, 9) - found.empty[0]), abs=1e-12)
    assert asked <= 1 + 2 * splits
    if splits == 0:
        assert torch.allclose(found.values[0], found.values[0].mean())


def test_the_largest_value_is_split_first():
    """One block of 64 speaks: it is found alone long before the others are looked at."""
    units = tiles((8, 8), (8, 8))
    tree = halved(units.centers())
    value = lambda shown: shown[:, 27].double() * 5  # noqa: E731
    found, asked = play(owen(tree, units.sizes, full(value, 64), 80), value)
    assert asked < 0.1 * 2 * tree.splits
    assert float(found.values[0, 27]) == pytest.approx(5, abs=1e-12)
    assert found.values[0].abs().sum() == pytest.approx(5, abs=1e-12)


def test_an_unsplit_group_is_shared_by_size():
    units = tiles((1, 8), (1, 3))
    found, _ = play(owen(halved(units.centers()), units.sizes, torch.tensor(16.0).double(), 0), lambda s: s[:, 0] * 0.0)
    assert torch.equal(found.values[0], 2.0 * units.sizes.double())


@pytest.mark.parametrize("kind", ["classification", "segmentation", "regression", "two-images"])
@pytest.mark.parametrize(("rank", "counts"), [(2, (2, 3)), (3, (2, 1, 2))])
def test_on_images_equal_to_the_second_implementation(kind, rank, counts, subject, explained, reference):
    s = subject(kind, rank)
    text = "grid:" + "x".join(map(str, counts))
    answer = explained(PartitionSHAP(text, 10**4, HALF), s.model, s.inputs, s.target, s.scene)
    first = next(iter(s.inputs.values()))
    units = tiles(first.shape[2:], counts)
    for i in range(len(first)):
        item = s.item(i)
        fills = {name: torch.full_like(x, 0.4) for name, x in item.items()}
        value = reference("exact_shapley").payoff(lambda x: s.score(x).detach(), item, fills, units.labels.numpy())
        slow = reference("partition_shap").owen(value, nested(halved(units.centers())), units.count)
        slow = reference("exact_shapley").spread(slow, units.labels.numpy())
        assert np.abs(answer.maps[s.model.primary][i, 0].numpy() - slow).max() < 1e-10 * np.abs(slow).max()


def test_a_batch_whose_items_split_elsewhere_costs_what_is_said(subject):
    s = subject("classification", 2)
    for method in (PartitionSHAP("grid:4", 70), PartitionSHAP("grid:2x3", 10**4), PartitionSHAP("superpixels:4", 50)):
        probe = Probe(s.model, s.inputs, s.target)
        cost = method.cost(probe)
        method(probe)
        assert probe.spent.own == cost * 2


def test_what_was_never_split_is_told(subject, explained):
    """Two of eight players matter: four splits leave most of their value in groups, all splits leave nothing."""
    sizes, count = torch.full((8,), 2), 8
    worth = torch.tensor([0, 0, 0, 4.0, 0, 0, 2.0, 0]).double()

    def value(shown):
        return shown.double() @ worth

    tree = halved(torch.arange(8.0).double()[:, None])
    few, _ = play(owen(tree, sizes, full(value, count), 2), value)
    assert few.unsplit == pytest.approx(1)
    every, _ = play(owen(tree, sizes, full(value, count), 10**4), value)
    assert every.unsplit == 0
    assert every.values[0].tolist() == pytest.approx(worth.tolist(), abs=1e-12)
    s = subject("classification", 2)
    told = [
        explained(PartitionSHAP("grid:4", samples, HALF), s.model, s.inputs, s.target, s.scene).warnings
        for samples in (16, 10**4)
    ]
    assert any("did not suffice to split" in words for words in told[0])
    assert not any("did not suffice to split" in words for words in told[1])


def test_more_players_than_samples_are_refused_before_any_pass(subject):
    s = subject("classification", 2)
    probe = Probe(s.model, s.inputs, s.target, scene=s.scene)
    with pytest.raises(BadOption, match="at most as many players as samples, got 16 players and 10 samples"):
        PartitionSHAP("grid:4", 10)(probe)
    assert probe.spent.own.forwards == 0
