"""Two maps against each other: known differences, one scale, and what is never subtracted."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from pellucid.core.errors import BadOption, BadRegion, ShapeMismatch
from pellucid.core.explanation import Explanation
from pellucid.core.grid import Calibration, Grid
from pellucid.core.space import resample
from pellucid.workbench.comparing import compare, differences, names_of

Make = Callable[..., Explanation]


def two(explained: Make, **changes: object) -> tuple[Explanation, Explanation]:
    first, second = np.zeros((30, 30)), np.zeros((30, 30))
    first[2, 2], first[25, 25] = 3, 1
    second[2, 2], second[2, 25] = 1, 1
    return explained(first, target="mass"), explained(second, **({"target": "edema"} | changes))


def test_difference_and_regions_in_closed_form(explained: Make) -> None:
    found = compare(*two(explained))
    assert found.names == ("mass", "edema")
    assert found.difference is not None
    np.testing.assert_allclose(found.difference.values[[2, 25, 2], [2, 25, 25]], [2, 1, -1])
    assert np.count_nonzero(found.difference.values) == 3
    rows = {c.name: c for c in found.rows}
    lead = rows["upper third, image left"]
    assert (lead.first, lead.second, lead.points) == pytest.approx((0.75, 0.5, 25))
    assert lead.mean == pytest.approx(2 / 100)
    assert found.state == "told"


def test_one_scale_for_both_and_a_symmetric_one_for_the_difference(explained: Make) -> None:
    first, second = two(explained)
    loose = compare(first, second)
    assert {s.display.limit for s in (*loose.maps, loose.difference)} == {3.0}
    assert "not comparable" in loose.maps[0].display.scale_words
    first, second = (replace(e, reference=explained(np.ones((30, 30)), null=0.5).reference) for e in (first, second))
    second = replace(second, reference=replace(second.reference, scale=7.0))
    fixed = compare(first, second)
    assert {s.display.limit for s in (*fixed.maps, fixed.difference)} == {7.0}
    assert fixed.difference.display.limits == (-7.0, 7.0)
    assert fixed.difference.display.null is None, "no null of a difference was measured, so no region is drawn in it"


def test_where_neither_map_exceeds_its_null_no_difference_is_painted(explained: Make) -> None:
    first, second = np.zeros((30, 30)), np.zeros((30, 30))
    first[2, 2], first[20, 20], second[20, 20], second[9, 9] = 3, 0.4, 0.1, 0.9
    found = compare(explained(first, null=1.0), explained(second, null=1.0, target="edema"))
    assert found.difference is not None
    assert np.argwhere(found.difference.values).tolist() == [[2, 2]]


def test_two_patients_are_never_compared(explained: Make) -> None:
    first, second = two(explained, target="mass", case="case-2", input_digest="d" * 64)
    with pytest.raises(BadOption, match="two patients") as caught:
        compare(first, second)
    assert "--prior" in caught.value.mend
    found = compare(first, second, prior=True)
    assert found.names == ("current", "prior")
    assert any("registered" in n for n in found.notes)


@pytest.mark.parametrize("changes", [{"method": "Saliency"}, {"unit": "logit per network unit"}])
def test_methods_and_units_are_compared_by_ranks_only(explained: Make, changes: dict[str, str]) -> None:
    first, second = two(explained, **changes)
    with pytest.raises(BadOption) as caught:
        compare(first, second)
    assert "--ranks" in caught.value.mend
    found = compare(first, second, ranks=True)
    assert found.difference is None
    assert all(c.mean is None for c in found.rows)
    assert found.plain()["scale"] is None
    assert found.rank is not None


def test_maps_meet_through_the_world(explained: Make, oblique: Callable[..., Grid]) -> None:
    grid = oblique((16, 14, 10), (1.0, 1.2, 3.0), "LPH", 15.0)
    values = np.random.default_rng(0).random(grid.shape).astype(np.float32)
    turned = grid.reoriented("FRA")
    moved = resample(torch.from_numpy(values)[None, None], grid, turned)[0, 0].numpy()
    found = compare(explained(values, grid), explained(moved, turned, model="toy 2", model_digest="e" * 64))
    assert found.difference is not None
    assert float(np.abs(found.difference.values).max()) < 1e-5
    assert found.rank == pytest.approx(1)
    assert any("through the patient" in n for n in found.notes)
    assert any("two models" in n for n in found.notes)


def test_grids_that_cannot_meet_are_refused(explained: Make, oblique: Callable[..., Grid]) -> None:
    grid = oblique((8, 8, 8), (1.0, 1.0, 1.0))
    ones = np.ones((8, 8, 8))
    far = explained(ones, grid.cropped((40, 0, 0), (8, 8, 8)))
    with pytest.raises(ShapeMismatch, match="do not meet"):
        compare(explained(ones, grid), far)
    frames = [explained(ones, replace(grid, frame_of_reference=f)) for f in ("1.1", "2.2")]
    frames[1] = replace(
        frames[1], prepared=replace(frames[1].prepared, source=frames[1].image.grid.cropped((1, 0, 0), (8, 8, 8))),
        image=replace(frames[1].image, grid=frames[1].image.grid.cropped((1, 0, 0), (8, 8, 8))),
    )  # fmt: skip
    with pytest.raises(BadRegion, match="frame of reference"):
        compare(*frames)
    with pytest.raises(ShapeMismatch, match="one shape"):
        compare(explained(np.ones((8, 8))), explained(np.ones((9, 9))))


def test_pictures_of_one_shape_are_laid_on_each_other_and_it_is_said(explained: Make) -> None:
    nominal = Grid.regular((9, 9), (2.0, 2.0), Calibration.NOMINAL)
    found = compare(explained(np.ones((9, 9)), nominal), explained(np.ones((9, 9))))
    assert any("pixel on pixel" in n for n in found.notes)


def test_a_score_below_its_operating_point_withholds_the_difference(explained: Make) -> None:
    first, second = two(explained, score=0.1)
    found = compare(first, second)
    assert found.state == "withheld"
    assert set(found.plain()) == {"title", "first", "second", "state", "why"}
    with pytest.raises(BadOption, match="below threshold"):
        found.plot()
    assert len(found.plot(show_anyway=True).axes) > len(
        compare(*two(explained, method="Saliency"), ranks=True).plot().axes
    )
    nothing = compare(*(explained(-np.ones((9, 9)), target=t) for t in "ab"))
    assert nothing.state == "nothing"


def test_two_targets_of_a_panel_are_paired_by_method(explained: Make) -> None:
    maps = [explained(np.eye(9), target=t, method=m, settings=s) for t in ("mass", "edema")
            for m, s in (("GradCAM", {}), ("IntegratedGradients", {"steps": 8}))]  # fmt: skip
    found = differences(maps)
    assert [d.title for d in found] == ["GradCAM: mass against edema", "IntegratedGradients: mass against edema"]
    assert differences(maps[:2]) == ()
    assert differences([*maps, explained(np.eye(9), target="third")]) == ()


def test_names_say_what_differs(explained: Make) -> None:
    one = explained(np.eye(9))
    assert names_of(one, one) == ("first", "second")
    assert names_of(one, explained(np.eye(9), model="toy 2", target="edema")) == ("lesion, toy 1", "edema, toy 2")
