"""What every method and metric owes its card: a new one is tested by being declared."""

from typing import ClassVar

import pytest

from pellucid.core.card import Card
from pellucid.core.errors import DeclarationError
from pellucid.core.explainer import CohortExplainer, Explainer
from pellucid.core.metric import Metric
from pellucid.testing import check_cohort_explainer, check_explainer, check_metric
from pellucid.workbench.registry import cohort_methods, explainers, metrics

METHODS = [
    pytest.param(cls, rank, task, id=f"{name}-{rank}d-{task}")
    for name, cls in explainers().items()
    for rank in sorted(cls.card.space)
    for task in sorted(cls.card.tasks)
]
METRICS = [
    pytest.param(cls, rank, task, id=f"{name}-{rank}d-{task}")
    for name, cls in metrics().items()
    if issubclass(cls, Metric)
    for rank in sorted(cls.card.space)
    for task in sorted(cls.card.tasks)
]


COHORT = [
    pytest.param(cls, rank, task, id=f"{name}-{rank}d-{task}")
    for name, cls in cohort_methods().items()
    for rank in sorted(cls.card.space)
    for task in sorted(cls.card.tasks)
]


@pytest.mark.parametrize(("cls", "rank", "task"), COHORT)
def test_method_for_cohorts_keeps_its_card(cls: type[CohortExplainer], rank: int, task: str) -> None:
    check_cohort_explainer(cls(), rank, task)


@pytest.mark.parametrize(("cls", "rank", "task"), METHODS)
def test_method_keeps_its_card(cls: type[Explainer], rank: int, task: str) -> None:
    check_explainer(cls(), rank, task)


@pytest.mark.parametrize(("cls", "rank", "task"), METRICS)
def test_metric_keeps_its_card(cls: type[Metric], rank: int, task: str) -> None:
    check_metric(cls(), explainers()["GradCAM"](), rank, task)


def test_class_without_card_is_refused() -> None:
    with pytest.raises(DeclarationError, match="has no card"):

        class Nameless(Explainer):
            pass


def test_second_method_of_a_name_is_refused() -> None:
    with pytest.raises(DeclarationError, match="second method named GradCAM"):

        class GradCAM(Explainer):
            card: ClassVar[Card] = explainers()["Saliency"].card


def test_contract_fails_for_a_method_that_lies_about_its_cost() -> None:
    from pellucid.core.card import Cost
    from pellucid.explain.occlusion import Occlusion

    honest = Occlusion.cost
    try:
        Occlusion.cost = lambda self, probe: honest(self, probe) + Cost(1)
        with pytest.raises(DeclarationError, match="cost declared"):
            check_explainer(Occlusion(), 2, "classification")
    finally:
        Occlusion.cost = honest
