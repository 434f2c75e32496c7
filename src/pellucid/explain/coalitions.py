"""Which coalitions to ask for, and how their payoffs become Shapley values: all, in pairs, or along permutations."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import combinations
from math import comb

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from pellucid.core.errors import BadOption
from pellucid.explain.game import Found, Strategy

_FEW = 64  # coalitions: below it permutations err less than a regression (measured on 16 players)
_FEW_EACH = 4  # coalitions for each player: below it a regression has too little to stand on
_ROUND = 32  # pairs between two looks at the error
_ORDERS = 4  # pairs of orders behind the first look: a spread of fewer is chance itself
_TRIES = 100


def fewest(count: int) -> int:
    """Coalitions that sampling needs for ``count`` players: one antithetic pair of permutations, or simply all."""
    return min(2 ** min(count, 62), 2 * count)


def spent(count: int, samples: int) -> int:
    """Coalitions that ``sampled`` asks for at most, nobody included, everybody not.

    Raises:
        BadOption: fewer samples than the players need.
    """
    if samples < fewest(count):
        raise BadOption(
            f"expected at least {fewest(count)} samples for {count} players, got {samples}",
            "take more samples, or fewer players",
        )
    if _all_fit(count, samples):
        return 2**count - 1
    if _few(count, samples):
        return 1 + 2 * (count - 1) * ((samples - 2) // (2 * (count - 1)))
    return 1 + 2 * ((samples - 2) // 2)


def _all_fit(count: int, samples: int) -> bool:
    return count < 62 and 2**count <= samples


def _few(count: int, samples: int) -> bool:
    return samples < max(_FEW, _FEW_EACH * count)


def everyone(count: int) -> Bool[Tensor, "coalition player"]:
    """All coalitions: player ``j`` is in the i-th where bit ``j`` of ``i`` is set."""
    return (torch.arange(2**count)[:, None] >> torch.arange(count)) % 2 == 1


def shapley_values(paid: Float[Tensor, "fill coalition"], count: int) -> Float[Tensor, "fill player"]:
    """Shapley values from the payoffs of all coalitions, in the order of ``everyone``."""
    shown = everyone(count)
    sizes = shown.sum(1)
    share = torch.tensor([1 / (count * comb(count - 1, s)) for s in range(count)], dtype=torch.float64)
    values = []
    for player in range(count):
        without = torch.nonzero(~shown[:, player])[:, 0]
        gain = paid[:, without + 2**player] - paid[:, without]
        values.append(gain @ share[sizes[without]])
    return torch.stack(values, 1)


def exact(count: int, full: Tensor) -> Strategy:
    """Ask for every coalition.

    Args:
        count: of players.
        full: the score of everybody.
    """
    paid = yield everyone(count)[:-1]
    paid = torch.cat([paid, full.expand(len(paid), 1)], 1)
    return Found(shapley_values(paid, count), paid[:, 0])


def sampled(count: int, full: Tensor, samples: int, tolerance: float | None, seed: int) -> Strategy:
    """Ask for at most ``samples`` coalitions: all where they fit, permutations where they are few, else pairs.

    Args:
        count: of players.
        full: the score of everybody.
        samples: nobody and everybody included.
        tolerance: stop when the largest standard error is below this share of the largest value; None: never.
        seed: of the draws.
    """
    generator = torch.Generator().manual_seed(seed)
    if _all_fit(count, samples):
        found = yield from exact(count, full)
        return replace(found, error=torch.zeros(count, dtype=torch.float64))
    if _few(count, samples):
        pairs = (samples - 2) // (2 * (count - 1))
        return (yield from _permutations(count, full, pairs, tolerance, generator))
    return (yield from _pairs(draw_pairs(count, (samples - 2) // 2, generator), full, tolerance))


def _permutations(
    count: int, full: Tensor, pairs: int, tolerance: float | None, generator: torch.Generator
) -> Strategy:
    """Each player's gain when it joins, along random orders and the same orders backwards."""
    orders = [torch.randperm(count, generator=generator) for _ in range(pairs)]
    rank = torch.stack([o.argsort() for order in orders for o in (order, order.flip(0))])  # order, player
    empty = (yield torch.zeros(1, count, dtype=torch.bool))[:, 0]
    gains, start = [], 0
    for stop in [pairs] if tolerance is None else [*range(min(_ORDERS, pairs), pairs), pairs]:
        some = rank[2 * start : 2 * stop]
        shown = some[:, None, :] < torch.arange(1, count)[None, :, None]
        paid = yield shown.flatten(0, 1)
        shape = (len(paid), len(some), 1)
        inner = paid.view(len(paid), len(some), count - 1)
        along = torch.cat([empty.view(-1, 1, 1).expand(shape), inner, full.expand(shape)], 2)
        gains.append(along.diff(dim=2).gather(2, some.expand(len(paid), -1, -1)))  # fill, order, player
        start = stop
        gain = torch.cat(gains, 1)
        there, back = gain.mean(0)[0::2], gain.mean(0)[1::2]
        error = (there - back).abs()[0] / 2 if stop == 1 else ((there + back) / 2).std(0) / stop**0.5
        found = Found(gain.mean(1), empty, error)
        if tolerance is not None and float(error.max()) <= tolerance * float(gain.mean((0, 1)).abs().max()):
            break
    return found


@dataclass(frozen=True, eq=False)
class Pairs:
    """Coalitions with their complements; what is not drawn is enumerated and comes first.

    Args:
        shown: one coalition of each pair.
        weight: kernel weight of each enumerated pair.
        rest: kernel weight of all pairs that are drawn from, together.
        size: of the smaller side of each pair.
    """

    shown: Bool[Tensor, "pair player"]
    weight: Float[Tensor, " enumerated"]
    rest: float
    size: Int[Tensor, " pair"]

    def weights(self, pairs: int) -> Float[Tensor, " pair"]:
        """Of the first so many pairs: the drawn ones stand for all they were drawn from, in equal parts."""
        drawn = pairs - len(self.weight)
        return torch.cat([self.weight, torch.full((drawn,), self.rest / max(drawn, 1), dtype=torch.float64)])


def draw_pairs(count: int, pairs: int, generator: torch.Generator) -> Pairs:
    """Pairs by the Shapley kernel: small layers whole where their share suffices, sizes spread evenly over the rest.

    Args:
        count: of players, at least 2.
        pairs: fewer than all there are.
        generator: of the draws.
    """
    layers = {s: comb(count, s) // (2 if 2 * s == count else 1) for s in range(1, count // 2 + 1)}
    mass = {s: (0.5 if 2 * s == count else 1.0) / (s * (count - s)) for s in layers}
    left, shown, weight = pairs, [], []
    while mass and left * mass[min(mass)] / sum(mass.values()) >= layers[min(mass)]:
        size = min(mass)
        whole = [c for c in combinations(range(count), size) if 2 * size < count or 0 in c]
        shown += [frozenset(c) for c in whole]
        weight += [mass.pop(size) / len(whole)] * len(whole)
        left -= len(whole)
    drawn = _draw(count, mass, left, generator)
    sets = [*shown, *drawn]
    rows = torch.zeros(len(sets), count, dtype=torch.bool)
    for row, members in zip(rows, sets, strict=True):
        row[list(members)] = True
    size = torch.tensor([len(s) for s in sets])
    return Pairs(rows, torch.tensor(weight, dtype=torch.float64), sum(mass.values()), size)


def _draw(count: int, mass: dict[int, float], pairs: int, generator: torch.Generator) -> list[frozenset[int]]:
    """Coalitions with sizes by their mass, each size within one of its due, each player about equally often in it."""
    if not mass or not pairs:
        return []
    share = torch.tensor(list(mass.values()), dtype=torch.float64).cumsum(0)
    start = torch.rand(1, generator=generator, dtype=torch.float64)
    points = (start + torch.arange(pairs)) / pairs * share[-1]
    place = torch.searchsorted(share, points).clamp_max(len(mass) - 1)
    counts = torch.bincount(place, minlength=len(mass)).tolist()
    drawn: list[frozenset[int]] = []
    for size, wanted in zip(mass, counts, strict=True):
        drawn += _of_size(count, size, wanted, generator)
    order = torch.randperm(len(drawn), generator=generator).tolist()  # any first part of it is a fair draw
    return [drawn[i] for i in order]


def _of_size(count: int, size: int, wanted: int, generator: torch.Generator) -> Iterator[frozenset[int]]:
    seen: set[frozenset[int]] = set()
    deck: list[int] = []
    for _ in range(wanted):
        for _ in range(_TRIES):
            if len(deck) < size:  # the players not dealt yet come before a new deal
                fresh = torch.randperm(count, generator=generator).tolist()
                deck += [p for p in fresh if p not in deck]
            members, deck = frozenset(deck[:size]), deck[size:]
            twin = members if 2 * size < count or 0 in members else frozenset(range(count)) - members
            if twin not in seen:
                break
        seen.add(twin)
        yield twin


def _pairs(design: Pairs, full: Tensor, tolerance: float | None) -> Strategy:
    """Weighted least squares on pairs, with nobody and everybody exact."""
    total, count = design.shown.shape
    empty = (yield torch.zeros(1, count, dtype=torch.bool))[:, 0]
    first = min(total, len(design.weight) + max(_ROUND, count))
    stops = [total] if tolerance is None else [*range(first, total, _ROUND), total]
    paid, start = [], 0
    for stop in stops:
        shown = design.shown[start:stop]
        paid.append((yield torch.stack([shown, ~shown], 1).flatten(0, 1)))
        start = stop
        found = solve_pairs(design, torch.cat(paid, 1), empty, full)
        if tolerance is not None and float(found.error.max()) <= tolerance * float(found.values.mean(0).abs().max()):
            break
    return found


def solve_pairs(
    design: Pairs, paid: Float[Tensor, "fill coalition"], empty: Float[Tensor, " fill"], full: Tensor
) -> Found:
    """Shapley values from the payoffs of the first pairs of a design (a coalition, then its complement).

    Of the residuals of a pair only their difference depends on the values, so the kernel regression is one on
    ``v(S) - v(rest)``: payoffs of single players and of two together cannot err. One value is eliminated by the sum.

    Args:
        design: what was asked for.
        paid: payoffs of ``pairs`` coalitions and their complements in turn.
        empty: the score of nobody.
        full: the score of everybody.
    """
    pairs = paid.shape[1] // 2
    side = design.shown[:pairs].double() * 2 - 1
    weight = design.weights(pairs)
    total = full - empty
    x = side[:, :-1] - side[:, -1:]
    y = paid[:, 0::2] - paid[:, 1::2] - side[:, -1] * total[:, None]
    root = weight.sqrt()[:, None]
    slopes = torch.linalg.lstsq(root * x, root * y.T, driver="gelsd").solution
    values = torch.cat([slopes, total[None] - slopes.sum(0, keepdim=True)]).T
    # what each drawn pair adds to the values; a layer that is whole adds no chance
    solved = x @ torch.linalg.pinv(x.T @ (weight[:, None] * x), hermitian=True)
    leverage = weight * (solved * x).sum(1)
    residual = (y.mean(0) - x @ slopes.mean(1)) / (1 - leverage).clamp_min(0.05)
    adds = (weight * residual)[:, None] * solved
    adds = torch.cat([adds, -adds.sum(1, keepdim=True)], 1)[len(design.weight) :]
    size = design.size[len(design.weight) : pairs]
    variance = torch.zeros(side.shape[1], dtype=torch.float64)
    for s in size.unique():
        own = adds[size == s]
        variance += own.square().sum(0) if len(own) == 1 else len(own) * own.var(0)
    return Found(values, empty, variance.sqrt())
