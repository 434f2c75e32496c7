"""A plane or a stack of slices of a TIFF that names its axes (OME-TIFF, ImageJ)."""

from pathlib import Path

import torch
from tifffile import TiffFile

from pellucid.core.errors import BadOption, UnreadableImage
from pellucid.core.grid import Calibration, Grid
from pellucid.core.image import Image, Modality
from pellucid.io.formats import Format
from pellucid.io.guard import check_values, reading
from pellucid.io.index import Axes
from pellucid.io.ome import Layout, is_described, layouts
from pellucid.io.picture import plane_of


def read_stack(path: Path, index: Axes, modality: Modality | None = None) -> Image:
    """One plane by its place on each axis, or a stack of slices as a volume with its lengths.

    Args:
        path: of the TIFF.
        index: a place of every axis that has several entries; ``whole="Z"`` for the stack.
        modality: what made the image.

    Raises:
        UnreadableImage: damaged, too large, planes in other files, or a stack without the distance of its slices.
        BadOption: no named axes, an axis that is missing in the index or in the file, or a place beyond one.
    """
    with reading("a complete TIFF", "copy or export the picture again"), TiffFile(path, _multifile=False) as file:
        layout = _layout(file, index)
        at = {letter: number for letter, number in index.at.items() if letter != "S"}
        _check_complete(layout, at, index.whole)
        depth = dict(layout.axes).get("Z", 1)
        pages = [layout.page({**at, "Z": z}) for z in range(depth)] if index.whole else [layout.page(at)]
        first = pages[0]
        check_values((len(pages), first.imagelength, first.imagewidth, first.samplesperpixel), "a TIFF stack")
        planes = [plane_of(path, page) for page in pages]
        data = torch.stack([plane.data for plane in planes], 1) if index.whole else planes[0].data
    spacing = layout.spacing if index.whole else layout.spacing[1:]
    steps = [float(s) for s in spacing if s is not None]
    if index.whole and len(steps) < 3:
        raise UnreadableImage(
            "expected a stack with the distance of its slices and the size of its pixels, the header does not say them",
            "write PhysicalSizeX, Y and Z into its OME header, or choose a slice: Z=0",
        )
    shape = tuple(data.shape[1:])
    known = len(steps) == len(shape)
    grid = Grid.regular(shape, steps, Calibration.CALIBRATED) if known else Grid.regular(shape)
    lossy = "yes" if any(plane.lossy for plane in planes) else "no"
    traits = {"format": str(Format.TIFF), "lossy": lossy}
    return Image(data, grid, modality or Modality.UNKNOWN, planes[0].unit, traits=traits)


def _layout(file: TiffFile, index: Axes) -> Layout:
    found = layouts(file) if is_described(file) else []
    if not found:
        raise BadOption("expected a TIFF that names its axes, got one that does not", "give the number of its page")
    number = index.at.get("S", 0)
    if "S" not in index.at and len(found) > 1:
        raise BadOption(f"expected one series, got a TIFF of {len(found)}", f"choose one: S=0 to S={len(found) - 1}")
    if number >= len(found):
        raise BadOption(f"expected S from 0 to {len(found) - 1}, got {number}", "choose a series that the file has")
    return found[number]


def _check_complete(layout: Layout, at: dict[str, int], whole: str) -> None:
    """Every axis of several entries is chosen, and no axis twice or that is not there."""
    known = {letter for letter, _ in layout.axes}
    strange = sorted((set(at) | set(whole)) - known)
    missing = [letter for letter, count in layout.axes if count > 1 and letter not in at and letter not in whole]
    if strange or missing:
        wrong = f"nothing for {missing[0]}" if missing else f"{strange[0]}, which it lacks"
        raise BadOption(
            f"expected a place on each axis of the file ({layout.words or 'none'}), got {wrong}",
            "write for example --index T=0,C=1,Z=3, or Z=: for the stack as a volume",
        )
