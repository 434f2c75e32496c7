"""Numbers, lengths and scores as a reader sees them."""

import numpy as np
import pytest
import torch

from pellucid.core.explanation import Attribution, Explanation, Prediction
from pellucid.core.grid import Calibration, Grid
from pellucid.core.image import Image, Modality
from pellucid.core.prepare import InputSpec, Prepared, prepare
from pellucid.show.words import (
    MINUS,
    TIMES,
    cell_words,
    class_words,
    cost_words,
    image_cell,
    modality_word,
    number,
    score_words,
)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (2.0, "2"), (0.957, "0.957"), (-1.25, f"{MINUS}1.25"), (123456.0, "123000"), (1e-5, "0.00001"),
     (0.9999, "1"), (None, "\u2014"), (float("nan"), "\u2014"), (float("inf"), "\u2014")],
)  # fmt: skip
def test_numbers_have_three_digits(value, text):
    assert number(value) == text


def test_scores_are_model_scores_with_their_operating_point():
    p = Prediction("effusion", 1.25, "logit", 0.777, 0.4, "effusion", {"effusion": 0.777})
    assert score_words(p) == "effusion: model score 0.777 (1.25 logit); at or above the operating point 0.4 logit"
    low = Prediction("effusion", -1.0, "logit", 0.27, 0.4, "effusion", {})
    assert score_words(low).endswith("below the operating point 0.4 logit")
    bare = Prediction("vessel", 1.25, "logit", None, None, "vessel", {})
    assert score_words(bare) == "vessel: 1.25 logit; the model card names no operating point"
    head = Prediction("x", 0.3, "probability", 0.3, 0.5, "x", {})
    assert score_words(head) == "x: model score 0.3; below the operating point 0.5 model score"
    other = Prediction("mass", 1.0, "logit", 0.1, None, "effusion", {})
    assert "speak of mass only" in class_words(other)


def test_modalities_are_written_as_readers_do():
    assert [modality_word(m) for m in (Modality.XRAY, Modality.CT, Modality.MRI, Modality.PET, Modality.FUNDUS)] == [
        "X-ray", "CT", "MRI", "PET", "Fundus",
    ]  # fmt: skip


@pytest.fixture
def attribution(stated):
    def build(cell, prepared, image) -> Explanation:
        return _attribution(cell, prepared, image, stated())

    return build


def _attribution(cell, prepared, image, provenance) -> Explanation:
    shape = prepared.grid.shape if prepared is not None else (8, 8)
    answer = Attribution({"image": torch.zeros(1, 1, *shape)}, unit="logit", signed=False, cell=cell)
    return Explanation(answer, provenance, image=image, prepared=prepared)


def test_the_native_cell_follows_the_axes_of_the_image(coded, attribution):
    grid = coded((40, 30, 20), "SRA", (2.0, 1.0, 3.0))
    image = Image(torch.rand(1, *grid.shape), grid, Modality.CT)
    prepared = prepare(image, InputSpec(rank=3, orientation="RAS", spacing=(2.0, 2.0, 2.0)))
    e = attribution((4.0, 8.0, 16.0), prepared, image)  # along R, A, S of the network
    assert image_cell(e) == pytest.approx((32.0, 8.0, 16.0))  # the image runs S, R, A
    assert cell_words(e) == f"native resolution 32 {TIMES} 8 {TIMES} 16 mm"


def test_a_cell_without_millimeters_is_a_share_of_the_image(attribution):
    image = Image(torch.rand(1, 512, 512), Grid.regular((512, 512)), Modality.XRAY)
    prepared = prepare(image, InputSpec(size=(224, 224)))
    e = attribution((32.0, 32.0), prepared, image)
    assert cell_words(e) == f"native resolution 73.1 {TIMES} 73.1 px of the image (14% of its edge)"


def test_a_cell_names_what_its_millimeters_are(attribution):
    grid = Grid.regular((512, 512), (0.5, 0.5), Calibration.DETECTOR)
    image = Image(torch.rand(1, 512, 512), grid, Modality.XRAY)
    prepared = Prepared(image.data, grid, grid, (0.0,), (1.0,))
    assert cell_words(attribution((8.0, 8.0), prepared, image)).endswith(f"4 {TIMES} 4 mm at the detector")
    assert cell_words(attribution((), None, None)) == "native resolution not stated by the method"
    assert cell_words(attribution((4.0, 4.0), None, None)).endswith("px of the network input")


def test_cost_is_said_in_passes_and_time(make):
    assert cost_words(make()) == "8 forwards of its own, 1 forward + 1 backward shared with the other maps; 12.5 ms"


def test_rounding_is_that_of_the_value():
    rng = np.random.default_rng(0)
    for value in rng.normal(size=200) * 10 ** rng.uniform(-4, 6, 200):
        said = float(number(float(value)).replace(MINUS, "-"))
        assert said == pytest.approx(value, rel=0.006)
