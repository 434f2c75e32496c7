"""Answers in words and on the page: rounded as far as they mean anything, and safe whatever the names."""

import re
from dataclasses import replace

import pytest

from pellucid.core.case import Case
from pellucid.show.answers import Agreement, Answers, KeySlices, Peak, RegionShare, RegionTable, Slab, between, percent
from pellucid.show.report import render_report
from pellucid.show.sections import CaseReport, Check, MapPanel

HOSTILE = '"><img src=x onerror=alert(1)><script>alert(2)</script>'
FORBIDDEN = re.compile(r"probab|confiden|\bproof|\bproven\b|certif|\btrust", re.IGNORECASE)
AXES = ("sagittal slice", "coronal slice", "axial slice")
PEAK = Peak("axial slice 4 of 12; no finer than 8 mm", (1, 2, 3), (3, 4, 5), (1.0, 2.0, 3.0), (8.0,) * 3, "mm", AXES)


def lobes(name: str = "right lower lobe", count: int = 2) -> RegionTable:
    rows = [RegionShare(name, 0.2, 0.62, 0.48, 0.75, 0.1, 0.9)]
    rows += [
        RegionShare(f"lobe {n}", 0.5 / count, 0.08 / count, 0.0, 0.1, 0.9 / count, 0.1 / count) for n in range(count)
    ]
    outside = RegionShare("outside every region", 0.3, 0.3, None, None, 0.0, 0.0, outside=True)
    return RegionTable("regions", "volume", (*rows, RegionShare("node", 0.0), outside), ("resampled",))


def told(table: RegionTable) -> Answers:
    return Answers(
        "told", "", "", table, PEAK, KeySlices("axial", 60, (Slab(34, 41, 0.4), Slab(42, 49, 0.2), Slab(9, 16, 0.1)))
    )


@pytest.fixture
def page(make):
    def render(answers: Answers, agreement: tuple[Agreement, ...] = ()) -> str:
        e = make(signed=False)
        panel = MapPanel(e, "GradCAM", "regions", "small targets", answers=answers)
        good = Check("Applicability", "pass", "fits")
        report = CaseReport(
            Case("c", {"image": e.image}), e.image, good, good, e.prediction, (panel,), agreement=agreement
        )
        return render_report(report)

    return render


def plain(html: str) -> str:
    return " ".join(re.sub(r"<style>.*?</style>|<[^>]+>", " ", html, flags=re.DOTALL).split())


def test_the_sentences_a_reader_asked_for():
    found = told(lobes()).sentences
    assert found == (
        "62% of the positive evidence lies in the right lower lobe (48\u201375% with half a native cell at the border "
        "left out or added), 3.1 times what its volume alone would hold.",
        "Of what rises above the null, 90% lies in the right lower lobe.",
        "Of the evidence against, 45% lies in the lobe 0.",
        "Axial slices 9\u201316 and 34\u201349 of 60 hold 70% of the positive evidence.",
    )
    assert not FORBIDDEN.search(" ".join(found))


def test_most_outside_still_names_the_leading_region():
    rows = (RegionShare("liver", 0.1, 0.3), RegionShare("outside every region", 0.9, 0.7, outside=True))
    words = told(RegionTable("regions", "volume", rows)).sentences
    assert words[0].startswith("70% of the positive evidence lies outside every region, 0.78 times")
    assert words[1] == "Of the regions the liver holds most: 30%, 3 times what its volume alone would hold."


def test_nothing_is_written_finer_than_it_means():
    assert [percent(v) for v in (0.0, 0.004, 0.5, 0.996, 1.0)] == ["0%", "under 1%", "50%", "over 99%", "100%"]
    assert between(RegionShare("a", 0.5, 0.5, 0.499, 0.501)) == ""


def test_the_page_of_a_label_map(page):
    text = plain(page(told(lobes(count=40))))
    assert "62% of the positive evidence lies in the right lower lobe" in text
    assert "Peak: axial slice 4 of 12; no finer than 8 mm. The native cell around it: axial slices 4\u20136" in text
    assert "31 more regions stand in results.json." in text
    assert "3.1 \u00d7 mean" in text.replace("&times;", "\u00d7")
    assert not FORBIDDEN.search(text)


@pytest.mark.parametrize("layout", ["axes", "ninths"])
def test_the_page_of_thirds(page, layout):
    rows = []
    for down in ("upper", "middle", "lower"):
        for across, share in zip(("left", "center", "right"), (0.5, 0.3, 0.2), strict=True):
            name = f"{down} third, image {across}" if layout == "ninths" else f"{across} third"
            rows.append(RegionShare(name, 1 / 3, share / (3 if layout == "ninths" else 1), group=down))
    text = plain(page(told(RegionTable(layout, "area", tuple(rows)))))
    assert ("17%" if layout == "ninths" else "50%") in text
    assert ("upper third" if layout == "ninths" else "Upper") in text


def test_withheld_answers_stand_behind_the_request_only(page, make):
    html = page(replace(told(lobes()), state="withheld", why="score below threshold"))
    assert "Told on request: score below threshold." in html
    nothing = plain(page(Answers("nothing", "", "nothing rises above the null")))
    assert "Nothing rises above the null." in nothing
    assert "Peak" not in nothing


def test_agreement_stands_with_its_caution(page):
    names = ("A", "B", "C")
    rank = ((1.0, -0.25, None), (-0.25, 1.0, 0.5), (None, 0.5, 1.0))
    overlap = ((1.0, 0.4, None), (0.4, 1.0, 0.2), (None, 0.2, 1.0))
    alike = Agreement("lesion", names, rank, overlap, (("D", "blank"), ("E", "blank")), ("of positive parts",))
    text = plain(page(told(lobes()), (alike,)))
    for words in (
        "\u22120.25",
        "0.50",
        "40%",
        "Left out: D, E (blank).",
        "nothing about whether any of the maps is right",
    ):
        assert words in text, words


def test_hostile_names_stay_text(page):
    alike = Agreement(
        HOSTILE, (HOSTILE, "b"), ((1.0, 0.1), (0.1, 1.0)), ((1.0, 0.1), (0.1, 1.0)), ((HOSTILE, HOSTILE),), (HOSTILE,)
    )
    html = page(told(lobes(HOSTILE)), (alike, alike))
    assert "<script" not in html
    assert "<img src=x" not in html
    assert html.count("onerror=alert(1)") > 5
