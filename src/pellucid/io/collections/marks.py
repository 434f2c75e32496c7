"""Regions of a data set: drawn masks, rectangles, and stacks of pictures beside a DICOM series."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool
from numpy.typing import NDArray
from torch import Tensor

from pellucid.core.case import Case, Region, as_mask
from pellucid.core.errors import BadRegion, UnreadableImage
from pellucid.core.grid import Grid
from pellucid.core.image import Image
from pellucid.io.collections.declared import Box, Mask
from pellucid.io.collections.facts import Shelf, number
from pellucid.io.collections.places import Place, expand
from pellucid.io.collections.planes import Planes
from pellucid.io.masks import check_same_world, is_flat_copy
from pellucid.io.reader import read_image

_FULL = 255.0  # pictures of 8 bits are read as [0, 1]


@dataclass(frozen=True, eq=False)
class Drawn:
    """What the masks of a case are read with, each file once.

    Args:
        place: of the case.
        shelf: the tables.
        case: with its images.
        pictures: that were read.
        stacks: of pictures that were put together, by the folder of their slices.
    """

    place: Place
    shelf: Shelf
    case: Case
    pictures: dict[Path, Image] = field(default_factory=dict)
    stacks: dict[str, Image] = field(default_factory=dict)

    @property
    def grid(self) -> Grid:
        """The first image's."""
        return next(iter(self.case.images.values())).grid

    def regions(self, mask: Mask) -> dict[str, Region]:
        """The regions of a mask by name; none of those in which nothing is marked.

        Args:
            mask: as declared.

        Raises:
            UnreadableImage: the mask is required and missing, or damaged.
            BadRegion: it has another shape than the image.
        """
        files = self.place.files(mask.file, lambda name: self.shelf.look(name, self.place))
        if not files:
            if mask.required:
                raise UnreadableImage(
                    f"expected a mask of {mask.name or 'the labels'} beside the image, got none",
                    "unpack the data set completely, or take the image out",
                )
            return {}
        named = self._named(mask)
        if mask.slices:  # the organs of one stack are declared one by one
            if mask.slices not in self.stacks:
                self.stacks[mask.slices] = self._stack(files, mask)
            stack = self.stacks[mask.slices]
            return {name: made for name, values in named.items() if (made := _region(stack, values, self.grid))}
        found: dict[str, Region] = {}
        for file in files:
            for name, values in named.items():
                made = self._of(file, values)
                if made is not None:
                    found[name] = united(found.get(name), made)
        return {_key(name, mask.reader): replace(r, reader=mask.reader) for name, r in found.items()}

    def _named(self, mask: Mask) -> Mapping[str, tuple[int, ...]]:
        """Values by the name of the region they are."""
        if not mask.labels:
            return {mask.name: mask.values}
        told = self.shelf.entry(mask.labels, self.place)
        if not isinstance(told, Mapping):
            raise UnreadableImage(f"expected {mask.labels} to name the labels, got none", "use the data set's own file")
        names = {}
        for key, value in told.items():
            turned = str(key).isdecimal()  # {"1": "liver"} of the Decathlon, {"liver": 1} of nnU-Net
            name, values = (str(value), [key]) if turned else (str(key), value if isinstance(value, list) else [value])
            if name.lower() != "background" and all(str(v).isdecimal() for v in values):
                names[name] = tuple(int(v) for v in values)
        return names

    def _of(self, file: Path, values: tuple[int, ...]) -> Region | None:
        if file not in self.pictures:
            self.pictures[file] = read_image(file)
        image = self.pictures[file]
        if image.grid.same_geometry(self.grid) or is_flat_copy(image, self.grid):
            return _region(image, values, self.grid)
        check_same_world(image.grid, self.grid)
        inside = Region(mask, image.grid).on(self.grid) if bool((mask := _chosen(image, values)).any()) else mask
        return Region(inside, self.grid) if bool(inside.any()) else None

    def _stack(self, files: Sequence[Path], mask: Mask) -> Image:
        """Pictures one by one as a volume, each where the DICOM file of its turn lies."""
        planes = Planes.of(self.place.files(mask.slices + "/*"), self.grid)
        if len(planes.order) != len(files):
            raise BadRegion(
                f"expected a picture for each of {len(planes.order)} slices, got {len(files)}",
                "unpack the data set again",
            )
        values = np.zeros(self.grid.shape, np.float32)
        for turn, file in enumerate(files):
            picture = read_image(file)
            if picture.grid.shape != self.grid.shape[1:]:
                raise BadRegion(
                    f"expected masks of {self.grid.shape[1:]} pixels, got {picture.grid.shape}", "unpack it again"
                )
            values[planes.order[turn]] = picture.data.amax(0).numpy()
        return Image(torch.from_numpy(values)[None], self.grid, unit="[0,1]")


def boxes(box: Box, shelf: Shelf, place: Place, grid: Grid) -> dict[str, Region]:
    """Rectangles of a case as regions; a pixel is inside where its center is.

    Args:
        box: as declared.
        shelf: the tables.
        place: of the case.
        grid: of the image.

    Raises:
        BadRegion: a rectangle without size, or outside the image.
    """
    found: dict[str, Region] = {}
    for row in shelf.rows(box.table, place):
        name = expand(box.name, lambda key, row=row: str(row[key]) if key in row else shelf.look(key, place))
        edges = [number(str(row.get(column, ""))) for column in box.edges]
        if not name or None in edges:
            raise BadRegion(f"expected a rectangle in {', '.join(box.edges)}, got a row without", "correct the row")
        frame = [number(expand(t, lambda key, row=row: str(row.get(key, "")))) for t in box.frame or ()]
        scale = [n / f for n, f in zip(reversed(grid.shape), frame, strict=True) if f] if frame else [1.0, 1.0]
        mask = _rectangle([float(e or 0.0) for e in edges], box.corners, scale, grid)
        called = box.words.get(name, name)
        found[called] = united(found.get(called), Region(mask, grid))
    return found


def _rectangle(edges: list[float], corners: bool, scale: list[float], grid: Grid) -> Bool[Tensor, "row column"]:
    left, top, third, fourth = (e * scale[n % 2] for n, e in enumerate(edges))
    right, bottom = (third, fourth) if corners else (left + third, top + fourth)
    mask = torch.zeros(grid.shape, dtype=torch.bool)
    rows, columns = (torch.arange(n) + 0.5 for n in grid.shape)
    mask[((rows >= top) & (rows < bottom))[:, None] & ((columns >= left) & (columns < right))[None]] = True
    if not bool(mask.any()):
        raise BadRegion("expected a rectangle inside the image, got one without a pixel of it", "check the frame")
    return mask


def united(known: Region | None, more: Region) -> Region:
    """Two parts of one region.

    Args:
        known: the first; None: there is only one.
        more: the second.
    """
    return more if known is None else replace(known, mask=known.mask | more.mask)


def _region(image: Image, values: tuple[int, ...], grid: Grid) -> Region | None:
    mask = _chosen(image, values)
    return Region(mask, grid) if bool(mask.any()) else None


def _chosen(image: Image, values: tuple[int, ...]) -> Bool[Tensor, "*space"]:
    """The voxels that hold one of the values."""
    data = image.data.amax(0)
    if not values:
        blurred = image.traits.get("lossy") == "yes" and image.unit == "[0,1]"
        return data > 0.5 if blurred else as_mask(data)
    stored = data * _FULL if image.unit == "[0,1]" else data
    return torch.isin(stored.round(), torch.tensor([float(v) for v in values]))


def _key(name: str, reader: str) -> str:
    return f"{name}@{reader}" if reader else name


def spread(points: NDArray[np.int64], grid: Grid) -> Bool[Tensor, "*space"]:
    """A mask of single voxels.

    Args:
        points: "n axis" indices.
        grid: of the image.
    """
    mask = np.zeros(grid.shape, bool)
    mask[tuple(points.T)] = True
    return torch.from_numpy(mask)
