"""What DeepLIFT and DeepSHAP are compared with: the formula with its defect and without, and judged sums."""

import pytest
import torch

from pellucid.verify.evidence import Evidence
from pellucid.verify.lifting import LIFT_FORMULAS, SHORTFALLS
from pellucid.verify.plan import FUNCTIONAL
from pellucid.verify.subjects import Prepared, prepare

FORMULA = LIFT_FORMULAS["captum DeepLift"]


@pytest.fixture(scope="module")
def prepared() -> Prepared:
    return prepare(FUNCTIONAL)


def test_the_rise_adds_up_and_the_defect_is_gradient_times_input(prepared: Prepared) -> None:
    evidence = Evidence(prepared, torch.zeros(0))
    with torch.no_grad():
        rise = evidence.scores(evidence.x) - evidence.scores(torch.zeros_like(evidence.x))
    assert torch.allclose(FORMULA.values(evidence, frozenset()).sum(), rise.sum())
    with_defect = FORMULA.values(evidence, FORMULA.defects)
    assert torch.allclose(with_defect, evidence.gradient() * evidence.x)
    assert not torch.allclose(with_defect.sum(), rise.sum(), rtol=0.01)


@pytest.mark.parametrize(("total", "has"), [(1.0, False), (1.2, True)])
def test_a_sum_that_is_met_is_no_defect(total: float, has: bool) -> None:
    captum = next(d for d in SHORTFALLS if d.peer == "captum")
    assert captum.theirs({"sum": torch.tensor([total]), "difference": torch.tensor([1.0])})[0] is has


def test_ours_is_judged_by_its_sum(prepared: Prepared) -> None:
    ours = next(d for d in SHORTFALLS if d.peer == "shap" and d.subject is FUNCTIONAL).ours
    right, words = ours(prepared)
    assert right
    assert words.startswith("DeepSHAP misses it by")
