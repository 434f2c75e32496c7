"""
Randomization: does the map need what the model has learned?
============================================================

Replace the weights by fresh ones, layer by layer from the output, and explain again. A map that stays shows the image
and not the model. The control is an edge detector, which knows of no model and must fail.
"""

from matplotlib import pyplot as plt

from pellucid.demo.cases import MODELS, packaged
from pellucid.io.models import load_model
from pellucid.metrics.randomization.edges import EdgeDetector
from pellucid.show.figure import draw_rows, sketch
from pellucid.show.scenery import Framing
from pellucid.show.words import number
from pellucid.workbench.evaluating import truth_region
from pellucid.workbench.job import Request, run_case
from pellucid.workbench.registry import make_explainer, make_metric

ROLES = {"HiResCAM": "good", "GuidedBackprop": "fails", "EigenCAM": "passes", "EdgeDetector": "the control"}
METHODS = (*(make_explainer(name) for name in list(ROLES)[:3]), EdgeDetector())
RANDOMIZED = "ModelParameterRandomization:levels=4"
METRICS = (RANDOMIZED, "EfficientMPRT", "IoU")

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
# Their scores.

print(f"{'':40}" + "".join(f"{name:>16}" for name in ROLES))
for text in METRICS:
    print(f"{text:40}" + "".join(f"{number(found[name, text].value):>16}" for name in ROLES))
for name in ROLES:
    chance = found[name, RANDOMIZED].score.detail["chance"]
    print(f"by chance, {name}: {number(chance['low'][0])} to {number(chance['high'][0])}")

# %%
# What the numbers say, and where they mislead
# ---------------------------------------------
# The edge detector stays itself: 1 at every stage. It also looks better than most published explanations, which is
# why the test exists.
#
# HiResCAM is gone as soon as the head is fresh, within what two unrelated maps of this smoothness share by chance. Of
# GuidedBackprop a rest stays to the end, more than chance: that part of the picture is the image's edges passed
# through any network. It lies on the nodule all the same (IoU), so its place says nothing about its cause.
#
# EigenCAM passes, and passing is not enough: it needs the weights and ignores the question. With a model of several
# classes RandomLogit asks for the map of another class and sees that; this network has one output, so that it is
# undefined here.

curves, axes = plt.subplots(figsize=(6.5, 3.4), layout="constrained")
stages = ["none", "a quarter", "half", "three quarters", "all"]
for name in ROLES:
    detail = found[name, RANDOMIZED].score.detail
    axes.plot(stages, [1.0, *(row[0] for row in detail["curve"])], marker="o", markersize=4, label=name)
chance = found["HiResCAM", RANDOMIZED].score.detail["chance"]
axes.axhspan(chance["low"][0], chance["high"][0], color="0.9", label="HiResCAM by chance")
axes.set_ylabel("rank correlation with\nthe trained network's map")
axes.set_xlabel("layers with fresh weights, from the output backwards")
axes.spines[["top", "right"]].set_visible(False)
axes.legend(frameon=False, fontsize=9, loc="center left", bbox_to_anchor=(1, 0.5))
