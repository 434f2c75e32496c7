"""FullGrad: the image's and every bias's part of the score, complete where the network is piecewise linear."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from pellucid.core.card import Cost
from pellucid.core.model import OutputSpec
from pellucid.core.probe import Probe, Scene
from pellucid.core.target import ClassScore, Margin, RegionScore
from pellucid.explain.fullgrad import FullGrad
from pellucid.testing import unchanged

RANKS = (2, 3)
SIZE = (4, 6, 4)  # finite differences take two evaluations per cell
UP = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
MAX = {2: nn.MaxPool2d, 3: nn.MaxPool3d}


def close(ours, theirs, relative):
    """Largest difference as a share of the largest value."""
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    return float(np.abs(ours - theirs).max()) <= relative * float(np.abs(theirs).max())


class Straight(nn.Module):
    """Convolutions, batch norm, in-place and functional ReLU, a layer that is used twice, pooling, linear layers."""

    def __init__(self, nets, rank):
        super().__init__()
        conv, norm = nets.CONV[rank], nets.NORM[rank]
        self.one, self.norm = conv(2, 4, 3, padding=1), norm(4)
        self.two = conv(4, 4, 3, padding=1)
        self.plain = norm(4, affine=False)
        self.relu, self.pool = nn.ReLU(inplace=True), MAX[rank](2)
        self.fc, self.out = nn.Linear(4, 5), nn.Linear(5, 3)

    def forward(self, x):
        x = self.relu(self.norm(self.one(x)))
        x = self.pool(x + self.relu(self.two(x)))
        x = F.relu(self.plain(self.two(x)))
        return self.out(F.relu(self.fc(x.flatten(2).mean(2))))


class Segmenter(nn.Module):
    """Down and up again by a transposed convolution."""

    def __init__(self, nets, rank):
        super().__init__()
        self.down, self.norm = nets.CONV[rank](2, 4, 3, stride=2, padding=1), nets.NORM[rank](4)
        self.up, self.out = UP[rank](4, 4, 2, stride=2), nets.CONV[rank](4, 3, 1)

    def forward(self, x):
        return self.out(F.relu(self.up(F.relu(self.norm(self.down(x))))))


def straight(nets, rank):
    net = nets.seeded(lambda: Straight(nets, rank))
    calls = [(net.one, 1), (net.norm, 1), (net.two, 1), (net.two, 2), (net.plain, 1), (net.fc, 1), (net.out, 1)]
    return net, calls, {}, ClassScore(1), lambda o: o[:, 1], Scene()


def margin(nets, rank):
    net, calls, spec, _, _, scene = straight(nets, rank)
    return net, calls, spec, Margin(2, 0), lambda o: o[:, 2] - o[:, 0], scene


def segmenter(nets, rank):
    net = nets.seeded(lambda: Segmenter(nets, rank))
    box = torch.zeros(SIZE[:rank], dtype=torch.bool)
    box[(slice(1, 3), slice(2, 5), slice(1, 3))[:rank]] = True
    calls = [(net.down, 1), (net.norm, 1), (net.up, 1), (net.out, 1)]
    scene = Scene(regions={"box": box})
    return net, calls, {"task": "segmentation"}, RegionScore(1, "box"), lambda o: o[:, 1][:, box].mean(1), scene


@pytest.mark.parametrize("rank", RANKS)
@pytest.mark.parametrize("kind", [straight, margin, segmenter])
def test_equal_to_the_second_implementation_which_is_complete(kind, rank, nets, model_of, explained, reference):
    net, calls, spec, target, pick, scene = kind(nets, rank)
    x = nets.noise(2, 2, *SIZE[:rank])
    answer = explained(FullGrad(), model_of(net, rank, OutputSpec(**spec)), x, target, scene)
    assert answer.warnings == ()
    up, shape = reference("upsample").upsample, SIZE[:rank]
    for i in range(2):
        parts = reference("full_grad").full_grad(net, lambda v: pick(net(v)), x[i : i + 1], calls)
        score = float(pick(net(x[i : i + 1])).detach())
        assert sum(float(p.sum()) for p in parts) == pytest.approx(score, rel=1e-4)
        expected = np.zeros(shape)
        for part in parts:
            if part.ndim == rank + 2:
                cells = part[0].abs().sum(0).numpy()
                expected += up(cells, shape) * cells.size / np.prod(shape)
        assert close(answer.maps["image"][i, 0], expected, 1e-5)


@pytest.mark.parametrize("rank", RANKS)
def test_the_map_sums_to_the_magnitudes_of_all_parts_with_a_place(rank, nets, model_of, explained, reference):
    """Cells of a coarse layer are divided among their voxels, so that no layer counts more for being coarse."""
    net, calls, spec, target, pick, scene = segmenter(nets, rank)
    x = nets.noise(1, 2, *SIZE[:rank])
    parts = reference("full_grad").full_grad(net, lambda v: pick(net(v)), x, calls)
    total = sum(float(p.abs().sum()) for p in parts)
    maps = explained(FullGrad(), model_of(net, rank, OutputSpec(**spec)), x, target, scene).maps["image"]
    assert float(maps.sum()) == pytest.approx(total, rel=1e-7)


@pytest.mark.parametrize("rank", RANKS)
def test_rescaled_is_the_authors_formula(rank, nets, model_of, explained, reference):
    """Each layer's part is brought to [0, 1] over all channels and places before the sum."""
    net, calls, spec, target, pick, scene = segmenter(nets, rank)
    x = nets.noise(2, 2, *SIZE[:rank])
    answer = explained(FullGrad(rescaled=True), model_of(net, rank, OutputSpec(**spec)), x, target, scene)
    assert answer.unit == "1"
    for i in range(2):
        expected = np.zeros(SIZE[:rank])
        for part in reference("full_grad").full_grad(net, lambda v: pick(net(v)), x[i : i + 1], calls):
            size = part[0].abs().numpy()
            size = (size - size.min()) / (size.max() - size.min())
            expected += sum(reference("upsample").upsample(channel, SIZE[:rank]) for channel in size)
        assert close(answer.maps["image"][i, 0], expected, 1e-5)


@pytest.mark.parametrize("rank", RANKS)
def test_without_biases_it_is_the_magnitude_of_input_times_gradient(rank, nets, model_of, explained):
    conv = nets.CONV[rank]
    net = nets.seeded(
        lambda: nn.Sequential(
            conv(2, 4, 3, bias=False), nn.ReLU(), nn.Flatten(2), nn.AdaptiveMaxPool1d(2), nn.Flatten()
        )
    )
    x = nets.noise(2, 2, *SIZE[:rank]).requires_grad_()
    gradient = torch.autograd.grad(net(x)[:, 1].sum(), x)[0]
    maps = explained(FullGrad(), model_of(net, rank), x).maps["image"]
    assert torch.allclose(maps, (x * gradient).detach().abs().sum(1, keepdim=True), rtol=1e-12)


@pytest.mark.parametrize("rank", RANKS)
def test_complete_on_a_densenet_in_float32(rank, nets, model_of):
    """Score = image + 121 layers, to 1e-4 of the score: 120 of them are batch norms without a bias by name."""
    from monai.networks.nets import DenseNet121

    net = nets.seeded(lambda: DenseNet121(spatial_dims=rank, in_channels=1, out_channels=3)).float()
    model, x = model_of(net, rank, channels=(1,)), nets.noise(1, 1, *{2: (64, 64), 3: (32, 32, 32)}[rank]).float()
    needs = FullGrad().needs(model, {"image": x})
    probe = Probe(model, x, ClassScore(1), needs)
    answer = FullGrad()(probe)
    assert answer.warnings == ()
    module = dict(net.named_modules())
    total = float((probe.input_gradient["image"].double() * x).sum())
    for _, name in needs:
        if name is not None:
            layer = module[name]
            with torch.no_grad():
                added = copy.deepcopy(layer).eval()(torch.zeros(1, *_width(layer, rank)))
            axes = list(range(2, added.ndim))
            constant = added.amax(axes, keepdim=True) if axes else added
            total += float((probe.layer_gradient(name).double() * constant).sum())
    assert total == pytest.approx(float(probe.baseline_score[0]), rel=1e-4)
    assert probe.spent.own == Cost()
    assert probe.spent.shared == Cost(1, 1)


def _width(layer, rank):
    if isinstance(layer, nn.Linear):
        return (layer.in_features,)
    return (layer.num_features if hasattr(layer, "num_features") else layer.in_channels, *(8,) * rank)


SMOOTH = {
    "gelu": lambda nets: nn.Sequential(nn.Conv2d(2, 6, 3), nn.GELU(), nets.POOL[2](1), nn.Flatten(), nn.Linear(6, 3)),
    "silu": lambda nets: nn.Sequential(nn.Conv2d(2, 6, 3), nn.SiLU(), nets.POOL[2](1), nn.Flatten(), nn.Linear(6, 3)),
    "instance norm": lambda nets: nn.Sequential(
        nn.Conv2d(2, 6, 3), nn.InstanceNorm2d(6, affine=True), nn.ReLU(), nets.POOL[2](1), nn.Flatten(), nn.Linear(6, 3)
    ),
    "batch norm of the batch": lambda nets: nn.Sequential(
        nn.Conv2d(2, 6, 3), nn.BatchNorm2d(6, track_running_stats=False), nn.ReLU(), nets.POOL[2](1), *_head()
    ),
}


def _head():
    return nn.Flatten(), nn.Linear(6, 3)


@pytest.mark.parametrize("kind", SMOOTH)
def test_what_is_not_piecewise_linear_is_told(kind, nets, model_of, explained):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = SMOOTH[kind](nets).double().eval()
    answer = explained(FullGrad(), model_of(net, 2), nets.noise(2, 2, 8, 8))
    assert len(answer.warnings) == 1
    assert "not piecewise linear" in answer.warnings[0]
    assert torch.isfinite(answer.maps["image"]).all()


def test_layers_that_keep_channels_last(nets, model_of, explained):
    """A linear layer over the last axis has its bias there, and a place."""

    class Last(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.mix, self.out = nn.Conv2d(2, 4, 1), nn.Linear(4, 6), nn.Linear(6, 3)

        def forward(self, x):
            x = F.relu(self.mix(self.conv(x).movedim(1, -1)))
            return self.out(x.mean((1, 2)))

    net, x = nets.seeded(Last), nets.noise(2, 2, 8, 6)
    answer = explained(FullGrad(), model_of(net, 2), x)
    assert answer.warnings == ()
    net.conv.bias.data[:] = 0
    only_mix = explained(FullGrad(), model_of(net, 2), x).maps["image"]
    net.mix.bias.data[:] = 0
    assert not torch.allclose(only_mix, explained(FullGrad(), model_of(net, 2), x).maps["image"])


def test_several_inputs_have_a_map_each(subject, explained):
    s = subject("image-and-vector", 2)
    answer = explained(FullGrad(), s.model, s.inputs)
    assert {n: m.shape for n, m in answer.maps.items()} == {"image": (2, 1, 8, 10), "covariates": (2, 5)}
    s = subject("two-images", 3)
    answer = explained(FullGrad(), s.model, s.inputs)
    assert {n: m.shape for n, m in answer.maps.items()} == {"pet": (2, 1, 4, 6, 8), "ct": (2, 1, 4, 6, 8)}
    assert all(float(m.min()) >= 0 for m in answer.maps.values())


@pytest.mark.parametrize("rank", RANKS)
def test_batches_targets_and_low_precision(rank, nets, model_of, explained):
    net, *_ = straight(nets, rank)
    model, x = model_of(net, rank), nets.noise(2, 2, *SIZE[:rank])
    together = explained(FullGrad(), model, x).maps["image"]
    for i in range(2):
        assert torch.allclose(explained(FullGrad(), model, x[i : i + 1]).maps["image"], together[i : i + 1])
    probe = Probe(model, x, (ClassScore(0), ClassScore(1)), FullGrad().needs(model, {"image": x}))
    assert torch.allclose(FullGrad()(probe.at(1)).maps["image"], together)
    assert probe.spent.shared == Cost(2, 4)
    low = explained(FullGrad(), model_of(net.float(), rank), x.float(), precision="bfloat16")
    assert low.maps["image"].dtype == torch.float32
    assert low.warnings == ()
    assert F.cosine_similarity(low.maps["image"].flatten(), together.float().flatten(), 0) > 0.98


def test_nothing_is_left_on_the_model(nets, model_of, explained):
    net, *_ = straight(nets, 2)
    net.train()
    with unchanged(net):
        explained(FullGrad(), model_of(net, 2), nets.noise(1, 2, 8, 10))
