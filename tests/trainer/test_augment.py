from dataclasses import replace

import cv2
import numpy as np
import pytest

from trainer.augment import TrainTransform, jitter_colors, paste_classes
from trainer.recipes import CAMVID_360

PLAIN = replace(
    CAMVID_360, scale_range=(1, 1), flip_probability=0, color_jitter=0, crop_size=(60, 80), train_size=(60, 80)
)


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


@pytest.mark.parametrize("flip", [0, 1])
@pytest.mark.parametrize("scale", [0.5, 2.0])
def test_a_view_of_the_whole_is_a_resize(pair, scale: float, flip: int):
    """Pixel centres lie at half-integers, as they do where the logits are enlarged: nothing moves by half a pixel."""
    rgb, labels = pair[0].repeat(2, 0).repeat(2, 1), pair[1].repeat(2, 0).repeat(2, 1)  # (120, 160)
    size = (round(120 * scale), round(160 * scale))
    recipe = replace(
        PLAIN,
        scale_range=(scale, scale),
        flip_probability=flip,
        crop_size=(max(32, size[0]), size[1]),
        train_size=(120, 160),
    )
    seen, seen_labels = TrainTransform(recipe=recipe)(rgb, labels, np.random.default_rng(0))
    expected = cv2.resize(rgb, size[::-1], interpolation=cv2.INTER_LINEAR)
    expected_labels = cv2.resize(labels, size[::-1], interpolation=cv2.INTER_NEAREST_EXACT)
    if flip:
        seen, seen_labels = seen[:, ::-1], seen_labels[:, ::-1]
    inside = slice(2, -2)  # at the edge the one mirrors and the other repeats
    np.testing.assert_allclose(seen[inside, inside].astype(int), expected[inside, inside], atol=1)
    np.testing.assert_array_equal(seen_labels[inside, inside], expected_labels[inside, inside])


@pytest.mark.parametrize("size", [(60, 120), (120, 60), (60, 60)])
def test_at_scale_1_the_short_side_is_the_recipes_whatever_the_pictures_shape(size: tuple[int, int]):
    view = TrainTransform(recipe=PLAIN)._random_view(size, np.random.default_rng(0))
    assert view[1, 1] == 1


def test_scales_are_drawn_log_uniformly_and_both_flips_happen():
    transform = TrainTransform(recipe=replace(CAMVID_360, scale_range=(0.5, 2), train_size=(360, 480)))
    views = np.array([transform._random_view((360, 480), np.random.default_rng(seed)) for seed in range(400)])
    scales, flipped = views[:, 1, 1], views[:, 0, 0] < 0
    assert 0.5 <= scales.min() < 0.55
    assert 1.8 < scales.max() <= 2
    assert (scales < 1).mean() == pytest.approx(0.5, abs=0.07)
    assert flipped.mean() == pytest.approx(0.5, abs=0.07)
    np.testing.assert_allclose(np.abs(views[:, 0, 0]), scales)


@pytest.mark.parametrize("scale", [0.5, 0.8, 1.3, 2.0])
def test_labels_follow_the_picture(pair, scale):
    pair = [part.repeat(2, 0).repeat(2, 1) for part in pair]
    transform = TrainTransform(
        recipe=replace(PLAIN, scale_range=(scale, scale), flip_probability=0.5, train_size=(120, 160))
    )
    agree, total = 0, 0
    for seed in range(8):
        rgb, labels = transform(*pair, np.random.default_rng(seed))
        inside = labels != 255
        agree += (np.abs(rgb[..., 0][inside].astype(int) - labels[inside].astype(int) * 12) <= 6).sum()
        total += inside.sum()
    assert agree / total > 0.75  # the rest lies on blended borders of the 10-pixel tiles


def test_a_small_picture_is_surrounded_by_no_class(pair):
    transform = TrainTransform(recipe=replace(PLAIN, scale_range=(0.5, 0.5)))
    places = set()
    for seed in range(5):
        rgb, labels = transform(*pair, np.random.default_rng(seed))
        assert (labels != 255).mean() == pytest.approx(0.25, abs=0.03)
        top, left = np.argwhere(labels != 255)[0]
        for picture, edge in ((rgb, top), (rgb.swapaxes(0, 1), left)):  # mirrored at the edge, not filled
            depth = min(edge, 20)
            beyond, inside = picture[edge - depth : edge][::-1].astype(int), picture[edge + 1 : edge + 1 + depth]
            assert (np.abs(beyond - inside) > 30).mean() < 0.1
        places.add(tuple(np.argwhere(labels != 255)[0]))
    assert len(places) > 1


@pytest.mark.parametrize("flip", [0, 1])
def test_a_crop_lies_inside_a_large_picture(pair, flip: int):
    transform = TrainTransform(recipe=replace(PLAIN, crop_size=(32, 48), flip_probability=flip))
    seen = set()
    for seed in range(5):
        rgb, labels = transform(*pair, np.random.default_rng(seed))
        assert rgb.shape == (32, 48, 3)
        assert (labels != 255).all()
        seen.add(labels.tobytes())
    assert len(seen) == 5  # a place of its own each time


def test_chance_comes_from_the_generator_alone(pair):
    transform = TrainTransform(recipe=CAMVID_360)
    first, again, other = (transform(*pair, np.random.default_rng(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first[0], again[0])
    np.testing.assert_array_equal(first[1], again[1])
    assert (first[0] != other[0]).any()


def test_jitter_changes_each_property_of_colour():
    gray = np.full((1, 1, 3), 100, np.uint8)
    teal = np.array([[[40, 120, 160]]], np.uint8)
    seen = [[jitter_colors(one, 0.4, np.random.default_rng(seed))[0, 0] for one in (gray, teal)] for seed in range(200)]
    grays, teals = np.array(seen).astype(float).transpose(1, 0, 2)
    assert grays.mean(1).min() < 70  # darker and brighter
    assert grays.mean(1).max() > 130
    assert np.abs(grays[:, 0] - grays[:, 2]).max() > 8  # another white balance
    spread = np.ptp(teals, axis=1)
    assert spread.max() > 150 > 90 > spread.min()  # more and less colourful
    plain = jitter_colors(teal, 1e-6, np.random.default_rng(0))
    np.testing.assert_allclose(plain.astype(int), teal, atol=1)


def test_no_saturation_is_the_grey_picture(pair):
    class Colourless:
        """Draws the middle of each range, and nothing where contrast and saturation are drawn together."""

        def uniform(self, low: float, high: float, size: int | None = None) -> object:
            return (1.0, 0.0) if size == 2 else np.full(size or (), (low + high) / 2)

    gray = cv2.cvtColor(pair[0], cv2.COLOR_RGB2GRAY)
    np.testing.assert_array_equal(jitter_colors(pair[0], 0.4, Colourless()), np.stack([gray] * 3, -1))


def test_jitter_changes_colours_and_keeps_order():
    ramp = np.arange(256, dtype=np.uint8)[None, :, None].repeat(3, 2)
    seen = [jitter_colors(ramp, 0.4, np.random.default_rng(seed)) for seed in range(10)]
    for picture in seen:
        assert (np.diff(picture[0, :, 0].astype(int)) >= 0).all()
    assert len({picture.tobytes() for picture in seen}) == 10
    dark, middle = (np.array([picture[0, level, 0] for picture in seen], float) for level in (64, 128))
    bright = np.array([picture[0, 192, 0] for picture in seen], float)
    inside = (dark > 0) & (bright < 255)
    assert np.abs((dark + bright) / 2 - middle)[inside].max() > 5  # gamma bends the curve
    np.testing.assert_array_equal(jitter_colors(ramp, 0, np.random.default_rng(0)), ramp)


def test_shrinking_averages_instead_of_skipping():
    """A warp alone would read four of every sixteen pixels: a fine pattern would turn into stripes."""
    labels = np.zeros((240, 320), np.uint8)
    checks = np.indices((240, 320)).sum(0).astype(np.uint8) % 2 * 255
    recipe = replace(PLAIN, scale_range=(0.25, 0.25), train_size=(240, 320))
    rgb, _ = TrainTransform(recipe=recipe)(np.stack([checks] * 3, -1), labels, np.random.default_rng(0))
    assert rgb.min() >= 126
    assert rgb.max() <= 129


def test_shrinking_moves_nothing():
    """The picture is shrunk before the warp, its labels in the warp: an edge must stay at the same place in both."""
    labels = np.zeros((241, 323), np.uint8)
    labels[100:, 200:] = 1
    rgb = np.stack([labels * 255] * 3, -1)
    for seed in range(6):
        recipe = replace(PLAIN, scale_range=(0.3, 0.6), train_size=(241, 323), flip_probability=0.5)
        seen, seen_labels = TrainTransform(recipe=recipe)(rgb, labels, np.random.default_rng(seed))
        inside = seen_labels != 255
        assert ((seen[..., 0] >= 128) == seen_labels)[inside].mean() > 0.98


@pytest.mark.parametrize("flip", [0, 1])
@pytest.mark.parametrize("scale", [0.7, 1.0, 1.6])
def test_a_wanted_class_is_in_the_crop(scale: float, flip: int):
    labels = np.zeros((120, 160), np.uint8)
    places = [(0, 0), (119, 159), (0, 159), (60, 80), (37, 5)]
    recipe = replace(
        PLAIN, crop_size=(32, 48), train_size=(120, 160), scale_range=(scale, scale), flip_probability=flip
    )
    seen_at = set()
    for row, column in places:
        labels[:] = 0
        labels[max(0, row - 1) : row + 2, max(0, column - 1) : column + 2] = 5  # three pixels: a warp may skip one
        for seed in range(8):
            _, seen = TrainTransform(recipe=recipe)(
                labels[..., None].repeat(3, 2), labels, np.random.default_rng(seed), 5
            )
            assert (seen == 5).any(), (row, column, seed)
            assert (seen != 255).all()
            seen_at.add(tuple(np.argwhere(seen == 5)[0]))
    assert len(seen_at) > 10  # not always in the middle
    _, absent = TrainTransform(recipe=recipe)(labels[..., None].repeat(3, 2), labels, np.random.default_rng(0), 9)
    assert absent.shape == (32, 48)


def test_half_of_the_other_pictures_classes_are_put_over_the_first(pair):
    other_labels = np.full((60, 80), 255, np.uint8)  # five classes in stripes, and pixels without a class
    for label in range(5):
        other_labels[:, 10 * label : 10 * (label + 1)] = label
    other_rgb = np.full((60, 80, 3), 250, np.uint8)
    seen = set()
    for seed in range(30):
        rgb, labels = paste_classes(*pair, other_rgb, other_labels, np.random.default_rng(seed))
        pasted = (rgb == 250).all(-1)
        classes = np.unique(other_labels[pasted])
        assert len(classes) == 3
        np.testing.assert_array_equal(pasted, np.isin(other_labels, classes))  # whole classes, and never void
        np.testing.assert_array_equal(labels, np.where(pasted, other_labels, pair[1]))
        np.testing.assert_array_equal(rgb[~pasted], pair[0][~pasted])
        seen |= set(classes.tolist())
    assert seen == {0, 1, 2, 3, 4}


def test_nothing_comes_of_a_picture_without_classes(pair):
    void = np.full((60, 80), 255, np.uint8)
    rgb, labels = paste_classes(*pair, np.zeros((60, 80, 3), np.uint8), void, np.random.default_rng(0))
    np.testing.assert_array_equal(rgb, pair[0])
    np.testing.assert_array_equal(labels, pair[1])
