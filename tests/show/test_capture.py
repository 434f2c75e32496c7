"""Pictures of a map on its image: aligned to the pixel, under the display contract, with the words that must not go."""

import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgb

from pellucid.core.errors import BadOption
from pellucid.core.explanation import Explanation
from pellucid.core.grid import Grid
from pellucid.core.image import Modality
from pellucid.show import capture as module
from pellucid.show.capture import capture
from pellucid.show.figure import sketch
from pellucid.show.palette import palette_of
from pellucid.show.raster import paint_base, window_of
from pellucid.show.tracing import MOST_LINES, trace

Make = Callable[..., Explanation]
CONTOUR = np.round(255 * np.asarray(to_rgb(palette_of(Modality.CT).contour))).astype(np.uint8)


def block(shape: tuple[int, ...], inside: tuple[slice, ...], value: float = 3.0) -> torch.Tensor:
    values = torch.zeros(shape)
    values[inside] = value
    return values


def painted(picture: np.ndarray, color: np.ndarray = CONTOUR) -> np.ndarray:
    return (picture == color).all(-1)


def test_the_picture_is_the_image_to_the_pixel_outside_the_line(make: Make, coded: Callable[..., Grid]) -> None:
    values = block((3, 420, 440), (slice(1, 2), slice(100, 140), slice(300, 350)))
    grid = coded((3, 420, 440), "HPL", (2.0, 0.5, 0.5))
    explanation = make(values, grid=grid, modality=Modality.CT)
    drawn = capture(explanation)
    assert (drawn.zoom, drawn.slices) == (1, (0, 1, 2))
    assert explanation.image is not None
    truth = paint_base(explanation.image.data[:, 1].numpy(), window_of(explanation.image), palette_of(Modality.CT))
    shown = drawn.frames[1][:420, :440].astype(float)
    away = np.ones((420, 440), bool)
    away[96:145, 296:355] = away[:30, 200:240] = away[-30:, 200:240] = away[190:230, :30] = away[190:230, -30:] = False
    away[-20:, -20:] = False
    assert np.abs(shown - 255 * truth)[away].max() <= 1
    line = painted(drawn.frames[1][:420])
    assert line[99, 300:350].all()  # just outside the region, on every side of it
    assert line[140, 300:350].all()
    assert not line[105:135, 305:345].any()
    assert not painted(drawn.frames[0][:420]).any()


def test_nothing_is_drawn_below_the_null_or_the_operating_point(make: Make) -> None:
    weak = make(block((420, 420), (slice(50, 90), slice(50, 90)), 0.9), modality=Modality.CT)
    assert not painted(capture(weak).frames[0][:420]).any()
    same = capture(weak, overlay="wash").frames[0][:420]
    assert (same == capture(weak).frames[0][:420]).all()
    said = weak.prediction
    assert said is not None
    no = replace(said, value=0.1)
    strong = block((5, 420, 420), (slice(None), slice(50, 90), slice(50, 90)))
    withheld = capture(make(strong, prediction=no, modality=Modality.CT))
    assert len(withheld.frames) == 1
    assert not painted(withheld.frames[0][:420]).any()
    assert "no map is shown" in withheld.words
    shown = capture(make(strong, prediction=no, modality=Modality.CT), show_anyway=True)
    assert len(shown.frames) == 5
    assert painted(shown.frames[0][:420]).any()


def test_without_a_null_there_is_a_wash_and_no_contour(make: Make) -> None:
    explanation = make(block((420, 420), (slice(50, 90), slice(50, 90))), reference=None, modality=Modality.CT)
    with pytest.raises(BadOption, match="null"):
        capture(explanation, overlay="contour")
    assert explanation.image is not None
    picture = capture(explanation).frames[0][:420, :420]
    gray = (picture == picture[..., :1]).all(-1)
    assert not gray[55:85, 55:85].any()
    assert gray[150:190, 100:180].all()


def test_a_map_stands_beside_an_image_that_it_may_not_color(make: Make) -> None:
    explanation = make(block((420, 420), (slice(50, 90), slice(50, 90))), reference=None, modality=Modality.PET)
    drawn = capture(explanation).frames[0]
    assert drawn.shape[1] == 840
    left = drawn[:420, :420]
    assert (left == left[..., :1]).all()
    assert (drawn[60, 480] != drawn[200, 540]).any()


def test_small_images_are_enlarged_by_a_whole_number(make: Make) -> None:
    drawn = capture(make(block((35, 51), (slice(5, 10), slice(30, 35)))))
    assert drawn.zoom == 8
    rows, columns = np.nonzero(painted(drawn.frames[0][: 35 * 8], CONTOUR))
    assert 4 * 8 <= rows.min() < 6 * 8
    assert 34 * 8 <= columns.max() < 37 * 8


def test_beyond_the_limit_the_slices_around_the_peak_remain(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    values = block((9, 420, 420), (slice(7, 8), slice(50, 90), slice(50, 90)))
    whole = capture(make(values)).frames
    monkeypatch.setattr(module, "MAX_BYTES", 3 * whole[0].nbytes)
    drawn = capture(make(values))
    assert drawn.slices == (6, 7, 8)
    assert "slices 7 to 9 of 9" in drawn.words


def test_marks_are_burned_in(make: Make) -> None:
    explanation = make(block((420, 420), (slice(50, 90), slice(50, 90))))
    plain, marked = (capture(explanation, notes).frames[0] for notes in ((), ("PLANTED nodule, not a finding",)))
    assert (plain[:40, :140] != marked[:40, :140]).any()


def test_a_large_volume_takes_seconds(make: Make) -> None:
    values = block((40, 512, 512), (slice(None), slice(100, 200), slice(300, 400)))
    explanation = make(values, modality=Modality.CT)
    explanation.on_image()
    started = time.process_time()
    capture(explanation)
    assert time.process_time() - started < 4  # 0.5 s where it was written; 300 slices then take less than half a minute


def test_lines_enclose_the_region_and_close_at_the_border(make: Make) -> None:
    values = block((2, 30, 40), (slice(1, 2), slice(10, 20), slice(32, 40)), 3.0)
    values[1, 3:6, 3:6] = -3.0
    traced = trace(sketch(make(values)))
    places = {(place, forward) for place, forward, _ in traced.lines}
    assert places == {(1, True), (1, False)}
    points = next(p for _, forward, p in traced.lines if forward)
    assert (points[0] == points[-1]).all()
    x, y = points.T
    assert (x.min(), x.max(), y.min(), y.max()) == (32.0, 40.0, 10.0, 20.0)
    area = 0.5 * abs(np.dot(x[:-1], y[1:]) - np.dot(x[1:], y[:-1]))
    assert area == pytest.approx(80, abs=1)


def test_a_scattered_map_is_cut_and_says_so(make: Make) -> None:
    values = torch.zeros(120, 120)
    values[::2, ::2] = 3.0
    traced = trace(sketch(make(values)))
    assert len(traced.lines) == MOST_LINES
    assert traced.left_out == 3600 - MOST_LINES


def test_nothing_is_traced_where_nothing_may_be_drawn(make: Make) -> None:
    values = block((30, 40), (slice(10, 20), slice(30, 38)))
    assert trace(sketch(make(values, reference=None))).lines == ()
    assert len(trace(sketch(make(values))).lines) == 1
