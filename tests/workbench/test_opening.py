"""A case on a model's grid: regions, fills, targets."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from pellucid.core.case import Case, Region
from pellucid.core.errors import BadOption, BadRegion, CannotDo, InputError, ShapeMismatch, UnknownName
from pellucid.core.grid import Grid
from pellucid.core.image import Image, Modality
from pellucid.core.infill import Constant
from pellucid.core.model import Model, OutputSpec
from pellucid.core.prepare import InputSpec
from pellucid.core.probe import Probe
from pellucid.core.target import BoundTarget, ClassScore, Margin, RegionScore
from pellucid.guide.modality import modality_guide
from pellucid.workbench.opening import assume_modality, default_target, open_case, parse_target, spell_target


def test_the_image_and_its_region_arrive_together(classifier, make_case) -> None:
    opened = open_case(make_case(), classifier, seed=5)
    x, mask = opened.inputs["image"], opened.scene.regions["lesion"]
    assert x.shape == (1, 1, 16, 16)
    assert mask.dtype is torch.bool
    assert mask.nonzero().tolist() == [[r, c] for r in range(3, 7) for c in range(9, 13)]
    assert float(x[0, 0, mask].min()) > 3 * float(x[0, 0, ~mask].median())
    assert opened.scene.seed == 5
    assert opened.scene.grids["image"].spacing == (1.0, 1.0)
    shift, scale = opened.scene.affine["image"]
    assert torch.allclose(opened.prepared["image"].physical(1.0), (1 - torch.tensor(shift)) / torch.tensor(scale))


@pytest.mark.parametrize("modality", [Modality.CT, Modality.FUNDUS, Modality.UNKNOWN])
def test_fills_are_the_modalitys_unless_named(classifier, make_case, modality) -> None:
    case = make_case(modality=modality)
    assert open_case(case, classifier).scene.infills == modality_guide(modality).infills
    one, two = Constant(0.0), Constant(1.0)
    assert open_case(case, classifier, infills=(one, two)).scene.infills == (one, two)
    assert open_case(case, classifier, infills=(one,)).scene.infills == (one, one)


def test_a_region_may_come_on_another_grid(classifier, make_case) -> None:
    case = make_case()
    half = case.images["image"].grid.resized((16, 16))
    mask = torch.zeros(16, 16, dtype=torch.bool)
    mask[3:7, 9:13] = True
    other = replace(case, regions={"lesion": Region(mask, half)})
    ours, theirs = (open_case(c, classifier).scene.regions["lesion"] for c in (other, case))
    assert torch.equal(ours, theirs)


def test_a_region_outside_the_networks_field_is_refused(make_case) -> None:
    model = Model(nn.Flatten(), (InputSpec(size=(8, 8), fit="crop"),))
    with pytest.raises(BadRegion, match=r"'lesion' of case case-7 has no voxel where the network looks"):
        open_case(make_case((64, 64)), model)


def test_one_image_serves_a_model_with_one_input_whatever_its_name(classifier, make_case) -> None:
    opened = open_case(make_case(name="frontal"), classifier)
    assert opened.image is opened.case.images["frontal"]
    assert set(opened.inputs) == {"image"}


def test_several_images_are_matched_by_name(make_case) -> None:
    specs = (InputSpec("pet", rank=3), InputSpec("ct", rank=3, channels=1))
    model = Model(nn.Flatten(), specs)
    pet, ct = (make_case((32, 32, 8), modality).images["image"] for modality in (Modality.PET, Modality.CT))
    opened = open_case(Case("c", {"ct": ct, "pet": pet, "extra": ct}), model)
    assert opened.image is pet
    assert list(opened.inputs) == ["pet", "ct"]
    with pytest.raises(UnknownName, match=r"lacks the images \['pet'\].*it has: ct"):
        open_case(Case("c", {"ct": ct, "mr": ct}), model)
    flat = Image(torch.zeros(1, 4, 4), Grid.regular((4, 4)))
    with pytest.raises(ShapeMismatch, match=r"ranks \[2, 3\]"):
        open_case(Case("c", {"ct": ct, "pet": flat}), model)


def test_a_model_that_takes_a_vector_is_refused_by_name(make_case) -> None:
    model = Model(nn.Flatten(), (InputSpec(), InputSpec("age", rank=0)))
    with pytest.raises(CannotDo, match=r"takes \['age'\].*Probe"):
        open_case(make_case(), model)


def test_an_unknown_modality_is_taken_from_the_card_and_told(make_case) -> None:
    case, words = assume_modality(make_case(modality=Modality.UNKNOWN), Modality.FUNDUS)
    assert case.images["image"].modality is Modality.FUNDUS
    assert "taken from the model card: fundus" in words[0]
    for known, stated in ((Modality.CT, Modality.FUNDUS), (Modality.UNKNOWN, Modality.UNKNOWN)):
        case = make_case(modality=known)
        assert assume_modality(case, stated) == (case, ())


@pytest.mark.parametrize(
    ("text", "target"),
    [
        (None, ClassScore()),
        ("bright", ClassScore("bright")),
        (" 2 ", ClassScore("2")),
        ("bright>dark", Margin("bright", "dark")),
        ("bright > 0", Margin("bright", "0")),
    ],
)
def test_targets_of_a_classifier_are_read(classifier, text, target) -> None:
    assert parse_target(text, classifier) == target


@pytest.mark.parametrize(
    ("text", "target"),
    [
        (None, None),
        ("vessel", RegionScore("vessel")),
        ("vessel@lesion", RegionScore("vessel", "lesion")),
        ("1 @ lesion", RegionScore("1", "lesion")),
        ("vessel@", RegionScore("vessel")),
    ],
)
def test_targets_of_a_segmenter_are_read(segmenter, text, target) -> None:
    assert parse_target(text, segmenter) == target


@pytest.mark.parametrize(
    ("target", "text"),
    [
        (ClassScore(), "bright"),
        (ClassScore(1, "score"), "score:middling"),
        (ClassScore("dark"), "dark"),
        (Margin(2, 0), "bright>dark"),
    ],
)
def test_a_target_is_spelled_as_it_is_read(classifier, make_case, target, text) -> None:
    opened = open_case(make_case(), classifier)
    bound = Probe(classifier, opened.inputs, target).target
    assert spell_target(target, bound, classifier) == text
    read = Probe(classifier, opened.inputs, parse_target(text, classifier)).target
    assert (read.name, read.label, read.unit) == (bound.name, bound.label, bound.unit)


@pytest.mark.parametrize(
    ("target", "text"),
    [
        (RegionScore(1), "vessel"),
        (RegionScore("bleeding", "lesion", scale="score"), "score:bleeding@lesion"),
        (RegionScore(2, None, "border"), "bleeding@/border"),
        (RegionScore(2, "lesion", "component", 2), "bleeding@lesion/component2"),
        (RegionScore(2, "lesion", "missed"), "bleeding@lesion/missed"),
    ],
)
def test_a_region_score_is_spelled_as_it_is_read(segmenter, target, text) -> None:
    bound = BoundTarget("any", lambda o: o, "logit")
    assert spell_target(target, bound, segmenter) == text
    assert parse_target(text, segmenter) == replace(target, label=segmenter.output.labels[1 + (target.label != 1)])


def test_a_grade_called_by_a_number_is_spelled_by_its_name() -> None:
    model = Model(nn.Flatten(), (InputSpec(),), OutputSpec(labels=("1", "2", "3")))
    assert spell_target(ClassScore(0), BoundTarget("1", lambda o: o, "logit", 0), model) == "1"
    with pytest.raises(BadOption, match="cannot be written as text"):
        spell_target(ClassScore("a>b"), BoundTarget("a>b", lambda o: o, "logit", 0), model)


def test_a_classifier_has_no_region_score(classifier) -> None:
    with pytest.raises(InputError, match="leave out the part after @"):
        parse_target("bright@lesion", classifier)


def test_the_default_is_the_largest_structure_that_is_not_background(segmenter, make_case, untouched_flags) -> None:
    case = make_case()
    with untouched_flags(segmenter.module.train()):
        assert default_target(open_case(case, segmenter)) == RegionScore(2)  # the lesion; all else is background
    dimmer = Image(case.images["image"].data * 0.6, case.images["image"].grid)
    assert default_target(open_case(Case("c", {"image": dimmer}), segmenter)) == RegionScore(1)
    dark = Image(case.images["image"].data * 0, case.images["image"].grid)
    with pytest.raises(BadRegion, match="background everywhere"):
        default_target(open_case(Case("c", {"image": dark}), segmenter))


@pytest.fixture
def untouched_flags():
    from pellucid.testing import unchanged

    return unchanged


@pytest.mark.parametrize(("labels", "label"), [((), 0), (("vessel",), 0), (("background", "vessel"), 1)])
def test_the_default_of_one_channel_is_its_structure(make_case, labels, label) -> None:
    model = Model(nn.Conv2d(1, 1, 1), (InputSpec(),), OutputSpec("segmentation", labels, "sigmoid"))
    model.module.weight.data.fill_(1)
    model.module.bias.data.fill_(-0.5)
    opened = open_case(make_case(), model)
    target = default_target(opened)
    assert target == RegionScore(label)
    bound = target.bind(model(opened.inputs).detach(), model.output, {})
    assert bound.name.startswith(labels[-1] if labels else "class 0")


def test_the_default_of_a_classifier_is_what_it_predicts(classifier, make_case) -> None:
    assert default_target(open_case(make_case(), classifier)) == ClassScore()


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("lesion", RegionScore("lesion")),
        ("lesion@expert", RegionScore("lesion", "expert")),
        ("lesion@expert/missed", RegionScore("lesion", "expert", "missed")),
        ("lesion@/border", RegionScore("lesion", None, "border")),
        ("lesion@/component", RegionScore("lesion", None, "component")),
        ("lesion@expert/component12", RegionScore("lesion", "expert", "component", 12)),
        ("score:lesion@expert", RegionScore("lesion", "expert", scale="score")),
    ],
)
def test_parts_of_a_region_are_read(segmenter, text, target) -> None:
    assert parse_target(text, segmenter) == target


@pytest.mark.parametrize("text", ["lesion@/edge", "lesion@x/border2", "lesion@x/all2"])
def test_parts_there_are_not_are_refused(segmenter, text) -> None:
    with pytest.raises(BadOption, match="border, component, component2"):
        parse_target(text, segmenter)


def test_model_scores_are_asked_for_by_name(classifier) -> None:
    assert parse_target("score:bright", classifier) == ClassScore("bright", "score")
    with pytest.raises(InputError, match="drop score:"):
        parse_target("score:bright>dark", classifier)
