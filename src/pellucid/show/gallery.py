"""The maps of a report as pictures with their words, ready for a page."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure

from pellucid.core.explanation import Explanation
from pellucid.core.grid import Calibration, Grid
from pellucid.core.prepare import Prepared
from pellucid.show.accounts import AccountRow, account_rows
from pellucid.show.answers import Answers
from pellucid.show.difference import Difference, draw_difference
from pellucid.show.figure import STAGES, Sketch, Stage, draw_image, draw_sketch, scenery_of, sketch
from pellucid.show.scenery import Framing, region_label
from pellucid.show.sections import CaseReport, Check, MapPanel
from pellucid.show.sheet import png
from pellucid.show.words import TIMES, cell_words, cost_words, edges, length_unit, modality_word

_WIDTH = 860


@dataclass(frozen=True)
class Picture:
    """An image for a page.

    Args:
        uri: PNG as a data URI.
        alt: what it shows, in words.
        width: of the sheet, in pixels.
        height: of the sheet, in pixels.
    """

    uri: str
    alt: str
    width: int
    height: int


@dataclass(frozen=True)
class MapView:
    """One map on the page.

    Args:
        title: of the map.
        target: what is explained.
        picture: bare image and contour; bare image and map where there is no null.
        wash: the color wash, on request; None: not drawn, or already in ``picture``.
        notes: what the display rules say of it.
        rows: (name, words) of its card, cost and settings.
        caution: what the method is bad at.
        warnings: doubts about this result.
        answers: what a reader takes from it; None: not to be told here.
        sham: what hiding does elsewhere; None: the method hides nothing, or it was not tried.
        account: where relevance stayed on its way to the image; empty: the method keeps no ledger.
    """

    title: str
    target: str
    picture: Picture
    wash: Picture | None
    notes: tuple[str, ...]
    rows: tuple[tuple[str, str], ...]
    caution: str
    warnings: tuple[str, ...]
    answers: Answers | None = None
    sham: Check | None = None
    account: tuple[AccountRow, ...] = ()


@dataclass(frozen=True, eq=False)
class DifferenceView:
    """Two maps against each other on the page.

    Args:
        one: what is compared.
        picture: bare image, both maps, and their difference.
    """

    one: Difference
    picture: Picture


def picture_of(figure: Figure, alt: str, scale: float = 1.0) -> Picture:
    """A figure as it stands in a page."""
    width, height = (round(v) for v in figure.get_size_inches() * figure.dpi)
    uri = "data:image/png;base64," + base64.b64encode(png(figure, scale)).decode("ascii")
    return Picture(uri, alt, width, height)


def framing_of(report: CaseReport, width: int = _WIDTH) -> Framing:
    """Region and notes of a case, the same for all its pictures."""
    region = report.case.region(report.region) if report.region else None
    return Framing(region=region, region_name=report.region or "", notes=report.case.notes, width=width)


def withheld(report: CaseReport) -> bool:
    """Whether the model says no, so that maps are shown on request only."""
    return report.prediction is not None and report.prediction.below_threshold


def case_picture(report: CaseReport, scale: float = 1.0) -> Picture:
    """The image before any map."""
    figure = draw_image(report.image, framing_of(report), report.case.name, prepared_of(report))
    words = f"{modality_word(report.image.modality)} image of {report.case.name}, without any map"
    if report.region:
        words += f"; beside it the same with the {region_label(report.case.region(report.region), report.region)}"
    return picture_of(figure, words, scale)


def map_views(report: CaseReport, scale: float = 1.0) -> tuple[MapView, ...]:
    """Every map of a report; below the operating point they are drawn for whoever asks."""
    framing = framing_of(report)
    known = frozenset((*report.case.notes, *report.warnings))  # stand at the top of the page already
    return tuple(_view(panel, framing, withheld(report), scale, known) for panel in report.maps)


def difference_view(one: Difference, framing: Framing, scale: float = 1.0) -> DifferenceView:
    """Two maps and their difference as one picture."""
    minus = f", and {one.names[0]} minus {one.names[1]}" if one.difference is not None else ""
    words = f"the image, the maps of {one.names[0]} and {one.names[1]}{minus}; {one.title}"
    return DifferenceView(one, picture_of(draw_difference(one, framing), words, scale))


def prepared_of(report: CaseReport) -> Prepared | None:
    """How the image was brought to the network, where that is known."""
    return next((m.explanation.prepared for m in report.maps if m.explanation.prepared is not None), None)


def grid_words(grid: Grid) -> str:
    """Size and spacing of an image, with what its lengths mean.

    Example:
        >>> grid_words(Grid.regular((512, 512))).replace(TIMES, "x")
        '512 x 512 px, no millimeters known'
    """
    size = f" {TIMES} ".join(str(n) for n in grid.shape)
    if grid.calibration is Calibration.NONE:
        return f"{size} {'px' if grid.rank == 2 else 'voxels'}, no millimeters known"
    return f"{size} {'px' if grid.rank == 2 else 'voxels'} of {edges(grid.spacing, length_unit(grid))}"


def orientation_words(grid: Grid) -> str:
    """Whether the sides of the patient are known."""
    if grid.letters is None:
        return "not stated by the file: sides are named as sides of the image"
    if grid.rank == 2:
        return "stated by the file: letters stand at the sides of the picture, which is drawn as stored"
    return "stated by the file; patient right is on image left in axial and coronal pictures"


def _view(panel: MapPanel, framing: Framing, show_anyway: bool, scale: float, known: frozenset[str]) -> MapView:
    explanation = panel.explanation
    one = sketch(explanation, show_anyway)
    picture, wash = pictures(one, framing, scale)
    p = explanation.provenance
    ledger = explanation.attribution.ledger
    return MapView(
        panel.title, p.target, picture, wash, one.display.notes, _rows(panel, one), panel.caution,
        tuple(w for w in dict.fromkeys((*explanation.answer.warnings, *p.warnings)) if w not in known),
        panel.answers if one.display.shown else None, panel.sham, account_rows(ledger) if ledger is not None else (),
    )  # fmt: skip


def pictures(one: Sketch, framing: Framing, scale: float = 1.0) -> tuple[Picture, Picture | None]:
    """Image and contour as one picture, the wash as another; where there is no null, image and map as one."""
    first: tuple[Stage, ...] = ("bare", "contour") if "contour" in one.stages else STAGES
    scenery = scenery_of(one, framing, first)
    picture = picture_of(draw_sketch(one, scenery, first, brief=True), _alt(one, first), scale)
    if "contour" not in one.stages or not one.display.alpha(one.values).any():
        return picture, None  # nothing would be painted
    return picture, picture_of(draw_sketch(one, scenery, ("wash",), brief=True), _alt(one, ("wash",)), scale)


def _alt(one: Sketch, stages: Sequence[Stage]) -> str:
    p = one.explanation.provenance
    if not one.display.shown:
        return f"the image alone; {one.display.notes[0]}"
    parts = {
        "bare": "the image",
        "contour": "the image with a line around the region above the null",
        "wash": f"the map of {p.method} for {p.target} in color",
    }
    shown = ", then ".join(parts[s] for s in stages if s in one.stages)
    place = f"; the map peaks at: {one.place}" if one.place else ""
    return f"{shown}{place}; {'; '.join(one.display.notes)}"


def _rows(panel: MapPanel, one: Sketch) -> tuple[tuple[str, str], ...]:
    e: Explanation = panel.explanation
    p = e.provenance
    settings = ", ".join(f"{k} = {v}" for k, v in p.settings.items() if v is not None)
    rows = (
        ("Shows", panel.shows),
        ("Peak", "" if panel.answers is not None else one.place),  # it stands among the answers
        ("Resolution", cell_words(e)),
        ("Scale", one.display.scale_words),
        ("Fill", p.infill or ""),
        ("Layer", p.layer or ""),
        ("Settings", settings),
        ("Cost", cost_words(e)),
        ("Source", panel.source),
    )
    return tuple((name, words) for name, words in rows if words)
