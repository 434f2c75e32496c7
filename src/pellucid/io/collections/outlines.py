"""Contours in the forms of LIDC-IDRI (XML) and OsiriX (property list), as regions."""

import plistlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

import numpy as np
from numpy.typing import NDArray

from pellucid.core.case import Case, Region
from pellucid.core.errors import BadRegion, UnreadableImage
from pellucid.core.grid import Grid
from pellucid.io.collections.facts import number
from pellucid.io.collections.marks import spread, united
from pellucid.io.collections.planes import Planes
from pellucid.io.guard import reading

_MAX_BYTES = 2**26
_FARTHEST = 1e6  # pixels: a wild number would make a line without end
_POINT = re.compile(r"\(\s*([-+.\deE]+)\s*,\s*([-+.\deE]+)\s*\)")
_RATINGS = ("malignancy", "subtlety", "internalStructure", "calcification", "sphericity", "margin", "lobulation")
_MORE_RATINGS = ("spiculation", "texture")
_NODULE = "nodule"


@dataclass(frozen=True)
class Finding:
    """One thing that readers marked.

    Args:
        regions: by name.
        covariates: ratings.
        suffix: of the case's name, where a case is one of several findings.
    """

    regions: Mapping[str, Region]
    covariates: Mapping[str, float] = field(default_factory=dict)
    suffix: str = ""


@dataclass(frozen=True, eq=False)
class _Marking:
    """A nodule as one reader marked it: voxels, as flat numbers, and ratings."""

    reader: int
    voxels: NDArray[np.int64]
    ratings: Mapping[str, float]


def osirix(path: Path, words: Mapping[str, str], grid: Grid) -> Finding:
    """The regions of an OsiriX property list, on a 2-D image; those of one name are united.

    A contour of one or two points is the pixels themselves; all others include their border.

    Args:
        path: of the XML.
        words: a region's name for the name in the file.
        grid: of the image.

    Raises:
        UnreadableImage: damaged, too large, or with entities of its own.
        BadRegion: a contour outside the image.
    """
    with reading("a property list of contours", "unpack the data set again"):
        told = plistlib.loads(_content(path))  # refuses entity declarations itself
        marked = [roi for image in told.get("Images", ()) for roi in image.get("ROIs", ())]
        drawn = [(str(roi.get("Name", "")).strip(), [_POINT.findall(p) for p in roi["Point_px"]]) for roi in marked]
        points = [(name, np.array([[float(v) for v in p[0]] for p in many if p])) for name, many in drawn]
    found: dict[str, Region] = {}
    for name, outline in points:
        known = {k.lower(): v for k, v in words.items()}.get(name.lower(), name.lower())
        if len(outline):
            region = Region(spread(_inside(outline, grid.shape, border=True), grid), grid)
            found[known] = united(found.get(known), region)
    return Finding(found)


def lidc(path: Path, case: Case, grid: Grid) -> Iterator[Finding]:
    """The nodules of 3 mm and more of a LIDC-IDRI reading, each with a region and ratings of every reader.

    One by one, since each reader's mask is as large as the scan.

    Outlines of different readers are one nodule where they share a voxel. An outline is the first row of pixels
    outside the nodule and not part of it; what is drawn as an exclusion is cut out. Smaller nodules have a point only
    and are left out.

    Args:
        path: of the XML.
        case: with the files of its series.
        grid: of the volume.

    Raises:
        UnreadableImage: damaged, too large, or with a document type of its own.
        BadRegion: an outline on a slice that the series does not have.
    """
    planes = Planes.of([file for files in case.files.values() for file in files], grid)
    marked = list(_markings(_tree(path), planes, grid))
    for place, group in enumerate(_grouped(marked), 1):
        regions: dict[str, Region] = {}
        for one in sorted(group, key=lambda m: m.reader):
            reader = f"reader{one.reader}"
            mask = spread(np.stack(np.unravel_index(one.voxels, grid.shape), 1), grid)
            name = f"{_NODULE}@{reader}"
            regions[name] = united(regions.get(name), Region(mask, grid, reader=reader))
        yield Finding(regions, _ratings(group), f"-nodule{place}")


def _ratings(group: Sequence[_Marking]) -> dict[str, float]:
    """Each reader's, and their mean."""
    found: dict[str, float] = {"readers": float(len({m.reader for m in group}))}
    for name in (*_RATINGS, *_MORE_RATINGS):
        given = {m.reader: m.ratings[name] for m in group if name in m.ratings}
        if given:
            found[name] = sum(given.values()) / len(given)
            found |= {f"{name}.reader{reader}": value for reader, value in sorted(given.items())}
    return found


def _grouped(marked: Sequence[_Marking]) -> list[list[_Marking]]:
    """Markings that share a voxel, directly or by way of another."""
    groups: list[list[_Marking]] = []
    for one in marked:
        near = [g for g in groups if any(len(np.intersect1d(one.voxels, m.voxels)) for m in g)]
        groups = [g for g in groups if all(g is not n for n in near)]
        groups.append([m for g in near for m in g] + [one])
    return sorted(groups, key=lambda g: min(int(m.voxels.min()) for m in g))


def _markings(root: Element, planes: Planes, grid: Grid) -> Iterator[_Marking]:
    for reader, session in enumerate(root.iter("readingSession"), 1):
        for nodule in session.iter("unblindedReadNodule"):
            ratings = {c.tag: v for c in nodule.iterfind("characteristics/*") if (v := number(c.text)) is not None}
            if not ratings:
                continue  # below 3 mm: a point, without outline and ratings
            parts = [(_of_roi(roi, planes, grid), _said(roi, "inclusion").upper()) for roi in nodule.iter("roi")]
            voxels = np.unique(np.concatenate([p for p, said in parts if said != "FALSE"] or [np.empty(0, np.int64)]))
            for hole, said in parts:
                voxels = np.setdiff1d(voxels, hole) if said == "FALSE" else voxels
            if len(voxels):
                yield _Marking(reader, voxels, ratings)


def _of_roi(roi: Element, planes: Planes, grid: Grid) -> NDArray[np.int64]:
    """What an outline encloses, as flat numbers of voxels."""
    height = _said(roi, "imageZposition")
    where = planes.find(_said(roi, "imageSOP_UID"), float(height) if height else None, grid.spacing[0])
    if where is None:
        raise BadRegion("expected outlines on slices of the series, got one on another", "use the series of the XML")
    edge = np.array([[float(_said(e, "xCoord")), float(_said(e, "yCoord"))] for e in roi.iter("edgeMap")])
    inside = _inside(edge.reshape(-1, 2), grid.shape[1:], border=False)
    return np.ravel_multi_index((np.full(len(inside), where), *inside.T), grid.shape)


def _inside(outline: NDArray[np.float64], shape: Sequence[int], border: bool) -> NDArray[np.int64]:
    """Pixels "n (row, column)" whose center a closed outline of (x, y) encloses (even-odd rule)."""
    if not len(outline) or not (np.abs(outline) < _FARTHEST).all():
        raise BadRegion("expected contours of pixels, got one without any or far outside", "unpack the data set again")
    low = np.clip(np.floor(outline.min(0)).astype(int), 0, None)
    high = np.minimum(np.ceil(outline.max(0)).astype(int), np.array(shape)[::-1] - 1)
    x, y = np.meshgrid(np.arange(low[0], high[0] + 1), np.arange(low[1], high[1] + 1))
    inside = np.zeros(x.shape, bool)
    for (x0, y0), (x1, y1) in pairwise([*outline, outline[0]]):
        if y0 != y1:
            inside ^= ((y0 > y) != (y1 > y)) & (x < (x1 - x0) * (y - y0) / (y1 - y0) + x0)
    edge = _line(outline)[:, ::-1] - low[::-1]
    kept = ((edge >= 0) & (edge < inside.shape)).all(1)
    inside[tuple(edge[kept].T)] = border
    found = np.argwhere(inside) + low[::-1]
    if not len(found) and border:
        raise BadRegion("expected contours inside the image, got one outside", "use the image of the contours")
    return found


def _line(outline: NDArray[np.float64]) -> NDArray[np.int64]:
    """Pixels "n (x, y)" that a closed outline runs through."""
    runs = []
    for start, end in pairwise([*outline, outline[0]]):
        steps = int(np.ceil(np.abs(end - start).max())) + 1
        runs.append(np.linspace(start, end, steps))
    return np.round(np.concatenate(runs)).astype(np.int64)


def _said(element: Element, tag: str) -> str:
    found = element.find(tag)
    return (found.text or "").strip() if found is not None else ""


def _content(path: Path) -> bytes:
    if path.stat().st_size > _MAX_BYTES:
        raise UnreadableImage(f"expected an XML of at most {_MAX_BYTES} bytes, got a larger one", "unpack it again")
    return path.read_bytes()


def _tree(path: Path) -> Element:
    """An XML without namespaces; a document type, which could define entities without end, is refused."""
    builder, parser = TreeBuilder(), expat.ParserCreate()
    parser.buffer_text = True
    parser.StartElementHandler = builder.start
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.data
    parser.StartDoctypeDeclHandler = _refuse
    with reading("a complete XML of outlines", "unpack the data set again"):
        parser.Parse(_content(path), True)
        return builder.close()


def _refuse(*_declared: object) -> None:
    raise UnreadableImage("expected a plain XML, got one with a document type", "use the file of the data set")
