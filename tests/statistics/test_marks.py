"""Marks of readers: on a lesion or beside it, by hand and against the areas they lead to."""

import numpy as np
import pandas as pd
import pytest

from pellucid.statistics.errors import Unfit
from pellucid.statistics.marks import accepted
from pellucid.statistics.merits import lroc, roc, wafroc
from pellucid.statistics.reads import crossed

LESIONS = pd.DataFrame(
    [("ill1", 10.0, 10.0), ("ill2", 0.0, 0.0), ("ill2", 0.0, 8.0)], columns=["case_id", "x_mm", "y_mm"]
)


@pytest.fixture
def reads():
    """One arm, two readers, two normal and two diseased cases."""
    rows = [("map", r, c) for r in ("r1", "r2") for c in ("ill1", "ill2", "well1", "well2")]
    return crossed(pd.DataFrame(rows, columns=["arm", "reader_id", "case_id"]))


def marks(*rows):
    """Reader, case, place and rating of each."""
    frame = pd.DataFrame(rows, columns=["reader_id", "case_id", "x_mm", "y_mm", "rating"])
    return frame.assign(arm="map")


def test_marks_by_hand(reads):
    found = accepted(
        marks(
            ("r1", "ill1", 12.0, 10.0, 50),  # on the lesion
            ("r1", "ill1", 10.0, 13.0, 70),  # on it again, and higher
            ("r1", "ill1", 40.0, 40.0, 90),  # beside it, and highest
            ("r1", "ill2", 0.0, 5.0, 60),  # within 5 mm of both, nearer to the second
            ("r1", "well1", 0.0, 0.0, 20),
            ("r1", "well1", 9.0, 0.0, 30),
            ("r2", "ill2", 0.0, 5.1, 10),
        ),
        LESIONS,
        reads,
        5.0,
    )
    off = -np.inf
    assert found.lesion_case.tolist() == [0, 1, 1]
    assert found.lesion_marks[0].tolist() == [[70, off, 60], [off, off, 10]]
    assert found.false_marks[0].tolist() == [[90, off, 30, off], [off, off, off, off]]
    assert found.ratings[0].tolist() == [[90, 60, 30, off], [off, 10, off, off]]
    assert found.located[0].tolist() == [[False, True, False, False], [False, True, False, False]]
    assert found.left_out == 0


def test_the_radius_decides(reads):
    one = marks(("r1", "ill1", 10.0, 14.0, 50))
    assert accepted(one, LESIONS, reads, 4.0).located[0, 0, 0]
    assert not accepted(one, LESIONS, reads, 3.9).located[0, 0, 0]
    deep = one.assign(z_mm=3.0)
    assert not accepted(deep, LESIONS.assign(z_mm=0.0), reads, 4.0).located[0, 0, 0]
    assert accepted(deep, LESIONS.assign(z_mm=0.0), reads, 5.0).located[0, 0, 0]


def test_the_areas_of_marks(reads):
    every = [("r1", "ill1", 10, 10, 80), ("r1", "ill2", 0, 0, 60), ("r1", "well1", 0, 0, 70), ("r1", "well2", 0, 0, 10)]
    both = marks(*every, *(("r2", *row[1:]) for row in every))
    found = accepted(both, LESIONS, reads, 5.0)
    truth = np.array([1, 1, 0, 0])
    assert roc(found.ratings, truth).values[0, 0] == 3 / 4
    assert lroc(found.ratings, truth, found.located).values[0, 0] == 3 / 4
    # the second lesion of ill2 was missed: of its half nothing is won
    area = wafroc(found.false_marks, found.lesion_marks, found.lesion_case, truth).values[0, 0]
    assert area == pytest.approx((1 + 0.5 * 0.5) / 2)
    far = accepted(both.assign(x_mm=99.0), LESIONS, reads, 5.0)
    assert lroc(far.ratings, truth, far.located).values[0, 0] == 0


def test_no_marks_at_all(reads):
    found = accepted(marks(), LESIONS, reads, 5.0)
    truth = np.array([1, 1, 0, 0])
    assert (wafroc(found.false_marks, found.lesion_marks, found.lesion_case, truth).values == 0.5).all()


def test_cases_that_were_left_out():
    rows = [("map", r, c) for r in ("r1", "r2") for c in ("ill1", "ill2", "well1")][:-1]
    reads = crossed(pd.DataFrame(rows, columns=["arm", "reader_id", "case_id"]), incomplete="leave out")
    found = accepted(marks(("r1", "well1", 0, 0, 5), ("r1", "ill1", 10, 10, 5)), LESIONS, reads, 5.0)
    assert found.left_out == 1


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"radius_mm": 0.0}, "an acceptance radius of 0.0 mm"),
        ({"marks": marks(("r9", "ill1", 0, 0, 5))}, "reader_id r9 is not among the reads"),
        ({"marks": marks(("r1", "ill9", 0, 0, 5))}, "case_id ill9 is not among the reads"),
        ({"marks": marks(("r1", "ill1", 0, 0, None))}, "1 marks have no rating"),
        ({"marks": marks(("r1", "ill1", 0, None, 5))}, "1 places are incomplete"),
        ({"lesions": LESIONS.assign(z_mm=0.0)}, "have not the same axes"),
        ({"lesions": LESIONS.drop(columns="x_mm")}, "no column 'x_mm'"),
    ],
)
def test_what_are_no_marks_is_refused(reads, change, problem):
    given = {"marks": marks(("r1", "ill1", 0, 0, 5)), "lesions": LESIONS, "reads": reads, "radius_mm": 5.0, **change}
    with pytest.raises(Unfit, match=problem):
        accepted(**given)
