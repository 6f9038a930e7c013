"""Corruptions do what their names say, grow with their strength, and depend on the seed and the picture alone."""

from itertools import pairwise

import numpy as np
import pytest

from benchmarks.corruptions import CORRUPTIONS, STRENGTHS, corrupt
from bsdnet.demo_scene import DemoScene

RANDOM = {"noise", "motion", "haze", "rain", "night"}


@pytest.fixture(scope="module")
def street() -> np.ndarray:
    return DemoScene(size=(360, 480), num_frames=10).frame(5)[0]


def seen(rgb: np.ndarray, name: str, strength: int, *, seed: int = 0, picture: str = "a") -> np.ndarray:
    return corrupt(rgb, name, strength, seed=seed, picture=picture).astype(float)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_each_grows_with_its_strength(street: np.ndarray, name: str):
    given = street.copy()
    distances = []
    for strength in STRENGTHS:
        corrupted = corrupt(street, name, strength, seed=0, picture="a")
        assert corrupted.dtype == np.uint8
        assert corrupted.shape == street.shape
        distances.append(np.abs(corrupted.astype(float) - street).mean())
    assert distances[0] > 0.2
    assert all(more > 1.05 * less for less, more in pairwise(distances))
    np.testing.assert_array_equal(street, given)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_chance_is_the_seeds_and_the_pictures(street: np.ndarray, name: str):
    first = seen(street, name, 3)
    np.testing.assert_array_equal(first, seen(street, name, 3))
    for other in (seen(street, name, 3, seed=1), seen(street, name, 3, picture="b")):
        assert (first != other).any() == (name in RANDOM)


def test_only_rain_is_not_trained_for():
    assert [name for name, corruption in CORRUPTIONS.items() if not corruption.trained] == ["rain"]


def test_a_stop_is_twice_the_light():
    gray = np.full((8, 8, 3), 100, np.uint8)
    assert (seen(gray, "over-exposure", 2) == round(100 * 2 ** (1 / 2.2))).all()
    assert (seen(gray, "under-exposure", 1) == round(100 / 2 ** (1 / 2.2))).all()
    assert (seen(gray + 100, "over-exposure", 5) == 255).all()


def test_noise_has_its_deviation_in_every_channel():
    noise = seen(np.full((100, 100, 3), 128, np.uint8), "noise", 3) - 128
    assert noise.std((0, 1)) == pytest.approx([0.07 * 255] * 3, rel=0.05)
    assert noise.mean() == pytest.approx(0, abs=0.4)
    assert abs(np.corrcoef(noise[..., 0].ravel(), noise[..., 1].ravel())[0, 1]) < 0.05


@pytest.mark.parametrize("name", ["defocus", "motion"])
def test_blur_has_the_same_share_of_a_larger_picture(name: str):
    spreads = []
    for size in (180, 360):
        point = np.zeros((size, size, 3), np.uint8)
        inside = slice(size // 2 - size // 90, size // 2 + size // 90)
        point[inside, inside] = 255
        blurred = seen(point, name, 5)[..., 0]
        rows, columns = np.indices((size, size)) - size / 2
        spreads.append(np.sqrt((blurred * (rows**2 + columns**2)).sum() / blurred.sum()))
    assert spreads[1] > 1.6 * spreads[0]


def test_haze_is_thickest_at_the_horizon():
    veil = seen(np.zeros((100, 100, 3), np.uint8), "haze", 3).mean((1, 2))
    assert 40 <= np.argmax(veil) <= 50
    assert veil[-1] < 0.6 * veil.max()
    assert veil[0] < 0.95 * veil.max()


def test_rain_is_thin_bright_nearly_upright_and_heavier_at_higher_strengths():
    dark = np.full((180, 240, 3), 40, np.uint8)
    wetness = []
    for strength in STRENGTHS:
        rain = seen(dark, "rain", strength)[..., 0]
        streaks = rain > np.median(rain) + 20
        wetness.append(streaks.mean())
        across, along = np.abs(np.diff(rain, axis=1)).mean(), np.abs(np.diff(rain, axis=0)).mean()
        assert across > 1.5 * along
    assert wetness == sorted(wetness)
    assert 0.001 < wetness[0] < wetness[4] / 3 < 0.15
    light, heavy = (seen(dark, "rain", strength)[..., 0] for strength in (1, 5))
    drops = light > np.median(light) + 40
    assert (heavy[drops] > np.median(heavy) + 20).all()  # more drops, and none elsewhere


def test_night_is_dark_warm_noisy_and_darkest_above():
    night = seen(np.full((100, 100, 3), 200, np.uint8), "night", 4)
    red, green, blue = night[60:].mean((0, 1))
    assert 110 > red > 1.05 * green > 1.1 * blue
    assert night[:10].mean() < 0.6 * night[60:].mean()
    assert night[60:, :, 0].std() == pytest.approx(0.8 * 8, rel=0.1)
    colorful = np.zeros((100, 100, 3), np.uint8) + np.array([200, 100, 100], np.uint8)
    faded = seen(colorful, "night", 5)[60:].mean((0, 1))
    assert faded[0] / faded[1] < 2  # curve and tint alone would make 3 of it
