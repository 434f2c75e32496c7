"""The numbered defects of Quantus and captum: ours has none of them, and a peer that is mended would be seen to be.

A test for each number, of our own side alone: Quantus itself is met in the integration tests. Closed forms of the same
traits stand in ``tests/metrics``: 1, 3 and 15 in ``test_parts.py``, 2, 3, 4 and 7 in ``test_changes.py``, 9 in
``test_sensitivity.py``, 10 in ``test_flipping.py``, 12 in ``test_randomization_alike.py``, 13 in
``test_randomization_entropy.py``, 14 in ``test_stability.py``.
"""

from functools import cache

import pytest
import torch
from skimage.metrics import structural_similarity
from torch import Tensor

from pellucid.core.errors import BadRegion
from pellucid.metrics.randomization.alike import Measure
from pellucid.metrics.randomization.efficient import sturges
from pellucid.verify import metrics_defects
from pellucid.verify.apart import Answer
from pellucid.verify.demonstrations import shown
from pellucid.verify.metrics_defects import METRIC_DEFECTS
from pellucid.verify.metrics_ours import exact, of_map, region_of, scored
from pellucid.verify.metrics_plan import TINY, TINY_3D
from pellucid.verify.verdict import Verdict

made = cache(exact)
NUMBERED = [f"Q{n}" for n in range(1, 17)]
BY_NUMBER = {d.defect: d for d in METRIC_DEFECTS}

# what a peer without the defect would have found: nothing is shown then
MENDED: dict[str, dict[str, object]] = {
    "Q1": {"value": [[True], [False], [False]]},
    "Q2": {"raised": False},
    "Q3": {"road": [0.5, 1.0], "road by two": [0.5, 1.0], "sensitivity": [0.9], "sensitivity by two": [0.9]},
    "Q4": {"missing": 0, "hidden": 4480},
    "Q5": {"hit": [float("nan")], "raised": False},
    "Q6": {"value": [0.3, 0.3, 0.3]},
    "Q7": {"raised": False, "one": [0.04], "ten": [0.05], "forwards": 31, "forwards of ten": 301},
    "Q8": {"raised": [False, False, False], "raised with it": [False, False, False]},
    "Q9": {"steep": [0.5, 0.5], "complexity": [700.0, 700.0]},
    "Q10": {"mean": [[1.0, 0.5, 0.0]], "fixed": [[1.0, 0.5, 0.0]]},
    "Q11": {"black": [0.0, 0.0], "least": [-1.5, -1.3], "values": [900, 900]},
    "Q12": {"value": 0.04, "as images": 0.04},
    "Q13": {"bins": 12, "right": 11, "values": 1920},
    "Q14": {"least": -0.2, "value": [9.0], "with one": [9.0]},
    "Q15": {"raised": False, "Sufficiency": [0.5, 0.5], "Consistency": [0.5, 0.5]},
    "Q16": {"raised": [False] * 6},
    "M5": {"raised": False, "right": [[0.3]], "value": [[0.3]]},
    "M6": {"complete": True, "gap": 2e-16},
    "M7": {"hit": [0.3], "ranks": [0.3, 0.3]},
}


def tensors(found: dict[str, object]) -> dict[str, Tensor]:
    return {name: torch.as_tensor(value) for name, value in found.items()}


def test_all_sixteen_numbers_are_shown() -> None:
    assert [d.defect for d in METRIC_DEFECTS if d.defect.startswith("Q")] == NUMBERED
    assert set(MENDED) == set(BY_NUMBER)


@pytest.mark.parametrize("defect", BY_NUMBER, ids=lambda d: f"defect_{d}")
def test_ours_has_not(defect: str) -> None:
    one = BY_NUMBER[defect]
    clean, told = one.ours(made(one.subject))
    assert clean, told


@pytest.mark.parametrize("defect", BY_NUMBER, ids=lambda d: f"defect_{d}")
def test_a_mended_peer_would_not_be_shown(defect: str) -> None:
    one = BY_NUMBER[defect]
    has, told = one.theirs(tensors(MENDED[defect]))
    assert not has, told


def test_a_defect_is_shown_only_if_the_peer_has_it_and_we_have_not(monkeypatch: pytest.MonkeyPatch) -> None:
    one, image = BY_NUMBER["Q13"], made(BY_NUMBER["Q13"].subject)
    wrong = tensors({"bins": 2, "right": 11, "values": 1920})
    assert shown(one, image, Answer(wrong)).verdict is Verdict.SHOWN
    assert shown(one, image, Answer(tensors(MENDED["Q13"]))).verdict is Verdict.DIFFERS
    assert shown(one, image, Answer({}, "no quantus")).verdict is Verdict.NOT_RUN
    monkeypatch.setattr(metrics_defects, "sturges", lambda _: 2)
    assert shown(one, image, Answer(wrong)).verdict is Verdict.DIFFERS


def test_defect_5_a_case_without_a_finding_is_no_hit() -> None:
    image = made(TINY)
    constant = torch.ones(1, 1, *image.x.shape[2:], dtype=torch.float64)
    region = region_of(image)
    assert float(of_map("HitRate", constant, image, region).values[0]) == pytest.approx(float(region.double().mean()))
    none = of_map("HitRate", constant, image)
    assert bool(none.values.isnan().all())
    assert none.reasons == ("no expert or planted region",)
    with pytest.raises(BadRegion, match="empty"):
        of_map("HitRate", constant, image, torch.zeros_like(region))


def test_defect_6_the_share_in_the_region_is_a_share() -> None:
    image = made(TINY)
    region, maps = region_of(image), torch.zeros(1, 1, *image.x.shape[2:], dtype=torch.float64)
    maps[0, 0][region], maps[0, 0][~region] = 3.0, -1.0
    assert float(of_map("RelevanceMass", maps, image, region).values[0]) == 1.0, (
        "what speaks against counts for nothing"
    )
    assert float(of_map("RelevanceMass", -maps, image, region).values[0]) == 0.0


def test_defect_12_similarity_knows_who_is_whose_neighbor() -> None:
    """SSIM of flattened maps hardly changes when both maps' rows are shuffled alike; that of images does."""
    draw = torch.Generator().manual_seed(0)
    smooth = torch.linspace(0, 6, 24).sin()[:, None] * torch.linspace(0, 6, 24).cos()[None]
    one, other = smooth.double(), (smooth + 0.3 * torch.randn(24, 24, generator=draw)).double()
    rows = torch.randperm(24, generator=draw)
    measure = Measure("ssim", signed=True)
    plain = float(measure.between(one[None], other[None])[0])
    mixed = float(measure.between(one[None, rows], other[None, rows])[0])
    assert abs(plain - mixed) > 0.05
    scaled = [(m / m.abs().max()).numpy() for m in (one, other)]
    assert plain == pytest.approx(float(structural_similarity(*scaled, data_range=2.0)))


@pytest.mark.parametrize(("voxels", "bins"), [(64 * 64, 13), (1920, 12), (96**3, 21)])
def test_defect_13_bins_follow_the_number_of_voxels(voxels: int, bins: int) -> None:
    assert sturges(voxels) == bins


@pytest.mark.parametrize("fill", ["-1.5", "mean", "blur:2"])
def test_defect_11_what_is_hidden_shows_the_fill_that_is_named(fill: str) -> None:
    found = scored(f"PixelFlipping:steps=2,infill={fill}", "InputXGradient", made(TINY))
    whole, names = found.seen[-1], {"-1.5": "constant -1.5", "mean": "mean of the image", "blur:2": "blur, sigma 2"}
    assert found.score.detail["infill"].startswith(names[fill])
    if fill == "-1.5":
        assert bool((whole == -1.5).all()), "not the image's least value"
    assert (len(whole.unique()) > 1) == (fill == "blur:2"), "one number only where one is asked for"


def test_defect_15_and_16_a_score_of_zero_and_a_volume_have_numbers() -> None:
    metrics = ("RegionPerturbation:steps=4", "Selectivity:steps=4", "Infidelity:samples=8", "ROAD:steps=3")
    for name in metrics:
        values = scored(name, "InputXGradient", made(TINY_3D)).score.values
        assert bool(torch.isfinite(values).all()), name
