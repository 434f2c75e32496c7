"""Series that other loaders read wrongly in silence: within half a voxel of the truth here, or refused by name.

The truth is a smooth ball whose center in the patient is known from a formula; each reader is asked where it is.
"""

import numpy as np
import pytest
from pydicom.uid import generate_uid

from pellucid.core.errors import UnreadableImage
from pellucid.io.reader import read_cases, read_image
from pellucid.io.regular import plan_for
from pellucid.io.selection import Choosing
from pellucid.io.volume import planes_of

from .test_series import enhanced, turned

SHAPE, BRIGHT = (24, 40, 48), (11, 17, 25)
RADIUS = 9.0  # mm
TILT = 15.0


def ball(phantom, turn=None, shear=0.0):
    """A phantom that holds a ball about the place of its bright voxel; ``shear``: mm along columns for each mm deep."""
    made = phantom(shape=SHAPE, steps=(2.5, 0.8, 0.6), turn=turn, bright=BRIGHT)
    index = np.stack(np.meshgrid(*(np.arange(n) for n in SHAPE), indexing="ij"), -1).reshape(-1, 3)
    places = np.stack([made.place(one) for one in index])
    depth = index[:, :1] * made.steps[0]
    places = places + shear * depth * made.along_column
    center = made.place(BRIGHT) + shear * BRIGHT[0] * made.steps[0] * made.along_column
    near = np.linalg.norm(places - center, axis=1)
    made.hu = np.round(-1000 + 1000 / (1 + np.exp(near - RADIUS))).astype(np.int32).reshape(SHAPE)
    return made, center


def sheared(made, shear):
    return [made.position(k) + k * made.steps[0] * shear * made.along_column for k in range(len(made.hu))]


def centroid(data, world):
    """Where the ball lies: mean place, weighted by how far above air a voxel is."""
    weight = (np.asarray(data, float) + 1000).clip(0)
    weight[weight < 300] = 0
    return (world * weight.reshape(-1, 1)).sum(0) / weight.sum()


def located(image):
    index = np.argwhere(np.ones(image.grid.shape, bool)).astype(float)
    return centroid(image.data[0].numpy(), image.grid.world(index))


def off(image, center):
    """Of the ball from its true place, in voxels along each axis."""
    found = image.grid.index(np.stack([located(image), center]))
    return float(np.abs(found[0] - found[1]).max())


@pytest.mark.parametrize("turn", [(0, 0, 0), (20, -30, 15)], ids=["plain", "oblique"])
def test_shuffled_anisotropic_series(tmp_path, phantom, write, turn):
    made, center = ball(phantom, turned(turn))
    assert off(read_image(write(tmp_path / "s", made.datasets())), center) < 0.05


def test_slopes_of_each_slice_and_monochrome1(tmp_path, phantom, write):
    made, center = ball(phantom)
    slopes = [(0.5, 1.0, 2.0, 0.25)[k % 4] for k in range(len(made.hu))]
    image = read_image(write(tmp_path / "s", made.datasets(slopes=slopes, photometric="MONOCHROME1")))
    assert off(image, center) < 0.05
    assert float(image.data.min()) == pytest.approx(-1000, abs=2)
    assert image.unit == "HU"


def test_an_enhanced_object(tmp_path, phantom):
    made, center = ball(phantom, turned((20, -30, 15)))
    enhanced(made.datasets(slopes=[1.0] * len(made.hu))).save_as(tmp_path / "x.dcm")
    image = read_image(tmp_path / "x.dcm")
    assert off(image, center) < 0.05
    assert float(image.data.min()) == -1000  # rescaled


def test_slices_missing_at_an_end_cannot_be_seen_and_do_no_harm(tmp_path, phantom, write):
    made, center = ball(phantom)
    image = read_image(write(tmp_path / "s", made.datasets()[:-2]))
    assert image.grid.shape[0] == SHAPE[0] - 2
    assert off(image, center) < 0.05


@pytest.mark.parametrize("degrees", [TILT, -TILT])
def test_a_tilted_gantry_is_refused_or_resampled_when_asked(tmp_path, phantom, write, degrees):
    shear = np.tan(np.radians(degrees))
    made, center = ball(phantom, turned((20, -30, 15)), shear)
    folder = write(tmp_path / "s", made.datasets(positions=sheared(made, shear)))
    with pytest.raises(UnreadableImage, match=r"a tilted gantry.*--resample-geometry"):
        read_image(folder)
    (case,) = read_cases(folder, choosing=Choosing(resample=True)).cases
    image = case.images["image"]
    assert off(image, center) < 0.1
    assert image.traits["resampled"] == "gantry tilt of 15.0 degrees removed by shifting slices (linear)"
    assert case.notes == (f"resampled: {image.traits['resampled']}",)
    sides = image.grid.matrix[:3, :3] / image.grid.spacing
    assert np.abs(sides.T @ sides - np.eye(3)).max() < 1e-6  # perpendicular now
    assert image.grid.spacing == pytest.approx((2.5, 0.8, 0.6))
    assert image.grid.shape[0] == SHAPE[0]
    assert image.grid.shape[1] >= SHAPE[1] + 23 * 2.5 * abs(shear) / 0.8
    assert np.linalg.det(sides) * np.linalg.det(read_image(write(tmp_path / "t", made.datasets())).grid.matrix) > 0


def test_a_tilted_slice_keeps_its_values_where_it_lies(tmp_path, phantom, write):
    """Shifts of whole rows need no interpolation: every stored value is at its own place."""
    made = phantom()
    shear = 0.8 / 2.5  # one row for each slice
    folder = write(tmp_path / "s", made.datasets(positions=sheared(made, shear)))
    (case,) = read_cases(folder, choosing=Choosing(resample=True)).cases
    image = case.images["image"]
    assert image.grid.shape == (6, 21, 20)
    for k, i, j in ((0, 0, 0), (4, 3, 15), (5, 15, 19)):
        place = made.place((k, i, j)) + k * made.steps[0] * shear * made.along_column
        at = image.grid.index(place[None])[0]
        assert np.abs(at - at.round()).max() < 1e-3
        assert float(image.data[(0, *at.round().astype(int))]) == pytest.approx(float(made.hu[k, i, j]), abs=1)
    assert image.data[0, 0, :5].unique().tolist() == [float(made.hu.min())]  # the last slice moved five rows down


@pytest.mark.parametrize("missing", [(11,), (11, 12), (5, 16)])
def test_a_gap_is_refused_or_filled_when_asked(tmp_path, phantom, write, missing):
    made, center = ball(phantom)
    datasets = made.datasets()
    folder = write(tmp_path / "s", [d for k, d in enumerate(datasets) if k not in missing])
    with pytest.raises(UnreadableImage, match=r"slice\(s\) missing.*--resample-geometry"):
        read_image(folder)
    (case,) = read_cases(folder, choosing=Choosing(resample=True)).cases
    image = case.images["image"]
    assert image.grid.shape == SHAPE
    assert off(image, center) < 0.5
    assert f"{len(missing)} of 24 slices filled from their neighbors (linear), never measured" in case.notes[0]
    for k in range(SHAPE[0]):
        if k not in missing:
            at = int(image.grid.index(made.position(k)[None])[0, 0].round())
            assert np.abs(image.data[0, at].numpy() - made.hu[k]).max() < 1


def test_what_would_be_a_guess_stays_refused(tmp_path, phantom, write):
    made, _ = ball(phantom)
    places = [made.position(k) for k in range(SHAPE[0])]

    def plan(positions, keep=lambda k: True):
        datasets = [d for k, d in enumerate(made.datasets(positions=positions)) if keep(k)]
        return plan_for(planes_of(datasets)), datasets

    refused = {
        "three missing": plan(places, lambda k: k not in (9, 10, 11)),
        "twice": plan([*places[:-1], places[-2]]),
        "uneven": plan([p + 0.4 * (k % 2) * made.normal for k, p in enumerate(places)]),
        "moved": plan([p + 5 * (k == 7) * made.along_row for k, p in enumerate(places)]),
        "steep": plan(sheared(made, np.tan(np.radians(40)))),
    }
    for name, (found, datasets) in refused.items():
        assert found is None, name
        with pytest.raises(UnreadableImage, match="expected slices that form one regular volume"):
            read_cases(write(tmp_path / name, datasets), choosing=Choosing(resample=True))
    assert plan(places)[0] is None  # nothing to mend
    other = made.datasets(positions=sheared(made, 0.2))
    for data in other[:12]:
        data.FrameOfReferenceUID = generate_uid()
    with pytest.raises(UnreadableImage, match="several frames of reference"):
        read_cases(write(tmp_path / "frames", other), choosing=Choosing(resample=True))


def test_a_regular_series_is_read_as_it_is_when_resampling_is_allowed(tmp_path, phantom, write):
    made, _ = ball(phantom)
    folder = write(tmp_path / "s", made.datasets())
    (case,) = read_cases(folder, choosing=Choosing(resample=True)).cases
    assert case.notes == ()
    assert case.images["image"].digest == read_image(folder).digest
