"""Table, summary and page of a study, from items with known numbers."""

import math
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import pytest

from pellucid.core.errors import InputError
from pellucid.guide.protocol import parse_protocol
from pellucid.study.figures import draw_curves, draw_differences, draw_metrics, draw_ranks
from pellucid.study.folder import Manifest
from pellucid.study.gating import Bench, gate
from pellucid.study.items import Item
from pellucid.study.page import render_study
from pellucid.study.plates import draw_plates, write_plates
from pellucid.study.summary import by_metric, summarize
from pellucid.study.table import PARQUET, read_rows, rows_of, write_rows

METHODS = {"GradCAM": 0.8, "Saliency": 0.6, "RISE": 0.55}


def item(n: int, **more: object) -> Item:
    """A case of which three methods are scored; every second patient has two cases."""
    about = {"target": "default", "explained": "finding", "ms": 1.0, "region": None}
    scores = [
        about
        | {
            "method": m,
            "metric": "Dice",
            "value": v + 0.05 * math.sin(7 * n),
            "reason": "",
            "direction": "higher",
            "unit": "1",
        }
        for m, v in METHODS.items()
    ]
    falls = [
        about | {"method": m, "metric": "DeletionAUC", "share": [0.0, 0.5, 1.0], "curve": [3.0 + n, 2.0 - v, 1.0]}
        for m, v in METHODS.items()
    ]
    plain = Item(
        f"k{n}", f"case{n}", f"p{n - n % 4 // 3}", f"site {n % 2}", "finding", f"c{n}", "m", 0, "finding", n % 5 > 0
    )
    return replace(plain, model_score=0.7, scores=tuple(scores), curves=tuple(falls), **more)


@pytest.fixture
def items() -> list[Item]:
    """Twenty cases, one of which came to nothing."""
    bad = Item(
        "k20",
        "row 20",
        "row 20",
        None,
        None,
        "c20",
        "m",
        0,
        error={"error": "X", "problem": "<b>no image</b>", "mend": "y"},
    )
    return [*[item(n) for n in range(19)], item(19, skipped=(("Rollout", "no attention"),)), bad]


def test_a_table_comes_back_to_the_last_digit(items: list[Item], tmp_path: Path) -> None:
    rows = rows_of(items)
    back = read_rows(write_rows(rows, tmp_path / "scores.csv"))
    assert len(rows) == 20 * 3 + 2
    assert [repr(r) for r in back] == [repr(r) for r in rows]
    assert (tmp_path / PARQUET).is_file() == (find_spec("pyarrow") is not None)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("case,", "subject,", "other columns"),
        (",true,", ",maybe,", "wrong or no correct"),
        ("0.7,", "much,", "model_score"),
    ],
)
def test_a_table_of_another_kind_is_refused(items: list[Item], tmp_path: Path, old: str, new: str, words: str) -> None:
    path = write_rows(rows_of(items), tmp_path / "scores.csv")
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(InputError, match=words):
        read_rows(path)


def test_the_summary_says_what_was_put_in(items: list[Item]) -> None:
    summary = summarize(rows_of(items))
    assert {line.method: round(line.mean.value, 2) for line in summary.lines} == METHODS
    for line in summary.lines:
        assert (line.mean.count, line.mean.undefined) == (20, 1), "the case that came to nothing counts"
        assert line.mean.clusters == len({i.patient for i in items}) - 1
        assert line.reasons == {"X: <b>no image</b>": 1}
        assert set(line.strata) == {"site", "correct"}
        assert sum(found.count for found in line.strata["correct"].values()) == 20
    assert summary.failures == (("row 20", "m", "X: <b>no image</b>"),)
    assert summary.skipped == (("Rollout", "m", "cannot explain this model: no attention"),)


def test_methods_are_compared_in_pairs_and_ranked(items: list[Item]) -> None:
    (match,) = summarize(rows_of(items)).matches
    gaps = {(c.first, c.second): c for c in match.comparisons}
    assert gaps["GradCAM", "Saliency"].difference.value == pytest.approx(0.2)
    assert all(c.adjusted >= c.p for c in match.comparisons)
    assert all(c.adjusted < 0.01 for c in match.comparisons), "the same gap in every case"
    assert match.ranking is not None
    assert match.ranking.names == ("GradCAM", "Saliency", "RISE")
    assert [row[n] for n, row in enumerate(match.ranking.shares)] == [1.0, 1.0, 1.0]


def test_figures_are_there_where_there_is_something_to_draw(items: list[Item]) -> None:
    summary = summarize(rows_of(items))
    curves = draw_curves(items, "m", "default")
    assert curves is not None
    (axes,) = curves.axes
    assert len(axes.get_lines()) == 1 + len(METHODS)
    start = axes.get_lines()[1].get_ydata()
    assert float(start[0]) == 0.0, "told as the change from the whole image"
    assert draw_curves(items, "m", "another") is None
    metrics = draw_metrics(by_metric(summary))
    assert metrics is not None
    assert [t.get_text() for t in metrics.axes[0].get_yticklabels()] == ["RISE", "Saliency", "GradCAM"]
    assert draw_metrics({}) is None
    assert draw_ranks(summary.matches) is not None
    assert draw_ranks([]) is None


def test_mean_ranks_are_drawn_with_their_critical_difference(items: list[Item]) -> None:
    matches = summarize(rows_of(items)).matches
    figure = draw_differences(matches)
    assert figure is not None
    critical = matches[0].critical
    assert critical is not None
    words = [t.get_text().strip() for t in figure.axes[0].texts]
    assert f"critical difference {critical.difference:.2f}" in " ".join(words)
    for name, rank in zip(critical.names, critical.ranks, strict=True):
        assert any(name in w and f"{rank:.2f}" in w for w in words), name
    assert draw_differences([]) is None


def test_figures_are_files_that_do_not_change_by_themselves(items: list[Item], tmp_path: Path) -> None:
    summary = summarize(rows_of(items))
    written = [write_plates(draw_plates(items, summary), tmp_path / name) for name in ("one", "two")]
    assert {p.suffix for p in written[0].values()} == {".png", ".svg"}
    assert {name.rpartition("-")[2] for name in written[0]} >= {
        "metrics.png",
        "ranks.svg",
        "differences.png",
        "curves.svg",
    }
    for name, path in written[0].items():
        assert path.read_bytes() == written[1][name].read_bytes(), name


def test_the_page_tells_all_and_loads_nothing(items: list[Item], simulated: ModuleType) -> None:
    rows = rows_of(items)
    text = simulated.protocol({"metric": "Dice"}, {"metric": "reads.accuracy"})
    verdicts = gate(Bench(rows), parse_protocol(text))
    manifest = Manifest("A study <of> maps", "s", {"m": "weights"}, {"file 1": "x"})
    summary = summarize(rows)
    page = render_study(manifest, items, summary, draw_plates(items, summary), verdicts, ["21 items of 21 cases"])
    assert "<b>no image" not in page
    assert "&lt;b&gt;no image" in page
    assert "A study &lt;of&gt; maps" in page
    for words in (
        "Rollout",
        "PASS",
        "FAIL",
        "NOT MEASURED",
        "there is no table of reads",
        "Bonferroni",
        "Research use",
    ):
        assert words in page, words
    assert page.count('src="data:image/png;base64,') == 4, "metrics, ranks, differences, curves"
    assert "<script" not in page
    assert "http" not in page.replace("http-equiv", "")
