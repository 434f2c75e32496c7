"""Every metric on real images: a fundus photograph, dermoscopy and MR with expert masks."""

from pathlib import Path

import nibabel
import numpy as np
import pytest
import skimage
import torch
from PIL import Image
from torch import nn

from pellucid.core.grid import Calibration, Grid
from pellucid.core.infill import Constant, ItemMean
from pellucid.core.probe import Probe, Scene
from pellucid.core.target import ClassScore
from pellucid.explain.cam import GradCAM
from pellucid.explain.gradient import InputXGradient, Saliency
from pellucid.explain.occlusion import Occlusion
from pellucid.explain.path import IntegratedGradients
from pellucid.metrics.faithfulness.curves import DeletionAUC, InsertionAUC
from pellucid.metrics.localization.overlap import Dice, IoU
from pellucid.metrics.localization.pointing import HitRate
from pellucid.metrics.randomization.weights import ModelParameterRandomization


def pixels(path, size, mode="RGB"):
    """ "1 channel *space" in [0, 1], float64."""
    data = np.asarray(Image.open(path).convert(mode).resize((size, size), Image.Resampling.BOX), dtype=np.float64)
    return torch.from_numpy(data / 255).view(size, size, -1).permute(2, 0, 1)[None].contiguous()


@pytest.fixture(scope="module")
def retina():
    """The fundus photograph of scikit-image; the optic disc is its bright spot, left of the middle."""
    disc = torch.zeros(64, 64, dtype=torch.bool)
    disc[25:35, 7:16] = True
    return pixels(Path(skimage.__file__).parent / "data" / "retina.jpg", 64), disc


@pytest.fixture(scope="module")
def lesions(shared_data):
    """Six dermoscopy images with the dermatologists' masks."""
    folder = shared_data / "dermoscopy_ph2"
    found = []
    for path in sorted((folder / "masks").glob("*.png"))[:6]:
        image = pixels(folder / "images" / f"{path.stem}.jpg", 48)
        found.append((image, pixels(path, 48, "L")[0, 0] > 0.5))
    return found


@pytest.fixture(scope="module")
def hippocampus(shared_data):
    """An MR volume with expert labels, 1 mm."""
    folder = shared_data / "mri_hippocampus"
    path = sorted((folder / "images").glob("*.nii.gz"))[0]
    data = np.asarray(nibabel.load(path).dataobj, dtype=np.float64)
    label = np.asarray(nibabel.load(folder / "labels" / path.name).dataobj) > 0
    box = tuple(slice(0, n // 4 * 4) for n in data.shape)
    data = (data - data.mean()) / data.std()
    return torch.from_numpy(data[box].copy())[None, None], torch.from_numpy(label[box].copy())


class Dark(nn.Module):
    """How much about the middle of the image is darker than skin: a nonlinear score that a lesion raises."""

    def __init__(self):
        super().__init__()
        self.level = nn.Parameter(torch.tensor(0.75, dtype=torch.float64))
        line = torch.exp(-(((torch.arange(48).double() - 23.5) / 12) ** 2) / 2)
        self.near = line[:, None] * line

    def forward(self, x):
        return (self.near * torch.relu(self.level - x.mean(1))).flatten(1).mean(1, keepdim=True)


class Bright(nn.Module):
    """The brightest patch of the green channel."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 1, 5, padding=2, bias=False).double()
        self.conv.weight.data.zero_()
        self.conv.weight.data[:, 1] = 1 / 25

    def forward(self, x):
        return (30 * self.conv(x)).flatten(2).logsumexp(2) / 30


def explained(method, model, x, label=0):
    probe = Probe(model, x, ClassScore(label), method.needs(model, {"image": x}))
    return method(probe)


WHITE = Constant(1.0)  # skin without a lesion


def test_deletion_and_insertion_tell_an_exact_map_from_a_random_one(lesions, model_of, scored):
    model = model_of(Dark(), 2, 3)
    for image, _ in lesions:
        maps = explained(IntegratedGradients(32, WHITE), model, image).maps["image"]
        for metric in (DeletionAUC, InsertionAUC):
            method = metric(12, infill=WHITE, random_orders=3)
            assert scored(method, model, image, maps).detail["lead over random"][0] > 0.1
            assert scored(method, model, image, -maps).detail["lead over random"][0] < 0


def test_curves_on_a_real_image_equal_the_second_implementation(retina, nets, model_of, scored, reference):
    image, _ = retina
    x = nn.functional.avg_pool2d(image, 4)
    net = nets.seeded(lambda: nn.Sequential(nn.Conv2d(3, 6, 3, 2), nn.SiLU(), nn.Flatten(), nn.Linear(294, 2)))
    model, fill = model_of(net, 2, 3), ItemMean()(x, (1.0, 1.0), None)
    maps = explained(InputXGradient(), model, x, 1).maps["image"]
    counts = [round(i * 256 / 10) for i in range(11)]
    for metric, name in ((DeletionAUC, "deletion_auc"), (InsertionAUC, "insertion_auc")):
        got = scored(metric(10, infill=ItemMean()), model, x, maps, target=ClassScore(1)).values
        second = getattr(reference(name), name)
        slow = second(lambda y: net(y)[:, 1].detach(), x, fill, maps.sum(1)[0].numpy(), counts)
        assert float(got) == pytest.approx(slow, abs=1e-10)


@pytest.mark.parametrize("method", [Saliency(), IntegratedGradients(16), Occlusion(4.0, 4.0)], ids=lambda m: m.name)
def test_the_optic_disc_is_hit_by_a_model_that_looks_for_it(method, retina, model_of, scored):
    image, disc = retina
    model = model_of(Bright(), 2, 3)
    answer = explained(method, model, image)
    maps = answer.collapsed()[:, None]
    hit = scored(HitRate(), model, image, maps, disc)
    assert float(hit.values) == 1
    assert hit.detail["chance"] < 0.03
    away = disc.roll(30, 1)
    assert float(scored(HitRate(), model, image, maps, away).values) == 0
    assert float(scored(IoU(), model, image, maps, disc).values) > 2 * hit.detail["chance"]
    assert float(scored(IoU(), model, image, maps, away).values) == pytest.approx(0, abs=0.02)


def test_overlap_with_the_dermatologist(lesions, model_of, scored, reference):
    """A model of darkness finds what the expert drew; the expert's own mask scores 1."""
    model, found = model_of(Dark(), 2, 3), []
    for image, region in lesions:
        maps = explained(IntegratedGradients(16, WHITE), model, image).collapsed()[:, None]
        overlap, dice = (float(scored(m, model, image, maps, region).values) for m in (IoU(), Dice()))
        membership = reference("iou").top_area(maps[0, 0].numpy(), int(region.sum()))
        assert overlap == pytest.approx(reference("iou").iou(membership, region.numpy()), abs=1e-12)
        assert dice == pytest.approx(2 * overlap / (1 + overlap))
        own = [
            float(scored(m, model, image, region[None, None].double(), region).values) for m in (IoU(), Dice("otsu"))
        ]
        assert own == [1, 1]
        found.append(overlap)
    assert min(found) > 0.6


def test_a_volume_in_millimeters(hippocampus, model_of, scored, nets):
    """The brightest voxel of a blob around the expert's region; 3 mm beyond its border still hits."""
    x, region = hippocampus
    where = torch.nonzero(region).double()
    peak = tuple(int(v) for v in (where.amax(0) + torch.tensor([2.0, 0.0, 0.0])).clamp_max(x.shape[2] - 1))
    maps = torch.zeros_like(x)
    maps[(0, 0, *peak)] = 1
    nearest = float((where - torch.tensor(peak).double()).norm(dim=1).min())
    assert nearest > 1
    scene = Scene(grids={"image": Grid.regular(x.shape[2:], (1.0, 1.0, 1.0), Calibration.PATIENT)})
    model = model_of(nets.seeded(lambda: nn.Sequential(nn.Conv3d(1, 2, 3), nn.AdaptiveAvgPool3d(1), nn.Flatten())), 3)
    values = [
        float(scored(HitRate(r), model, x, maps, region, scene).values) for r in (0.0, nearest - 0.1, nearest + 0.1)
    ]
    assert values == [0, 0, 1]


@pytest.mark.parametrize("method", [Saliency(), GradCAM("2")], ids=lambda m: m.name)
def test_maps_of_a_volume_change_with_the_weights_and_edges_do_not(method, hippocampus, model_of, nets, stand):
    x, _ = hippocampus
    net = nets.seeded(
        lambda: nn.Sequential(
            nn.Conv3d(1, 4, 3, 2),
            nn.ReLU(),
            nn.Conv3d(4, 4, 3),
            nn.ReLU(),
            nn.AdaptiveAvgPool3d(2),
            nn.Flatten(),
            nn.Linear(32, 2),
        )
    )
    model = model_of(net, 3)

    def value(m, needs):
        probe = Probe(model, x, ClassScore(0), needs)
        return float(ModelParameterRandomization(2)(probe, m(probe), m, None).values)

    assert abs(value(method, method.needs(model, {"image": x}))) < 0.8
    edges = stand(lambda p: p.inputs["image"].diff(dim=2, append=p.inputs["image"][:, :, -1:]).abs())
    assert value(edges, ()) == pytest.approx(1)
