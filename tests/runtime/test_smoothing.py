"""What smoothing computes, when it begins anew, and that frames keep their order whatever the network does."""

import gc
import threading
import time
import weakref
from itertools import count, pairwise
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch

from bsdnet import BackendError, Segmenter
from bsdnet.classes import CAMVID_11
from bsdnet.picture import Picture, YuvEncoding
from bsdnet.rendering import Renderer, RenderStyle
from bsdnet.runtime.adaptive import AdaptiveSegmenter
from bsdnet.runtime.cuda_runner import CudaRunner
from bsdnet.runtime.cuda_stages import TorchStages
from bsdnet.runtime.postprocess import LabelUpsampler, labels_on_device
from bsdnet.runtime.preprocess import Preprocessor
from bsdnet.runtime.runners import CpuRunner, Job
from bsdnet.runtime.smoothing import KEEP, Smoother, blend, luma_of, make_guide

from .conftest import smooth_frame
from .simulated_cuda import SimulatedCuda

INPUT = (160, 240)
CELLS = (20, 30)
PREPROCESSOR = Preprocessor((0.4, 0.5, 0.6), (0.2, 0.25, 0.3), torch.device("cpu"), torch.float32)
RENDERER = Renderer(CAMVID_11, RenderStyle())
LABELS = frozenset({"labels"})


@pytest.fixture
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def texture(size=(320, 480), seed=0):
    noise = np.random.default_rng(seed).normal(size=(size[0] // 20, size[1] // 20, 3))
    big = cv2.resize(noise, size[::-1], interpolation=cv2.INTER_CUBIC)
    return np.asarray((big - big.min()) / np.ptp(big) * 255, np.uint8)


def moving(num, step_px=8, seed=0):
    """A camera that pans to the right, so that the content goes to the left: frames of the input's own size."""
    wide = texture(seed=seed)
    return [
        Picture(planes=(np.ascontiguousarray(wide[40:200, 40 + step_px * i : 280 + step_px * i]),)) for i in range(num)
    ]


def standing(num, size=INPUT, seed=0):
    return [Picture(planes=(texture(size, seed),))] * num


def logits_of(num, classes=3, seed=0, cells=CELLS):
    return torch.randn((num, 1, classes, *cells), generator=torch.Generator().manual_seed(seed))


def smooth(smoother, picture, logits, input_size=INPUT):
    turn = smoother.turn(picture, input_size)
    return turn.average(logits, None if turn.guide is None else torch.from_numpy(turn.guide))


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
    for frames in (moving(6), moving(6, 16), grey):
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


# The order of frames


class Scripted:
    """Stands in for the network: gives the logits of the frame whose number is in its pixels, when a test lets it."""

    backend = "eager"

    def __init__(self, logits, before_frame=lambda number: None):
        self.logits, self.before_frame = logits, before_frame

    def __call__(self, x):
        number = round(float(x.mean()) * 255)
        self.before_frame(number)
        return self.logits[number]


class Numbers:
    """Stands in for the preprocessor: gives a frame's first pixel, which holds its number."""

    def from_picture(self, picture, size):
        return torch.full((1, 3, 1, 1), float(picture.planes[0][0, 0, 0]) / 255)


def numbered(number):
    frame = texture(INPUT)
    frame[0, 0] = number
    return Picture(planes=(frame,))


def cpu_runner(network, monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)  # two workers on any machine
    return CpuRunner(network, Numbers())


def submit(runner, smoother, number):
    picture = numbered(number)
    turn = None if smoother is None else smoother.turn(picture, INPUT)
    return runner.submit(Job(picture=picture, size=INPUT, outputs=LABELS, renderer=RENDERER, turn=turn))


def one_after_the_other(logits, numbers):
    smoother, upsample = Smoother(), LabelUpsampler(CELLS, INPUT)
    return {number: upsample(smooth(smoother, numbered(number), logits[number])[0].numpy()) for number in numbers}


@pytest.mark.parametrize("seed", range(4))
def test_two_workers_average_in_the_order_of_the_frames(seed, monkeypatch):
    logits = logits_of(24)
    naps_s = np.random.default_rng(seed).choice([0, 0.001, 0.02], 24)
    expected = one_after_the_other(logits, range(24))
    runner, smoother = cpu_runner(Scripted(logits, lambda number: time.sleep(naps_s[number])), monkeypatch), Smoother()
    handles = [submit(runner, smoother, number) for number in range(24)]
    for number, handle in enumerate(handles):
        assert np.array_equal(handle.result(5).labels, expected[number])
    runner.close()


def test_networks_of_two_frames_still_run_at_once(monkeypatch):
    both = threading.Barrier(2)
    runner = cpu_runner(Scripted(logits_of(6), lambda number: both.wait(5)), monkeypatch)
    smoother = Smoother()
    for handle in [submit(runner, smoother, number) for number in range(6)]:
        handle.result(5)
    runner.close()


def test_a_later_frame_that_is_done_first_waits_for_the_earlier_one(monkeypatch):
    second_done, logits = threading.Event(), logits_of(2)

    def before_frame(number):
        if number == 0:
            assert second_done.wait(5)
            time.sleep(0.05)
        else:
            second_done.set()

    expected = one_after_the_other(logits, range(2))
    runner, smoother = cpu_runner(Scripted(logits, before_frame), monkeypatch), Smoother()
    handles = [submit(runner, smoother, number) for number in range(2)]
    assert np.array_equal(handles[1].result(5).labels, expected[1])
    runner.close()


@pytest.mark.parametrize("failing", [{0}, {3}, {3, 4}, {2, 4, 5}])
def test_the_frame_after_one_that_failed_stands_alone(failing, monkeypatch):
    logits = logits_of(9)

    def before_frame(number):
        if number in failing:
            raise RuntimeError("no memory")

    runner, smoother = cpu_runner(Scripted(logits, before_frame), monkeypatch), Smoother()
    handles = [submit(runner, smoother, number) for number in range(9)]
    runs = {}
    for number in range(9):  # which frames hang together
        runs.setdefault(sum(other < number for other in failing), []).append(number)
    for run in runs.values():
        good = [number for number in run if number not in failing]
        expected = one_after_the_other(logits, good)
        for number in good:
            assert np.array_equal(handles[number].result(5).labels, expected[number])
    for number in failing:
        with pytest.raises(BackendError, match="no memory"):
            handles[number].result(5)
    runner.close()


def test_a_frame_that_could_not_be_submitted_holds_nobody_up(tiny_weights):
    smoother = Smoother()
    frame = Picture(planes=(texture(INPUT),))
    with Segmenter.load(tiny_weights, device="cpu", size=INPUT) as segmenter:
        segmenter.submit(frame, smoother=smoother).result(5)
        runner, segmenter._runner = segmenter._runner, SimpleNamespace(submit=lambda job: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            segmenter.submit(frame, smoother=smoother)
        segmenter._runner = runner
        alone = segmenter.predict(frame.rgb)
        assert np.array_equal(segmenter.submit(frame, smoother=smoother).result(5).labels, alone)


def test_streams_that_share_a_segmenter_do_not_mix(monkeypatch):
    logits = logits_of(16)
    streams = {0: range(0, 16, 2), 1: range(1, 16, 2)}
    runner, smoothers = cpu_runner(Scripted(logits), monkeypatch), {0: Smoother(), 1: Smoother()}
    handles = [submit(runner, smoothers[number % 2], number) for number in range(16)]
    for numbers in streams.values():
        expected = one_after_the_other(logits, numbers)
        for number in numbers:
            assert np.array_equal(handles[number].result(5).labels, expected[number])
    runner.close()


def test_a_stream_keeps_no_more_than_its_last_frame():
    smoother, states = Smoother(), []
    for frame, now in zip(standing(30), logits_of(30), strict=True):
        states.append(weakref.ref(smooth(smoother, frame, now)))
    gc.collect()
    assert [state() is not None for state in states] == [False] * 29 + [True]
    smoother.reset()
    gc.collect()
    assert states[-1]() is None


# Segmenters


def test_a_segmenter_smooths_only_if_it_is_asked_to(tiny_weights):
    frames = moving(4)
    with Segmenter.load(tiny_weights, device="cpu", size=INPUT) as segmenter:
        alone = [segmenter.predict(frame.rgb) for frame in frames]
        smoother = Smoother()
        smoothed = [segmenter.submit(frame, smoother=smoother).result().labels for frame in frames]
        again = [segmenter.predict(frame.rgb) for frame in frames]
    assert np.array_equal(smoothed[0], alone[0])
    assert all(not np.array_equal(a, b) for a, b in zip(smoothed[1:], alone[1:], strict=True))
    assert all(np.array_equal(a, b) for a, b in zip(again, alone, strict=True))


@pytest.mark.parametrize("frame_size", [INPUT, (80, 120)])
def test_an_adaptive_segmenter_smooths_too(tiny_weights, frame_size):
    """Frames of its size, and others."""
    frames = moving(2)
    with Segmenter.load(tiny_weights, device="cpu", size=INPUT) as segmenter:
        adaptive, smoother = AdaptiveSegmenter(segmenter, frame_size, target_fps=0.1), Smoother()
        adaptive.submit(frames[0], smoother=smoother).result()
        smoothed = adaptive.submit(frames[1], smoother=smoother).result().labels
        assert not np.array_equal(smoothed, segmenter.predict(frames[1].rgb))


@pytest.mark.parametrize("temper", [("lazy", 0), ("eager", 0), ("random", 0), ("random", 1)])
@pytest.mark.usefixtures("one_thread")
def test_on_a_gpu_frames_are_averaged_without_waiting(temper):
    """On the simulated device, whose network overwrites its logits; cuts and frames without a smoother among them."""
    logits, buffer = logits_of(10, classes=11), torch.empty(1, 11, *CELLS)
    calls = iter(logits)
    device = SimulatedCuda(*temper)
    runner = CudaRunner(lambda x: buffer.copy_(next(calls)), TorchStages(PREPROCESSOR), device)
    frames = moving(5) + standing(5, seed=7)
    smoother, reference = Smoother(), Smoother()
    handles, expected = [], []
    for number, (frame, now) in enumerate(zip(frames, logits, strict=True)):
        alone = number == 3
        turn = None if alone else smoother.turn(frame, INPUT)
        handles.append(runner.submit(Job(picture=frame, size=INPUT, outputs=LABELS, renderer=RENDERER, turn=turn)))
        result = now if alone else smooth(reference, frame, now)
        expected.append(labels_on_device(result, INPUT, confidence=False)[0].numpy())
    waits = device.waits
    for handle, labels in zip(handles, expected, strict=True):
        assert np.array_equal(handle.result().labels, labels)
    assert waits <= len(frames) - 4  # of those before their slots were free
    runner.close()


# The cost


@pytest.mark.usefixtures("one_thread")
def test_smoothing_costs_a_fraction_of_the_network():
    """Measured: 4 % of a frame. The limit leaves room for a machine that is busy with other things."""
    frames = [Picture(planes=(cv2.resize(frame.rgb, (640, 360)),)) for frame in moving(6)]
    times_s = {"alone": [], "smoothed": []}
    with Segmenter.load(device="cpu") as segmenter:
        smoother = Smoother()
        segmenter.predict(frames[0].rgb)
        for frame, after in pairwise(frames * 2):
            for kind, smoothing in (("alone", None), ("smoothed", smoother)):
                started_s = time.perf_counter()
                segmenter.submit(after if smoothing else frame, smoother=smoothing).result()
                times_s[kind].append(time.perf_counter() - started_s)
    assert min(times_s["smoothed"]) < 1.25 * min(times_s["alone"])
