"""``pellucid cohort`` on a folder, a table with labels and a real cohort; what cannot be is refused with the mend."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pellucid.core.explanation import Effect, Effects
from pellucid.demo.cases import MODELS
from pellucid.show.effects import cells, draw_curves, draw_effects, further_tables, headings, left_out

Command = Callable[..., object]
PNEUMONIA = MODELS / "pneumonia" / "model.toml"


def films(folder: Path, images: np.ndarray, labels: list[str]) -> Path:
    """Pictures with a table of their labels."""
    folder.mkdir()
    lines = ["image,label,group,covariate:age"]
    for n, (image, label) in enumerate(zip(images, labels, strict=True)):
        Image.fromarray(image).save(folder / f"film{n}.png")
        lines.append(f"film{n}.png,{label},site {n % 2},{n}")
    (folder / "cases.csv").write_text("\n".join(lines) + "\n")
    return folder / "cases.csv"


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """Eight films of noise."""
    noise = np.random.default_rng(0).integers(0, 255, (8, 40, 40), dtype=np.uint8)
    return films(tmp_path / "films", noise, ["normal", "pneumonia"] * 4)


@pytest.fixture
def real(tmp_path: Path, shared_data: Path) -> Path:
    """Forty real films."""
    stored = np.load(shared_data / "xray_pneumoniamnist" / "pneumoniamnist.npz")
    images, truth = stored["test_images"], stored["test_labels"].ravel()
    chosen = np.r_[np.flatnonzero(truth == 0)[:20], np.flatnonzero(truth == 1)[:20]]
    return films(tmp_path / "real", images[chosen], [("normal", "pneumonia")[truth[i]] for i in chosen])


def test_a_real_cohort(pellucid: Command, real: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = pellucid("cohort", real, "--model", PNEUMONIA, "--method", "PermutationImportance", "--out", out, "--json")
    assert done.code == 0, done.err
    assert done.json == json.loads((out / "results.json").read_text())
    rows = done.json["effects"]["rows"]
    assert len(rows) == 9
    assert all(row["n"] == 40 and row["low"] <= row["estimate"] <= row["high"] for row in rows)
    assert any(row["low"] > 0 for row in rows), "the network looks at something in the middle of the film"
    made = done.json["provenance"]
    assert (made["case"], made["target"], made["method"]) == ("40 cases", "pneumonia", "PermutationImportance")
    assert made["own"][0] == 40 * (1 + 9 * 10) + 1, "and one for the name of the target"
    page = (out / "cohort.html").read_text()
    assert "Research use" in page
    assert "collage" in page
    assert "increase of the log loss" in page
    assert str(tmp_path) not in page


def test_regions_of_a_label_map(pellucid: Command, made: Path, tmp_path: Path) -> None:
    labels = np.zeros((40, 40), np.uint8)
    labels[:, :20], labels[:, 30:] = 1, 2
    Image.fromarray(labels).save(tmp_path / "atlas.png")
    (tmp_path / "names.csv").write_text("1,right lung\n2,left lung\n")
    atlas = f"{tmp_path / 'atlas.png'}:{tmp_path / 'names.csv'}"
    words = ["cohort", made, "--model", PNEUMONIA, "--out", tmp_path / "out", "--region-atlas", atlas]
    done = pellucid(*words, "--method", "PermutationImportance:repeats=2,within_groups=true")
    assert done.code == 0, done.err
    assert "right lung" in done.out
    assert "left lung" in done.out


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["--method", "PermutationImportance:repeats=0"], "at least one repeat"),
        (
            ["--method", "GradCAM"],
            "no cohort method named 'GradCAM'. GradCAM explains one case: pellucid explain takes it",
        ),
        (["--method", "PermutationImportance", "--blocks", "1"], "at least 2 blocks"),
        (["--method", "PermutationImportance", "--target", "cat"], "cat"),
    ],
)
def test_what_cannot_be(pellucid: Command, made: Path, tmp_path: Path, words: list[str], problem: str) -> None:
    done = pellucid("cohort", made, "--model", PNEUMONIA, "--out", tmp_path / "out", *words)
    assert done.code == 2
    assert problem in done.err


def test_one_case_is_refused_with_the_mend(pellucid: Command, made: Path, tmp_path: Path) -> None:
    words = ["--model", PNEUMONIA, "--method", "PermutationImportance", "--out", tmp_path / "out"]
    done = pellucid("cohort", made.parent / "film0.png", *words)
    assert done.code == 2
    assert "needs at least 2, got 1" in done.err
    assert "pellucid explain" in done.err


def test_cases_are_given_once(pellucid: Command, made: Path, tmp_path: Path) -> None:
    words = ["--model", PNEUMONIA, "--method", "GlobalSurrogate", "--out", tmp_path / "out"]
    for given in ([], [made, "--cases", made]):
        done = pellucid("cohort", *given, *words)
        assert done.code == 2
        assert "expected one folder or table of cases" in done.err


@pytest.mark.parametrize(
    ("text", "method", "problem"),
    [
        ("image,label\nfilm0.png,pneumonia\nfilm1.png,pneumonia\n", "PermutationImportance", "with and without"),
        ("image,sex\nfilm0.png,f\n", "PermutationImportance", "rename or remove"),
        ("image,covariate:sex\nfilm0.png,f\n", "PermutationImportance", "sex as 0 and 1"),
        ("image,covariate:age\nfilm0.png,nan\n", "PermutationImportance", "expected a finite number"),
        ("image\nfilm0.png\nfilm1.png\n", "AcquisitionSensitivity:trajectories=0", "at least 2 trajectories"),
        ("image\nfilm0.png\nfilm1.png\n", "PermutationImportance:over=covariates", "takes no covariates"),
        ("image\nfilm0.png\nfilm1.png\n", "AblationStudy:over=heads", "no attention"),
    ],
)
def test_a_table_that_cannot_be_used(
    pellucid: Command, made: Path, tmp_path: Path, text: str, method: str, problem: str
) -> None:
    made.write_text(text)
    done = pellucid(
        "cohort", "--cases", made.parent, "--model", PNEUMONIA, "--method", method, "--out", tmp_path / "out"
    )
    assert done.code == 2
    assert problem in done.err


def test_a_bad_case_is_listed_and_the_others_are_used(pellucid: Command, made: Path, tmp_path: Path) -> None:
    (made.parent / "film3.png").write_bytes(b"not a picture")
    words = ["--model", PNEUMONIA, "--method", "PermutationImportance:repeats=1", "--out", tmp_path / "out", "--json"]
    done = pellucid("cohort", made, *words)
    assert done.code == 2
    assert len(done.json["cases"]) == 7
    assert len(done.json["failures"]) == 1
    assert any("left out" in w for w in done.json["provenance"]["warnings"])


def test_the_figure_and_the_table() -> None:
    rows = tuple(Effect(f"part {n}", 1.0 - n, 0.5 - n, 1.5 - n, 12, {"sigma": 0.25}) for n in range(45))
    effects = Effects((*rows, Effect("bare", 0.0, None, None, 3)), "loss increase", "nat", "95 % interval")
    assert headings(effects) == ("", "loss increase (nat)", "95 % interval", "n", "sigma")
    assert cells(effects)[0] == ("part 0", "1", "0.5 to 1.5", "12", "0.25")
    assert cells(effects)[-1] == ("bare", "0", "none", "3", "\u2014")
    assert left_out(effects) == "the figure shows the first 40 of 46 rows"
    axes = draw_effects(effects, "title").axes[0]
    assert len(axes.patches) == 40
    assert [p.get_width() for p in axes.patches[:2]] == [1.0, 0.0]
    assert axes.patches[0].get_y() > axes.patches[1].get_y(), "the first row stands on top"


def test_what_may_be_either_sign_is_pale() -> None:
    rows = (Effect("sure", 1.0, 0.5, 1.5, 9), Effect("either", 0.2, -0.1, 0.5, 9), Effect("bare", 0.1, None, None, 9))
    axes = draw_effects(Effects(rows, "fall", "logit", "95 % interval"), "title").axes[0]
    assert [bar.get_alpha() == 1 for bar in axes.patches] == [True, False, True]
    assert "pale: the interval holds 0" in axes.get_xlabel()


def test_curves_stand_in_the_order_of_the_rows_and_other_tables_apart() -> None:
    def curve(height: float) -> dict[str, tuple[float, ...]]:
        low, high = (height - 1, height), (height + 1, height + 2)
        return {"value": (0.0, 1.0), "mean": (height, height + 1), "low": low, "high": high, "case a": (0.0, height)}

    tables = {"curve of b": curve(1), "curve of a": curve(2), "by case": {"a": (1.0,)}, "fidelity": {"R2": (0.5,)}}
    rows = (Effect("a", 1.0, 0.5, 1.5, 9), Effect("b", 0.5, 0.1, 0.9, 9))
    effects = Effects(rows, "rise", "logit", "95 % interval", tables=tables)
    figure = draw_curves(effects)
    assert figure is not None
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["a", "b"]
    assert [len(axes.lines) for axes in figure.axes] == [2, 2]
    assert list(figure.axes[0].lines[1].get_ydata()) == [2, 3]
    assert further_tables(effects) == (("fidelity", ("R2",), (("0.5",),)),)
    assert draw_curves(Effects(rows, "rise", "logit", "95 % interval")) is None
