"""What a manuscript needs in words and tables: captions, methods, scores with intervals, sources, CLAIM."""

import csv
import io
import math
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pellucid.core.errors import UnreadableImage
from pellucid.core.explanation import Provenance
from pellucid.core.image import Image, Modality
from pellucid.core.metric import Metric, PanelMetric
from pellucid.show.figure import Sketch
from pellucid.show.raster import window_of
from pellucid.show.words import RESEARCH, cell_words, modality_word, number, score_words
from pellucid.statistics.interval import Interval
from pellucid.workbench.registry import explainers, load_all

_COLUMNS = ("model", "target", "method", "metric", "unit", "direction", "n", "mean", "low", "high", "level",
            "undefined", "how")  # fmt: skip
_TEX = {c: f"\\{c}" for c in "&%$#_{}"} | {
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "\\": r"\textbackslash{}",
}
_TEX |= {">": r"\textgreater{}", "<": r"\textless{}", "\u2212": "$-$", "\u00d7": r"$\times$", "\u2014": "---"}
_TEXT_LIKELY = {Modality.ULTRASOUND, Modality.ENDOSCOPY, Modality.XRAY, Modality.OCT, Modality.UNKNOWN}
_CLAIM = "mongan2020claim"
_LIMIT = "A map says where a score comes from; it does not say that the model is right."


@dataclass(frozen=True)
class Score:
    """One metric of one method over the cases.

    Args:
        model: short name; empty: not known.
        target: as the command takes it, or in words.
        method: with its parameters.
        metric: with its parameters.
        unit: of the value.
        direction: which way is better.
        mean: over cases, with its interval.
    """

    model: str
    target: str
    method: str
    metric: str
    unit: str
    direction: str
    mean: Interval


def caption(count: int, one: Sketch, image: Image, case: int) -> str:
    """What stands under a figure: method, target, scale, null, fill, resolution, and what the model said.

    Args:
        count: number of the figure.
        one: the map.
        image: under it.
        case: number of the case.
    """
    explanation = one.explanation
    p = explanation.provenance
    settings = ", ".join(f"{k} = {v}" for k, v in p.settings.items() if v is not None)
    method = f"{p.method}{f' ({settings})' if settings else ''} [@{source_of(p.method)}]"
    drawn = f"the map of {method} for {p.target}" if one.display.shown else f"no map of {method}"
    said = f" Model ({p.model}): {score_words(explanation.prediction)}." if explanation.prediction else ""
    scale = f" {_first(one.display.scale_words)}." if one.display.shown else ""
    notes = "; ".join(n for n in one.display.notes if n != one.display.scale_words)
    named = "letters name the sides of the patient"
    sides = named if one.grid.letters else "the sides of the patient are not stated by the file"
    return (
        f"**Figure {count}.** {modality_word(image.modality)} image of case {case} without and with {drawn}.{said}"
        f"{scale}{f' {_first(notes)}.' if notes else ''} {_first(cell_words(explanation))}. "
        f"Fill: {p.infill or 'none, the method hides nothing'}. Image {window_of(image).words}; {sides}. {RESEARCH}."
    )


def methods_paragraph(made: Sequence[Provenance], scores: Sequence[Score]) -> str:
    """How the maps were made, in the past tense of a methods section, with pandoc citations."""
    first = made[0]
    used = dict.fromkeys(_method_words(p) for p in made)
    models = dict.fromkeys(
        f"{p.model} (SHA-256 of the weights {p.model_digest}, of the card {p.card_digest or 'none'})" for p in made
    )
    targets = dict.fromkeys(p.target for p in made)
    engines = dict.fromkeys("the module itself" if p.engine == "eager" else p.engine for p in made)
    fills = dict.fromkeys(p.infill for p in made if p.infill)
    versions = ", ".join(f"{k} {v}" for k, v in first.versions.items())
    cases = len({p.case for p in made})
    parts = [
        f"Attribution maps of {cases} case{'s' if cases != 1 else ''} were made with {versions} for the model "
        f"{_and(models)}.",
        f"Explained: {_and(targets)}.",
        f"Methods: {'; '.join(used)}.",
        f"Hidden voxels were replaced by {_and(fills)}." if fills else "No method replaced voxels.",
        f"Seed {_and(dict.fromkeys(str(p.seed) for p in made))}, "
        f"{_and(dict.fromkeys(f'{p.precision} on {p.device}' for p in made))}; perturbed images were evaluated by "
        f"{_and(engines)}.",
        "A map is drawn on the scale that its caption names; a region is what exceeds the null stated there, and no "
        "map is shown where the model's score lies below its operating point.",
    ]
    return " ".join([*parts, *([_measured(scores)] if scores else []), _LIMIT])


def study_paragraph(scores: Sequence[Score]) -> str:
    """How the maps of a study were made and measured; its own file holds the rest."""
    methods = dict.fromkeys(f"{s.method}{_cited_as(source_of(s.method.partition(':')[0]))}" for s in scores)
    models, targets = dict.fromkeys(s.model for s in scores), dict.fromkeys(s.target for s in scores)
    made = (
        f"Attribution maps were made with pellucid {version('pellucid')} for {_and(models)} (target: {_and(targets)})."
    )
    return f"{made} Methods: {_and(methods)}. {_measured(scores)} {_LIMIT}"


def _measured(scores: Sequence[Score]) -> str:
    metrics = dict.fromkeys(f"{s.metric}{_cited_as(metric_source(s.metric))}" for s in scores)
    how = dict.fromkeys(s.mean.how for s in scores if s.mean.how)
    return f"The maps were measured by {_and(metrics)}; intervals: {_and(how) if how else 'none, one case'}."


def scores_csv(scores: Sequence[Score]) -> str:
    """Means with their intervals; an unknown bound is empty. A cell never begins with a formula's sign."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for s in scores:
        m = s.mean
        bounds = ["" if math.isnan(v) else f"{v:.6g}" for v in (m.value, m.low, m.high)]
        words = [_plain_cell(w) for w in (s.model, s.target, s.method, s.metric, s.unit, s.direction)]
        writer.writerow([*words, m.count, *bounds, m.level, m.undefined, m.how])
    return stream.getvalue()


def scores_tex(scores: Sequence[Score]) -> str:
    """The same as a table of LaTeX (package booktabs): methods across, metrics down."""
    found: list[str] = []
    for target in dict.fromkeys((s.model, s.target) for s in scores):
        some = [s for s in scores if (s.model, s.target) == target]
        methods = list(dict.fromkeys(s.method for s in some))
        rows = [
            r"\begin{table}",
            rf"\caption{{Measures of the maps, {tex(' '.join(w for w in target if w))}; mean [interval] (n).}}",
        ]
        rows += [rf"\begin{{tabular}}{{l{'r' * len(methods)}}}", r"\toprule"]
        rows += [" & ".join(["Measure", *(tex(m) for m in methods)]) + r" \\", r"\midrule"]
        for metric in dict.fromkeys((s.metric, s.unit, s.direction) for s in some):
            cells = {s.method: s.mean for s in some if (s.metric, s.unit, s.direction) == metric}
            unit = f" ({metric[1]})" if metric[1] not in ("", "1") else ""
            better = f", {metric[2]} is better" if metric[2] in ("higher", "lower") else ""
            row = [tex(f"{metric[0]}{unit}{better}"), *(_tex_cell(cells.get(m)) for m in methods)]
            rows.append(" & ".join(row) + r" \\")
        found.append("\n".join([*rows, r"\bottomrule", r"\end{tabular}", r"\end{table}"]))
    return "\n\n".join(found) + "\n"


def claim_table(written: Sequence[str]) -> str:
    """Which items of CLAIM what was written helps to answer, as a table of Markdown.

    Args:
        written: names of the files of this export.
    """
    table: dict[str, Any] = tomllib.loads(resources.files("pellucid.show").joinpath("claim.toml").read_text("utf-8"))
    lines = ["| Item | CLAIM asks for | Where |", "|---|---|---|"]
    for item in table["items"]:
        named = re.findall(r"\b[\w-]+\.(?:md|csv|tex|json|bib)\b", item["answers"])
        missing = [n for n in named if n not in written]
        absent = f" (not written here: {', '.join(missing)})" if missing else ""
        lines.append(f"| {item['number']} | {item['asks']} | {item['answers']}{absent} |")
    return (
        f"# CLAIM [@{table['source']}]\n\nOther items are the authors' own; {table['note']}.\n\n"
        + "\n".join(lines)
        + "\n"
    )


def bibliography(made: Iterable[Provenance], scores: Sequence[Score]) -> str:
    """The entries of every source that the export names."""
    methods = {p.method for p in made} | {s.method.partition(":")[0] for s in scores}
    keys = {source_of(m) for m in methods} | {metric_source(s.metric) for s in scores} | {_CLAIM}
    entries = _entries()
    return "\n\n".join(entries[k] for k in sorted(keys) if k in entries) + "\n"


def source_of(method: str) -> str:
    """The bibliography key of a method; empty: it is not known here."""
    known = explainers()
    return known[method].card.source if method in known else ""


def metric_source(metric: str) -> str:
    """The bibliography key of a metric, also one with parameters; empty: it is not known here."""
    load_all()
    name = metric.partition(":")[0]
    known = {**Metric.registry, **PanelMetric.registry}
    return known[name].card.source if name in known else ""


def text_warning(image: Image) -> str:
    """Whether text may be burned into the pixels, where names stand on many films; empty: the file denies it."""
    said = str(image.traits.get("burned_in", "")).upper()
    if said == "YES":
        return "the file says that text is burned into the pixels: do not publish the figure before you have looked"
    likely = image.modality in _TEXT_LIKELY or str(image.traits.get("conversion", "")) != ""
    if said != "NO" and likely:
        return "the file does not say whether text is burned into the pixels: look at each figure for names and dates"
    return ""


def tex(words: str) -> str:
    """Words as LaTeX."""
    return "".join(_TEX.get(c, c) for c in words)


def _tex_cell(mean: Interval | None) -> str:
    if mean is None or math.isnan(mean.value):
        return "---"
    bounds = f" [{number(mean.low)}, {number(mean.high)}]" if mean.bounded else ""
    return tex(f"{number(mean.value)}{bounds} ({mean.count})")


def _plain_cell(words: str) -> str:
    """A table program runs what begins with one of these signs."""
    return f"'{words}" if words[:1] in ("=", "+", "-", "@", "\t") else words


def _method_words(p: Provenance) -> str:
    settings = ", ".join(f"{k} = {v}" for k, v in p.settings.items() if v is not None)
    layer = f"layer {p.layer}" if p.layer else ""
    said = "; ".join(w for w in (settings, layer) if w)
    key = source_of(p.method)
    return f"{p.method}{f' [@{key}]' if key else ''}{f' ({said})' if said else ''}"


def _first(words: str) -> str:
    """As a sentence begins; what is in capitals stays so."""
    return words[:1].upper() + words[1:]


def _cited_as(key: str) -> str:
    return f" [@{key}]" if key else ""


def _and(words: Mapping[str, None] | Sequence[str]) -> str:
    some = list(words)
    return some[0] if len(some) == 1 else f"{', '.join(some[:-1])} and {some[-1]}"


@cache
def _entries() -> dict[str, str]:
    """The bibliography by key; it lies in the wheel, and at the root of a clone."""
    here = resources.files("pellucid").joinpath("references.bib")
    clone = Path(__file__).resolve().parents[3] / "references.bib"
    if here.is_file():
        text = here.read_text("utf-8")
    elif clone.is_file():
        text = clone.read_text("utf-8")
    else:
        raise UnreadableImage("the bibliography is not in the installed package", "install the package again")
    parts = re.split(r"(?m)^(?=@\w+\{)", text)
    found = (re.match(r"@\w+\{([^,\s]+),", part) for part in parts)
    return {m[1]: part.strip() for m, part in zip(found, parts, strict=True) if m}
