"""Pellucid: explain any medical-imaging model, and measure how far the answer can be relied upon.

Example:
    >>> import pellucid, torch
    >>> net = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), torch.nn.Flatten(), torch.nn.Linear(144, 3))
    >>> pellucid.explain(net, torch.rand(1, 1, 8, 8), target=2, method="GradCAM").numpy().shape
    (1, 8, 8)
"""

import pellucid.explain  # noqa: F401 -- the room first: loaded later, its name would hide the function below
from pellucid.core.case import Case, Region
from pellucid.core.errors import PellucidError
from pellucid.core.explainer import Explainer
from pellucid.core.explanation import Attribution, Explanation
from pellucid.core.grid import Calibration, Grid
from pellucid.core.image import Image, Modality
from pellucid.core.metric import Metric, Score
from pellucid.core.model import Model, OutputSpec
from pellucid.core.prepare import InputSpec
from pellucid.core.probe import Probe
from pellucid.core.target import ClassScore, Margin, RegionScore, Target
from pellucid.workbench.comparing import compare
from pellucid.workbench.notebook import ask, explain

__all__ = [
    "Attribution",
    "Calibration",
    "Case",
    "ClassScore",
    "Explainer",
    "Explanation",
    "Grid",
    "Image",
    "InputSpec",
    "Margin",
    "Metric",
    "Modality",
    "Model",
    "OutputSpec",
    "PellucidError",
    "Probe",
    "Region",
    "RegionScore",
    "Score",
    "Target",
    "ask",
    "compare",
    "explain",
]
