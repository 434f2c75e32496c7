"""Calculation checks: they find what is computed wrongly, pass what is right, and are counted apart."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from pellucid.core.case import Case
from pellucid.core.grid import Grid
from pellucid.core.image import Image
from pellucid.core.model import Model
from pellucid.core.prepare import InputSpec
from pellucid.core.target import ClassScore
from pellucid.explain.cam import GradCAM
from pellucid.explain.gradient import Saliency
from pellucid.explain.path import IntegratedGradients
from pellucid.workbench.checking import calculation_checks
from pellucid.workbench.explaining import Manner, explain_case
from pellucid.workbench.opening import open_case

BOTH = (Saliency(), GradCAM("second"))


class Net(nn.Module):
    """A small classifier; ``how`` says what is wrong with its gradient."""

    def __init__(self, how="right"):
        super().__init__()
        self.first, self.second, self.head = nn.Conv2d(1, 4, 3), nn.Conv2d(4, 6, 3), nn.Linear(6, 2)
        self.how = how

    def forward(self, x):
        if self.how == "half cut":
            x = torch.cat([x[..., :8], x[..., 8:].detach()], -1)
        a = F.relu(self.first(x))
        if self.how == "straight through":
            a = a + (a.round() - a).detach()
        b = F.relu(self.second(a))
        if self.how == "layer cut":
            b = b + b.pow(2).detach()
        return self.head(b.mean((2, 3)) * (0 if self.how == "dead" else 1))


@pytest.fixture
def checked():
    def run(how="right", explainers=BOTH, precision="float32"):
        torch.manual_seed(1)
        net = Net(how)
        image = Image(torch.rand(1, 16, 16, generator=torch.Generator().manual_seed(2)), Grid.regular((16, 16)))
        opened = open_case(Case("case", {"image": image}), Model(net, (InputSpec(),)))
        panel = explain_case(opened, [ClassScore(1)], list(explainers), Manner(precision))
        before = panel.probes[0].spent.own
        checks = {c.name: c for c in calculation_checks(panel)}
        assert panel.probes[0].spent.own == before
        return checks, panel.probes[0].spent.checks

    return run


def test_a_right_gradient_passes_and_its_check_is_counted_apart(checked) -> None:
    checks, spent = checked()
    assert [c.state for c in checks.values()] == ["pass"] * 3
    assert checks["gradient to input image, for class 1"].value < 0.05
    assert checks["gradient to layer second, for class 1"].value < 0.01
    assert spent.forwards == 8 + (1 + 8)  # two directions, two lengths, both ways; and the layer's recording


@pytest.mark.parametrize("how", ["half cut", "straight through"])
def test_a_gradient_that_is_not_the_functions_fails(checked, how) -> None:
    checks, _ = checked(how, [Saliency()])
    found = checks["gradient to input image, for class 1"]
    assert (found.state, found.value > 0.05) == ("fail", True)
    assert "cut or replace part of its graph" in found.words


def test_a_layers_gradient_is_checked_too(checked) -> None:
    checks, _ = checked("layer cut", [GradCAM("second")])
    assert checks["gradient to layer second, for class 1"].state == "fail"
    assert not [name for name in checks if "input" in name]  # no method asked for it


def test_a_score_that_does_not_react_is_said(checked) -> None:
    checks, _ = checked("dead")
    assert "does not react" in checks["gradient to input image, for class 1"].words
    assert checks["maps that show something"].state == "fail"
    assert checks["maps that show something"].words == "blank: Saliency, GradCAM"


def test_few_digits_are_not_measured(checked) -> None:
    checks, spent = checked(precision="bfloat16")
    assert checks["gradient to input image, for class 1"].state == "not measured"
    assert spent.forwards <= 1


def test_a_promised_sum_is_checked(checked) -> None:
    checks, _ = checked(explainers=[IntegratedGradients(steps=64)])
    assert checks["completeness of IntegratedGradients"].state == "pass"
    coarse, _ = checked("straight through", [IntegratedGradients(steps=1)])
    assert coarse["completeness of IntegratedGradients"].value > checks["completeness of IntegratedGradients"].value


def test_the_sampling_error_falls_with_the_samples(checked) -> None:
    from pellucid.explain.noise import SmoothGrad

    few, _ = checked(explainers=[SmoothGrad(samples=2)])
    many, _ = checked(explainers=[SmoothGrad(samples=50)])
    name = "sampling error of SmoothGrad"
    assert many[name].value < few[name].value
    assert many[name].state == ("pass" if many[name].value <= 0.25 else "fail")
