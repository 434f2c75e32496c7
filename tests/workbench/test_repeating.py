"""A recipe says all that was asked, to the last digit, and following it gives the same map."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from pellucid.core.infill import Blur, Constant
from pellucid.explain.noise import SmoothGrad
from pellucid.explain.occlusion import Occlusion
from pellucid.io.models import LoadedModel
from pellucid.io.objects.recipe import Recipe
from pellucid.workbench.job import Request, run_case
from pellucid.workbench.registry import make_metric
from pellucid.workbench.repeating import background_digest, recipe_of, request_of
from pellucid.workbench.telling import LARGEST, OUTPUT, told_of

ASKED = Request(
    targets=("bright>dark",),
    methods=(SmoothGrad(samples=3, sigma=1 / 7), Occlusion(window=3.5, infill=Blur(1 / 3))),
    metrics=(make_metric("Entropy"), make_metric("MethodAgreement")),
    infills=(Constant(0.1 + 0.2), Blur(2.0)),
    seed=11,
    override=True,
    checks=False,
)


@pytest.fixture
def loaded(classifier, tmp_path) -> LoadedModel:
    return LoadedModel(classifier, None, {}, tmp_path)


def test_following_a_recipe_gives_the_same_map_and_the_same_recipe(loaded, make_case) -> None:
    case = make_case()
    done = run_case(case, loaded, ASKED)
    for place in (0, 1):
        recipe = recipe_of(done, place, ASKED)
        assert (recipe.target, recipe.seed, recipe.override) == ("bright>dark", 11, True)
        assert recipe.fills == (repr(0.1 + 0.2), "blur:2.0")
        assert recipe.regions.keys() == {"lesion"}
        assert recipe.model_digest == loaded.model.digest
        again = Recipe.parse(recipe.scored({"Entropy": 1.0}).text)
        request = request_of(again)
        assert (request.methods, request.infills) == (ASKED.methods[place : place + 1], ASKED.infills)
        assert [m.name for m in request.metrics] == ["Entropy"]
        second = run_case(case, loaded, request)
        assert np.array_equal(second.panel.explanations[0].numpy(), done.panel.explanations[place].numpy())
        assert replace(recipe_of(second, 0, request), versions=recipe.versions) == recipe


def test_the_target_that_nobody_named_is_the_one_that_was_explained(loaded, make_case) -> None:
    request = replace(ASKED, targets=(), metrics=())
    done = run_case(make_case(), loaded, request)
    recipe = recipe_of(done, 0, request)
    assert recipe.target == done.panel.explanations[0].provenance.target
    assert request_of(recipe).targets == (recipe.target,)


def test_a_crop_is_kept_and_a_background_is_known_by_its_values() -> None:
    recipe = Recipe("bright", "Saliency:sign=dropped", crop=(0.1, -2.0, 3.0))
    assert request_of(recipe).crop == (0.1, -2.0, 3.0)
    assert request_of(replace(recipe, crop=())).crop is None
    one, other = {"image": torch.zeros(2, 1, 3, 3)}, {"image": torch.zeros(2, 1, 3, 3)}
    assert background_digest(None) == ""
    assert background_digest(one) == background_digest(other) != ""
    other["image"][1, 0, 2, 2] = 1e-7
    assert background_digest(one) != background_digest(other)


def test_a_report_tells_of_its_own_map_only(loaded, make_case) -> None:
    done = run_case(make_case(), loaded, replace(ASKED, checks=True))
    for place, other in ((0, "Occlusion"), (1, "SmoothGrad")):
        told = told_of(done, place, loaded)
        explanation = done.panel.explanations[place]
        numbers = {m.name: m.value for m in told.measured}
        assert numbers[OUTPUT] == explanation.prediction.value
        assert numbers[LARGEST] == explanation.numpy().max()
        spelled = [m.spelled for m in told.measured if m.spelled]
        assert [s.partition(":")[0] for s in spelled] == ["Entropy"]
        assert "MethodAgreement of all maps" in numbers
        assert not any(other in ruling.name for ruling in told.rulings)
        assert {"applicability", "golden vectors"} <= {ruling.name for ruling in told.rulings}
        assert told.said["What it cannot show"][0] == done.panel.made_by[place].card.caution
        assert told.region is None  # no null was measured
