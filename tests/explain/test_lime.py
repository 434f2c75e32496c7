"""LIME against a second implementation, closed forms, scikit-learn and captum, and its doubts about itself.

Of the defects measured in peers, right here: B18 (a penalty that leaves an all-zero map), and a seed that reaches only
the segmentation.
"""

import numpy as np
import pytest
import torch
from torch import nn

from pellucid.core.errors import BadOption
from pellucid.core.infill import Constant
from pellucid.core.players import players_of
from pellucid.core.probe import Probe, Scene
from pellucid.core.target import ClassScore
from pellucid.explain.lime import LIME
from pellucid.explain.linear import Samples

RANKS = (2, 3)
FILL = Constant(0.3)


class Additive(nn.Module):
    """f = sum of w (x + x^3): each voxel adds its own term."""

    def __init__(self, weight, scale=1.0):
        super().__init__()
        self.weight, self.scale = nn.Parameter(weight), scale

    def terms(self, x):
        return self.scale * self.weight * (x + x.pow(3))

    def forward(self, x):
        return self.terms(x).flatten(1).sum(1, keepdim=True)


def labels_of(model, x, text):
    """The players of each item."""
    return players_of(Probe(model, x, ClassScore(0)), text)


@pytest.mark.parametrize("players", ["grid:2", "superpixels:3"])
@pytest.mark.parametrize("preset", ["lime", "captum"])
@pytest.mark.parametrize("rank", RANKS)
def test_equal_to_the_second_implementation(rank, preset, players, subject, explained, reference):
    s, second = subject("classification", rank), reference("lime")
    method = LIME(preset, samples=40, players=players, infill=FILL, alpha=0.001 if preset == "captum" else None)
    answer = explained(method, s.model, s.inputs, s.target)
    for i, units in enumerate(labels_of(s.model, s.inputs["image"], players)):
        x = s.item(i)["image"]
        tosses, labels = method._tosses(units.count, 0).numpy(), units.labels.numpy()
        images = [second.masked(x.numpy(), 0.3, labels, z) for z in tosses]
        scores = np.array([float(s.score({"image": torch.from_numpy(m)}).detach()[0]) for m in images])
        if preset == "lime":
            effects, _ = second.ridge(tosses, scores, second.weights_lime(tosses, 0.25), 1.0)
            tolerance = 1e-10
        else:
            effects, _ = second.lasso(tosses, scores, second.weights_captum(x.numpy(), images, 1.0), 0.001)
            tolerance = 1e-4  # of scikit-learn's stopping rule
        ours = answer.maps["image"][i, 0].numpy()
        assert np.abs(ours - effects[labels]).max() <= tolerance * max(np.abs(effects).max(), 1e-3)


@pytest.mark.parametrize("preset", ["lime", "captum"])
@pytest.mark.parametrize("rank", RANKS)
def test_an_additive_score_without_a_penalty_gives_the_exact_effects(rank, preset, nets, model_of, explained):
    shape = (8, 6, 4)[:rank]
    net, x = Additive(nets.noise(1, 1, *shape, seed=3)), nets.noise(2, 1, *shape)
    model = model_of(net, rank, channels=(1,))
    answer = explained(LIME(preset, 60, "grid:2", alpha=0.0, infill=FILL), model, x, ClassScore(0))
    units = labels_of(model, x, "grid:2")[0]
    exact = (net.terms(x) - net.terms(torch.full_like(x, 0.3))).detach()
    for i in range(2):
        effects = units.means(exact[i, 0]) * units.sizes
        assert torch.allclose(answer.maps["image"][i, 0], effects[units.labels], atol=1e-9)
    assert float(answer.error["image"].max()) < 1e-9
    assert answer.warnings == ()


def test_ridge_equals_the_closed_form_and_scikit_learn(reference):
    from sklearn.linear_model import Ridge

    draw = np.random.default_rng(0)
    z, y, w = (draw.random((80, 7)) < 0.5).astype(float), draw.normal(size=80), draw.random(80)
    samples = Samples(*(torch.from_numpy(v) for v in (z, y, w)))
    line = samples.fit(1.0, lasso=False)
    effects, constant = reference("lime").ridge(z, y, w, 1.0)
    peer = Ridge(alpha=1.0).fit(z, y, sample_weight=w)
    assert np.allclose(line.effect, effects, atol=1e-10)
    assert float(line.constant) == pytest.approx(constant, abs=1e-10)
    assert np.allclose(line.effect, peer.coef_, atol=1e-10)
    assert samples.r2(line) == pytest.approx(peer.score(z, y, sample_weight=w), abs=1e-10)


def test_players_that_never_differ_share_their_effect():
    z = torch.tensor([[1.0, 1.0], [0.0, 0.0], [1.0, 1.0], [0.0, 0.0]]).double()
    line = Samples(z, 2 * z[:, 0], torch.ones(4).double()).fit(0.0, lasso=False)
    assert torch.allclose(line.effect, torch.ones(2).double(), atol=1e-10)


def test_the_bootstrap_error_is_that_of_repeated_draws(nets, model_of, explained):
    net, x = nets.classifier(2), nets.noise(1, 2, 8, 10)
    method = LIME(samples=150, players="grid:3", infill=FILL)
    answers = [explained(method, model_of(net, 2), x, ClassScore(1), Scene(seed=k)) for k in range(12)]
    between = torch.stack([a.maps["image"] for a in answers]).std(0).mean()
    stated = torch.stack([a.error["image"] for a in answers]).mean()
    assert 0.6 < float(stated / between) < 1.6


def test_a_surrogate_that_does_not_describe_the_model_says_so(nets, model_of, explained):
    class Parity(nn.Module):
        """No line follows it: the product of four signs."""

        def forward(self, x):
            return x.unfold(2, 4, 4).unfold(3, 4, 4).amax((4, 5)).flatten(1).sub(0.5).sign().prod(1, keepdim=True)

    x = torch.ones(1, 1, 8, 8).double()
    method = LIME(samples=200, players="grid:2", infill=Constant(0.0))
    answer = explained(method, model_of(Parity(), 2, channels=(1,)), x, ClassScore(0))
    assert any("the linear surrogate does not describe the model here" in w for w in answer.warnings)
    good = explained(method, model_of(Additive(torch.ones(1, 1, 8, 8).double()), 2, channels=(1,)), x, ClassScore(0))
    assert good.warnings == ()


def test_a_penalty_that_removes_everything_is_told_and_the_default_removes_nothing(nets, model_of, explained):
    """B18: captum's default on small scores is zero everywhere, without a word."""
    from captum.attr import Lime

    net, x = Additive(nets.noise(1, 1, 8, 8, seed=3), scale=1e-3), nets.noise(1, 1, 8, 8)
    labels = labels_of(model_of(net, 2, channels=(1,)), x, "grid:4")[0].labels
    theirs = Lime(net).attribute(x.float(), target=0, feature_mask=labels[None, None], n_samples=100)
    assert not bool(theirs.any())
    ours = explained(LIME(samples=100, players="grid:4"), model_of(net, 2, channels=(1,)), x, ClassScore(0))
    assert bool((ours.maps["image"] != 0).all())
    same = explained(LIME("captum", 100, "grid:4"), model_of(net, 2, channels=(1,)), x, ClassScore(0))
    assert not bool(same.maps["image"].any())
    assert any("the penalty removed all" in w for w in same.warnings)


@pytest.mark.parametrize("preset", ["lime", "captum"])
def test_the_seed_decides_everything(preset, subject, explained):
    s, method = subject("classification", 2), LIME(preset, 40, "superpixels:3", alpha=0.0)
    first, second, other = (explained(method, s.model, s.inputs, s.target, Scene(seed=k)) for k in (1, 1, 2))
    assert torch.equal(first.maps["image"], second.maps["image"])
    assert torch.equal(first.error["image"], second.error["image"])
    assert not torch.allclose(first.maps["image"], other.maps["image"], rtol=1e-3)


@pytest.mark.parametrize("kind", ["segmentation", "two-images", "image-and-vector"])
@pytest.mark.parametrize("rank", RANKS)
def test_an_item_alone_equals_the_item_in_a_batch(rank, kind, subject, explained):
    s, method = subject(kind, rank), LIME(samples=40, players="superpixels:3")
    name = s.model.primary
    together = explained(method, s.model, s.inputs, s.target, s.scene)
    for i in range(2):
        alone = explained(method, s.model, s.item(i), s.target, s.scene)
        assert torch.allclose(alone.maps[name], together.maps[name][i : i + 1], atol=1e-9)
    held = [w for w in together.warnings if "held fixed" in w]
    assert len(held) == (kind == "image-and-vector")


def test_regions_of_the_case_play(subject, explained):
    s = subject("segmentation", 2)
    answer = explained(LIME(samples=40, players="regions", infill=FILL), s.model, s.inputs, s.target, s.scene)
    box = s.scene.regions["box"]
    assert answer.maps["image"][0, 0][box].unique().numel() == 1
    assert answer.maps["image"].unique().numel() == 4  # the box and the rest, of two items


def test_two_fills_are_averaged(nets, model_of, explained):
    net, x = Additive(torch.ones(1, 1, 8, 8).double()), nets.noise(1, 1, 8, 8) + 3
    model, scene = model_of(net, 2, channels=(1,)), Scene(infills=(Constant(0.0), Constant(6.0)))
    method = LIME(samples=40, players="grid:2")
    both = explained(method, model, x, ClassScore(0), scene)
    apart = [
        explained(LIME(samples=40, players="grid:2", infill=f), model, x, ClassScore(0)).maps["image"]
        for f in scene.infills
    ]
    assert torch.allclose(both.maps["image"], (apart[0] + apart[1]) / 2, atol=1e-9)
    assert "differ by up to" in both.warnings[0]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"samples": 8}, "at least 16 samples"),
        ({"width": 0.0}, "kernel width above 0"),
        ({"alpha": -1.0}, "a penalty of 0 or more"),
        ({"players": "hexagons:3"}, "names no players"),
    ],
)
def test_settings_out_of_range_are_refused(settings, words):
    with pytest.raises(BadOption, match=words):
        LIME(**settings)


def test_more_players_than_samples_are_refused(subject, explained):
    s = subject("classification", 2)
    with pytest.raises(BadOption, match="more samples than players, got 16 for 16"):
        explained(LIME(samples=16, players="grid:4"), s.model, s.inputs)


def test_a_tolerance_stops_early_on_the_same_samples(model_of, nets):
    """An additive score is a line: 64 samples say what it is; noise of a curved one needs more."""
    net = Additive(nets.noise(1, 1, 8, 8))
    line, x = model_of(net, 2, channels=(1,)), nets.noise(1, 1, 8, 8)
    curve = model_of(nn.Sequential(net, nn.Tanh()), 2, channels=(1,))

    def made(model=curve, **options):
        probe = Probe(model, x, ClassScore(0), scene=Scene(infills=(FILL, FILL), seed=2))
        return LIME(players="grid:2", alpha=0.0, infill=FILL, **options)(probe), probe.spent.own.forwards

    early, spent = made(line, samples=1000, tolerance=0.05)
    assert spent == 64
    assert float(early.error["image"].max()) <= 0.05 * float(early.maps["image"].abs().max())
    never, all_spent = made(samples=200, tolerance=1e-12)
    whole, _ = made(samples=200)
    assert all_spent == 200
    assert torch.equal(never.maps["image"], whole.maps["image"])
    with pytest.raises(BadOption, match="a tolerance above 0"):
        LIME(tolerance=0.0)
