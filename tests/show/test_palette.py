"""Colors that cannot be taken for uptake, flow or perfusion."""

import colorsys
import tomllib
from importlib import resources

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from pellucid.core.image import Modality
from pellucid.show.palette import palette_of, palettes

PURPLE, GREEN = (0.7, 0.95), (0.22, 0.5)  # hue ranges


def hue(color) -> float:
    return colorsys.rgb_to_hsv(*to_rgb(color))[0]


def ramps(modality: Modality) -> list[np.ndarray]:
    p = palette_of(modality)
    return [
        p.colormap(signed, alone)(np.linspace(0, 1, 64))[:, :3] for signed in (False, True) for alone in (False, True)
    ]


def test_every_modality_has_colors_and_the_table_says_what_it_is_worth():
    assert set(palettes()) == set(Modality)
    text = resources.files("pellucid.show").joinpath("palette.toml").read_text("utf-8")
    assert tomllib.loads(text)["source_status"] == "interpreted"
    assert palette_of(None) == palette_of(Modality.UNKNOWN)


def test_pet_is_inverted_gray_with_lines_only():
    pet = palette_of(Modality.PET)
    assert pet.base == "gray_r"
    assert not pet.washes
    assert all(palette_of(m).base == "gray" and palette_of(m).washes for m in Modality if m is not Modality.PET)


@pytest.mark.parametrize("modality", list(Modality))
def test_no_ramp_is_hot_or_a_rainbow(modality):
    for ramp in ramps(modality):
        hues = [colorsys.rgb_to_hsv(*c) for c in ramp]
        colored = np.asarray([h for h, s, v in hues if s > 0.25 and v > 0.2])
        assert not ((colored < 0.12) | (colored > 0.96)).any()  # no red, no orange
        assert colored.max() - colored.min() < 0.62  # a rainbow runs over five sixths of the circle


def test_ultrasound_has_no_doppler_colors():
    p = palette_of(Modality.ULTRASOUND)
    for ramp in (p.colormap(False)(np.linspace(0, 1, 64)), p.colormap(False, True)(np.linspace(0, 1, 64))):
        red, green = ramp[:, 0], ramp[:, 1]
        assert (green >= red - 1e-6).all()
    wash = p.colormap(False)(np.linspace(0, 1, 64))
    assert (wash[:, 1] >= wash[:, 2]).all()
    for color in (p.contour, p.expert):
        r, g, b = to_rgb(color)
        assert g >= max(r, b)


@pytest.mark.parametrize("modality", list(Modality))
def test_signed_maps_are_purple_against_and_green_for(modality):
    colors = palette_of(modality).colormap(True)
    assert PURPLE[0] < hue(colors(0.0)[:3]) < PURPLE[1]
    assert GREEN[0] < hue(colors(1.0)[:3]) < GREEN[1]


@pytest.mark.parametrize("modality", list(Modality))
def test_the_expert_is_told_from_the_attribution_by_color_too(modality):
    p = palette_of(modality)
    colors = [np.asarray(to_rgb(c)) for c in (p.contour, p.against, p.expert)]
    for i, j in ((0, 1), (0, 2), (1, 2)):
        assert np.linalg.norm(colors[i] - colors[j]) > 0.4


@pytest.mark.parametrize("modality", [m for m in Modality if m is not Modality.PET])
def test_stronger_is_lighter(modality):
    wash = palette_of(modality).colormap(False)(np.linspace(0, 1, 64))[:, :3]
    luminance = wash @ np.asarray([0.2126, 0.7152, 0.0722])
    assert (np.diff(luminance) > 0).all()
