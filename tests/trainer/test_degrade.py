from collections import Counter
from dataclasses import replace

import cv2
import numpy as np
import pytest

from trainer import degrade as module
from trainer.augment import TrainTransform
from trainer.degrade import compress, degrade, disc_kernel, line_kernel
from trainer.recipes import CAMVID_360

PLAIN = replace(
    CAMVID_360, scale_range=(1, 1), flip_probability=0, color_jitter=0, crop_size=(60, 80), train_size=(60, 80)
)
PARTS = ("_darken", "_veil", "_blur", "_add_noise", "compress")


@pytest.fixture
def pair() -> tuple[np.ndarray, np.ndarray]:
    labels = np.random.default_rng(0).integers(0, 11, (12, 16), np.uint8).repeat(5, 0).repeat(5, 1)
    return np.stack([labels * 12 + 60, labels * 8 + 60, labels * 4 + 60], -1), labels


def generators(count: int) -> list[np.random.Generator]:
    return [np.random.default_rng(seed) for seed in range(count)]


def test_switched_off_it_draws_nothing(pair):
    transform, rng, other = TrainTransform(recipe=PLAIN), *generators(1), *generators(1)
    rgb, _ = transform(*pair, rng)
    np.testing.assert_array_equal(rgb, pair[0])
    transform._random_view((60, 80), other)
    assert rng.bit_generator.state == other.bit_generator.state


@pytest.mark.parametrize("share", [0.25, 1.0])
def test_its_share_of_the_crops_is_degraded_and_no_label(pair, share: float):
    transform = TrainTransform(recipe=replace(PLAIN, degradation=share))
    seen = [transform(*pair, rng) for rng in generators(200)]
    assert np.mean([(rgb != pair[0]).any() for rgb, _ in seen]) == pytest.approx(share, abs=0.08 if share < 1 else 0)
    for _, labels in seen:
        np.testing.assert_array_equal(labels, pair[1])


def test_the_clear_picture_can_be_kept_beside(pair):
    recipe = replace(PLAIN, degradation=0.5, color_jitter=0.4)
    alone, both = TrainTransform(recipe=recipe), TrainTransform(recipe=recipe, keeps_clear=True)
    clear = TrainTransform(recipe=replace(recipe, degradation=0.0))
    for one, other, third in zip(generators(20), generators(20), generators(20), strict=True):
        (rgb, labels), (beside, same), (plain, _) = alone(*pair, one), both(*pair, other), clear(*pair, third)
        np.testing.assert_array_equal(beside[..., :3], rgb)
        np.testing.assert_array_equal(beside[..., 3:], plain)
        np.testing.assert_array_equal(labels, same)


def test_chance_comes_from_the_generator_alone(pair):
    given = pair[0].copy()
    transform = TrainTransform(recipe=replace(PLAIN, degradation=1.0))
    first, again = ([transform(*pair, rng)[0] for rng in generators(30)] for _ in range(2))
    for one, other in zip(first, again, strict=True):
        assert one.dtype == np.uint8
        assert one[..., 0].mean() > one[..., 2].mean()  # red before blue, as it came
        np.testing.assert_array_equal(one, other)
    assert len({one.tobytes() for one in first}) == 30
    np.testing.assert_array_equal(pair[0], given)


def test_one_is_certain_and_the_others_happen(pair, monkeypatch: pytest.MonkeyPatch):
    seen: list[tuple[str, ...]] = []

    def remember(name: str) -> None:
        def part(rgb: np.ndarray, *rest: object) -> np.ndarray:
            seen[-1] += (name,)
            return rgb

        monkeypatch.setattr(module, name, part)

    for name in PARTS:
        remember(name)
    for rng in generators(600):
        seen.append(())
        degrade(pair[0], rng)
    assert all(names == tuple(name for name in PARTS if name in names) for names in seen)  # in the order of nature
    assert min(map(len, seen)) == 1
    assert all("_add_noise" in names for names in seen if "_darken" in names)
    shares = {name: count / 600 for name, count in Counter(name for names in seen for name in names).items()}
    for name in PARTS:  # 1/5 + 4/5 of 1/4; noise also where it is dark
        assert shares[name] == pytest.approx(0.64 if name == "_add_noise" else 0.4, abs=0.07)


def test_low_light_is_darker_tinted_and_keeps_the_order_of_levels():
    ramp = np.arange(256, dtype=np.uint8)[None, :, None].repeat(3, 2)
    pictures = np.array([module._darken(ramp, rng)[0] for rng in generators(50)]).astype(int)
    assert (pictures <= ramp[0]).all()
    assert (np.diff(pictures, axis=1) >= 0).all()
    whites = pictures[:, -1] / 255
    assert (whites.max(1) <= 0.9).all()
    assert whites.max(1).min() < 0.45
    warmth = (pictures[:, 200, 0] - pictures[:, 200, 2]) / pictures[:, 200].max(1)
    assert warmth.min() < -0.15 < 0.15 < warmth.max()
    assert (pictures[:, 64] * 2.5 < pictures[:, 128]).any()  # shadows lose most


def test_a_veil_brightens_what_is_dark_and_takes_contrast(pair):
    dark = np.zeros((60, 80, 3), np.uint8)
    spreads = set()
    for rng, again in zip(generators(50), generators(50), strict=True):
        veil, over = module._veil(dark, rng).astype(float), module._veil(pair[0], again).astype(float)
        assert 20 < veil.max() < 0.75 * 250
        assert over.std() < pair[0].std() + veil.std()
        assert np.argmax(veil[:, 40, 0]) <= 0.6 * 60
        spreads.add(veil.min() > veil.max() / 2)
        np.testing.assert_array_equal(veil[..., 0], veil[..., 2])
    assert spreads == {True, False}  # haze and glare


@pytest.mark.parametrize("size", [(60, 80), (61, 81)])
def test_blur_spreads_a_point_and_moves_it_not(size: tuple[int, int]):
    point = np.zeros((*size, 3), np.uint8)
    point[30:32, 40:42] = 255
    reaches = []
    for rng in generators(40):
        blurred = module._blur(point, rng)[..., 0].astype(float)
        assert blurred.sum() == pytest.approx(4 * 255, rel=0.2)
        rows, columns = np.indices(size)
        weights = blurred / blurred.sum()
        middle = (rows * weights).sum(), (columns * weights).sum()
        assert middle == pytest.approx((30.5, 40.5), abs=0.7 if size[0] % 2 else 0.1)
        reaches.append(np.sqrt((((rows - middle[0]) ** 2 + (columns - middle[1]) ** 2) * weights).sum()))
    assert min(reaches) < 1.1
    assert 3 < max(reaches) < 5


@pytest.mark.parametrize("radius", [2.0, 4.5, 6.0])
def test_a_disc_is_round_and_of_its_size(radius: float):
    kernel = disc_kernel(radius)
    assert kernel.sum() == pytest.approx(1)
    np.testing.assert_allclose(kernel, np.rot90(kernel), atol=1e-7)
    offsets = np.arange(len(kernel)) - len(kernel) // 2
    assert np.sqrt(2 * (kernel.sum(0) * offsets**2).sum()) == pytest.approx(radius / np.sqrt(2), rel=0.15)


@pytest.mark.parametrize("angle", [0.0, 0.6, np.pi / 2, 2.5])
def test_a_line_lies_at_its_angle(angle: float):
    kernel = line_kernel(6, angle)
    assert kernel.sum() == pytest.approx(1)
    y, x = np.indices(kernel.shape) - len(kernel) // 2
    covariance = np.array([[(kernel * a * b).sum() for a in (x, y)] for b in (x, y)])
    values, vectors = np.linalg.eigh(covariance)
    assert abs(vectors[:, 1] @ (np.cos(angle), np.sin(angle))) > 0.999
    assert np.sqrt(3 * values[1]) == pytest.approx(6, abs=0.5)
    assert values[0] < 0.4


def test_noise_is_strongest_in_the_dark_and_partly_grey():
    levels = np.repeat(np.array([26, 90, 200], np.uint8), 40)[:, None, None].repeat(100, 1).repeat(3, 2)
    deviations, alike, neighbours = [], [], []
    for rng in generators(40):
        noise = module._add_noise(levels, rng).astype(float) - levels
        dark, middle, bright = noise[:40], noise[40:80], noise[80:]
        assert abs(middle.mean()) < 1
        deviations.append((dark.std(), middle.std(), bright.std()))
        alike.append(np.corrcoef(middle[..., 0].ravel(), middle[..., 2].ravel())[0, 1])
        neighbours.append(np.corrcoef(middle[:, 1:, 0].ravel(), middle[:, :-1, 0].ravel())[0, 1])
    deviations = np.array(deviations)
    assert (deviations[:, 0] > deviations[:, 2]).mean() > 0.9
    assert deviations[:, 1].min() < 3
    assert 7 < deviations[:, 1].max() < 20
    assert min(alike) < 0.3 < 0.7 < max(alike)
    assert min(neighbours) < 0.1 < 0.3 < max(neighbours)  # fine and coarse


def test_random_bytes_become_normal_noise():
    noise = module._normal((300, 400), np.random.default_rng(0))
    assert noise.mean() == pytest.approx(0, abs=0.01)
    assert noise.std() == pytest.approx(1, abs=0.01)
    assert (np.abs(noise) < 1).mean() == pytest.approx(0.683, abs=0.01)


def test_compression_loses_more_at_a_lower_quality_and_knows_its_channels(pair):
    losses = [np.abs(compress(pair[0], quality).astype(int) - pair[0]).mean() for quality in (95, 40, 8)]
    assert losses == sorted(losses)
    assert losses[2] > 3 * losses[0]
    _, code = cv2.imencode(".jpg", pair[0][..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 20])
    np.testing.assert_array_equal(compress(pair[0], 20), cv2.imdecode(code, cv2.IMREAD_COLOR)[..., ::-1])
