"""Cases gathered for a cohort: sizes, vectors from covariates, a background, and what cannot be used."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from pellucid.core.case import Case
from pellucid.core.errors import BadOption, PellucidError
from pellucid.core.explainer import CohortExplainer
from pellucid.core.grid import Grid
from pellucid.core.image import Image
from pellucid.core.model import Model, OutputSpec
from pellucid.core.prepare import InputSpec
from pellucid.explain.ablation import AblationStudy
from pellucid.explain.acquisition import AcquisitionSensitivity
from pellucid.explain.dependence import PartialDependence
from pellucid.explain.permutation import PermutationImportance
from pellucid.explain.surrogate import GlobalSurrogate
from pellucid.io.models import LoadedModel
from pellucid.workbench.gathering import Gathered, Wish, gather
from pellucid.workbench.surveying import effects_of, explain_cohort

IMAGE = InputSpec(rank=2, channels=1)
FACTS = InputSpec(name="facts", rank=0, channels=2, columns=("age", "sex"), mean=(50.0, 0.0), std=(10.0, 1.0))
SIDES = ((12, 12), (9, 14), (16, 10))


class Plain(nn.Module):
    """A mean of a filtered picture, whatever its size; alone, or with a vector beside it."""

    def __init__(self) -> None:
        super().__init__()
        self.filter = nn.Conv2d(1, 4, 3, padding=1)

    def forward(self, image: Tensor, facts: Tensor | None = None) -> Tensor:
        """Two logits."""
        score = torch.tanh(self.filter(image)).mean((1, 2, 3))
        score = score if facts is None else score + 2 * facts[:, 0] - facts[:, 1]
        return torch.stack([0 * score, score], 1)


def loaded(folder: Path, *inputs: InputSpec) -> LoadedModel:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Model(Plain(), inputs, OutputSpec(labels=("a", "b")))
    return LoadedModel(model, None, {}, folder)


def cases(count: int, sides: tuple[tuple[int, int], ...] = SIDES[:1]) -> list[Case]:
    draw = torch.Generator().manual_seed(1)
    found = []
    for n in range(count):
        shape = sides[n % len(sides)]
        image = Image(torch.rand(1, *shape, generator=draw), Grid.regular(shape))
        facts = {"age": 40.0 + n, "sex": float(n % 2)}
        found.append(Case(f"case-{n}", {"image": image}, covariates=facts, label="ab"[n % 2], group=f"site {n % 2}"))
    return found


def rows(gathered: Gathered, model: LoadedModel, method: CohortExplainer) -> dict[str, float]:
    return {r.name: r.estimate for r in effects_of(explain_cohort(gathered, model, method)).rows}


METHODS: tuple[Callable[[], CohortExplainer], ...] = (
    lambda: AblationStudy(layer="filter"),
    lambda: AcquisitionSensitivity(trajectories=2),
    lambda: PartialDependence(points=3),
    lambda: GlobalSurrogate(form="linear"),
    lambda: PermutationImportance(repeats=2),
)


@pytest.mark.parametrize("method", METHODS)
def test_cases_of_several_sizes_are_taken_one_after_the_other(tmp_path: Path, method: object) -> None:
    model, explainer = loaded(tmp_path, IMAGE), METHODS[METHODS.index(method)]()
    mixed = gather(cases(12, SIDES), model, Wish("b", blocks=2), folder=tmp_path)
    assert any("3 sizes" in words for words in mixed.warnings)
    found = rows(mixed, model, explainer)
    assert found
    in_memory = gather(cases(12, SIDES), model, Wish("b", blocks=2))
    assert rows(in_memory, model, explainer) == pytest.approx(found, abs=1e-6)
    if isinstance(explainer, AblationStudy):
        apart = [
            gather([c for c in cases(12, SIDES) if c.images["image"].grid.shape == s], model, Wish("b", blocks=2))
            for s in SIDES
        ]
        means = [rows(one, model, explainer) for one in apart]
        assert {k: sum(m[k] for m in means) / 3 for k in found} == pytest.approx(found, abs=1e-5)


@pytest.mark.parametrize("how", ["mean", "resample"])
def test_a_size_that_no_other_case_has_is_refused_with_the_mend(tmp_path: Path, how: str) -> None:
    model = loaded(tmp_path, IMAGE)
    gathered = gather(cases(3, SIDES), model, Wish("b", blocks=2))
    with pytest.raises(BadOption, match="size") as caught:
        explain_cohort(gathered, model, AblationStudy(how=how, layer="filter"))
    assert "input size" in caught.value.mend
    with pytest.raises(BadOption, match="size that no other has"):
        explain_cohort(gathered, model, PermutationImportance())


def test_a_vector_input_is_filled_from_the_covariates(tmp_path: Path) -> None:
    model = loaded(tmp_path, IMAGE, FACTS)
    gathered = gather(cases(30), model, Wish("b", blocks=2))
    assert gathered.cohort.inputs["facts"][3].tolist() == pytest.approx([-0.7, 1.0])
    moved = rows(gathered, model, PermutationImportance(over="covariates", repeats=3))
    assert set(moved) == {"age", "sex"}
    curves = effects_of(explain_cohort(gathered, model, PartialDependence(of="age;sex", points=5)))
    assert curves.tables["curve of sex"]["value"] == (0.0, 1.0)
    slope = {r.name: r.estimate for r in curves.rows}
    assert slope["sex"] == pytest.approx(-1, abs=1e-5)
    ages = curves.tables["curve of age"]["value"]
    assert slope["age"] == pytest.approx(2 * (ages[-1] - ages[0]), abs=1e-4)
    surrogate = rows(gathered, model, GlobalSurrogate(form="linear"))
    assert {"age", "sex", "group site 1"} <= set(surrogate)
    assert max(surrogate, key=lambda name: surrogate[name]) == "age"


@pytest.mark.parametrize(
    ("facts", "spec", "words"),
    [
        ({"age": 3.0}, FACTS, "no covariate 'sex'"),
        ({}, FACTS, "it has: none"),
        ({"age": 3.0}, replace(FACTS, columns=()), "does not name them"),
    ],
)
def test_a_covariate_that_is_missing(tmp_path: Path, facts: dict[str, float], spec: InputSpec, words: str) -> None:
    model = loaded(tmp_path, IMAGE, spec)
    with pytest.raises(BadOption, match=words) as caught:
        gather([replace(case, covariates=facts) for case in cases(3)], model, Wish("b"))
    assert "column" in caught.value.mend


def test_an_age_that_one_case_lacks_leaves_that_case_out(tmp_path: Path) -> None:
    model, given = loaded(tmp_path, IMAGE, FACTS), cases(4)
    given[2] = replace(given[2], covariates={"sex": 1.0})
    gathered = gather(given, model, Wish("b"))
    assert gathered.cohort.size == 3
    assert [name for name, _ in gathered.failures] == ["case-2"]
    assert any("1 cases could not be used" in words for words in gathered.warnings)


def test_channel_counts_that_differ_leave_those_cases_out(tmp_path: Path) -> None:
    model, given = loaded(tmp_path, replace(IMAGE, channels=3, order="rgb")), cases(3)
    with pytest.raises(PellucidError, match="channel"):
        gather(given, model, Wish("b"))
    picture = Image(torch.rand(3, 12, 12), Grid.regular((12, 12)))
    gathered = gather([given[0], *(replace(c, images={"image": picture}) for c in given[1:])], model, Wish("b"))
    assert gathered.cohort.size == 2
    assert gathered.failures[0][0] == "case-0"
    assert "channel" in gathered.failures[0][1].problem


def test_parts_come_from_a_background(tmp_path: Path) -> None:
    model = loaded(tmp_path, IMAGE)
    flat = [replace(c, images={"image": replace(c.images["image"], data=torch.zeros(1, 12, 12))}) for c in cases(5)]
    gathered = gather(cases(6), model, Wish("b", blocks=2), background=flat)
    same = gather(cases(6), model, Wish("b", blocks=2))
    assert gathered.digest == same.digest
    answer = effects_of(explain_cohort(gathered, model, AblationStudy(over="inputs", how="mean")))
    zero = effects_of(explain_cohort(same, model, AblationStudy(over="inputs")))
    assert answer.rows[0].estimate == pytest.approx(zero.rows[0].estimate, abs=1e-6)
    assert any("5 background cases" in words for words in answer.said)
    moved = effects_of(explain_cohort(gathered, model, PermutationImportance(over="inputs", repeats=2, loss="change")))
    falls = [v**2 for v in zero.tables["by case"]["image"]]
    assert moved.tables["by case"]["image"] == pytest.approx(falls, abs=1e-6)


def test_a_background_that_is_of_no_use_is_refused(tmp_path: Path) -> None:
    model = loaded(tmp_path, IMAGE)
    gathered = gather(cases(6), model, Wish("b"), background=cases(3))
    with pytest.raises(BadOption, match="takes nothing from a background"):
        explain_cohort(gathered, model, PartialDependence())
    with pytest.raises(BadOption, match="how=zero"):
        explain_cohort(gathered, model, AblationStudy(layer="filter"))
    small = gather(cases(6), model, Wish("b"), background=cases(3, SIDES[1:2]))
    with pytest.raises(BadOption, match="background cases of the same size"):
        explain_cohort(small, model, PermutationImportance())


def test_names_are_told_apart(tmp_path: Path) -> None:
    same = [replace(case, name="film") for case in cases(3)]
    assert gather(same, loaded(tmp_path, IMAGE), Wish("b")).cohort.names == ("film", "film-2", "film-3")


def test_half_of_a_run_is_there_already(tmp_path: Path) -> None:
    model, method = loaded(tmp_path, IMAGE), PermutationImportance(repeats=2, loss="change")
    told: list[tuple[str, int, int]] = []
    first = gather(cases(20), model, Wish("b", blocks=2))
    whole = effects_of(explain_cohort(first, model, method, tmp_path, lambda *words: told.append(words)))
    assert [done for _, done, _ in told] == [0, 8, 16, 20]
    kept = (tmp_path / "cases.jsonl").read_bytes()
    lines = [line for line in kept.split(b"\n") if line]
    assert len(lines) == 20
    (tmp_path / "cases.jsonl").write_bytes(b"\n".join(lines[:7]) + b"\n" + lines[7][:30])
    again = effects_of(explain_cohort(first, model, method, tmp_path))
    assert any("7 of 20 cases were there already" in words for words in again.said)
    assert again.spent[0] < whole.spent[0]
    for row, old in zip(again.rows, whole.rows, strict=True):
        assert (row.name, row.estimate, row.low) == (old.name, pytest.approx(old.estimate), pytest.approx(old.low))


@pytest.mark.parametrize("change", ["seed", "method", "weights", "case"])
def test_other_numbers_are_not_taken(tmp_path: Path, change: str) -> None:
    model, method = loaded(tmp_path, IMAGE), PermutationImportance(repeats=2, loss="change")
    explain_cohort(gather(cases(6), model, Wish("b", blocks=2)), model, method, tmp_path)
    given = cases(6)
    if change == "case":  # every case of the cohort takes parts of the others
        image = given[0].images["image"]
        given[0] = replace(given[0], images={"image": replace(image, data=image.data * 0.5)})
    if change == "weights":
        other = Plain()
        model = replace(model, model=replace(model.model, module=other, _traces={}, _defaults={}))
    wish = Wish("b", blocks=2, seed=int(change == "seed"))
    method = PermutationImportance(repeats=3, loss="change") if change == "method" else method
    said = effects_of(explain_cohort(gather(given, model, wish), model, method, tmp_path)).said
    known = [words for words in said if "there already" in words]
    assert len(known) == (change == "case"), said
    assert all(words.startswith(tuple(f"{n} of 6" for n in range(1, 6))) for words in known)


def test_labels_that_come_later_ask_for_another_scale(tmp_path: Path) -> None:
    model, method = loaded(tmp_path, IMAGE), PermutationImportance(repeats=2)
    bare = gather([replace(case, label=None) for case in cases(6)], model, Wish("b", blocks=2))
    explain_cohort(bare, model, method, tmp_path)  # the change of a logit
    named = gather(cases(6), model, Wish("b", blocks=2))
    later = effects_of(explain_cohort(named, model, method, tmp_path))  # the log loss of a model score
    assert not [words for words in later.said if "there already" in words]
    assert later.rows == effects_of(explain_cohort(named, model, method)).rows
