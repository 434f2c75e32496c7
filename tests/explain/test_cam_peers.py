"""Grad-CAM and HiResCAM against captum and torchcam, and on the networks of MONAI.

Of the defects measured in peers, right here: B4 (a batch is explained for the sum of all its classes), B9 (hooks that
stay, in-place flags that are lost), B10 (a model left broken after an error), B11 (a wrong class index is swallowed),
B24 and B26 (volumes, segmentation), B25 (training mode and weights' gradients), and the trap that MONAI's DenseNet
overwrites its layer ``features`` in place.
"""

import copy
import warnings

import pytest
import torch
import torch.nn.functional as F

from pellucid.core.errors import UnknownLabel
from pellucid.core.model import OutputSpec
from pellucid.core.probe import Scene
from pellucid.core.target import ClassScore, RegionScore
from pellucid.explain.cam import GradCAM, HiResCAM
from pellucid.testing import unchanged

RANKS = (2, 3)
LINEAR = {2: "bilinear", 3: "trilinear"}


def enlarged(x, shape):
    return F.interpolate(x, size=shape, mode=LINEAR[len(shape)], align_corners=False)


def close(ours, theirs, relative):
    """Largest difference as a share of the largest value."""
    return float((ours - theirs).abs().max()) <= relative * float(theirs.abs().max())


@pytest.fixture(scope="module")
def densenet(nets):
    """MONAI's DenseNet121 by rank, in float64 with batch statistics that are not trivial."""
    from monai.networks.nets import DenseNet121

    made = {r: nets.seeded(lambda r=r: DenseNet121(spatial_dims=r, in_channels=1, out_channels=3)) for r in RANKS}
    return lambda rank: made[rank]


@pytest.fixture(scope="module")
def unet(nets):
    """MONAI's 3-D UNet: instance normalization and PReLU, residual units."""
    from monai.networks.nets import UNet

    return nets.seeded(lambda: UNet(3, 1, 3, (4, 8, 16), (2, 2), num_res_units=1))


@pytest.mark.parametrize("rank", RANKS)
@pytest.mark.parametrize("layer", ["front", "tail.conv"])
def test_equal_to_captum(layer, rank, subject, explained):
    from captum.attr import LayerGradCam

    s = subject("classification", rank)
    net, x = s.model.module, s.inputs["image"]
    peer = LayerGradCam(net, net.get_submodule(layer)).attribute(x, target=1, relu_attributions=True)
    assert close(explained(GradCAM(layer), s.model, x).maps["image"], enlarged(peer.detach(), x.shape[2:]), 1e-6)


@pytest.mark.parametrize("rank", RANKS)
def test_hires_cam_equals_captum(rank, subject, explained):
    from captum.attr import LayerGradientXActivation

    s = subject("classification", rank)
    net, x = s.model.module, s.inputs["image"]
    peer = LayerGradientXActivation(net, net.front).attribute(x, target=1).sum(1, keepdim=True)
    assert close(explained(HiResCAM("front"), s.model, x).maps["image"], enlarged(peer.detach(), x.shape[2:]), 1e-6)


@pytest.mark.parametrize("rank", RANKS)
def test_equal_to_torchcam(rank, subject, explained):
    from torchcam.methods import GradCAM as Peer

    s = subject("classification", rank)
    net, x = s.model.module, s.inputs["image"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with Peer(net, "front", input_shape=tuple(x.shape[1:])) as peer:
            found = peer([1, 1], net(x), normalized=False)[0].detach()
    ours = explained(GradCAM("front"), s.model, x).maps["image"]
    assert close(ours, enlarged(found[:, None], x.shape[2:]), 1e-6)


@pytest.mark.parametrize("rank", RANKS)
@pytest.mark.parametrize("method", [GradCAM, HiResCAM])
def test_densenet_features_are_read_before_the_in_place_relu(method, rank, densenet, nets, model_of, explained):
    """MONAI's DenseNet applies an in-place ReLU to ``features``: a hook that keeps no copy reads it after the ReLU."""
    net, x = densenet(rank), nets.noise(4 - rank, 1, *{2: (64, 96), 3: (64, 32, 64)}[rank])
    a = net.features(x).detach()
    leaf = a.clone().requires_grad_()
    g = torch.autograd.grad(net.class_layers(leaf.clone())[:, 1].sum(), leaf)[0]
    axes = tuple(range(2, 2 + rank))

    def combine(activation):
        if method is GradCAM:
            return (g.mean(axes, keepdim=True) * activation).sum(1, keepdim=True).relu()
        return (g * activation).sum(1, keepdim=True)

    ours = explained(method("features"), model_of(net, rank, channels=(1,)), x).maps["image"]
    assert close(ours, enlarged(combine(a), x.shape[2:]), 1e-9)
    if method is GradCAM:
        assert not close(ours, enlarged(combine(a.relu()), x.shape[2:]), 1e-2)


def test_unet_in_three_dimensions_equals_captum(unet, nets, model_of, explained):
    """B26: for a segmentation the target is a region of logits, fixed beforehand."""
    from captum.attr import LayerGradCam

    x = nets.noise(2, 1, 16, 12, 8)
    box = torch.zeros(16, 12, 8, dtype=torch.bool)
    box[4:10, 3:8, 2:6] = True
    model = model_of(unet, 3, OutputSpec("segmentation"), channels=(1,))
    layer = model.resolve(None, {"image": x})
    peer = LayerGradCam(lambda v: unet(v)[:, 1][:, box].mean(1), unet.get_submodule(layer)).attribute(x)
    ours = explained(GradCAM(layer), model, x, RegionScore(1, "box"), Scene(regions={"box": box})).maps["image"]
    assert close(ours, enlarged(peer.detach().relu(), x.shape[2:]), 1e-6)
    assert tuple(peer.shape[2:]) == (4, 3, 2)


@pytest.mark.parametrize("rank", RANKS)
def test_each_item_is_explained_for_its_own_class(rank, subject, explained):
    """B4: MONAI explains each item for the sum of the classes of all items."""
    from monai.visualize import GradCAM as Peer

    s = subject("classification", rank)
    net, x = s.model.module, s.inputs["image"]
    net.tail.fc.bias.data -= net(x).mean(0)
    labels = net(x).argmax(1).tolist()
    assert labels[0] != labels[1]
    ours = explained(GradCAM("front"), s.model, x, ClassScore()).maps["image"]
    alone = [explained(GradCAM("front"), s.model, s.item(i), ClassScore(c)).maps["image"] for i, c in enumerate(labels)]
    assert close(ours, torch.cat(alone), 1e-9)
    peer = Peer(copy.deepcopy(net), "front")
    leaf = x.clone().requires_grad_()
    theirs = peer.compute_map(leaf, class_idx=torch.tensor(labels)).detach()
    single = [peer.compute_map(leaf[i : i + 1], class_idx=c).detach() for i, c in enumerate(labels)]
    assert not close(theirs, torch.cat(single), 0.1)
    assert close(ours, enlarged(torch.cat(single).relu(), x.shape[2:]), 1e-9)


def test_nothing_is_left_on_the_model(densenet, nets, model_of, explained):
    """B9 and B25: no hook stays, in-place flags, training mode, weights and their gradients are as they were."""
    net = copy.deepcopy(densenet(2)).train()
    for p in list(net.parameters())[::2]:
        p.requires_grad_(False)
    with unchanged(net):
        for method in (GradCAM, HiResCAM):
            explained(method("features"), model_of(net, 2, channels=(1,)), nets.noise(1, 1, 64, 64))
    assert net.training
    assert all(p.grad is None for p in net.parameters())


def test_the_peer_leaves_its_hooks(densenet):
    """What B9 is, seen in MONAI itself."""
    from monai.visualize import GradCAM as Peer

    net = copy.deepcopy(densenet(2))

    def hooks():
        return sum(len(m._forward_hooks) + len(m._backward_hooks) for m in net.modules())

    before = hooks()
    for _ in range(3):
        Peer(net, "features")
    assert hooks() >= before + 3


def test_the_model_works_after_an_error(densenet, nets, model_of, explained):
    """B10: a peer swaps the layer and forgets to put it back when the image has the wrong rank."""
    net, x = copy.deepcopy(densenet(2)), nets.noise(1, 1, 64, 64)
    before = net(x)
    model = model_of(net, 2, channels=(1,))
    model.layers({"image": x})

    def fail(*_):
        raise ValueError("planted failure")

    handle = net.class_layers.out.register_forward_hook(fail)
    with unchanged(net), pytest.raises(ValueError, match="planted failure"):
        explained(GradCAM("features"), model, x)
    handle.remove()
    assert torch.equal(before, net(x))


@pytest.mark.parametrize("label", [3, -1, 99, "pneumonia"])
@pytest.mark.parametrize("method", [GradCAM, HiResCAM])
def test_a_wrong_class_is_an_error(method, label, subject, explained):
    """B11: a peer prints the IndexError, swallows it, and goes on without a map."""
    s = subject("classification", 2)
    with pytest.raises(UnknownLabel, match=r"labels: 0 to 2\."):
        explained(method("front"), s.model, s.inputs, ClassScore(label))
