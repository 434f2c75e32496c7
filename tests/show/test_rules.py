"""The display contract: what may be shown of a map, decided before anything is drawn."""

import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from pellucid.core.errors import NonFinite
from pellucid.core.explanation import Reference
from pellucid.core.grid import Calibration, Grid
from pellucid.show.rules import NO_NULL, THIS_IMAGE, Display, decide, peak, place_words, scale_bar

MAPS = arrays(np.float32, (5, 7), elements=st.floats(-50, 50, width=32))


def shown(null: float | None, signed: bool = True, limit: float = 4.0) -> Display:
    return Display("shown", limit, True, null, signed, "logit", "fixed")


def values_of(explanation):
    return explanation.numpy()[0]


def reference(scale=4.0, null=1.0) -> Reference:
    return Reference(scale, null, 0.05, 200, 100, "formula-made normals")


def test_below_the_operating_point_nothing_is_shown(make):
    e = make()
    below = make(prediction=e.prediction.__class__(**(vars(e.prediction) | {"value": 0.4})))
    display = decide(below, values_of(below))
    assert display.state == "withheld"
    assert display.region(values_of(below)) is None
    assert display.against(values_of(below)) is None
    assert display.alpha(values_of(below)).max() == 0
    assert display.notes == ("score below threshold (0.4 < 0.5 logit): no map is shown",)


def test_on_request_a_withheld_map_is_shown_and_says_so(make):
    e = make()
    below = make(prediction=e.prediction.__class__(**(vars(e.prediction) | {"value": 0.4})))
    display = decide(below, values_of(below), show_anyway=True)
    assert display.shown
    assert display.notes[0].startswith("shown on request")
    assert display.region(values_of(below)).any()


def test_at_the_operating_point_the_map_is_shown(make):
    e = make()
    at = make(prediction=e.prediction.__class__(**(vars(e.prediction) | {"value": 0.5})))
    assert decide(at, values_of(at)).shown


def test_without_prediction_or_operating_point_the_map_is_shown(make):
    assert decide(make(prediction=None), values_of(make())).shown


def test_the_scale_is_fixed_however_large_the_map(make):
    small, large = make(torch.full((4, 4), 0.1)), make(torch.full((4, 4), 90.0))
    limits = {decide(e, values_of(e)).limits for e in (small, large)}
    assert limits == {(-4.0, 4.0)}
    assert any("beyond the scale (up to 90 logit)" in n for n in decide(large, values_of(large)).notes)


def test_without_a_reference_the_scale_is_of_this_image_and_there_is_no_region(make):
    e = make(reference=None, signed=False)
    display = decide(e, values_of(e))
    assert display.limits == pytest.approx((0.0, 3.0), rel=0.01)
    assert not display.fixed
    assert display.scale_words == THIS_IMAGE
    assert {THIS_IMAGE, NO_NULL} <= set(display.notes)
    assert display.region(values_of(e)) is None


def test_a_few_extreme_voxels_do_not_make_the_rest_look_blank(make):
    sparse = torch.zeros(100, 100)
    sparse.view(-1)[:1000] = 1.0  # what the map says
    sparse.view(-1)[:3] = 50.0  # and three voxels
    e = make(sparse, reference=None)
    display = decide(e, values_of(e))
    assert display.limits == (-1.0, 1.0)
    assert any("beyond the scale (up to 50 logit)" in n for n in display.notes)


def test_a_scale_without_a_null_gives_no_region(make):
    e = make(reference=reference(null=None))
    display = decide(e, values_of(e))
    assert display.fixed
    assert NO_NULL in display.notes
    assert display.region(values_of(e)) is None


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan"), float("inf")])
def test_a_scale_that_is_no_scale_is_not_used(make, scale):
    e = make(reference=reference(scale=scale))
    display = decide(e, values_of(e))
    assert not display.fixed
    assert display.null is None


def test_a_negative_null_counts_as_zero(make):
    e = make(reference=reference(null=-2.0))
    display = decide(e, values_of(e))
    region, against = display.region(values_of(e)), display.against(values_of(e))
    assert display.null == 0.0
    assert not (region & against).any()


@given(MAPS, st.floats(0, 20), st.booleans())
@settings(max_examples=80, deadline=None)
def test_nothing_is_painted_below_the_null(values, null, signed):
    display = shown(null, signed)
    strength = np.abs(values) if signed else values
    alpha = display.alpha(values)
    assert ((alpha > 0) == (strength > null)).all()
    assert (display.region(values) == (values > null)).all()
    assert alpha.max() <= 1


@given(MAPS, st.booleans())
@settings(max_examples=50, deadline=None)
def test_without_a_null_opacity_grows_from_nothing_and_negative_values_of_an_unsigned_map_stay_clear(values, signed):
    alpha = shown(None, signed).alpha(values)
    assert (alpha[values == 0] == 0).all()
    if not signed:
        assert (alpha[values <= 0] == 0).all()
    order = np.argsort(np.abs(values).ravel()) if signed else np.argsort(values.ravel())
    assert (np.diff(alpha.ravel()[order]) >= 0).all()


def test_at_most_five_of_a_hundred_normals_show_anything():
    rng = np.random.default_rng(4)
    normals = rng.normal(size=(100, 12, 12)).astype(np.float32)
    null = float(np.quantile(normals.max((1, 2)), 0.95, method="higher"))
    display = shown(null, signed=False)
    assert sum(bool(display.region(n).any()) for n in normals) <= 5
    assert sum(bool((display.alpha(n) > 0).any()) for n in normals) <= 5


def test_signed_maps_name_both_sides_and_say_what_was_not_measured(make):
    e = make()
    display = decide(e, values_of(e))
    assert (display.against(values_of(e)) == (values_of(e) < -1.0)).all()
    assert any("fall below that was not measured" in n for n in display.notes)
    unsigned = make(signed=False)
    assert decide(unsigned, values_of(unsigned)).against(values_of(unsigned)) is None


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (torch.zeros(4, 4), "blank: every value of this map is 0"),
        (torch.full((4, 4), -1.0), "all values are negative: evidence against the target only"),
        (torch.full((4, 4), 0.9), "no region: the map's maximum, 0.9, stays below its null 1"),
    ],
)
def test_what_cannot_be_seen_is_said(make, values, words):
    e = make(values)
    assert words in decide(e, values_of(e)).notes


def test_a_map_that_is_not_finite_is_refused(make):
    with pytest.raises(NonFinite, match="finite map"):
        decide(make(), np.asarray([[np.nan, 1.0]], np.float32))


def test_what_a_head_calls_probability_is_a_model_score(make):
    e = make(unit="probability")
    assert decide(e, values_of(e)).unit == "model score"


def test_the_peak_is_the_strongest_evidence_for_and_of_any_sign_without_one():
    mixed = np.asarray([[0.0, 2.0], [-5.0, 1.0]], np.float32)
    assert peak(mixed, signed=True) == (0, 1)
    assert peak(-np.abs(mixed), signed=True) == (1, 0)


@given(st.integers(0, 63), st.integers(0, 79), st.sampled_from(list(Calibration)))
@settings(max_examples=60, deadline=None)
def test_an_image_without_orientation_has_no_patient_side(row, column, calibration):
    if calibration is Calibration.PATIENT:
        return
    words = place_words((row, column), Grid.regular((64, 80), (1.0, 1.0), calibration))
    assert "patient" not in words
    assert not re.search(r"\btoward [LRAPHF]\b", words)
    assert ("image left" in words) == (column + 0.5 < 80 / 3)
    assert (" mm" in words) == (calibration is not Calibration.NONE)


def test_places_name_what_a_millimeter_is():
    grid = Grid.regular((100, 100), (0.5, 0.5), Calibration.DETECTOR)
    assert place_words((19, 59), grid) == (
        "upper third, image center; row 20 of 100, column 60 of 100; "
        "10 mm below the upper edge, 30 mm at the detector from the left edge of the image"
    )


def test_no_place_is_finer_than_the_native_cell():
    grid = Grid.regular((512, 512), (0.7, 0.7), Calibration.DETECTOR)
    words = place_words((301, 411), grid, (51.2, 51.2))
    assert words.endswith("no finer than 51.2 mm at the detector")
    assert "row about 300 of 512, column about 410 of 512" in words
    assert "210 mm below the upper edge, 290 mm" in words


def test_a_cell_as_large_as_a_third_of_the_image_names_no_third():
    assert place_words((5, 5), Grid.regular((30, 30)), (20.0, 20.0)).startswith("somewhere in the image; row about 10")


def test_a_projection_that_states_its_sides_may_name_them():
    grid = Grid.regular((90, 90), (1.0, 1.0), Calibration.DETECTOR, letters=("F", "L"))
    assert place_words((80, 80), grid).startswith("lower third (toward F), image right (toward L)")


def test_a_place_in_a_volume_names_slices_and_scanner_coordinates():
    grid = Grid.regular((40, 50, 60), (1.0, 1.0, 2.0), Calibration.PATIENT)
    words = place_words((10, 20, 30), grid)
    assert words == "axial slice 31 of 60, coronal slice 21 of 50, sagittal slice 11 of 40; " + (
        "L 10, P 20, H 60 mm in scanner coordinates"
    )
    bare = place_words((10, 20, 30), Grid.regular((40, 50, 60)))
    assert bare == "axis 0 slice 11 of 40, axis 1 slice 21 of 50, axis 2 slice 31 of 60"


@given(st.floats(0.5, 5000))
@settings(max_examples=50, deadline=None)
def test_the_scale_bar_is_round_and_fits(span):
    length, words = scale_bar(Grid.regular((10, 10), (1.0, 1.0), Calibration.CALIBRATED), span)
    assert 0 < length <= span / 4 * 1.021
    assert f"{length:.10g}".lstrip("0.")[0] in "125"
    assert words.endswith("mm (calibrated in the image)")


def test_without_millimeters_there_is_no_scale_bar():
    assert scale_bar(Grid.regular((10, 10)), 100.0) is None
    assert scale_bar(Grid.regular((10, 10), (1.0, 1.0), Calibration.NOMINAL), 100.0)[1] == "20 mm (nominal)"
