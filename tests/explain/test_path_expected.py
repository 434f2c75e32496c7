"""Expected gradients against a second implementation, closed forms and integrated gradients.

Of the defects measured in peers, right here: B23 (a standard error from the variance over the root of n, not over n).
"""

import pytest
import torch
from torch import nn

from pellucid.core.errors import BadOption, ShapeMismatch
from pellucid.core.infill import Blur, Constant
from pellucid.core.probe import Probe, Scene
from pellucid.core.target import ClassScore
from pellucid.explain.expected import ExpectedGradients, drawn
from pellucid.explain.path import IntegratedGradients

SHAPES = {2: (8, 10), 3: (4, 6, 8)}


def close(ours, theirs, relative):
    """Largest difference as a share of the largest value."""
    return float((ours - theirs).abs().max()) <= relative * float(theirs.abs().max())


def normal(nets, inputs, count=3):
    """Reference items for every input."""
    return {n: nets.noise(count, *x.shape[1:], seed=20 + i) for i, (n, x) in enumerate(inputs.items())}


class Watched(Probe):
    """Keeps the points at which a gradient is taken, one version of the batch each."""

    def __init__(self, *args):
        super().__init__(*args)
        self.points = []

    def gradient(self, x):
        for i in range(0, len(next(iter(x.values()))), self.batch):
            self.points.append({n: v[i : i + self.batch] for n, v in x.items()})
        return super().gradient(x)


def watched(method, s, background, seed=0):
    """The answer, and the draws (index of the reference, a) read off the points that the model was shown."""
    probe = Watched(
        s.model, s.inputs, s.target, (), Scene(s.scene.grids, s.scene.regions, seed=seed, background=background)
    )
    answer, draws = method(probe), []
    name, x = next(iter(s.inputs.items()))
    for point in probe.points:
        for r, start in enumerate(background[name]):
            way, gone = (x[0] - start).flatten(), (point[name][0] - start).flatten()
            a = float(gone @ way / (way @ way))
            if torch.allclose(gone, a * way, atol=1e-9):
                draws.append((r, a))
    assert len(draws) == len(probe.points)
    return answer, draws, probe


@pytest.mark.parametrize("rank", [2, 3])
@pytest.mark.parametrize("kind", ["classification", "margin", "segmentation", "two-images", "image-and-vector"])
@pytest.mark.parametrize(("count", "samples"), [(3, 6), (5, 4)])
def test_equal_to_the_second_implementation(kind, rank, count, samples, subject, nets, reference):
    s, second = subject(kind, rank), reference("expected_gradients")
    background = normal(nets, s.inputs, count)
    answer, draws, _ = watched(ExpectedGradients(samples), s, background)
    starts = [({n: b[r][None] for n, b in background.items()}, a) for r, a in draws]
    near = [count > samples or r == before for (r, _), (before, _) in zip(draws, [(None, 0), *draws], strict=False)]
    item = s.item(0)
    slow, terms = second.expected_gradients(s.score, item, starts), second.terms(s.score, item, starts)
    for name in s.inputs:
        assert close(answer.maps[name][:1], slow[name], 1e-10)
        error = torch.from_numpy(second.standard_error([t[name].numpy() for t in terms], near))
        assert close(answer.error[name][:1], error, 1e-7)
    expected = (
        s.score(s.inputs)[0]
        - torch.stack([s.score({n: b[r][None] for n, b in background.items()}) for r in {r for r, _ in draws}]).mean()
    )
    assert torch.isclose(answer.difference[0], expected.detach())


@pytest.mark.parametrize(("references", "rounds"), [(1, 12), (3, 4), (7, 1), (2, 1)])
def test_draws_fill_all_parts(references, rounds):
    draws = drawn(references, rounds, torch.Generator().manual_seed(1))
    count = references * rounds
    assert sorted(int(d.a * count) for d in draws) == list(range(count))
    for r in range(references):
        assert sorted(int(d.a * rounds) for d in draws if d.reference == r) == list(range(rounds))
    before = draws[:-1]
    for one, two in zip(before, draws[1:], strict=True):
        assert two.neighbor == (rounds == 1 or one.reference == two.reference)
        assert one.a < two.a or not two.neighbor
    assert not draws[0].neighbor


def test_every_share_of_the_way_is_as_likely():
    generator = torch.Generator().manual_seed(0)
    shares = torch.tensor([[d.a for d in drawn(3, 2, generator) if d.reference == 1] for _ in range(4000)])
    for part, values in enumerate(shares.T):
        quarters = torch.histc(values, 4, part / 2, part / 2 + 0.5) / len(values)
        assert float((quarters - 0.25).abs().max()) < 4 * (0.25 * 0.75 / 4000) ** 0.5


def linear_probe(nets, model_of, background, count=1):
    """A linear score with a background, and its weights."""
    net, x = nets.linear(4), nets.noise(count, 1, 4, 4)
    probe = Probe(model_of(net, 2, channels=(1,)), x, ClassScore(0), (), Scene(background={"image": background}))
    return probe, net[1].weight.detach().view(1, 1, 4, 4)


def test_a_linear_score_is_exact(nets, model_of):
    """``w (x - mean of the references)``, with no error: each reference has its turn."""
    background = nets.noise(5, 1, 4, 4, seed=9)
    probe, weight = linear_probe(nets, model_of, background, count=2)
    answer = ExpectedGradients(15)(probe)
    assert torch.allclose(answer.maps["image"], weight * (probe.inputs["image"] - background.mean(0)), atol=1e-14)
    assert float(answer.error["image"].max()) < 1e-14
    assert float(answer.gap.max()) < 1e-12


def test_the_error_is_the_variance_over_n(nets, model_of):
    """B23: of a linear score with more references than samples the error is known."""
    background, samples, runs = nets.noise(120, 1, 4, 4, seed=9), 16, 120
    probe, weight = linear_probe(nets, model_of, background)
    scenes = [Scene(seed=seed, background={"image": background}) for seed in range(runs)]
    answers = [ExpectedGradients(samples)(Probe(probe.model, probe.inputs, ClassScore(0), (), s)) for s in scenes]
    variance = (weight * background).var(0) / samples
    told = torch.stack([a.error["image"][0].square() for a in answers]).mean(0)
    assert float((told / variance - 1).abs().max()) < 0.25
    spread = torch.stack([a.maps["image"][0] for a in answers]).var(0)
    assert float((spread / (variance * (1 - samples / 120))).mean()) == pytest.approx(1, abs=0.15)
    assert float((told * samples**0.5 / variance).mean()) > 3  # what dividing by the root of n would tell


def test_the_error_covers_what_other_seeds_give(subject):
    """Of draws in parts: about the spread over seeds, and rather above it than below."""
    s = subject("classification", 2)
    answers = [
        ExpectedGradients(24, Constant(0.3))(Probe(s.model, s.inputs, s.target, (), Scene(seed=seed)))
        for seed in range(60)
    ]
    spread = torch.stack([a.maps["image"] for a in answers]).var(0).mean().sqrt()
    told = torch.stack([a.error["image"].square() for a in answers]).mean().sqrt()
    assert 0.9 < float(told / spread) < 2
    sums = torch.stack([a.maps["image"].flatten(1).sum(1) - a.difference for a in answers])
    assert bool((sums.mean(0).abs() < 4 * sums.std(0) / len(sums) ** 0.5).all())


@pytest.mark.parametrize("rank", [2, 3])
def test_with_one_reference_it_is_integrated_gradients(rank, subject, explained):
    s, baseline = subject("classification", rank), Constant(0.3)
    path = explained(IntegratedGradients(400, baseline), s.model, s.inputs, s.target)
    ours = explained(ExpectedGradients(400, baseline), s.model, s.inputs, s.target)
    assert close(ours.maps["image"], path.maps["image"], 0.02)
    away = (ours.maps["image"] - path.maps["image"]).square().mean() / ours.error["image"].square().mean()
    assert float(away) < 2
    assert torch.equal(ours.difference, path.difference)


def test_without_a_background_each_reference_is_told(subject):
    s = subject("classification", 2)
    method, probe = ExpectedGradients(6), Watched(s.model, s.inputs, s.target)
    answer = method(probe)
    assert method.stand_in(probe) == "constant 0 (network units), blur, sigma 0.56, blur, sigma 1.1"
    x = s.inputs["image"]
    starts = [fill(x, (1.0, 1.0), None) for fill in (Constant(), Blur(0.56), Blur(1.1))]
    for i, point in enumerate(probe.points):
        start = starts[i // 2]
        a = ((point["image"] - start) / (x - start)).flatten()
        assert float(a.std()) < 1e-6
    score = torch.stack([s.score({"image": start}) for start in starts]).mean(0)
    assert torch.allclose(answer.difference, (s.score(s.inputs) - score).detach())


def test_with_a_background_its_items_are_counted(nets, model_of):
    probe, _ = linear_probe(nets, model_of, nets.noise(5, 1, 4, 4))
    method = ExpectedGradients(8)
    assert method.stand_in(probe) == "5 background items"
    method(probe)
    assert probe.spent.own == method.cost(probe)
    assert (probe.spent.own.forwards, probe.spent.own.backwards) == (10 + 5, 10)
    assert ExpectedGradients(8, Blur(2.0)).stand_in(probe) == "blur, sigma 2"


def test_the_seed_decides_and_items_share_the_draws(subject, nets):
    s = subject("two-images", 2)
    background = normal(nets, s.inputs)

    def maps(seed=4, inputs=None):
        scene = Scene(seed=seed, background=background)
        return ExpectedGradients(6)(Probe(s.model, inputs or s.inputs, s.target, (), scene)).maps

    first, other = maps(), maps(seed=5)
    for name in s.inputs:
        assert torch.equal(first[name], maps()[name])
        assert not close(other[name], first[name], 1e-3)
        assert close(maps(inputs=s.item(1))[name], first[name][1:], 1e-12)


def test_an_open_gap_is_told_with_the_sampling_error(model_of):
    class Step(nn.Module):
        def forward(self, x):
            return torch.sigmoid(200 * (x.flatten(1).mean(1, keepdim=True) - 0.5))

    x, method = torch.ones(1, 1, 2, 2), ExpectedGradients(4, Constant())
    answer = method(Probe(model_of(Step(), 2, channels=(1,)), x, ClassScore(0)))
    assert answer.warnings[0].startswith("completeness gap 100% of the score difference with 4 samples (standard error")


@pytest.mark.parametrize("broken", ["missing", "shape", "count", "none"])
def test_a_background_that_does_not_fit_is_refused(broken, subject, nets):
    s = subject("two-images", 2)
    background = normal(nets, s.inputs)
    spare = Scene(background={**background, "labs": nets.noise(1, 4)})  # of another model: not looked at
    ExpectedGradients(4)(Probe(s.model, s.inputs, s.target, (), spare))
    background |= {
        "missing": {},
        "shape": {"ct": background["ct"][..., 1:]},
        "count": {"ct": background["ct"][1:]},
        "none": {n: b[:0] for n, b in background.items()},
    }[broken]
    if broken == "missing":
        del background["ct"]
    with pytest.raises(ShapeMismatch, match="expected a background of items shaped"):
        ExpectedGradients(4)(Probe(s.model, s.inputs, s.target, (), Scene(background=background)))


def test_one_sample_is_refused():
    with pytest.raises(BadOption, match="at least 2 samples, got 1"):
        ExpectedGradients(1)
