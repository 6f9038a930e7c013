from dataclasses import replace

import numpy as np
import pytest

from trainer.augment import TrainTransform, jitter_colors
from trainer.recipes import CAMVID

PLAIN = replace(CAMVID, scale_range=(1, 1), flip_probability=0, color_jitter=0, crop_size=(60, 80))


@pytest.fixture
def pair() -> tuple[np.ndarray, np.ndarray]:
    """A picture whose red channel is twelve times its labels."""
    labels = np.random.default_rng(0).integers(0, 11, (12, 16), np.uint8).repeat(5, 0).repeat(5, 1)
    return np.stack([labels * 12, labels, labels], -1), labels


def test_nothing_random_changes_nothing(pair):
    rgb, labels = TrainTransform(recipe=PLAIN)(*pair, np.random.default_rng(0))
    np.testing.assert_array_equal(rgb, pair[0])
    np.testing.assert_array_equal(labels, pair[1])


def test_a_flip_mirrors_both(pair):
    transform = TrainTransform(recipe=replace(PLAIN, flip_probability=1))
    rgb, labels = transform(*pair, np.random.default_rng(0))
    np.testing.assert_array_equal(rgb, pair[0][:, ::-1])
    np.testing.assert_array_equal(labels, pair[1][:, ::-1])


@pytest.mark.parametrize("scale", [0.5, 0.8, 1.3, 2.0])
def test_labels_follow_the_picture(pair, scale):
    transform = TrainTransform(recipe=replace(PLAIN, scale_range=(scale, scale), flip_probability=0.5))
    agree, total = 0, 0
    for seed in range(8):
        rgb, labels = transform(*pair, np.random.default_rng(seed))
        inside = labels != 255
        agree += (np.abs(rgb[..., 0][inside].astype(int) - labels[inside].astype(int) * 12) <= 6).sum()
        total += inside.sum()
    assert agree / total > 0.75  # the rest lies on blended borders of the 5-pixel tiles


def test_a_small_picture_is_surrounded_by_no_class(pair):
    transform = TrainTransform(recipe=replace(PLAIN, scale_range=(0.5, 0.5)))
    places = set()
    for seed in range(5):
        rgb, labels = transform(*pair, np.random.default_rng(seed))
        assert (labels != 255).mean() == pytest.approx(0.25, abs=0.03)
        assert len(np.unique(rgb[labels == 255].reshape(-1, 3), axis=0)) > 5  # mirrored, not filled
        places.add(tuple(np.argwhere(labels != 255)[0]))
    assert len(places) > 1


def test_a_crop_lies_inside_a_large_picture(pair):
    transform = TrainTransform(recipe=replace(PLAIN, crop_size=(32, 48)))
    for seed in range(5):
        rgb, labels = transform(*pair, np.random.default_rng(seed))
        assert rgb.shape == (32, 48, 3)
        assert (labels != 255).all()


def test_chance_comes_from_the_generator_alone(pair):
    transform = TrainTransform(recipe=CAMVID)
    first, again, other = (transform(*pair, np.random.default_rng(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first[0], again[0])
    np.testing.assert_array_equal(first[1], again[1])
    assert (first[0] != other[0]).any()


def test_jitter_changes_colours_and_keeps_order():
    ramp = np.arange(256, dtype=np.uint8)[None, :, None].repeat(3, 2)
    seen = [jitter_colors(ramp, 0.4, np.random.default_rng(seed)) for seed in range(10)]
    for picture in seen:
        assert (np.diff(picture[0, :, 0].astype(int)) >= 0).all()
    assert len({picture.tobytes() for picture in seen}) == 10
    np.testing.assert_array_equal(jitter_colors(ramp, 0, np.random.default_rng(0)), ramp)
