import threading
import time

import numpy as np
import pytest

from bsdnet.stream import stats as stats_module
from bsdnet.stream.stats import STAGES, StageLatency, StatsRecorder


class Clock:
    """Stands in for `time.perf_counter`."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(stats_module.time, "perf_counter", clock)
    return clock


def read_at(recorder: StatsRecorder, clock: Clock, fps: float, count: int) -> None:
    for _ in range(count):
        clock.now_s += 1 / fps
        recorder.frame_read(0.001)


def test_before_the_first_frame_everything_is_zero(clock):
    stats = StatsRecorder([("file", False)]).snapshot()
    assert (stats.frames_in, stats.frames_out, stats.dropped, stats.lost) == (0, 0, 0, 0)
    assert (stats.fps_in, stats.fps_infer, stats.fps_out, stats.elapsed_s) == (0.0, 0.0, 0.0, 0.0)
    assert stats.first_frame_s is None
    assert stats.latency == {stage: StageLatency() for stage in STAGES}


@pytest.mark.parametrize("fps", [0.5, 5.0, 30.0, 1000.0])
def test_the_rate_is_that_of_the_last_frames(clock, fps):
    recorder = StatsRecorder([("file", False)])
    read_at(recorder, clock, 10 * fps, 20)
    read_at(recorder, clock, fps, max(3, round(2 * fps)))
    assert recorder.snapshot().fps_in == pytest.approx(fps, rel=0.02)


def test_the_rate_falls_when_the_stream_stalls(clock):
    recorder = StatsRecorder([("file", False)])
    read_at(recorder, clock, 30.0, 60)
    rates = []
    for _ in range(8):
        rates.append(recorder.snapshot().fps_in)
        clock.now_s += 0.25
    assert rates[0] == pytest.approx(30.0)
    assert rates == sorted(rates, reverse=True)
    assert rates[4] == pytest.approx(30.0 / 3, rel=0.1)  # a second of the last 1.5 s was silent
    assert rates[-1] == 0.0


def test_percentiles_are_of_recent_frames_and_the_mean_of_all(clock):
    recorder = StatsRecorder([("file", False)])
    for _ in range(1024):
        recorder.frame_inferred(1.0, None)
    order = np.random.default_rng(0).permutation(1024)
    for i in order:
        recorder.frame_inferred(0.001 * (i + 1), None)
    infer = recorder.snapshot().latency["infer"]
    assert (infer.p50_ms, infer.p95_ms, infer.p99_ms) == pytest.approx((512.0, 973.0, 1014.0))
    assert infer.mean_ms == pytest.approx((1024 * 1000 + 1024 * 1025 / 2) / 2048)
    assert infer.count == 2048


def test_one_frame_is_every_percentile(clock):
    recorder = StatsRecorder([("file", False)])
    recorder.frame_read(0.005)
    decode = recorder.snapshot().latency["decode"]
    assert decode == StageLatency(count=1, mean_ms=5.0, p50_ms=5.0, p95_ms=5.0, p99_ms=5.0)


def test_what_was_not_rendered_does_not_count_as_rendering(clock):
    recorder = StatsRecorder([("file", False)])
    recorder.frame_inferred(0.01, None)
    assert recorder.snapshot().latency["render"].count == 0
    recorder.frame_inferred(0.01, 0.003)
    assert recorder.snapshot().latency["render"].mean_ms == pytest.approx(3.0)


def test_out_is_the_first_sink_that_gets_every_frame(clock):
    recorder = StatsRecorder([("window", True), ("video", False), ("masks", False)])
    recorder.start()
    clock.now_s += 1
    recorder.frame_written(0, 0.5, 0.9)
    assert recorder.snapshot().first_frame_s is None
    clock.now_s += 1
    recorder.frame_written(1, 0.010, 0.100)
    recorder.frame_written(2, 0.020, 0.300)
    recorder.frame_skipped(0)
    stats = recorder.snapshot(queued=[1, 2, 3], lost=4, read_ahead=5, in_flight=6)
    assert (stats.frames_out, stats.first_frame_s) == (1, 2.0)
    assert stats.latency["total"].p50_ms == pytest.approx(100.0)
    assert stats.latency["encode"].mean_ms == pytest.approx(15.0)  # both that get every frame, not the window
    assert stats.latency["encode"].count == 2
    assert [(sink.name, sink.frames, sink.skipped, sink.queued) for sink in stats.sinks] == [
        ("window", 1, 1, 1),
        ("video", 1, 0, 2),
        ("masks", 1, 0, 3),
    ]
    assert (stats.lost, stats.read_ahead, stats.in_flight) == (4, 5, 6)


def test_out_is_the_first_sink_if_all_are_live(clock):
    recorder = StatsRecorder([("window", True), ("other", True)])
    recorder.start()
    recorder.frame_written(1, 0.1, 0.1)
    assert recorder.snapshot().frames_out == 0
    recorder.frame_written(0, 0.1, 0.1)
    assert recorder.snapshot().frames_out == 1


def test_the_end_stops_the_clock(clock):
    recorder = StatsRecorder([("file", False)])
    recorder.start()
    read_at(recorder, clock, 30.0, 30)
    recorder.end()
    at_end = recorder.snapshot()
    clock.now_s += 60.0
    assert recorder.snapshot() == at_end
    assert at_end.elapsed_s == pytest.approx(1.0)
    assert at_end.fps_in == pytest.approx(30.0)


def test_threads_lose_no_count():
    recorder = StatsRecorder([("file", False)])
    threads = [
        threading.Thread(target=lambda: [recorder.frame_read(0.001) or recorder.frame_dropped() for _ in range(2000)])
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        recorder.snapshot()
    assert recorder.snapshot().frames_in == recorder.snapshot().dropped == 8000


def test_a_frame_costs_little():
    recorder = StatsRecorder([("file", False)])
    rounds = []
    for _ in range(20):
        started_s = time.perf_counter()
        for _ in range(200):
            recorder.frame_read(0.001)
            recorder.frame_inferred(0.001, 0.001)
            recorder.frame_written(0, 0.001, 0.001)
        rounds.append((time.perf_counter() - started_s) / 200)
    assert min(rounds) < 50e-6  # a few microseconds on a quiet machine
