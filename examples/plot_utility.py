"""
Clinical utility: is it there in time, and can a reader take it in?
===================================================================

A map that comes after the decision is of no use, and one that lights everything tells nothing. Time and simplicity
are measured here; whether readers decide better is asked of readers, with a table of their reads.
"""

from pellucid.demo.cases import MODELS, packaged
from pellucid.io.models import load_model
from pellucid.show.figure import draw_rows, sketch
from pellucid.show.scenery import Framing
from pellucid.show.words import number
from pellucid.workbench.evaluating import truth_region
from pellucid.workbench.job import Request, run_case
from pellucid.workbench.registry import make_explainer, make_metric

ROLES = {"HiResCAM": "good", "KernelSHAP": "slow", "GradCAMPlusPlus": "everywhere", "GuidedBackprop": "misleading"}
SETTINGS = {"KernelSHAP": "KernelSHAP:players=grid:6,samples=512"}
METRICS = ("Latency:repeats=5,budget_s=2", "Sparseness", "Entropy", "EffectiveComplexity", "Dice")

one = next(one for one in packaged() if one.case.name.startswith("planted-nodule"))
request = Request(
    targets=(one.target,),
    methods=tuple(make_explainer(SETTINGS.get(name, name)) for name in ROLES),
    metrics=tuple(make_metric(text) for text in (*METRICS, "MethodAgreement")),
    checks=False,
)
done = run_case(one.case, load_model(MODELS / one.model / "model.toml"), request)
each = [s for s in done.scores if s.method in ROLES]
found = {(s.method, text): s for s, text in zip(each, METRICS * len(ROLES), strict=True)}
(together,) = (s for s in done.scores if s.method not in ROLES)

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

print(f"{'':30}" + "".join(f"{name:>16}" for name in ROLES))
for text in METRICS:
    print(f"{text:30}" + "".join(f"{number(found[name, text].value):>16}" for name in ROLES))
low, high = together.score.detail["interval"][0]
print(f"agreement of the four: {number(together.value)} (95% {number(low)} to {number(high)})")

# %%
# What the numbers say, and where they mislead
# ---------------------------------------------
# Latency is the 95th percentile of explaining this case again, with preparing the image, in seconds on the machine
# that made this page. It is compared with a budget; the review gives 2 s for emergencies, of which no source was
# found. KernelSHAP asks the network hundreds of times where HiResCAM asks once.
#
# EffectiveComplexity counts the pixels that suffice to give the score back: a few dozen of a map on the nodule, the
# whole image of GradCAMPlusPlus, which lights everything but the nodule. Sparseness and Entropy see the same without
# asking the model, and that is their limit: a single wrong pixel would be the simplest map of all. Nor is the fewest
# pixels the best map: GuidedBackprop needs the fewest, because a few of its scattered pixels make a pattern to which
# the network answers, not because a nodule is that small.
#
# That four methods agree little is common, and no vote: read which question each answers before counting heads.
