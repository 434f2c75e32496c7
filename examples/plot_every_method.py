"""
Every method on the same images
===============================

All methods, on four images that come with installed packages, through the demo's small networks. Read down one picture:
each map is one method's answer to the same question about the same image. Read across pictures: some methods cannot be
asked of some models, and the page says which and why.

What a radiologist sees first, and what it means, stands under each picture. A map that looks good is no evidence that
it is right: the planted nodule is here because its place is known.
"""

from pellucid.demo.cases import MODELS, packaged
from pellucid.io.models import load_model
from pellucid.show.figure import Framing, draw_panel
from pellucid.workbench.evaluating import truth_region
from pellucid.workbench.job import Request, run_case
from pellucid.workbench.registry import make_explainer

CASES = {one.case.name: one for one in packaged()}
NOISY = tuple(f"{name}:samples=10" for name in ("SmoothGrad", "SquareGrad", "VarGrad"))
PATHS = ("BlurIG:steps=12", "ExpectedGradients:samples=24", "IntegratedGradients:steps=12")
# with the number of samples that a printed page can wait for
HIDING = (
    "ExactShapley:players=grid:2",
    "KernelSHAP:players=grid:3,samples=64",
    "LIME:players=grid:3,samples=64",
    "MorrisSensitivity:players=grid:3,trajectories=3",
    "OneAtATime:players=grid:4",
    "PartitionSHAP:players=grid:3,samples=64",
    "RISE:masks=64",
)
FEWER = (*PATHS, *NOISY, *HIDING)


def every_map(name, *, fewer=()):
    """All methods on one of the demo's cases, as one picture."""
    one = CASES[name]
    request = Request(
        targets=(one.target,),
        methods=tuple(make_explainer(text) for text in fewer),
        every=True,
        crop=one.crop,
        override=one.override,
        checks=False,
    )
    done = run_case(one.case, load_model(MODELS / one.model / "model.toml"), request)
    for method, reason in done.panel.skipped:
        print(f"{method}: {reason}")
    truth = truth_region(one.case)
    region = one.case.region(truth) if truth else None
    maps = sorted(done.panel.explanations, key=lambda e: e.provenance.method)
    return draw_panel(maps, Framing(region, truth or "", one.case.notes, show_anyway=True, views=1))


# %%
# A planted nodule
# ----------------
# A classifier of patches of a radiograph. The nodule was added by a formula, so its outline is exact. Two families are
# seen at once. Maps of a layer are blobs as wide as the layer's cells (the square in the corner), shifted by part of a
# cell because strided convolutions with padding do not tile the image: no statement about the nodule's border can be
# read from them. GradCAMPlusPlus and XGradCAM light everything but the nodule: this network's last layer holds one
# negative logit per cell, and where activations are negative these weights turn a channel around; both maps say so in
# their warnings. HiResCAM, LayerCAM and ScoreCAM, which weigh place by place or by trial, find it. Maps of voxels are
# grainy, with both signs side by side, because the network's gradient is: SmoothGrad and ExpectedGradients average part
# of the grain away. GuidedBackprop and Deconvolution look crisp everywhere an edge is: they show edges that the network
# could pass on, and hardly what it scored.

planted = next(name for name in CASES if name.startswith("planted-nodule"))
figure = every_map(planted, fewer=HIDING)

# %%
# Vessels of a retina
# -------------------
# A segmentation: the score is the mean logit where vessels were predicted. Maps of the coarsest layer name the large
# arcades; EigenCAM, which knows nothing of the question, also lights the dark corners, where the layer varies most.
# Occlusion is as coarse as its block and blames the left border, where the two fills differ most. Voxel maps follow
# single vessels and need a large screen.

figure = every_map("retina", fewer=(*FEWER, "Occlusion:window=280,stride=280"))

# %%
# A hippocampus in a volume
# -------------------------
# The same methods in three dimensions, all on one axial slice. The network sees a box of 36 mm about
# the left hippocampus of an averaged brain.

figure = every_map("left-hippocampus", fewer=(*FEWER, "Occlusion:window=14,stride=14"))

# %%
# A model to distrust
# -------------------
# The pneumonia network was trained on small films of children and is shown an adult. Every method gives a picture all
# the same: nothing in a map says that the model should not have been asked. The card does, and the page's first line.

figure = every_map("chest-film-audit", fewer=FEWER)
