"""Frames are smoothed in their order whatever the network does, by every segmenter, and at what cost."""

import gc
import threading
import time
import weakref
from itertools import pairwise
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch

from bsdnet import BackendError, Segmenter
from bsdnet.classes import CAMVID_11
from bsdnet.picture import Picture
from bsdnet.rendering import Renderer, RenderStyle
from bsdnet.runtime.adaptive import AdaptiveSegmenter
from bsdnet.runtime.cuda_runner import CudaRunner
from bsdnet.runtime.cuda_stages import TorchStages
from bsdnet.runtime.postprocess import LabelUpsampler, labels_on_device
from bsdnet.runtime.preprocess import Preprocessor
from bsdnet.runtime.runners import CpuRunner, Job
from bsdnet.runtime.smoothing import Smoother

from .simulated_cuda import SimulatedCuda
from .smoothing_scenes import CELLS, INPUT, logits_of, moving, smooth, standing, texture

PREPROCESSOR = Preprocessor((0.4, 0.5, 0.6), (0.2, 0.25, 0.3), torch.device("cpu"), torch.float32)
RENDERER = Renderer(CAMVID_11, RenderStyle())
LABELS = frozenset({"labels"})


@pytest.fixture
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


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
