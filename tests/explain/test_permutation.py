"""Permutation importance: closed forms, scikit-learn's with the same permutations, groups, and what is refused."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.base import BaseEstimator
from sklearn.inspection import permutation_importance as sklearn_importance
from torch import nn

from pellucid.core.cohort import Cohort, blocks_of
from pellucid.core.errors import BadOption, UnknownName
from pellucid.core.model import Model, OutputSpec
from pellucid.core.prepare import InputSpec
from pellucid.core.target import ClassScore
from pellucid.explain import permutation
from pellucid.explain.permutation import PermutationImportance


class Columns(nn.Module):
    """A linear function of a vector input beside an image that is not looked at."""

    def __init__(self, weight):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(weight))

    def forward(self, image, facts):
        return (facts @ self.weight)[:, None] + 0 * image.flatten(1).sum(1, keepdim=True)


def measured(weight, facts, labels=()):
    """A regression on facts, and the cohort of them."""
    specs = (InputSpec(rank=2, channels=1), InputSpec(name="facts", rank=0, channels=facts.shape[1]))
    model = Model(Columns(weight), specs, OutputSpec("regression", unit="mm"))
    inputs = {"image": torch.zeros(len(facts), 1, 4, 4), "facts": facts}
    titles = tuple(f"f{k}" for k in range(facts.shape[1]))
    return model, Cohort(inputs, ClassScore(0), blocks_of((4, 4), 2), labels, columns={"facts": titles})


def rows(answer):
    return {row.name: row for row in answer.rows}


def test_linear_model_and_squared_error_give_twice_the_variance():
    facts = torch.randn(1500, 3, generator=torch.Generator().manual_seed(1)) * torch.tensor([1.0, 2.0, 1.0])
    weight = [1.5, -0.5, 0.0]
    truth = facts @ torch.tensor(weight)
    model, cohort = measured(weight, facts, tuple(str(float(v)) for v in truth))
    found = rows(PermutationImportance(over="covariates", repeats=5)(model, cohort))
    variance = facts.double().var(0, correction=0)
    for k, w in enumerate(weight[:2]):
        assert found[f"f{k}"].estimate == pytest.approx(2 * w**2 * float(variance[k]), rel=0.1)
        assert found[f"f{k}"].low < 2 * w**2 * float(variance[k]) < found[f"f{k}"].high
    assert (found["f2"].estimate, found["f2"].low, found["f2"].high) == (0.0, 0.0, 0.0)


def test_equals_scikit_learn_with_the_same_permutations(monkeypatch):
    facts = torch.randn(60, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    truth = facts[:, 0] ** 2 + facts[:, 1]
    model, cohort = measured([0.3, 1.2, -0.7], facts.float(), tuple(str(float(v)) for v in truth))

    def theirs(cohort, repeats, within):
        state = np.random.RandomState(np.random.RandomState(4).randint(2**31))
        index, order, drawn = np.arange(60), np.arange(60), []
        for _ in range(repeats):
            state.shuffle(index)
            order = order[index]  # it shuffles a column that it has shuffled before
            drawn.append(order)
        return drawn

    class Net(BaseEstimator):
        def fit(self, *_):
            return self

        def predict(self, values):
            with torch.no_grad():
                return model.module(torch.zeros(len(values), 1), torch.from_numpy(values).float())[:, 0].numpy()

    monkeypatch.setattr(permutation, "permutations", theirs)
    ours = rows(PermutationImportance(over="covariates", repeats=6)(model, cohort))
    expected = sklearn_importance(
        Net(), facts.numpy(), truth.numpy(), scoring="neg_mean_squared_error", n_repeats=6,
        random_state=np.random.RandomState(4),
    )  # fmt: skip
    assert [ours[f"f{k}"].estimate for k in range(3)] == pytest.approx(list(expected.importances_mean), rel=1e-5)


@pytest.fixture
def films():
    """A small convolutional classifier and films of which it looks at the left half only."""
    torch.manual_seed(3)
    body = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.Tanh(), nn.Flatten(), nn.Linear(4 * 64, 3))
    mask = torch.zeros(4, 8, 8)
    mask[:, :, :3] = 1
    with torch.no_grad():
        body[3].weight.mul_(mask.flatten())
    model = Model(body, (InputSpec(rank=2, channels=1),), OutputSpec(labels=("a", "b", "c")))
    labels = tuple("abc"[n % 3] for n in range(18))
    groups = tuple(("north", "south")[n % 2] for n in range(18))
    images = torch.randn(18, 1, 8, 8, generator=torch.Generator().manual_seed(4))
    return model, Cohort({"image": images}, ClassScore("b"), blocks_of((8, 8), 2), labels, groups)


def test_equals_the_second_implementation(films, reference):
    model, cohort = films
    second = reference("permutation_importance")
    orders = permutation.permutations(cohort, 3, False)
    images = cohort.inputs["image"]

    def losses(x):
        with torch.no_grad():
            score = model.module(x).softmax(1)[:, 1].double().numpy()
        return second.log_losses(score, [v == "b" for v in cohort.labels])

    found = PermutationImportance(repeats=3)(model, cohort)
    assert found.measure == "increase of the log loss"
    for index, name in enumerate(cohort.parts.names):
        part = cohort.parts.inside(index)[0]
        expected = second.permutation_importance(losses, images, part, orders)
        assert found.tables["by case"][name] == pytest.approx(list(expected), rel=1e-4, abs=1e-6)
    assert rows(found)["block 1-1"].estimate != 0
    assert rows(found)["block 1-2"].estimate == 0.0  # the network does not look there


def test_parts_exchanged_together_and_within_groups(films):
    model, cohort = films
    method = PermutationImportance(groups="block 1-1+block 1-2+block 2-1;block 2-2", within_groups=True)
    answer = method(model, cohort)
    assert set(rows(answer)) == {"block 1-1 + block 1-2 + block 2-1", "block 2-2"}
    for order in permutation.permutations(cohort, 4, True):
        assert [cohort.groups[i] for i in order] == list(cohort.groups)
    whole = PermutationImportance(over="inputs", repeats=4)(model, cohort)
    together = "+".join(cohort.parts.names)
    assert rows(PermutationImportance(groups=together, repeats=4)(model, cohort))[
        " + ".join(cohort.parts.names)
    ].estimate == pytest.approx(rows(whole)["image"].estimate, rel=1e-6)


def test_without_labels_the_change_is_measured_and_said(films):
    model, cohort = films
    answer = PermutationImportance(repeats=2)(model, replace(cohort, labels=()))
    assert answer.measure == "squared change of the score"
    assert any("no loss was computed" in words for words in answer.warnings)
    assert all(row.estimate >= 0 for row in answer.rows)


def test_a_model_that_errs_more_than_a_guess_is_told(films):
    model, cohort = films
    with torch.no_grad():
        model.module[3].weight.mul_(50)  # sure of itself
        high = model.module(cohort.inputs["image"]).softmax(1)[:, 1] > 0.5
    for labels, told in ((high, False), (~high, True)):
        named = replace(cohort, labels=tuple("b" if one else "a" for one in labels))
        warnings = PermutationImportance(repeats=1)(model, named).warnings
        assert any("the model errs more" in words and "nat)" in words for words in warnings) == told


@pytest.mark.parametrize(
    ("change", "method", "words"),
    [
        ({"labels": ("b",) * 18}, PermutationImportance(), "with and without 'b'"),
        ({"labels": ()}, PermutationImportance(loss="log"), "needs the reference label"),
        ({"groups": ()}, PermutationImportance(within_groups=True), "the group"),
        ({}, PermutationImportance(over="covariates"), "nothing to exchange"),
        ({}, PermutationImportance(loss="squared"), "does not fit"),
        ({"target": ClassScore()}, PermutationImportance(), "predicted class of each case"),
    ],
)
def test_what_cannot_be_is_refused_with_the_mend(films, change, method, words):
    model, cohort = films
    with pytest.raises(BadOption, match=words) as caught:
        method(model, replace(cohort, **change))
    assert caught.value.mend


def test_a_group_of_a_part_that_is_not_there(films):
    with pytest.raises(UnknownName, match="no part named 'heart'"):
        PermutationImportance(groups="heart")(*films)


def test_no_repeat_is_refused():
    with pytest.raises(BadOption, match="at least one repeat"):
        PermutationImportance(repeats=0)


def test_what_goes_together_is_found_and_exchanged_together():
    draw = torch.Generator().manual_seed(5)
    a, c = torch.randn(2, 40, generator=draw, dtype=torch.float64)
    values = {"a": a, "turned": -(a**3), "c": c, "same": torch.ones(40, dtype=torch.float64)}
    groups, (words,) = permutation.clustered(values, 0.9)
    assert groups == "a+turned"
    assert "4 parts in 3 groups" in words
    assert permutation.clustered({"a": a, "c": c}, 0.9)[0] is None
    everything, _ = permutation.clustered({"a": a, "turned": -a, "c": a + 1}, 1.0)
    assert everything == "a+turned+c"


def test_a_cluster_is_the_group_of_its_parts(films):
    model, cohort = films
    images = cohort.inputs["image"].clone()
    images[:, :, 4:, :4] = images[:, :, :4, :4].flip(2)  # two quarters whose means agree
    cohort = replace(cohort, inputs={"image": images})
    found = PermutationImportance(repeats=2, cluster=0.95)(model, cohort)
    named = PermutationImportance(repeats=2, groups="block 1-1+block 2-1")(model, cohort)
    assert {row.name for row in found.rows} == {"block 1-1 + block 2-1", "block 1-2", "block 2-2"}
    assert found.rows == named.rows
    assert any("4 parts in 3 groups" in words for words in found.said)


@pytest.mark.parametrize(
    ("settings", "words"),
    [({"cluster": 0.0}, "above 0 and at most 1"), ({"cluster": 0.5, "groups": "a+b"}, "groups or cluster, got both")],
)
def test_a_cluster_that_cannot_be(settings, words):
    with pytest.raises(BadOption, match=words):
        PermutationImportance(**settings)
