"""A map as objects that a person sees in any viewer: pictures, lines on the source, and colors for the map."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from matplotlib.colors import to_rgb
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from pellucid.core.errors import BadOption, PellucidError
from pellucid.core.explanation import Explanation
from pellucid.io.objects import capture as captures
from pellucid.io.objects import state as states
from pellucid.io.objects.capture import Pictures, secondary_capture
from pellucid.io.objects.marks import Made
from pellucid.io.objects.recipe import Recipe
from pellucid.io.objects.state import Drawing, colored_state, presentation_state
from pellucid.show.capture import RESEARCH_MARK, Overlay, capture
from pellucid.show.figure import Sketch, sketch
from pellucid.show.palette import palette_of
from pellucid.show.raster import window_of
from pellucid.show.rules import Display
from pellucid.show.scenery import burned
from pellucid.show.tracing import trace
from pellucid.show.words import cell_words

_COLORS = 4096  # entries of a pseudo-color table: a null is then off by at most 1/8192 of the scale


@dataclass(frozen=True, eq=False)
class Displayed:
    """Objects for the eye.

    Args:
        objects: by kind: ``sc``, ``gsps``, ``pcps``; complete, with their UIDs.
        skipped: kinds that this image or map cannot have, with the reason.
    """

    objects: Mapping[str, Dataset] = field(default_factory=dict, repr=False)
    skipped: tuple[tuple[str, str], ...] = ()


def displayed(
    made: Made,
    notes: Sequence[str] = (),
    parametric_map: Dataset | None = None,
    recipe: Recipe | None = None,
    overlay: Overlay | None = None,
    show_anyway: bool = False,
) -> Displayed:
    """Every object for the eye that this map can have, under the rules of the report.

    Args:
        made: the explanation on its source.
        notes: sentences every picture of the case must carry.
        parametric_map: that gets colors; None: there is none.
        recipe: of how to make the map again, kept inside each; None: none.
        overlay: of the pictures: ``contour`` or ``wash``; None: as the report chooses.
        show_anyway: draw a map although the model says no; the pictures then say so.

    Raises:
        PellucidError: of the map itself; what a single kind cannot do is listed.
    """
    one = sketch(made.explanation, show_anyway)
    tasks: dict[str, Callable[[], Dataset]] = {
        captures.KIND: lambda: secondary_capture(
            made, pictures_of(made.explanation, notes, overlay, show_anyway), recipe
        ),
        states.STATE: lambda: presentation_state(made, drawing_of(one, notes), recipe),
    }
    if parametric_map is not None:
        tasks[states.COLORED] = lambda: colored_state(made, parametric_map, table_of(one), one.display.limits, recipe)
    objects, skipped = {}, []
    for kind, make in tasks.items():
        try:
            if kind != captures.KIND:
                _check_shown(one.display)
            objects[kind] = make()
        except PellucidError as error:
            skipped.append((kind, f"{error.problem}; {error.mend}"))
    return Displayed(objects, tuple(skipped))


def pictures_of(
    explanation: Explanation, notes: Sequence[str] = (), overlay: Overlay | None = None, show_anyway: bool = False
) -> Pictures:
    """The pictures of a Secondary Capture.

    Args:
        explanation: with its image.
        notes: sentences every picture of the case must carry.
        overlay: ``contour`` or ``wash``; None: as the report chooses.
        show_anyway: draw a map although the model says no.
    """
    drawn = capture(explanation, notes, overlay, show_anyway)
    return Pictures(drawn.frames, drawn.slices, drawn.zoom, drawn.words)


def drawing_of(one: Sketch, notes: Sequence[str] = ()) -> Drawing:
    """Outline, peak, window and words of a presentation state.

    Raises:
        BadOption: the map may not be shown.
    """
    _check_shown(one.display)
    image, display, provenance = one.explanation.image, one.display, one.explanation.provenance
    if image is None:
        raise BadOption("expected an explanation with its image, got one without", "explain a case, not a bare tensor")
    palette, window, traced = palette_of(image.modality), window_of(image), trace(one)
    words = [
        " - ".join((RESEARCH_MARK, *burned(notes))),
        f"{provenance.method}, target {provenance.target}",
        *display.notes,
        cell_words(one.explanation),
        *notes,
    ]
    if traced.left_out:
        words.append(f"{traced.left_out} of the smallest outlines are left out")
    rises = display.null is not None and float(one.values.max()) > display.null
    return Drawing(
        lines=traced.lines,
        colors=(_rgb(palette.contour), _rgb(palette.against)),
        window=(window.low, window.high),
        inverted=palette.base.endswith("_r"),
        words=tuple(_ascii(w) for w in words),
        peak=one.peak if rises else None,
        peak_words=_ascii(f"strongest evidence, {cell_words(one.explanation)}"),
    )


def table_of(one: Sketch) -> NDArray[np.uint8]:
    """The colors of a map's values from the low to the high end of its scale: black where nothing may be shown."""
    display, image = one.display, one.explanation.image
    palette = palette_of(image.modality if image is not None else None)
    values = np.linspace(*display.limits, _COLORS, dtype=np.float32)
    colors = np.round(255 * palette.colormap(display.signed, alone=True)(np.linspace(0, 1, _COLORS))[:, :3])
    return np.where((display.alpha(values) > 0)[:, None], colors, 0).astype(np.uint8)


def _check_shown(display: Display) -> None:
    if not display.shown:
        raise BadOption(display.notes[0], "write the map itself and look at it with its warning")


def _rgb(color: str) -> tuple[int, int, int]:
    red, green, blue = (round(255 * v) for v in to_rgb(color))
    return red, green, blue


def _ascii(words: str) -> str:
    """Signs that the character set of an object may lack, as ASCII."""
    for sign, plain in (("\u2212", "-"), ("\u00d7", "x"), ("\u2013", "-"), ("\u2014", "-"), ("\u00b7", "-")):
        words = words.replace(sign, plain)
    return words
