"""Three lines, no card: a module and a tensor."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

import pellucid
from pellucid.core.errors import NonFinite, ShapeMismatch, UnknownLabel, UnknownLayer, UnknownName
from pellucid.core.model import Model, OutputSpec
from pellucid.core.prepare import InputSpec
from pellucid.core.target import Margin, RegionScore
from pellucid.explain.occlusion import Occlusion
from pellucid.testing import unchanged


def network(rank=2, channels=1, classes=3):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        conv = {2: nn.Conv2d, 3: nn.Conv3d}[rank]
        pool = {2: nn.AdaptiveAvgPool2d, 3: nn.AdaptiveAvgPool3d}[rank]
        return nn.Sequential(
            conv(channels, 4, 3), nn.ReLU(inplace=True), nn.Dropout(0.5), pool(1), nn.Flatten(), nn.Linear(4, classes)
        ).train()


def picture(*shape):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("method", ["GradCAM", "Saliency", "Occlusion:window=4", "integrated-gradients:steps=2"])
@pytest.mark.parametrize("rank", [2, 3])
def test_three_lines(method, rank) -> None:
    net, image = network(rank), picture(1, 1, *(10, 12, 9)[:rank])
    kept = image.clone()
    with unchanged(net):
        explanation = pellucid.explain(net, image, target=2, method=method)
    assert explanation.numpy().shape == (1, *(10, 12, 9)[:rank])
    assert np.isfinite(explanation.numpy()).all()
    assert explanation.provenance.target == "class 2"
    assert torch.equal(image, kept)


def test_the_map_is_the_gradient_of_the_module() -> None:
    net, image = network(), picture(1, 1, 10, 12)
    net.eval()
    x = image.clone().requires_grad_()
    net(x)[0, 1].backward()
    found = pellucid.explain(net.train(), image, target=1, method="Saliency").numpy()
    assert np.allclose(found[0], x.grad[0, 0].abs().numpy(), atol=1e-7)


def test_targets_by_number_by_object_and_by_default() -> None:
    net, image = network(), picture(1, 1, 10, 12)
    net.eval()
    predicted = int(net(image).argmax())
    assert pellucid.explain(net, image).provenance.target == f"class {predicted}"
    assert pellucid.explain(net, image, Margin(0, 2)).provenance.target == "class 0 over class 2"
    named = Model(net, (InputSpec(),), OutputSpec(labels=("a", "b", "c")))
    assert pellucid.explain(named, image, "b").provenance.target == "b"


def test_a_method_may_be_an_object_and_a_seed_is_kept() -> None:
    made = pellucid.explain(network(), picture(1, 1, 10, 12), 0, Occlusion(window=5.0), seed=9).provenance
    assert (made.settings["window"], made.seed, made.applicability) == (5.0, 9, "not checked: no model card")


def test_a_segmentation_is_seen_from_its_output() -> None:
    net = nn.Conv2d(1, 3, 1)
    net.bias.data = torch.tensor([-9.0, 0.0, -9.0])
    image = picture(1, 1, 8, 8)
    assert pellucid.explain(net, image, method="Saliency").provenance.target == "class 1 where predicted"
    one = nn.Conv2d(1, 1, 1)
    one.weight.data.fill_(1.0)
    one.bias.data.fill_(-0.5)
    made = pellucid.explain(one, image, method="InputXGradient")
    mask = image[0, 0] > 0.5
    assert np.allclose(made.numpy()[0], (image[0, 0] * mask / mask.sum()).numpy(), atol=1e-6)
    assert pellucid.explain(net, image, RegionScore(1), "Saliency").numpy().shape == (1, 8, 8)


def test_what_a_card_says_of_preparing_is_not_done_to_a_tensor() -> None:
    """The tensor is what the module takes: it is not windowed, resized or turned a second time."""
    net, image = network(channels=3), picture(1, 3, 10, 12)
    spec = InputSpec(channels=3, order="bgr", size=(6, 6), window=(0.4, 0.6), scale="zscore", mean=(0.5,) * 3)
    bare = pellucid.explain(net, image, 1, "Saliency").numpy()
    carded = pellucid.explain(Model(net, (spec,)), image, 1, "Saliency").numpy()
    assert np.array_equal(carded, bare)
    turned = Model(network(3), (InputSpec(rank=3, orientation="RAS", spacing=(1.0, 1.0, 1.0)),))
    assert pellucid.explain(turned, picture(1, 1, 8, 9, 7), 1).numpy().shape == (1, 8, 9, 7)


def test_values_of_the_tensor_stay_as_they_are() -> None:
    seen = []
    net = network()
    net.register_forward_pre_hook(lambda _m, args: seen.append(args[0].clone()))
    image = picture(1, 1, 10, 12) * 4000 - 1000
    pellucid.explain(net, image, 1, "Saliency")
    assert all(torch.equal(x, image) for x in seen)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_modules_of_another_number_format(dtype) -> None:
    net, image = network(), picture(1, 1, 10, 12)
    full = pellucid.explain(net, image, 1, "Saliency").numpy()
    other = pellucid.explain(network().to(dtype), image.to(dtype), 1, "Saliency").numpy()
    assert abs(full - other).max() < 0.05 * full.max()


def test_pixels_of_whole_numbers() -> None:
    image = (picture(1, 3, 10, 12) * 255).to(torch.uint8)
    assert pellucid.explain(network(channels=3), image.float(), 1).numpy().shape == (1, 10, 12)


@pytest.mark.parametrize("shape", [(10, 12), (1, 10, 12), (2, 1, 10, 12), (0, 1, 10, 12), (1, 1, 2, 3, 4, 5)])
def test_one_image_with_batch_and_channel_is_expected(shape) -> None:
    with pytest.raises(ShapeMismatch, match=r"one image \(1, channel, \*space\).*tensor\[None\]"):
        pellucid.explain(network(), torch.zeros(shape), 1)


def test_bad_arguments_are_answered_with_what_there_is() -> None:
    net, image = network(), picture(1, 1, 10, 12)
    with pytest.raises(UnknownLabel, match="0 to 2"):
        pellucid.explain(net, image, 3)
    with pytest.raises(UnknownName, match=r"there are: .*GradCAM"):
        pellucid.explain(net, image, 1, "GradCamera")
    with pytest.raises(UnknownLayer, match=r"layers: 0, 1"):
        pellucid.explain(net, image, 1, "GradCAM:layer=conv9")
    with pytest.raises(NonFinite, match="got 1 of 120"):
        pellucid.explain(net, image.masked_fill(image == image.max(), torch.nan), 1)
    with pytest.raises(ShapeMismatch, match="takes 3-D images, got a 2-D one"):
        pellucid.explain(Model(network(3), (InputSpec(rank=3),)), image, 1)
    with pytest.raises(ShapeMismatch, match=r"output \(batch, class\).*class axis"):
        pellucid.explain(nn.Flatten(0), image, 1)


def test_an_output_in_a_container_is_named_by_a_model() -> None:
    class Headed(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = network()

        def forward(self, x):
            return {"logits": self.net(x)}

    image = picture(1, 1, 10, 12)
    with pytest.raises(pellucid.PellucidError, match=r"a dict with \['logits'\].*output.head"):
        pellucid.explain(Headed(), image, 1)
    model = Model(Headed(), output=replace(OutputSpec(), head="logits"))
    plain = pellucid.explain(network(), image, 1).numpy()
    assert np.array_equal(pellucid.explain(model, image, 1).numpy(), plain)


def test_it_shows_itself() -> None:
    explanation = pellucid.explain(network(), picture(1, 1, 24, 24), target=1)
    assert explanation.plot().axes
    page = explanation._repr_html_()
    assert "GradCAM" in page
    assert "class 1" in page
    assert "probability" not in page


def test_explain_stays_a_function_when_its_room_is_imported() -> None:
    """A package and a function share the name: whichever is imported first, the name is the function."""
    orders = (
        "import pellucid.explain.cam; import pellucid",
        "from pellucid.explain.cam import GradCAM; import pellucid; pellucid.explain(net, x, 1)",
    )
    for order in orders:
        code = (
            "import torch; net = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.Flatten(), "
            f"torch.nn.Linear(72, 2)); x = torch.rand(1, 1, 8, 8); {order}; "
            "print(pellucid.explain(net, x, 1).numpy().shape, pellucid.explain(net, x, 1, 'Saliency').numpy().shape)"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout.strip() == "(1, 8, 8) (1, 8, 8)"


def test_a_plot_shows_itself_in_a_notebook() -> None:
    """Without pyplot no formatter knows a bare figure: it brings its own picture."""
    net = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), torch.nn.Flatten(), torch.nn.Linear(144, 3))
    figure = pellucid.explain(net, torch.rand(1, 1, 8, 8), target=2).plot()
    assert figure._repr_png_().startswith(b"\x89PNG")
