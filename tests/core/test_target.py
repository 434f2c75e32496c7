"""What is explained: one number for each item, fixed at the unperturbed input."""

import pytest
import torch

from pellucid.core.errors import BadOption, BadRegion, ShapeMismatch, UnknownLabel, UnknownName
from pellucid.core.model import OutputSpec
from pellucid.core.target import ClassScore, Margin, RegionScore, find_label

LABELS = ("normal", "nodule", "mass")
OUTPUT = torch.tensor([[0.5, 2.0, -1.0], [3.0, 1.0, 0.0]])


def bind(target, output=OUTPUT, labels=LABELS, regions=None, unit="logit", activation="softmax"):
    return target.bind(output, OutputSpec("classification", labels, activation, unit), regions or {})


@pytest.mark.parametrize("label", ["mass", 2, "2"])
def test_a_class_by_name_or_number(label) -> None:
    bound = bind(ClassScore(label))
    assert (bound.name, bound.unit, bound.label) == ("mass", "logit", 2)
    assert bound(OUTPUT).tolist() == [-1.0, 0.0]
    assert bound(OUTPUT * 2).tolist() == [-2.0, 0.0]


def test_the_predicted_class_of_each_item() -> None:
    bound = bind(ClassScore())
    assert (bound.name, bound.label) == ("nodule normal", None)
    assert bound(OUTPUT).tolist() == [2.0, 3.0]
    assert bound(-OUTPUT).tolist() == [-2.0, -3.0]  # the class stays, whatever is predicted later
    same = bind(ClassScore(), OUTPUT[:1])
    assert (same.name, same.label) == ("nodule", 1)


def test_a_stream_holds_versions_of_the_batch_with_the_batch_innermost() -> None:
    versions = torch.cat([OUTPUT, OUTPUT + 10, OUTPUT + 20])
    assert bind(ClassScore())(versions).tolist() == [2.0, 3.0, 12.0, 13.0, 22.0, 23.0]


def test_a_margin_is_the_difference_of_two_scores() -> None:
    bound = bind(Margin("nodule", 0))
    assert (bound.name, bound.label) == ("nodule over normal", 1)
    assert bound(OUTPUT).tolist() == [1.5, -2.0]


@pytest.mark.parametrize(
    ("label", "unit", "name", "index", "expected"),
    [
        (None, "logit", "sick", 1, [1.5, -0.25]),
        ("sick", "logit", "sick", 1, [1.5, -0.25]),
        (1, "logit", "sick", 1, [1.5, -0.25]),
        ("well", "logit", "well", 0, [-1.5, 0.25]),
        (0, "probability", "well", 0, [-0.5, 1.25]),
        ("sick", "probability", "sick", 1, [1.5, -0.25]),
    ],
)
def test_one_output_for_two_labels(label, unit, name, index, expected) -> None:
    output = torch.tensor([[1.5], [-0.25]])
    bound = bind(ClassScore(label), output, ("well", "sick"), unit=unit)
    assert (bound.name, bound.label) == (name, index)
    assert bound(output).tolist() == expected


def test_the_two_labels_of_one_output_share_its_meaning() -> None:
    """The logit of the negative class is minus the logit; its model score is what is left to one."""
    z = torch.tensor([[0.7]])
    positive, negative = (bind(ClassScore(n), z, ("well", "sick"))(z) for n in ("sick", "well"))
    assert float(negative.sigmoid()) == pytest.approx(1 - float(positive.sigmoid()))
    p = z.sigmoid()
    assert float(bind(ClassScore("well"), p, ("well", "sick"), unit="probability")(p)) == pytest.approx(1 - float(p))


@pytest.mark.parametrize("labels", [(), ("diameter",)])
def test_a_single_value_is_itself(labels) -> None:
    output = torch.tensor([[41.5]])
    for label in (None, 0, *labels):
        assert bind(ClassScore(label), output, labels, unit="mm")(output).tolist() == [41.5]
    with pytest.raises(UnknownLabel):
        bind(ClassScore(1), output, labels)


@pytest.mark.parametrize(
    ("label", "words"),
    [
        ("tumor", r"no label 'tumor'\. labels: 0 normal, 1 nodule, 2 mass"),
        ("Mass", "no label 'Mass'"),
        (3, r"label 3 is out of range for 3 classes\. labels: 0 normal"),
        (-1, "label -1 is out of range"),
        ("-1", "label -1 is out of range"),
        ("²", "no label"),
    ],
)
def test_a_label_that_is_not_there_is_answered_by_those_that_are(label, words) -> None:
    for target in (ClassScore(label), Margin(label, 0), Margin(0, label)):
        with pytest.raises(UnknownLabel, match=words):
            bind(target)
    with pytest.raises(UnknownLabel, match=words):
        bind(RegionScore(label), torch.zeros(1, 3, 4, 4))


def test_labels_that_are_numbers_are_names_first() -> None:
    grades = ("1", "2", "3", "4", "5")  # BI-RADS begins at 1: as numbers they would all be off by one
    assert [find_label(g, grades, 5) for g in grades] == [0, 1, 2, 3, 4]
    assert find_label(1, grades, 5) == 1
    assert find_label("0", grades, 5) == 0
    kellgren = ("0", "1", "2", "3", "4")
    assert [find_label(g, kellgren, 5) for g in kellgren] == [0, 1, 2, 3, 4]


def test_without_labels_classes_have_numbers() -> None:
    assert bind(ClassScore(2), labels=()).name == "class 2"
    with pytest.raises(UnknownLabel, match="labels: 0 to 2"):
        bind(ClassScore("nodule"), labels=())


# regions


@pytest.fixture
def voxels():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, 3, 5, 6, generator=generator)


def test_the_mean_over_a_named_region(voxels) -> None:
    mask = torch.zeros(5, 6, dtype=torch.bool)
    mask[1:3, 2:5] = True
    bound = bind(RegionScore("mass", "lesion"), voxels, regions={"lesion": mask})
    assert bound.name == "mass in lesion"
    assert torch.allclose(bound(voxels), voxels[:, 2, 1:3, 2:5].mean((1, 2)))
    many = torch.cat([voxels, voxels * 3])
    assert torch.allclose(bound(many), many[:, 2, 1:3, 2:5].mean((1, 2)))


def test_the_mean_where_predicted_is_each_items_own(voxels) -> None:
    bound = bind(RegionScore("nodule"), voxels)
    mask = voxels.argmax(1) == 1
    expected = torch.stack([v[1][m].mean() for v, m in zip(voxels, mask, strict=True)])
    assert bound.name == "nodule where predicted"
    assert torch.allclose(bound(voxels), expected)
    shifted = torch.cat([voxels, voxels.flip(1) * 2])
    later = torch.stack([v[1][m].mean() for v, m in zip(shifted, mask.repeat(2, 1, 1), strict=True)])
    assert torch.allclose(bound(shifted), later, atol=1e-6)


def test_volumes_have_regions_too() -> None:
    output = torch.randn(1, 2, 3, 4, 5, generator=torch.Generator().manual_seed(1))
    assert torch.allclose(bind(RegionScore(1), output)(output), output[0, 1][output[0, 1] > output[0, 0]].mean())


@pytest.mark.parametrize(("unit", "even"), [("logit", 0.0), ("probability", 0.5)])
def test_one_channel_predicts_from_the_even_point_of_its_unit(unit, even) -> None:
    output = torch.tensor([[[[0.9, 0.4], [0.6, -0.2]]]])
    bound = bind(RegionScore("vessel"), output, ("vessel",), unit=unit)
    assert float(bound(output)) == pytest.approx(float(output[output > even].mean()))
    assert bound.name == "vessel where predicted"


def test_one_channel_with_two_labels_is_the_second() -> None:
    output = torch.tensor([[[[2.0, -1.0], [1.0, -3.0]]]])
    labels = ("background", "vessel")
    assert float(bind(RegionScore("vessel"), output, labels)(output)) == 1.5
    with pytest.raises(UnknownLabel, match="'vessel'"):
        bind(RegionScore("background"), output, labels)
    with pytest.raises(UnknownLabel, match="labels: 0 background, 1 vessel"):
        bind(RegionScore("optic disc"), output, labels)


def test_regions_that_do_not_fit_are_named(voxels) -> None:
    mask = torch.ones(5, 6, dtype=torch.bool)
    with pytest.raises(UnknownName, match=r"no region 'liver'\. regions: lesion"):
        bind(RegionScore(1, "liver"), voxels, regions={"lesion": mask})
    with pytest.raises(UnknownName, match="regions: none"):
        bind(RegionScore(1, "liver"), voxels)
    with pytest.raises(BadRegion, match=r"grid \(5, 6\), got \(6, 5\)"):
        bind(RegionScore(1, "lesion"), voxels, regions={"lesion": mask.T})
    with pytest.raises(BadRegion, match=r"predicts no voxel of 'mass'.*--region"):
        bind(RegionScore("mass"), torch.zeros(1, 3, 4, 4))


@pytest.mark.parametrize("shape", [(2,), (2, 3, 4), (2, 3, 4, 4)])
def test_a_class_score_needs_a_classifier(shape) -> None:
    with pytest.raises(ShapeMismatch, match=r"\(batch, class\)"):
        bind(ClassScore(0), torch.zeros(shape))


@pytest.mark.parametrize("shape", [(2, 3), (2, 3, 4)])
def test_a_region_score_needs_a_segmentation(shape) -> None:
    with pytest.raises(ShapeMismatch, match=r"ClassScore for a classifier"):
        bind(RegionScore(0), torch.zeros(shape))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("side", [17, 300])
def test_half_precision_is_summed_in_float32(dtype, side) -> None:
    """289 is no bfloat16 and 90,000 no float16."""
    output = torch.linspace(0, 2, side * side).view(1, 1, side, side).repeat(1, 2, 1, 1).to(dtype)
    mask = torch.ones(side, side, dtype=torch.bool)
    score = bind(RegionScore(1, "all"), output, regions={"all": mask})(output)
    assert score.dtype is torch.float32
    assert float(score) == pytest.approx(float(output[0, 1].double().mean()), rel=1e-5)


def test_double_precision_is_kept() -> None:
    output = torch.tensor([[1 / 3, 0.0]], dtype=torch.float64)
    assert float(bind(ClassScore(0), output, ())(output)) == 1 / 3


def test_scores_are_linear_in_the_output(voxels) -> None:
    mask = torch.ones(5, 6, dtype=torch.bool)
    for target, output in (
        (ClassScore(1), OUTPUT), (ClassScore(), OUTPUT), (Margin(0, 2), OUTPUT),
        (RegionScore(1), voxels), (RegionScore(1, "all"), voxels),
    ):  # fmt: skip
        bound = bind(target, output, regions={"all": mask})
        other = output.flip(0) + 1
        assert torch.allclose(bound(2 * output - 3 * other), 2 * bound(output) - 3 * bound(other), atol=1e-5)


# parts of a region


def segmented(rows):
    """A two-class output that predicts class 1 where a drawing has a mark, with different logits at each voxel."""
    mask = torch.tensor([[c != "." for c in row] for row in rows])
    ramp = torch.arange(mask.numel(), dtype=torch.float32).view(mask.shape) + 1
    return torch.stack([torch.zeros(mask.shape), torch.where(mask, ramp, -ramp)])[None]


TWO = segmented(["##....", "##...#", "#...#.", "......"])  # five voxels, and two that touch at a corner


def test_the_largest_component_and_the_second() -> None:
    ramp = torch.arange(24.0).view(4, 6) + 1
    large = (ramp[0, 0] + ramp[0, 1] + ramp[1, 0] + ramp[1, 1] + ramp[2, 0]) / 5
    small = (ramp[1, 5] + ramp[2, 4]) / 2
    first, second = (
        bind(RegionScore(1, part="component"), TWO),
        bind(RegionScore(1, part="component", component=2), TWO),
    )
    assert (float(first(TWO)), float(second(TWO))) == (pytest.approx(float(large)), pytest.approx(float(small)))
    assert (first.name, second.name) == ("nodule component 1 where predicted", "nodule component 2 where predicted")
    with pytest.raises(BadRegion, match=r"no component 3: the region has 2"):
        bind(RegionScore(1, part="component", component=3), TWO)
    with pytest.raises(BadOption, match="counted from 1"):
        RegionScore(1, part="component", component=0)


def test_the_components_of_each_item_are_its_own() -> None:
    both = torch.cat([TWO, TWO.flip(3)])
    score = bind(RegionScore(1, part="component"), both)(both)
    assert torch.allclose(
        score, torch.stack([bind(RegionScore(1, part="component"), b[None])(b[None])[0] for b in both])
    )


def test_the_border_is_the_outermost_layer_and_the_images_edge_is_none() -> None:
    output = segmented(["####..", "####..", "####..", "......"])
    mask = torch.zeros(4, 6, dtype=torch.bool)
    mask[0:3, 3] = mask[2, 0:4] = True
    assert float(bind(RegionScore(1, part="border"), output)(output)) == pytest.approx(float(output[0, 1][mask].mean()))
    whole = segmented(["###"] * 3)
    with pytest.raises(BadRegion, match="no border in the image"):
        bind(RegionScore(1, part="border"), whole)


def test_what_the_model_missed_of_a_region() -> None:
    lesion = torch.zeros(4, 6, dtype=torch.bool)
    lesion[0, 0:4] = True
    bound = bind(RegionScore(1, "lesion", "missed"), TWO, regions={"lesion": lesion})
    assert float(bound(TWO)) == pytest.approx((-3 - 4) / 2)  # the two voxels it gave no mark
    assert bound.name == "nodule missed of lesion"
    later = TWO.flip(1)
    assert float(bound(later)) == 0  # the voxels stay, whatever is predicted later
    with pytest.raises(BadRegion, match="missed no voxel of 'lesion'"):
        bind(
            RegionScore(1, "lesion", "missed"),
            TWO.abs() * torch.tensor([0.0, 1]).view(1, 2, 1, 1),
            regions={"lesion": lesion},
        )
    with pytest.raises(BadOption, match="LABEL@REGION/missed"):
        RegionScore(1, part="missed")


def test_volumes_have_parts_too() -> None:
    mask = torch.zeros(5, 6, 7, dtype=torch.bool)
    mask[1:4, 1:4, 1:4] = mask[4, 5, 6] = True
    output = torch.stack([torch.zeros(5, 6, 7), torch.where(mask, torch.rand(5, 6, 7) + 1, -torch.ones(5, 6, 7))])[None]
    inner, far = output[0, 1, 2, 2, 2], output[0, 1, 4, 5, 6]
    cube = output[0, 1, 1:4, 1:4, 1:4].sum()
    border = bind(RegionScore(1, part="border"), output)(output)
    assert float(border) == pytest.approx(float((cube - inner + far) / 27), rel=1e-5)
    assert float(bind(RegionScore(1, part="component"), output)(output)) == pytest.approx(float(cube / 27), rel=1e-5)


def test_channels_of_a_sigmoid_may_overlap() -> None:
    output = torch.tensor([[[[2.0, -1.0]], [[3.0, 1.0]]]])  # BraTS style: both structures in the first voxel
    first = bind(RegionScore(0), output, ("core", "whole"), activation="sigmoid")
    assert (first.name, float(first(output))) == ("core where predicted", 2.0)
    assert float(bind(RegionScore(1), output, ("core", "whole"), activation="sigmoid")(output)) == 2.0
    assert float(bind(RegionScore(1), output, ("core", "whole"))(output)) == 2.0
    with pytest.raises(BadRegion, match="predicts no voxel of 'core'"):
        bind(RegionScore(0), output, ("core", "whole"))  # one class a voxel: the first is nowhere the largest


# model scores


@pytest.mark.parametrize(("activation", "expected"), [("softmax", OUTPUT.softmax(1)), ("sigmoid", OUTPUT.sigmoid())])
def test_a_class_on_the_scale_of_model_scores(activation, expected) -> None:
    bound = bind(ClassScore("mass", scale="score"), activation=activation)
    assert torch.allclose(bound(OUTPUT), expected[:, 2])
    assert (bound.name, bound.unit, bound.label) == ("mass", "model score", 2)
    assert torch.equal(bound.head(OUTPUT), OUTPUT[:, 2])
    predicted = bind(ClassScore(scale="score"), activation=activation)
    assert torch.allclose(predicted(OUTPUT), torch.stack([expected[0, 1], expected[1, 0]]))


@pytest.mark.parametrize(("label", "sign"), [("sick", 1), ("well", -1), (None, 1)])
def test_the_model_score_of_one_logit(label, sign) -> None:
    z = torch.tensor([[0.7], [-2.0]])
    bound = bind(ClassScore(label, scale="score"), z, ("well", "sick"), activation="sigmoid")
    assert torch.allclose(bound(z), (sign * z[:, 0]).sigmoid())
    assert torch.allclose(bound.head(z), sign * z[:, 0])
    assert torch.allclose(bind(ClassScore(scale="score"), z, (), activation="sigmoid")(z), z[:, 0].sigmoid())


@pytest.mark.parametrize("channels", [1, 3])
def test_the_mean_model_score_over_a_region(channels) -> None:
    output = torch.randn(2, channels, 5, 5, generator=torch.Generator().manual_seed(2))
    mask = torch.eye(5) > 0
    labels = ("background", "nodule") if channels == 1 else LABELS
    bound = bind(RegionScore("nodule", "line", scale="score"), output, labels, {"line": mask})
    scores = output.sigmoid()[:, 0] if channels == 1 else output.softmax(1)[:, 1]
    assert torch.allclose(bound(output), scores[:, mask].mean(1))
    assert torch.allclose(bound.head(output), output[:, 0 if channels == 1 else 1][:, mask].mean(1))
