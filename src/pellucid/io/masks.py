"""An expert's mask on the grid of its image: only where both lie in one world."""

import numpy as np
from torch import Tensor

from pellucid.core.case import Region, as_mask
from pellucid.core.errors import BadRegion
from pellucid.core.grid import Calibration, Grid
from pellucid.core.image import Image
from pellucid.io.formats import Format

_IN_PLANE = 0.1  # mm that two copies of one slice may lie apart


def region_from(image: Image, like: Grid) -> tuple[Region, str | None]:
    """What is inside a mask that was read as an image, on the grid of the image it belongs to.

    Args:
        image: the mask; inside is what is not zero, in a JPEG what is above half.
        like: grid of the image.

    Returns:
        The region, and in words that it was resampled; None where it was not.

    Raises:
        BadRegion: another shape or world, empty, or full.
    """
    data = image.data.amax(0)
    blurred = image.traits.get("lossy") == "yes" and image.unit == "[0,1]"
    mask = data > 0.5 if blurred else as_mask(data)
    if image.grid.same_geometry(like) or is_flat_copy(image, like):
        return _region(mask, like), None
    check_same_world(image.grid, like)
    if not bool(mask.any()):
        raise _empty("")
    inside = Region(mask, image.grid).on(like)
    if not bool(inside.any()):
        raise _empty(" where the image lies")
    return _region(inside, like), f"resampled (nearest) from {_size(image.grid)} to {_size(like)} voxels"


def is_flat_copy(image: Image, like: Grid) -> bool:
    """Whether an image has the shape of a grid, and no place in the patient that could contradict it."""
    mask = image.grid
    if mask.shape != like.shape:
        return False
    picture = image.traits.get("format") in (Format.PNG, Format.JPEG, Format.TIFF, Format.BMP, Format.GIF)
    return picture or Calibration.PATIENT not in (mask.calibration, like.calibration)


def check_same_world(mask: Grid, like: Grid, what: str = "mask") -> None:
    """Check that ``mask`` can be resampled onto ``like``: both in the patient, in one frame and on one plane.

    Raises:
        BadRegion: it cannot; ``what`` names it.
    """
    if Calibration.PATIENT is not mask.calibration or like.calibration is not Calibration.PATIENT:
        why = f"{_size(mask)} without a position in the patient"
    elif mask.rank != like.rank:
        why = f"a {mask.rank}-D one"
    elif len({mask.frame, like.frame} - {None}) > 1:
        why = "one in another frame of reference"
    elif like.rank == 2 and _off_plane(mask, like) > _IN_PLANE:
        why = "one of another slice"
    else:
        return
    kind = "pixels only" if like.calibration is Calibration.NONE else f"{like.calibration} millimeters"
    raise BadRegion(
        f"expected a {what} on the image's grid of {_size(like)} ({kind}), got {why}",
        "draw it on the image itself, or save it as NIfTI with the image's affine",
    )


def _off_plane(mask: Grid, like: Grid) -> float:
    """How far the image's corners lie outside the mask's plane, in mm."""
    corners = np.array([[0, 0], [0, like.shape[1] - 1], [like.shape[0] - 1, 0]], float)
    normal = np.cross(mask.matrix[:3, 0], mask.matrix[:3, 1])
    return float(abs((like.world(corners) - mask.matrix[:3, 3]) @ (normal / np.linalg.norm(normal))).max())


def _region(mask: Tensor, grid: Grid) -> Region:
    if not bool(mask.any()):
        raise _empty("")
    if bool(mask.all()):
        raise BadRegion(
            "expected a region inside the image, got a mask that covers all of it", "invert or leave it out"
        )
    return Region(mask, grid)


def _empty(where: str) -> BadRegion:
    return BadRegion(
        f"expected a region with at least one voxel{where}, got an empty mask",
        "check that it belongs to this image, or leave the region out",
    )


def _size(grid: Grid) -> str:
    return " x ".join(str(n) for n in grid.shape)
