"""Which methods fit into a time, the cheapest first, some with fewer samples: pure arithmetic."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from pellucid.core.card import Cost
from pellucid.core.errors import BadOption
from pellucid.core.explainer import Explainer
from pellucid.plan.budget import Pace

_SAMPLES = ("samples", "masks", "trajectories", "steps")  # what methods call the number of their passes
_HALVINGS = 3  # an eighth of the samples at least: fewer answer another question


@dataclass(frozen=True)
class Offer:
    """A method at one price.

    Args:
        place: of the method among those that were asked for, from 0.
        method: with its settings.
        cost: own passes for all targets.
        reduced: what was taken away from it, in words; empty: nothing.
    """

    place: int
    method: Explainer
    cost: Cost
    reduced: str = ""


@dataclass(frozen=True)
class Plan:
    """What will be run, in the order asked.

    Args:
        kept: with their prices.
        left_out: (name, reason) of what does not fit.
        shared: the pass that all share.
        pace: of this machine.
        within: seconds that were asked for; None: no limit.
    """

    kept: tuple[Offer, ...]
    left_out: tuple[tuple[str, str], ...]
    shared: Cost
    pace: Pace
    within: float | None

    @property
    def cost(self) -> Cost:
        """All passes, at most."""
        return sum((o.cost for o in self.kept), self.shared)

    @property
    def seconds(self) -> float:
        """About how long, at most, as far as it is passes."""
        return self.pace.seconds(self.cost)


def thinner(method: Explainer) -> Iterator[tuple[Explainer, str]]:
    """The method with half, a quarter and an eighth of its samples, as far as it takes so few.

    Example:
        >>> from pellucid.explain.sensitivity import MorrisSensitivity
        >>> [words for _, words in thinner(MorrisSensitivity(trajectories=8))]
        ['trajectories=4 instead of 8', 'trajectories=2 instead of 8']
    """
    for name in _SAMPLES:
        whole = method.settings().get(name)
        if isinstance(whole, int) and not isinstance(whole, bool):
            for halving in range(1, _HALVINGS + 1):
                fewer = whole >> halving
                with suppress(BadOption):  # fewer than the method takes
                    yield replace(method, **{name: fewer}), f"{name}={fewer} instead of {whole}"
            return


def plan(
    methods: Sequence[Explainer],
    price: Callable[[Explainer], Cost],
    shared: Cost,
    pace: Pace,
    within: float | None = None,
) -> Plan:
    """Keep the methods that fit, the cheapest first; those that do not with fewer samples, or not at all.

    Args:
        methods: in the order asked.
        price: own passes of a method for all targets; raises ``BadOption`` where it takes no such settings.
        shared: passes that are made whatever is kept.
        pace: of this machine.
        within: seconds; None: everything is kept.

    Raises:
        BadOption: nothing fits, or the time is not positive.
    """
    offers = [Offer(n, m, price(m)) for n, m in enumerate(methods)]
    if within is None:
        return Plan(tuple(offers), (), shared, pace, None)
    if not within > 0:
        raise BadOption(f"expected a time above 0 seconds, got {within:g}", "give for example --within 60")
    left = within - pace.seconds(shared)
    kept: dict[int, Offer] = {}
    left_out: list[tuple[str, str]] = []
    for offer in sorted(offers, key=lambda o: pace.seconds(o.cost)):
        fitting = next((o for o in _versions(offer, price) if pace.seconds(o.cost) <= left), None)
        if fitting is None:
            about = pace.seconds(offer.cost)
            needs = f"{offer.cost.forwards} forwards, about {about:.{0 if about >= 10 else 1}f} s"
            left_out.append((offer.method.name, f"left out: {needs}, do not fit into the {within:g} s asked for"))
            continue
        kept[offer.place] = fitting
        left -= pace.seconds(fitting.cost)
    if not kept:
        raise BadOption(
            f"no method fits into {within:g} s; the cheapest is {': '.join(left_out[0])}",
            "give more time, fewer or larger parts, or a faster engine (--engine auto)",
        )
    return Plan(tuple(kept[n] for n in sorted(kept)), tuple(left_out), shared, pace, within)


def _versions(offer: Offer, price: Callable[[Explainer], Cost]) -> Iterator[Offer]:
    yield offer
    for method, words in thinner(offer.method):
        with suppress(BadOption):  # too few for these players
            yield Offer(offer.place, method, price(method), words)
