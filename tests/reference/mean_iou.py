"""Mean IoU over classes: voxel by voxel, a table of which class was marked where which was given."""

import numpy as np


def mean_iou(marked, regions, background):
    """Mean over regions (each against the same marks) and, if asked, over what lies outside of all."""
    marked = np.asarray(marked, dtype=bool).ravel()
    found = [_overlap(marked, np.asarray(region, dtype=bool).ravel()) for region in regions]
    if background:
        outside = ~np.any([np.asarray(r, dtype=bool).ravel() for r in regions], axis=0)
        found.append(_overlap(~marked, outside))
    return sum(found) / len(found)


def _overlap(marked, given):
    common = either = 0
    for m, g in zip(marked, given, strict=True):
        common += bool(m and g)
        either += bool(m or g)
    return common / either
