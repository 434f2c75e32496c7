"""Figures as they are drawn: the display contract in pixels and text."""

import ast
import io
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import skimage
import torch
from matplotlib.figure import Figure

import pellucid.show
from pellucid.core.case import Region
from pellucid.core.errors import BadOption, ShapeMismatch
from pellucid.core.grid import Calibration, Grid
from pellucid.core.image import Image, Modality
from pellucid.core.prepare import InputSpec, prepare
from pellucid.show.figure import draw, draw_image, draw_panel, draw_sketch, scenery_of, sketch
from pellucid.show.pane import DASHES
from pellucid.show.scenery import Framing, burned, region_center
from pellucid.show.sheet import png


def words(figure: Figure) -> str:
    inside = [t.get_text() for axes in figure.axes for t in axes.texts]
    return "\n".join([t.get_text() for t in figure.texts] + inside)


def lines(figure: Figure) -> list[str]:
    return [t.get_text() for t in figure.texts]


def panes(figure: Figure) -> list:
    """Axes that hold a picture and not a color scale."""
    return [a for a in figure.axes if a.get_position().height * figure.get_figheight() * figure.dpi > 40]


def no_overlap(figure: Figure) -> None:
    """All text lies on the sheet, and no two pieces of it on each other."""
    figure.canvas.draw()
    width, height = figure.get_size_inches() * figure.dpi
    boxes = []
    for text in [*figure.texts, *(t for a in figure.axes for t in a.texts)]:
        if text.get_text().strip():
            box = text.get_window_extent()
            assert box.x0 >= -1, text.get_text()
            assert box.y0 >= -1, text.get_text()
            assert box.x1 <= width + 1, text.get_text()
            assert box.y1 <= height + 1, text.get_text()
            boxes.append((box, text.get_text()))
    for (a, first), (b, second) in combinations(boxes, 2):
        across = min(a.x1, b.x1) - max(a.x0, b.x0)
        down = min(a.y1, b.y1) - max(a.y0, b.y0)
        assert not (across > 1 and down > 2), (first, second)


@pytest.fixture
def volume(make, coded):
    grid = coded((40, 44, 36), "RAS", (1.0, 1.0, 1.5))
    values = torch.zeros(grid.shape)
    values[8:14, 20:26, 18:24] = 3.0
    values[26:30, 20:26, 18:24] = -2.0
    return make(values, grid=grid, modality=Modality.MRI, data=torch.rand(1, *grid.shape))


def test_order_is_bare_image_then_contour_then_wash(make):
    figure = draw(make())
    bare, contour, wash = panes(figure)
    assert (len(bare.images), len(bare.collections)) == (1, 0)
    assert (len(contour.images), len(contour.collections)) == (1, 2)
    assert (len(wash.images), len(wash.collections)) == (2, 2)
    x = [a.get_position().x0 for a in (bare, contour, wash)]
    assert x == sorted(x)


def test_below_the_operating_point_only_the_bare_image_is_drawn(make):
    e = make()
    low = make(prediction=replace(e.prediction, value=0.1))
    figure = draw(low)
    assert len(panes(figure)) == len(figure.axes) == 1
    assert len(figure.axes[0].images) == 1
    assert not figure.axes[0].collections
    assert "score below threshold" in words(figure).replace("\n", " ")
    assert "peak" not in words(figure)
    asked = draw(low, Framing(show_anyway=True))
    assert len(panes(asked)) == 3
    assert "shown on request" in words(asked)


def test_nothing_is_painted_where_the_map_is_below_its_null(make):
    e = make()
    one = sketch(e)
    scenery = scenery_of(one, Framing())
    figure = draw_sketch(one, scenery, one.stages)
    wash = panes(figure)[2].images[1].get_array()
    drawn = scenery.pixels(scenery.panes[0], one.values, smooth=False)
    assert wash.shape[:2] == drawn.shape
    assert (wash[np.abs(drawn) <= 1.0][:, 3] == 0).all()
    assert (wash[np.abs(drawn) > 1.0][:, 3] > 0).all()


def test_without_a_null_there_is_no_line_and_the_scale_says_not_comparable(make):
    figure = draw(make(reference=None))
    assert len(panes(figure)) == 2
    assert not any(a.collections for a in panes(figure))
    assert "scale of this image only: not comparable" in words(figure)


def test_the_sign_is_carried_by_the_line_too(make):
    contour = panes(draw(make()))[1]
    styles = [c.get_linestyle()[0][1] for c in contour.collections]
    assert styles[0] is None
    assert styles[1] is not None
    assert DASHES["against"] != DASHES["expert"] != DASHES["for"]


def test_lines_are_thin_and_cased(make):
    for line in panes(draw(make()))[1].collections:
        assert 1 <= line.get_linewidth()[0] * 100 / 72 <= 2
        assert line.get_path_effects()


def test_the_color_scale_names_unit_null_and_ends(make):
    text = [t.get_text() for a in draw(make()).axes for t in a.texts]
    assert "4 logit" in text
    assert "null 1" in text
    assert "\u22124" in text


def test_every_picture_says_research_and_where_its_scale_is_from(make):
    text = words(draw(make()))
    assert "not for diagnosis" in text
    assert "200 cases" in text
    assert "formula-made normals" in text


@pytest.mark.parametrize("cell", [(1.0, 1.0), (8.0, 8.0), (20.0, 28.0), (60.0, 60.0)])
def test_the_native_cell_is_drawn_at_its_true_size(make, cell):
    one = sketch(make(cell=cell, signed=False))
    scenery = scenery_of(one, Framing())
    axes = panes(draw_sketch(one, scenery, one.stages))[2]
    box = axes.patches[-1]
    pane = scenery.panes[0]
    room = pane.base.shape[0] - 14, pane.base.shape[1] - 14
    assert box.get_height() == pytest.approx(min(cell[0] * pane.scale, room[0]))
    assert box.get_width() == pytest.approx(min(cell[1] * pane.scale, room[1]))
    assert "px" in "".join(t.get_text() for t in axes.texts)


def test_a_plain_picture_never_names_a_side_of_the_patient(make):
    e = make()
    text = words(draw(e)) + words(draw_panel([e, e])) + words(draw_image(e.image))
    assert "patient" not in text.lower()
    assert not {t.get_text() for a in draw(e).axes for t in a.texts} & set("LRAPHF")
    assert "image right" in text


def test_a_picture_without_millimeters_has_none(make):
    e = make()
    assert " mm" not in words(draw(e))
    grid = Grid.regular((24, 32), (0.2, 0.2), Calibration.DETECTOR)
    assert "1 mm at the detector" in words(draw(make(grid=grid)))


def test_planted_is_burned_into_every_pane(make):
    notes = ("PLANTED nodule drawn by formula", "SYNTHETIC DATA: not a patient", "read in March", "CT of the chest")
    assert burned(notes) == ("PLANTED", "SYNTHETIC DATA")
    e = make()
    for figure in (
        draw(e, Framing(notes=notes)),
        draw_panel([e, e], Framing(notes=notes)),
        draw_image(e.image, Framing(notes=notes)),
    ):
        assert all({"PLANTED", "SYNTHETIC DATA"} <= {t.get_text() for t in a.texts} for a in panes(figure))
        assert "drawn by formula" in words(figure)


def test_the_reference_region_has_a_line_of_its_own(make):
    e = make()
    mask = torch.zeros(24, 32, dtype=torch.bool)
    mask[4:9, 5:12] = True
    region = Region(mask, e.image.grid, "planted")
    figure = draw(e, Framing(region=region, region_name="nodule"))
    bare, contour, _ = panes(figure)
    assert not bare.collections
    assert len(contour.collections) == 3
    assert "PLANTED truth: nodule" in words(figure)
    assert len(panes(draw_image(e.image, Framing(region=region)))) == 2


def test_pet_carries_lines_only(make):
    figure = draw(make(modality=Modality.PET))
    contour, beside = panes(figure)[1:]
    assert len(contour.images) == 1
    assert np.ptp(beside.images[0].get_array()) == 0  # the map is drawn on an empty field, not over uptake
    assert "lines only" in words(figure)


def test_a_wash_over_a_color_image_lies_on_its_gray(make):
    figure = draw(make(data=torch.rand(3, 24, 32), modality=Modality.FUNDUS))
    bare, contour, wash = (np.asarray(a.images[0].get_array()) for a in panes(figure))
    assert np.ptp(bare, axis=-1).max() > 0.1
    assert (bare == contour).all()
    assert np.ptp(wash, axis=-1).max() == 0


def test_map_and_image_line_up_in_every_plane(make, coded):
    """A bright voxel and the map's peak on a network grid of other axes and spacing fall on the same pixel."""
    grid = coded((40, 44, 36), "SRA", (1.0, 1.0, 1.5))
    at = (12, 30, 9)
    data = torch.zeros(1, *grid.shape)
    data[(0, *at)] = 1.0
    image = Image(data, grid, Modality.CT, "[0,1]")
    prepared = prepare(image, InputSpec(rank=3, orientation="LPS", spacing=(1.0, 1.0, 1.0), fit="crop"))
    values = torch.zeros(prepared.grid.shape)
    index = prepared.grid.index(grid.world(np.asarray([at], float)))[0]
    values[tuple(round(i) for i in index)] = 50.0
    e = make(values, image=image, prepared=prepared, signed=False)
    one = sketch(e)
    scenery = scenery_of(one, Framing(at=at))
    for pane in scenery.panes:
        seen = np.argwhere(pane.base[..., 0] > 0.5).mean(0)
        drawn = scenery.pixels(pane, scenery.crop(one.values), smooth=False)
        assert np.abs(np.argwhere(drawn > 0.5 * drawn.max()).mean(0) - seen).max() < 0.8 * pane.scale


def test_a_volume_has_three_planes_with_letters_and_slices(volume):
    figure = draw(volume)
    assert len(panes(figure)) == 9
    found = lines(figure)
    assert sum(t.startswith("axial 19/36") for t in found) == 3
    first = {t.get_text() for t in panes(figure)[0].texts}
    assert {"A", "P", "R", "L"} <= first
    assert "10 mm" in first
    assert [t for t in found if t in ("Image", "Region above the null", "Map over the image")] == [
        "Image",
        "Region above the null",
        "Map over the image",
    ]


def test_a_volume_is_cut_through_the_region_or_else_the_peak(volume):
    one = sketch(volume)
    assert one.peak == (8, 20, 18)
    mask = torch.zeros(volume.image.grid.shape, dtype=torch.bool)
    mask[30:33, 5:8, 3:6] = True
    region = Region(mask, volume.image.grid)
    assert region_center(region, volume.image.grid) == (31, 6, 4)
    figure = draw(volume, Framing(region=region))
    assert any(t.startswith("axial 5/36") for t in lines(figure))
    assert "lies outside the slices shown here" in words(figure)
    assert "lies outside" not in words(draw(volume))


def test_a_withheld_volume_is_cut_through_its_middle(volume):
    low = replace(volume, prediction=replace(volume.prediction, value=-1.0))
    assert any(t.startswith("axial 19/36") for t in lines(draw(low)))


def test_a_small_field_is_shown_close_and_outlined(make, coded):
    grid = coded((120, 120, 60), "LPS", (1.0, 1.0, 2.0))
    image = Image(torch.rand(1, *grid.shape), grid, Modality.MRI, "[0,1]")
    part = image.cropped((30, 40, 20), (24, 24, 12))
    prepared = replace(make(torch.rand(24, 24, 12), grid=part.grid).prepared, source=grid)
    e = make(torch.rand(24, 24, 12) * 3, image=image, prepared=prepared)
    one = sketch(e)
    close = scenery_of(one, Framing())
    assert close.grid.shape[0] < 60
    assert next(p.name.split()[1] for p in close.panes).endswith("/60")
    figure = draw(e)
    assert "what the network saw" in words(figure)
    assert "what the network saw" not in words(draw(make()))
    whole = draw_image(image, prepared=prepared)
    assert "what the network saw" in words(whole)


def test_text_neither_overlaps_nor_leaves_the_sheet(make, volume):
    grid = Grid.regular((50, 30), (3.0, 3.0), Calibration.NOMINAL)
    mask = torch.zeros(50, 30, dtype=torch.bool)
    mask[4:9, 5:12] = True
    notes = ("PLANTED " + "a very long sentence about what was planted " * 4,)
    framing = Framing(region=Region(mask, grid), region_name="nodule " * 4, notes=notes)
    e = make(torch.linspace(-3, 3, 1500).view(50, 30), grid=grid, cell=(12.0, 12.0))
    for figure in (draw(e, framing), draw_panel([e] * 4, framing), draw(volume), draw_panel([volume, volume])):
        no_overlap(figure)
    for figure in (
        draw_image(volume.image),
        draw_image(e.image, framing, "case"),
        draw(e, replace(framing, width=300)),
    ):
        no_overlap(figure)


def test_hostile_and_foreign_names_are_drawn(make, stated):
    e = make(provenance=stated(case="$\\frac{x}$ \u60a3\u8005 <b>\n", target="a_b$^2$"))
    text = words(draw(e, Framing(notes=("PLANTED $x^2$ \u60a3\u8005",))))
    assert "\u25a1\u25a1" in text
    assert len(png(draw(e))) > 1000


def test_a_map_of_another_size_than_its_image_is_refused(make):
    e = make()
    with pytest.raises(ShapeMismatch, match="on the image's grid"):
        draw(replace(e, prepared=None, image=Image(torch.rand(1, 9, 9), Grid.regular((9, 9)))))


def test_a_panel_needs_a_map():
    with pytest.raises(BadOption, match="at least one explanation"):
        draw_panel([])


def test_panels_keep_maps_at_one_place_and_size(make, volume):
    figure = draw_panel([make(), make(reference=None), make(signed=False)])
    sizes = {tuple(np.round(a.get_position().size, 6)) for a in panes(figure)}
    assert len(panes(figure)) == 4
    assert len(sizes) == 1
    assert "colors of two methods are not comparable" in words(figure)
    assert len(panes(draw_panel([volume, volume]))) == 9


def test_drawing_is_the_same_in_threads(make):
    made = [make(torch.rand(24, 32) * k) for k in range(1, 5)]
    alone = [png(draw(e)) for e in made]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda e: png(draw(e)), made))
    assert alone == together


def test_no_global_figure_state_is_loaded():
    rooms = sorted(Path(pellucid.show.__file__).parent.glob("*.py"))
    assert len(rooms) > 10
    for file in rooms:
        names = {
            n.name
            for node in ast.walk(ast.parse(file.read_text("utf-8")))
            if isinstance(node, ast.Import)
            for n in node.names
        }
        sources = {
            node.module for node in ast.walk(ast.parse(file.read_text("utf-8"))) if isinstance(node, ast.ImportFrom)
        }
        assert not any("pyplot" in name for name in names | sources), file.name
        assert not any(s.startswith("pellucid.") and s.split(".")[1] not in ("core", "show") for s in sources), (
            file.name
        )


def test_print_resolution_is_three_times_the_screen(make):
    figure = draw(make())
    small, large = (PIL.Image.open(io.BytesIO(png(figure, s))) for s in (1.0, 3.0))
    assert large.size == pytest.approx((3 * small.width, 3 * small.height), abs=3)
    assert small.mode == "RGB"


def test_a_real_photograph_at_full_size(make):
    """The fundus photograph of scikit-image: 1411 px, color, cut to its field by the network."""
    rgb = np.asarray(PIL.Image.open(Path(skimage.__file__).parent / "data" / "retina.jpg"))
    data = torch.from_numpy(rgb.copy()).permute(2, 0, 1).float() / 255
    image = Image(data, Grid.regular(data.shape[1:]), Modality.FUNDUS, "[0,1]")
    prepared = prepare(image, InputSpec(channels=3, order="rgb", size=(128, 128), fit="letterbox", crop="field"))
    values = torch.zeros(128, 128)
    values[40:60, 90:120] = 3.0
    e = make(values, image=image, prepared=prepared, signed=False, cell=(16.0, 16.0))
    figure = draw(e)
    assert max(figure.get_size_inches() * figure.dpi) < 950
    assert "image right" in words(figure)
    one = sketch(e)
    scenery = scenery_of(one, Framing())
    dark = scenery.panes[0].base.sum(-1) < 0.15  # around the field
    assert 0.1 < dark.mean() < 0.4
    wash = panes(figure)[2].images[1].get_array()[..., 3] > 0
    rows, columns = np.argwhere(wash).mean(0) / wash.shape
    assert (rows, columns) == pytest.approx((50 / 128, 105 / 128), abs=0.02)
    no_overlap(figure)
