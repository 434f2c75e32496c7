"""The arithmetic of a comparison: what counts as equal, as explained, as different, and as not run."""

import dataclasses
import json

import pytest
import torch

from pellucid.core.errors import ShapeMismatch, UnknownName
from pellucid.verify import running
from pellucid.verify import subjects as subjects_room
from pellucid.verify.apart import Answer, Job
from pellucid.verify.bridges import BRIDGES, deviation
from pellucid.verify.formulas import Formula
from pellucid.verify.ours import Explained, explained
from pellucid.verify.peers import networks
from pellucid.verify.plan import ONE, PAIR, UNET, Comparison
from pellucid.verify.running import Pairing, chosen, judge
from pellucid.verify.subjects import Prepared, Subject
from pellucid.verify.verdict import Row, Shown, Verdict, Verification
from pellucid.workbench.registry import cohort_methods, explainers, make_explainer

TINY = Subject("pooled-2d", "retina", (8, 10))


@pytest.fixture
def prepared() -> Prepared:
    """A subject on a phantom, so that no image is read."""
    x = torch.randn(1, 3, 8, 10, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    net = networks.build("pooled-2d", 3, 20)
    return Prepared(TINY, net, x, (int(net(x).argmax()),))


def pairing(prepared: Prepared, ours: torch.Tensor, **fields: object) -> Pairing:
    comparison = Comparison("Saliency", "captum", "Saliency", (TINY,), **fields)
    return Pairing(comparison, prepared, Explained(ours, torch.zeros(0)), Job(0, "captum", "Saliency", prepared))


def row(verdict: Verdict) -> Row:
    return Row("GradCAM", "captum", "LayerGradCam", "net", "image", "as they are", 1e-6, verdict)


def test_deviation_is_relative_to_the_peers_largest_absolute_value() -> None:
    theirs = torch.tensor([[[-4.0, 1.0]]])
    assert deviation(theirs.clone(), theirs) == 0
    assert deviation(theirs + torch.tensor([0.0, 0.5]), theirs) == 0.125
    assert deviation(torch.tensor([[[float("nan"), 1.0]]]), theirs) == float("inf")
    two = torch.cat([theirs, theirs / 1000])
    assert deviation(two + 0.001, two) == pytest.approx(0.25), "each item on its own scale, the worst counts"
    assert deviation(torch.ones(1, 1, 2), torch.zeros(1, 1, 2)) == float("inf")
    with pytest.raises(ShapeMismatch, match="one shape"):
        deviation(torch.zeros(1, 1, 3), theirs)


def test_an_equal_map_is_equal_and_a_wrong_one_differs(prepared: Prepared) -> None:
    right = explained(make_explainer("Saliency"), prepared).map
    assert judge(pairing(prepared, right), Answer({"map": right.clone()})).verdict is Verdict.EQUAL
    wrong = right.clone()
    wrong[0, 0, 0, 0] += 2e-6 * float(right.max())
    found = judge(pairing(prepared, right), Answer({"map": wrong}))
    assert found.verdict is Verdict.DIFFERS
    assert found.deviation == pytest.approx(2e-6, rel=1e-3)
    swapped = judge(pairing(prepared, right), Answer({"map": right.flip(2)}))
    assert swapped.verdict is Verdict.DIFFERS


def test_a_deviation_is_explained_only_if_both_forms_of_the_formula_hold(
    prepared: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = explained(make_explainer("Saliency"), prepared).map
    doubled = Answer({"map": 2 * right})

    def judged(with_defect: float, without: float) -> Row:
        formula = Formula(frozenset({"B8"}), lambda _, d: right * (with_defect if d else without))
        monkeypatch.setitem(running.ALL_FORMULAS, "made up", formula)
        return judge(pairing(prepared, right, formula="made up"), doubled)

    assert judged(2, 1).verdict is Verdict.EXPLAINED
    assert judged(2, 1).words == "explained B8"
    assert judged(3, 1).verdict is Verdict.DIFFERS, "the formula is not what the peer computes"
    assert judged(2, 1.5).verdict is Verdict.DIFFERS, "mended, it is not what we compute"


def test_an_estimate_is_judged_by_the_error_that_it_states(prepared: Prepared) -> None:
    exact = explained(make_explainer("Saliency"), prepared).map
    error = torch.full_like(exact, 0.02 * float(exact.max()))

    def judged(errors: float, stated: torch.Tensor | None) -> Row:
        ours = exact + errors * error
        comparison = Comparison("Saliency", "captum", "Saliency", (TINY,), estimate=True)
        job = Job(0, "captum", "Saliency", prepared)
        return judge(
            Pairing(comparison, prepared, Explained(ours, torch.zeros(0), (), stated), job), Answer({"map": exact})
        )

    assert judged(3, error).verdict is Verdict.WITHIN
    assert judged(3, error).words == "within error (3.0 standard errors)"
    assert judged(5, error).verdict is Verdict.DIFFERS
    assert judged(3, 50 * error).verdict is Verdict.DIFFERS, "an error as large as the values says nothing"
    assert judged(3, 0 * error).verdict is Verdict.DIFFERS
    assert judged(3, None).verdict is Verdict.DIFFERS
    assert judged(0, error).verdict is Verdict.EQUAL


def test_a_blank_map_is_no_agreement(prepared: Prepared) -> None:
    found = judge(pairing(prepared, torch.zeros(1, 3, 8, 10)), Answer({"map": torch.zeros(1, 3, 8, 10)}))
    assert found.verdict is Verdict.NOT_RUN
    assert "blank" in found.words


def test_what_a_peer_could_not_do_is_not_run_with_its_reason(prepared: Prepared) -> None:
    found = judge(pairing(prepared, prepared.x), Answer({}, "captum raised ModuleNotFoundError: no captum"))
    assert found.words == "NOT RUN (captum raised ModuleNotFoundError: no captum)"


def test_passing() -> None:
    good, missing, bad = row(Verdict.EQUAL), row(Verdict.NOT_RUN), row(Verdict.DIFFERS)
    assert Verification([good]).passed(require_all=True)
    assert Verification([good, missing]).passed(require_all=False)
    assert not Verification([good, missing]).passed(require_all=True)
    assert not Verification([good, bad]).passed(require_all=False)
    assert not Verification([missing]).passed(require_all=False), "nothing was compared"
    shown = Shown("B9", "monai", "", "", Verdict.SHOWN)
    assert not Verification([good], [dataclasses.replace(shown, verdict=Verdict.DIFFERS)]).passed(require_all=False)
    assert Verification([], [shown]).passed(require_all=True)


def test_json_has_no_infinity() -> None:
    endless = dataclasses.replace(row(Verdict.DIFFERS), deviation=float("inf"), mended=0.5)
    plain = Verification([endless], versions={"here": {"torch": "2"}}).plain(require_all=True)
    again = json.loads(json.dumps(plain, allow_nan=False))
    assert again["rows"][0]["deviation"] is None
    assert again["rows"][0]["mended"] == 0.5
    assert set(again) == {"rows", "defects_shown", "summary", "passed", "require_all", "versions", "seconds"}
    assert again["summary"] == {"equal": 0, "within error": 0, "explained": 0, "shown": 0, "DIFFERS": 1, "NOT RUN": 0}


def test_noise_is_seen_and_laid_out(prepared: Prepared) -> None:
    seen = explained(make_explainer("SmoothGrad:samples=3"), prepared)
    assert seen.noise.shape == (3, *prepared.x.shape)
    assert float(seen.noise.std()) > 0.1
    assert explained(make_explainer("Saliency"), prepared).noise.numel() == 0
    two = torch.arange(2 * 2 * 3.0).view(2, 2, 1, 3)  # 2 draws of 2 items
    beside = running._laid_out(running.SIDE_BY_SIDE, two, two[0])
    assert beside.shape == (1, 4, 1, 3)
    assert torch.equal(beside[0, 1], two[1, 0]), "the draws of an item lie together"
    half = torch.stack([-0.5 * prepared.x, -prepared.x])
    assert running._places(half, prepared.x) == pytest.approx([0.5]), "the reference itself is no place"


def test_every_comparison_names_what_is_there() -> None:
    for c in running.PLAN:
        assert c.name in explainers() | cohort_methods(), c
        assert c.bridge in BRIDGES, c
        assert not c.formula or c.formula in running.ALL_FORMULAS, c
        assert not c.hand or c.hand in running.HANDS, c
    used = {c.formula for c in running.PLAN}
    assert set(running.ALL_FORMULAS) <= used


def test_choosing() -> None:
    some = chosen(["gradcam"], ["captum", "monai"])
    assert {c.name for c in some.comparisons} == {"GradCAM"}
    assert {c.peer for c in some.comparisons} == {"captum", "monai"}
    assert not some.demonstrations
    assert {d.peer for d in chosen(peers=["grad-cam"]).demonstrations} == {"grad-cam"}
    assert some.steps == 3 * sum(len(c.on) for c in some.comparisons)
    with pytest.raises(UnknownName, match="no compared method named 'BlurMap'"):
        chosen(["BlurMap"])
    with pytest.raises(UnknownName, match="captum, torchcam"):
        chosen(peers=["keras"])


def test_subjects_have_names_of_their_own() -> None:
    subjects = {s for c in running.PLAN for s in c.on}
    assert len({s.name for s in subjects}) == len(subjects)
    assert {PAIR, ONE} <= subjects


def test_without_monai_its_networks_are_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subjects_room, "find_spec", lambda _: None)
    only = Comparison("Saliency", "captum", "Saliency", (UNET,))
    shows = tuple(d for d in running.DEMONSTRATIONS if d.subject == UNET)
    found = running.verify(running.Chosen((only,), shows), None, lambda *_: None)
    assert [r.verdict for r in found.rows] == [Verdict.NOT_RUN]
    assert "is MONAI's, which is not installed" in found.rows[0].reason
    assert [s.verdict for s in found.shown] == [Verdict.NOT_RUN]
    assert not found.passed(require_all=False)
