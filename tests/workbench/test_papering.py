"""The export for a paper: sizes, honesty and order of figures, tables and words; no name of a case anywhere."""

import csv
import hashlib
import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image as Picture
from typer.testing import CliRunner

from pellucid.cli.main import app
from pellucid.core.errors import PellucidError
from pellucid.core.explanation import Attribution, Explanation, Prediction, Provenance, Reference
from pellucid.core.grid import Calibration, Grid
from pellucid.core.image import Image, Modality
from pellucid.core.prepare import Prepared
from pellucid.io.archive import save_explanation
from pellucid.show.figure import sketch
from pellucid.show.plate import DOUBLE, PRINT_DPI, SINGLE, draw_plate, plate_bytes
from pellucid.statistics.interval import Interval
from pellucid.workbench.manuscript import Score, scores_csv, scores_tex, text_warning
from pellucid.workbench.papering import command, write_paper

CANARY = "ZZYZX-Miriam"


def explained(
    case: str = CANARY, method: str = "GradCAM", score: float = 2.0, shape: tuple[int, ...] = (40, 60)
) -> Explanation:
    grid = Grid.regular(shape, (0.8,) * len(shape), Calibration.DETECTOR)
    data = torch.linspace(0, 1, int(np.prod(shape))).view(1, *shape)
    image = Image(data, grid, Modality.XRAY, "[0,1]")
    values = torch.zeros(shape)
    values[10:20, 30:45] = 3.0
    made = Provenance(
        case, "a" * 64, "toy 1", "b" * 64, "c" * 64, "lesion", method, {"layer": None}, "features", None, 7, "float32",
        "cpu", (1, 1), (0, 0), 1.0, {"pellucid": "0", "torch": "2"}, "2026-01-01T00:00:00+00:00", "applies",
    )  # fmt: skip
    said = Prediction("lesion", score, "logit", 0.88, 0.5, "lesion", {"lesion": 0.88})
    answer = Attribution({"image": values[None, None]}, "logit", True, cell=(4.0,) * len(shape))
    prepared = Prepared(data, grid, grid, (0.0,), (1.0,))
    return Explanation(answer, made, said, image, prepared, Reference(4.0, 1.0, 0.05, 200, 100, "normals"))


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    source = tmp_path_factory.mktemp("results")
    scores = []
    for number, value in enumerate((0.2, 0.4, 0.7)):
        save_explanation(explained(f"{CANARY}-{number}"), source / f"{CANARY}-{number}", "GradCAM")
        row = {"method": "GradCAM", "target": "lesion", "metric": "DeletionAUC", "value": value, "unit": "logit",
               "direction": "lower", "settings": {}}  # fmt: skip
        scores.append({"scores": [row], "explanations": [{"model": "toy 1"}]})
    (source / "results.json").write_text(json.dumps({"cases": scores}), encoding="utf-8")
    folder = tmp_path_factory.mktemp("paper")
    done = CliRunner().invoke(app, ["paper", str(source), "--out", str(folder), "--json"])
    assert done.exit_code == 0, done.output
    told = json.loads(done.output)
    assert told["figures"] == 3
    assert any("burned into the pixels" in words for words in told["warnings"])
    return folder


def test_figures_have_the_width_of_a_column(written: Path) -> None:
    for width in (SINGLE, DOUBLE):
        with Picture.open(written / f"figure-1-GradCAM-{width:.0f}mm.tif") as figure:
            assert figure.mode == "RGB"
            assert figure.info["dpi"] == (PRINT_DPI, PRINT_DPI)
            assert figure.info["compression"] == "tiff_lzw"
            assert abs(figure.width / PRINT_DPI * 25.4 - width) < 0.2
            pixels = np.asarray(figure, float)
            assert (pixels[0] == 255).all()  # a white ground
            assert np.ptp(pixels, axis=-1).max() > 60  # the map is in color
    assert b"mm at the detector" not in (written / "figure-1-GradCAM-85mm.svg").read_bytes()  # drawn as outlines
    assert (written / "figure-1-GradCAM-85mm.pdf").read_bytes().startswith(b"%PDF")


def test_no_file_names_a_case_or_a_time(written: Path) -> None:
    for path in written.iterdir():
        assert CANARY not in path.name
        content = path.read_bytes()
        assert CANARY.encode() not in content, path.name
        assert b"CreationDate" not in content, path.name


def test_tables_hold_intervals(written: Path) -> None:
    row = next(csv.DictReader(io.StringIO((written / "scores.csv").read_text())))
    assert (row["metric"], row["n"], row["undefined"]) == ("DeletionAUC", "3", "0")
    assert float(row["mean"]) == pytest.approx(1.3 / 3, rel=1e-5)
    assert float(row["low"]) < float(row["mean"]) < float(row["high"])
    assert "bootstrap" in row["how"]
    table = (written / "scores.tex").read_text()
    assert r"DeletionAUC (logit), lower is better & 0.433 [" in table


def test_words_name_method_scale_fill_and_sources(written: Path) -> None:
    caption = (written / "captions.md").read_text().split("\n\n")[1]
    for words in ("Figure 2.", "case 2", "[@selvaraju2017gradcam]", "Fixed scale: full strength at 4 logit",
                  "Null 1 logit", "Fill: none", "Native resolution 3.2", "not for diagnosis"):  # fmt: skip
        assert words in caption
    methods = (written / "methods.md").read_text()
    assert "3 cases" in methods
    assert "Seed 7" in methods
    bib = (written / "references.bib").read_text()
    assert "{selvaraju2017gradcam," in bib
    assert "{mongan2020claim," in bib
    claim = (written / "claim.md").read_text()
    assert "| 31 |" in claim
    assert "not written here" not in claim


def test_the_bundle_makes_every_map_again(written: Path) -> None:
    bundle = json.loads((written / "reproduction.json").read_text())
    assert [m["case"] for m in bundle["maps"]] == [1, 2, 3]
    assert bundle["maps"][0]["command"] == (
        "pellucid explain IMAGE --model MODEL --out OUT --target 'lesion' --method 'GradCAM' --seed 7 "
        "--precision float32"
    )
    assert bundle["maps"][0]["image_sha256"] == "a" * 64
    for name, digest in bundle["files_sha256"].items():
        assert hashlib.sha256((written / name).read_bytes()).hexdigest() == digest
    quoted = explained(method="Occlusion")
    assert "--target 'lesion'" in command(quoted.provenance)


def test_the_same_results_give_the_same_bytes() -> None:
    one = explained()
    assert one.image is not None
    first, second = (plate_bytes(draw_plate(sketch(one), one.image, SINGLE)) for _ in range(2))
    assert first == second


def test_figures_of_an_earlier_paper_go_unless_somebody_edited_them(tmp_path: Path) -> None:
    for method in ("GradCAM", "Saliency"):
        save_explanation(explained(method=method), tmp_path / "two" / "x", method)
    save_explanation(explained(), tmp_path / "one" / "x", "GradCAM")
    out = tmp_path / "out"
    write_paper(tmp_path / "two", out)
    old = sorted(path for path in out.iterdir() if path.name.startswith("figure-2"))
    assert len(old) == 6
    old[0].write_bytes(b"edited")
    (out / "figure-9-mine.svg").write_text("<svg/>")
    write_paper(tmp_path / "one", out)
    assert [path.exists() for path in old] == [True] + [False] * 5
    assert (out / "figure-9-mine.svg").exists()


def test_a_withheld_map_is_in_no_figure(tmp_path: Path) -> None:
    save_explanation(explained(score=-1.0), tmp_path / "in" / "x", "GradCAM")
    done = write_paper(tmp_path / "in", tmp_path / "out")
    pixels = np.asarray(Picture.open(done.files["figure-1-GradCAM-85mm.tif"]), float)
    assert np.ptp(pixels, axis=-1).max() < 12
    assert "no map of GradCAM" in (tmp_path / "out" / "captions.md").read_text()


def test_cells_of_a_table_cannot_run_and_latex_is_escaped() -> None:
    mean = Interval(1.0, float("nan"), float("nan"), 0.95, 1, 1, 0, "")
    scores = (Score("m_1", "=HYPERLINK()", "A&B", "IoU", "1", "higher", mean),)
    assert "'=HYPERLINK()" in scores_csv(scores)
    assert r"m\_1" in scores_tex(scores)
    assert r"A\&B" in scores_tex(scores)
    assert r"& 1 (1) \\" in scores_tex(scores)


def test_burned_in_text_is_warned_of() -> None:
    one = explained().image
    assert one is not None
    said = Image(one.data, one.grid, Modality.CT, traits={"burned_in": "YES"})
    assert "before you have looked" in text_warning(said)
    assert text_warning(Image(one.data, one.grid, Modality.ULTRASOUND, traits={"burned_in": "NO"})) == ""
    assert "look at each figure" in text_warning(Image(one.data, one.grid, Modality.ULTRASOUND))
    assert text_warning(Image(one.data, one.grid, Modality.CT)) == ""


def test_an_image_that_says_to_hold_text_has_no_figure_until_somebody_looked(tmp_path: Path) -> None:
    one = explained()
    assert one.image is not None
    image = Image(one.image.data, one.image.grid, Modality.CT, traits={"burned_in": "YES"})
    save_explanation(replace(one, image=image), tmp_path / "in" / "x", "GradCAM")
    done = write_paper(tmp_path / "in", tmp_path / "out")
    assert done.figures == 0
    assert not list((tmp_path / "out").glob("figure*"))
    assert any("--allow-burned-in" in words for words in done.warnings)
    allowed = write_paper(tmp_path / "in", tmp_path / "looked", allow_text=True)
    assert allowed.figures == 1
    assert any("burned into the pixels" in words for words in allowed.warnings)


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PellucidError, match="neither saved explanations nor scores"):
        write_paper(tmp_path, tmp_path / "out")


def test_a_study_gives_its_tables_and_what_it_was_made_from(tmp_path: Path) -> None:
    mean = Interval(0.5, 0.4, 0.6, 0.95, 20, 10, 1, "BCa bootstrap, B=2000, seed 0, 10 clusters")
    scores = (Score("m", "lesion", "Occlusion:window=14", "IoU", "1", "higher", mean),)
    done = write_paper(tmp_path, tmp_path / "out", scores, {"name": "films", "settings": "d" * 64, "stopped": None})
    assert done.figures == 0
    methods = done.files["methods.md"].read_text()
    assert "Occlusion:window=14 [@zeiler2014visualizing]" in methods
    assert "10 clusters" in methods
    assert "{zeiler2014visualizing," in done.files["references.bib"].read_text()
    bundle = json.loads(done.files["reproduction.json"].read_text())
    assert bundle["study"]["settings"] == "d" * 64
    assert bundle["maps"] == []
