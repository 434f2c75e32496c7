"""Guided backpropagation and deconvolution against captum, on small networks and those of MONAI, on real images.

Of the defects measured in peers, right here: B16 (captum leaves functional ReLU as it is, so the plain gradient comes
out in silence).
"""

import copy
import warnings

import nibabel
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

from pellucid.core.model import OutputSpec
from pellucid.core.probe import Scene
from pellucid.core.target import ClassScore, RegionScore
from pellucid.explain.gradient import Saliency
from pellucid.explain.guided import Deconvolution, GuidedBackprop
from pellucid.testing import unchanged

methods = pytest.mark.parametrize("method", [GuidedBackprop, Deconvolution])
SHAPE = {2: (6, 8), 3: (4, 5, 6)}


def close(ours, theirs, relative):
    """Largest difference as a share of the largest value."""
    return float((ours - theirs).abs().max()) <= relative * float(theirs.abs().max())


def peer_map(method, net, x, target):
    """Captum's map; it cannot hook what works in place, so it gets a copy that does not."""
    import captum.attr

    net = copy.deepcopy(net)
    for m in net.modules():
        if isinstance(m, nn.ReLU):
            m.inplace = False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return getattr(captum.attr, method.__name__)(net).attribute(x.clone().requires_grad_(), target=target).detach()


@pytest.fixture(scope="module")
def chain(nets):
    """A network of modules, with max pooling."""

    def made(rank):
        conv, pool = nets.CONV[rank], {2: nn.MaxPool2d, 3: nn.MaxPool3d}[rank]
        middle = (nets.NORM[rank](4), nn.ReLU(), pool(2), conv(4, 5, 3, padding=1), nn.ReLU())
        return nn.Sequential(conv(2, 4, 3, padding=1), *middle, nets.POOL[rank](1), nn.Flatten(), nn.Linear(5, 3))

    return lambda rank: nets.seeded(lambda: made(rank))


@methods
@pytest.mark.parametrize("rank", SHAPE)
def test_equal_to_captum_where_relu_is_a_module(method, rank, chain, nets, model_of, explained):
    net, x = chain(rank), nets.noise(2, 2, *SHAPE[rank])
    assert close(explained(method(), model_of(net, rank), x).maps["image"], peer_map(method, net, x, 1), 1e-6)


class Region(nn.Module):
    """A segmentation network scored by the mean of each class over a box, as captum needs it."""

    def __init__(self, inner, box):
        super().__init__()
        self.inner, self.box = inner, box

    def forward(self, x):
        return self.inner(x)[:, :, self.box].mean(2)


class Called(nn.Module):
    """The same layers as a chain of modules, with the ReLUs called as functions."""

    def __init__(self, chain):
        super().__init__()
        self.chain = chain

    def forward(self, x):
        for layer in self.chain:
            x = F.relu(x) if isinstance(layer, nn.ReLU) else layer(x)
        return x


@methods
def test_the_peer_gives_the_plain_gradient_for_functional_relu(method, chain, nets, model_of, explained):
    """B16, seen in captum itself; ours is what captum gives for the same network with modules."""
    net, x = Called(chain(2)), nets.noise(2, 2, *SHAPE[2])
    plain = explained(Saliency("kept"), model_of(net, 2), x).maps["image"]
    assert torch.allclose(peer_map(method, net, x, 1), plain, rtol=1e-12)
    ours = explained(method(), model_of(net, 2), x).maps["image"]
    assert not torch.allclose(ours, plain, rtol=0.1)
    assert close(ours, peer_map(method, chain(2), x, 1), 1e-6)


@pytest.fixture(scope="module")
def film(shared_data):
    """A real chest film, small."""
    path = sorted((shared_data / "xray_nih" / "images").iterdir())[0]
    values = np.asarray(Image.open(path).convert("L").resize((64, 64)), dtype=np.float64) / 255
    return torch.from_numpy(values)[None, None]


@pytest.fixture(scope="module")
def densenet(nets):
    from monai.networks.nets import DenseNet121

    return nets.seeded(lambda: DenseNet121(spatial_dims=2, in_channels=1, out_channels=3))


@methods
def test_densenet_on_a_real_film_equals_captum(method, densenet, film, model_of, explained):
    with unchanged(densenet):
        ours = explained(method(), model_of(densenet, 2, channels=(1,)), film).maps["image"]
    assert close(ours, peer_map(method, densenet, film, 1), 1e-6)


@methods
def test_unet_on_a_real_volume_equals_captum(method, shared_data, nets, model_of, explained):
    from monai.networks.nets import UNet

    path = sorted((shared_data / "mri_hippocampus" / "images").glob("*.nii.gz"))[0]
    data = torch.from_numpy(np.asarray(nibabel.load(path).dataobj, dtype=np.float64))[8:24, 16:32, 8:24]
    x = ((data - data.mean()) / data.std())[None, None]
    net = nets.seeded(lambda: UNet(3, 1, 3, (4, 8, 16), (2, 2), act="RELU"))
    box = torch.zeros(x.shape[2:], dtype=torch.bool)
    box[4:12, 4:12, 4:12] = True
    model = model_of(net, 3, OutputSpec("segmentation"), channels=(1,))
    ours = explained(method(), model, x, RegionScore(1, "box"), Scene(regions={"box": box})).maps["image"]
    scored = Region(net, box)
    assert close(ours, peer_map(method, scored, x, 1), 1e-6)


def test_maps_of_two_classes_look_alike_as_the_card_warns(densenet, film, model_of, explained):
    """Not class-discriminative: much more alike than the gradients of the same classes."""

    def alike(method):
        maps = [
            explained(method, model_of(densenet, 2, channels=(1,)), film, ClassScore(c)).maps["image"] for c in (0, 2)
        ]
        return float(torch.corrcoef(torch.stack([m.flatten() for m in maps]))[0, 1])

    assert alike(GuidedBackprop()) > alike(Saliency("kept")) + 0.2
    assert "fails parameter randomization" in GuidedBackprop.card.caution
    assert "depends on the class" in GuidedBackprop.card.caution
