"""How an explanation shows itself in a notebook: a figure, and a short table under the same rules as a report."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from matplotlib.figure import Figure

from pellucid.core.explanation import Explanation, View
from pellucid.show.figure import draw_sketch, scenery_of, sketch
from pellucid.show.gallery import picture_of
from pellucid.show.report import fragment
from pellucid.show.scenery import Framing
from pellucid.show.words import cell_words, cost_words, score_words


@dataclass(frozen=True)
class NotebookView(View):
    """Draws an explanation for a notebook, framed as its case is.

    Args:
        framing: region, notes, slices, size.
        cautions: by method name: what it is bad at, from its card.
    """

    framing: Framing = field(default_factory=Framing)
    cautions: Mapping[str, str] = field(default_factory=dict)

    def plot(self, explanation: Explanation) -> Figure:
        """Bare image, then the region above the null, then the color wash."""
        one = sketch(explanation, self.framing.show_anyway)
        return draw_sketch(one, scenery_of(one, self.framing), one.stages)

    def html(self, explanation: Explanation) -> str:
        """The figure with a table: target, model score, method, unit, scale, resolution, warnings."""
        one = sketch(explanation, self.framing.show_anyway)
        p = explanation.provenance
        said = score_words(explanation.prediction) if explanation.prediction else ""
        batch = len(next(iter(explanation.attribution.maps.values())))
        rows = (
            ("Target", p.target),
            ("Model", said),
            ("Method", p.method),
            ("Bad at", self.cautions.get(p.method, "")),
            ("Unit", one.display.unit),
            ("Scale", one.display.scale_words if one.display.shown else ""),
            ("Resolution", cell_words(explanation)),
            ("Peak", one.place),
            ("Cost", cost_words(explanation)),
            ("Item", f"1 of {batch}" if batch > 1 else ""),
        )
        warnings = tuple(dict.fromkeys((*explanation.answer.warnings, *p.warnings)))
        figure = draw_sketch(one, scenery_of(one, self.framing), one.stages)
        alt = "; ".join((f"map of {p.method} for {p.target}", *one.display.notes))
        return fragment(picture_of(figure, alt), tuple(r for r in rows if r[1]), warnings)
