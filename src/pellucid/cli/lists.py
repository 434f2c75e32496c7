"""``pellucid methods`` and ``pellucid metrics``: every card."""

from rich.table import Table

from pellucid.cli.face import Json, out, show_json
from pellucid.core.card import Card, Declared, MetricCard
from pellucid.workbench.registry import cohort_methods, explainers
from pellucid.workbench.registry import metrics as all_metrics


def methods(as_json: Json = False) -> None:
    """List every explanation method with what it shows and what it is bad at."""
    every = dict(sorted({**explainers(), **cohort_methods()}.items()))
    if as_json:
        show_json([method_card(name, cls.card, cls) for name, cls in every.items()])
        return
    table = Table(title="Explanation methods", show_lines=True)
    for column in ("method", "family", "of", "shows", "bad at", "own cost"):
        table.add_column(column)
    for name, cls in every.items():
        of = "one case" if cls.card.scope == "local" else "a cohort"
        table.add_row(name, cls.card.family, of, cls.card.shows, cls.card.caution, cls.card.cost_note)
    out.print(table)


def metrics(as_json: Json = False) -> None:
    """List every metric with what its number says and what it does not."""
    if as_json:
        show_json([metric_card(name, cls.card, cls) for name, cls in all_metrics().items()])
        return
    table = Table(title="Metrics", show_lines=True)
    for column in ("metric", "property", "better", "says", "does not say"):
        table.add_column(column)
    for name, cls in all_metrics().items():
        table.add_row(name, cls.card.measures, cls.card.direction, cls.card.shows, cls.card.caution)
    out.print(table)


def method_card(name: str, card: Card, cls: type[Declared]) -> dict[str, object]:
    """A method's card as JSON types."""
    return {
        "name": name,
        "family": card.family,
        "shows": card.shows,
        "signed": card.signed,
        "attribution": card.attribution,
        "level": card.level,
        "intrinsic": card.intrinsic,
        "agnostic": card.agnostic,
        "completes": card.completes,
        "asks": sorted(a.value for a in card.asks),
        **_shared(card, cls),
    }


def metric_card(name: str, card: MetricCard, cls: type[Declared]) -> dict[str, object]:
    """A metric's card as JSON types."""
    return {
        "name": name,
        "family": card.measures,
        "shows": card.shows,
        "direction": card.direction,
        "unit": card.unit,
        "interval": card.interval,
        "needs_region": card.needs_region,
        **_shared(card, cls),
    }


def _shared(card: Card | MetricCard, cls: type[Declared]) -> dict[str, object]:
    return {
        "scope": card.scope,
        "tasks": sorted(card.tasks),
        "spatial_ranks": sorted(card.space),
        "cost": card.cost_note,
        "equation": card.equation,
        "source": card.source,
        "caution": card.caution,
        "stochastic": card.stochastic,
        "parameters": [{"name": p.name, "default": _plain(p.default), "help": p.help} for p in cls.parameters()],
    }


def _plain(value: object) -> object:
    return value if isinstance(value, int | float | str | None) else str(value)
