"""
Robustness: does the map stay when the image hardly changes?
============================================================

The same film, exposed again, is never the same to the last digit. A map that changes with the noise cannot be read; a
map that never changes may not have looked. Both are on this page.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch

from pellucid.core.card import Card, Family
from pellucid.core.explainer import Explainer
from pellucid.core.explanation import Attribution
from pellucid.demo.cases import MODELS, packaged
from pellucid.io.models import load_model
from pellucid.show.figure import draw_rows, sketch
from pellucid.show.scenery import Framing
from pellucid.show.words import number
from pellucid.workbench.evaluating import truth_region
from pellucid.workbench.job import Request, run_case
from pellucid.workbench.registry import make_explainer, make_metric


@dataclass(frozen=True)
class Corner(Explainer, abstract=""):
    """A blob in a corner of every image: no method, but what any method must beat."""

    card: ClassVar[Card] = Card(
        family=Family.GRADIENT,
        shows="a corner",
        caution="looks at nothing",
        equation="",
        source="",
        cost_note="none",
        asks=frozenset(),
        signed=False,
    )

    def __call__(self, probe):
        """See ``Explainer``."""
        rows, columns = probe.grid.shape
        across = torch.exp(-(torch.linspace(0, 4, columns) ** 2))
        blob = torch.exp(-(torch.linspace(0, 4, rows) ** 2))[:, None] * across
        maps = blob.expand(probe.batch, 1, rows, columns).clone()
        return Attribution({probe.model.primary: maps}, probe.target.unit, signed=False, cell=(1.0, 1.0))


ROLES = {"HiResCAM": "good", "Saliency": "bad", "SmoothGrad": "mended", "Corner": "misleading"}
METHODS = (make_explainer("HiResCAM"), make_explainer("Saliency"), make_explainer("SmoothGrad:samples=30"), Corner())
METRICS = ("AverageSensitivity", "MaxSensitivity", "SensitivityNorm", "AcquisitionStability", "ROAD")

one = next(one for one in packaged() if one.case.name.startswith("planted-nodule"))
request = Request(
    targets=(one.target,), methods=METHODS, metrics=tuple(make_metric(text) for text in METRICS), checks=False
)
done = run_case(one.case, load_model(MODELS / one.model / "model.toml"), request)
found = {(s.method, text): s for s, text in zip(done.scores, METRICS * len(ROLES), strict=True)}

# %%
# The maps. The outline is the planted nodule.

maps = {e.provenance.method: e for e in done.panel.explanations}
truth = truth_region(one.case)
figure = draw_rows(
    [sketch(maps[name], show_anyway=True) for name in ROLES],
    [f"{name}: {role}" for name, role in ROLES.items()],
    ["wash"] * len(ROLES),
    f"{one.case.name} \u00b7 target: {one.target}",
    ("each map has a scale of its own: colors of two methods are not comparable",),
    Framing(one.case.region(truth), truth, one.case.notes, show_anyway=True, views=1),
)

# %%
# Their scores. Lower is better, but for ROAD.

print(f"{'':24}" + "".join(f"{name:>12}" for name in ROLES))
for text in METRICS:
    print(f"{text:24}" + "".join(f"{number(found[name, text].value):>12}" for name in ROLES))
print(f"noise of the first two rows: {found['Saliency', 'MaxSensitivity'].score.detail['noise']}")

# %%
# What the numbers say, and where they mislead
# ---------------------------------------------
# HiResCAM changes by a few percent under noise of a twentieth of the intensity range. Saliency changes by more than
# half of itself: what it shows is mostly the grain of this exposure. Averaging over noisy copies (SmoothGrad) mends
# part.
#
# SensitivityNorm is the review's measure with sigma = 0.1, which on a radiograph is more noise than any detector
# makes; no map of a method stays under the review's limit of 0.3. AcquisitionStability asks with the changes that do
# occur: dose, blur, gamma, resampling.
#
# The most robust map of all is a blob in the corner. It never moves, because it never looked: only the last row,
# which asks the model, tells that it is worthless. Robustness is a veto and no merit. A map that fails it should not
# be shown; one that passes has only passed.
