"""The recipe of an explanation that was made, and the request that makes it again."""

import hashlib
from collections.abc import Mapping

import numpy as np
from torch import Tensor

from pellucid.core.infill import parse_infill, spell_infill
from pellucid.io.objects.identity import content_key
from pellucid.io.objects.recipe import MapFacts, Recipe, map_digest
from pellucid.workbench.job import Finished, Request
from pellucid.workbench.opening import spell_target
from pellucid.workbench.registry import make_explainer, make_metric, spell_whole


def recipe_of(finished: Finished, place: int, request: Request) -> Recipe:
    """Everything needed to make one explanation of a case again.

    Args:
        finished: the case.
        place: of the explanation in its panel.
        request: that was made; the crop, and whether the card was overridden, stand only there.

    Raises:
        BadOption: a target, setting or fill that text cannot say.
        UnknownName: the answer is no map.
        NonFinite: NaN or infinity in the map.
    """
    panel = finished.panel
    explanation, probe = panel.explanations[place], panel.probes[place]
    made, scene = explanation.provenance, probe.scene
    return Recipe(
        target=spell_target(probe.targets[probe.aim], probe.target, probe.model),
        method=spell_whole(panel.made_by[place], made.layer),
        fills=tuple(spell_infill(fill) for fill in scene.infills),
        seed=made.seed,
        precision=made.precision,
        engine=made.engine,
        device=made.device,
        crop=tuple(float(v) for v in request.crop or ()),
        override=request.override,
        input_digest=made.input_digest,
        regions={name: map_digest(mask.cpu().numpy().astype(np.float32)) for name, mask in scene.regions.items()},
        background=background_digest(scene.background),
        model=made.model,
        model_digest=made.model_digest,
        card_digest=made.card_digest,
        value=explanation.prediction.value if explanation.prediction is not None else None,
        versions=dict(made.versions),
        made=MapFacts.of(explanation.numpy()[0], explanation.attribution.unit),
        key=content_key(made),
    )


def request_of(recipe: Recipe, background: Mapping[str, Tensor] | None = None) -> Request:
    """What has to be asked to follow a recipe.

    Args:
        recipe: of one explanation.
        background: the cases it was compared with; None: there were none.

    Raises:
        UnknownName: a method or metric that is not there (any more, or yet).
        BadOption: a setting that the method does not have (any more).
    """
    crop = recipe.crop
    return Request(
        targets=(recipe.target,),
        methods=(make_explainer(recipe.method),),
        metrics=tuple(make_metric(spelled) for spelled in recipe.scores),
        infills=tuple(parse_infill(fill) for fill in recipe.fills) or None,
        crop=(crop[0], crop[1], crop[2]) if crop else None,
        seed=recipe.seed,
        precision=recipe.precision,
        override=recipe.override,
        checks=False,
        engine=recipe.engine,
        background=background,
    )


def background_digest(background: Mapping[str, Tensor] | None) -> str:
    """SHA-256 of the cases a method compares with, as the network gets them; empty: there are none."""
    if background is None:
        return ""
    total = hashlib.sha256()
    for name, values in sorted(background.items()):
        plain = values.detach().cpu().float().contiguous().numpy()
        total.update(f"{name} {plain.shape}".encode())
        total.update(plain.tobytes())
    return total.hexdigest()
