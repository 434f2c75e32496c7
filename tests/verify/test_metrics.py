"""The comparison of metrics: what counts as equal, explained or different, and captum beside ours on small images."""

import importlib
from dataclasses import replace

import pytest
import torch

from pellucid.core.errors import UnknownName
from pellucid.core.metric import Score
from pellucid.verify import metrics_running as running
from pellucid.verify import subjects as subjects_room
from pellucid.verify.apart import Answer, Job
from pellucid.verify.formulas import Formula
from pellucid.verify.metrics_defects import METRIC_DEFECTS
from pellucid.verify.metrics_formulas import METRIC_FORMULAS
from pellucid.verify.metrics_ours import Scored, exact, of_map, region_of, scored, views
from pellucid.verify.metrics_plan import METRICS, PEERS, READINGS, TINY, TINY_3D, MetricComparison
from pellucid.verify.metrics_running import ChosenMetrics, Pairing, chosen_metrics, judge, verify_metrics
from pellucid.verify.peers.child import PEERS as FILES
from pellucid.verify.plan import UNET
from pellucid.verify.verdict import Row, Verdict
from pellucid.workbench.registry import make_explainer, make_metric

NUMBERS = torch.tensor([[1.0, -4.0], [0.5, 2.0]], dtype=torch.float64)


@pytest.fixture(scope="module")
def prepared():
    return exact(TINY)


def judged(prepared, ours: torch.Tensor, theirs: torch.Tensor, formula: str = "", reason: str = "") -> Row:
    """The verdict on numbers "item number", read as a curve behind its first point."""
    curve = torch.cat([torch.zeros(len(ours), 1), ours], 1).tolist()
    score = Score("PixelFlipping", torch.zeros(len(ours)), detail={"curve": curve})
    comparison = MetricComparison(
        "PixelFlipping", "quantus", "PixelFlipping", (TINY,), reading="curve", formula=formula
    )
    job = Job(0, "quantus", "PixelFlipping", prepared)
    made = Scored(score, torch.zeros(0), torch.zeros(0))
    return judge(Pairing(comparison, prepared, made, job), Answer({"value": theirs} if not reason else {}, reason))


def test_equal_numbers_are_equal_and_others_differ(prepared) -> None:
    found = judged(prepared, NUMBERS, NUMBERS + 1e-11)
    assert found.verdict is Verdict.EQUAL
    assert (found.here, found.there) == (pytest.approx(-1.5), pytest.approx(-1.5))
    assert judged(prepared, NUMBERS, NUMBERS * 1.001).verdict is Verdict.DIFFERS
    assert judged(prepared, NUMBERS, NUMBERS.flip(0)).verdict is Verdict.DIFFERS, "each item with its own"
    fewer = judged(prepared, NUMBERS, NUMBERS[:, :1])
    assert fewer.verdict is Verdict.DIFFERS
    assert fewer.deviation is None


def test_a_score_that_is_undefined_here_is_no_agreement(prepared) -> None:
    nothing = torch.full_like(NUMBERS, torch.nan)
    assert judged(prepared, nothing, nothing).verdict is Verdict.DIFFERS
    assert judged(prepared, NUMBERS, nothing).verdict is Verdict.DIFFERS


def test_what_a_peer_could_not_do_is_not_run(prepared) -> None:
    assert judged(prepared, NUMBERS, NUMBERS, reason="quantus raised").words == "NOT RUN (quantus raised)"


def test_a_deviation_is_explained_only_if_both_forms_hold_and_the_defect_matters(
    prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    def with_formula(defect: float, without: float, theirs: torch.Tensor) -> Row:
        formula = Formula(frozenset({"Q0"}), lambda _, d: NUMBERS * (defect if d else without))
        monkeypatch.setitem(METRIC_FORMULAS, "made up", formula)
        return judged(prepared, NUMBERS, theirs, "made up")

    assert with_formula(2, 1, 2 * NUMBERS).words == "explained Q0"
    assert with_formula(3, 1, 2 * NUMBERS).verdict is Verdict.DIFFERS, "the formula is not what the peer computes"
    assert with_formula(2, 1.5, 2 * NUMBERS).verdict is Verdict.DIFFERS, "mended, it is not what we compute"
    monkeypatch.setitem(METRIC_FORMULAS, "longer", Formula(frozenset({"Q0"}), lambda _, d: NUMBERS[:, : 2 - len(d)]))
    longer = judged(prepared, NUMBERS, NUMBERS[:, :1], "longer")
    assert longer.verdict is Verdict.EXPLAINED, "a peer may give another number of numbers"
    assert longer.deviation is None
    two = Formula(frozenset({"Q0", "Q99"}), lambda _, d: NUMBERS * (2 if "Q0" in d else 1))
    monkeypatch.setitem(METRIC_FORMULAS, "two", two)
    assert judged(prepared, NUMBERS, 2 * NUMBERS, "two").defects == ("Q0",), "one that changes nothing is not named"


def test_every_comparison_names_what_is_there() -> None:
    calls = {
        peer: set().union(*(importlib.import_module(f"pellucid.verify.peers.{f}").CALLS for f in FILES[peer]))
        for peer in PEERS
    }
    for c in METRICS:
        make_metric(c.metric)
        make_explainer(c.explainer)
        assert c.call in calls[c.peer], c
        assert c.reading in READINGS, c
        assert set(c.hand) <= {"region", "rest", *running.HANDS}, c
        assert not c.formula or c.formula in METRIC_FORMULAS, c
    assert {c.formula for c in METRICS} - {""} == set(METRIC_FORMULAS)
    assert all(d.call in calls[d.peer] for d in METRIC_DEFECTS)
    subjects = {s for c in METRICS for s in c.on} | {d.subject for d in METRIC_DEFECTS}
    assert len({s.name for s in subjects}) == len(subjects), "a peer is told a subject by its name"


def test_choosing() -> None:
    some = chosen_metrics(["infidelity"], ["captum"])
    assert {(c.name, c.peer) for c in some.comparisons} == {("Infidelity", "captum")}
    assert not some.demonstrations
    assert some.steps == 2 * sum(len(c.on) for c in some.comparisons)
    assert {d.peer for d in chosen_metrics(peers=["captum"]).demonstrations} == {"captum"}
    assert len(chosen_metrics().demonstrations) == len(METRIC_DEFECTS)
    with pytest.raises(UnknownName, match="no compared metric named 'GradCAM'"):
        chosen_metrics(["GradCAM"])
    with pytest.raises(UnknownName, match="quantus, captum"):
        chosen_metrics(peers=["zennit"])


def test_what_the_network_was_shown_is_told(prepared) -> None:
    assert torch.equal(prepared.x, prepared.x.float().double()), "a peer that rounds to float32 sees the same image"
    found = scored("FaithfulnessCorrelation:subsets=7,along=4,share=0.25,infill=0", "InputXGradient", prepared)
    assert found.seen.shape == (7, *prepared.x.shape)
    hidden = (found.seen != prepared.x).flatten(1).sum(1)
    assert bool((found.seen[found.seen != prepared.x] == 0).all())
    assert bool((hidden > 0).all())
    assert scored("Sparseness", "InputXGradient", prepared).seen.numel() == 0
    assert 0.1 < float(region_of(prepared).double().mean()) < 0.2
    given = of_map("RelevanceMass", found.map, prepared, region_of(prepared))
    assert float(given.values[0]) == pytest.approx(
        float(scored("RelevanceMass", "InputXGradient", prepared).score.values)
    )
    assert len({tuple(v.flatten().tolist()) for v in views(prepared).x}) == 4


def test_without_monai_its_networks_are_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subjects_room, "find_spec", lambda _: None)
    only = MetricComparison("Sparseness", "quantus", "Sparseness", (UNET,))
    (row,) = verify_metrics(ChosenMetrics((only,)), None, lambda *_: None).rows
    assert row.verdict is Verdict.NOT_RUN
    assert "is MONAI's, which is not installed" in row.reason


def test_captum_gives_the_same_on_small_images() -> None:
    """captum is beside Pellucid, so this is the whole way from the plan to the verdict; Quantus is not here."""
    small = (TINY, TINY_3D)  # on which most boxes would be drawn twice, and asked for once
    plan = [replace(c, on=small) for c in METRICS if c.peer == "captum" and "change=box" not in c.metric]
    absent = MetricComparison("Sparseness", "quantus", "Sparseness", (TINY,))
    steps: list[int] = []
    chosen = ChosenMetrics((*plan, absent))
    found = verify_metrics(chosen, None, lambda _what, count: steps.append(count))
    *rows, missing = found.rows
    assert [r.verdict for r in rows] == [Verdict.EQUAL] * 6
    assert all(r.here == pytest.approx(r.there, rel=1e-9) for r in rows)
    assert len({r.here for r in rows}) == 6, "six different numbers"
    assert missing.verdict is Verdict.NOT_RUN
    assert "--peers-python" in missing.reason
    assert sum(steps) == chosen.steps - 1, "nobody was asked for the last"
    assert found.versions["peers beside pellucid"]["captum"].startswith("0.9")
    assert found.passed(require_all=False)
    assert not found.passed(require_all=True)
