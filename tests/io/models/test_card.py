"""The model card: every fault is named by its key and has its mend; what a card allows is checked against the image."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from pellucid.core.errors import BadCard
from pellucid.core.grid import Calibration, Grid
from pellucid.core.image import Image, Modality
from pellucid.core.windows import SlidingWindows
from pellucid.io.modelcard import check_applicability, parse_card, read_card

Text = Callable[..., str]
GOLDEN = {"file": "g.png", "sha256": "b" * 64, "expected": [1.0, 2.0, 3.0]}
FIGURE = {"metric": "AUC", "value": 0.9, "low": 0.8, "high": 0.95, "n": 100, "data": "held out"}


def test_a_small_card_is_enough(card_text: Text) -> None:
    card = parse_card(card_text())
    assert card.model.name == "small"
    assert card.modality == (Modality.XRAY,)
    assert card.inputs[0].size == (16, 16)
    assert card.output_spec.labels == ("a", "b", "c")
    assert card.output_spec.task == "classification"
    assert card.facts.clearance == "none: research"
    assert card.facts.intended_use == "not stated"


def test_everything_a_card_can_say(card_text: Text) -> None:
    text = card_text(
        model__layer="features.4",
        output__operating_point={"b": 0.5},
        applies_to={"age": [18, 90], "view": ["PA"], "min_size": 512},
        golden=[{**GOLDEN, "at": [], "index": 0}],
        performance=[FIGURE],
        facts__owner="Dr. Who",
    )
    card = parse_card(text + "last_change = 2025-11-01\n")
    assert card.output.operating_point == {"b": 0.5}
    assert card.applies_to.age == (18.0, 90.0)
    assert card.golden[0].expected == (1.0, 2.0, 3.0)
    assert card.performance[0].n == 100
    assert card.facts.last_change == "2025-11-01"


def test_sliding_windows(card_text: Text) -> None:
    windows = {"size": [8, 6], "overlap": 0.5, "blend": "constant", "padding": "reflect"}
    card = parse_card(card_text(model__task="segmentation", inference=windows))
    assert card.inference == SlidingWindows((8, 6), 0.5, "constant", 0.125, "reflect")
    assert parse_card(card_text()).inference is None
    uneven = parse_card(card_text(model__task="segmentation", inference={"size": [8, 6], "overlap": [0.5, 0.25]}))
    assert uneven.inference == SlidingWindows((8, 6), (0.5, 0.25))


WINDOWS = {"model__task": "segmentation"}
FAULTS = {
    "windows of a classifier": ({"inference": {"size": [8, 8]}}, "this is a classification", "[inference]"),
    "windows of another rank": (
        {**WINDOWS, "inference": {"size": [8, 8, 8]}},
        "inference.size: expected one length for each axis",
        "trained on",
    ),
    "windows that overlap wholly": (
        {**WINDOWS, "inference": {"size": [8, 8], "overlap": 1.0}},
        "expected an overlap from 0 to below 1",
        "0.25 and 0.5 are usual",
    ),
    "windows without a size": (
        {**WINDOWS, "inference": {"overlap": 0.5}},
        "inference.size is missing",
        "inference.size",
    ),
    "windows misspelled": (
        {**WINDOWS, "inference": {"size": [8, 8], "overlaps": 0.5}},
        "unknown key inference.overlaps",
        "write 'overlap'",
    ),
    "missing key": ({"model__version": None}, "key model.version is missing", "add model.version"),
    "missing digest": ({"model__sha256": None}, "key model.sha256 is missing", "sha256sum"),
    "misspelled key": ({"model__licence": "MIT"}, "unknown key model.licence", "write 'license'"),
    "unknown key": ({"facts__zzz": "x"}, "unknown key facts.zzz", "keys here: intended_use"),
    "unknown table": ({"outputs": {"labels": ["a"]}}, "unknown key outputs", "write 'output'"),
    "misspelled in an input": ({"inputs": [{"chanels": 3}]}, "unknown key inputs[0].chanels", "write 'channels'"),
    "wrong kind": ({"model__name": 3}, "model.name: expected a valid string, got '3'", "correct model.name"),
    "text for a number": ({"inputs": [{"rank": "2"}]}, "inputs[0].rank: expected a valid integer", "inputs[0].rank"),
    "wrong word": ({"model__task": "guess"}, "model.task: expected 'classification'", "segmentation or regression"),
    "unknown modality": ({"model__modality": ["cat"]}, "model.modality[0]: expected 'x-ray'", "model.modality"),
    "no modality": ({"model__modality": []}, "model.modality: expected at least one", 'modality = ["ct"]'),
    "empty name": ({"model__name": " "}, "model.name: expected text", "fill in model.name"),
    "short digest": ({"model__sha256": "abc"}, "model.sha256: expected 64 digits", "sha256sum"),
    "path upward": ({"model__weights": "../w.pt"}, "model.weights: expected a file in the card's own", "beside"),
    "absolute path": ({"model__weights": "/etc/x"}, "model.weights: expected a file in the card's own", "beside"),
    "drive": ({"model__weights": "C:\\x"}, "model.weights: expected a file in the card's own", "beside the card"),
    "factory": ({"model__factory": "network"}, "model.factory: expected package.module:function", "network:build"),
    "factory code": ({"model__factory": "os:system('x')"}, "model.factory: expected package.module", "network:build"),
    "lone options": ({"model__options": {"a": 1}}, "model.options: options are arguments", "add model.factory"),
    "no inputs": ({"inputs": []}, "key inputs is missing", "add inputs"),
    "same name twice": ({"inputs": [{}, {}]}, "inputs: expected different names", "own name"),
    "rank": ({"inputs": [{"rank": 4}]}, "inputs[0].rank: expected 2 or 3", "correct the rank"),
    "spacing": (
        {"inputs": [{"spacing": [1.0]}]},
        "inputs[0]: input 'image': expected 2 positive numbers as spacing",
        "axis",
    ),
    "size": (
        {"inputs": [{}, {"name": "b", "size": [0, 4]}]},
        "inputs[1]: input 'b': expected 2 positive numbers",
        "axis",
    ),
    "mean": (
        {"inputs": [{"mean": [1, 2]}]},
        "inputs[0]: input 'image': expected mean for 1 channel(s)",
        "each channel",
    ),
    "std": ({"inputs": [{"std": [0]}]}, "inputs[0]: input 'image': expected multiple and std above zero", "correct"),
    "channels": ({"inputs": [{"channels": 0}]}, "inputs[0].channels: expected 1 or more", "correct it"),
    "order": ({"inputs": [{"order": "rgb"}]}, "inputs[0].order: rgb means 3 channels", "make them agree"),
    "window": ({"inputs": [{"window": [5, 1]}]}, "inputs[0]: input 'image': expected a window (low, high)", "lower"),
    "two windows": (
        {"inputs": [{"window": [0, 1], "percentiles": [1, 99]}]},
        "inputs[0].percentiles: a window is given too",
        "keep one",
    ),
    "percentiles": ({"inputs": [{"percentiles": [1, 101]}]}, "inputs[0].percentiles: expected [low, high]", "correct"),
    "orientation": ({"inputs": [{"orientation": "RAS"}]}, "inputs[0].orientation: expected three letters", "RAS"),
    "orientation axes": ({"inputs": [{"rank": 3, "orientation": "RLS"}]}, "inputs[0].orientation", "RAS"),
    "not a number": ({"inputs": [{"pad": float("nan")}]}, "inputs[0].pad: expected a finite number", "write a number"),
    "no labels": ({"output__labels": []}, "output.labels: expected at least one", "in the order of the output"),
    "same label": ({"output__labels": ["a", "a"]}, "output.labels: expected different labels", "own name"),
    "softmax of one": ({"output__labels": ["a"]}, "output.activation: softmax needs two", "write sigmoid"),
    "activated twice": ({"output__unit": "probability"}, "output.activation: softmax turns logits", "unit = 'logit'"),
    "regression": ({"model__task": "regression"}, "output.activation: a regression has none", "activation = 'none'"),
    "operating point": ({"output__operating_point": {"z": 1}}, "output.operating_point.z: no such label", "labels"),
    "age": ({"applies_to": {"age": [90, 18]}}, "applies_to.age: expected [low, high]", "swap them"),
    "extent": ({"applies_to": {"max_extent_mm": 0}}, "applies_to.max_extent_mm: expected a number above", "remove"),
    "applies to rank": ({"applies_to": {"rank": [4]}}, "applies_to.rank: expected 2 or 3", "remove"),
    "golden digest": ({"golden": [{**GOLDEN, "sha256": "x"}]}, "golden[0].sha256: expected 64", "sha256sum"),
    "golden path": ({"golden": [{**GOLDEN, "file": "../x"}]}, "golden[0].file: expected a file in the", "beside"),
    "golden input": (
        {"golden": [{**GOLDEN, "file": {"other": "x.png"}, "sha256": {"other": "b" * 64}}]},
        "golden[0].file: expected one image for each of ['image'], got ['other']",
        "by input",
    ),
    "golden values": ({"golden": [{**GOLDEN, "expected": []}]}, "golden[0].expected", "what the model gives"),
    "golden tolerance": ({"golden": [{**GOLDEN, "tolerance": 0}]}, "golden[0].tolerance", "0.001"),
    "golden point": (
        {"golden": [{**GOLDEN, "at": [{"channel": 7, "index": [0, 0], "value": 1.0}]}]},
        "golden[0].at: no channel 7",
        "count from 0",
    ),
    "interval": ({"performance": [{**FIGURE, "low": 0.92}]}, "performance[0].value: expected low <= value", "interval"),
    "cases": ({"performance": [{**FIGURE, "n": 0}]}, "performance[0].n: expected 1 case", "how many cases"),
    "no interval": (
        {"performance": [{k: v for k, v in FIGURE.items() if k != "low"}]},
        "key performance[0].low is missing",
        "performance[0].low",
    ),
}


@pytest.mark.parametrize("name", list(FAULTS))
def test_faults_name_their_key_and_their_mend(card_text: Text, name: str) -> None:
    changes, problem, mend = FAULTS[name]
    with pytest.raises(BadCard) as caught:
        parse_card(card_text(**changes))
    assert problem in caught.value.problem
    assert mend in caught.value.mend
    assert "\n" not in str(caught.value)


def test_several_faults_are_counted(card_text: Text) -> None:
    text = card_text(model__name=3, model__version=4, model__license=5, model__weights=6, model__task=7)
    with pytest.raises(BadCard, match="and 2 more"):
        parse_card(text)


def test_what_is_no_card(tmp_path: Path) -> None:
    with pytest.raises(BadCard, match=r"not TOML.*line 2"):
        parse_card("a = 1\nname = \nb = 2")
    with pytest.raises(BadCard, match=r"there is no model card model\.toml"):
        read_card(tmp_path / "model.toml")
    (tmp_path / "model.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(BadCard, match="cannot be read as text"):
        read_card(tmp_path / "model.toml")


def image(
    modality: Modality = Modality.XRAY,
    shape: tuple[int, ...] = (64, 48),
    spacing: tuple[float, ...] | None = None,
    **traits: str | float,
) -> Image:
    calibration = Calibration.PATIENT if spacing and len(shape) == 3 else Calibration.DETECTOR if spacing else None
    return Image(torch.zeros(1, *shape), Grid.regular(shape, spacing, calibration), modality, traits=traits)


VERDICTS = {
    "right modality": ({}, image(), "applies", "of the kind"),
    "wrong modality": ({}, image(Modality.CT), "excluded", "the modality is ct, the model is for x-ray"),
    "no modality": ({}, image(Modality.UNKNOWN), "unknown", "does not state its modality"),
    "wrong rank": ({}, image(shape=(4, 4, 4)), "excluded", "the image is 3-D, the model is for 2-D"),
    "right view": ({"view": ["PA", "AP"]}, image(view="pa "), "applies", ""),
    "wrong view": ({"view": ["PA", "AP"]}, image(view="LL"), "excluded", "view is LL, the model is for PA or AP"),
    "no view": ({"view": ["PA"]}, image(), "unknown", "view is not stated (the model is for PA)"),
    "body part": ({"body_part": ["CHEST"]}, image(body_part="SKULL"), "excluded", "body part is SKULL"),
    "laterality": ({"laterality": ["L"]}, image(laterality="R"), "excluded", "laterality is R"),
    "kernel": ({"kernel": ["B30f"]}, image(kernel="B70f"), "excluded", "kernel is B70f"),
    "contrast": ({"contrast": ["yes"]}, image(contrast_agent="yes"), "applies", ""),
    "no contrast": ({"contrast": ["yes"]}, image(), "unknown", "contrast is not stated"),
    "sequence": ({"sequence": ["SE"]}, image(scanning_sequence="GR"), "excluded", "sequence is GR"),
    "photometric": ({"photometric": ["MONOCHROME2"]}, image(photometric="MONOCHROME2"), "applies", ""),
    "adult": ({"age": [18, 90]}, image(age=40.0), "applies", ""),
    "child": ({"age": [18, 90]}, image(age=3.5), "excluded", "age is 3.5 years, the model is for 18 to 90 years"),
    "no age": ({"age": [18, float("inf")]}, image(), "unknown", "age is not stated (the model is for 18 years or more"),
    "size": ({"min_size": 50}, image(), "excluded", "the image has 64 x 48 voxels, the model needs 50"),
    "large enough": ({"min_size": 48}, image(), "applies", ""),
    "extent": ({"max_extent_mm": 90}, image(spacing=(2.0, 1.0)), "excluded", "is 128 mm, the model is for up to 90 mm"),
    "extent fits": ({"max_extent_mm": 128, "min_extent_mm": 100}, image(spacing=(2.0, 1.0)), "applies", ""),
    "no extent": ({"max_extent_mm": 90}, image(), "unknown", "field of view is not stated"),
    "worst wins": ({"view": ["PA"], "age": [18, 90]}, image(age=2.0), "excluded", "age is 2"),
    "all unknown": ({"view": ["PA"], "age": [18, 90]}, image(), "unknown", "; age is not stated"),
}


@pytest.mark.parametrize("name", list(VERDICTS))
def test_whether_the_card_covers_an_image(card_text: Text, name: str) -> None:
    limits, picture, verdict, words = VERDICTS[name]
    found = check_applicability(parse_card(card_text(applies_to=limits)), picture)
    assert found.verdict == verdict
    assert words in found.words


@pytest.mark.parametrize(
    ("picture", "verdict"),
    [
        (image(Modality.CT, (4, 4, 4), (5.0, 1.0, 1.0)), "applies"),
        (image(Modality.CT, (4, 4, 4), (8.0, 1.0, 1.0)), "excluded"),
        (image(Modality.CT, (4, 4, 4), (1.0, 1.0, 1.0), slice_mm=10.0), "excluded"),  # the header wins
        (image(Modality.CT, (4, 4, 4)), "unknown"),
    ],
)
def test_the_distance_of_slices(card_text: Text, picture: Image, verdict: str) -> None:
    inputs = [{"rank": 3}]
    text = card_text(model__modality=["ct"], inputs=inputs, applies_to={"slice_mm": [0.5, 5.0]})
    assert check_applicability(parse_card(text), picture).verdict == verdict


def test_the_documented_example_is_a_card() -> None:
    page = (Path(__file__).resolve().parents[3] / "docs" / "model_card.md").read_text(encoding="utf-8")
    example = page.split("```toml\n", 1)[1].split("```", 1)[0]
    card = parse_card(example)
    assert card.golden
    assert card.performance
    assert card.applies_to.max_extent_mm
    from dataclasses import fields

    from pellucid.io.cardschema import TABLES

    keys = {f.name for table in TABLES.values() for f in fields(table)}
    unexplained = {k for k in keys if f"`{k}`" not in page}
    assert not unexplained
