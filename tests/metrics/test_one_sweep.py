"""All metrics that ask the model, in one sweep on real images: numbers and verdicts of each alone, and the count."""

from pathlib import Path

import nibabel
import numpy as np
import pytest
import skimage
import torch
from PIL import Image
from torch import nn

from pellucid.core.card import Cost
from pellucid.core.probe import Probe
from pellucid.core.sweep import Sweep, SweptMetric
from pellucid.core.target import ClassScore
from pellucid.explain.cam import GradCAM
from pellucid.explain.gradient import InputXGradient
from pellucid.workbench.registry import metrics as registered

LIGHT = {
    "steps": 5,
    "samples": 3,
    "subsets": 6,
    "sizes": 2,
    "along": 3,
    "pieces": 8,
    "random_orders": 1,
}
FOLLOWING = {"EffectiveComplexity"}  # what it asks last depends on what it was answered


def swept():
    """Every metric of the package that asks in a sweep, with light settings."""
    for cls in registered().values():
        if issubclass(cls, SweptMetric) and cls.__module__.startswith("pellucid."):
            known = {p.name for p in cls.parameters()}
            yield cls(**{k: v for k, v in LIGHT.items() if k in known})


@pytest.fixture(scope="module")
def retina():
    picture = Image.open(Path(skimage.__file__).parent / "data" / "retina.jpg").convert("RGB")
    data = np.asarray(picture.resize((32, 32), Image.Resampling.BOX), dtype=np.float32) / 255
    x = torch.from_numpy(data).permute(2, 0, 1)[None]
    return torch.cat([x, x.flip(3)])


@pytest.fixture(scope="module")
def hippocampus(shared_data):
    path = sorted((shared_data / "mri_hippocampus" / "images").glob("*.nii.gz"))[0]
    data = np.asarray(nibabel.load(path).dataobj, dtype=np.float32)[::2, ::3, ::2]
    box = tuple(slice(0, n // 4 * 4) for n in data.shape)
    return torch.from_numpy(((data - data.mean()) / data.std())[box].copy())[None, None]


def classifier(rank, channels):
    """Seeded; nonlinear, with batch normalization, a layer to read, and classes that the noise may swap."""
    conv, norm = (nn.Conv2d, nn.BatchNorm2d) if rank == 2 else (nn.Conv3d, nn.BatchNorm3d)
    pool = nn.AdaptiveAvgPool2d(2) if rank == 2 else nn.AdaptiveAvgPool3d(2)
    body = [conv(channels, 6, 3, 2, 1), norm(6), nn.ReLU(), conv(6, 8, 3, 2, 1), nn.SiLU(), pool, nn.Flatten()]
    return nn.Sequential(*body, nn.Linear(8 * 2**rank, 4)).eval()


def same(value, other):
    """To 1e-5 relative, anywhere in what stands beside a score."""
    if isinstance(value, dict):
        return value.keys() == other.keys() and all(same(value[k], other[k]) for k in value)
    if isinstance(value, list | tuple):
        return len(value) == len(other) and all(map(same, value, other))
    return value == (pytest.approx(other, rel=1e-5, abs=1e-6, nan_ok=True) if isinstance(other, float) else other)


def asked(model, x, method, metrics):
    """The scores of one sweep on a fresh probe, the passes that it counted before it started, and those it made."""
    with torch.no_grad():
        lead = model.module(x) - model.module(x * 0)  # of the image over black: some metrics need one
    target = ClassScore(int(lead.amin(0).argmax()))
    probe = Probe(model, x, target, method.needs(model, {"image": x}))
    answer = method(probe)
    sweep = Sweep(probe, method, [m.asking(probe, answer, method, None) for m in metrics])
    cost, before = sweep.cost * len(x), probe.spent.own
    scores = sweep.run()
    made = probe.spent.own
    return scores, cost, Cost(made.forwards - before.forwards, made.backwards - before.backwards)


@pytest.mark.parametrize("method", [InputXGradient(), GradCAM("2")], ids=lambda m: m.name)
@pytest.mark.parametrize("image", ["retina", "hippocampus"])
def test_the_whole_suite_in_one_sweep(image, method, request, nets, model_of):
    x = request.getfixturevalue(image)
    rank, metrics = x.ndim - 2, list(swept())
    assert len(metrics) >= 24
    model = model_of(nets.seeded(lambda: classifier(rank, x.shape[1])).float(), rank, x.shape[1])
    together, counted, made = asked(model, x, method, metrics)
    alone, forwards = [], 0
    for metric in metrics:
        (score,), said, paid = asked(model, x, method, [metric])
        assert said == paid or (metric.name in FOLLOWING and paid.forwards < said.forwards), metric.name
        alone.append(score)
        forwards += paid.forwards
    assert (made.forwards <= counted.forwards, made.backwards) == (True, counted.backwards)
    assert made.forwards < 0.75 * forwards
    for metric, got, expected in zip(metrics, together, alone, strict=True):
        assert got.reasons == expected.reasons
        assert not all(got.reasons), (metric.name, got.reasons)
        assert torch.equal(got.values.isnan(), expected.values.isnan())
        assert torch.allclose(got.values, expected.values, rtol=1e-5, atol=0, equal_nan=True), metric.name
        assert same(got.detail, expected.detail), metric.name
    _, counted, made = asked(model, x, method, [m for m in metrics if m.name not in FOLLOWING])
    assert made == counted
