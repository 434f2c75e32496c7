"""
What a transformer attends to
=============================

The demo's vision transformer on the demo's chest film: an adult, shown to a model that learned from children. Five
pictures answer "what did it look at" and do not agree, which is what this page is for.
"""

from pellucid.demo.cases import MODELS, packaged
from pellucid.io.models import load_model
from pellucid.show.figure import Framing, draw_panel
from pellucid.workbench.job import Request, run_case
from pellucid.workbench.registry import make_explainer

one = next(one for one in packaged() if one.case.name == "chest-film-audit")
METHODS = ("RawAttention", "AttentionRollout", "GradientAttentionRollout", "AttnLRP", "Occlusion")
request = Request(
    targets=("pneumonia",), methods=tuple(make_explainer(m) for m in METHODS), override=True, checks=False
)
done = run_case(one.case, load_model(MODELS / "pneumonia_transformer" / "model.toml"), request)

# %%
# RawAttention and AttentionRollout would be the same picture for any class: they say what was mixed into the class
# token. GradientAttentionRollout keeps what raises the score, and shows nothing against. AttnLRP has both signs, and
# the edges of the patches. Occlusion changed the image and measured: where the others point and it does not, the model
# looked and did not care.

figure = draw_panel(done.panel.explanations, Framing(notes=one.case.notes, show_anyway=True, views=1))
