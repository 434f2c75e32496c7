"""Reliance, calibration and impact: tables by hand, readers with known habits, and tables that are none."""

import math

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import brier_score_loss, roc_auc_score

from pellucid.statistics.bootstrap import Resampling
from pellucid.statistics.errors import Unfit
from pellucid.statistics.impact import impact
from pellucid.statistics.reliance import calibration, reliance

QUICK = Resampling(300)


def study(seed=0, readers=8, cases=60, follow=(0.7, 0.4), arms=("ai", "ai+map")):
    """Readers who at first are right in 70%, and follow a machine that errs in a third, each arm with its own share."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 2, cases)
    machine = np.where(rng.random(cases) < 1 / 3, 1 - truth, truth)
    rows = []
    for arm, share in zip(arms, follow, strict=True):
        for r in range(readers):
            for c in range(cases):
                first = truth[c] if rng.random() < 0.7 else 1 - truth[c]
                final = machine[c] if rng.random() < share else first
                seconds = 20 + 5 * (arm == "ai") + rng.normal()
                rows.append(
                    (arm, f"r{r}", f"c{c}", f"p{c // 2}", truth[c], machine[c], first, final, 10.0, 10 + seconds)
                )
    names = ["arm", "reader_id", "case_id", "patient_id", "truth", "ai_label", "initial_decision", "final_decision"]
    table = pd.DataFrame(rows, columns=[*names, "t_first_view", "t_final"])
    right = table["final_decision"] == table["truth"]
    table["final_confidence"] = np.where(right, 80.0, 60.0) + rng.normal(size=len(table))
    table["trust"] = np.clip(np.round(4 + (table["ai_label"] == table["truth"]) + rng.normal(size=len(table))), 1, 7)
    return table


@pytest.fixture(scope="module")
def table():
    return study()


def test_reliance_by_hand():
    # machine wrong and first right: 3 reads, 2 follow; machine right and first wrong: 2 reads, 1 follows
    rows = [
        ("r1", "c1", 1, 0, 1, 0),
        ("r2", "c1", 1, 0, 1, 0),
        ("r1", "c2", 0, 1, 0, 0),
        ("r1", "c3", 1, 1, 0, 1),
        ("r2", "c3", 1, 1, 0, 0),
        ("r2", "c2", 0, 1, 1, 1),
    ]
    names = ["reader_id", "case_id", "truth", "ai_label", "initial_decision", "final_decision"]
    found = reliance(pd.DataFrame(rows, columns=names).assign(arm="ai"), by=QUICK)["ai"]
    assert (found.over.value, found.over.count) == (pytest.approx(2 / 3), 3)
    assert (found.under.value, found.under.count) == (0.5, 2)
    assert (found.rsr.value, found.rair.value) == (pytest.approx(1 / 3), 0.5)


def test_readers_with_known_habits(table):
    found = reliance(table)
    assert list(found) == ["ai", "ai+map"]
    for arm, share in (("ai", 0.7), ("ai+map", 0.4)):
        over, under = found[arm].over, found[arm].under
        assert over.low < share < over.high
        assert under.low < 1 - share < under.high
        assert over.high - over.low < 0.35
        assert over.value + found[arm].rsr.value == pytest.approx(1)
        assert under.value + found[arm].rair.value == pytest.approx(1)
        assert (over.low, over.high) == pytest.approx((1 - found[arm].rsr.high, 1 - found[arm].rsr.low))


def test_a_third_answer_is_neither():
    rows = [("r1", "c1", "a", "b", "a", "c"), ("r2", "c1", "a", "b", "a", "b"), ("r1", "c2", "b", "b", "b", "b")]
    names = ["reader_id", "case_id", "truth", "ai_label", "initial_decision", "final_decision"]
    found = reliance(pd.DataFrame(rows, columns=names).assign(arm="ai"), by=QUICK)["ai"]
    assert (found.over.value, found.rsr.value) == (0.5, 0.0)


def test_an_arm_without_a_machine_is_undefined(table):
    bare = table[table["arm"] == "ai"].assign(arm="unaided", ai_label=None)
    found = reliance(pd.concat([table, bare]), by=QUICK)["unaided"]
    assert math.isnan(found.over.value)
    assert found.over.undefined == len(bare)
    assert found.over.note == "no read has the machine wrong and the first decision right"
    assert found.rair.note == "no read has the machine right and the first decision wrong"


def test_without_first_decisions_all_is_undefined(table):
    found = reliance(table.drop(columns="initial_decision"), by=QUICK)["ai"]
    assert math.isnan(found.over.low)
    assert found.over.undefined == 480


def test_missing_reads_are_counted(table):
    holes = table.copy()
    holes["final_decision"] = holes["final_decision"].astype(object)
    holes.loc[holes.index[:7], "final_decision"] = None
    assert reliance(holes, by=QUICK)["ai"].over.undefined == 7
    found = impact(holes, "ai", "ai+map", by=QUICK).accuracy
    assert (found.count, found.undefined) == (473, 7)


def test_none_follows():
    table = study(follow=(0.0, 0.0))
    found = reliance(table, by=QUICK)["ai"].over
    assert (found.value, found.low) == (0.0, 0.0)
    # eight readers, each as one answer
    assert found.high == pytest.approx(1.959964**2 / (8 + 1.959964**2), abs=1e-6)
    assert found.note == "all reads alike: no bootstrap"


def test_one_reader_alone(table):
    alone = table[table["reader_id"] == "r0"]
    for found in (reliance(alone)["ai"].over, impact(alone, "ai", "ai+map").accuracy, calibration(alone)["ai"].trust):
        assert math.isfinite(found.value)
        assert math.isnan(found.low)
        assert found.note == "one reader: nothing is known of how much readers differ"


def test_calibration_is_that_of_scikit_learn(table):
    found = calibration(table, by=QUICK)
    for arm in ("ai", "ai+map"):
        here = table[table["arm"] == arm]
        right = (here["final_decision"] == here["truth"]).astype(int)
        machine = (here["ai_label"] == here["truth"]).astype(int)
        assert found[arm].trust.value == pytest.approx(roc_auc_score(machine, here["trust"]), abs=1e-12)
        assert found[arm].brier.value == pytest.approx(brier_score_loss(right, here["final_confidence"] / 100))
        assert found[arm].trust.low < found[arm].trust.value < found[arm].trust.high
        assert found[arm].ece.bounded


def test_the_calibration_error_by_hand():
    # two bins: 0.85 with a share of 1/2, 0.25 with a share of 0
    rows = [("r1", "c1", 1, 85), ("r2", "c1", 0, 85), ("r1", "c2", 1, 25), ("r2", "c2", 1, 25)]
    table = pd.DataFrame(rows, columns=["reader_id", "case_id", "final_decision", "final_confidence"])
    table = table.assign(truth=table["case_id"].map({"c1": 1, "c2": 0}), arm="x")
    found = calibration(table, by=QUICK)["x"]
    assert found.ece.value == pytest.approx((2 * 0.35 + 2 * 0.25) / 4)
    assert math.isnan(found.trust.value)
    assert found.trust.note == "no read is defined"


def test_blind_trust_is_a_half(table):
    even = calibration(table.assign(trust=4), by=QUICK)["ai"].trust
    assert even.value == 0.5
    assert even.note.startswith("every resample gives the same")
    never_wrong = table.assign(ai_label=table["truth"])
    assert "always right" in calibration(never_wrong, by=QUICK)["ai"].trust.note


def test_impact_on_known_readers():
    table = study(readers=12, cases=150)
    found = impact(table, "ai+map", "ai")
    # following less: fewer errors where the machine is wrong (30 points of 70%), more where it is right
    assert found.where_wrong.low < 0.3 * 0.7 < found.where_wrong.high
    assert found.where_right.low < -0.3 * 0.3 < found.where_right.high
    assert found.where_wrong.low > 0 > found.where_right.high
    assert found.seconds.low < -5 < found.seconds.high
    assert found.seconds.high - found.seconds.low < 1
    assert (found.accuracy.count, found.accuracy.clusters, found.accuracy.undefined) == (1800, 75, 0)
    turned = impact(table, "ai", "ai+map")
    assert turned.accuracy.value == pytest.approx(-found.accuracy.value)
    assert turned.accuracy.high == pytest.approx(-found.accuracy.low, abs=0.01)


def test_an_arm_without_a_machine_has_its_strata_from_the_other(table):
    bare = table.copy()
    bare["ai_label"] = bare["ai_label"].astype(object)
    bare.loc[bare["arm"] == "ai", "ai_label"] = None
    one, two = impact(table, "ai+map", "ai", by=QUICK), impact(bare, "ai+map", "ai", by=QUICK)
    assert one.where_wrong == two.where_wrong


def test_columns_that_were_not_taken(table):
    found = impact(table.drop(columns=["t_final", "final_confidence"]), "ai+map", "ai", by=QUICK)
    assert math.isnan(found.seconds.value)
    assert found.seconds.note == "t_first_view and t_final were not taken in both arms"
    assert found.sureness.note == "final_confidence was not taken in both arms"
    right = impact(table.assign(ai_label=table["truth"]), "ai+map", "ai", by=QUICK)
    assert right.where_wrong.note == "no case of both arms where the machine is wrong"


def test_arms_with_their_own_patients(table):
    number = table["patient_id"].str[1:].astype(int)
    split = table[(number % 2 == 0) == (table["arm"] == "ai")]
    found = impact(split, "ai+map", "ai", paired=False)
    here = split.assign(right=split["final_decision"] == split["truth"]).groupby("arm")["right"].mean()
    assert found.accuracy.value == pytest.approx(here["ai+map"] - here["ai"])
    assert found.accuracy.bounded
    pairless = impact(split, "ai+map", "ai")
    assert pairless.accuracy.note == "no read has a decision and a truth in both arms"
    assert pairless.accuracy.undefined == 480


def test_a_table_may_be_plain_columns(table):
    columns = {name: table[name].to_numpy() for name in table}
    assert reliance(columns, by=QUICK) == reliance(table, by=QUICK)


@pytest.mark.parametrize(
    ("ask", "problem"),
    [
        (lambda t: impact(t, "ai", "none"), "cannot hold 'ai' against 'none'"),
        (lambda t: impact(t[t["arm"] == "ai"], "ai", "ai"), "cannot hold 'ai' against 'ai'"),
        (lambda t: impact(t, "ai", "ai+map", paired=False), "30 patients are read in both ai and ai\\+map"),
        (lambda t: impact(t.assign(t_final=0), "ai", "ai+map"), "960 reads end before they begin"),
        (lambda t: impact(t.assign(t_final="soon"), "ai", "ai+map"), "column t_final holds more than numbers"),
        (lambda t: reliance(t.drop(columns="truth")), "no column 'truth'"),
        (lambda t: reliance(pd.concat([t, t.iloc[[0]]])), "the read of case c0 by r0 in ai is there twice"),
        (lambda t: reliance(t.assign(reader_id=None)), "960 of 960 reads have no reader_id"),
        (lambda t: reliance(t.assign(final_decision="yes")), "final_decision says 'yes' where the truth says 0, 1"),
        (lambda t: reliance(t.assign(truth=t["final_decision"])), "truth differs between reads of case"),
        (lambda t: reliance(t.assign(patient_id=t["reader_id"])), "patient_id differs between reads of case"),
        (lambda t: calibration(t, scale=(0, 1)), "on a scale of 0 to 1"),
        (lambda t: calibration(t.assign(trust=np.inf)), "column trust holds an infinite value"),
    ],
)
def test_what_is_no_table_of_decisions_is_refused(table, ask, problem):
    with pytest.raises(Unfit, match=problem) as caught:
        ask(table)
    assert caught.value.mend
