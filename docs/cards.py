"""Write one page per method and metric from its card, so that the documentation cannot drift from the code."""

import io
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.mathtext import math_to_image

from pellucid.core.card import Card, Declared, MetricCard
from pellucid.core.explainer import CohortExplainer, Explainer
from pellucid.core.metric import Metric, PanelMetric
from pellucid.workbench.registry import load_all

HERE = Path(__file__).resolve().parent
_INK = "#6b7280"  # legible on light and on dark pages


@dataclass(frozen=True)
class Shelf:
    """A kind of cards: what it is called, and where its pages go."""

    folder: str
    title: str
    intro: str


METHODS = Shelf(
    "methods",
    "Methods",
    "Every explanation method, from its own declaration. `pellucid methods --json` prints the same as data.",
)
METRICS = Shelf(
    "metrics",
    "Metrics",
    "Every metric, from its own declaration. `pellucid metrics --json` prints the same as data. "
    "A metric measures one property; no single number says that an explanation is good.",
)


def review_notes() -> dict[str, str]:
    """How the review's formula compares, by class name."""
    return tomllib.loads((HERE / "review.toml").read_text(encoding="utf-8"))


def shelves() -> dict[Shelf, dict[str, type[Declared]]]:
    """Every declared class of the package itself, by kind and name."""
    load_all()
    methods = {**_own(Explainer), **_own(CohortExplainer)}
    return {
        METHODS: dict(sorted(methods.items())),
        METRICS: dict(sorted({**_own(Metric), **_own(PanelMetric)}.items())),
    }


def page(name: str, cls: Any, notes: dict[str, str]) -> str:
    """The page of one card."""
    card = cls.card
    rows = _method_rows(card) if isinstance(card, Card) else _metric_rows(card)
    lines = [
        f"# {name}",
        "",
        f"{_sentence(card.shows)}",
        "",
        "```{admonition} What it is bad at",
        ":class: caution",
        _sentence(card.caution),
        "```",
        "",
        f"```{{image}} {name}.svg",
        f":alt: {_quoted(card.equation)}",
        ":align: center",
        "```",
        "",
        "| | |",
        "|---|---|",
        *(f"| {key} | {_cell(value)} |" for key, value in rows),
        f"| Source | {{cite:t}}`{card.source}` |",
        "",
        *_parameters(cls),
        "## In the review",
        "",
        notes.get(name, "The review {cite:p}`fayaz2026demystifying` has no formula for it."),
        "",
        "## Reference",
        "",
        "```{eval-rst}",
        f".. autoclass:: {cls.__module__}.{name}",
        "   :no-members:",
        "```",
        "",
    ]
    return "\n".join(lines)


def picture(equation: str) -> str:
    """An equation as SVG: set here and not in the reader's browser, which may have no network."""
    plain = re.sub(r"\\[bB]igg?[lr]?(?![a-z])", r"\\,", equation)
    plain = re.sub(r"\\tfrac(\w)(\w)", r"\\frac{\1}{\2}", plain).replace(r"\tfrac", r"\frac")
    drawn = io.BytesIO()
    settings = {"svg.hashsalt": "pellucid", "mathtext.fontset": "cm", "font.size": 15, "savefig.transparent": True}
    with mpl.rc_context(settings):
        math_to_image(f"${plain}$", drawn, format="svg", color=_INK)
    return re.sub(r"<metadata>.*?</metadata>", "", drawn.getvalue().decode(), flags=re.DOTALL)


def index(shelf: Shelf, classes: dict[str, type[Declared]]) -> str:
    """The table of one kind, with its pages below it."""
    head = "| name | family | what it shows | what it is bad at | own passes |"
    if shelf is METRICS:
        head = "| name | property | what it says | what it does not say | better |"
    lines = [f"# {shelf.title}", "", shelf.intro, "", head, "|---|---|---|---|---|"]
    for name, cls in classes.items():
        c: Any = cls.card
        kind, last = (c.family, c.cost_note) if isinstance(c, Card) else (c.measures, c.direction)
        lines.append(f"| [{name}]({name}.md) | {kind.value} | {_cell(c.shows)} | {_cell(c.caution)} | {_cell(last)} |")
    return "\n".join([*lines, "", "```{toctree}", ":hidden:", "", *classes, "```", ""])


def write(folder: Path) -> list[Path]:
    """Write all pages under ``folder``; pages of classes that are gone are removed."""
    notes, written = review_notes(), []
    for shelf, classes in shelves().items():
        here = folder / shelf.folder
        here.mkdir(parents=True, exist_ok=True)
        pages = {f"{name}.md": page(name, cls, notes) for name, cls in classes.items()}
        pages |= {f"{name}.svg": picture(cls.card.equation) for name, cls in classes.items()}
        pages["index.md"] = index(shelf, classes)
        for old in here.iterdir():
            if old.name not in pages:
                old.unlink()
        for file, text in pages.items():
            path = here / file
            # an unchanged page keeps its time, so that Sphinx does not read it again
            if not path.is_file() or path.read_text(encoding="utf-8") != text:
                path.write_text(text, encoding="utf-8")
            written.append(path)
    return written


def _own(base: type[Declared]) -> dict[str, type[Declared]]:
    return {n: c for n, c in sorted(base.registry.items()) if c.__module__.startswith("pellucid.")}


def write_decisions(folder: Path, records: Path) -> Path:
    """Write the page of the decision records, in their order."""
    folder.mkdir(parents=True, exist_ok=True)
    intro = "Why the house is built as it is: what was decided, what else was considered, and what it costs."
    # from this folder to the records' one, as the page must name it
    way = Path(*[".."] * len(folder.relative_to(records.parent).parts), records.name)
    blocks = [
        f"```{{include}} {way.as_posix()}/{record.name}\n:heading-offset: 1\n```"
        for record in sorted(records.glob("*.md"))
    ]
    page = folder / "decisions.md"
    text = "\n\n".join(["# Decisions", intro, *blocks]) + "\n"
    if not page.is_file() or page.read_text(encoding="utf-8") != text:
        page.write_text(text, encoding="utf-8")
    return page


def _method_rows(card: Card) -> list[tuple[str, str]]:
    return [
        ("Family", card.family.value),
        ("Answers in", card.level.value),
        ("Scope", card.scope),
        ("Tasks", ", ".join(sorted(card.tasks))),
        ("Spatial ranks", ", ".join(f"{r}-D" for r in sorted(card.space))),
        ("Sign", "negative values speak against the target" if card.signed else "never negative"),
        ("Sum", "the score's difference from a reference" if card.completes else "no promise"),
        ("Random", "yes, by a seed" if card.stochastic else "no"),
        ("Needs of the model", "only its outputs" if card.agnostic else _asks(card)),
        ("Kind", ("intrinsic" if card.intrinsic else "post hoc") + (", attribution" if card.attribution else "")),
        ("Cost", card.cost_note),
    ]


def _metric_rows(card: MetricCard) -> list[tuple[str, str]]:
    better = {"higher": "higher is better", "lower": "lower is better", "none": "neither way is better"}
    return [
        ("Property", card.measures.value),
        ("Direction", better[card.direction]),
        ("Values", f"{card.interval} ({'no unit' if card.unit == '1' else card.unit})"),
        ("Needs a region", "yes: expert, planted or drawn" if card.needs_region else "no"),
        ("Scope", card.scope),
        ("Tasks", ", ".join(sorted(card.tasks))),
        ("Spatial ranks", ", ".join(f"{r}-D" for r in sorted(card.space))),
        ("Random", "yes, by a seed" if card.stochastic else "no"),
        ("Cost", card.cost_note),
    ]


def _asks(card: Card) -> str:
    return ", ".join(sorted(a.value for a in card.asks))


def _parameters(cls: type[Declared]) -> list[str]:
    parameters = list(cls.parameters())
    if not parameters:
        return ["It has no parameters.", ""]
    rows = [f"| `{p.name}` | `{_type(p.type)}` | `{p.default!r}` | {_cell(p.help)} |" for p in parameters]
    return ["## Parameters", "", "| name | type | default | meaning |", "|---|---|---|---|", *rows, ""]


def _type(hint: object) -> str:
    text = hint.__name__ if isinstance(hint, type) else str(hint)
    return text.replace("pellucid.core.infill.", "").replace("typing.", "").replace("|", "\\|")


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:].rstrip(".") + "."
