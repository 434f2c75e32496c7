"""What the viewer's page holds: values, places and colors of the originals, and nothing that could run."""

import base64
import gzip
import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
import torch

from pellucid.core.case import Case, Region
from pellucid.core.explanation import Explanation, Provenance
from pellucid.core.grid import Calibration, Grid
from pellucid.core.image import Image, Modality
from pellucid.show.presets import presets
from pellucid.show.rules import decide
from pellucid.show.sections import CaseReport, Check, MapPanel
from pellucid.show.viewer import render_viewer, viewer_assets, viewer_content
from pellucid.show.viewer_pack import blocks_for, pack_image, pack_map, reduce, reduced_grid

OK = Check("applicability", "pass", "yes")


def report(
    *explanations: Explanation, name: str = "case-1", region: Region | None = None, **parts: object
) -> CaseReport:
    image = explanations[0].image
    case = Case(name, {"image": image}, {"lesion": region} if region else {}, **parts)
    panels = tuple(MapPanel(e, f"Map {n}", "shows", "caution") for n, e in enumerate(explanations))
    return CaseReport(case, image, OK, OK, explanations[0].prediction, panels, region="lesion" if region else None)


def unpacked(text: str) -> nib.Nifti1Image:
    return nib.Nifti1Image.from_bytes(gzip.decompress(base64.b64decode(text)))


def axes_reversed(image: nib.Nifti1Image) -> np.ndarray:
    """On the tensor's axes, which NIfTI holds in reverse order."""
    return np.asarray(image.dataobj, np.float64).transpose()


def test_values_and_places_of_a_turned_volume_come_back(
    make: Callable[..., Explanation], coded: Callable[..., Grid]
) -> None:
    shape = (5, 7, 9)
    grid = coded(shape, "HPL", (3.0, 0.7, 0.9), tilt=20)
    torch.manual_seed(0)
    data = torch.randint(-1024, 3000, (1, *shape)).float()
    one = make(torch.randn(shape), grid=grid, data=data, modality=Modality.CT)
    content = viewer_content(report(one))
    image, packed = unpacked(content["image"]["nifti"]), unpacked(content["maps"][0]["nifti"])
    assert content["image"]["rounding"] == 0
    np.testing.assert_array_equal(axes_reversed(image), data[0].numpy())
    assert packed.get_data_dtype() == np.int16
    error = np.abs(axes_reversed(packed) - one.numpy()[0]).max()
    assert 0 < error <= content["maps"][0]["rounding"] * 1.001 < 1e-4
    index = np.asarray([[1, 2, 3], [4, 6, 8], [0, 0, 0]], float)
    for turned in (image, packed):
        ras = nib.affines.apply_affine(turned.affine, index[:, ::-1])
        np.testing.assert_allclose(ras * [-1, -1, 1], grid.world(index), atol=1e-3)
    at = content["at"]
    assert content["maps"][0]["peak"] == at == [int(i) for i in np.unravel_index(one.numpy()[0].argmax(), shape)]


def test_the_planes_are_those_of_the_report(make: Callable[..., Explanation], coded: Callable[..., Grid]) -> None:
    one = make(torch.randn(4, 6, 8), grid=coded((4, 6, 8), "FAR", (2.0, 1.0, 1.0)), modality=Modality.MRI)
    axial = viewer_content(report(one))["grid"]["planes"][0]
    assert axial["name"] == "axial"
    assert axial["sides"] == {"top": "A", "bottom": "P", "left": "R", "right": "L"}
    assert (axial["rows"], axial["columns"], axial["normal"]) == (1, 2, 0)
    # rows grow toward A and columns toward R in this file: both are drawn so that A is up and R is left
    assert axial["flip"] == [True, True]


@pytest.mark.parametrize("signed", [True, False])
def test_the_colors_are_those_of_the_display_rules(make: Callable[..., Explanation], signed: bool) -> None:
    one = make(signed=signed)
    shown = decide(one, one.numpy()[0])
    content = viewer_content(report(one))["maps"][0]
    assert (content["low"], content["high"], content["null"]) == (*shown.limits, shown.null)
    values = np.linspace(*shown.limits, 256, dtype=np.float32)
    strength = np.abs(values) if signed else values
    drawn = np.where(strength > shown.null, content["alpha"], 0)  # as the script cuts it
    np.testing.assert_allclose(drawn, shown.alpha(values), atol=1e-4)
    assert content["colors"][0] != content["colors"][-1]
    assert content["notes"] == list(shown.notes)


def test_below_the_operating_point_the_page_starts_without_a_map(
    make: Callable[..., Explanation], stated: Callable[..., Provenance]
) -> None:
    one = make()
    one = replace(one, prediction=replace(one.prediction, value=-1.0))
    content = viewer_content(report(one))
    assert content["withheld"].startswith("score below threshold")
    assert content["at"] == [11, 15]  # the middle: the map's peak would give away where it lies
    assert content["maps"][0]["notes"][0] == "shown on request: the model score is below the operating point"
    assert viewer_content(report(make()))["withheld"] == ""


def test_names_cannot_run(make: Callable[..., Explanation], stated: Callable[..., Provenance]) -> None:
    evil = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\u2028"
    one = make(provenance=stated(target=evil, method=evil))
    named = report(one, name=evil, notes=(f"PLANTED {evil}",))
    page = render_viewer(
        replace(named, maps=(replace(named.maps[0], title=evil, caution=evil),)), "../assets", "x.html"
    )
    assert "<img" not in page
    assert "\u2028" not in page.split('type="application/json">')[1].split("</script>")[0]
    assert len(re.findall(r"<script\b", page)) == len(re.findall(r"</script>", page)) == 2
    inside = page.split('type="application/json">')[1].split("</script>")[0]
    assert json.loads(inside)["maps"][0]["title"] == evil
    assert json.loads(inside)["case"] == evil


def test_the_page_may_reach_nothing(make: Callable[..., Explanation]) -> None:
    page = render_viewer(report(make()), "../assets")
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', page)
    assert policy is not None
    assert policy[1].startswith("default-src 'none'; script-src 'self' file:;")
    assert "unsafe" not in policy[1]
    assert "http" not in policy[1]
    assert not re.findall(r'(?:src|href)="(?:https?:)?//', page)
    assert not re.findall(r"\son\w+=|style=", page.split("</head>")[1])
    assert "RESEARCH - NOT FOR DIAGNOSIS" in page
    assert {f"../assets/{name}" for name in viewer_assets(False)} == set(re.findall(r'"(\.\./assets/[^"]+)"', page))


def test_a_reference_region_and_the_marks_of_a_case_are_there(make: Callable[..., Explanation]) -> None:
    one = make()
    mask = torch.zeros(24, 32, dtype=torch.bool)
    mask[3:6, 20:24] = True
    region = Region(mask, one.image.grid, "planted")
    content = viewer_content(report(one, region=region, notes=("PLANTED by a formula",)))
    assert content["marks"] == ["PLANTED"]
    assert content["regions"][0]["label"] == "PLANTED truth: lesion"
    held = unpacked(content["regions"][0]["nifti"])
    np.testing.assert_array_equal(axes_reversed(held)[0], mask.numpy())
    assert mask[tuple(content["at"])]


def test_color_stays_color_and_bytes_stay_bytes(make: Callable[..., Explanation]) -> None:
    data = torch.randint(0, 256, (3, 6, 8)).float() / 255
    one = make(torch.randn(6, 8), data=torch.rand(1, 6, 8))
    image = Image(data, one.image.grid, Modality.FUNDUS, "[0,1]")
    content = viewer_content(report(replace(one, image=image)))["image"]
    held = np.asarray(unpacked(content["nifti"]).dataobj)
    stored = np.stack([held[k] for k in "RGB"]).transpose(0, 3, 2, 1)[:, 0]
    np.testing.assert_array_equal(stored, np.round(data.numpy() * 255))
    assert content["color"]
    assert content["rounding"] == 0


def test_a_large_volume_is_reduced_and_says_so() -> None:
    grid = Grid.regular((300, 512, 512), (1.0, 0.7, 0.7), Calibration.PATIENT)
    blocks = blocks_for(grid, 6)
    assert blocks == (2, 3, 2)
    small = reduced_grid(grid, blocks)
    assert np.prod(small.shape) * 7 <= 60_000_000
    assert blocks_for(Grid.regular((2000, 2000)), 6) == (1, 1)
    # the corner of the field stays where it was
    np.testing.assert_allclose(small.world(np.full((1, 3), -0.5)), grid.world(np.full((1, 3), -0.5)), atol=1e-6)


def test_blocks_keep_means_and_peaks() -> None:
    values = np.arange(30, dtype=np.float32).reshape(5, 6) - 15
    assert reduce(values, (2, 3), "mean")[0, 0] == np.mean(values[:2, :3])
    peaks = reduce(values, (2, 3), "peak")
    assert peaks[0, 0] == -15
    assert peaks[2, 1] == 14  # the last row alone fills its block
    assert reduce(values > 13, (2, 3), "any").sum() == 1


def test_packing_keeps_zero_and_states_its_rounding() -> None:
    grid = Grid.regular((8, 9))
    values = np.random.default_rng(0).normal(size=(8, 9)).astype(np.float32)
    values[0, 0] = 0
    for bits in (8, 16):
        packed = pack_map(values, grid, bits)
        back = axes_reversed(unpacked(packed.text))[0]
        assert back[0, 0] == 0
        assert np.abs(back - values).max() <= packed.rounding * 1.0001
    assert pack_map(values, grid, 8).rounding > 100 * pack_map(values, grid, 16).rounding
    assert pack_map(np.zeros((8, 9), np.float32), grid, 8).rounding == 0
    floats = pack_image(values, grid)
    assert np.abs(axes_reversed(unpacked(floats.text))[0] - values).max() <= floats.rounding * 1.001
    whole = pack_image(np.round(values * 1000) - 30_000, grid)
    np.testing.assert_array_equal(axes_reversed(unpacked(whole.text))[0], np.round(values * 1000) - 30_000)


def test_windows_by_modality() -> None:
    air = torch.linspace(-1000, 1000, 64).view(1, 8, 8)
    scan = Image(air, Grid.regular((8, 8)), Modality.CT, "HU")
    found = {name: (low, high) for name, low, high in presets(scan)}
    assert len(found) == 9
    assert found["lung"] == (-1350, 150)
    assert found["subdural"] == (-20, 180)
    assert [n for n, *_ in presets(replace(scan, unit="a.u."))][1:] == ["whole range", "narrow (percentiles 5 to 95)"]
    uptake = presets(Image(air.abs() / 100, scan.grid, Modality.PET, "SUVbw"))
    assert uptake[0][1:] == uptake[1][1:] == (0, 7)
    assert presets(Image(torch.rand(3, 8, 8), scan.grid, Modality.FUNDUS, "[0,1]")) == ()


def test_what_the_pages_share() -> None:
    flat, volume = viewer_assets(False), viewer_assets(True)
    script_name, style_name = flat
    assert re.fullmatch(r"viewer-[0-9a-f]{8}\.js", script_name)
    assert re.fullmatch(r"viewer-[0-9a-f]{8}\.css", style_name)
    assert set(volume) - set(flat) == {"niivue-0.69.0.js.gz", "niivue.LICENSE.txt"}
    script = gzip.decompress(volume["niivue-0.69.0.js.gz"])
    digest = hashlib.sha256(script).hexdigest()
    assert digest in volume["niivue.LICENSE.txt"].decode()
    own = flat[script_name].decode()
    assert not re.findall(r"innerHTML|insertAdjacentHTML|document\.write|\beval\(|fetch\(|https?:", own)
    assert "isRadiologicalConvention" in own
