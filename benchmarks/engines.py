"""Engines for perturbed images beside the module: time of a forward, and how far the effects of masks differ."""

import statistics
import sys
from functools import partial
from typing import Any

import torch
from measuring import Setting, alternate, at_least, middle, ratio, run, table, within
from subjects import Subject, densenet
from torch import Tensor, nn

from pellucid.core.engine import Engine
from pellucid.core.model import Model
from pellucid.core.probe import Probe
from pellucid.core.target import ClassScore
from pellucid.engines.choosing import OFFERS
from pellucid.engines.eager import eager
from pellucid.engines.sample import Sample
from pellucid.engines.selfcheck import MASKS, Masked, deviation

FASTER = {"openvino": 1.3, "openvino-bf16": 2.5, "openvino-int8": 4.5}
EXACT, LEAST_R = 1e-4, {"openvino-bf16": 0.998, "openvino-int8": 0.99}
TIMED = (((224, 224), 8), ((64, 64, 64), 1))  # size, items at once
SIDE, IMAGES, STEPS, BATCH = 64, 20, 40, 12


def lesions(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Noisy backgrounds of blobs, every other one with a small bright disk: what the network is taught to see."""
    generator = torch.Generator().manual_seed(seed)
    low = torch.rand((count, 1, 5, 5), generator=generator)
    images = 0.5 * nn.functional.interpolate(low, size=(SIDE, SIDE), mode="bicubic", align_corners=False)
    images += 0.05 * torch.randn(images.shape, generator=generator)
    rows, columns = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
    labels = torch.arange(count) % 2
    for image, label in zip(images, labels, strict=True):
        row, column = (int(v) for v in torch.randint(10, SIDE - 10, (2,), generator=generator))
        image[0, (rows - row) ** 2 + (columns - column) ** 2 < 36] += 0.8 * float(label)
    return images, labels


def taught() -> tuple[Model, float]:
    """DenseNet121 after a short training from a fixed seed, and its accuracy on images of another seed."""
    subject = densenet((SIDE, SIDE))
    network = subject.network.train()
    optimizer = torch.optim.AdamW(network.parameters(), 1e-3)
    for step in range(STEPS):
        images, labels = lesions(BATCH, 100 + step)
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(images), labels).backward()
        optimizer.step()
    images, labels = lesions(40, 7)
    with torch.no_grad():
        right = network.eval()(images).argmax(1) == labels
    return subject.model, float(right.float().mean())


def built(probe: Probe) -> dict[str, Engine]:
    """The module and OpenVINO at each precision."""
    sample = Sample(probe.model, probe.inputs, Masked(probe).calibration)
    return {"eager": eager(probe.model)} | {o.name: o.build(sample) for o in OFFERS if o.name in FASTER}


def timed(subject: Subject, items: int, setting: Setting) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Every engine on the same masked images; time does not depend on what the weights are."""
    probe = Probe(subject.model, subject.image, ClassScore(subject.label))
    engines, masked = built(probe), Masked(probe)
    x = masked.versions(0, items)
    rows = alternate({name: partial(engine, x) for name, engine in engines.items()}, setting.take(7), setting)
    bars = [
        at_least(bar, f"{name} over eager, {subject.name}", ratio(rows["eager"], rows[name], setting.clock))
        for name, bar in FASTER.items()
    ]
    error, _ = deviation(masked.effects(engines["openvino"]), masked.effects(engines["eager"]))
    bars.append(within(EXACT, f"effect error of openvino, {subject.name}", error))
    return subject.words | {"items": items, "sides": table(rows, "eager", setting.clock)}, bars


def faithful() -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Effects of masks on images that a trained network never saw; engines as built for the first of them."""
    model, accuracy = taught()
    images, _ = lesions(IMAGES, 8)
    probes = [Probe(model, image[None], ClassScore(1)) for image in images]
    engines = built(probes[0])
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in FASTER}
    for probe in probes:
        masked = Masked(probe)
        reference = masked.effects(engines["eager"])
        for name, each in found.items():
            each.append(deviation(masked.effects(engines[name]), reference))
    bars = [
        within(EXACT, "largest effect error of openvino, trained DenseNet121", max(e for e, _ in found["openvino"]))
    ]
    for name, least in LEAST_R.items():
        bars.append(
            at_least(least, f"r of {name}, trained DenseNet121, over images", middle([r for _, r in found[name]]))
        )
    figures = {
        name: {
            "effect_error_median": statistics.median(e for e, _ in each),
            "effect_error_largest": max(e for e, _ in each),
            "r_median": statistics.median(r for _, r in each),
            "r_smallest": min(r for _, r in each),
        }
        for name, each in found.items()
    }
    words = {"model": "MONAI DenseNet121, trained here", "size": [1, 1, SIDE, SIDE], "accuracy": accuracy}
    return words | {"images": IMAGES, "masks": MASKS, "engines": figures}, bars


def measure(setting: Setting) -> dict[str, Any]:
    """Time in 2-D and 3-D with weights as they come, faithfulness with trained ones."""
    results, bars = [], []
    for size, items in TIMED:
        result, found = timed(densenet(size), items, setting)
        results.append(result)
        bars += found
    result, found = faithful()
    return {"timed": results, "trained": result, "bars": [*bars, *found]}


if __name__ == "__main__":
    sys.exit(run("engines", measure))
