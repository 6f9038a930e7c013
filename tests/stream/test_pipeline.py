import math
import time

import numpy as np
import pytest

from bsdnet.errors import ConfigError
from bsdnet.picture import Picture
from bsdnet.stream.pipeline import PipelineState, StreamPipeline

from .fakes import FakeSegmenter, FakeSink, FakeSource, eventually, settled, settles_at
from .running import run, start_read_ahead

pytestmark = [pytest.mark.timeout(30), pytest.mark.usefixtures("no_thread_stays")]


class TestFlow:
    def test_each_frame_reaches_the_sink_once_and_in_order(self):
        source, sink = FakeSource(60), FakeSink()
        pipeline = run(source, sink)
        assert sink.indices == list(range(60))
        assert all((result.prediction.labels == result.frame.index).all() for result in sink.results)
        assert sink.events == ["open", "finish"]
        assert pipeline.state is PipelineState.FINISHED
        assert source.closed
        assert len(source.readers) == len(sink.threads) == 1

    def test_an_empty_source_finishes_its_sinks(self):
        sink = FakeSink()
        assert run(FakeSource(0), sink).state is PipelineState.FINISHED
        assert sink.events == ["open", "finish"]

    def test_every_sink_that_is_not_live_gets_every_frame_however_slow(self):
        fast, slow = FakeSink("fast"), FakeSink("slow", write_s=0.004)
        run(FakeSource(40), fast, slow)
        assert fast.indices == slow.indices == list(range(40))

    def test_a_live_sink_gets_the_newest_and_holds_nobody_up(self):
        every, shown = FakeSink("every"), FakeSink("shown", live=True, hold=True)
        pipeline = StreamPipeline(FakeSource(40), FakeSegmenter(), [every, shown])
        pipeline.start(paused=True)
        pipeline.step()
        assert eventually(lambda: len(every.results) == 1 and pipeline.stats.sinks[1].queued == 0)  # both have one
        pipeline.resume()
        assert eventually(lambda: len(every.results) == 40)
        assert shown.indices == []
        shown.gate.set()
        assert pipeline.wait(5.0)
        assert shown.indices[-1] == 39
        assert len(shown.results) == 2  # the one that it held, and the newest
        _, stats = pipeline.stats.sinks
        assert (stats.frames, stats.skipped) == (2, 38)

    def test_a_live_sink_gets_what_one_that_gets_every_frame_has_no_room_for(self):
        every, shown = FakeSink("every", hold=True), FakeSink("shown", live=True)
        with StreamPipeline(FakeSource(40), FakeSegmenter(), [every, shown], queue_frames=1) as pipeline:
            pipeline.start()
            assert eventually(lambda: shown.indices[-1:] == [2])  # one is being written, one waits, one has no room
            every.gate.set()

    def test_the_segmenter_is_asked_for_what_any_sink_wants(self):
        segmenter = FakeSegmenter()
        one, two = FakeSink(wants=frozenset({"labels"})), FakeSink(wants=frozenset({"rendered"}), live=True)
        run(FakeSource(3), one, two, segmenter=segmenter)
        assert segmenter.outputs == {frozenset({"labels", "rendered"})}

    @pytest.mark.parametrize(("live", "asked", "expected"), [(False, 2, 2), (False, 3, 3), (False, 1, 1), (True, 2, 1)])
    def test_in_flight_bounds_what_the_segmenter_works_on(self, live, asked, expected):
        segmenter = FakeSegmenter()
        segmenter.gate.clear()
        pipeline = StreamPipeline(FakeSource(20, live=live), segmenter, [FakeSink()], in_flight=asked)
        start_read_ahead(pipeline, 1 if live else 4)
        assert settles_at(lambda: len(segmenter.submitted), expected)
        segmenter.gate.set()
        pipeline.wait(5.0)
        assert segmenter.most_in_flight == expected

    def test_a_slow_sink_holds_up_the_source(self):
        source, sink, segmenter = FakeSource(200), FakeSink(hold=True), FakeSegmenter()
        pipeline = StreamPipeline(source, segmenter, [sink], in_flight=2, queue_frames=3)
        start_read_ahead(pipeline, 3)
        held = 1 + 3 + 2 + 3  # being written, before the sink, with the segmenter or about to be queued, before it
        assert eventually(lambda: (pipeline.stats.read_ahead, pipeline.stats.sinks[0].queued) == (3, 3))
        assert held - 1 <= settled(lambda: source.reads) <= held
        sink.gate.set()
        assert pipeline.wait(5.0)
        assert sink.indices == list(range(200))

    def test_of_a_live_source_the_newest_frame_waits_and_the_others_are_counted(self):
        source, sink, segmenter = FakeSource(30, live=True), FakeSink(), FakeSegmenter()
        segmenter.gate.clear()
        pipeline = StreamPipeline(source, segmenter, [sink])
        pipeline.start()
        assert eventually(lambda: pipeline.stats.frames_in == 30)
        segmenter.gate.set()
        assert pipeline.wait(5.0)
        assert sink.indices[-1] == 29
        assert pipeline.stats.frames_in == 30
        assert pipeline.stats.dropped == 30 - len(sink.results) >= 28

    @pytest.mark.parametrize("live", [False, True])
    def test_max_frames_ends_the_stream(self, live):
        source, sink = FakeSource(200, live=live, read_s=0.001), FakeSink()
        run(source, sink, max_frames=7)
        assert len(sink.results) == 7
        assert sink.events == ["open", "finish"]
        if not live:
            assert source.reads == 7

    def test_a_picture_is_annotated_once_for_all_sinks(self):
        calls = []

        def annotate(rendered, stats):
            calls.append(stats)
            time.sleep(0.002)
            return Picture(planes=(rendered.rgb + 100,))

        wants = frozenset({"rendered"})
        one, two = FakeSink("one", wants), FakeSink("two", wants)
        pipeline = run(FakeSource(5), one, two, segmenter=FakeSegmenter(mark=5), annotate=annotate)
        assert len(calls) == 5
        assert pipeline.stats.latency["render"].mean_ms >= 2.0 + 2.0  # the segmenter's share, and ours
        assert calls[-1].frames_in >= 1
        for sink in (one, two):
            assert all((result.prediction.rendered.rgb == 105).all() for result in sink.results)

    @pytest.mark.parametrize("refresh_s", [0.0, 3600.0])
    def test_the_numbers_on_a_picture_change_so_often_that_they_can_be_read(self, refresh_s, monkeypatch):
        monkeypatch.setattr("bsdnet.stream.pipeline._HUD_REFRESH_S", refresh_s)
        seen = []
        sink = FakeSink(wants=frozenset({"rendered"}))
        run(FakeSource(40, read_s=0.001), sink, annotate=lambda rendered, stats: seen.append(stats) or rendered)
        known = {id(stats) for stats in seen if stats.fps_out}  # until there is a rate, it is looked for
        assert len(known) == 1 if refresh_s else len(known) > 5

    def test_nothing_is_annotated_where_nothing_is_rendered(self):
        run(FakeSource(3), FakeSink(), annotate=lambda rendered, stats: pytest.fail("called"))

    def test_the_statistics_tell_what_happened(self):
        pipeline = run(FakeSource(20, read_s=0.002), FakeSink(write_s=0.001, wants=frozenset({"rendered"})))
        stats = pipeline.stats
        assert (stats.frames_in, stats.frames_out, stats.dropped, stats.lost) == (20, 20, 0, 3)
        assert stats.latency["infer"].mean_ms == pytest.approx(4.0)
        assert stats.latency["render"].mean_ms == pytest.approx(2.0, abs=0.1)
        assert stats.latency["decode"].p50_ms >= 2.0
        assert stats.latency["encode"].p50_ms >= 1.0
        assert stats.latency["total"].count == 20
        assert 0 < stats.first_frame_s < stats.elapsed_s
        time.sleep(0.02)
        assert pipeline.stats == stats


class TestSettings:
    def test_a_pipeline_needs_sinks(self):
        with pytest.raises(ConfigError, match="no sinks"):
            StreamPipeline(FakeSource(), FakeSegmenter(), [])

    @pytest.mark.parametrize("name", ["in_flight", "queue_frames", "max_frames"])
    def test_numbers_below_one_are_refused(self, name):
        with pytest.raises(ConfigError, match=f"{name} is 0"):
            StreamPipeline(FakeSource(), FakeSegmenter(), [FakeSink()], **{name: 0})

    @pytest.mark.parametrize("speed", [0.0, -1.0, math.nan])
    def test_a_speed_must_be_positive(self, speed):
        with pytest.raises(ConfigError, match="above 0"):
            StreamPipeline(FakeSource(), FakeSegmenter(), [FakeSink()], speed=speed)
        pipeline = StreamPipeline(FakeSource(), FakeSegmenter(), [FakeSink()])
        with pytest.raises(ConfigError, match="above 0"):
            pipeline.speed = speed
        assert pipeline.speed == 1.0


def test_pictures_are_handed_on_as_they_are():
    sink = FakeSink()
    run(FakeSource(1), sink)
    np.testing.assert_array_equal(sink.results[0].frame.rgb, np.zeros((2, 3, 3), np.uint8))
