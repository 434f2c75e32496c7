"""Global surrogates: a tree is found again, an affine score gives its coefficients, a useless one says so."""

import numpy as np
import pytest
import torch
from sklearn.model_selection import KFold
from torch import nn

from pellucid.core.cohort import Cohort, Parts, blocks_of
from pellucid.core.errors import BadOption, BadRegion
from pellucid.core.model import Model, OutputSpec
from pellucid.core.prepare import InputSpec
from pellucid.core.target import ClassScore
from pellucid.explain.measurement import measure
from pellucid.explain.surrogate import GlobalSurrogate

CASES = 60


class Means(nn.Module):
    """A function of the means of the four quarters of an image."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, image):
        means = torch.stack([image[:, 0, r : r + 2, c : c + 2].mean((1, 2)) for r in (0, 2) for c in (0, 2)], 1)
        return self.function(means)[:, None]


def posed(function, levels=None):
    """A model of quarter means, and a cohort."""
    draw = torch.Generator().manual_seed(0)
    means = torch.rand(CASES, 4, generator=draw) if levels is None else levels
    images = means.view(CASES, 1, 2, 2).repeat_interleave(2, 2).repeat_interleave(2, 3)
    model = Model(Means(function), (InputSpec(rank=2, channels=1),), OutputSpec("regression", unit="mm"))
    return model, Cohort({"image": images}, ClassScore(0), blocks_of((4, 4), 2))


def rows(answer):
    return {row.name: row for row in answer.rows}


def fidelity(answer):
    table = answer.tables["fidelity"]
    return dict(zip(table["surrogate"], zip(table["R2"], table["low"], table["high"], strict=True), strict=True))


def test_a_tree_is_found_again_with_fidelity_one():
    levels = torch.randint(0, 2, (CASES, 4), generator=torch.Generator().manual_seed(1)).float()

    def branches(m):
        return torch.where(m[:, 0] > 0.5, torch.where(m[:, 3] > 0.5, 3.0, 1.0), -2.0)

    answer = GlobalSurrogate(form="tree", depth=2)(*posed(branches, levels))
    assert fidelity(answer)["tree"] == pytest.approx((1, 1, 1), abs=1e-9)
    assert fidelity(answer)["constant"][0] < 0.05
    moved = {name for name, row in rows(answer).items() if row.estimate > 1e-9}
    assert moved == {"mean of block 1-1", "mean of block 2-2"}
    assert "mean of block 1-1 <= 0.50" in "\n".join(answer.tables["rules"]["rule"])
    assert "R² 1.000" in answer.said[0]
    assert not answer.warnings


def test_an_affine_score_gives_its_coefficients(reference):
    model, cohort = posed(lambda m: 2 * m[:, 0] - 3 * m[:, 1] + 0.5)
    answer = GlobalSurrogate(form="linear", penalty=0.0)(model, cohort)
    found = {name: row.more["slope per unit"] for name, row in rows(answer).items() if name.startswith("mean")}
    assert [found[f"mean of block {p}"] for p in ("1-1", "1-2", "2-1", "2-2")] == pytest.approx([2, -3, 0, 0], abs=1e-5)
    assert fidelity(answer)["linear"] == pytest.approx((1, 1, 1), abs=1e-9)
    table = measure(model, cohort).values.numpy()[:, ::2]
    assert reference("global_surrogate").least_squares(table, cohort_scores(model, cohort))[0] == pytest.approx(
        [2, -3, 0, 0], abs=1e-5
    )


def cohort_scores(model, cohort):
    with torch.no_grad():
        return model.module(cohort.inputs["image"])[:, 0].double().numpy()


def test_a_sparse_model_drops_what_is_not_used():
    answer = GlobalSurrogate(form="linear", penalty=0.1)(*posed(lambda m: 2 * m[:, 0] - 3 * m[:, 1]))
    assert rows(answer)["mean of block 2-2"].estimate == 0
    assert rows(answer)["mean of block 1-1"].estimate > 0


def test_held_out_fidelity_equals_the_second_implementation(reference):
    model, cohort = posed(lambda m: torch.sin(4 * m[:, 0]) + m[:, 1] * m[:, 2])
    second, score = reference("global_surrogate"), cohort_scores(model, cohort)
    table = measure(model, cohort).values.numpy()
    folds = [held for _, held in KFold(5, shuffle=True, random_state=0).split(table)]
    tree = fidelity(GlobalSurrogate(form="tree", depth=2)(model, cohort))["tree"]
    assert tree[0] == pytest.approx(second.held_out(lambda x, y: second.tree(x, y, 2), table, score, folds), abs=1e-6)
    assert tree[1] < tree[0] < tree[2]
    linear = fidelity(GlobalSurrogate(form="linear", penalty=0.0)(model, cohort))["linear"]
    means = table[:, ::2]  # the spreads are zero up to rounding
    assert linear[0] == pytest.approx(
        second.held_out(lambda x, y: second.least_squares(x, y)[1], means, score, folds), abs=1e-3
    )


def test_the_additive_model_bends_and_has_no_interactions():
    answer = GlobalSurrogate(form="additive")(*posed(lambda m: (6 * m[:, 0] - 3) ** 2))
    assert fidelity(answer)["additive"][0] > 0.8
    assert fidelity(answer)["linear"][0] < 0.3
    x = np.random.default_rng(0).random((80, 2))
    fitted = GlobalSurrogate(form="additive")._maker(0)().fit(x, x[:, 0] * x[:, 1])
    corners = fitted.predict(np.array([[0.2, 0.2], [0.8, 0.2], [0.2, 0.8], [0.8, 0.8]]))
    assert corners[0] - corners[1] - corners[2] + corners[3] == pytest.approx(0, abs=1e-12)


def test_a_surrogate_that_reproduces_nothing_says_so():
    answer = GlobalSurrogate()(*posed(lambda m: torch.frac(m.sum(1) * 12345.678)))
    assert fidelity(answer)["tree"][0] < 0.5
    assert any("low fidelity" in words for words in answer.warnings)


def test_what_cannot_be_is_refused():
    model, cohort = posed(lambda m: m[:, 0])
    with pytest.raises(BadOption, match="from 1 to 4"):
        GlobalSurrogate(depth=9)
    with pytest.raises(BadOption, match="the same for every case"):
        GlobalSurrogate()(posed(lambda m: m[:, 0] * 0)[0], cohort)
    few = Cohort({"image": cohort.inputs["image"][:4]}, cohort.target, cohort.parts)
    with pytest.raises(BadOption, match="at least 10"):
        GlobalSurrogate()(model, few)
    gone = Parts(torch.ones(1, 4, 4, dtype=torch.long), ("lung", "heart"))
    with pytest.raises(BadRegion, match="no voxel of the region 'heart'"):
        GlobalSurrogate()(model, Cohort(cohort.inputs, cohort.target, gone))
    unknown = {"age": torch.full((CASES,), float("nan"))}
    with pytest.raises(BadRegion, match="'age' is not known"):
        GlobalSurrogate()(model, Cohort(cohort.inputs, cohort.target, cohort.parts, covariates=unknown))


def test_measurements_are_means_and_spreads_with_the_covariates():
    model, cohort = posed(lambda m: m[:, 0])
    age = torch.arange(float(CASES))
    found = measure(model, Cohort(cohort.inputs, cohort.target, cohort.parts, covariates={"age": age}))
    assert found.names[:2] == ("mean of block 1-1", "sd of block 1-1")
    assert found.names[-1] == "age"
    assert np.allclose(found.values[:, 0], cohort.inputs["image"][:, 0, 0, 0].double())
    assert np.allclose(found.values[:, 1], 0)
    assert np.array_equal(found.values[:, -1].numpy(), age.numpy())
