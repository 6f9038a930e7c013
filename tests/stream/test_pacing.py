import time

import pytest

from bsdnet.stream.pacing import Pacer
from bsdnet.stream.pipeline import StreamPipeline

from .fakes import FakeSegmenter, FakeSink, FakeSource, eventually, settles_at
from .running import STOP_LIMIT_S, run, timed_stop

pytestmark = [pytest.mark.timeout(30), pytest.mark.usefixtures("no_thread_stays")]


class TestPacer:
    def test_frames_are_due_by_their_timestamps(self):
        pacer = Pacer(2.0)
        assert pacer.delay_s(10.0, 100.0) == 0.0
        assert pacer.delay_s(11.0, 100.1) == pytest.approx(0.4)
        assert pacer.delay_s(11.0, 100.5) == pytest.approx(0.0)

    def test_a_small_lag_is_caught_up_and_a_large_one_forgiven(self):
        pacer = Pacer(1.0)
        pacer.delay_s(0.0, 0.0)
        assert pacer.delay_s(1.0, 1.05) == pytest.approx(-0.05)
        assert pacer.delay_s(2.0, 2.0) == pytest.approx(0.0)
        assert pacer.delay_s(3.0, 5.0) < 0
        assert pacer.delay_s(4.0, 5.0) == pytest.approx(1.0)

    def test_reset_starts_anew(self):
        pacer = Pacer(1.0)
        pacer.delay_s(0.0, 0.0)
        pacer.reset()
        assert pacer.delay_s(50.0, 1.0) == 0.0


class TestRealtime:
    def test_a_file_is_played_by_its_timestamps(self):
        written_s = []
        sink = FakeSink(on_write=lambda result: written_s.append(time.monotonic()))
        run(FakeSource(21), sink, realtime=True)
        assert 0.15 < written_s[-1] - written_s[0] < 1.0  # 0.2 s on a machine that has nothing else to do
        assert sink.indices == list(range(21))

    def test_a_new_speed_holds_at_once(self):
        sink = FakeSink()
        with StreamPipeline(FakeSource(200), FakeSegmenter(), [sink], realtime=True, speed=0.001) as pipeline:
            pipeline.start()
            assert settles_at(lambda: len(sink.results), 1)
            pipeline.speed = 1000.0
            assert pipeline.wait(5.0)
        assert len(sink.results) == 200

    @pytest.mark.parametrize("call", ["seek", "pause", "stop", "finish"])
    def test_nothing_waits_for_a_frame_that_is_not_due(self, call):
        sink = FakeSink()
        with StreamPipeline(FakeSource(200), FakeSegmenter(), [sink], realtime=True, speed=0.001) as pipeline:
            pipeline.start()
            assert eventually(lambda: sink.indices == [0])
            if call == "seek":
                pipeline.seek(1.0)
                assert eventually(lambda: sink.indices == [0, 100])
            elif call == "pause":
                pipeline.pause()
                pipeline.step()
                assert eventually(lambda: sink.indices == [0, 1])
            elif call == "stop":
                assert timed_stop(pipeline) < STOP_LIMIT_S
            else:
                assert pipeline.stop(finish=True, timeout_s=STOP_LIMIT_S)

    def test_a_live_source_is_not_paced(self):
        started_s = time.monotonic()
        run(FakeSource(20, live=True), FakeSink(), realtime=True, speed=0.001)
        assert time.monotonic() - started_s < 2.0
