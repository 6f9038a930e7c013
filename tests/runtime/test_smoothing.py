"""What smoothing computes, and when it begins anew."""

from itertools import count

import cv2
import numpy as np
import pytest
import torch

from bsdnet.errors import ConfigError
from bsdnet.picture import Picture, YuvEncoding
from bsdnet.runtime.smoothing import KEEP, Smoother, blend, luma_of, make_guide

from .conftest import smooth_frame
from .smoothing_scenes import CELLS, INPUT, logits_of, moving, smooth, standing, texture


def tap(plane, y, x):
    """Interpolate bilinearly at one place; outside, the nearest edge goes on."""
    height, width = plane.shape
    top, left = int(np.floor(y)), int(np.floor(x))
    value = 0.0
    for row, vertical in ((top, top + 1 - y), (top + 1, y - top)):
        for column, horizontal in ((left, left + 1 - x), (left + 1, x - left)):
            at = plane[min(max(row, 0), height - 1), min(max(column, 0), width - 1)]
            value += vertical * horizontal * float(at)
    return value


@pytest.mark.parametrize("settings", [{"keep": 1.0}, {"keep": -0.1}, {"keep": float("nan")}, {"tolerance": 0.0}])
def test_settings_that_cannot_smooth_are_refused(settings):
    with pytest.raises(ConfigError, match="keep from 0 to below 1 and tolerance above 0"):
        Smoother(**settings)


# The formula


def test_guide_and_blend_are_those_of_a_loop_over_all_places():
    rng = np.random.default_rng(0)
    height, width = 7, 9
    luma, before = rng.integers(100, 130, (2, height, width), dtype=np.uint8)
    flow = rng.uniform(-3, 3, (height, width, 2)).astype(np.float32)
    logits, smoothed = logits_of(2, cells=(height, width))
    guide = make_guide(luma, before, flow, 0.5)
    weighted = guide.copy()
    weighted[..., 2] *= 0.7
    blended = blend(logits, smoothed, torch.from_numpy(weighted))

    scale, outside = 0.5 * luma.std(), 0
    for y in range(height):
        for x in range(width):
            was_x, was_y = x + flow[y, x, 0], y + flow[y, x, 1]
            difference = float(luma[y, x]) - tap(before, was_y, was_x)
            agreement = np.exp(-((difference / scale) ** 2))
            if not (-0.5 <= was_x <= width - 0.5 and -0.5 <= was_y <= height - 0.5):
                agreement, outside = 0.0, outside + 1
            assert guide[y, x, 2] == pytest.approx(agreement, abs=0.03)  # OpenCV warps in steps of 1/32 of a pixel
            for c in range(3):
                warped = tap(smoothed[0, c].numpy(), was_y, was_x)
                now = float(logits[0, c, y, x])
                expected = now + weighted[y, x, 2] * (warped - now)
                assert float(blended[0, c, y, x]) == pytest.approx(expected, abs=1e-4)
    assert 5 < outside < 40


def test_where_nothing_moves_frames_are_averaged_exponentially():
    smoother, logits = Smoother(), logits_of(4)
    expected = logits[0]
    for frame, now in zip(standing(4), logits, strict=True):
        result = smooth(smoother, frame, now)
        if now is not logits[0]:
            expected = KEEP * expected + (1 - KEEP) * now
        torch.testing.assert_close(result, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("step_px", [8, -8, 16])
def test_the_average_moves_with_the_picture(step_px):
    """Logits that are fixed to the content and a noise that is not: only the noise is averaged away."""
    frames = moving(2, step_px) if step_px > 0 else moving(2, -step_px)[::-1]
    cells = step_px // 8
    world = cv2.GaussianBlur(np.random.default_rng(1).normal(size=(20, 60)).astype(np.float32), (0, 0), 1.5) * 10
    clean = [torch.from_numpy(world[:, 15 + cells * i : 45 + cells * i].copy())[None, None] for i in range(2)]
    noise = logits_of(2, classes=1)
    smoother = Smoother()
    for frame, content, disturbance in zip(frames, clean, noise, strict=True):
        result = smooth(smoother, frame, content + 0.5 * disturbance)
    inner = slice(4, -4)
    error = (result - clean[1])[..., inner, inner].std()
    assert error < 0.85 * 0.5 * noise[1][..., inner, inner].std()
    torch.testing.assert_close(result[..., inner, inner], clean[1][..., inner, inner], atol=1.6, rtol=0)


@pytest.mark.parametrize("step_px", [4, 12])
def test_motion_is_found_to_a_fraction_of_a_cell(step_px):
    """At a usual input size: in small pictures OpenCV looks closely by itself."""
    wide, smoother = texture((560, 1040)), Smoother()
    for x in (40, 40 + step_px):
        turn = smoother.turn(Picture(planes=(np.ascontiguousarray(wide[8:552, x : x + 960]),)), (544, 960))
    was_x = (turn.guide[..., 0] + 1) * 120 / 2 - 0.5
    moved = (was_x - np.arange(120))[3:-3, 3:-3]
    assert np.abs(moved - step_px / 8).mean() < 0.02


def test_where_the_picture_changes_the_frame_speaks_for_itself():
    before = texture(INPUT)
    now = before.copy()
    now[40:120, 80:160] = 255 - now[40:120, 80:160]
    smoother, logits = Smoother(), logits_of(2)
    smooth(smoother, Picture(planes=(before,)), logits[0])
    result = smooth(smoother, Picture(planes=(now,)), logits[1])
    share = ((result - logits[1]) / (logits[0] - logits[1]))[0].median(0).values
    assert share[7:13, 12:18].mean() < 0.12
    assert share[:3].mean() > 0.4


def test_smoothed_logits_are_float32_in_memory_of_their_own():
    smoother, logits = Smoother(), logits_of(1)[0].bfloat16()
    first = smooth(smoother, standing(1)[0], logits)
    kept = first.clone()
    logits.zero_()  # as a backend does that overwrites its outputs
    assert first.dtype == torch.float32
    assert torch.equal(first, kept)
    same = logits_of(1)[0]
    assert smooth(Smoother(), standing(1)[0], same).data_ptr() != same.data_ptr()


def test_one_value_that_is_not_finite_does_not_stay():
    smoother, logits = Smoother(), logits_of(3)
    logits[0, 0, 1, 5, 5] = float("nan")
    logits[0, 0, 2, 8, 8] = float("inf")
    for frame, now in zip(standing(3), logits, strict=True):
        result = smooth(smoother, frame, now)
    assert result.isfinite().all()


# Beginning anew


SEEDS = count(100)


def left_as_it_is(smoother, picture, input_size=INPUT, cells=CELLS):
    logits = logits_of(1, seed=next(SEEDS), cells=cells)[0]
    return torch.equal(smooth(smoother, picture, logits, input_size), logits)


@pytest.fixture
def smoother():
    """One that has seen a frame, and would average the next one."""
    smoother = Smoother()
    smooth(smoother, standing(1)[0], logits_of(1)[0])
    return smoother


def test_a_frame_that_follows_is_averaged(smoother):
    assert not left_as_it_is(smoother, standing(1)[0])


def test_the_first_frame_is_left_as_it_is():
    assert left_as_it_is(Smoother(), standing(1)[0])


def test_reset_forgets(smoother):
    smoother.reset()
    assert left_as_it_is(smoother, standing(1)[0])


def test_another_frame_size_begins_anew(smoother):
    smaller = cv2.resize(standing(1)[0].rgb, (120, 80), interpolation=cv2.INTER_AREA)  # of the same content
    assert left_as_it_is(smoother, Picture(planes=(smaller,)))


def test_another_input_size_begins_anew_once(smoother):
    assert left_as_it_is(smoother, standing(1)[0], (320, 480), (40, 60))
    assert not left_as_it_is(smoother, standing(1)[0], (320, 480), (40, 60))


def test_another_pixel_format_begins_anew(smoother):
    luma = cv2.cvtColor(texture(INPUT), cv2.COLOR_RGB2GRAY)
    grey = np.full((80, 120), 128, np.uint8)
    for full_range in (True, False):
        encoding = YuvEncoding(matrix="bt601", full_range=full_range)
        assert left_as_it_is(smoother, Picture(planes=(luma, grey, grey), encoding=encoding))


CUTS = {
    "another place": lambda frame: texture(INPUT, seed=7),
    "mirrored": lambda frame: np.ascontiguousarray(frame[:, ::-1]),
    "upside down": lambda frame: np.ascontiguousarray(frame[::-1]),
    "black": np.zeros_like,
    "white": lambda frame: np.full_like(frame, 255),
    "flash": lambda frame: np.minimum(frame.astype(int) + 80, 255).astype(np.uint8),
}


@pytest.mark.parametrize("cut", CUTS.values(), ids=CUTS)
@pytest.mark.parametrize("brightness", [1, 0.15])
def test_nothing_is_averaged_over_a_cut(cut, brightness):
    """By day and by night."""
    before = texture(INPUT)
    smoother, logits = Smoother(), logits_of(1)[0]
    for frame in (before, cut(before)):
        picture = Picture(planes=((frame * brightness).astype(np.uint8),))
        result = smooth(smoother, picture, logits + frame.mean())
    assert torch.equal(result, logits + frame.mean())


def test_after_a_cut_frames_are_averaged_again(smoother):
    assert left_as_it_is(smoother, standing(1, seed=7)[0])
    assert not left_as_it_is(smoother, standing(1, seed=7)[0])


def test_steady_motion_and_frames_of_one_colour_are_no_cuts():
    grey = [Picture(planes=(np.full((*INPUT, 3), 90, np.uint8),))] * 4
    levels = 90 + np.random.default_rng(0).integers(0, 2, (4, *CELLS, 1), np.uint8)  # a camera's noise in it
    noisy = [Picture(planes=(level.repeat(8, 0).repeat(8, 1).repeat(3, 2),)) for level in levels]
    for frames in (moving(6), moving(6, 16), grey, noisy):
        smoother = Smoother()
        cuts = [left_as_it_is(smoother, frame) for frame in frames]
        assert cuts == [True] + [False] * (len(frames) - 1)


@pytest.mark.data
def test_real_cuts_are_found_and_real_motion_is_not_taken_for_one(data_dir):
    def read(path):
        return Picture(planes=(np.ascontiguousarray(cv2.imread(str(path))[:, :, ::-1]),))

    drive = [read(path) for path in sorted((data_dir / "camvid/val").glob("*.jpg"))[::3]]  # 5 Hz
    others = [read(path) for path in sorted((data_dir / "camvid/test").glob("*.jpg"))[::9]]
    cells, size = (44, 60), (352, 480)
    smoother = Smoother()
    assert [left_as_it_is(smoother, frame, size, cells) for frame in drive] == [True] + [False] * (len(drive) - 1)
    mixed = [frame for pair in zip(drive, others, strict=False) for frame in pair]
    assert len(mixed) > 40
    assert all(left_as_it_is(smoother, frame, size, cells) for frame in mixed)


# Pictures


@pytest.mark.parametrize("size", [(20, 30), (160, 240), (361, 643), (1080, 1920), (12, 20)])
def test_the_luma_is_shrunk_by_averaging(size):
    rgb = smooth_frame(size, seed=3)
    small = luma_of(Picture(planes=(rgb,)), CELLS)
    expected = cv2.resize(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), CELLS[::-1], interpolation=cv2.INTER_AREA)
    assert small.shape == CELLS
    assert np.abs(small.astype(int) - expected).max() <= (8 if size[0] > 40 else 2)
    assert np.abs(small.astype(int) - expected).mean() < 2


@pytest.mark.parametrize("full_range", [True, False])
def test_yuv_is_smoothed_as_rgb_is(full_range):
    encoding = YuvEncoding(matrix="bt601", full_range=full_range)
    matrix, logits = encoding.from_rgb(), logits_of(2)
    results = {}
    for kind in ("rgb", "yuv"):
        smoother = Smoother()
        for picture, now in zip(moving(2), logits, strict=True):
            yuv = picture.rgb @ matrix.T + encoding.black
            planes = (yuv[..., 0], yuv[::2, ::2, 1], yuv[::2, ::2, 2])
            as_yuv = Picture(planes=tuple(np.rint(plane).astype(np.uint8) for plane in planes), encoding=encoding)
            results[kind] = smooth(smoother, picture if kind == "rgb" else as_yuv, now)
    assert (results["rgb"] - logits[1]).abs().mean() > 0.3
    assert (results["rgb"] - results["yuv"]).abs().mean() < 0.05


@pytest.mark.parametrize("input_size", [(32, 32), (64, 512), (100, 132)])
def test_every_input_size_works(input_size):
    cells = tuple(-(-side // 8) for side in input_size)
    smoother = Smoother()
    assert left_as_it_is(smoother, standing(1)[0], input_size, cells)
    assert not left_as_it_is(smoother, standing(1)[0], input_size, cells)
