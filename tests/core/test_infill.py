"""What stands where something is hidden."""

import pytest
import torch
from scipy import ndimage

from pellucid.core.errors import BadOption
from pellucid.core.infill import Blur, Constant, ItemMean, LocalMedian, filled, parse_infill

FILLS = [Constant(0.3), Blur(2.0), ItemMean(), LocalMedian()]
IDS = ["constant", "blur", "mean", "median"]


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("fill", FILLS, ids=IDS)
@pytest.mark.parametrize("rank", [2, 3])
def test_a_fill_has_the_shape_of_the_input_and_leaves_it(fill, rank) -> None:
    x = draw(2, 3, *(9, 12, 7)[:rank])
    kept = x.clone()
    made = fill(x, (1.0,) * rank, None)
    assert made.shape == x.shape
    assert made.dtype == x.dtype
    assert bool(torch.isfinite(made).all())
    made.add_(1)
    assert torch.equal(x, kept)


@pytest.mark.parametrize("fill", FILLS, ids=IDS)
def test_each_item_is_filled_from_itself_alone(fill) -> None:
    x = draw(3, 2, 16, 16)
    together = fill(x, (1.0, 1.0), None)
    for i in range(3):
        assert torch.allclose(fill(x[i : i + 1], (1.0, 1.0), None), together[i : i + 1], atol=1e-6)


@pytest.mark.parametrize("fill", FILLS, ids=IDS)
def test_a_fill_says_what_it_is_and_is_read_back(fill) -> None:
    assert len(fill.words) > 3
    texts = {"constant": "0.3", "blur": "blur:2", "mean": "mean", "median": "median:0.25"}
    assert parse_infill(texts[IDS[FILLS.index(fill)]]) == fill


def test_a_constant_in_the_images_unit_is_what_the_network_sees() -> None:
    x = draw(1, 2, 4, 4)
    made = Constant(-800.0, physical=True)(x, (1.0, 1.0), ((-600.0, 0.0), (400.0, 200.0)))
    assert torch.allclose(made[0, :, 0, 0], torch.tensor([-0.5, -4.0]))
    with pytest.raises(BadOption, match=r"intensity scale is not known.*network units"):
        Constant(-800.0, physical=True)(x, (1.0, 1.0), None)


def test_blur_is_measured_in_millimeters() -> None:
    x = draw(1, 1, 40, 40)
    made = Blur(3.0)(x, (1.0, 2.0), None)
    expected = ndimage.gaussian_filter(x[0, 0].double().numpy(), (3.0, 1.5), mode="mirror", radius=(9, 5))
    assert float((made[0, 0] - torch.from_numpy(expected)).abs().max()) < 1e-5


def test_the_mean_is_of_each_channel_of_each_item() -> None:
    x = draw(2, 3, 5, 6)
    assert torch.allclose(ItemMean()(x, (1.0, 1.0), None)[1, 2], x[1, 2].mean().expand(5, 6))


def test_the_local_median_forgets_a_finding_and_keeps_the_background() -> None:
    ramp = torch.linspace(0, 1, 64).expand(64, 64).clone()
    finding = ramp.clone()
    finding[28:36, 28:36] += 5
    made = LocalMedian(0.5)(finding[None, None], (1.0, 1.0), None)[0, 0]
    middle = slice(16, 48)
    assert float((made[middle, middle] - ramp[middle, middle]).abs().max()) < 0.15
    small = draw(1, 1, 20, 22)
    expected = ndimage.median_filter(small[0, 0].numpy(), size=2 * round(0.25 * 20 / 2) + 1, mode="nearest")
    assert torch.equal(LocalMedian(0.25)(small, (1.0, 1.0), None)[0, 0], torch.from_numpy(expected))


def test_all_inputs_are_filled_by_name() -> None:
    inputs = {"ct": draw(2, 1, 6, 6) + 5, "age": draw(2, 4), "site": torch.tensor([[3], [1]])}
    made = filled(ItemMean(), inputs, {"ct": (1.0, 1.0), "age": (), "site": ()}, {})
    assert torch.allclose(made["ct"], inputs["ct"].mean((1, 2, 3), keepdim=True).expand(2, 1, 6, 6))
    assert bool((made["age"] == 0).all())
    assert made["site"].tolist() == [[0], [0]]


@pytest.mark.parametrize(
    ("text", "fill"),
    [
        ("0", Constant(0.0)),
        ("-1.5", Constant(-1.5)),
        ("-800 HU", Constant(-800.0, physical=True)),
        (" 2.5 SUV ", Constant(2.5, physical=True)),
        ("blur", Blur()),
        ("BLUR:12", Blur(12.0)),
        ("mean", ItemMean()),
        ("median", LocalMedian()),
        ("median:0.5", LocalMedian(0.5)),
    ],
)
def test_fills_are_read_from_text(text, fill) -> None:
    assert parse_infill(text) == fill


@pytest.mark.parametrize("text", ["", "gray", "blur:wide", "median:half", "HU -800", "1,5"])
def test_text_that_names_no_fill_is_refused(text) -> None:
    with pytest.raises(BadOption, match=r"names no fill.*'-800 HU'"):
        parse_infill(text)


@pytest.mark.parametrize("text", ["nan", "inf", "-inf HU", "blur:0", "blur:-3", "blur:nan", "median:0", "median:1.5"])
def test_a_fill_that_hides_nothing_is_refused(text) -> None:
    with pytest.raises(BadOption, match="expected"):
        parse_infill(text)
