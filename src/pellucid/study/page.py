"""The page of a study: what was found, how sure it is, and what came to nothing."""

from collections.abc import Sequence, Set
from dataclasses import dataclass
from functools import cache

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from matplotlib.figure import Figure

from pellucid.show.gallery import Picture, picture_of
from pellucid.show.words import RESEARCH, number, unit_word
from pellucid.study.folder import Manifest
from pellucid.study.items import Item
from pellucid.study.junit import bounds_words, needed_words
from pellucid.study.plates import Plates
from pellucid.study.summary import Line, Match, Summary, by_metric
from pellucid.study.verdicts import SAYS, Finding, Verdict

_CLASSES = {"PASS": "pass", "FAIL": "fail", "INCONCLUSIVE": "inconclusive"}
_SHOWN = 20  # cases that came to nothing; the table holds all


@dataclass(frozen=True, eq=False)
class Part:
    """One model and target on the page.

    Args:
        title: model and target.
        curves: deletion and insertion; None: there are none.
        metrics: every metric with its intervals.
        ranks: None: nothing is ranked.
        differences: mean ranks with critical differences; None: fewer than three methods.
        tables: (metric, rows) of the means.
        pairs: (metric, rows) of the comparisons.
    """

    title: str
    curves: Picture | None
    metrics: Picture | None
    ranks: Picture | None
    differences: Picture | None
    tables: tuple[tuple[str, tuple[tuple[str, ...], ...]], ...]
    pairs: tuple[tuple[str, tuple[tuple[str, ...], ...]], ...]


def render_study(
    manifest: Manifest,
    items: Sequence[Item],
    summary: Summary,
    plates: Sequence[Plates],
    verdicts: Sequence[Verdict],
    said: Sequence[str],
) -> str:
    """The page of a study as HTML.

    Args:
        manifest: what it was made from.
        items: every one.
        summary: what the table comes to.
        plates: its figures.
        verdicts: of its protocols.
        said: about the run.
    """
    parts = [_part(plate, summary) for plate in plates]
    page = {
        "title": manifest.name,
        "research": RESEARCH,
        "head": _head(items),
        "said": said,
        "parts_of": parts,
        "protocols": _protocols(verdicts),
        "says": SAYS,
        "failures": summary.failures[:_SHOWN],
        "more": max(0, len(summary.failures) - _SHOWN),
        "skipped": summary.skipped,
        "provenance": _provenance(manifest),
    }
    return _environment().get_template("study.html.j2").render(page)


def _head(items: Sequence[Item]) -> str:
    done = [i for i in items if i.error is None]
    patients, models, seeds = ({getattr(i, n) for i in items} for n in ("patient", "model", "seed"))
    known = [i.correct for i in done if i.correct is not None]
    right = f"; {sum(known)} of {len(known)} predictions are right" if known else ""
    cases = {i.case for i in items}
    counts = f"{_many(cases, 'case')} of {_many(patients, 'patient')}, {_many(models, 'model')}, {_many(seeds, 'seed')}"
    return f"{counts}; {len(done)} of {len(items)} items have numbers{right}"


def _many(things: Set[object], noun: str) -> str:
    return f"{len(things)} {noun}{'' if len(things) == 1 else 's'}"


def _part(plates: Plates, summary: Summary) -> Part:
    model, target = plates.model, plates.target
    groups = {k: lines for k, lines in by_metric(summary).items() if k[:2] == (model, target)}
    matches = [m for m in summary.matches if (m.model, m.target) == (model, target)]
    return Part(
        f"{model}, target {target}",
        _picture(plates.curves, "mean curves of each method with bands"),
        _picture(plates.metrics, "means of each method with intervals, by metric"),
        _picture(plates.ranks, "share of resamples at each rank, by metric"),
        _picture(plates.differences, "mean ranks of methods and critical differences, by metric"),
        tuple((_heading(lines[0]), tuple(_row(line) for line in lines)) for lines in groups.values()),
        tuple((m.metric, tuple(_pairs(m))) for m in matches),
    )


def _picture(figure: Figure | None, words: str) -> Picture | None:
    return picture_of(figure, words, 2) if figure is not None else None


def _heading(line: Line) -> str:
    unit = "" if line.unit == "1" else f" ({unit_word(line.unit)})"
    better = {"higher": ", higher is better", "lower": ", lower is better"}.get(line.direction, "")
    return f"{line.metric}{unit}{better}"


def _row(line: Line) -> tuple[str, ...]:
    mean, strata = line.mean, line.strata.get("correct", {})
    reasons = "; ".join(f"{n} {reason}" for reason, n in line.reasons.items())
    right, wrong = (bounds_words(strata[n]) if n in strata else "" for n in ("right", "wrong"))
    bounds = f"{number(mean.low)} to {number(mean.high)}" if mean.bounded else mean.note
    return line.method, number(mean.value), bounds, str(mean.clusters), right, wrong, reasons


def _pairs(match: Match) -> list[tuple[str, ...]]:
    return [
        (
            f"{c.first} less {c.second}",
            bounds_words(c.difference),
            f"{number(100 * c.ahead.value)}%",
            number(c.p),
            number(c.adjusted),
        )
        for c in match.comparisons
    ]


def _protocols(verdicts: Sequence[Verdict]) -> list[dict[str, object]]:
    """Verdicts by protocol; what holds for all methods is said once."""
    found: list[dict[str, object]] = []
    for name in dict.fromkeys(v.protocol.id for v in verdicts):
        judged = [v for v in verdicts if v.protocol.id == name]
        title = f"{judged[0].protocol.title} ({name}, version {judged[0].protocol.version})"
        found.append({"title": title, "notes": judged[0].notes, "methods": [_verdict(v) for v in judged]})
    return found


def _verdict(verdict: Verdict) -> dict[str, object]:
    rows = [
        (f.criterion.tier, f.criterion.words, f.criterion.source_status, f.state, _CLASSES.get(f.state, ""), *_told(f))
        for f in verdict.findings
    ]
    return {"title": f"{verdict.method} of {verdict.target}, {verdict.model}", "words": verdict.words, "rows": rows}


def _told(finding: Finding) -> tuple[str, str]:
    found = finding.found
    why = finding.words + (f"; {needed_words(finding)}" if finding.state == "INCONCLUSIVE" else "")
    return (bounds_words(found) if found is not None and found.count else "", why)


def _provenance(manifest: Manifest) -> list[tuple[str, str]]:
    models = [(f"Model {name}, SHA-256 of weights and card", digest) for name, digest in manifest.models.items()]
    return [
        *models,
        ("Settings, SHA-256", manifest.settings),
        ("Files of the cases", str(len(manifest.data))),
        ("Software", f"pellucid {manifest.version}"),
        ("Intervals", "95%, BCa bootstrap over patients, 2,000 resamples, seed 0; bands of curves: percentiles, 500"),
        ("Comparisons", "permutation test over patients; p after Holm over the pairs of a metric"),
    ]


@cache
def _environment() -> Environment:
    loader = ChoiceLoader([PackageLoader("pellucid.study"), PackageLoader("pellucid.show")])
    return Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
