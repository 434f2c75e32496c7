"""The ledger of relevance on the page of a case."""

from dataclasses import replace

import torch

from pellucid.core.case import Case
from pellucid.core.ledger import Entry, Ledger
from pellucid.show.accounts import account_rows
from pellucid.show.report import render_report
from pellucid.show.sections import CaseReport, Check, MapPanel


def ledger(count):
    entries = tuple(Entry(f"block.{i}", "conv3d", "bias", torch.tensor([-0.1 * i, 9.0])) for i in range(count))
    return Ledger(torch.tensor([2.0, 0.0]), torch.tensor([1.25, 0.0]), entries)


def test_the_largest_are_told_and_the_others_summed():
    rows = account_rows(ledger(12))
    assert len(rows) == 11
    assert (rows[1].place, rows[1].cause, rows[1].share) == ("block.11 (conv3d)", "bias", "\u221255%")
    assert (rows[-2].place, rows[-2].amount) == ("3 more operations", "\u22120.6")
    assert (rows[-1].amount, rows[-1].share) == ("1.25", "62%")


def test_a_score_of_zero_has_no_shares():
    empty = Ledger(torch.zeros(1), torch.zeros(1))
    assert [row.share for row in account_rows(empty)] == ["", ""]


def test_the_page_shows_the_account_of_a_map_that_has_one(make):
    def page(explanation):
        good = Check("x", "pass", "y")
        maps = (MapPanel(explanation, "LRP", "shows", "caution"),)
        report = CaseReport(Case("case-1", {"image": explanation.image}), explanation.image, good, good, None, maps)
        return render_report(report)

    plain = make(signed=True)
    assert "Where relevance went" not in page(plain)
    html = page(replace(plain, answer=replace(plain.answer, ledger=ledger(2))))
    assert "Where relevance went" in html
    assert "block.1 (conv3d)" in html
