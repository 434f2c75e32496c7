"""A panel: one shared pass for all methods, own passes for each, and everything needed to repeat it."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from pellucid.core.errors import CannotDo, UnknownLabel, UnknownLayer
from pellucid.core.explanation import Reference
from pellucid.core.infill import Constant
from pellucid.core.model import Abilities, Identity, Model, OutputSpec
from pellucid.core.prepare import InputSpec
from pellucid.core.target import ClassScore, Margin, RegionScore
from pellucid.explain.cam import GradCAM, HiResCAM
from pellucid.explain.gradient import InputXGradient, Saliency
from pellucid.explain.guided import GuidedBackprop
from pellucid.explain.occlusion import Occlusion
from pellucid.explain.path import IntegratedGradients
from pellucid.testing import unchanged
from pellucid.workbench.explaining import Manner, explain_case
from pellucid.workbench.opening import open_case

SHARING = [Saliency(), InputXGradient(), GradCAM(), HiResCAM()]


def test_methods_of_a_panel_share_one_pass(classifier, make_case) -> None:
    opened = open_case(make_case(), classifier)
    classifier.layers(opened.inputs)
    classifier.module.items = 0
    with unchanged(classifier.module):
        panel = explain_case(opened, [ClassScore("bright"), Margin("bright", "dark")], SHARING)
    assert classifier.module.items == 1
    assert len(panel.explanations) == len(panel.made_by) == len(panel.probes) == 8
    assert panel.probes[0].spent.shared.backwards == 2
    for explanation in panel.explanations:
        made = explanation.provenance
        assert (made.shared, made.own) == ((1, 2), (0, 0))


def test_own_passes_are_charged_to_the_method_that_makes_them(classifier, make_case) -> None:
    opened = open_case(make_case(), classifier)
    methods = [IntegratedGradients(steps=5), Saliency(), Occlusion(window=4.0, stride=4.0, infill=Constant(0.0))]
    classifier.layers(opened.inputs)
    classifier.module.items = 0
    panel = explain_case(opened, [ClassScore()], methods)
    assert [e.provenance.own for e in panel.explanations] == [(6, 5), (0, 0), (16, 0)]
    assert classifier.module.items == 1 + 6 + 16
    assert all(e.provenance.ms >= 0 for e in panel.explanations)
    assert panel.explanations[0].provenance.ms > panel.explanations[1].provenance.ms


def test_a_panel_gives_what_each_method_gives_alone(classifier, make_case) -> None:
    opened = open_case(make_case(), classifier)
    methods = [*SHARING, IntegratedGradients(steps=3), Occlusion(window=4.0)]
    targets = [ClassScore("bright"), ClassScore("dark")]
    together = explain_case(opened, targets, methods)
    pairs = [(t, m) for t in targets for m in methods]
    for (target, method), ours in zip(pairs, together.explanations, strict=True):
        alone = explain_case(opened, [target], [method]).explanations[0]
        assert (ours.provenance.method, ours.provenance.target) == (method.name, target.label)
        assert torch.allclose(ours.attribution.maps["image"], alone.attribution.maps["image"], atol=1e-7)
        assert ours.prediction == alone.prediction
    assert together.made_by == tuple(methods) * 2


def test_the_provenance_says_how_it_was_made(classifier, make_case) -> None:
    opened = open_case(make_case(), classifier, seed=11)
    manner = Manner("bfloat16", applicability="in scope", warnings=("a doubt",))
    cam, occlusion, path = explain_case(
        opened, [ClassScore("dark")], [GradCAM(), Occlusion(window=4.0), IntegratedGradients(steps=2)], manner
    ).explanations
    made = cam.provenance
    assert (made.case, made.model, made.card_digest) == ("case-7", "finder 1.2", "c" * 64)
    assert made.input_digest == opened.case.images["image"].digest
    assert made.model_digest == classifier.digest
    assert (made.target, made.method, made.seed, made.precision) == ("dark", "GradCAM", 11, "bfloat16")
    assert (made.device, made.layer, made.applicability) == ("cpu", "relu", "in scope")
    assert made.infill is None
    assert made.created.endswith("+00:00")
    assert made.versions["torch"] == torch.__version__
    assert occlusion.provenance.settings["window"] == 4.0
    assert occlusion.provenance.layer is None
    assert occlusion.provenance.infill == "local median over 25% of the image and mean of the image"
    assert path.provenance.infill == "local median over 25% of the image"
    assert {"a doubt", "PLANTED square"} <= set(made.warnings)
    assert any("(dark) is not the predicted one (bright)" in w for w in made.warnings)


def test_a_named_fill_is_the_one_told(classifier, make_case) -> None:
    opened = open_case(make_case(), classifier)
    method = Occlusion(window=4.0, infill=Constant(0.5))
    assert explain_case(opened, [ClassScore()], [method]).explanations[0].provenance.infill == (
        "constant 0.5 (network units)"
    )


def test_the_prediction_is_the_models(classifier, make_case) -> None:
    output = replace(classifier.output, operating_point={"bright": 2.0})
    model = replace(classifier, output=output)
    opened = open_case(make_case(), model)
    model.module.eval()
    logits = model.module(opened.inputs["image"])[0].detach()
    said = explain_case(opened, [ClassScore("bright")], [Saliency()]).explanations[0].prediction
    assert (said.label, said.predicted, said.unit, said.threshold) == ("bright", "bright", "logit", 2.0)
    assert said.value == pytest.approx(float(logits[2]))
    assert said.scores == pytest.approx(dict(zip(model.output.labels, logits.softmax(0).tolist(), strict=True)))
    assert said.score == said.scores["bright"]
    assert said.below_threshold == (said.value < 2.0)


def test_the_predicted_class_needs_no_doubt(classifier, make_case) -> None:
    made = explain_case(open_case(make_case(), classifier), [ClassScore()], [Saliency()]).explanations[0].provenance
    assert made.target == "bright"
    assert not [w for w in made.warnings if "predicted" in w]


def test_a_saturated_score_is_a_doubt(classifier, make_case) -> None:
    classifier.module.last.bias.data[2] = 40
    made = explain_case(open_case(make_case(), classifier), [ClassScore()], [Saliency()]).explanations[0].provenance
    assert any("saturated" in w for w in made.warnings)


def test_findings_that_may_occur_together_do_not_doubt_each_other(classifier, make_case) -> None:
    several = replace(classifier, output=replace(classifier.output, activation="sigmoid"))
    made = explain_case(open_case(make_case(), several), [ClassScore("middling")], [Saliency()]).explanations[0]
    assert made.prediction.predicted == "bright"
    assert not [w for w in made.provenance.warnings if "predicted" in w]


def test_a_measured_value_is_no_score(make_case) -> None:
    module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(1024, 1))
    module[1].bias.data.fill_(41.5)
    model = Model(module, (InputSpec(),), OutputSpec("regression", ("diameter",), "none", "mm"))
    made = explain_case(open_case(make_case(), model), [ClassScore()], [Saliency()]).explanations[0]
    assert made.prediction.score is None
    assert (made.prediction.unit, made.prediction.label) == ("mm", "diameter")
    assert made.prediction.value > 30
    assert not [w for w in made.provenance.warnings if "score" in w]


def test_a_segmentation_is_explained_in_its_region(segmenter, make_case) -> None:
    opened = open_case(make_case(), segmenter)
    made = explain_case(opened, [RegionScore("bleeding", "lesion")], [Saliency(), InputXGradient()]).explanations
    lesion = opened.scene.regions["lesion"]
    assert made[0].provenance.target == "bleeding in lesion"
    assert torch.allclose(made[0].attribution.maps["image"][0, 0], lesion * 8 / lesion.sum())
    assert made[1].prediction.score is None


def test_references_belong_to_the_settings_they_were_measured_with(classifier, make_case) -> None:
    known = Reference(2.0, 1.0, 0.05, 100, 100, "films")
    manner = Manner(references={"GradCAM": {"bright": known}, "Occlusion:window=4": {"bright": known}})
    opened = open_case(make_case(), classifier)
    methods = [GradCAM(), GradCAM("conv"), Occlusion(window=4.0), Occlusion(window=8.0), Saliency()]
    made = explain_case(opened, [ClassScore("bright")], methods, manner).explanations
    assert [e.reference is known for e in made] == [True, False, True, False, False]
    other = explain_case(opened, [ClassScore("dark")], [GradCAM()], manner).explanations
    assert other[0].reference is None


def black_box(model):
    why = dict.fromkeys(("gradient", "hooks", "edits", "rules"), "ONNX shows only its output")
    return replace(model, can=Abilities(gradient=False, hooks=False, edits=False, rules=False, why=why))


def test_methods_that_cannot_are_skipped_or_refused(classifier, make_case) -> None:
    opened = open_case(make_case(), black_box(classifier))
    methods = [Saliency(), GradCAM(), Occlusion(window=8.0), IntegratedGradients(steps=2), GradCAM("conv9")]
    panel = explain_case(opened, [ClassScore()], methods, Manner(strict=False))
    assert [e.provenance.method for e in panel.explanations] == ["Occlusion"]
    assert panel.made_by == (methods[2],)
    assert [name for name, _ in panel.skipped] == ["Saliency", "GradCAM", "IntegratedGradients", "GradCAM"]
    assert all("ONNX" in reason for _, reason in panel.skipped)
    for method in (methods[0], methods[1], methods[3]):
        with pytest.raises(CannotDo, match="ONNX shows only its output"):
            explain_case(opened, [ClassScore()], [method])


def test_what_only_the_networks_operations_show_is_skipped_or_refused(make_case) -> None:
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.GELU(), nn.Flatten(), nn.LazyLinear(2))
    net(torch.zeros(1, 1, 32, 32))
    opened = open_case(make_case(), Model(net, (InputSpec(),)))
    methods, both = [Saliency(), GuidedBackprop()], [ClassScore(0), ClassScore(1)]
    panel = explain_case(opened, both, methods, Manner(strict=False))
    assert panel.titles == ["Saliency: class 0", "Saliency: class 1"]
    assert [name for name, _ in panel.skipped] == ["GuidedBackprop"]
    with pytest.raises(CannotDo):
        explain_case(opened, both, methods)
    with pytest.raises(CannotDo, match=r"no method can explain this model\. GuidedBackprop:"):
        explain_case(opened, both, methods[1:], Manner(strict=False))


def test_a_layer_that_is_not_there_is_skipped_or_refused(classifier, make_case) -> None:
    opened = open_case(make_case(), classifier)
    methods = [GradCAM("conv9"), GradCAM("last"), GradCAM()]
    panel = explain_case(opened, [ClassScore()], methods, Manner(strict=False))
    assert len(panel.explanations) == 1
    reasons = [reason for _, reason in panel.skipped]
    assert ["'conv9' is not in the model" in reasons[0], "no spatial extent" in reasons[1]] == [True, True]
    with pytest.raises(UnknownLayer, match="conv, relu"):
        explain_case(opened, [ClassScore()], methods)


def test_a_label_that_is_not_there_is_refused_even_when_lenient(classifier, make_case) -> None:
    with pytest.raises(UnknownLabel, match="0 dark, 1 middling, 2 bright"):
        explain_case(open_case(make_case(), classifier), [ClassScore("mass")], SHARING, Manner(strict=False))


def test_progress_names_each_method_before_it_runs(classifier, make_case) -> None:
    said = []
    explain_case(open_case(make_case(), classifier), [ClassScore(0), ClassScore(1)], SHARING[:2], None, said.append)
    assert said == ["Saliency", "InputXGradient"] * 2


def test_the_map_comes_back_on_the_image(classifier, make_case) -> None:
    case = make_case()
    made = explain_case(open_case(case, classifier), [ClassScore("bright")], [InputXGradient()]).explanations[0]
    assert made.numpy().shape == (1, 32, 32)
    lesion = case.regions["lesion"].mask.numpy()
    assert made.numpy()[0][lesion].mean() > 3 * made.numpy()[0][~lesion].mean()
    assert made.cell == ((1.0, 1.0), "mm")


def test_bfloat16_is_near_float32(classifier, make_case) -> None:
    opened = open_case(make_case(), classifier)
    full, fast = (
        explain_case(opened, [ClassScore("bright")], [Saliency()], Manner(p)).explanations[0].numpy()
        for p in ("float32", "bfloat16")
    )
    assert abs(full - fast).max() < 0.03 * full.max()


def test_a_model_without_a_name_is_called_so(make_case, classifier) -> None:
    model = replace(classifier, identity=Identity())
    made = explain_case(open_case(make_case(), model), [ClassScore()], [Saliency()]).explanations[0].provenance
    assert made.model == "unnamed model"
    assert len(made.model_digest) == 64
