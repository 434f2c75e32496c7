"""
Faithfulness: does the map say what the model used?
===================================================

A nodule was planted in a radiograph by a formula, a small network finds it, and four methods say why. Hide what a map
calls relevant, and the score must fall; show that alone, and it must come back. Both are measured here for a good
map, a bad one and two that mislead, with hiding in random order as the reference.
"""

from matplotlib import pyplot as plt

from pellucid.demo.cases import MODELS, packaged
from pellucid.io.models import load_model
from pellucid.show.figure import draw_rows, sketch
from pellucid.show.scenery import Framing
from pellucid.show.words import number
from pellucid.workbench.evaluating import truth_region
from pellucid.workbench.job import Request, run_case
from pellucid.workbench.registry import make_explainer, make_metric

ROLES = {
    "GradCAM": "good",
    "GradCAMPlusPlus": "bad",
    "Saliency": "misleading",
    "GuidedBackprop": "misleading",
}
METRICS = ("DeletionAUC", "InsertionAUC", "ROAD", "DeletionAUC:block=8", "InsertionAUC:block=8", "HitRate")

one = next(one for one in packaged() if one.case.name.startswith("planted-nodule"))
request = Request(
    targets=(one.target,),
    methods=tuple(make_explainer(name) for name in ROLES),
    metrics=tuple(make_metric(text) for text in METRICS),
    checks=False,
)
done = run_case(one.case, load_model(MODELS / one.model / "model.toml"), request)
found = {(s.method, text): s for s, text in zip(done.scores, METRICS * len(ROLES), strict=True)}

# %%
# The maps. The outline is the planted nodule.

maps = {e.provenance.method: e for e in done.panel.explanations}
truth = truth_region(one.case)
framing = Framing(one.case.region(truth), truth, one.case.notes, show_anyway=True, views=1)
figure = draw_rows(
    [sketch(maps[name], show_anyway=True) for name in ROLES],
    [f"{name}: {role}" for name, role in ROLES.items()],
    ["wash"] * len(ROLES),
    f"{one.case.name} \u00b7 target: {one.target}",
    ("each map has a scale of its own: colors of two methods are not comparable",),
    framing,
)

# %%
# Their scores. Lower is better for deletion, higher for the others.

print(f"{'':24}" + "".join(f"{name:>17}" for name in ROLES))
for text in METRICS:
    print(f"{text:24}" + "".join(f"{number(found[name, text].value):>17}" for name in ROLES))
for text in METRICS[:2] + METRICS[3:5]:
    random = found["GradCAM", text].score.detail["random"][0]
    print(f"random order, {text}: {number(random)}")

# %%
# What the numbers say, and where they mislead
# ---------------------------------------------
# GradCAM lies on the nodule, and the score falls and comes back quickly. GradCAMPlusPlus lights everything but the
# nodule: the score stays until the end, and every number says so. Of Saliency nothing is painted, because it rises
# nowhere above what it reaches in normal cases.
#
# And yet, by deletion of single pixels, Saliency is *better* than GradCAM, although its highest point misses the
# nodule. The random order shows why: it, too, takes nearly all of the score at once. Scattered hidden pixels are a
# texture that no radiograph has, and the network reacts to the texture, not to what is missing. Any grainy map
# profits, GuidedBackprop most. With blocks of 8 pixels the random order falls slowly, as it should; GradCAM leads,
# and GuidedBackprop comes behind Saliency. ROAD, which fills hidden pixels from their neighbors and leaves less of a
# texture, agrees.
#
# So read a deletion score beside its random order, and rank methods with blocks of the size that the question is
# about.

curves, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4), sharey=True, layout="constrained")
for axes, block in ((left, ""), (right, ":block=8")):
    for name in ROLES:
        detail = found[name, f"DeletionAUC{block}"].score.detail
        axes.plot(detail["share"], detail["curve"][0], label=f"{name}", linewidth=1.8)
    axes.set_title("single pixels hidden" if not block else "blocks of 8 pixels hidden", fontsize=10)
    axes.set_xlabel("share of the image hidden, most relevant first")
    axes.spines[["top", "right"]].set_visible(False)
left.set_ylabel(f"score of the nodule, {found['GradCAM', 'DeletionAUC'].score.detail['unit']}")
left.legend(frameon=False, fontsize=9)
