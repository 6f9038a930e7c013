import random
import threading
import time
from collections.abc import Iterator
from itertools import pairwise

import pytest

from bsdnet.errors import ConfigError, SourceError
from bsdnet.picture import Picture
from bsdnet.stream.arrival import Backlog
from bsdnet.stream.live import LiveSource
from bsdnet.stream.pipeline import StreamPipeline
from bsdnet.stream.receiver import Backoff, LivePicture, ReconnectPolicy

from .fakes import FakeSegmenter, FakeSink, eventually, picture
from .running import STOP_LIMIT_S, timed_stop

FPS = 100
QUICK = ReconnectPolicy(silence_s=0.3, notice_s=0.1, first_delay_s=0.02, longest_delay_s=0.1)

PATIENT = ReconnectPolicy(silence_s=10, notice_s=5, first_delay_s=0.02, longest_delay_s=0.1)
"""For what has nothing to do with silence: a machine that stalls is not taken for a camera that is silent."""


class FakeServer:
    """Hands out connections; each gives as many pictures as its plan says and then does what the plan says.

    Args:
        plan: for each connection in turn its number of pictures, and then "lose", "end", "hang", "stall", "fail" or
            "refuse"; the last one is for all further connections too.
    """

    def __init__(self, *plan: tuple[int, str], is_recording: bool = False, period_s: float = 1 / FPS) -> None:
        self.plan = plan
        self.is_recording = is_recording
        self.period_s = period_s
        self.captured_at_s: float | None = None
        self.free = threading.Event()
        self.connects: list[float] = []
        self.closed_by: list[bool] = []
        self.num_given = 0
        self.converted: list[int] = []

    def connect(self) -> "FakeConnection":
        self.connects.append(time.perf_counter())
        num_pictures, then = self.plan[min(len(self.connects), len(self.plan)) - 1]
        if then == "refuse":
            raise SourceError("connection refused")
        return FakeConnection(self, num_pictures, then)


class FakeConnection:
    fps = float(FPS)

    def __init__(self, server: FakeServer, num_pictures: int, then: str) -> None:
        self.is_recording = server.is_recording
        self._server = server
        self._left = num_pictures
        self._then = then
        self._thread = threading.current_thread()

    def read(self) -> LivePicture | None:
        assert threading.current_thread() is self._thread
        if not self._left:
            if self._then == "lose":
                raise SourceError("connection reset")
            if self._then == "fail":
                raise ZeroDivisionError
            if self._then in ("hang", "stall"):
                self._server.free.wait(30)
            if self._then != "stall":
                return None
        self._left = max(self._left - 1, 0)
        time.sleep(self._server.period_s)
        number = self._server.num_given
        self._server.num_given += 1
        return LivePicture(
            convert=lambda: self._convert(number),
            captured_at_s=self._server.captured_at_s or time.perf_counter(),
            time_s=number / FPS,
            lost=2 if number == 1 else 0,
        )

    def _convert(self, number: int) -> Picture:
        self._server.converted.append(number)
        return Picture(planes=(picture(number),))

    def close(self) -> None:
        self._server.closed_by.append(threading.current_thread() is self._thread)


@pytest.fixture
def serve() -> Iterator[type[FakeServer]]:
    """Makes servers, and lets go what hangs in them."""
    servers = []

    def make(*plan: tuple[int, str], **options: object) -> FakeServer:
        servers.append(FakeServer(*plan, **options))
        return servers[-1]

    yield make
    for server in servers:
        server.free.set()


def number_in(frame) -> int:
    return int(frame.rgb[0, 0, 0])


class TestReconnectPolicy:
    @pytest.mark.parametrize("name", ["open_s", "silence_s", "first_delay_s", "stable_s"])
    def test_times_are_positive(self, name):
        with pytest.raises(ConfigError, match=name):
            ReconnectPolicy(**{name: 0})

    def test_delays_grow(self):
        with pytest.raises(ConfigError, match="longest_delay_s"):
            ReconnectPolicy(first_delay_s=2, longest_delay_s=1)


class TestBackoff:
    def test_doubles_up_to_the_longest_with_jitter(self):
        random.seed(1)
        backoff = Backoff(ReconnectPolicy())
        delays = [backoff.delay_s(0) for _ in range(10)]
        steps = [0.5, 1, 2, 4, 8, 16, 30, 30, 30, 30]
        assert all(step / 2 <= delay <= step for delay, step in zip(delays, steps, strict=True))
        assert len(set(delays[-4:])) == 4

    def test_begins_anew_after_ten_stable_seconds_only(self):
        backoff = Backoff(ReconnectPolicy())
        for _ in range(6):
            backoff.delay_s(0)
        assert backoff.delay_s(9) >= 15
        assert backoff.delay_s(10) <= 0.5
        assert backoff.delay_s(0) <= 1


class TestBacklog:
    def feed(
        self, backlog: Backlog, packets: list[tuple[float, float]], *, busy_s: float = 0.001, gop: int = 10
    ) -> list[float | None]:
        """Read packets of (stamp, time of arrival) with a reader that is busy for so long after each."""
        delays, free_at_s = [], 0.0
        for number, (stamp_s, arrival_s) in enumerate(packets):
            read_at_s = max(free_at_s, arrival_s)
            waited_s = max(0.0, arrival_s - free_at_s)
            delays.append(backlog.delay_s(stamp_s, read_at_s, waited_s=waited_s, is_keyframe=number % gop == 0))
            free_at_s = read_at_s + (0.0001 if delays[-1] is None else busy_s)
        return delays

    def stream(self, num_packets: int, *, pace: float = 1.0, at_s: float = 50.0) -> list[tuple[float, float]]:
        return [(number / 10, at_s + number / 10 * pace) for number in range(num_packets)]

    def test_who_waits_for_each_packet_is_never_behind_whatever_the_timestamps_say(self):
        jump_back = [(stamp_s - 1000, arrival_s) for stamp_s, arrival_s in self.stream(50, at_s=60)]
        for packets in (self.stream(50), self.stream(50, pace=1.5), self.stream(50, pace=0.7), jump_back):
            assert set(self.feed(Backlog(), packets)) == {0.0}

    def test_the_burst_at_the_start_of_a_stream_is_not_the_measure(self):
        delays = self.feed(Backlog(), [(0.0, 100.0), (0.1, 100.0), (1.0, 100.0), (1.1, 100.1), (1.2, 100.2)])
        assert delays == pytest.approx([0] * 5)

    def test_a_reader_that_is_too_slow_sees_its_delay_grow_and_goes_on_at_a_key_frame_in_time(self):
        delays = self.feed(Backlog(), self.stream(400), busy_s=0.15, gop=7)
        assert delays[:20] == pytest.approx([0.05 * number for number in range(20)])
        skipped = delays.index(None)
        assert delays[skipped - 1] == pytest.approx(1.0)
        again = next(number for number in range(skipped, 400) if delays[number] is not None)
        assert again % 7 == 0
        assert again - skipped < 20
        assert delays[again] < 0.2
        assert max(delay for delay in delays if delay is not None) <= 1.0 + 1e-9

    def test_what_came_while_the_process_was_suspended_is_left_out(self):
        packets = self.stream(100)
        backlog = Backlog()
        self.feed(backlog, packets[:20])
        woken = [(stamp_s, max(arrival_s, 57.0)) for stamp_s, arrival_s in packets[20:]]
        delays = [
            backlog.delay_s(*packet, waited_s=0.0, is_keyframe=number % 10 == 0) for number, packet in enumerate(woken)
        ]
        assert delays[:40] == [None] * 40
        assert delays[50:] == pytest.approx([0] * 30)


class TestLiveSource:
    def test_newest_only_and_only_those_are_converted(self, serve):
        server = serve((10**6, "end"))
        with LiveSource("fake", server.connect, PATIENT) as source:
            assert source.info.live
            assert (source.info.size, source.info.fps) == ((2, 3), FPS)
            first = source.read()
            time.sleep(0.3)
            given = server.num_given
            second = source.read()
            assert number_in(second) >= given - 1
            assert second.index == number_in(second)
            assert second.time_s - first.time_s > 0.2
            assert time.perf_counter() - second.captured_at_s < 0.25, "it is not one from before the pause"
            assert len(server.converted) <= 3
            assert source.lost_frames == 2

    def test_a_lost_connection_is_made_again_and_told(self, serve, caplog):
        server = serve((5, "lose"), (5, "end"), (0, "refuse"), (0, "refuse"), (10**6, "end"))
        with LiveSource("fake", server.connect, QUICK) as source:
            frames = [source.read()]
            while number_in(frames[-1]) < 15:
                frames.append(source.read())
            assert source.signal.reconnects == 2
            assert source.signal.outage_s > 0.05  # of 0.02 + 0.02 + 0.06 + 0.1, less chance
            assert source.signal.silent_s == 0
        assert all(later.pts > earlier.pts for earlier, later in pairwise(frames))
        assert [frame.index for frame in frames] == sorted({frame.index for frame in frames})
        told = [record.message for record in caplog.records]
        assert any("fake is lost: connection reset; connecting again" in line for line in told)
        assert any("the other side ended the stream" in line for line in told)
        assert sum("is back after" in line for line in told) == 2
        assert all(server.closed_by)

    def test_a_silent_connection_is_left_and_made_again(self, serve):
        server = serve((3, "stall"), (10**6, "end"))
        with LiveSource("fake", server.connect, QUICK) as source:
            assert eventually(lambda: source.signal.reconnects == 1)
            assert server.connects[1] - server.connects[0] >= 0.3
            server.free.set()  # its pictures are not wanted any more
            assert eventually(lambda: len(server.closed_by) == 1)
            assert source.read() is not None

    def test_readers_that_hang_do_not_pile_up(self, serve):
        server = serve((1, "hang"))
        with LiveSource(
            "fake", server.connect, ReconnectPolicy(silence_s=0.2, first_delay_s=0.01, longest_delay_s=0.01)
        ):
            assert eventually(lambda: len(server.connects) == 4, 10)
            time.sleep(0.5)
            assert len(server.connects) == 4
            server.free.set()
            assert eventually(lambda: len(server.connects) > 5)

    def test_pts_always_grow(self, serve):
        server = serve((10**6, "end"))
        server.captured_at_s = 5.0
        with LiveSource("fake", server.connect, PATIENT) as source:
            assert [source.read().pts for _ in range(3)] == [0, 1, 2]
            server.captured_at_s = 4.0
            assert [source.read().pts for _ in range(3)] == [3, 4, 5]

    def test_time_begins_with_the_first_picture_that_is_read(self, serve):
        with LiveSource("fake", serve((10**6, "end")).connect, PATIENT) as source:
            time.sleep(0.5)  # as long as a network takes to load, or an engine to be built
            first, second = source.read(), source.read()
        assert (first.index, first.pts, first.time_s) == (0, 0, 0)
        assert 0 < second.index < 50
        assert 0 < second.time_s < 0.5

    def test_while_silent_the_last_picture_is_shown_again_and_marked(self, serve):
        server = serve((3, "hang"))
        policy = ReconnectPolicy(notice_s=0.2)
        with LiveSource("fake", server.connect, policy) as source:
            frames = [source.read()]
            while not frames[-1].repeated:
                frames.append(source.read())
            again = source.read()
            assert again.repeated
            assert number_in(again) == number_in(frames[-1]) == number_in(frames[-2]) == 2
            assert again.index == frames[-1].index + 1
            assert frames[-1].time_s - frames[-2].time_s > 0.15
            assert again.time_s - frames[-1].time_s > 0.9
            signal = source.signal
            assert signal.outage_s == signal.silent_s > 1.1
        ended = source.signal
        time.sleep(0.05)
        assert source.signal == ended

    def test_what_comes_after_a_silence_comes_after_the_repetitions(self, serve):
        server = serve((3, "stall"))
        with LiveSource("fake", server.connect, ReconnectPolicy(notice_s=0.1)) as source:
            frames = [source.read()]
            while not frames[-1].repeated:
                frames.append(source.read())
            server.free.set()
            while frames[-1].repeated:
                frames.append(source.read())
        assert all(later.index > earlier.index for earlier, later in pairwise(frames))

    @pytest.mark.parametrize(
        ("then", "words"),
        [("refuse", "fake: connection refused"), ("lose", "reset"), ("hang", r"no picture for 0\.3 s")],
    )
    def test_a_first_connection_that_fails_is_an_error(self, serve, then, words):
        server = serve((0, then))
        with pytest.raises(SourceError, match=words):
            LiveSource("fake", server.connect, QUICK)
        time.sleep(0.1)
        assert len(server.connects) == 1

    def test_a_fault_of_ours_is_not_tried_again(self, serve):
        server = serve((2, "fail"))
        with LiveSource("fake", server.connect, QUICK) as source, pytest.raises(ZeroDivisionError):
            while True:
                source.read()
        assert len(server.connects) == 1

    def test_every_frame_of_a_recording_in_its_own_time(self, serve):
        server = serve((20, "end"), is_recording=True, period_s=0)
        with LiveSource("fake", server.connect, QUICK) as source:
            assert not source.info.live
            time.sleep(0.5)  # longer than the silence that a live source may keep
            frames = []
            for frame in source:
                time.sleep(0.02)
                frames.append(frame)
        assert [number_in(frame) for frame in frames] == [frame.index for frame in frames] == list(range(20))
        assert [frame.time_s for frame in frames] == [number / FPS for number in range(20)]
        assert [frame.pts for frame in frames] == [900 * number for number in range(20)]
        assert source.signal.outage_s == 0
        assert len(server.connects) == 1

    def test_a_recordings_silence_begins_when_its_picture_was_taken(self, serve):
        server = serve((3, "end"), is_recording=True)
        policy = ReconnectPolicy(silence_s=0.8, notice_s=0.1, first_delay_s=0.02, longest_delay_s=0.1)
        with LiveSource("fake", server.connect, policy) as source:
            server.period_s = 1.0
            frames = []
            for _ in range(3):
                time.sleep(0.4)
                frames.append(source.read())
        assert [number_in(frame) for frame in frames] == [0, 1, 2]

    @pytest.mark.parametrize("then", ["lose", "hang"])
    def test_a_recording_that_breaks_off_is_an_error_after_its_last_frame(self, serve, then):
        server = serve((3, then), is_recording=True)
        frames = []
        with LiveSource("fake", server.connect, QUICK) as source, pytest.raises(SourceError, match="fake: "):
            for frame in source:
                frames.append(frame)
        assert [number_in(frame) for frame in frames] == [0, 1, 2]
        assert len(server.connects) == 1

    @pytest.mark.parametrize("then", ["hang", "lose"])
    def test_close_frees_a_reader_in_time(self, serve, then):
        server = serve((1, then))
        source = LiveSource("fake", server.connect, ReconnectPolicy(first_delay_s=30))
        assert source.read() is not None
        found = []
        reader = threading.Thread(target=lambda: found.append(source.read()))
        reader.start()
        started_s = time.monotonic()
        source.close()
        reader.join(10)
        assert time.monotonic() - started_s < 5, "not the 30 s to the next attempt"
        assert found == [None]
        assert source.read() is None

    def test_seek_is_refused(self, serve):
        with LiveSource("fake", serve((5, "hang")).connect, QUICK) as source, pytest.raises(SourceError, match="live"):
            source.seek(0.0)


class TestInAPipeline:
    def test_a_slow_consumer_sees_fresh_frames_for_ever(self, serve):
        server = serve((10**6, "end"))
        sink = FakeSink()
        source = LiveSource("fake", server.connect, PATIENT)
        with StreamPipeline(source, FakeSegmenter(infer_s=0.1), [sink]) as pipeline:
            pipeline.start()
            assert eventually(lambda: len(sink.results) == 15)
            total = pipeline.stats.latency["total"]
            assert pipeline.stats.dropped > 50
        assert 100 <= total.p50_ms < 100 + 2 * 1000 / FPS + 50

    def test_the_outage_is_in_the_statistics_and_frames_go_on(self, serve):
        server = serve((3, "hang"))
        sink = FakeSink()
        source = LiveSource("fake", server.connect, ReconnectPolicy(notice_s=0.1))
        pipeline = StreamPipeline(source, FakeSegmenter(), [sink])
        pipeline.start()
        assert eventually(lambda: len([r for r in sink.results if r.frame.repeated]) == 2)
        assert pipeline.stats.signal.silent_s > 1
        assert timed_stop(pipeline) < STOP_LIMIT_S
        assert pipeline.stats.signal.outage_s > 1

    def test_max_time_ends_a_live_stream(self, serve):
        sink = FakeSink()
        source = LiveSource("fake", serve((10**6, "end")).connect, PATIENT)
        with StreamPipeline(source, FakeSegmenter(), [sink], max_time_s=0.3) as pipeline:
            pipeline.start()
            assert pipeline.wait(5)
        assert sink.events[-1] == "finish"
        assert 0 < sink.results[-1].frame.time_s < 0.3
