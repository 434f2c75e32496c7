"""How a viewer shall show a source or a map: presentation states, which hold lines, words and colors but no pixels."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from math import gcd
from typing import Any

import highdicom as hd
import numpy as np
from highdicom.color import CIELabColor
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.valuerep import DS

from pellucid.core.errors import BadOption, ShapeMismatch
from pellucid.core.grid import Grid
from pellucid.io.dicomfacts import find, is_measured
from pellucid.io.guard import writing
from pellucid.io.objects.identity import stamp
from pellucid.io.objects.marks import CREATOR, MANUFACTURER, PRODUCT, Made, content_label, equipment, mark, plain
from pellucid.io.objects.recipe import Recipe, embed
from pellucid.io.objects.source import Source
from pellucid.io.volume import is_enhanced, stored_limits

STATE, COLORED = "gsps", "pcps"
STATE_NUMBER, COLORED_NUMBER = 9500, 9600
_LONG, _TEXT = 64, 1024  # characters of LO and ST
_BOX = (0.01, 0.84, 0.99, 0.99)  # of the display: where the words stand
_TRANSFORM = ("RescaleSlope", "RescaleIntercept", "RescaleType", "PixelValueTransformationSequence")
_WINDOW = ("WindowCenter", "WindowWidth", "WindowCenterWidthExplanation", "VOILUTFunction", "FrameVOILUTSequence")
_GROUPS = ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")
_STEPS = 1000  # parts of a millimeter in which a pixel's height and width are compared


@dataclass(frozen=True, eq=False)
class Drawing:
    """What a presentation state shows on its source, decided by the display rules.

    Args:
        lines: slice, whether it speaks for the target, and closed points (column, row) in pixels of the image, from
            the upper left corner of the upper left one.
        colors: RGB of the lines that speak for and against the target.
        window: image values shown as black and white.
        inverted: whether much is shown dark (PET).
        words: sentences that stand on every image; never about the patient.
        peak: index along the image's axes of the strongest evidence; None: nothing rises above the null.
        peak_words: beside it.
    """

    lines: Sequence[tuple[int, bool, NDArray[np.float32]]]
    colors: tuple[tuple[int, int, int], tuple[int, int, int]]
    window: tuple[float, float]
    inverted: bool
    words: Sequence[str]
    peak: tuple[int, ...] | None = None
    peak_words: str = ""


def presentation_state(made: Made, drawing: Drawing, recipe: Recipe | None = None) -> Dataset:
    """The region's outline, the peak and the research words on the source's own images, with its UIDs.

    A grayscale state with the window of the report; of a color image a color state. The source's pixels stay as they
    are, and a viewer can switch the drawing off.

    Args:
        made: the explanation on its source.
        drawing: made from that explanation.
        recipe: of how to make it again, kept inside; None: none.

    Raises:
        BadOption: the image was resampled, or has a palette: no state can serve it.
        ShapeMismatch: a line or the peak lies outside the image.
        UnwritableOutput: the source lacks what the object needs.
    """
    source = made.source
    _check(source, drawing)
    with writing("presentation state"):
        color = int(source.first.get("SamplesPerPixel", 1)) != 1
        layers = _layers(drawing)
        options = _common(made, list(source.headers), STATE_NUMBER, "region above the null") | {
            "graphic_layers": list(layers.values()),
            "graphic_annotations": _annotations(source, drawing, layers),
        }
        if color:
            profile = None if source.first.get("ICCProfile") else _srgb()
            dataset = hd.pr.ColorSoftcopyPresentationState(**options, icc_profile=profile)
        else:
            dataset = hd.pr.GrayscaleSoftcopyPresentationState(**options | _gray(source, drawing))
        _size(dataset, source.image.grid)
        mark(dataset, made, "region on the source", image=False)
        return _finished(dataset, made, STATE, recipe)


def colored_state(
    made: Made,
    parametric_map: Dataset,
    colors: NDArray[np.uint8],
    limits: tuple[float, float],
    recipe: Recipe | None = None,
) -> Dataset:
    """The colors of the report for a Parametric Map, with its UIDs.

    Args:
        made: the explanation on its source.
        parametric_map: as ``maps.parametric_map`` gave it.
        colors: RGB from the low to the high end, black where nothing may be shown.
        limits: the map's values at both ends.
        recipe: of how to make it again, kept inside; None: none.

    Raises:
        UnwritableOutput: the map lacks what the object needs.
    """
    with writing("pseudo-color presentation state"):
        channels = [
            hd.PaletteColorLUT(0, np.ascontiguousarray(colors[:, n].astype(np.uint16) * 257), name)
            for n, name in enumerate(("red", "green", "blue"))
        ]
        dataset = hd.pr.PseudoColorSoftcopyPresentationState(
            **_common(
                made,
                [_without(parametric_map, (*_WINDOW, "PixelData", "FloatPixelData"))],
                COLORED_NUMBER,
                "colors of the map",
            ),
            palette_color_lut_transformation=hd.PaletteColorLUTTransformation(*channels),
        )
        # highdicom 0.28.2 fails on a list of windows and on the map's own, so that it is written here
        dataset.SoftcopyVOILUTSequence = [_window(*_stored(parametric_map, limits), exact=True)]
        _size(dataset, made.source.image.grid)
        mark(dataset, made, "colors", image=False)
        return _finished(dataset, made, COLORED, recipe)


def _finished(dataset: Dataset, made: Made, kind: str, recipe: Recipe | None) -> Dataset:
    dataset.PresentationCreationDate, dataset.PresentationCreationTime = made.source.moment
    if recipe is not None:
        embed(dataset, recipe)
    return stamp(dataset, made.key, kind)


def _check(source: Source, drawing: Drawing) -> None:
    if not source.aligned:
        raise BadOption(
            "expected an image on its source's own slices, got one that was resampled: its lines fit none of them",
            "use the secondary capture and the parametric map, which have slices of their own",
        )
    if source.first.get("PhotometricInterpretation") == "PALETTE COLOR":
        raise BadOption(
            "expected a gray or a full color source, got one with a palette, for which no state can be written",
            "use the secondary capture",
        )
    grid = source.image.grid
    depth = grid.shape[0] if grid.rank == 3 else 1
    box = np.asarray(grid.shape[-2:])[::-1]
    outside = [1 for place, _, p in drawing.lines if not 0 <= place < depth or (p < 0).any() or (p > box).any()]
    beyond = drawing.peak is not None and any(not 0 <= i < n for i, n in zip(drawing.peak, grid.shape, strict=True))
    if outside or beyond:
        raise ShapeMismatch(
            f"expected lines inside the image of shape {grid.shape}, got {len(outside)} beside it",
            "trace them on the explanation that is exported",
        )


def _common(made: Made, images: list[Dataset], number: int, what: str) -> dict[str, Any]:
    return {
        "referenced_images": images,
        "series_instance_uid": "2.25.0",
        "series_number": number,
        "sop_instance_uid": "2.25.0",
        "instance_number": 1,
        "manufacturer": MANUFACTURER,
        "manufacturer_model_name": PRODUCT,
        "software_versions": equipment(made),
        "device_serial_number": plain(str(made.provenance.versions.get("pellucid", "unknown"))),
        "content_label": content_label(made.provenance.method),
        "content_description": plain(f"{what}, {made.title}")[:_LONG],
        "content_creator_name": CREATOR,
    }


def _layers(drawing: Drawing) -> dict[str, hd.pr.GraphicLayer]:
    """Layers that a viewer can switch one by one: what speaks for, what speaks against, and the words."""
    told = {
        "FOR": ("above the null: speaks for the target", drawing.colors[0]),
        "AGAINST": ("speaks against the target", drawing.colors[1]),
        "WORDS": ("research marks and peak", (255, 255, 255)),
    }
    used = {"FOR" if forward else "AGAINST" for _, forward, _ in drawing.lines} | {"WORDS"}
    return {
        name: hd.pr.GraphicLayer(name, order, words, CIELabColor.from_rgb(*color))
        for order, (name, (words, color)) in enumerate(told.items(), 1)
        if name in used
    }


def _annotations(
    source: Source, drawing: Drawing, layers: dict[str, hd.pr.GraphicLayer]
) -> list[hd.pr.GraphicAnnotation]:
    start = np.asarray(source.start[::-1], float)
    against = CIELabColor.from_rgb(*drawing.colors[1])
    grouped: dict[tuple[int, bool], list[hd.pr.GraphicObject]] = {}
    for place, forward, points in drawing.lines:
        grouped.setdefault((place, forward), []).append(_line(points + start, None if forward else against))
    found = [
        _on(source, place, layers["FOR" if forward else "AGAINST"], lines)
        for (place, forward), lines in sorted(grouped.items(), key=lambda item: (item[0][0], not item[0][1]))
    ]
    words = "\r\n".join(plain(w) for w in drawing.words)[:_TEXT]
    text = hd.pr.TextObject(words, "DISPLAY", bounding_box=_BOX, text_justification="LEFT")
    everywhere = _everywhere(source)
    found.append(hd.pr.GraphicAnnotation(everywhere[0], layers["WORDS"], everywhere[1], text_objects=[text]))
    if drawing.peak is not None:
        place = drawing.peak[0] if len(drawing.peak) == 3 else 0
        at = np.asarray(drawing.peak[:-3:-1], float) + 0.5 + start
        point = hd.pr.GraphicObject("POINT", at[None], "PIXEL")
        beside = hd.pr.TextObject(plain(drawing.peak_words)[:_TEXT], "PIXEL", anchor_point=(float(at[0]), float(at[1])))
        found.append(_on(source, place, layers["WORDS"], [point], [beside]))
    return found


def _line(points: NDArray[np.floating[Any]], dashes: CIELabColor | None) -> hd.pr.GraphicObject:
    """A closed line; what speaks against the target is dashed as well as of another color (PS3.3 C.10.5.1.2)."""
    line = hd.pr.GraphicObject("POLYLINE", np.asarray(points, float), "PIXEL")
    if dashes is not None:
        style = Dataset()
        style.PatternOnColorCIELabValue, style.PatternOnOpacity = list(dashes.value), 1.0
        style.LineThickness, style.LineDashingStyle, style.LinePattern = 1.0, "DASHED", 0xFF00FF00
        style.ShadowStyle, style.ShadowOpacity, style.ShadowColorCIELabValue = "OFF", 0.0, [0, 0, 0]
        style.ShadowOffsetX = style.ShadowOffsetY = 0.0
        line.LineStyleSequence = [style]
    return line


def _on(
    source: Source,
    place: int,
    layer: hd.pr.GraphicLayer,
    graphics: list[hd.pr.GraphicObject],
    texts: list[hd.pr.TextObject] | None = None,
) -> hd.pr.GraphicAnnotation:
    """An annotation of one slice."""
    header = source.headers[place] if len(source.headers) > 1 else source.first
    frame = source.frames[place] if "NumberOfFrames" in header else None
    return hd.pr.GraphicAnnotation([header], layer, frame, graphic_objects=graphics, text_objects=texts)


def _everywhere(source: Source) -> tuple[list[Dataset], list[int] | None]:
    frames = list(source.frames) if "NumberOfFrames" in source.first else None
    return list(source.headers), frames


def _gray(source: Source, drawing: Drawing) -> dict[str, Any]:
    """Images, modality transform, window and polarity of a gray source."""
    header = source.first
    flipped = header.get("PhotometricInterpretation") == "MONOCHROME1" and not is_measured(header)
    shape = "INVERSE" if drawing.inverted != flipped else "IDENTITY"
    found: dict[str, Any] = {"presentation_lut_transformation": hd.PresentationLUTTransformation(shape)}
    window = _header_window(source, drawing.window, flipped)
    transforms = _transforms(source)
    if len(set(transforms)) > 1:  # one state has room for one modality transform: windows in stored values, by slice
        found["referenced_images"] = [_without(h, _TRANSFORM + _WINDOW) for h in source.headers]
        found["voi_lut_transformations"] = _windows(source, transforms, window)
        return found
    found["referenced_images"] = [_without(h, _WINDOW) for h in source.headers]
    found["voi_lut_transformations"] = [_softcopy(window)]
    slope, intercept = transforms[0]
    if slope is not None and intercept is not None:
        kind = str(find(header, "RescaleType") or ("HU" if header.get("Modality") == "CT" else "US"))
        found["modality_lut_transformation"] = hd.ModalityLUTTransformation(
            rescale_intercept=intercept, rescale_slope=slope, rescale_type=kind
        )
    return found


def _windows(
    source: Source, transforms: Sequence[tuple[float | None, float | None]], window: tuple[float, float]
) -> list[hd.pr.SoftcopyVOILUTTransformation]:
    """The window of each slice in its stored values (PS3.3 C.11.8)."""
    low, high = window
    found = []
    for place, (slope, intercept) in enumerate(transforms):
        header = source.headers[place] if len(source.headers) > 1 else source.first
        frame = source.frames[place] if "NumberOfFrames" in header else None
        stored = ((v - (intercept or 0.0)) / (slope or 1.0) for v in (low, high))
        least, most = stored
        found.append(_softcopy((least, most), hd.ReferencedImageSequence([header], frame)))
    return found


def _softcopy(
    window: tuple[float, float], images: hd.ReferencedImageSequence | None = None
) -> hd.pr.SoftcopyVOILUTTransformation:
    item = _window(*window, exact=False)
    found = hd.pr.SoftcopyVOILUTTransformation(
        float(item.WindowCenter), float(item.WindowWidth), referenced_images=images
    )
    found.WindowCenterWidthExplanation = "as in the report"  # given to highdicom 0.28.2 it is written letter by letter
    return found


def _without(header: Dataset, keywords: Sequence[str]) -> Dataset:
    """A header without some attributes, at the top and in the groups of frames."""
    found = Dataset()
    for element in header:
        if element.keyword in _GROUPS:
            setattr(found, element.keyword, [_without(item, keywords) for item in element.value])
        elif element.keyword not in keywords:
            found.add(element)
    return found


def _header_window(source: Source, window: tuple[float, float], flipped: bool) -> tuple[float, float]:
    """The window in values of the header's modality transform."""
    image, header = source.image, source.first
    low, high = (v / source.factor for v in window)
    if image.unit == "[0,1]":
        least, most = stored_limits(header)
        low, high = (least + v * (most - least) for v in (low, high))
    if flipped:
        total = sum(stored_limits(header))
        low, high = total - high, total - low
    return low, high


def _window(low: float, high: float, exact: bool) -> Dataset:
    """A window whose ends are these values (PS3.3 C.11.2.1.2: the linear function reaches them half a step inside)."""
    item = Dataset()
    center, width = ((low + high) / 2, high - low) if exact else ((low + high + 1) / 2, high - low + 1)
    item.WindowCenter, item.WindowWidth = DS(center, auto_format=True), DS(max(width, 1e-9), auto_format=True)
    if exact:
        item.VOILUTFunction = "LINEAR_EXACT"
    return item


def _transforms(source: Source) -> list[tuple[float | None, float | None]]:
    """Slope and intercept of each slice."""
    headers = source.headers
    if not is_enhanced(headers[0]):
        return [_slope(h) for h in headers]
    shared = (headers[0].get("SharedFunctionalGroupsSequence") or [Dataset()])[0]
    groups = [
        (f.get("PixelValueTransformationSequence") or shared.get("PixelValueTransformationSequence") or [Dataset()])[0]
        for f in headers[0].PerFrameFunctionalGroupsSequence
    ]
    return [_slope(groups[number - 1]) for number in source.frames]


def _slope(item: Dataset) -> tuple[float | None, float | None]:
    found = [item.get(keyword) for keyword in ("RescaleSlope", "RescaleIntercept")]
    slope, intercept = (None if v in (None, "") else float(v) for v in found)
    return slope, intercept


def _srgb() -> bytes:
    """The color space of a source that names none: the profile that highdicom puts into its other states.

    Pillow makes a profile of class ``mntr``, and the standard wants a color space (PS3.3 C.11.15.1.1).
    """
    return (resources.files("highdicom") / "_icc_profiles" / "sRGB_v4_ICC_preference.icc").read_bytes()


def _stored(parametric_map: Dataset, limits: tuple[float, float]) -> tuple[float, float]:
    """Values of the map as they are stored in the object."""
    groups = (*parametric_map.SharedFunctionalGroupsSequence, *parametric_map.PerFrameFunctionalGroupsSequence)
    mapping = next(g for g in groups if "RealWorldValueMappingSequence" in g).RealWorldValueMappingSequence[0]
    slope, intercept = float(mapping.RealWorldValueSlope), float(mapping.RealWorldValueIntercept)
    low, high = ((v - intercept) / slope for v in limits)
    return low, high


def _size(dataset: Dataset, grid: Grid) -> None:
    """Pixels as high and wide as they are: highdicom writes square ones, whatever the source has."""
    parts = [round(s * _STEPS) for s in grid.spacing[-2:]] if grid.unit == "mm" else [1, 1]
    common = gcd(*parts) or 1
    for area in dataset.DisplayedAreaSelectionSequence:
        area.PresentationPixelAspectRatio = [max(1, n // common) for n in parts]
        del area.PixelOriginInterpretation  # of tiled images only
