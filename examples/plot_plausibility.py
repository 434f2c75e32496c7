"""
Plausibility: does the map lie where an expert looks?
=====================================================

The finding is outlined, the map is compared with the outline. That is easy to measure and easy to misread: it says
that map and expert agree, not that the model works that way. The nodule is planted, so that its outline is exact.
"""

from pellucid.demo.cases import MODELS, packaged
from pellucid.io.models import load_model
from pellucid.show.figure import draw_rows, sketch
from pellucid.show.scenery import Framing
from pellucid.show.words import number
from pellucid.workbench.evaluating import truth_region
from pellucid.workbench.job import Request, run_case
from pellucid.workbench.registry import make_explainer, make_metric

ROLES = {
    "HiResCAM": "good",
    "GradCAMPlusPlus": "bad",
    "EigenCAM": "misleading",
    "Occlusion": "coarse",
}
METRICS = ("IoU", "IoU:threshold=otsu", "Dice", "HitRate", "AUPRC", "RelevanceMass", "RelevanceRank")

one = next(one for one in packaged() if one.case.name.startswith("planted-nodule"))
settings = {"Occlusion": "Occlusion:window=24,stride=12"}
request = Request(
    targets=(one.target,),
    methods=tuple(make_explainer(settings.get(name, name)) for name in ROLES),
    metrics=tuple(make_metric(text) for text in METRICS),
    checks=False,
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
# Their scores. Higher is better for all.

print(f"{'':24}" + "".join(f"{name:>17}" for name in ROLES))
for text in METRICS:
    print(f"{text:24}" + "".join(f"{number(found[name, text].value):>17}" for name in ROLES))
print(f"chance for HitRate, AUPRC and RelevanceMass: {number(found['HiResCAM', 'HitRate'].score.detail['chance'])}")

# %%
# What the numbers say, and where they mislead
# ---------------------------------------------
# HiResCAM lies on the nodule by every measure, GradCAMPlusPlus avoids it by every measure.
#
# EigenCAM has the best overlap of all. It is the first principal component of a layer: it knows neither the class nor
# the score, and would be the same picture for any question. It finds what stands out, and a nodule stands out. What
# counts the haze as well as the peak (RelevanceMass, and IoU at Otsu's threshold) marks it down for being blurred; no
# measure of this page can see that it does not depend on the question; the page on randomization asks that.
#
# Occlusion was asked in blocks of 24 pixels. Many pixels share the highest value, and the hit counts as the share of
# them that lies inside, which is neither a hit nor a miss. A threshold changes the ranking, too: compare the two rows
# of IoU. Whoever reports an overlap reports the threshold with it.
