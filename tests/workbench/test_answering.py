"""Shares, peaks and key slices of maps whose answer is known in closed form."""

from collections.abc import Callable
from dataclasses import replace
from itertools import permutations, product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pellucid.core.errors import BadRegion
from pellucid.core.explanation import Explanation
from pellucid.core.grid import Calibration, Grid
from pellucid.core.image import Image
from pellucid.core.prepare import Prepared
from pellucid.core.space import resample
from pellucid.io.labelmap import LabelMap
from pellucid.show.answers import Answers
from pellucid.workbench.answering import answer, ground, slice_axis

Make = Callable[..., Explanation]
CODES = ["".join(c) for order in permutations(("LR", "PA", "HF")) for c in product(*order)]


def read(explanation: Explanation, atlas: LabelMap | None = None) -> Answers:
    assert explanation.image is not None
    return answer(explanation, ground(explanation.image.grid, explanation.prepared, atlas))


def by_name(answers: Answers) -> dict[str, object]:
    assert answers.regions is not None
    return {row.name: row for row in answers.regions.rows}


def labelmap(labels: np.ndarray, grid: Grid, names: dict[int, str]) -> LabelMap:
    return LabelMap(Image(torch.from_numpy(labels.astype(np.float32))[None], grid), names)


def test_ninths_of_a_picture_have_the_shares_they_were_given(explained: Make) -> None:
    values = np.zeros((30, 60))
    values[2, 3], values[25, 55], values[14, 30], values[29, 0] = 6, 2, -3, -1
    found = read(explained(values))
    rows = by_name(found)
    assert rows["upper third, image left"].share == pytest.approx(0.75)
    assert rows["lower third, image right"].share == pytest.approx(0.25)
    assert rows["middle third, image center"].against == pytest.approx(0.75)
    assert rows["lower third, image left"].against == pytest.approx(0.25)
    assert rows["upper third, image left"].density == pytest.approx(0.75 * 9)
    assert sum(r.part for r in rows.values()) == pytest.approx(1)
    assert found.sentences[0] == "Of all evidence, 67% speaks for and 33% against."
    assert found.sentences[1] == (
        "75% of the positive evidence lies in the upper third, image left, 6.8 times what its area alone would hold."
    )
    assert not any("patient" in words for words in found.sentences), "a picture has no side of the patient"
    assert found.slices is None


def test_above_the_null_is_told_apart(explained: Make) -> None:
    values = np.full((30, 30), 0.1)
    values[25, 25] = 3.0
    rows = by_name(read(explained(values, null=1.0)))
    assert rows["lower third, image right"].above == pytest.approx(1.0)
    assert rows["lower third, image right"].share == pytest.approx((9.9 + 3) / (89.9 + 3), rel=1e-4)


@pytest.mark.parametrize(
    ("value", "null", "score", "state"),
    [(0.9, 1.0, 2.0, "nothing"), (-1.0, None, 2.0, "nothing"), (3.0, 1.0, 0.1, "withheld"), (0.9, 1.0, 0.1, "withheld"),
     (3.0, 1.0, 0.5, "told")],
)  # fmt: skip
def test_what_may_not_be_shown_is_not_told(
    explained: Make, value: float, null: float | None, score: float, state: str
) -> None:
    values = np.full((9, 9), -0.5)
    values[4, 4] = value
    found = read(explained(values, null=null, score=score))
    assert found.state == state
    plain = found.plain()
    if state != "told":
        assert plain == {"state": state, "why": found.why or found.silence}
        assert ("below threshold" in found.why) == (state == "withheld")
    else:
        assert plain["regions"]["rows"][4]["share"] == 1.0


def test_oblique_volume_in_the_patients_terms(explained: Make, oblique: Callable[..., Grid]) -> None:
    grid = oblique((30, 24, 12), (0.8, 1.2, 5.0), "RAH", 10.0)
    values = np.zeros(grid.shape)
    values[2, 20, 3], values[25, 20, 9] = 3, 1
    found = read(explained(values, grid))
    rows = by_name(found)
    assert rows["left third"].share == pytest.approx(0.75)
    assert rows["right third"].share == pytest.approx(0.25)
    assert rows["anterior third"].share == pytest.approx(1.0)
    assert rows["inferior third"].share == pytest.approx(0.75)
    assert found.peak is not None
    assert found.peak.lps_mm == pytest.approx(grid.world(np.array([[2.0, 20.0, 3.0]]))[0], abs=0.5)
    assert (found.peak.first, found.peak.last) == ((2, 20, 3), (2, 20, 3))
    assert "axial slice 4 of 12" in found.peak.words
    assert found.peak.around == ""
    coarse = read(explained(values, grid, cell=(5.0, 1.0, 3.0))).peak
    assert coarse is not None
    assert coarse.around == "axial slices 3\u20135, coronal slice 21 and sagittal slices 1\u20135"
    assert found.slices is not None
    assert found.slices.view == "axial"
    assert [(s.first, s.last, s.share) for s in found.slices.slabs] == [(4, 4, 0.75)]
    assert found.sentences[-1] == "Axial slice 4 of 12 holds 75% of the positive evidence."


def test_a_clearly_oblique_volume_says_so(explained: Make, oblique: Callable[..., Grid]) -> None:
    grid = oblique((9, 9, 9), (1.0, 1.0, 1.0), "LPH", 30.0)
    values = np.zeros(grid.shape)
    values[1, 1, 1] = 1
    found = read(explained(values, grid))
    assert found.regions is not None
    assert any("oblique" in note and "to" in note for note in found.regions.notes)


def test_thick_slices_are_those_a_reader_scrolls(oblique: Callable[..., Grid]) -> None:
    assert slice_axis(oblique((9, 9, 9), (4.0, 1.0, 1.0), "LPH")) == 0
    assert slice_axis(oblique((9, 9, 9), (1.0, 1.0, 1.0), "HLP")) == 0
    assert slice_axis(oblique((9, 9, 9), (1.0, 1.0, 1.0), "LPH")) == 2
    assert slice_axis(Grid.regular((9, 9, 9), (1.0, 1.0, 1.0))) == 0


@settings(deadline=None, max_examples=30, derandomize=True)
@given(
    shape=st.tuples(*[st.integers(5, 10)] * 3),
    code=st.sampled_from(CODES),
    seed=st.integers(0, 99),
    degrees=st.floats(-40, 40),
)
def test_turning_the_volume_changes_no_named_share(
    explained: Make, oblique: Callable[..., Grid], shape: tuple[int, int, int], code: str, seed: int, degrees: float
) -> None:
    grid = oblique(shape, (0.7, 1.1, 2.3), "LPH", degrees)
    values = np.random.default_rng(seed).normal(size=shape)
    labels = np.random.default_rng(seed + 1).integers(0, 4, shape)
    labels[0, 0, 0], labels[-1, -1, -1] = 1, 2
    names = {1: "upper lobe", 2: "lower lobe", 3: "hilum"}
    turned = grid.reoriented(code)
    moved = resample(torch.from_numpy(values)[None, None].float(), grid, turned)[0, 0].numpy()
    for atlas in (None, labelmap(labels, grid, names)):
        before, after = read(explained(values, grid), atlas), read(explained(moved, turned), atlas)
        one, other = ({n: (r.share, r.against, r.part) for n, r in by_name(a).items()} for a in (before, after))
        assert one.keys() == other.keys()
        for name in one:
            assert one[name] == pytest.approx(other[name], rel=1e-5, abs=1e-7), name
        assert before.peak is not None
        assert after.peak is not None
        assert before.peak.lps_mm == pytest.approx(after.peak.lps_mm, abs=1e-6)
        assert before.slices is not None
        assert after.slices is not None
        assert before.slices.view == after.slices.view
        assert sorted(s.share for s in before.slices.slabs) == pytest.approx(
            sorted(s.share for s in after.slices.slabs)
        )


def test_a_label_map_names_the_regions_and_what_lies_outside(explained: Make) -> None:
    values, labels = np.zeros((20, 20)), np.zeros((20, 20), int)
    labels[:10, :10], labels[10:, 10:] = 7, 3
    values[2, 2], values[15, 15], values[2, 15] = 5, 3, 2
    found = read(explained(values), labelmap(labels, Grid.regular((20, 20)), {7: "right upper lobe", 3: "heart"}))
    assert found.regions is not None
    assert [(r.name, r.share, r.outside) for r in found.regions.rows] == [
        ("right upper lobe", 0.5, False),
        ("heart", pytest.approx(0.3), False),
        ("outside every region", pytest.approx(0.2), True),
    ]
    assert found.sentences == (
        "50% of the positive evidence lies in the right upper lobe, 2 times what its area alone would hold.",
    )


def test_no_share_is_finer_than_the_native_cell(explained: Make) -> None:
    values, labels = np.ones((40, 40)), np.zeros((40, 40), int)
    labels[:20], labels[30:34, 30:34] = 1, 2
    grid = Grid.regular((40, 40))
    found = read(explained(values, grid, cell=(8.0, 8.0)), labelmap(labels, grid, {1: "lung", 2: "node"}))
    rows = by_name(found)
    assert rows["node"].share is None
    assert (rows["lung"].share, rows["lung"].low, rows["lung"].high) == pytest.approx((0.5, 0.4, 0.6))
    rest = rows["outside every region, or in one too small to tell"]
    assert rest.share == pytest.approx(0.5)
    assert rest.part == pytest.approx(0.5), "the small region is in it, so that its share cannot be worked out"
    assert found.peak is not None
    assert found.peak.cell == (8.0, 8.0)
    assert "no finer than 8 px" in found.peak.words
    assert found.peak.around == "rows 1\u20135 and columns 1\u20135"
    assert any("smaller than the map's native cell" in note for note in found.regions.notes)


def test_bounds_of_a_third_allow_for_half_a_cell(explained: Make) -> None:
    values = np.zeros((30, 30, 30))
    values[:, :, 9], values[:, :, 12] = 1, 1
    grid = Grid.regular((30, 30, 30), (1.0, 1.0, 1.0))
    rows = by_name(read(explained(values, grid, cell=(1.0, 1.0, 4.0))))
    first, middle = rows["first third of axis 2"], rows["middle third of axis 2"]
    assert (first.share, first.low, first.high) == pytest.approx((0.5, 0.0, 0.5))
    assert (middle.share, middle.low, middle.high) == pytest.approx((0.5, 0.5, 1.0))
    across = rows["first third of axis 0"]
    assert (across.low, across.high) == pytest.approx((1 / 3, 1 / 3)), "its borders lie between cells of one voxel"


def test_key_slices_are_as_thick_as_the_cell_and_few(explained: Make) -> None:
    grid = Grid.regular((40, 8, 8), (1.0, 1.0, 1.0))
    values = np.zeros(grid.shape)
    values[10:14], values[30:32] = 2, 1
    slabs = read(explained(values, grid, cell=(4.0, 1.0, 1.0))).slices
    assert slabs is not None
    assert [(s.first, s.last, s.share) for s in slabs.slabs] == [(11, 14, pytest.approx(0.8))]
    spread = read(explained(np.ones(grid.shape), grid)).slices
    assert spread is not None
    assert len(spread.slabs) == 5
    assert spread.together == pytest.approx(5 / 40)
    assert "the rest is spread" in spread.words


def test_what_the_network_did_not_see_is_no_part_of_the_mean(explained: Make) -> None:
    grid = Grid.regular((30, 90))
    inner = grid.cropped((0, 0), (30, 60))
    values = np.zeros((30, 60))
    values[5, 5] = 1
    prepared = Prepared(torch.zeros(1, 30, 60), inner, grid, (0.0,), (1.0,))
    explanation = explained(np.zeros((30, 90)), grid, prepared=prepared)
    answered = explanation.answer
    object.__setattr__(answered, "maps", {"image": torch.from_numpy(values).float()[None, None]})
    rows = by_name(read(explanation))
    assert "upper third, image right" not in rows
    assert rows["upper third, image left"].part == pytest.approx(1 / 6)
    assert rows["upper third, image left"].density == pytest.approx(6)


def test_thirds_of_a_small_field_are_those_of_the_field(explained: Make) -> None:
    grid = Grid.regular((60, 60))
    inner = grid.cropped((30, 30), (12, 12))
    prepared = Prepared(torch.zeros(1, 12, 12), inner, grid, (0.0,), (1.0,))
    explanation = explained(np.zeros((60, 60)), grid, prepared=prepared)
    values = torch.zeros(1, 1, 12, 12)
    values[..., 1, 10] = 1
    object.__setattr__(explanation.answer, "maps", {"image": values})
    found = read(explanation)
    assert by_name(found)["upper third, image right"].share == pytest.approx(1)
    assert found.regions is not None
    assert any("the network saw" in n for n in found.regions.notes)


def test_projection_names_image_and_patient(explained: Make) -> None:
    grid = Grid.regular((30, 30), (0.2, 0.2), Calibration.DETECTOR, letters=("F", "L"))
    values = np.zeros((30, 30))
    values[28, 2] = 1
    rows = by_name(read(explained(values, grid)))
    assert rows["lower third (patient inferior), image left (patient right)"].share == pytest.approx(1)


def test_a_label_map_on_another_grid_is_resampled_through_the_world(
    explained: Make, oblique: Callable[..., Grid]
) -> None:
    grid = oblique((20, 20, 10), (1.0, 1.0, 2.0))
    coarse = grid.resized((10, 10, 10)).reoriented("RFP")
    world = coarse.world(np.stack(np.indices(coarse.shape), -1).reshape(-1, 3).astype(float))
    at = grid.index(world)
    labels = np.where(at[:, 0] < 9.5, 1, 2).reshape(coarse.shape)
    values = np.zeros(grid.shape)
    values[3, 10, 5], values[15, 10, 5] = 1, 3
    found = read(explained(values, grid), labelmap(labels, coarse, {1: "right lung", 2: "left lung"}))
    rows = by_name(found)
    assert rows["left lung"].share == pytest.approx(0.75)
    assert rows["right lung"].share == pytest.approx(0.25)
    assert found.regions is not None
    assert any("resampled" in n for n in found.regions.notes)


@pytest.mark.parametrize("kind", ["shape", "frame", "far", "everywhere"])
def test_label_maps_that_do_not_fit_are_refused_with_the_mend(
    explained: Make, oblique: Callable[..., Grid], kind: str
) -> None:
    grid = oblique((6, 6, 6), (1.0, 1.0, 1.0))
    explanation = explained(np.ones((6, 6, 6)), grid)
    ones = np.ones((6, 6, 6), int)
    placed = {
        "shape": (ones[:5], Grid.regular((5, 6, 6))),
        "frame": (ones, replace(grid.cropped((1, 0, 0), (6, 6, 6)), frame_of_reference="1.2.3")),
        "far": (ones, grid.cropped((50, 0, 0), (6, 6, 6))),
        "everywhere": (np.pad(ones, 1, constant_values=1), grid.cropped((-1, -1, -1), (8, 8, 8))),
    }
    labels, where = placed[kind]
    if kind == "frame":
        explanation = explained(np.ones((6, 6, 6)), replace(grid, frame_of_reference="9.9"))
    with pytest.raises(BadRegion) as caught:
        read(explanation, labelmap(labels, where, {1: "lung", 2: "heart"}))
    assert caught.value.mend
