"""The planted nodule: its mask is exact by the formula, and it is the same again from its seed."""

import json
from pathlib import Path

import numpy as np
import pydicom
import pydicom.data
import pytest
import torch
from safetensors.torch import load_file

from pellucid.core.errors import BadOption, ShapeMismatch
from pellucid.demo import networks
from pellucid.demo.planted import PLACES, WOBBLE, WOBBLE_SHARE, nodule_density, plant_nodule

ROOT = Path(__file__).resolve().parents[2]
CENTER, RADIUS, CONTRAST, SEED = (30.0, 40.0), 11.0, 0.2, 7


@pytest.fixture
def film() -> np.ndarray:
    rows, columns = np.mgrid[:64, :80]
    return 0.3 + 0.1 * np.sin(rows / 9) * np.cos(columns / 7)


def test_mask_is_where_the_added_density_exceeds_half_of_its_maximum(film):
    planted, mask = plant_nodule(film, CENTER, RADIUS, CONTRAST, SEED)
    added = planted - film
    assert added.max() == pytest.approx(CONTRAST, abs=1e-12)
    away_from_the_edge = np.abs(added - added.max() / 2) > 1e-12
    assert np.array_equal((added > added.max() / 2)[away_from_the_edge], mask[away_from_the_edge])
    assert np.array_equal(mask, nodule_density(film.shape, CENTER, RADIUS, CONTRAST, SEED) > CONTRAST / 2)


def test_mask_has_the_area_of_the_closed_form():
    # Half of the maximum lies at R / sqrt(2); over all angles the mean of R**2 is r**2 (1 + sum a_k**2 / 2).
    radius, seed = 200.0, 3
    mask = nodule_density((601, 601), (300.0, 300.0), radius, 1.0, seed) > 0.5
    amplitudes = np.random.default_rng(seed).uniform(-WOBBLE_SHARE, WOBBLE_SHARE, len(WOBBLE))
    area = np.pi / 2 * radius**2 * (1 + (amplitudes**2).sum() / 2)
    assert mask.sum() == pytest.approx(area, rel=2e-3)


def test_density_at_one_pixel_by_hand():
    draw = np.random.default_rng(SEED)
    amplitudes = draw.uniform(-WOBBLE_SHARE, WOBBLE_SHARE, 3)
    phases = draw.uniform(0, 2 * np.pi, 3)
    rim = RADIUS * (1 + sum(a * np.cos(k * np.pi / 2 + p) for k, a, p in zip(WOBBLE, amplitudes, phases, strict=True)))
    density = nodule_density((64, 80), CENTER, RADIUS, CONTRAST, SEED)
    assert density[34, 40] == pytest.approx(CONTRAST * (1 - 16 / rim**2), rel=1e-12)


def test_nothing_changes_outside_the_rim_and_nothing_leaves_the_range(film):
    bright = film + 0.5
    planted, mask = plant_nodule(bright, CENTER, RADIUS, 0.4, SEED)
    density = nodule_density(film.shape, CENTER, RADIUS, 0.4, SEED)
    assert np.array_equal(planted[density == 0], bright[density == 0])
    assert planted.max() == 1.0
    assert mask.any()


def test_same_seed_same_nodule_and_other_seed_another(film):
    first, again = (plant_nodule(film, CENTER, RADIUS, CONTRAST, SEED)[0] for _ in range(2))
    other, _ = plant_nodule(film, CENTER, RADIUS, CONTRAST, SEED + 1)
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_single_precision_stays_single(film):
    planted, mask = plant_nodule(film.astype(np.float32), CENTER, RADIUS, CONTRAST, SEED)
    assert planted.dtype == np.float32
    assert mask.dtype == np.bool_


@pytest.mark.parametrize(
    ("center", "radius", "contrast", "said"),
    [
        ((-1.0, 4.0), 9.0, 0.2, "outside the image"),
        ((4.0, 80.0), 9.0, 0.2, "outside the image"),
        ((4.0, 4.0), 0.5, 0.2, "at least 1 pixel"),
        ((4.0, 4.0), float("nan"), 0.2, "at least 1 pixel"),
        ((4.0, 4.0), 9.0, 0.0, "above 0 and at most 1"),
        ((4.0, 4.0), 9.0, 1.5, "above 0 and at most 1"),
    ],
)
def test_impossible_nodules_are_refused(film, center, radius, contrast, said):
    with pytest.raises(BadOption, match=said):
        plant_nodule(film, center, radius, contrast, SEED)


def test_wrong_images_are_refused(film):
    with pytest.raises(ShapeMismatch, match="rows x columns"):
        plant_nodule(film[None], CENTER, RADIUS, CONTRAST, SEED)
    with pytest.raises(BadOption, match=r"values in \[0, 1\]"):
        plant_nodule(film * 255, CENTER, RADIUS, CONTRAST, SEED)
    with pytest.raises(BadOption, match=r"values in \[0, 1\]"):
        plant_nodule(np.full((64, 80), np.nan), CENTER, RADIUS, CONTRAST, SEED)


def test_the_demo_plants_inside_its_patches_of_the_film():
    assert len(PLACES) >= 2
    for place in PLACES.values():
        inside = [abs(a - b) + place.radius_px < 64 for a, b in zip(place.center, place.patch, strict=True)]
        assert all(inside)
        assert all(64 <= middle <= size - 64 for middle, size in zip(place.patch, (544, 512), strict=True))


def film_in_unit_range() -> np.ndarray:
    path = pydicom.data.get_testdata_file("RG1_UNCR.dcm", download=False)
    stored = torch.from_numpy(pydicom.dcmread(path).pixel_array.astype(np.float32))
    height = round(stored.shape[0] * 512 / stored.shape[1])
    bright = stored.max() - stored  # MONOCHROME1
    narrow = torch.nn.functional.interpolate(
        bright[None, None], size=(height, 512), mode="bilinear", antialias=True, align_corners=False
    )[0, 0]
    return ((narrow - narrow.min()) / (narrow.max() - narrow.min())).numpy()


def test_the_network_sees_the_planted_nodule_and_not_the_bare_patch():
    film = film_in_unit_range()
    record = json.loads((ROOT / "training" / "results" / "nodule.json").read_text(encoding="utf-8"))
    threshold = record["shipped"]["threshold_logit"]
    module = networks.nodule()
    module.load_state_dict(load_file(Path(networks.__file__).parent / "models" / "nodule" / "weights.safetensors"))
    for place in PLACES.values():
        row, column = (middle - 64 for middle in place.patch)
        bare = film[row : row + 128, column : column + 128]
        center = (place.center[0] - row, place.center[1] - column)
        planted, _ = plant_nodule(bare, center, place.radius_px, place.contrast, place.seed)
        with torch.inference_mode():
            before, after = module(torch.from_numpy(np.stack([bare, planted]))[:, None]).flatten().tolist()
        assert before < threshold - 1
        assert after > threshold + 1
