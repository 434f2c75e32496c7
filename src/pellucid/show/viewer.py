"""The viewer of a case: a page beside the report in which image and maps can be looked through, without a network."""

import hashlib
import json
from dataclasses import replace
from functools import cache
from importlib import resources
from math import isfinite
from pathlib import PurePath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pellucid.core.grid import Calibration, Grid
from pellucid.core.image import Image
from pellucid.show.figure import Sketch, sketch
from pellucid.show.gallery import framing_of, grid_words, orientation_words, withheld
from pellucid.show.palette import Palette, palette_of
from pellucid.show.planes import planes
from pellucid.show.presets import presets
from pellucid.show.raster import is_color, window_of
from pellucid.show.report import environment
from pellucid.show.rules import withheld_words
from pellucid.show.scenery import burned, region_center, region_label
from pellucid.show.sections import CaseReport, MapPanel
from pellucid.show.viewer_pack import (
    Packed,
    blocks_for,
    map_bits,
    pack_color,
    pack_image,
    pack_map,
    pack_mask,
    reduce,
    reduced_grid,
)
from pellucid.show.words import RESEARCH, cell_words, edges, length_unit, modality_word, number, unit_word

_SCRIPTS = ("data", "words", "paint", "pane", "measure", "solid", "controls", "input")
_NIIVUE = "niivue-0.69.0.js"
_STEPS = 256
_LETTERS = ("LR", "PA", "HF")


def render_viewer(report: CaseReport, assets: str, back: str = "") -> str:
    """The viewer's page of one case as HTML.

    Args:
        report: what to show.
        assets: relative path of the folder that ``viewer_assets`` fills.
        back: relative link to the report; empty: there is none.
    """
    files = {PurePath(name).suffix: name for name in viewer_assets(False)}
    page = {
        "report": report,
        "marks": burned(report.case.notes),
        "assets": assets,
        "script": files[".js"],
        "style": files[".css"],
        "back": back,
        "volume": report.image.grid.rank == 3,
        "about": f"{modality_word(report.image.modality)}, {grid_words(report.image.grid)}",
        "orientation": orientation_words(report.image.grid),
        "content": embedded(viewer_content(report, assets)),
    }
    return environment().get_template("viewer.html.j2").render(page)


def embedded(content: dict[str, Any]) -> str:
    """JSON that cannot end the element it stands in, whatever a name holds."""
    text = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for mark in "<>&\u2028\u2029":
        text = text.replace(mark, f"\\u{ord(mark):04x}")
    return text


@cache
def viewer_assets(volume: bool) -> dict[str, bytes]:
    """Files that all viewers of an output folder share, by name: the script, the style and, for volumes, NiiVue.

    A name holds a digest or a version, so that a page written earlier keeps the script that it was written for.
    """
    room = resources.files("pellucid.show")
    parts = [room.joinpath("static", f"viewer-{name}.js").read_text("utf-8") for name in _SCRIPTS]
    script = '(() => {\n"use strict";\n' + "\n".join(parts) + "})();\n"
    style = (room.joinpath("templates", name).read_text("utf-8") for name in ("style.css", "viewer.css"))
    ours = {"js": script.encode(), "css": "\n".join(style).encode()}
    found = {f"viewer-{hashlib.sha256(content).hexdigest()[:8]}.{end}": content for end, content in ours.items()}
    if volume:
        found[f"{_NIIVUE}.gz"] = room.joinpath("static", "niivue.umd.js.gz").read_bytes()
        found["niivue.LICENSE.txt"] = room.joinpath("static", "niivue.LICENSE.txt").read_bytes()
    return found


def viewer_content(report: CaseReport, assets: str = "assets") -> dict[str, Any]:
    """Everything the page's script needs, as JSON types."""
    image = report.image
    blocks = blocks_for(image.grid, len(report.maps))
    grid = reduced_grid(image.grid, blocks)
    palette = palette_of(image.modality)
    sketches = [sketch(m.explanation, show_anyway=True) for m in report.maps]
    bits = map_bits(grid, len(sketches))
    return {
        "case": report.case.name,
        "research": RESEARCH,
        "marks": list(burned(report.case.notes)),
        "grid": _grid(image.grid, grid, blocks),
        "image": _image(image, grid, blocks) | {"inverted": palette.base == "gray_r"},
        "windows": [{"name": n, "low": low, "high": high} for n, low, high in presets(image)],
        "washes": palette.washes,
        "colors": {"for": palette.contour, "against": palette.against, "expert": palette.expert},
        "maps": [
            _map(one, panel, palette, grid, blocks, bits) for one, panel in zip(sketches, report.maps, strict=True)
        ],
        "regions": _regions(report, grid, blocks),
        "withheld": withheld_words(report.maps[0].explanation) if withheld(report) and report.maps else "",
        "at": [int(i) // b for i, b in zip(_start(report, sketches), blocks, strict=True)],
        "niivue": f"{assets}/{_NIIVUE}" if grid.rank == 3 else "",
    }


def _grid(full: Grid, grid: Grid, blocks: tuple[int, ...]) -> dict[str, Any]:
    patient = full.calibration is Calibration.PATIENT and full.rank == 3
    said = ""
    if max(blocks) > 1:
        voxel = edges(grid.spacing, length_unit(grid))
        said = (
            f"reduced for this page: {edges(blocks, 'voxels of the file')} became one of {voxel} (the image their "
            "mean, a map the strongest of them); the saved maps keep the full resolution"
        )
    return {
        "shape": list(grid.shape),
        "spacing": list(grid.spacing),
        "blocks": list(blocks),
        "full": list(full.shape),
        "lengths": "" if full.calibration is Calibration.NONE else length_unit(full),
        "affine": grid.matrix.tolist() if patient else None,
        "letters": _LETTERS if patient else None,
        "reduced": said,
        "planes": [
            {
                "name": p.name,
                "rows": p.rows,
                "columns": p.columns,
                "normal": p.normal,
                "flip": list(p.flip),
                "sides": p.sides and {k: getattr(p.sides, k) for k in ("top", "bottom", "left", "right")},
            }
            for p in planes(grid)
        ],
    }


def _image(image: Image, grid: Grid, blocks: tuple[int, ...]) -> dict[str, Any]:
    values = image.data.detach().cpu().float().numpy()
    unit = "" if image.unit in ("a.u.", "[0,1]") else image.unit
    if is_color(image):
        top = 1.0 if values.max() <= 1 else 255.0
        packed = pack_color(np.stack([reduce(c, blocks, "mean") for c in values]), grid, top)
        return _packed(packed) | {"color": True, "unit": "of 255", "words": "colors are drawn as stored"}
    return _packed(pack_image(reduce(values[0], blocks, "mean"), grid)) | {
        "color": False,
        "unit": unit,
        "words": window_of(image).words,
    }


def _map(
    one: Sketch, panel: MapPanel, palette: Palette, grid: Grid, blocks: tuple[int, ...], bits: Any
) -> dict[str, Any]:
    display, p = one.display, one.explanation.provenance
    values = reduce(one.values, blocks, "peak").astype(np.float32)
    low, high = display.limits
    share = np.linspace(low, high, _STEPS, dtype=np.float32)
    colors = (palette.colormap(display.signed)(np.linspace(0, 1, _STEPS))[:, :3] * 255).round().astype(int)
    alone = (palette.colormap(display.signed, True)(np.linspace(0, 1, _STEPS))[:, :3] * 255).round().astype(int)
    uncut = replace(display, null=-1.0) if display.null is not None else display  # the script cuts at the null itself
    return _packed(pack_map(values, grid, bits)) | {
        "title": panel.title,
        "target": p.target,
        "unit": unit_word(one.explanation.attribution.unit),
        "low": low,
        "high": high,
        "null": display.null,
        "signed": display.signed,
        "above": any(
            r is not None and bool(r.any()) for r in (display.region(one.values), display.against(one.values))
        ),
        "scale": display.scale_words,
        "notes": list(display.notes),
        "place": one.place,
        "cell": [c / s for c, s in zip(one.cell, grid.spacing, strict=True)] if one.cell else [],
        "cellWords": cell_words(one.explanation),
        "colors": colors.tolist(),
        "alone": alone.tolist(),
        "alpha": [round(float(a), 4) for a in uncut.alpha(share)],
        "peak": [int(i) // b for i, b in zip(one.peak, blocks, strict=True)],
        "caution": panel.caution,
    }


def _regions(report: CaseReport, grid: Grid, blocks: tuple[int, ...]) -> list[dict[str, Any]]:
    if not report.region:
        return []
    region = report.case.region(report.region)
    mask: NDArray[np.bool_] = region.on(report.image.grid).cpu().numpy().astype(bool)
    return [_packed(pack_mask(reduce(mask, blocks, "any"), grid)) | {"label": region_label(region, report.region)}]


def _packed(packed: Packed) -> dict[str, Any]:
    rounding = packed.rounding if isfinite(packed.rounding) else 0.0
    return {"nifti": packed.text, "rounding": rounding, "roundingWords": number(rounding) if rounding else ""}


def _start(report: CaseReport, sketches: list[Sketch]) -> tuple[int, ...]:
    """The middle of the reference region, else the peak of the first map, else the middle of the image."""
    region = framing_of(report).region
    if region is not None:
        return region_center(region, report.image.grid)
    if sketches and not withheld(report):
        return sketches[0].peak
    return tuple((n - 1) // 2 for n in report.image.grid.shape)
