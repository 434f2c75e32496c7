"""What the methods of a case will cost here, said before they start, and kept to a time where one is asked for."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pellucid.core.card import Cost, shared_cost
from pellucid.core.explainer import Explainer
from pellucid.core.probe import Probe
from pellucid.core.target import Target
from pellucid.plan.budget import measure_pace
from pellucid.plan.planner import Plan, plan
from pellucid.workbench.explaining import able_methods
from pellucid.workbench.opening import Opened
from pellucid.workbench.registry import spell

_LONG = 60.0  # seconds from which on a reader is told how to keep to a time


@dataclass(frozen=True)
class Budget:
    """Methods with their price.

    Args:
        methods: to run; those that cannot explain the model are among them, and are listed when they are run.
        plan: of the others.
    """

    methods: tuple[Explainer, ...]
    plan: Plan

    @property
    def said(self) -> Mapping[str, tuple[str, ...]]:
        """What must stand beside a map that was reduced, by method as ``spell`` writes it."""
        return {
            spell(o.method): (f"{o.reduced}, to fit into the {self.plan.within:g} s asked for",)
            for o in self.plan.kept
            if o.reduced
        }

    @property
    def words(self) -> str:
        """Passes and time, before the first is made."""
        cost, pace, count = self.plan.cost, self.plan.pace, len(self.plan.kept)
        backwards = f" and {cost.backwards:,} backwards" if cost.backwards else ""
        text = (
            f"{count} method{'s' if count != 1 else ''}: at most {cost.forwards:,} forwards{backwards}, about "
            f"{duration(self.plan.seconds)} here ({1000 * pace.forward:.3g} ms a forward), without checks and measures"
        )
        if self.plan.within is None and self.plan.seconds > _LONG:
            text += "; --within SECONDS keeps to a time"
        reduced = [f"{o.method.name} {o.reduced}" for o in self.plan.kept if o.reduced]
        text += f"; reduced: {', '.join(reduced)}" if reduced else ""
        return text + (f"; left out: {', '.join(name for name, _ in self.plan.left_out)}" if self.plan.left_out else "")

    def plain(self) -> dict[str, object]:
        """As JSON types."""
        cost = self.plan.cost
        return {
            "forwards": cost.forwards,
            "backwards": cost.backwards,
            "seconds": round(self.plan.seconds, 3),
            "seconds_per_forward": round(self.plan.pace.forward, 6),
            "within": self.plan.within,
            "reduced": [{"method": o.method.name, "what": o.reduced} for o in self.plan.kept if o.reduced],
            "left_out": [name for name, _ in self.plan.left_out],
        }


def draw_up(
    opened: Opened,
    targets: Sequence[Target],
    methods: Sequence[Explainer],
    within: float | None = None,
    precision: str = "float32",
) -> Budget:
    """Measure one pass here, and see what the methods cost, or which of them fit.

    Args:
        opened: the case.
        targets: to explain.
        methods: to run.
        within: seconds for the passes of one case; None: no limit.
        precision: of the forwards.

    Raises:
        BadOption: nothing fits, or the time is not positive.
        PellucidError: of the model or the target.
    """
    probe = Probe(opened.model, opened.inputs, targets, scene=opened.scene, precision=precision)
    able, _ = able_methods(opened, methods, strict=False, unasked=probe)
    shared = shared_cost(frozenset(ask for m in able for ask in m.card.asks))
    shared = Cost(shared.forwards, shared.backwards * len(targets))
    costs = {id(m): m.cost(probe) for m in able}
    pace = measure_pace(probe, any(c.backwards for c in (shared, *costs.values())))
    made = plan(
        able, lambda m: (costs[id(m)] if id(m) in costs else m.cost(probe)) * len(targets), shared, pace, within
    )
    kept = {id(able[o.place]): o.method for o in made.kept}
    refused = [m for m in methods if not any(m is one for one in able)]
    chosen = [kept.get(id(m), m) for m in methods if id(m) in kept or any(m is one for one in refused)]
    return Budget(tuple(chosen), made)


def duration(seconds: float) -> str:
    """A time as a person says it.

    Example:
        >>> duration(0.25), duration(42.0), duration(400.0), duration(8000.0)
        ('0.25 s', '42 s', '7 min', '2.2 h')
    """
    if seconds < 100:
        return f"{seconds:.2g} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.2g} h"
