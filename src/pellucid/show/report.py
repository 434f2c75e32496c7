"""One self-contained page for a case, and an overview of many: no network, no script, nothing half-written."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from pellucid.core.atomic import write_text
from pellucid.core.card import Property
from pellucid.core.explanation import Effects, Explanation
from pellucid.show.answers import AGREEMENT, between, percent, rounded, times
from pellucid.show.curves import draw_score_curves
from pellucid.show.difference import Difference
from pellucid.show.effects import cells, draw_curves, draw_effects, further_tables, headings, left_out
from pellucid.show.figure import draw_image
from pellucid.show.gallery import (
    Picture,
    case_picture,
    difference_view,
    framing_of,
    grid_words,
    map_views,
    orientation_words,
    picture_of,
    prepared_of,
    withheld,
)
from pellucid.show.measures import listed, matrix_of
from pellucid.show.rules import withheld_words
from pellucid.show.scenery import Framing, burned
from pellucid.show.sections import CaseReport, IndexEntry, State
from pellucid.show.words import CHECKS, RESEARCH, cell_words, class_words, modality_word, number, score_words, unit_word

_WORST: tuple[State, ...] = ("fail", "inconclusive", "not measured", "pass")
_PILLS = {"pass": "pass", "fail": "fail", "inconclusive": "not certain", "not measured": "not checked"}
_TRAITS = ("body_part", "view", "laterality", "sequence", "contrast", "kernel", "photometric")
_THUMBNAIL = 300
_MOST_SCORES = 8


def render_report(report: CaseReport, scale: float = 1.0, back: str = "", viewer: str = "") -> str:
    """The page of one case as HTML.

    Args:
        report: what to show.
        scale: pixels of the pictures per pixel of the page (2 for print).
        back: relative link to the overview; empty: there is none.
        viewer: relative link to the viewer's page, shown in a frame; empty: there is none.
    """
    views = map_views(report, scale)
    page = {
        "report": report,
        "state": worst(report),
        "marks": burned(report.case.notes),
        "back": back,
        "viewer": viewer,
        "picture": case_picture(report, scale),
        "facts": _case_facts(report),
        "views": views,
        "differences": [
            difference_view(d, framing_of(report), scale) for d in report.differences if d.state != "nothing"
        ],
        "withheld": withheld_words(report.maps[0].explanation) if withheld(report) and report.maps else "",
        "scores": _scores(report),
        "place": _localization(report),
        "curves": _curves(report, scale),
        "matrix": matrix_of(report.scores, [m.title for m in report.maps]),
        "provenance": _provenance(report),
    }
    return environment().get_template("report.html.j2").render(page)


def render_index(entries: Sequence[IndexEntry], title: str = "Explained cases") -> str:
    """The overview of many cases as HTML."""
    return environment().get_template("index.html.j2").render(entries=entries, title=title)


def write_report(report: CaseReport, path: Path, scale: float = 1.0, back: str = "", viewer: str = "") -> Path:
    """Write the page of one case, whole or not at all.

    Args:
        report: what to show.
        path: of the page.
        scale: pixels of the pictures per pixel of the page.
        back: relative link to the overview; empty: there is none.
        viewer: relative link to the viewer's page; empty: there is none.

    Raises:
        UnwritableOutput: the file cannot be written.
    """
    return write_text(path, render_report(report, scale, back, viewer))


def write_index(entries: Sequence[IndexEntry], path: Path, title: str = "Explained cases") -> Path:
    """Write the overview, whole or not at all.

    Raises:
        UnwritableOutput: the file cannot be written.
    """
    return write_text(path, render_index(entries, title))


def render_comparison(one: Difference, first: Explanation, second: Explanation, notes: Sequence[str] = ()) -> str:
    """The page of two saved maps against each other.

    Args:
        one: what is compared.
        first: as it was saved.
        second: as it was saved.
        notes: sentences every picture of the case must carry.
    """
    pair = tuple(zip(one.names, (first, second), strict=True))
    page = {
        "one": one,
        "view": difference_view(one, Framing(notes=tuple(notes))) if one.state != "nothing" else None,
        "case": first.provenance.case,
        "sides": [(n, e.provenance.applicability, score_words(e.prediction) if e.prediction else "") for n, e in pair],
        "marks": burned(notes),
        "notes": notes,
        "warnings": _told_of(pair, notes),
        "provenance": list(zip(*(_made(e) for e in (first, second)), strict=True)),
    }
    return environment().get_template("compare.html.j2").render(page)


def render_effects(explanation: Explanation, effects: Effects) -> str:
    """The page of a method for cohorts.

    Args:
        explanation: with its provenance.
        effects: its answer.
    """
    made = explanation.provenance
    words = f"{made.method} of {made.target}"
    left, curves = left_out(effects), draw_curves(effects)
    page = {
        "title": f"{words}: {made.case}",
        "about": made.model,
        "applicability": made.applicability,
        "said": [*effects.said, *((left,) if left else ())],
        "warnings": list(dict.fromkeys(made.warnings)),
        "picture": picture_of(draw_effects(effects, words), f"bars of {effects.measure} with intervals, {words}"),
        "curves": picture_of(curves, f"curves of the score, {words}") if curves is not None else None,
        "headings": headings(effects),
        "rows": cells(effects),
        "tables": further_tables(effects),
        "provenance": _traced(explanation, effects.unit),
    }
    return environment().get_template("cohort.html.j2").render(page)


def _told_of(pair: Sequence[tuple[str, Explanation]], notes: Sequence[str]) -> list[str]:
    """The warnings of two explanations, those of both said once."""
    found: dict[str, list[str]] = {}
    for name, explanation in pair:
        for words in dict.fromkeys(explanation.provenance.warnings):
            found.setdefault(words, []).append(name)
    return [w if len(of) > 1 else f"{of[0]}: {w}" for w, of in found.items() if w not in notes]


def write_comparison(page: str, path: Path) -> Path:
    """Write what ``render_comparison`` gave, whole or not at all.

    Raises:
        UnwritableOutput: the file cannot be written.
    """
    return write_text(path, page)


def fragment(picture: Picture, rows: Sequence[tuple[str, str]], warnings: Sequence[str]) -> str:
    """A picture with a table, as a piece of HTML for a notebook."""
    return environment().get_template("notebook.html.j2").render(picture=picture, rows=rows, warnings=warnings)


def entry_of(report: CaseReport, href: str) -> IndexEntry:
    """The overview's card of a report: the bare image and one line, never a map."""
    framing = framing_of(report, _THUMBNAIL)
    figure = draw_image(report.image, framing, "", prepared_of(report), only_bare=True)
    picture = picture_of(figure, "")
    line = score_words(report.prediction) if report.prediction else "the model was not run"
    checks = (report.applicability, report.golden)
    return IndexEntry(
        href=href,
        title=report.case.name,
        about=f"{modality_word(report.image.modality)}, {grid_words(report.image.grid)}",
        line=line,
        state=worst(report),
        verdict="; ".join(f"{c.name}: {_PILLS[c.state]}" for c in checks),
        thumbnail=picture.uri,
        marks=burned(report.case.notes),
    )


def worst(report: CaseReport) -> State:
    """The worse of applicability and golden check."""
    return min((report.applicability.state, report.golden.state), key=_WORST.index)


def _curves(report: CaseReport, scale: float) -> Picture | None:
    figure = draw_score_curves(report.scores)
    return (
        None if figure is None else picture_of(figure, "The model's score along each map's order; in the table.", scale)
    )


def _case_facts(report: CaseReport) -> tuple[tuple[str, str], ...]:
    case, image = report.case, report.image
    rows = [("Case", case.name), ("Modality", modality_word(image.modality)), ("Size", grid_words(image.grid))]
    rows += [("Orientation", orientation_words(image.grid)), ("Values", image.unit)]
    rows += [(k.replace("_", " ").capitalize(), str(image.traits[k])) for k in _TRAITS if k in image.traits]
    if case.series is not None:
        rows.append(("Series", f"{case.series.number} of {case.series.of}: {case.series.why}"))
        rows += [("Series not taken", "; ".join(case.series.rejected))] if case.series.rejected else []
    if case.label:
        rows.append(("Reference label", case.label))
    if case.group:
        rows.append(("Group", case.group))
    return tuple(rows)


def _scores(report: CaseReport) -> tuple[tuple[str, str], ...]:
    if report.prediction is None or report.prediction.score is None:
        return ()
    ranked = sorted(report.prediction.scores.items(), key=lambda item: -item[1])[:_MOST_SCORES]
    return tuple((label, number(value)) for label, value in ranked)


def _localization(report: CaseReport) -> dict[str, tuple[tuple[str, str], ...]]:
    """By map: its scores against the reference region."""
    rows = [r for r in report.scores if r.about.measures == Property.LOCALIZATION and report.region]
    return {m.title: listed([r for r in rows if r.of == m.title]) for m in report.maps}


def _provenance(report: CaseReport) -> tuple[tuple[str, str], ...]:
    if not report.maps:
        return ()
    p = report.maps[0].explanation.provenance
    versions = ", ".join(f"{k} {v}" for k, v in p.versions.items())
    return (
        ("Model", p.model),
        ("Weights, SHA-256", p.model_digest),
        ("Model card, SHA-256", p.card_digest or "none"),
        ("Input, SHA-256", p.input_digest),
        ("Target", ", ".join(dict.fromkeys(m.explanation.provenance.target for m in report.maps))),
        ("Seed", str(p.seed)),
        ("Precision and device", f"{p.precision}, {p.device}"),
        ("Software", versions),
        ("Created (UTC)", p.created),
    )


def _made(explanation: Explanation) -> tuple[tuple[str, str], ...]:
    shape = ("Native resolution", cell_words(explanation))
    rows = _traced(explanation, explanation.attribution.unit)
    place = [name for name, _ in rows].index("Unit") + 1
    return (*rows[:place], shape, *rows[place:])


def _traced(explanation: Explanation, unit: str) -> tuple[tuple[str, str], ...]:
    """How an explanation was made, apart from what only a map has."""
    p = explanation.provenance
    settings = ", ".join(f"{k} = {v}" for k, v in p.settings.items() if v is not None)
    return (
        ("Case", p.case),
        ("Target", p.target),
        ("Method", p.method),
        ("Settings", settings or "none"),
        ("Layer", p.layer or "none"),
        ("Fill", p.infill or "none"),
        ("Unit", unit_word(unit)),
        ("Model", p.model),
        ("Weights, SHA-256", p.model_digest),
        ("Model card, SHA-256", p.card_digest or "none"),
        ("Input, SHA-256", p.input_digest),
        ("Seed", str(p.seed)),
        ("Precision and device", f"{p.precision}, {p.device}"),
        ("Engine", p.engine),
        ("Software", ", ".join(f"{k} {v}" for k, v in p.versions.items())),
        ("Created (UTC)", p.created),
    )


@cache
def environment() -> Environment:
    """The templates, with the words that every page shares."""
    made = Environment(
        loader=PackageLoader("pellucid.show"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.globals |= {"research": RESEARCH, "checks_words": CHECKS, "pills": _PILLS}
    made.globals |= {"score_words": score_words, "class_words": class_words, "number": number, "unit_word": unit_word}
    made.globals |= {
        "percent": percent,
        "between": between,
        "times": times,
        "rounded": rounded,
        "agreement_words": AGREEMENT,
    }
    return made
