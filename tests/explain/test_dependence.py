"""Partial dependence: lines of a linear score, a known square, the second implementation, and what is told of it."""

import pytest
import torch
from torch import nn

from pellucid.core.cohort import Cohort, blocks_of
from pellucid.core.errors import BadOption, UnknownName
from pellucid.core.model import Model, OutputSpec
from pellucid.core.prepare import InputSpec
from pellucid.core.target import ClassScore
from pellucid.explain.dependence import PartialDependence


def posed(net, cases=14):
    images = torch.rand(cases, 1, 6, 6, generator=torch.Generator().manual_seed(0))
    output = OutputSpec(labels=("a", "b"))
    return Model(net, (InputSpec(rank=2, channels=1),), output), Cohort(
        {"image": images}, ClassScore("b"), blocks_of((6, 6), 2)
    )


class Square(nn.Module):
    """The square of the mean of the upper left quarter."""

    def forward(self, image):
        mean = image[:, 0, :3, :3].mean((1, 2))
        return torch.stack([0 * mean, mean**2], 1)


def rows(answer):
    return {row.name: row for row in answer.rows}


def test_a_linear_score_rises_by_its_weights_in_every_case_alike():
    torch.manual_seed(1)
    net = nn.Sequential(nn.Flatten(), nn.Linear(36, 2))
    answer = PartialDependence(points=3)(*posed(net))
    weight = net[1].weight[1].detach().view(6, 6)
    for name, where in (("1-1", (slice(0, 3), slice(0, 3))), ("2-2", (slice(3, 6), slice(3, 6)))):
        curve = answer.tables[f"curve of mean of block {name}"]
        slope = float(weight[where].sum())
        width = curve["value"][-1] - curve["value"][0]
        row = rows(answer)[f"mean of block {name}"]
        assert row.more["share of cases that go the other way"] == 0
        assert curve["mean"][-1] - curve["mean"][0] == pytest.approx(row.estimate, abs=1e-9)
        # setting a mean puts every case at the same value, from where it was
        assert row.estimate == pytest.approx(slope * width, abs=1e-5)


def test_a_square_is_followed_and_what_is_not_used_stays_flat():
    answer = PartialDependence(points=5)(*posed(Square()))
    curve = answer.tables["curve of mean of block 1-1"]
    assert curve["mean"] == pytest.approx([v**2 for v in curve["value"]], abs=1e-6)
    assert curve["low"] == pytest.approx(curve["high"], abs=1e-6)
    flat = rows(answer)["mean of block 2-2"]
    assert (flat.estimate, flat.low, flat.high) == (0, 0, 0)
    assert answer.rows[0].name == "mean of block 1-1"


def test_equals_the_second_implementation(reference):
    torch.manual_seed(2)
    net = nn.Sequential(nn.Conv2d(1, 3, 3), nn.Tanh(), nn.Flatten(), nn.Linear(48, 2))
    model, cohort = posed(net)
    answer = PartialDependence(of="mean of block 2-1", points=4)(model, cohort)
    assert len(answer.rows) == 1
    curve = answer.tables["curve of mean of block 2-1"]
    second, part = reference("partial_dependence"), cohort.parts.inside(2)[0]
    with torch.no_grad():
        curves = second.single_curves(lambda x: net(x)[0, 1], cohort.inputs["image"], part, curve["value"])
    assert curve["mean"] == pytest.approx(list(second.partial_dependence(curves)), abs=1e-5)
    assert curve["case 3"] == pytest.approx(list(curves[:, 3]), abs=1e-5)
    assert all(low <= mean <= high for low, mean, high in zip(curve["low"], curve["mean"], curve["high"], strict=True))


def test_a_value_of_a_vector_input_is_set():
    class Facts(nn.Module):
        def forward(self, image, facts):
            return facts[:, :1] * 2 - facts[:, 1:] * image.mean((1, 2, 3))[:, None] * 0

    specs = (InputSpec(rank=2, channels=1), InputSpec(name="facts", rank=0, channels=2))
    inputs = {"image": torch.rand(9, 1, 4, 4), "facts": torch.arange(18.0).view(9, 2)}
    cohort = Cohort(inputs, ClassScore(0), blocks_of((4, 4), 2), columns={"facts": ("age", "dose")})
    model = Model(Facts(), specs, OutputSpec("regression", unit="mm"))
    answer = PartialDependence(of="age; dose", points=2)(model, cohort)
    ages = answer.tables["curve of age"]
    assert ages["mean"] == pytest.approx([2 * v for v in ages["value"]])
    assert ages["value"] == pytest.approx([0.8, 15.2])
    assert rows(answer)["dose"].estimate == 0
    assert not any("step appears" in words for words in answer.warnings)


def test_the_reader_is_told_of_extrapolation():
    answer = PartialDependence(points=2)(*posed(Square()))
    assert any("extrapolation" in words for words in answer.warnings)
    assert any("step appears" in words for words in answer.warnings)


def test_what_cannot_be_is_refused():
    model, cohort = posed(Square())
    with pytest.raises(BadOption, match="at least 2 points"):
        PartialDependence(points=1)
    with pytest.raises(UnknownName, match="no measurement named 'heart'"):
        PartialDependence(of="heart")(model, cohort)
