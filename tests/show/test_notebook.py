"""What a notebook shows: the same rules, a figure and a short table."""

from dataclasses import replace
from html.parser import HTMLParser

import pytest
import torch
from matplotlib.figure import Figure

import pellucid
from pellucid.core.case import Region
from pellucid.core.explanation import Attribution, Explanation
from pellucid.show.notebook import NotebookView
from pellucid.show.scenery import Framing


class Parsed(HTMLParser):
    """Images, cells and stray tags of a fragment."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.images, self.tags, self.words = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag == "img":
            self.images.append(dict(attrs))

    def handle_data(self, data):
        self.words.append(data.strip())


def test_a_notebook_gets_one_picture_and_a_table(make):
    page = Parsed(NotebookView(cautions={"GradCAM": "coarse"}).html(make()))
    (image,) = page.images
    assert image["src"].startswith("data:image/png;base64,iVBOR")
    assert "map of GradCAM for lesion" in image["alt"]
    text = " ".join(page.words)
    for words in (
        "lesion",
        "model score 0.88",
        "logit",
        "200 cases",
        "coarse",
        "saturated",
        "native resolution",
        "8 forwards",
    ):
        assert words in text
    assert set(page.tags) <= {"div", "img", "table", "tr", "th", "td"}


def test_plot_gives_a_figure_framed_as_the_case_is(make):
    e = make()
    mask = torch.zeros(24, 32, dtype=torch.bool)
    mask[2:6, 2:6] = True
    view = NotebookView(Framing(region=Region(mask, e.image.grid), region_name="tumor"))
    figure = view.plot(e)
    assert isinstance(figure, Figure)
    assert any("expert outline: tumor" in t.get_text() for t in figure.texts)


def test_below_threshold_a_notebook_shows_no_map(make):
    e = make()
    low = replace(e, prediction=replace(e.prediction, value=0.0))
    text = " ".join(Parsed(NotebookView().html(low)).words)
    assert "below the operating point" in text
    assert "Scale" not in text
    assert "Peak" not in text


def test_names_are_escaped(make, stated):
    hostile = "<img src=x onerror=alert(1)>"
    html = NotebookView().html(make(provenance=stated(target=hostile, warnings=(hostile,))))
    assert len(Parsed(html).images) == 1
    assert "&lt;img src=x onerror" in html


@pytest.mark.parametrize("shape", [(2, 1, 16, 20), (1, 3, 8, 10, 12)])
def test_a_map_without_an_image_is_drawn_alone(stated, shape):
    answer = Attribution({"x": torch.rand(shape)}, unit="logit", signed=True, cell=(1.0,) * (len(shape) - 2))
    e = Explanation(answer, stated())
    figure = NotebookView().plot(e)
    assert len(figure.axes) >= 2
    text = " ".join(Parsed(NotebookView().html(e)).words)
    assert "px of the network input" in text
    assert ("1 of 2" in text) == (shape[0] == 2)
    assert "patient" not in text.lower()


def test_three_lines_give_a_picture():
    """The face of the package: a module and a tensor."""
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(400, 3))
    e = pellucid.explain(net, torch.randn(1, 3, 12, 12), target=1, method="Saliency")
    assert len(Parsed(e._repr_html_()).images) == 1
    assert isinstance(e.plot(), Figure)
