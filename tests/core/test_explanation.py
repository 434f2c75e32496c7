"""Answers and what is known about how they were made."""

import json

import numpy as np
import pytest
import torch

from pellucid.core.errors import UnknownName
from pellucid.core.explanation import Answer, Attribution, Explanation, Prediction, Provenance
from pellucid.core.grid import Grid
from pellucid.core.image import Image
from pellucid.core.infill import Blur
from pellucid.core.prepare import InputSpec, prepare


def provenance(**changes):
    known = {
        "case": "c", "input_digest": "i", "model": "m 1", "model_digest": "d", "card_digest": "", "target": "t",
        "method": "Saliency", "settings": {}, "layer": None, "infill": None, "seed": 0, "precision": "float32",
        "device": "cpu", "shared": (1, 1), "own": (0, 0), "ms": 1.5, "versions": {"torch": "2"}, "created": "now",
        "applicability": "ok",
    }  # fmt: skip
    return Provenance(**(known | changes))


def test_channels_are_collapsed_as_the_answer_says() -> None:
    maps = torch.tensor([[[[1.0, -2.0]], [[3.0, -1.0]]]])
    assert Attribution({"image": maps}, "logit", True).collapsed().tolist() == [[[4.0, -3.0]]]
    assert Attribution({"image": maps}, "logit", False, "max").collapsed().tolist() == [[[3.0, -1.0]]]
    with pytest.raises(UnknownName, match=r"no map of input 'ct'\. inputs: image"):
        Attribution({"image": maps}, "logit", True).collapsed("ct")


def test_the_gap_is_the_share_of_the_promised_sum_that_is_missed() -> None:
    maps = {"pet": torch.tensor([[[1.0, -2.0]], [[0.0, 0.0]]]), "covariates": torch.tensor([[4.0], [0.0]])}
    answer = Attribution(maps, "logit", True, difference=torch.tensor([4.0, 0.0]))
    assert answer.gap.tolist() == [0.25, 0.0]
    assert Attribution(maps, "logit", True).gap is None


def test_a_map_comes_back_on_the_images_grid() -> None:
    image = Image(torch.rand(1, 40, 30), Grid.regular((40, 30), (0.5, 0.5)))
    ready = prepare(image, InputSpec(size=(20, 20), fit="letterbox"))
    maps = torch.zeros(1, 1, 20, 20)
    maps[0, 0, 10:, :] = 1
    answer = Attribution({"image": maps}, "logit", True, cell=(2.0, 2.0))
    bare, shown = Explanation(answer, provenance()), Explanation(answer, provenance(), prepared=ready)
    assert bare.numpy().shape == (1, 20, 20)
    assert bare.cell == ((2.0, 2.0), "px")
    back = shown.numpy()
    assert back.dtype == np.float32
    assert back.shape == (1, 40, 30)
    assert np.allclose(back[0, :18], 0)
    assert np.allclose(back[0, 22:], 1)
    assert shown.cell == ((2.0, 2.0), "mm")  # 2 voxels of 1 mm each


def test_what_is_no_map_is_not_taken_for_one() -> None:
    class Sentence(Answer):
        @property
        def kind(self):
            return "text"

    with pytest.raises(UnknownName, match=r"a Sentence has no map"):
        Explanation(Sentence(), provenance()).numpy()


def test_an_explanation_without_a_view_says_how_to_get_one() -> None:
    bare = Explanation(Attribution({"image": torch.zeros(1, 1, 2, 2)}, "logit", True), provenance())
    for show in (bare.plot, bare._repr_html_):
        with pytest.raises(UnknownName, match=r"pellucid\.explain"):
            show()


def test_provenance_is_plain_json() -> None:
    made = provenance(settings={"window": 4.0, "infill": Blur(2.0), "name": "a", "none": None}, warnings=("a", "b"))
    plain = json.loads(json.dumps(made.plain()))
    assert plain["settings"] == {"window": 4.0, "infill": "Blur(sigma=2.0)", "name": "a", "none": None}
    assert (plain["shared"], plain["warnings"]) == ([1, 1], ["a", "b"])


@pytest.mark.parametrize(("value", "threshold", "below"), [(1.0, None, False), (1.0, 1.0, False), (0.9, 1.0, True)])
def test_below_the_operating_point_the_model_says_no(value, threshold, below) -> None:
    assert Prediction("a", value, "logit", 0.5, threshold, "a", {}).below_threshold is below
