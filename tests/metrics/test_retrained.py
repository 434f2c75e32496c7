"""Maps of other models of the same task: what is compared, what is left out, and models trained here."""

import numpy as np
import pytest
import torch
from torch import nn

from pellucid.core.card import Cost
from pellucid.core.errors import BadOption
from pellucid.core.model import Identity, Model, OutputSpec
from pellucid.core.prepare import InputSpec
from pellucid.core.probe import Probe, Retrained, Scene
from pellucid.core.target import ClassScore
from pellucid.explain.cam import GradCAM
from pellucid.explain.gradient import InputXGradient, Saliency
from pellucid.metrics.robustness.retrained import Repeatability, Reproducibility, same_architecture

SIDE = {2: (10, 12), 3: (8, 9, 10)}
BOTH = [Repeatability(), Reproducibility()]


class Weighted(nn.Module):
    """Two linear scores, ``w.x`` and a constant."""

    def __init__(self, weight, other=-1e3, deep=False):
        super().__init__()
        self.weight, self.other = nn.Parameter(weight), other
        self.gain = nn.Parameter(torch.ones(1, dtype=weight.dtype)) if deep else 1.0

    def forward(self, x):
        score = (x * self.weight).flatten(1).sum(1, keepdim=True) * self.gain
        return torch.cat([score, torch.full_like(score, self.other)], 1)


def weights(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def scored(metric, model, x, others, method=None, label=0):
    method = method or InputXGradient()
    others = [o if isinstance(o, Retrained) else Retrained(o) for o in others]
    scene = Scene(retrained=tuple(others))
    probe = Probe(model, x, ClassScore(label), method.needs(model, {"image": x}), scene)
    score = metric(probe, method(probe), method, None)
    assert probe.spent.own.forwards <= metric.cost(probe, method).forwards * len(x)
    return score


@pytest.mark.parametrize("measure", ["spearman", "ssim", "iou"])
@pytest.mark.parametrize("rank", [2, 3])
def test_identical_models_are_alike_exactly(rank, measure, model_of, nets):
    net, x = nets.classifier(rank), nets.noise(2, 2, *SIDE[rank])
    model = model_of(net, rank, 2)
    score = scored(Repeatability(measure), model, x, [model, model_of(net, rank, 2)], Saliency())
    assert score.values.tolist() == [1, 1]
    assert score.detail["models with identical weights"] == 2


@pytest.mark.parametrize("rank", [2, 3])
def test_linear_models_in_closed_form(rank, model_of, reference):
    """Input times gradient of ``w.x`` is ``w x``, so the maps of the others are known."""
    x, ws = weights(1, 1, *SIDE[rank]), [weights(1, *SIDE[rank], seed=s) for s in (1, 2, 3)]
    ws = [ws[0], ws[0] + ws[1], ws[0] + 2 * ws[2]]
    maps = [(w * x)[0, 0].numpy() for w in ws]
    models = [model_of(Weighted(w), rank) for w in ws]
    got = {m: scored(Repeatability(m, 0.2), models[0], x, models[1:]) for m in ("spearman", "ssim", "iou")}
    repeated, count = reference("repeatability"), round(0.2 * x.numel())
    assert float(got["spearman"].values) == pytest.approx(repeated.repeatability(maps[0], maps[1:]), abs=1e-9)
    assert float(got["ssim"].values) == pytest.approx(
        reference("reproducibility").reproducibility(maps[0], maps[1:]), abs=1e-9
    )
    overlaps = [repeated.iou_of_top(maps[0], m, count) for m in maps[1:]]
    assert float(got["iou"].values) == pytest.approx(np.mean(overlaps), abs=1e-9)
    assert got["spearman"].detail["iou"] == [[pytest.approx(o)] for o in overlaps]


def test_models_further_apart_are_explained_less_alike(model_of):
    x, w, away = weights(1, 1, 12, 12), weights(1, 12, 12, seed=1), weights(1, 12, 12, seed=2)
    model = model_of(Weighted(w), 2)
    for measure in ("spearman", "ssim", "iou"):
        found = [
            float(scored(Repeatability(measure), model, x, [model_of(Weighted(w + s * away), 2)]).values)
            for s in (0.0, 0.3, 1.0, 3.0)
        ]
        assert found[0] == 1
        assert np.all(np.diff(found) < 0)


def test_which_model_is_which_is_decided_by_names_and_shapes_of_parameters(model_of):
    x, w = weights(2, 1, 10, 12), weights(1, 10, 12, seed=1)
    same, deep = model_of(Weighted(w + 0.1), 2), model_of(Weighted(2 * w, deep=True), 2)
    model = model_of(Weighted(w), 2)
    assert same_architecture(model, same)
    assert not same_architecture(model, deep)
    again, other = (scored(m, model, x, [same, deep]) for m in BOTH)
    assert len(again.detail["models"]) == len(other.detail["models"]) == 1
    assert other.values.tolist() == [1, 1], "twice the weights rank alike"
    assert not torch.equal(again.values, other.values)


@pytest.mark.parametrize("metric", BOTH, ids=lambda m: m.name)
def test_without_another_model(metric, model_of):
    x, model = weights(2, 1, 10, 12), model_of(Weighted(weights(1, 10, 12, seed=1)), 2)
    score = scored(metric, model, x, [])
    which = "the same" if metric.name == "Repeatability" else "another"
    assert set(score.reasons) == {f"no other model of {which} architecture was given (--retrained)"}
    assert bool(torch.isnan(score.values).all())
    assert metric.cost(Probe(model, x, ClassScore(0)), InputXGradient()) == Cost()


def test_a_model_that_decides_otherwise_is_counted_and_left_out(model_of):
    x, w = weights(3, 1, 10, 12).abs(), weights(1, 10, 12, seed=1).abs()
    model, apart = model_of(Weighted(w), 2), model_of(Weighted(w + 1, other=1e9), 2)
    near = model_of(Weighted(w + 0.1), 2)
    score = scored(Repeatability(), model, x, [apart, near])
    assert score.detail["models that decide otherwise"] == [1, 1, 1]
    assert torch.equal(score.values, scored(Repeatability(), model, x, [near]).values)
    alone = scored(Repeatability(), model, x, [apart])
    assert set(alone.reasons) == {"every other model decides otherwise, so its map explains something else"}
    assert bool(torch.isnan(alone.values).all())


def test_models_that_cannot_be_compared_are_named_with_the_reason(model_of):
    x, w = weights(1, 1, 10, 12), weights(1, 10, 12, seed=1)
    model = model_of(Weighted(w), 2)
    larger = Model(Weighted(w), (InputSpec(size=(10, 12)),), OutputSpec(), Identity("larger"))
    labels = Model(Weighted(w), (InputSpec(rank=2, order="rgb"),), OutputSpec(labels=("a", "b")), Identity("labels"))
    left_out = scored(Repeatability(), model, x, [larger, labels]).detail["left out"]
    assert sorted(left_out.values()) == ["it prepares the image differently", "its output means something else"]
    assert {n.split()[0] for n in left_out} == {"larger", "labels"}
    score = scored(Repeatability(), model, x, [larger])
    assert score.reasons[0].startswith("no other model could be compared: larger")


def test_a_layer_that_the_other_model_lacks(model_of, nets):
    x = nets.noise(1, 2, 10, 12)
    model, other = model_of(nets.classifier(2), 2, 2), model_of(nets.Reused(2).double().eval(), 2, 2)
    names = [s.name for s in model.layers({"image": x}) if len(s.shape) == 4]
    score = scored(Reproducibility(), model, x, [other], GradCAM(names[-1]))
    assert "is not in the model" in score.reasons[0]


@pytest.mark.parametrize("metric", BOTH, ids=lambda m: m.name)
def test_what_is_undefined_leaves_the_others(metric, model_of, stand):
    x, w = weights(3, 1, 10, 12), weights(1, 10, 12, seed=1)
    others = [model_of(Weighted(w + 1), 2), model_of(Weighted(w + 1, deep=True), 2)]

    def answer(probe):
        maps = probe.inputs["image"] * probe.model.module.weight.detach()
        maps[0], maps[1, 0, 0, 0] = 2.0, torch.nan
        return maps

    score = scored(metric, model_of(Weighted(w), 2), x, others, stand(answer))
    assert score.reasons == ("the map is constant: it ranks nothing", "the map is not finite", "")
    assert torch.isnan(score.values).tolist() == [True, True, False]


def test_an_item_alone_is_scored_as_in_a_batch(model_of, nets):
    x = nets.noise(3, 2, 10, 12)
    model, other = (model_of(nets.classifier(2), 2, 2) for _ in range(2))
    with torch.no_grad():
        for p in other.module.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=torch.Generator().manual_seed(1), dtype=p.dtype))
    together = scored(Repeatability(), model, x, [other], Saliency())
    alone = scored(Repeatability(), model, x[:1], [other], Saliency())
    assert float(alone.values) == pytest.approx(float(together.values[0]), abs=1e-9)


@pytest.mark.parametrize("bad", [("ranks", 0.1), ("iou", 0.0), ("iou", 1.0)])
def test_options_outside_their_range(bad):
    with pytest.raises(BadOption, match="expected measure"):
        Repeatability(*bad)


def trained(images, labels, seed, width):
    """A small network that tells pneumonia on children's films, in a second."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = nn.Sequential(
            *(nn.Conv2d(1, width, 3, 2, 1), nn.ReLU(), nn.Conv2d(width, 16, 3, 2, 1), nn.ReLU()),
            *(nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(256, 1)),
        )
        steps = torch.optim.Adam(net.parameters(), 1e-2)
        for batch in torch.randint(len(images), (100, 32)):
            loss = nn.functional.binary_cross_entropy_with_logits(net(images[batch])[:, 0], labels[batch])
            steps.zero_grad()
            loss.backward()
            steps.step()
    return net.eval()


def test_networks_trained_here_on_real_films(shared_data):
    """Other seeds and another width: not one map, not unrelated maps; edges repeat perfectly and mean nothing."""
    films = np.load(shared_data / "xray_pneumoniamnist" / "pneumoniamnist.npz")
    images = torch.from_numpy(films["train_images"]).float()[:, None] / 255
    labels = torch.from_numpy(films["train_labels"][:, 0]).float()
    spec = (InputSpec(rank=2),), OutputSpec(labels=("normal", "pneumonia"), activation="sigmoid")
    first, second, wide = (
        Model(trained(images, labels, seed, width), *spec) for seed, width in ((0, 8), (1, 8), (2, 12))
    )
    x = images[labels == 1][:6]
    for model in (first, second, wide):
        said = model({"image": images[::10]})[:, 0]
        assert float(((said > 0) == (labels[::10] > 0)).float().mean()) > 0.85
    method = GradCAM("2")
    repeated = scored(Repeatability(), first, x, [second, wide], method, 1)
    reproduced = scored(Reproducibility(), first, x, [second, wide], method, 1)
    for score in (repeated, reproduced):
        known = score.values[torch.isfinite(score.values)]
        assert len(known) >= 3
        assert 0.1 < float(known.mean()) < 0.99
    assert float(scored(Repeatability(), first, x, [first], method, 1).values.nanmean()) == 1
