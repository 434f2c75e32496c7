"""One image of several, and tiles of a slide, from the command line."""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image as Picture

from pellucid import demo

VESSELS = Path(demo.__file__).parent / "models" / "vessels" / "model.toml"
QUICK = ("--model", VESSELS, "--override", "--method", "Saliency", "--no-checks", "--no-viewer", "--json")


@pytest.fixture
def slide(tmp_path: Path, shared_data: Path) -> Path:
    """Two pieces of stained tissue on glass, half a micron a pixel."""
    source = min((shared_data / "histology_nuclei" / "images").iterdir())
    stained = np.asarray(Picture.open(source).convert("RGB"))[:512, :512]
    glass = np.full((1024, 1536, 3), 243, np.uint8)
    glass[:512, 512:1024] = stained
    glass[512:, 1024:] = stained[::-1]
    options = {"tile": (256, 256), "photometric": "rgb", "compression": "jpeg"}
    with tifffile.TiffWriter(tmp_path / "biopsy.tif", ome=True) as writer:
        sizes = {"axes": "YXS", "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5}
        writer.write(glass, subifds=1, metadata=sizes, **options)
        writer.write(glass[::2, ::2], subfiletype=1, **options)
    return tmp_path / "biopsy.tif"


def test_the_tiles_with_most_tissue_are_explained(pellucid: Callable, slide: Path, tmp_path: Path) -> None:
    done = pellucid("explain", slide, "--tiles", 2, *QUICK, "--out", tmp_path / "out")
    assert done.code == 0, done.err
    assert sorted(c["case"] for c in done.json["cases"]) == ["biopsy-x1024-y512", "biopsy-x512-y0"]
    assert all((tmp_path / "out" / c["case"]).is_dir() for c in done.json["cases"])


def test_a_range_of_frames_is_explained(pellucid: Callable, tmp_path: Path, shared_data: Path) -> None:
    source = min((shared_data / "endoscopy_polyp" / "kvasir" / "images").iterdir())
    frame = np.asarray(Picture.open(source).convert("RGB").resize((160, 128)))
    writer = cv2.VideoWriter(str(tmp_path / "loop.mp4"), cv2.VideoWriter_fourcc(*"mp4v"), 25, (160, 128))
    for number in range(12):
        writer.write(np.ascontiguousarray(np.roll(frame, number, axis=1)[..., ::-1]))
    writer.release()
    done = pellucid("explain", tmp_path / "loop.mp4", "--index", "2:12:8", *QUICK, "--out", tmp_path / "out")
    assert done.code == 0, done.err
    assert [c["case"] for c in done.json["cases"]] == ["loop-2", "loop-10"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--tile", "9999,0"), "inside 1536 x 1024 pixels"),
        (("--tile", "here"), "--tile X,Y or X,Y,W,H"),
        (("--tile", "0,0", "--tiles", "2"), "one of --index, --tile and --tiles"),
        (("--tile", "0,0", "--index", "2"), "one of --index, --tile and --tiles"),
        (("--tile", "0,0", "--tile", "0,0"), "each tile once"),
        (("--mpp", "0.5"), "none were asked for"),
        (("--tiles", "2", "--mpp", "0.1"), "at least 0.5 microns per pixel"),
        (("--index", "many"), "a number, a range or axes for --index"),
    ],
)
def test_what_makes_no_sense_is_refused(
    pellucid: Callable, slide: Path, tmp_path: Path, words: tuple[str, ...], told: str
) -> None:
    done = pellucid("explain", slide, *words, "--model", VESSELS, "--out", tmp_path / "out")
    assert done.code == 2
    assert told in done.err
