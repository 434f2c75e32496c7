"""Numbers of cases between runs: to the last digit, and whatever a killed process left half."""

from pathlib import Path

import pytest

from pellucid.core.errors import UnwritableOutput
from pellucid.io.journal import JOURNAL_NAME, CaseJournal

NUMBERS = (0.1 + 0.2, -1e-17, 3.0)


def test_numbers_come_back_to_the_last_digit(tmp_path: Path) -> None:
    journal = CaseJournal.opened(tmp_path)
    assert journal.get("a") is None
    journal.put({"a": NUMBERS})
    journal.put({"b": (1.0,), "c": ()})
    again = CaseJournal.opened(tmp_path)
    assert (again.get("a"), again.get("b"), again.get("c"), again.get("d")) == (NUMBERS, (1.0,), (), None)


@pytest.mark.parametrize("left", [b'{"key": "b", "val', b"\xff\xfe", b"[1, 2]", b'{"key": "b", "values": ["x"]}'])
def test_half_a_line_is_passed_over_and_swallows_nothing(tmp_path: Path, left: bytes) -> None:
    CaseJournal.opened(tmp_path).put({"a": NUMBERS})
    with (tmp_path / JOURNAL_NAME).open("ab") as stream:
        stream.write(left)
    CaseJournal.opened(tmp_path).put({"c": (2.0,)})
    again = CaseJournal.opened(tmp_path)
    assert (again.get("a"), again.get("b"), again.get("c")) == (NUMBERS, None, (2.0,))


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UnwritableOutput, match="kept"):
        CaseJournal.opened(tmp_path / "none").put({"a": NUMBERS})
