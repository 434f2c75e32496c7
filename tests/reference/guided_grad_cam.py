"""Guided Grad-CAM after Selvaraju et al. (2017), section 3.2: the coarse map, enlarged, times guided backpropagation.

Both factors come from their own second implementations; the enlargement comes before the product.
"""

import numpy as np


def guided_grad_cam(guided, cells, upsample):
    """The map of one item: "channel *space"; ``guided`` as it, ``cells`` the Grad-CAM of the layer, after its ReLU."""
    guided = np.asarray(guided, dtype=np.float64)
    coarse = upsample(np.maximum(cells, 0), guided.shape[1:])
    return np.stack([channel * coarse for channel in guided])
