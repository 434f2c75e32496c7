"""Streams of changed inputs: never all at once, as many as fit, and the same answers whatever fits."""

import weakref

import pytest
import torch
from torch import nn

from pellucid.core import masking
from pellucid.core.errors import BadOption
from pellucid.core.infill import Constant, ItemMean
from pellucid.core.masking import Stream
from pellucid.core.model import Model
from pellucid.core.prepare import InputSpec
from pellucid.core.probe import Probe
from pellucid.core.target import ClassScore


class Limited(nn.Module):
    """Fails where more than ``most`` items come at once."""

    def __init__(self, inner, most, error):
        super().__init__()
        self.inner, self.most, self.error, self.sizes = inner, most, error, []

    def forward(self, x):
        self.sizes.append(len(x))
        if len(x) > self.most:
            raise self.error
        return self.inner(x)


CPU_FULL = RuntimeError("[enforce fail at alloc_cpu.cpp:117] . DefaultCPUAllocator: can't allocate memory: you tried")
FULL = [torch.OutOfMemoryError("CUDA out of memory."), MemoryError(), CPU_FULL]


def probe_of(module, x):
    return Probe(Model(module, (InputSpec(channels=2, order="rgb"),)), x, ClassScore(1))


@pytest.fixture(autouse=True)
def eight_at_once(monkeypatch) -> None:
    """As for networks whose activations leave the cache, however small those here are."""
    monkeypatch.setattr(masking, "_CACHED", 0)


@pytest.mark.parametrize(("layers", "chunk"), [(1, 64), (24, 24), (48, 12), (10**6, 8)])
def test_small_networks_take_more_at_once_while_they_stay_in_the_cache(small, draw, monkeypatch, layers, chunk) -> None:
    probe = probe_of(small(), draw(1, 2, 8, 8))
    each = probe.model.activation_bytes(probe.inputs)
    monkeypatch.setattr(masking, "free_bytes", lambda _device: 1 << 40)
    monkeypatch.setattr(masking, "_CACHED", 24 * 24 * each // layers)
    assert Stream(probe).chunk == chunk
    assert Stream(probe, gradient=True).chunk == 8
    assert Stream(probe_of(small(), draw(4, 2, 8, 8))).chunk == chunk // 4


def random_masks(count, batch=1, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [(torch.rand(batch, 8, 8, generator=generator) > 0.5).float() for _ in range(count)]


def one_by_one(module, x, keeps, fill=0.0):
    module.eval()
    with torch.no_grad():
        return torch.stack([module(k[:, None] * x + (1 - k[:, None]) * fill)[:, 1] for k in keeps])


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("shared", [True, False])
def test_scores_are_those_of_the_masks_one_by_one(small, draw, batch, shared) -> None:
    x = draw(batch, 2, 8, 8)
    keeps = random_masks(21, 1 if shared else batch)
    scores = torch.stack(list(Stream(probe_of(small(), x), Constant(0.5)).scores(keeps)))
    assert torch.allclose(scores, one_by_one(small(), x, keeps, 0.5), atol=1e-6)


def test_masks_may_be_gray(small, draw) -> None:
    x, keeps = draw(1, 2, 8, 8), [torch.full((1, 8, 8), 0.25)]
    scores = torch.stack(list(Stream(probe_of(small(), x), ItemMean()).scores(keeps)))
    assert torch.allclose(scores, one_by_one(small(), x, keeps, x.mean((2, 3), keepdim=True)), atol=1e-6)


def test_no_mask_gives_no_score(small, draw) -> None:
    assert list(Stream(probe_of(small(), draw(1, 2, 8, 8))).scores([])) == []


@pytest.mark.parametrize("count", [1, 7, 8, 9, 40])
def test_never_all_masks_live_at_once(small, draw, count) -> None:
    alive, most = weakref.WeakSet(), 0

    def masks():
        nonlocal most
        for keep in (torch.full((1, 8, 8), i / count) for i in range(count)):
            alive.add(keep)
            most = max(most, len(alive))
            yield keep

    stream = Stream(probe_of(small(), draw(1, 2, 8, 8)))
    assert sum(1 for _ in stream.scores(masks())) == count
    assert most <= stream.chunk + 2  # those waiting, the one being made and the one just handed over
    assert count < 40 or most < count / 2


def test_the_stream_stops_drawing_when_the_reader_stops(small, draw) -> None:
    drawn = []

    def masks():
        for i in range(1000):
            drawn.append(i)
            yield torch.ones(1, 8, 8)

    stream = Stream(probe_of(small(), draw(1, 2, 8, 8)))
    next(stream.scores(masks()))
    assert len(drawn) <= stream.chunk


@pytest.mark.parametrize(("free", "gradient", "chunk"), [(0, False, 1), (10, False, 5), (10, True, 1), (1e9, False, 8)])
def test_the_first_chunk_fits_the_free_memory(small, draw, monkeypatch, free, gradient, chunk) -> None:
    probe = probe_of(small(), draw(1, 2, 8, 8))
    each = probe.model.activation_bytes(probe.inputs)
    monkeypatch.setattr(masking, "free_bytes", lambda _device: int(free * each))
    assert Stream(probe, gradient=gradient).chunk == chunk


def test_a_chunk_counts_the_items_of_the_batch(small, draw, monkeypatch) -> None:
    probe = probe_of(small(), draw(4, 2, 8, 8))
    monkeypatch.setattr(masking, "free_bytes", lambda _device: 1 << 40)
    assert Stream(probe).chunk == 2
    assert Stream(probe_of(small(), draw(20, 2, 8, 8))).chunk == 1


def test_free_memory_is_a_number_of_this_machine() -> None:
    assert 1 << 20 < masking.free_bytes(torch.device("cpu")) < 1 << 50


@pytest.mark.parametrize("error", FULL, ids=["cuda", "python", "cpu"])
@pytest.mark.parametrize("most", [1, 2, 3, 7])
def test_chunks_are_halved_until_they_fit(small, draw, error, most) -> None:
    x, keeps = draw(1, 2, 8, 8), random_masks(29)
    module = Limited(small(), 99, error)
    stream = Stream(probe_of(module, x))
    stream.probe.baseline_score
    module.most = most
    module.sizes.clear()
    scores = torch.stack(list(stream.scores(iter(keeps))))
    assert torch.allclose(scores, one_by_one(small(), x, keeps), atol=1e-6)
    assert stream.chunk <= most < 2 * stream.chunk
    failed = sum(s > most for s in module.sizes)
    assert failed == {1: 3, 2: 2, 3: 2, 7: 1}[most]  # 8, 4, 2: nothing is tried twice
    assert sum(s for s in module.sizes if s <= most) == 29


@pytest.mark.parametrize("error", FULL, ids=["cuda", "python", "cpu"])
def test_when_not_even_one_fits_the_mend_says_so(small, draw, error) -> None:
    module = Limited(small(), 99, error)
    stream = Stream(probe_of(module, draw(2, 2, 8, 8)))
    stream.probe.baseline_score
    module.most = 1
    with pytest.raises(BadOption, match=r"not even one version.*explain fewer items") as caught:
        list(stream.scores(random_masks(5)))
    assert caught.value.__cause__ is error


@pytest.mark.parametrize("error", [RuntimeError("mat1 and mat2 shapes cannot be multiplied"), ValueError("planted")])
def test_other_errors_pass_unchanged(small, draw, error) -> None:
    module = Limited(small(), 99, error)
    stream = Stream(probe_of(module, draw(1, 2, 8, 8)))
    stream.probe.baseline_score
    module.most, chunk = 0, stream.chunk
    with pytest.raises(type(error)) as caught:
        list(stream.scores(random_masks(5)))
    assert caught.value is error
    assert stream.chunk == chunk


def points(x, count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [{"image": x + torch.randn(x.shape, generator=generator)} for _ in range(count)]


def gradient_at(module, x):
    leaf = x.clone().requires_grad_()
    return torch.autograd.grad(module.eval()(leaf)[:, 1].sum(), leaf)[0]


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("count", [0, 1, 8, 21])
def test_gradients_are_those_of_the_points_one_by_one(small, draw, batch, count) -> None:
    x = draw(batch, 2, 8, 8)
    given = points(x, count)
    found = list(Stream(probe_of(small(), x), gradient=True).gradients(iter(given)))
    assert len(found) == count
    for point, gradient in zip(given, found, strict=True):
        assert torch.allclose(gradient["image"], gradient_at(small(), point["image"]), atol=1e-6)


def test_never_all_points_live_at_once(small, draw) -> None:
    alive, most, x = weakref.WeakSet(), 0, draw(1, 2, 8, 8)

    def lazily():
        nonlocal most
        for i in range(60):
            point = x + i
            alive.add(point)
            most = max(most, len(alive))
            yield {"image": point}

    stream = Stream(probe_of(small(), x), gradient=True)
    assert sum(1 for _ in stream.gradients(lazily())) == 60
    assert most <= stream.chunk + 2


@pytest.mark.parametrize("error", FULL, ids=["cuda", "python", "cpu"])
@pytest.mark.parametrize("most", [1, 3])
def test_chunks_of_gradients_are_halved_until_they_fit(small, draw, error, most) -> None:
    x = draw(1, 2, 8, 8)
    module, given = Limited(small(), 99, error), points(x, 21)
    stream = Stream(probe_of(module, x), gradient=True)
    stream.probe.baseline_score
    module.most = most
    module.sizes.clear()
    for point, gradient in zip(given, stream.gradients(iter(given)), strict=True):
        assert torch.allclose(gradient["image"], gradient_at(small(), point["image"]), atol=1e-6)
    assert stream.chunk == 1 if most == 1 else stream.chunk == 2
    assert sum(s for s in module.sizes if s <= most) == 21


def test_gradients_let_other_errors_pass(small, draw) -> None:
    error = RuntimeError("mat1 and mat2 shapes cannot be multiplied")
    module, x = Limited(small(), 99, error), draw(1, 2, 8, 8)
    stream = Stream(probe_of(module, x), gradient=True)
    stream.probe.baseline_score
    module.most = 0
    with pytest.raises(RuntimeError) as caught:
        list(stream.gradients(points(x, 5)))
    assert caught.value is error
