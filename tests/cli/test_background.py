"""``pellucid explain --background``: normal cases that ExpectedGradients compares with."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

Command = Callable[..., object]


def pictures(folder: Path, values: list[int]) -> Path:
    folder.mkdir()
    for n, value in enumerate(values):
        image = np.full((64, 64), value, np.uint8)
        image[::2] = n
        Image.fromarray(image).save(folder / f"{n}.png")
    return folder


def test_expected_gradients_compare_with_normal_cases(pellucid: Command, classifier: Path, tmp_path: Path) -> None:
    case = pictures(tmp_path / "case", [200]) / "0.png"
    words = ["explain", case, "--model", classifier, "--target", "finding", "--trust-code", "--no-checks", "--json"]
    words += ["--method", "ExpectedGradients:samples=6"]
    normals = pictures(tmp_path / "normals", [10, 40, 90])
    done = pellucid(*words, "--background", normals, "--out", tmp_path / "out")
    assert done.code == 0, done.err
    made = done.json["cases"][0]["explanations"][0]
    assert "3 background items" in str(made["infill"])
    alone = pellucid(*words, "--out", tmp_path / "alone").json["cases"][0]["explanations"][0]
    assert "background" not in str(alone["infill"])


def test_a_background_that_cannot_be_read_is_refused(pellucid: Command, classifier: Path, tmp_path: Path) -> None:
    case = pictures(tmp_path / "case", [200]) / "0.png"
    normals = pictures(tmp_path / "normals", [10, 40])
    (normals / "1.png").write_bytes(b"no picture")
    done = pellucid(
        "explain", case, "--model", classifier, "--trust-code", "--background", normals, "--out", tmp_path / "out"
    )
    assert done.code == 2
    assert "UnreadableImage" in done.err
