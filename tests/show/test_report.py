"""The page of a case: what must stand on it, what must never, and that it needs nothing but itself."""

import base64
import io
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch

import pellucid.show
from pellucid.core.case import Case, Region
from pellucid.core.errors import UnwritableOutput
from pellucid.core.image import Modality
from pellucid.show.curves import draw_score_curves
from pellucid.show.measures import listed, matrix_of
from pellucid.show.report import entry_of, render_index, render_report, worst, write_index, write_report
from pellucid.show.sections import CaseReport, Check, Curve, MapPanel, MetricNote, PerformanceRow, ScoreRow

HOSTILE = '"><img src=x onerror=alert(1)><script>alert(2)</script>'
FORBIDDEN = re.compile(r"probab|confiden|\bproof|\bproven\b|certif|\btrust", re.IGNORECASE)
HIT = MetricNote("HitRate", "localization", "whether the peak lies in the region", "how much else it marks", "higher")
AUC = MetricNote("DeletionAUC", "faithfulness", "how fast the score falls", "it depends on the fill", "lower")
VOID = {"meta", "img", "input", "br", "link"}


class Page(HTMLParser):
    """A page as a tree of open tags: what stands where."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open, self.tags, self.links, self.images, self.words = [], [], [], [], []
        self.feed(text)
        assert not self.open, f"unclosed: {self.open}"

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        assert not any(name.startswith("on") for name in values), values
        self.tags.append(tag)
        self.links += [values[k] for k in ("href", "src", "action", "data", "poster", "srcset") if k in values]
        if tag == "img":
            self.images.append((values, tuple(self.open)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if data.strip() and "style" not in self.open and "title" not in self.open:
            self.words.append((" ".join(data.split()), tuple(self.open)))

    @property
    def text(self) -> str:
        return " ".join(w for w, _ in self.words)


@pytest.fixture
def report(make):
    def build(**changes) -> CaseReport:
        e = changes.pop("explanation", None) or make(signed=False)
        case = changes.pop("case", None) or Case("case-1", {"image": e.image})
        values = {
            "case": case,
            "image": e.image,
            "applicability": Check("Applicability", "pass", "the image is of the kind that the model card names"),
            "golden": Check("Golden vectors", "pass", "3 of 3 reproduced"),
            "prediction": e.prediction,
            "maps": (MapPanel(e, "GradCAM", "coarse regions", "misses small targets", "Selvaraju et al. 2017"),),
            "scores": (ScoreRow(AUC, "GradCAM", 0.31), ScoreRow(HIT, "GradCAM", None, "no expert or planted region")),
            "facts": {"Intended use": "demonstration", "License": "Apache-2.0", "Clearance": "none: research"},
            "performance": (PerformanceRow("AUC", "0.91", "0.87 to 0.94", "120 held-out films"),),
            "checks": (Check("Completeness", "pass", "within 0.1%"),),
            "warnings": ("lossy compression",),
            "skipped": (("LRP", "the model hides its operations"),),
        }
        return CaseReport(**(values | changes))

    return build


def test_the_first_line_is_the_verdict_then_the_research_mark(report):
    page = Page(render_report(report()))
    first = [w for w, where in page.words if "div" in where][:5]
    assert page.words[0][0] == "pass"
    assert "the image is of the kind that the model card names" in " ".join(first)
    assert "3 of 3 reproduced" in " ".join(first)
    after = next(i for i, (w, _) in enumerate(page.words) if w.startswith("Research use"))
    assert after == 4
    assert "not a medical device" in page.words[4][0]


def test_a_refused_case_says_so_first_and_explains_nothing(report):
    refused = report(
        applicability=Check("Applicability", "fail", "the model is for fundus"), maps=(), scores=(), prediction=None
    )
    html = render_report(refused)
    page = Page(html)
    assert page.words[0][0] == "fail"
    assert "the model is for fundus" in page.words[1][0]
    assert 'class="verdict fail"' in html
    assert "Nothing is explained for this case." in page.text
    assert len(page.images) == 1


@pytest.mark.parametrize(
    ("states", "expected"),
    [(("pass", "pass"), "pass"), (("pass", "fail"), "fail"), (("not measured", "pass"), "not measured"),
     (("inconclusive", "not measured"), "inconclusive")],
)  # fmt: skip
def test_the_worse_of_two_verdicts_colors_the_line(report, states, expected):
    made = report(applicability=Check("a", states[0], ""), golden=Check("g", states[1], ""))
    assert worst(made) == expected


def test_the_page_needs_nothing_but_itself(report):
    page = Page(render_report(report(), back="index.html"))
    assert all(link.startswith("data:image/png;base64,") or link == "index.html" for link in page.links)
    assert not {"script", "iframe", "link", "object", "embed", "form"} & set(page.tags)
    css = Path(pellucid.show.__file__).with_name("templates") / "style.css"
    assert "url(" not in css.read_text("utf-8")
    assert "@import" not in css.read_text("utf-8")
    for values, _ in page.images:
        picture = PIL.Image.open(io.BytesIO(base64.b64decode(values["src"].split(",")[1])))
        assert (str(picture.width), str(picture.height)) == (values["width"], values["height"])
        assert len(values["alt"]) > 10


def test_everything_a_reader_must_know_is_there(report):
    text = Page(render_report(report())).text
    for words in (
        "misses small targets", "coarse regions", "Selvaraju et al. 2017", "the model score is saturated",
        "lossy compression",
        "8 forwards of its own, 1 forward + 1 backward shared", "local mean",
        "features.3", "native resolution",
        "200 cases (formula-made normals)", "model score 0.88 (2 logit); at or above the operating point 0.5 logit",
        "No reference region: agreement with an expert is not measured.", "0.87 to 0.94", "none: research",
        "120 held-out films",
        "Calculation checks say nothing about whether the model is right.",
        "the model hides its operations", "b" * 64,
        "undefined [1]", "no expert or planted region", "no millimeters known", "within 0.1%", "lower is better",
    ):  # fmt: skip
        assert words in text, words


def test_the_bare_image_comes_before_any_map_and_the_wash_on_request(report):
    html = render_report(report())
    page = Page(html)
    alts = [values["alt"] for values, _ in page.images]
    assert "without any map" in alts[0]
    assert alts[1].startswith("the image, then the image with a line")
    assert alts[2].startswith("the map of GradCAM")
    assert len(alts) == 3
    assert '<figure class="wash">' in html
    assert re.search(r"\.map \.wash \{[^}]*display: none", html)
    assert 'id="wash"><label' in html  # unchecked


def test_below_the_operating_point_no_map_is_visible(report, make):
    e = make(signed=False)
    low = replace(e, prediction=replace(e.prediction, value=0.2))
    page = Page(render_report(report(explanation=low, prediction=low.prediction)))
    for values, where in page.images[1:]:
        assert "details" in where
        assert "shown on request" in values["alt"]
    assert "details" not in page.images[0][1]
    assert "score below threshold (0.2 < 0.5 logit): no map is shown" in page.text
    assert not any("details" in where and "open" in where for _, where in page.words)
    summary = [w for w, where in page.words if where[-1] == "summary"]
    assert summary == ["Show anyway"]
    assert "0.31" not in page.text  # measures of maps that are not shown


@pytest.mark.parametrize("unit", ["logit", "probability"])
def test_no_word_promises_more_than_a_model_score(report, make, unit):
    e = make(unit=unit, signed=False)
    e = replace(e, prediction=replace(e.prediction, unit=unit))
    low = replace(e, prediction=replace(e.prediction, value=0.2))
    for one in (e, low, replace(e, reference=None), replace(e, prediction=None)):
        page = Page(render_report(report(explanation=one, prediction=one.prediction)))
        words = page.text + " ".join(values["alt"] for values, _ in page.images)
        assert not FORBIDDEN.search(words), FORBIDDEN.search(words)


def test_no_template_or_sentence_promises_more():
    for file in Path(pellucid.show.__file__).parent.rglob("*"):
        if file.suffix in (".j2", ".css", ".toml"):
            assert not FORBIDDEN.search(file.read_text("utf-8")), file.name


def test_hostile_names_stay_text(report, make, stated):
    e = make(signed=False, provenance=stated(case=HOSTILE, target=HOSTILE, method=HOSTILE, warnings=(HOSTILE,)))
    e = replace(e, prediction=replace(e.prediction, label=HOSTILE, scores={HOSTILE: 0.9, "b": 0.1}))
    case = Case(HOSTILE, {"image": e.image}, notes=(HOSTILE,), label=HOSTILE, group=HOSTILE)
    made = report(
        explanation=e, case=case, prediction=e.prediction, facts={HOSTILE: HOSTILE}, warnings=(HOSTILE,),
        checks=(Check(HOSTILE, "fail", HOSTILE),), skipped=((HOSTILE, HOSTILE),),
        maps=(MapPanel(e, HOSTILE, HOSTILE, HOSTILE, HOSTILE),), scores=(ScoreRow(HIT, HOSTILE, None, HOSTILE),),
    )  # fmt: skip
    page = Page(render_report(made))
    assert "script" not in page.tags
    assert all(v["src"].startswith("data:") for v, _ in page.images)
    assert page.text.count("onerror=alert(1)") > 10
    index = Page(render_index([entry_of(made, "a.html")], HOSTILE))
    assert "script" not in index.tags


def test_a_reference_region_brings_its_scores(report, make):
    e = make(signed=False)
    mask = torch.zeros(24, 32, dtype=torch.bool)
    mask[3:9, 4:10] = True
    case = Case("case-1", {"image": e.image}, {"tumor": Region(mask, e.image.grid, "planted")}, notes=("PLANTED disk",))
    scores = (ScoreRow(HIT, "GradCAM", 1.0, region="tumor"), ScoreRow(HIT, "blob in the middle", 0.0))
    text = Page(render_report(report(explanation=e, case=case, region="tumor", scores=scores))).text
    assert "No reference region" not in text
    assert "Agreement with the reference region HitRate 1" in text
    assert "blob in the middle" in text
    assert "PLANTED" in text


def test_a_map_without_a_null_is_shown_with_its_label(report, make):
    e = replace(make(signed=False), reference=None)
    page = Page(render_report(report(explanation=e)))
    assert len(page.images) == 2
    assert "scale of this image only: not comparable" in page.text
    assert "no region is drawn" in page.text


def test_blank_and_negative_maps_are_said_in_words(report, make):
    for values, words in (
        (torch.zeros(24, 32), "blank: every value of this map is 0"),
        (-torch.ones(24, 32), "all values are negative"),
    ):
        assert words in Page(render_report(report(explanation=make(values)))).text


def test_the_table_keeps_maps_before_baselines_and_numbers_reasons():
    rows = [
        ScoreRow(HIT, "blob", 0.0), ScoreRow(HIT, "B", float("nan"), "flat"),
        ScoreRow(HIT, "A", 1.0, beside=("chance 0.04",), given=("radius 2 mm",)),
        ScoreRow(AUC, "A", None, "flat"), ScoreRow(AUC, "B", None, "no score"),
    ]  # fmt: skip
    table = matrix_of(rows, ["A", "B", "C"])
    assert table.columns == ("A", "B", "blob")
    assert [(r.name, r.given, [c.words for c in r.cells]) for r in table.rows] == [
        ("DeletionAUC", "", ["undefined [1]", "undefined [2]", ""]),
        ("HitRate", "radius 2 mm", ["1", "undefined [1]", "0"]),
    ]
    assert [c.beside for c in table.rows[1].cells] == [("chance 0.04",), (), ()]
    assert table.reasons == ("flat", "no score")
    assert matrix_of([], ["A"]).rows == ()


def test_beside_a_map_distances_have_their_unit_and_one_reason_is_said_once():
    far = replace(HIT, name="SurfaceDistance", unit="mm")
    rows = [ScoreRow(HIT, "A", None, "one reader"), ScoreRow(far, "A", 3.0), ScoreRow(AUC, "A", None, "one reader")]
    assert listed(rows) == (("SurfaceDistance", "3 mm"), ("HitRate, DeletionAUC", "undefined: one reader"))


def test_faithfulness_comes_first_in_the_table():
    measured = ("complexity", "clinical utility", "robustness", "localization", "faithfulness")
    rows = [ScoreRow(replace(HIT, name=m, measures=m), "A", 1.0) for m in measured]
    order = ["faithfulness", "localization", "robustness", "complexity", "clinical utility"]
    assert [row.measures for row in matrix_of(rows, ["A"]).rows] == order


def test_areas_are_drawn_above_the_table_and_single_numbers_are_not():
    curve = Curve((0.0, 0.5, 1.0), (2.0, 0.5, 0.0), (2.0, 1.0, 0.0), "probability")
    rows = [ScoreRow(AUC, "A", 0.75, curve=curve), ScoreRow(AUC, "B", 0.75, curve=replace(curve, random=()))]
    figure = draw_score_curves([*rows, ScoreRow(HIT, "A", 1.0)])
    assert figure is not None
    drawn = [axes for axes in figure.axes if axes.axison]
    assert [axes.get_title(loc="left") for axes in drawn] == ["DeletionAUC: lower is better"]
    assert [line.get_label() for line in drawn[0].lines] == ["A", "B", "random order"]
    assert drawn[0].get_ylabel() == "score (model score)"
    assert draw_score_curves([ScoreRow(HIT, "A", 1.0)]) is None


def test_the_overview_links_relatively_and_shows_no_map(report, make):
    made = report(case=Case("x", {"image": make().image}, notes=("PLANTED disk",)))
    entry = entry_of(made, "x/report.html")
    page = Page(render_index([entry, entry]))
    assert [link for link in page.links if not link.startswith("data:")] == ["x/report.html"] * 2
    assert "2 cases" in page.text
    assert "PLANTED" in page.text
    assert "model score 0.88" in page.text
    plain = entry_of(report(), "x/report.html").thumbnail
    picture = np.asarray(PIL.Image.open(io.BytesIO(base64.b64decode(plain.split(",")[1]))))
    inner = picture[60:-40, 60:-40].astype(int)
    assert np.ptp(inner, axis=-1).max() == 0  # gray: the X-ray alone


def test_pages_are_written_whole_or_not_at_all(report, tmp_path, monkeypatch):
    made = report()
    path = write_report(made, tmp_path / "report.html")
    index = write_index([entry_of(made, path.name)], tmp_path / "index.html")
    assert [p.name for p in sorted(tmp_path.iterdir())] == ["index.html", "report.html"]
    assert path.read_text("utf-8").startswith("<!doctype html>")
    assert index.stat().st_mode & 0o777 == 0o644
    with pytest.raises(UnwritableOutput, match=r"folder that can be written"):
        write_report(made, tmp_path / "absent" / "report.html")

    def full(self, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(UnwritableOutput, match="No space left"):
        write_index([], tmp_path / "index.html")
    assert [p.name for p in sorted(tmp_path.iterdir())] == ["index.html", "report.html"]


def test_a_volume_says_what_its_sides_are(report, make, coded):
    grid = coded((20, 22, 18), "RAS", (1.0, 1.0, 2.0))
    e = make(torch.rand(20, 22, 18) * 3, grid=grid, modality=Modality.MRI)
    text = Page(render_report(report(explanation=e))).text
    assert "patient right is on image left" in text
    assert "axial slice" in text
    flat = Page(render_report(report())).text
    assert "patient right" not in flat
    stated = replace(
        make(signed=False), image=replace(make().image, grid=replace(make().image.grid, letters=("F", "L")))
    )
    assert "letters stand at the sides" in Page(render_report(report(explanation=stated))).text
    assert "sides are named as sides of the image" in flat


def test_where_nothing_rises_above_the_null_no_wash_and_no_place_is_given(report, make):
    page = Page(render_report(report(explanation=make(torch.rand(24, 32) * 0.9))))
    assert len(page.images) == 2
    assert "stays below its null 1" in page.text
    assert "Peak" not in page.text


def test_a_sentence_of_the_case_is_not_repeated_with_every_map(report, make, stated):
    e = make(signed=False, provenance=stated(warnings=("made by formula", "lossy compression", "blank layer")))
    case = Case("case-1", {"image": e.image}, notes=("made by formula",))
    words = [w for w, _ in Page(render_report(report(explanation=e, case=case))).words]
    assert [words.count(w) for w in ("made by formula", "lossy compression", "blank layer")] == [1, 1, 1]
