"""Every method and metric by name, and one made from text."""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal, Optional

import pytest

from pellucid.core.card import Card
from pellucid.core.errors import BadOption, UnknownName
from pellucid.core.explainer import Explainer
from pellucid.core.infill import Blur, Constant, Infill, ItemMean, LocalMedian
from pellucid.explain.cam import GradCAM
from pellucid.explain.gradient import Saliency
from pellucid.explain.occlusion import Occlusion
from pellucid.explain.path import IntegratedGradients
from pellucid.workbench import registry
from pellucid.workbench.registry import explainers, make_explainer, make_metric, metrics, spell, spell_whole


def test_all_are_listed_sorted() -> None:
    names = list(explainers())
    assert names == sorted(names)
    assert {"Saliency", "InputXGradient", "IntegratedGradients", "GradCAM", "HiResCAM", "Occlusion"} <= set(names)
    assert {"DeletionAUC", "InsertionAUC", "HitRate", "IoU", "Dice", "ModelParameterRandomization"} <= set(metrics())
    assert list(metrics()) == sorted(metrics())


@pytest.mark.parametrize(
    ("text", "made"),
    [
        ("Saliency", Saliency()),
        ("gradcam", GradCAM()),
        ("Grad-CAM:layer=features.norm5", GradCAM("features.norm5")),
        ("GradCAM:layer=relu#2", GradCAM("relu#2")),
        ("GradCAM:layer=none", GradCAM()),
        ("Occlusion:window=16", Occlusion(16.0)),
        (" occlusion : window=16 , stride=8.5 ", Occlusion(16.0, 8.5)),
        ("occlusion:infill=blur:5", Occlusion(infill=Blur(5.0))),
        ("occlusion:infill=-800 HU,window=3", Occlusion(3.0, infill=Constant(-800.0, physical=True))),
        ("IntegratedGradients:steps=7,baseline=mean", IntegratedGradients(7, ItemMean())),
        ("integrated_gradients:baseline=median:0.5", IntegratedGradients(baseline=LocalMedian(0.5))),
        ("Occlusion:", Occlusion()),
    ],
)
def test_a_method_is_made_from_text(text, made) -> None:
    assert make_explainer(text) == made


@pytest.mark.parametrize(
    ("text", "error", "words"),
    [
        ("Gradcamera", UnknownName, r"no method named 'Gradcamera'\. there are: .*GradCAM"),
        ("", UnknownName, "no method named ''"),
        ("Dice", UnknownName, "no method named 'Dice'"),
        ("GlobalSurrogate", UnknownName, "explains a model from many cases: pellucid cohort takes it"),
        ("Occlusion:size=3", BadOption, r"no parameter 'size'\. parameters: window, stride, infill"),
        ("Occlusion:window", BadOption, "no parameter 'window'"),
        ("InputXGradient:x=1", BadOption, "parameters: none"),
        ("Occlusion:window=wide", BadOption, "window must be float, got 'wide'"),
        ("Occlusion:window=-1", BadOption, "positive window"),
        ("Occlusion:infill=gray", BadOption, "names no fill"),
        ("IntegratedGradients:steps=0", BadOption, "at least 1 step"),
        ("IntegratedGradients:steps=2.5", BadOption, "steps must be int, got '2.5'"),
        ("FullGrad:rescaled=1", BadOption, "rescaled must be true or false, got '1'"),
    ],
)
def test_text_that_makes_no_method_is_answered(text, error, words) -> None:
    with pytest.raises(error, match=words):
        make_explainer(text)


def test_a_metric_takes_its_words_and_no_others() -> None:
    assert make_metric("dice:threshold=otsu").threshold == "otsu"
    with pytest.raises(BadOption, match="threshold must be area or otsu or fixed or share, got 'most'"):
        make_metric("dice:threshold=most")


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (Optional[float], "2", 2.0),  # noqa: UP045
        (Optional[float], "None", None),  # noqa: UP045
        (int | float, "3", 3),
        (int | float, "3.5", 3.5),
        (float | Literal["auto"], "auto", "auto"),
        (float | Literal["auto"], "0.5", 0.5),
        (str, "7", "7"),
        (Infill | None, "none", None),
        (bool, "True", True),
        (bool, "false", False),
    ],
)
def test_values_are_read_by_their_type(kind, text, value) -> None:
    assert registry._parse("key", text, kind) == value


def test_what_cannot_be_written_is_set_from_python() -> None:
    with pytest.raises(BadOption, match="cannot be given as text"):
        registry._parse("masks", "3", list[int])


@pytest.mark.parametrize(
    "text",
    [
        "Saliency",
        "GradCAM:layer=relu#2",
        "Occlusion:window=16,stride=8",
        "IntegratedGradients:steps=7",
        "FullGrad:rescaled=true",
    ],
)
def test_a_method_is_spelled_as_it_was_written(text) -> None:
    assert spell(make_explainer(text)) == text


def test_two_fills_are_spelled_apart() -> None:
    assert len({spell(Occlusion(infill=f)) for f in (None, Constant(0.0), Constant(1.0), Blur(2.0), ItemMean())}) == 5


def test_methods_of_other_packages_are_found_by_entry_point(monkeypatch) -> None:
    loaded = []

    class Point:
        def load(self):
            @dataclass(frozen=True)
            class Foreign(Explainer):
                gain: Annotated[float, "gain"] = 1.0
                card: ClassVar[Card] = Saliency.card

                def __call__(self, probe):
                    raise NotImplementedError

            loaded.append(Foreign)

    monkeypatch.setattr(registry, "entry_points", lambda group: [Point()] if group == "pellucid.explainers" else [])
    registry.load_all.cache_clear()
    try:
        assert make_explainer("foreign:gain=2") == loaded[0](2.0)
        assert len(loaded) == 1
    finally:
        Explainer.registry.pop("Foreign", None)
        registry.load_all.cache_clear()


def test_every_method_and_metric_is_read_back_from_all_its_parameters() -> None:
    for made in explainers().values():
        text = spell_whole(made())
        assert make_explainer(text) == made()
        assert text.count("=") >= len(made().settings())
    for made in metrics().values():
        assert make_metric(spell_whole(made())) == made()


def test_numbers_fills_and_the_resolved_layer_are_spelled_to_the_last_digit() -> None:
    for fill in (Constant(0.1 + 0.2), Constant(-800.0, physical=True), Blur(1 / 3), ItemMean(), LocalMedian(0.3)):
        odd = Occlusion(window=16 / 7, infill=fill)
        assert make_explainer(spell_whole(odd)) == odd
    assert spell_whole(GradCAM(), layer="features.norm5") == "GradCAM:layer=features.norm5"
    assert spell_whole(GradCAM("relu#2"), layer="relu#2") == "GradCAM:layer=relu#2"
    with pytest.raises(BadOption, match="cannot be written as text"):
        spell_whole(GradCAM("a "))
