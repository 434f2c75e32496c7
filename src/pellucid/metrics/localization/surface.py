"""How far the outline of a map's marked part lies from that of the expert's region, in millimeters."""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal, get_args

import numpy as np
import torch
from jaxtyping import Bool
from numpy.typing import NDArray
from scipy import ndimage
from surface_distance import lookup_tables as tables
from torch import Tensor

from pellucid.core.card import MetricCard, Property
from pellucid.core.errors import BadOption
from pellucid.core.explainer import Explainer
from pellucid.core.explanation import Answer
from pellucid.core.grid import Calibration
from pellucid.core.metric import Score
from pellucid.core.probe import Probe
from pellucid.metrics.localization.threshold import Thresholded

_Measure = Literal["hausdorff95", "average"]
_SHARE = 0.95


@dataclass(frozen=True)
class SurfaceDistance(Thresholded):
    """How far the outline of the map's marked part lies from that of the expert's region, in millimeters.

    ``hausdorff95``: the distance that 95% of each outline keep to the other, the larger of both ways; ``average``: the
    mean over both outlines. Each piece of outline counts by its length or area, so voxels need not be cubes. Voxels
    tied at the threshold count all or none, whichever size is nearer. One stray peak far away is forgotten by the first
    and counts in the second.

    Returns:
        Score in mm, lower is better, 0 is the same outline; undefined without a region or without millimeters.

    Raises:
        BadRegion: the region is empty, everything or of another shape.

    Source:
        nikolov2021clinically; the library surface-distance. What the image's edge cuts has its outline there.

    Example:
        >>> SurfaceDistance(measure="average").card.unit
        'mm'
    """

    measure: Annotated[_Measure, "what is reported; the other stands in the detail"] = "hausdorff95"

    card: ClassVar[MetricCard] = MetricCard(
        measures=Property.LOCALIZATION,
        shows="distance between the outlines of the map's strongest part and of the expert's region",
        caution="agreement with an expert, not with the model; depends on the threshold, and on the map's resolution",
        equation=r"\max_{\pm} Q_{.95}\{\, d(s, \partial G) : s \in \partial M \,\}",
        source="nikolov2021clinically",
        cost_note="none",
        direction="lower",
        unit="mm",
        interval="0 or more",
        needs_region=True,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.measure not in get_args(_Measure):
            raise BadOption(
                f"expected measure {' or '.join(get_args(_Measure))}, got {self.measure!r}", "choose one of these"
            )

    def __call__(
        self, probe: Probe, answer: Answer, explainer: Explainer, region: Bool[Tensor, "*space"] | None
    ) -> Score:
        """See ``Metric``."""
        given = self.thresholded(probe, answer, region)
        if isinstance(given, Score):
            return given
        if probe.grid.calibration is Calibration.NONE:
            return Score.undefined(self, probe.batch, "the image has no millimeters, so a distance in mm means nothing")
        masks, truth = given
        none = {"hausdorff95": torch.nan, "average": torch.nan, "map to region": torch.nan, "region to map": torch.nan}
        sharp = truth.numpy().astype(bool)
        rows = [none if isinstance(m, str) else distances(_sharp(m), sharp, probe.grid.spacing) for m in masks]
        values = torch.tensor([row[self.measure] for row in rows], dtype=torch.float64)
        reasons = tuple(m if isinstance(m, str) else "" for m in masks)
        detail = {"mm": dict(zip("zyx"[-truth.ndim :], probe.grid.spacing, strict=True))}
        return Score(
            self.name, values, reasons, self.settings(), {name: [row[name] for row in rows] for name in none} | detail
        )


def _sharp(marked: Tensor) -> NDArray[np.bool_]:
    """A mask without parts: of tied voxels all or none."""
    size, whole, some = float(marked.sum()), marked >= 1, marked > 0
    fewer = bool(whole.any()) and size - float(whole.sum()) <= float(some.sum()) - size
    return (whole if fewer else some).numpy()


def distances(marked: NDArray[np.bool_], region: NDArray[np.bool_], spacing: tuple[float, ...]) -> dict[str, float]:
    """Distances between the outlines of two masks, neither of them empty.

    The pieces of outline and their lengths or areas are the library's; what is built on them is done here, since its
    own functions sort in Python and read scipy by names that are to go.

    Args:
        marked: of the map.
        region: of the expert.
        spacing: mm along each axis.
    """
    box = ndimage.find_objects((marked | region).astype(np.uint8))[0]
    (ours, our_size), (theirs, their_size) = (_outline(m[box], spacing) for m in (marked, region))
    there = np.asarray(ndimage.distance_transform_edt(~theirs, sampling=spacing))[ours]
    back = np.asarray(ndimage.distance_transform_edt(~ours, sampling=spacing))[theirs]
    both = np.concatenate([there, back]), np.concatenate([our_size, their_size])
    return {
        "hausdorff95": max(_quantile(there, our_size), _quantile(back, their_size)),
        "average": float(np.average(both[0], weights=both[1])),
        "map to region": float(np.average(there, weights=our_size)),
        "region to map": float(np.average(back, weights=their_size)),
    }


def _outline(mask: NDArray[np.bool_], spacing: tuple[float, ...]) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Corners of voxels where the outline passes, and how much of it (mm or square mm) each one holds."""
    flat = mask.ndim == 2
    kernel = tables.ENCODE_NEIGHBOURHOOD_2D_KERNEL if flat else tables.ENCODE_NEIGHBOURHOOD_3D_KERNEL
    measure = (
        tables.create_table_neighbour_code_to_contour_length(spacing)
        if flat
        else tables.create_table_neighbour_code_to_surface_area(spacing)
    )
    padded = np.pad(mask.astype(np.uint8), [(0, 1)] * mask.ndim)
    code = np.asarray(ndimage.correlate(padded, np.asarray(kernel), mode="constant", cval=0), dtype=np.uint8)
    edge = (code != 0) & (code != 2 ** (2**mask.ndim) - 1)
    return edge, np.asarray(measure, dtype=np.float64)[code[edge]]


def _quantile(distance: NDArray[np.float64], size: NDArray[np.float64]) -> float:
    """What 95% of an outline keep to."""
    order = np.argsort(distance)
    place = np.searchsorted(np.cumsum(size[order]) / size.sum(), _SHARE)
    return float(distance[order][min(int(place), len(order) - 1)])
