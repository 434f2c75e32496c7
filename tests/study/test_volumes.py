"""A study of real volumes: hippocampi of an open set, with the labels of experts."""

from collections.abc import Callable
from pathlib import Path

from pellucid.demo.cases import MODELS
from pellucid.study.folder import SCORES
from pellucid.study.table import read_rows

_COUNT = 2
PLAN = """
name = "hippocampi"
cases = "cases.csv"
targets = ["anterior hippocampus"]
methods = ["GradCAM", "Saliency"]
metrics = ["Dice", "Sparseness", "SurfaceDistance"]

[models]
hippocampus = "{model}"
"""


def test_volumes_with_regions_come_to_a_table(
    tmp_path: Path, shared_data: Path, pellucid: Callable[..., object]
) -> None:
    folder = shared_data / "mri_hippocampus"
    volumes = sorted((folder / "images").glob("*.nii.gz"))[:_COUNT]
    lines = ["image,region:hippocampus,patient"]
    lines += [f"{v},{folder / 'labels' / v.name},p{n}" for n, v in enumerate(volumes)]
    (tmp_path / "cases.csv").write_text("\n".join(lines) + "\n")
    (tmp_path / "study.toml").write_text(PLAN.format(model=(MODELS / "hippocampus").as_posix()))
    done = pellucid("study", "run", tmp_path / "study.toml", "--out", tmp_path / "out", "--json")
    assert done.code == 0, done.err
    rows = read_rows(tmp_path / "out" / SCORES)
    assert len(rows) == _COUNT * 2 * 3
    assert not [r.reason for r in rows if r.reason]
    by_metric = {m: [r.value for r in rows if r.metric == m] for m in ("Dice", "Sparseness", "SurfaceDistance")}
    assert all(0.1 < v < 1 for v in by_metric["Dice"])
    assert all(1 < v < 60 for v in by_metric["SurfaceDistance"]), "in mm, within the box"
    assert {r.unit for r in rows if r.metric == "SurfaceDistance"} == {"mm"}
