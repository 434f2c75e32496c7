"""SmoothGrad, SquareGrad and VarGrad against second implementations, closed forms and their own standard errors.

Of the defects measured in peers, right here: B7 (MONAI's magnitude variant goes to zero as 1/sqrt(n)).
"""

import weakref

import nibabel
import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import pellucid
from pellucid.core import masking
from pellucid.core.errors import BadOption
from pellucid.core.intensity import body_range
from pellucid.core.probe import Probe, Scene
from pellucid.core.target import ClassScore
from pellucid.explain.noise import Moments, SmoothGrad, SquareGrad, VarGrad

RANKS = (2, 3)
METHODS = {"smooth_grad": SmoothGrad, "square_grad": SquareGrad, "var_grad": VarGrad}
SEED = 11


def close(ours, theirs, relative):
    """Largest difference as a share of the largest value."""
    theirs = torch.as_tensor(theirs)
    return float((ours - theirs).abs().max()) <= relative * float(theirs.abs().max())


class Quadratic(nn.Module):
    """``f = sum x^2``: gradient 2x, so noise of standard deviation s gives it the variance 4 s^2."""

    def forward(self, x):
        return x.square().flatten(1).sum(1, keepdim=True)


def spanned(shape, span=2.0, seed=1):
    """Values spread evenly, so that their body range is known: ``span`` after the tails are cut."""
    count = int(np.prod(shape))
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    values = torch.linspace(0, 1, count, dtype=torch.float64)[order].view(shape)
    return values * span / float(body_range(values[None]).max())


def noises(inputs, images, item, samples, sigma, intensity_range):
    """What is added to all inputs of one item, as one long row, drawn as the method promises to."""
    generator = torch.Generator().manual_seed(SEED)
    for _ in range(samples):
        row = []
        for name, x in inputs.items():
            if name not in images:
                row.append(torch.zeros(x[0].numel(), dtype=torch.float64))
                continue
            drawn = torch.randn(x.shape[1:], generator=generator).double()
            spread = [sigma * intensity_range(channel.numpy()) for channel in x[item]]
            row.append(torch.cat([s * d.flatten() for s, d in zip(spread, drawn, strict=True)]))
        yield torch.cat(row)[None]


def as_row(inputs, score):
    """Named inputs of one item as one row, and the score as a function of such rows."""
    sizes = [x[0].numel() for x in inputs.values()]

    def of_row(row):
        parts = row.view(-1, sum(sizes)).split(sizes, 1)
        return score({n: p.view(-1, *x.shape[1:]) for (n, x), p in zip(inputs.items(), parts, strict=True)})

    return torch.cat([x.flatten(1) for x in inputs.values()], 1), of_row


@pytest.mark.parametrize("rank", RANKS)
@pytest.mark.parametrize("kind", ["classification", "segmentation", "regression", "two-images", "image-and-vector"])
@pytest.mark.parametrize("name", METHODS)
def test_equal_to_the_second_implementation(name, kind, rank, subject, explained, reference):
    s = subject(kind, rank)
    scene = Scene(regions=s.scene.regions, seed=SEED)
    answer = explained(METHODS[name](4, 0.3), s.model, s.inputs, s.target, scene)
    ours = torch.cat([answer.maps[n].flatten(1) for n in s.inputs], 1)
    errors = torch.cat([answer.error[n].flatten(1) for n in s.inputs], 1)
    images = [n for n, x in s.inputs.items() if x.ndim > 2]
    for item in range(2):
        row, score = as_row(s.item(item), s.score)
        drawn = list(noises(s.inputs, images, item, 4, 0.3, reference("smooth_grad").intensity_range))
        slow, slow_error = getattr(reference(name), name)(score, row, drawn)
        assert close(ours[item], slow[0], 1e-5)
        assert close(errors[item], slow_error[0], 1e-5)


@pytest.mark.parametrize("samples", [2, 3, 25])
def test_a_linear_score_is_known_whatever_the_number_of_copies(samples, nets, model_of, explained):
    net, x = nets.linear(6, channels=3, classes=2), nets.noise(2, 3, 6, 6)
    weight = net[1].weight[1].detach().view(1, 3, 6, 6).expand(2, 3, 6, 6)
    for method, expected in ((SmoothGrad, weight), (SquareGrad, weight**2), (VarGrad, 0 * weight)):
        answer = explained(method(samples), model_of(net, 2, channels=(3,)), x)
        assert torch.equal(answer.maps["image"], expected)
        assert bool((answer.error["image"] == 0).all())
        assert not answer.warnings


@pytest.mark.parametrize("shape", [(1, 20, 30), (1, 8, 9, 10)])
def test_quadratic_score_has_the_known_moments_and_errors(shape, model_of, explained):
    x, n, sigma = spanned(shape)[None], 400, 0.2 * 2.0
    model = model_of(Quadratic(), len(shape) - 1, channels=(1,))

    def standardized(method, expected, known_error):
        answer = explained(method(n, 0.2), model, x, ClassScore())
        reported = answer.error["image"]
        assert float((reported / known_error).mean()) == pytest.approx(1, abs=0.05)
        return (answer.maps["image"] - expected) / reported

    off = {
        "mean": standardized(SmoothGrad, 2 * x, 2 * sigma / n**0.5),
        "square": standardized(
            SquareGrad, 4 * x**2 + 4 * sigma**2, (32 * sigma**4 + 64 * x**2 * sigma**2).sqrt() / n**0.5
        ),
        "variance": standardized(VarGrad, torch.full_like(x, 4 * sigma**2), 4 * sigma**2 * (2 / (n - 1)) ** 0.5),
    }
    for values in off.values():  # 600 or 720 independent voxels
        assert abs(float(values.mean())) < 0.2
        assert float(values.std()) == pytest.approx(1, abs=0.12)
        assert float((values.abs() < 1.96).double().mean()) == pytest.approx(0.95, abs=0.035)


@pytest.mark.parametrize("method", METHODS.values())
def test_four_times_the_copies_halve_the_error(method, subject, explained):
    s = subject("classification", 2)
    few, many = (explained(method(n), s.model, s.inputs).error["image"].norm() for n in (50, 200))
    assert float(few / many) == pytest.approx(2, abs=0.35)


def test_mean_square_does_not_fall_with_the_number_of_copies(nets, model_of, explained):
    """B7: MONAI's magnitude variant takes the root of the sum and divides by n: half as large for four times n."""
    from monai.visualize import SmoothGrad as Peer

    net, x = nets.linear(6, classes=2), nets.noise(1, 1, 6, 6)
    weight = net[1].weight[1].detach().abs().view(1, 1, 6, 6)
    peer = {n: Peer(net, 0.15, n, magnitude=True, verbose=False)(x.clone(), index=1) for n in (25, 100)}
    ours = {n: explained(SquareGrad(n), model_of(net, 2, channels=(1,)), x).maps["image"].sqrt() for n in (25, 100)}
    for n in (25, 100):
        assert torch.allclose(peer[n], weight / n**0.5, rtol=1e-5)
        assert torch.allclose(ours[n], weight)


@pytest.mark.parametrize("method", METHODS.values())
def test_the_answer_does_not_depend_on_the_chunk(method, subject, explained, monkeypatch):
    s = subject("two-images", 2)
    whole = explained(method(7), s.model, s.inputs)
    monkeypatch.setattr(masking, "free_bytes", lambda _device: 0)
    single = explained(method(7), s.model, s.inputs)
    for name in s.inputs:
        assert close(single.maps[name], whole.maps[name], 1e-10)
        assert close(single.error[name], whole.error[name], 1e-8)


class Watched(nn.Module):
    """Runs out of memory beyond ``most`` items, and counts the batches that are alive at once."""

    def __init__(self, inner, most):
        super().__init__()
        self.inner, self.most, self.alive, self.peak, self.done = inner, most, weakref.WeakSet(), 0, 0

    def forward(self, x):
        if len(x) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        self.alive.add(x)
        self.peak, self.done = max(self.peak, len(self.alive)), self.done + len(x)
        return self.inner(x)


@pytest.mark.parametrize("method", METHODS.values())
def test_out_of_memory_halves_the_chunk_and_changes_nothing(method, nets, model_of, explained):
    x = nets.noise(1, 2, 8, 10)
    halved = Watched(nets.classifier(2), 2)
    answer = explained(method(9), model_of(halved, 2), x)
    assert halved.done == 9 + 2  # and the unperturbed image, and the trace of its layers
    assert close(answer.maps["image"], explained(method(9), model_of(nets.classifier(2), 2), x).maps["image"], 1e-10)


def test_memory_does_not_grow_with_the_copies(nets, model_of, explained):
    x, peaks, drawn = nets.noise(1, 2, 8, 10), [], []
    for n in (8, 64):
        net = Watched(nets.classifier(2), 99)
        explained(SmoothGrad(n), model_of(net, 2), x)
        peaks.append(net.peak)
        drawn.append(net.done)
    assert peaks[0] == peaks[1] <= 2
    assert drawn == [8 + 2, 64 + 2]


@pytest.mark.parametrize("method", METHODS.values())
def test_items_share_one_draw_and_keep_their_own_range(method, subject, nets, explained):
    s = subject("classification", 3)
    x = nets.noise(1, *s.inputs["image"].shape[1:])
    both = torch.cat([x, x, 5 * x])
    maps = explained(method(6), s.model, both).maps["image"]
    assert torch.allclose(maps[0], maps[1], rtol=1e-10)
    assert torch.allclose(maps[2:], explained(method(6), s.model, 5 * x).maps["image"], rtol=1e-9, atol=1e-14)


def test_the_seed_of_the_scene_decides(subject, explained):
    s = subject("classification", 2)
    one, same, other = (explained(SmoothGrad(5), s.model, s.inputs, scene=Scene(seed=n)).maps for n in (1, 1, 2))
    assert torch.equal(one["image"], same["image"])
    assert not torch.allclose(one["image"], other["image"], rtol=1e-3)


def test_inputs_get_noise_of_their_own(nets, model_of, explained):
    """f = sum of a b: the gradient to a is b, so its variance is that of b's noise, and the other way round."""

    class Product(nn.Module):
        def forward(self, a, b):
            return (a * b).flatten(1).sum(1, keepdim=True)

    inputs = {"a": spanned((1, 12, 12))[None], "b": spanned((1, 12, 12), 6.0, seed=2)[None]}
    model = model_of(Product(), 2, names=("a", "b"), channels=(1, 1))
    answer = explained(VarGrad(200, 0.1), model, inputs, ClassScore())
    assert float(answer.maps["a"].mean()) == pytest.approx(0.6**2, rel=0.05)
    assert float(answer.maps["b"].mean()) == pytest.approx(0.2**2, rel=0.05)
    mean = explained(SmoothGrad(200, 0.1), model, inputs, ClassScore()).maps
    away = (mean["a"] - inputs["b"]).flatten(), (mean["b"] - inputs["a"]).flatten()
    assert abs(float(torch.corrcoef(torch.stack(away))[0, 1])) < 0.3


def test_a_vector_gets_no_noise_and_the_reader_is_told(subject, explained):
    s = subject("image-and-vector", 2)
    answer = explained(SmoothGrad(40), s.model, s.inputs)
    assert set(answer.maps) == {"image", "covariates"}
    assert any(w.startswith("no noise was added to covariates") for w in answer.warnings)


def test_a_large_sampling_error_is_told_with_the_number_that_helps(subject, explained):
    s = subject("classification", 2)
    told = [w for w in explained(VarGrad(3), s.model, s.inputs).warnings if w.startswith("sampling error")]
    assert len(told) == 1
    number = int(told[0].split("about ")[1].split()[0])
    assert 3 < number < 400
    enough = explained(VarGrad(2 * number), s.model, s.inputs).warnings
    assert not [w for w in enough if w.startswith("sampling error")]


def test_an_image_of_one_value_gets_no_noise_and_the_reader_is_told(subject, explained):
    s = subject("classification", 2)
    answer = explained(VarGrad(3), s.model, torch.full_like(s.inputs["image"], 0.3))
    assert float(answer.maps["image"].abs().max()) < 1e-25
    assert answer.warnings == ("no noise was added to image: the image has one value everywhere",)


def test_body_range_is_that_of_the_second_implementation(nets, reference):
    x = nets.noise(2, 3, 9, 11)
    x[1, 2] = 0.5
    x[0, 1, :, :4] = -7.0
    volume = nets.noise(1, 2, 6, 7, 8)
    volume[0, 0, 2:4, 2:4, 2:4], volume[0, 1] = -1.0, (volume[0, 1] > 1.2).double()
    for tensor in (x, volume):
        ours = body_range(tensor)
        for item, channels in enumerate(tensor):
            for i, channel in enumerate(channels):
                slow = reference("smooth_grad").intensity_range(channel.numpy())
                assert float(ours[item, i]) == pytest.approx(slow, abs=1e-12)
    assert float(body_range(x)[1, 2]) == 0


@pytest.mark.parametrize("pad", [1, 40])
def test_air_and_metal_do_not_change_the_range(pad, nets):
    body = nets.noise(1, 1, 40, 40)
    padded = nn.functional.pad(body, [pad] * 4, value=-1024.0)
    assert torch.equal(body_range(padded), body_range(nn.functional.pad(body, [2] * 4, value=3.0)))
    padded[0, 0, pad + 3, pad + 3] = 3071
    assert float(body_range(padded)) == pytest.approx(float(body_range(body)), rel=0.05)
    assert float(padded.max() - padded.min()) > 4000


def test_a_mask_has_the_distance_to_its_outside(nets):
    mask = torch.zeros(1, 1, 10, 10)
    mask[0, 0, 3:6, 3:6] = 0.75
    assert body_range(mask).tolist() == [[0.75]]


def test_range_of_a_real_film_and_a_real_volume(shared_data):
    film = sorted((shared_data / "xray_nih" / "images").iterdir())[0]
    values = torch.from_numpy(np.asarray(Image.open(film).convert("L"), dtype=np.float32))[None, None] / 255
    path = sorted((shared_data / "mri_hippocampus" / "images").glob("*.nii.gz"))[0]
    volume = torch.from_numpy(np.asarray(nibabel.load(path).dataobj, dtype=np.float32))[None, None]
    assert 0.5 < float(body_range(values)) <= 1
    assert 0.2 < float(body_range(volume) / (volume.max() - volume.min())) < 1


def test_moments_keep_their_digits_where_sums_of_powers_lose_them():
    generator = torch.Generator().manual_seed(0)
    away = torch.randn(50, 6, generator=generator, dtype=torch.float64)
    seen = Moments()
    for row in 1e8 + away:
        seen.add(row)
    exact = (1e8 + away) - 1e8  # what is left of the numbers after adding
    assert torch.allclose(seen.mean, 1e8 + exact.mean(0), rtol=1e-15)
    assert torch.allclose(seen.variance, exact.var(0), rtol=1e-6)
    assert torch.allclose(seen.third / 50, (exact - exact.mean(0)).pow(3).mean(0), atol=1e-5)
    assert torch.allclose(seen.fourth / 50, (exact - exact.mean(0)).pow(4).mean(0), rtol=1e-5)
    naive = (1e8 + away).square().mean(0) - (1e8 + away).mean(0) ** 2
    assert not torch.allclose(naive, exact.var(0), rtol=0.1)


@pytest.mark.parametrize("method", METHODS.values())
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"samples": 1}, "expected at least 2 noisy copies, got 1"),
        ({"sigma": 0.0}, "expected noise above 0"),
        ({"sigma": 15}, "expected noise above 0"),
        ({"sigma": float("nan")}, "expected noise above 0"),
    ],
)
def test_options_out_of_range(method, options, message):
    with pytest.raises(BadOption, match=message):
        method(**options)


def test_errors_come_in_the_number_format_of_the_input(subject, explained):
    s = subject("classification", 2)
    model, x = s.model, s.inputs["image"].float()
    model.module.float()
    answer = explained(SmoothGrad(3), model, x)
    assert answer.maps["image"].dtype == answer.error["image"].dtype == torch.float32
    low = explained(SmoothGrad(3), model, x, precision="bfloat16").maps["image"]
    assert torch.nn.functional.cosine_similarity(low.flatten(), answer.maps["image"].flatten(), 0) > 0.98


@pytest.mark.parametrize("name", ["SmoothGrad", "SquareGrad", "VarGrad"])
def test_by_name_in_three_lines(name, nets):
    net, x = nets.classifier(2).float(), nets.noise(1, 2, 8, 10).float()
    made = pellucid.explain(net, x, target=1, method=name)
    assert made.numpy().shape == (1, 8, 10)
    assert made.provenance.own == (25, 25)
    assert made.attribution.error["image"].shape == x.shape


def test_several_targets_see_the_same_noise(subject):
    s = subject("classification", 2)
    probe = Probe(s.model, s.inputs, [ClassScore(0), ClassScore(2)])
    together = [SmoothGrad(4)(probe.at(i)).maps["image"] for i in range(2)]
    alone = [SmoothGrad(4)(Probe(s.model, s.inputs, ClassScore(c))).maps["image"] for c in (0, 2)]
    assert all(torch.equal(a, b) for a, b in zip(together, alone, strict=True))
