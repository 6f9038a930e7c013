import logging
import math
import random
import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest

from bsdnet.errors import BsdnetError, ConfigError, PipelineError, SourceError
from bsdnet.stream.pacing import Pacer
from bsdnet.stream.pipeline import PipelineState, StreamPipeline

from .fakes import ENDLESS, FPS, FakeSegmenter, FakeSink, FakeSource, eventually, settled, settles_at

pytestmark = pytest.mark.timeout(30)

RACES = range(50)


def pipeline_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("bsdnet ")]


@pytest.fixture(autouse=True)
def no_thread_stays() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    assert eventually(lambda: not set(pipeline_threads()) - before, 2.0)


def run(
    source: FakeSource, *sinks: FakeSink, segmenter: FakeSegmenter | None = None, **options: object
) -> StreamPipeline:
    pipeline = StreamPipeline(source, segmenter or FakeSegmenter(), sinks, **options)
    pipeline.start()
    assert pipeline.wait(10.0)
    return pipeline


def start_read_ahead(pipeline: StreamPipeline, frames: int = 4) -> None:
    """Start with so many frames read, so that inference never waits for one."""
    pipeline.start(paused=True)
    assert eventually(lambda: pipeline.stats.read_ahead == frames)
    pipeline.resume()


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
        pipeline.start()
        assert eventually(lambda: len(every.results) == 40)
        assert shown.indices == []
        shown.gate.set()
        assert pipeline.wait(5.0)
        assert shown.indices[-1] == 39
        assert len(shown.results) == 2  # the one that it held, and the newest
        _, stats = pipeline.stats.sinks
        assert (stats.frames, stats.skipped) == (2, 38)

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
            return rendered + 100

        wants = frozenset({"rendered"})
        one, two = FakeSink("one", wants), FakeSink("two", wants)
        run(FakeSource(5), one, two, segmenter=FakeSegmenter(mark=5), annotate=annotate)
        assert len(calls) == 5
        assert calls[-1].frames_in >= 1
        for sink in (one, two):
            assert all((result.prediction.rendered == 105).all() for result in sink.results)

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


class TestPauseAndStep:
    def test_after_pause_only_what_is_in_flight_is_delivered_and_resume_loses_nothing(self):
        sink, segmenter = FakeSink(), FakeSegmenter(infer_s=0.002)
        pipeline = StreamPipeline(FakeSource(250), segmenter, [sink])
        pipeline.start()
        assert eventually(lambda: len(sink.results) >= 5)
        pipeline.pause()
        given = len(segmenter.submitted)
        assert pipeline.state is PipelineState.PAUSED
        assert settled(lambda: len(sink.results)) <= given + 1  # submit may have been on its way
        assert len(segmenter.submitted) <= given + 1
        assert sink.indices == segmenter.submitted
        pipeline.pause()
        pipeline.resume()
        pipeline.resume()
        assert pipeline.wait(5.0)
        assert sink.indices == list(range(250))

    def test_step_plays_one_frame(self):
        sink = FakeSink()
        with StreamPipeline(FakeSource(100), FakeSegmenter(), [sink]) as pipeline:
            pipeline.start(paused=True)
            assert settles_at(lambda: len(sink.results), 0)
            for count in (1, 2, 3):
                pipeline.step()
                assert eventually(lambda count=count: len(sink.results) == count)
            pipeline.step()
            pipeline.step()
            assert settles_at(lambda: len(sink.results), 5)
            pipeline.resume()
            with pytest.raises(PipelineError, match="pause it first"):
                pipeline.step()
            assert pipeline.wait(5.0)
        assert sink.indices == list(range(100))

    def test_steps_not_taken_are_forgotten(self):
        source, sink = FakeSource(100, hang_at=0), FakeSink()
        with StreamPipeline(source, FakeSegmenter(), [sink]) as pipeline:
            pipeline.start(paused=True)
            pipeline.step()
            pipeline.resume()
            pipeline.pause()
            source.free.set()
            assert settles_at(lambda: len(sink.results), 0)

    def test_a_step_past_the_end_finishes(self):
        sink = FakeSink()
        pipeline = StreamPipeline(FakeSource(1), FakeSegmenter(), [sink])
        pipeline.start(paused=True)
        pipeline.step()
        assert eventually(lambda: sink.indices == [0])
        assert not pipeline.wait(0.05)
        assert pipeline.at_end
        pipeline.step()
        assert pipeline.wait(5.0)
        assert sink.events == ["open", "finish"]

    def test_while_paused_a_live_source_stays_fresh(self):
        source, sink = FakeSource(100, live=True, read_s=0.001), FakeSink()
        with StreamPipeline(source, FakeSegmenter(), [sink]) as pipeline:
            pipeline.start(paused=True)
            assert eventually(lambda: pipeline.stats.frames_in == 100)
            pipeline.step()
            assert eventually(lambda: sink.indices == [99])
            assert pipeline.stats.dropped == 99

    def test_drain_plays_a_paused_pipeline_to_its_end(self):
        sink = FakeSink()
        pipeline = StreamPipeline(FakeSource(20), FakeSegmenter(), [sink], keep_open=True)
        pipeline.start(paused=True)
        assert pipeline.drain(5.0)
        assert sink.indices == list(range(20))
        assert pipeline.state is PipelineState.FINISHED


class TestSeek:
    def test_playback_goes_on_from_there_in_a_new_epoch(self):
        sink = FakeSink(write_s=0.001)
        pipeline = StreamPipeline(FakeSource(2000), FakeSegmenter(), [sink])
        pipeline.start()
        assert eventually(lambda: len(sink.results) >= 5)
        pipeline.seek(19.8)
        assert pipeline.wait(5.0)
        before = [result.frame.index for result in sink.results if result.frame.epoch == 0]
        after = [result.frame.index for result in sink.results if result.frame.epoch == 1]
        assert before == list(range(len(before)))
        assert sink.indices == before + after
        assert after == list(range(1980, 2000))

    def test_while_paused_exactly_the_frame_there_is_delivered(self):
        sink = FakeSink()
        with StreamPipeline(FakeSource(100), FakeSegmenter(), [sink]) as pipeline:
            pipeline.start(paused=True)
            pipeline.step()
            assert eventually(lambda: sink.indices == [0])
            pipeline.seek(0.5)
            assert settles_at(lambda: len(sink.results), 2)
            assert sink.indices == [0, 50]
            assert sink.results[1].frame.epoch == 1
            assert pipeline.state is PipelineState.PAUSED
            pipeline.step()
            assert eventually(lambda: sink.indices == [0, 50, 51])

    def test_steps_of_before_a_seek_are_forgotten(self):
        source, sink = FakeSource(100, hang_at=0), FakeSink()
        with StreamPipeline(source, FakeSegmenter(), [sink]) as pipeline:
            pipeline.start(paused=True)
            pipeline.step()
            pipeline.step()
            pipeline.seek(0.3)
            source.free.set()
            assert settles_at(lambda: len(sink.results), 1)
            assert sink.indices == [30]

    def test_of_many_seeks_the_last_counts(self):
        source, sink = FakeSource(100, hang_at=0), FakeSink()
        with StreamPipeline(source, FakeSegmenter(), [sink]) as pipeline:
            pipeline.start(paused=True)
            assert source.hangs.wait(5.0)
            for index in range(10, 60):
                pipeline.seek(index / FPS)
            source.free.set()
            assert settles_at(lambda: len(sink.results), 1)
            assert sink.indices == [59]
            assert source.seeks == [0.59]

    def test_while_all_queues_are_full(self):
        for _ in RACES:
            source, segmenter = FakeSource(60), FakeSegmenter()
            sink, shown = FakeSink(hold=True), FakeSink("shown", live=True)
            pipeline = StreamPipeline(source, segmenter, [sink, shown], queue_frames=2)
            pipeline.start()
            assert sink.writing.wait(5.0)
            assert eventually(lambda p=pipeline: (p.stats.read_ahead, p.stats.sinks[0].queued) == (2, 2))
            pipeline.seek(0.5)
            sink.gate.set()
            assert pipeline.wait(5.0)
            assert sink.indices == [0, *range(50, 60)]  # frame 0 was being written

    def test_while_a_prediction_is_under_way(self):
        segmenter, sink = FakeSegmenter(), FakeSink()
        segmenter.gate.clear()
        pipeline = StreamPipeline(FakeSource(60), segmenter, [sink])
        start_read_ahead(pipeline)
        assert eventually(lambda: segmenter.submitted == [0, 1])
        pipeline.seek(0.5)
        segmenter.gate.set()
        assert pipeline.wait(5.0)
        assert sink.indices == list(range(50, 60))

    def test_keep_open_pauses_at_the_end_and_plays_again(self):
        sink = FakeSink()
        pipeline = StreamPipeline(FakeSource(10), FakeSegmenter(), [sink], keep_open=True)
        pipeline.start()
        for rounds in (1, 2, 3):
            assert eventually(lambda: pipeline.state is PipelineState.PAUSED and pipeline.at_end)
            assert eventually(lambda rounds=rounds: sink.indices == list(range(10)) * rounds)
            pipeline.resume()
            assert eventually(lambda: pipeline.state is PipelineState.PAUSED)
            pipeline.seek(0.0)
            pipeline.resume()
        assert eventually(lambda: len(sink.results) == 40)
        assert pipeline.stop(finish=True)
        assert sink.events == ["open", "finish"]

    def test_a_seek_to_the_end_does_not_end_a_pipeline_that_is_kept_open(self):
        sink = FakeSink()
        with StreamPipeline(FakeSource(10), FakeSegmenter(), [sink], keep_open=True) as pipeline:
            pipeline.start(paused=True)
            pipeline.seek(5.0)
            assert eventually(lambda: pipeline.at_end)
            pipeline.seek(0.04)
            assert eventually(lambda: sink.indices == [4])

    @pytest.mark.parametrize("time_s", [-1.0, math.nan, math.inf])
    def test_a_time_that_cannot_be_is_refused(self, time_s):
        with StreamPipeline(FakeSource(10), FakeSegmenter(), [FakeSink()]) as pipeline:
            pipeline.start(paused=True)
            with pytest.raises(ConfigError, match="from 0 s on"):
                pipeline.seek(time_s)

    def test_a_source_that_cannot_seek_is_named(self):
        with StreamPipeline(FakeSource(10, live=True), FakeSegmenter(), [FakeSink()]) as pipeline:
            pipeline.start(paused=True)
            with pytest.raises(SourceError, match="fake cannot be sought in"):
                pipeline.seek(0.0)


class TestReplaceSegmenter:
    def test_no_frame_is_lost_doubled_or_out_of_order(self):
        for _ in RACES:
            slow, fast = FakeSegmenter(1, infer_s=0.001), FakeSegmenter(2)
            sink = FakeSink(wants=frozenset({"rendered"}))
            pipeline = StreamPipeline(FakeSource(200), slow, [sink], in_flight=3)
            pipeline.start()
            assert eventually(lambda sink=sink: len(sink.results) >= 3)
            pipeline.replace_segmenter(fast)
            assert pipeline.wait(5.0)
            assert sink.indices == list(range(200))
            assert slow.submitted + fast.submitted == list(range(200))
            assert slow.taken == slow.submitted
            marks = [int(result.prediction.rendered[0, 0, 0]) for result in sink.results]
            assert marks == [1] * len(slow.submitted) + [2] * len(fast.submitted)
            assert fast.submitted

    def test_the_old_one_is_released_when_it_is_not_used_any_more(self):
        old, unused, new, released = FakeSegmenter(), FakeSegmenter(), FakeSegmenter(), []
        old.gate.clear()
        pipeline = StreamPipeline(FakeSource(20), old, [FakeSink()])
        start_read_ahead(pipeline)
        assert eventually(lambda: old.submitted == [0, 1])
        pipeline.replace_segmenter(unused, release=lambda: released.append(("old", list(old.taken))))
        pipeline.replace_segmenter(new, release=lambda: released.append(("unused", list(unused.taken))))
        assert settles_at(lambda: len(released), 0)
        old.gate.set()
        assert pipeline.wait(5.0)
        assert released == [("old", old.submitted), ("unused", [])]
        assert old.submitted + new.submitted == list(range(20))

    def test_release_comes_at_the_latest_when_inference_ends(self):
        released = threading.Event()
        with StreamPipeline(FakeSource(10), FakeSegmenter(), [FakeSink()]) as pipeline:
            pipeline.start(paused=True)
            pipeline.replace_segmenter(FakeSegmenter(), release=released.set)
        assert released.is_set()

    def test_while_paused_the_next_step_uses_it(self):
        old, new = FakeSegmenter(), FakeSegmenter()
        with StreamPipeline(FakeSource(10), old, [FakeSink()]) as pipeline:
            pipeline.start(paused=True)
            pipeline.replace_segmenter(new)
            pipeline.step()
            assert eventually(lambda: new.taken == [0])
        assert not old.submitted


def timed_stop(pipeline: StreamPipeline) -> float:
    started_s = time.monotonic()
    assert pipeline.stop()
    return time.monotonic() - started_s


class TestStop:
    def test_drops_what_is_queued_and_aborts_the_sinks(self):
        for _ in RACES:
            source, sink, shown = FakeSource(ENDLESS), FakeSink(write_s=0.001), FakeSink("shown", live=True)
            pipeline = StreamPipeline(source, FakeSegmenter(), [sink, shown])
            pipeline.start()
            assert eventually(lambda sink=sink: len(sink.results) >= 2)
            assert timed_stop(pipeline) < 2.0
            assert pipeline.state is PipelineState.STOPPED
            assert sink.events == shown.events == ["open", "abort"]
            assert source.closed
            assert pipeline.wait(0)

    def test_while_paused(self):
        for _ in RACES:
            sink = FakeSink()
            pipeline = StreamPipeline(FakeSource(ENDLESS), FakeSegmenter(), [sink])
            pipeline.start()
            pipeline.pause()
            assert timed_stop(pipeline) < 2.0
            assert sink.events == ["open", "abort"]

    @pytest.mark.parametrize("close_frees", [True, False])
    @pytest.mark.parametrize("where", ["read", "seek"])
    def test_while_the_source_hangs(self, where, close_frees, caplog):
        hang = {"hang_at": 5} if where == "read" else {"hang_in_seek": True}
        before = pipeline_threads()
        source, sink = FakeSource(**hang, close_frees=close_frees), FakeSink()
        pipeline = StreamPipeline(source, FakeSegmenter(), [sink])
        pipeline.start(paused=where == "seek")
        if where == "seek":
            pipeline.seek(0.05)
        assert source.hangs.wait(5.0)
        assert timed_stop(pipeline) < 2.0
        assert source.closed
        assert sink.events == ["open", "abort"]
        assert pipeline.state is PipelineState.STOPPED
        assert eventually(lambda: len(pipeline_threads()) == len(before) + (not close_frees), 1.0)
        assert ("reader thread does not return" in caplog.text) is not close_frees
        source.free.set()

    def test_while_a_sink_hangs(self, caplog):
        stuck, other = FakeSink("stuck", hold=True), FakeSink("other")
        pipeline = StreamPipeline(FakeSource(ENDLESS), FakeSegmenter(), [stuck, other])
        pipeline.start()
        assert stuck.writing.wait(5.0)
        assert timed_stop(pipeline) < 2.0
        assert other.events == ["open", "abort"]
        assert "sink 0 (stuck)" in caplog.text
        stuck.gate.set()
        assert eventually(lambda: stuck.events == ["open", "abort"])

    def test_while_the_segmenter_hangs(self):
        segmenter, sink = FakeSegmenter(), FakeSink()
        segmenter.gate.clear()
        pipeline = StreamPipeline(FakeSource(ENDLESS), segmenter, [sink])
        pipeline.start()
        assert segmenter.waits.wait(5.0)
        assert timed_stop(pipeline) < 2.0
        assert sink.events == ["open", "abort"]
        segmenter.gate.set()

    def test_during_seeks(self):
        for seed in RACES:
            pipeline = StreamPipeline(FakeSource(ENDLESS), FakeSegmenter(), [FakeSink()])
            pipeline.start(paused=seed % 2 == 0)
            for index in range(seed % 7):
                pipeline.seek(index / FPS)
            assert timed_stop(pipeline) < 2.0

    def test_before_the_start_and_twice(self):
        source, sink = FakeSource(), FakeSink()
        pipeline = StreamPipeline(source, FakeSegmenter(), [sink])
        assert pipeline.stop()
        assert pipeline.stop()
        assert pipeline.state is PipelineState.STOPPED
        assert source.closed
        assert sink.events == []
        with pytest.raises(PipelineError, match="stopped already"):
            pipeline.start()

    def test_after_the_end_changes_nothing(self):
        sink = FakeSink()
        pipeline = run(FakeSource(), sink)
        assert pipeline.stop()
        assert pipeline.stop(finish=True)
        assert pipeline.state is PipelineState.FINISHED
        assert sink.events == ["open", "finish"]

    def test_the_context_manager_stops(self):
        sink = FakeSink()
        with StreamPipeline(FakeSource(hang_at=3), FakeSegmenter(), [sink]) as pipeline:
            pipeline.start()
        assert pipeline.state is PipelineState.STOPPED
        assert sink.events == ["open", "abort"]

    def test_from_a_sink(self):
        pipeline = StreamPipeline(
            FakeSource(ENDLESS), FakeSegmenter(), [FakeSink(on_write=lambda result: pipeline.stop() and None)]
        )
        pipeline.start()
        assert pipeline.wait(2.0)
        assert pipeline.state is PipelineState.STOPPED


class TestStopWithFinish:
    def test_delivers_what_was_read_and_finishes(self):
        for _ in RACES:
            source, sink = FakeSource(ENDLESS), FakeSink(write_s=0.001)
            pipeline = StreamPipeline(source, FakeSegmenter(), [sink])
            pipeline.start()
            assert eventually(lambda sink=sink: len(sink.results) >= 2)
            assert pipeline.stop(finish=True)
            assert pipeline.state is PipelineState.FINISHED
            assert sink.events == ["open", "finish"]
            assert sink.indices == list(range(pipeline.stats.frames_in))
            assert source.closed

    def test_while_paused_it_delivers_what_the_segmenter_was_given(self):
        segmenter, sink = FakeSegmenter(), FakeSink()
        segmenter.gate.clear()
        pipeline = StreamPipeline(FakeSource(ENDLESS), segmenter, [sink])
        start_read_ahead(pipeline)
        assert eventually(lambda: segmenter.submitted == [0, 1])
        pipeline.pause()
        segmenter.gate.set()
        assert pipeline.stop(finish=True)
        assert sink.indices == [0, 1]
        assert sink.events == ["open", "finish"]

    @pytest.mark.parametrize("close_frees", [True, False])
    def test_while_the_source_hangs(self, close_frees):
        source, sink = FakeSource(hang_at=5, close_frees=close_frees), FakeSink()
        pipeline = StreamPipeline(source, FakeSegmenter(), [sink])
        pipeline.start()
        assert source.hangs.wait(5.0)
        started_s = time.monotonic()
        assert pipeline.stop(finish=True)
        assert time.monotonic() - started_s < 2.0
        assert pipeline.state is PipelineState.FINISHED
        assert sink.indices == list(range(5))
        source.free.set()

    def test_can_be_cut_short_by_a_second_stop(self):
        sink = FakeSink(hold=True)
        pipeline = StreamPipeline(FakeSource(ENDLESS), FakeSegmenter(), [sink])
        pipeline.start()
        assert sink.writing.wait(5.0)
        assert not pipeline.stop(finish=True, timeout_s=0.05)
        threading.Timer(0.05, sink.gate.set).start()
        assert timed_stop(pipeline) < 2.0
        assert pipeline.state is PipelineState.STOPPED
        assert sink.events == ["open", "abort"]


class TestErrors:
    @pytest.mark.parametrize(
        ("where", "kind", "message"),
        [
            ("read", SourceError, "frame 5 is broken"),
            ("seek", SourceError, "no way there"),
            ("submit", RuntimeError, "frame 5 was refused"),
            ("result", RuntimeError, "inference of frame 5 failed"),
            ("annotate", ZeroDivisionError, "modulo by zero"),
            ("open", OSError, "bad cannot open"),
            ("write", OSError, "bad cannot write"),
            ("finish", OSError, "bad cannot finish"),
        ],
    )
    def test_the_error_of_any_stage_reaches_the_caller_and_aborts_the_sinks(self, where, kind, message):
        source = FakeSource(fail_at=5 if where == "read" else None, fail_in_seek=where == "seek")
        segmenter = FakeSegmenter(fail_at=5 if where == "result" else None)
        segmenter.fail_submit_at = 5 if where == "submit" else None
        wants = frozenset({"rendered"})
        bad, good = FakeSink("bad", wants, fails={where}), FakeSink("good", wants, hold=where in ("open", "write"))
        annotate = (lambda rendered, stats: 1 // 0) if where == "annotate" else None
        pipeline = StreamPipeline(source, segmenter, [bad, good], annotate=annotate)
        pipeline.start(paused=where == "seek")
        if where == "seek":
            pipeline.seek(0.02)
        threading.Timer(0.1, good.gate.set).start()
        with pytest.raises(kind, match=message) as first:
            pipeline.wait(5.0)
        with pytest.raises(kind) as second:
            pipeline.wait(5.0)
        assert first.value is second.value is pipeline.error
        assert any("thread" in note for note in first.value.__notes__)
        assert pipeline.state is PipelineState.FAILED
        assert bad.events[-1] == "abort"
        if where != "finish":  # by then the other one has finished rightly
            assert good.events == ["open", "abort"]
        assert source.closed

    def test_while_paused(self):
        sink = FakeSink()
        pipeline = StreamPipeline(FakeSource(fail_at=2), FakeSegmenter(), [sink])
        pipeline.start(paused=True)
        with pytest.raises(SourceError, match="frame 2 is broken"):
            pipeline.wait(5.0)
        assert sink.events == ["open", "abort"]
        assert pipeline.state is PipelineState.FAILED

    def test_while_a_sink_holds_everybody_up(self):
        stuck, bad = FakeSink("stuck", hold=True), FakeSink("bad", fails={"write"}, hold=True)
        pipeline = StreamPipeline(FakeSource(100), FakeSegmenter(), [stuck, bad])
        pipeline.start()
        assert stuck.writing.wait(5.0)
        bad.gate.set()
        with pytest.raises(OSError, match="bad cannot write"):
            pipeline.wait(5.0)
        stuck.gate.set()

    def test_while_a_live_source_hangs(self):
        source = FakeSource(100, live=True, hang_at=5, read_s=0.002)
        pipeline = StreamPipeline(source, FakeSegmenter(), [FakeSink(fails={"write"})])
        pipeline.start()
        with pytest.raises(OSError, match="cannot write"):
            pipeline.wait(2.0)

    def test_the_first_is_raised_and_the_others_are_logged(self, caplog):
        first, second = (FakeSink(name, fails={"write"}, hold=True) for name in ("first", "second"))
        pipeline = StreamPipeline(FakeSource(100), FakeSegmenter(), [first, second])
        pipeline.start()
        assert first.writing.wait(5.0)
        assert second.writing.wait(5.0)
        first.gate.set()
        assert eventually(lambda: first.events == ["open", "abort"])
        second.gate.set()
        with caplog.at_level(logging.WARNING), pytest.raises(OSError, match="first cannot write"):
            pipeline.wait(5.0)
        assert "second cannot write" in caplog.text

    def test_stop_does_not_raise_what_wait_raised(self):
        with StreamPipeline(FakeSource(fail_at=0), FakeSegmenter(), [FakeSink()]) as pipeline:
            pipeline.start()
            assert eventually(lambda: pipeline.state is PipelineState.FAILED)
        with pytest.raises(SourceError):
            pipeline.stop(finish=True)


CALLS = {
    "pause": lambda pipeline: pipeline.pause(),
    "resume": lambda pipeline: pipeline.resume(),
    "step": lambda pipeline: pipeline.step(),
    "seek": lambda pipeline: pipeline.seek(0.0),
    "replace_segmenter": lambda pipeline: pipeline.replace_segmenter(FakeSegmenter()),
    "wait": lambda pipeline: pipeline.wait(),
    "drain": lambda pipeline: pipeline.drain(),
}


class TestCallsInEveryState:
    @pytest.mark.parametrize("call", CALLS)
    def test_before_the_start_all_say_what_to_do(self, call):
        pipeline = StreamPipeline(FakeSource(), FakeSegmenter(), [FakeSink()])
        with pytest.raises(PipelineError, match=f"{call}: .* call start"):
            CALLS[call](pipeline)
        assert pipeline.stats.frames_in == 0

    @pytest.mark.parametrize("call", ["resume", "step", "seek", "replace_segmenter"])
    def test_after_the_end_what_cannot_be_is_refused(self, call):
        pipeline = run(FakeSource(), FakeSink())
        with pytest.raises(PipelineError, match=f"{call}: the pipeline is finished"):
            CALLS[call](pipeline)

    @pytest.mark.parametrize("call", ["pause", "wait", "drain"])
    def test_after_the_end_what_is_true_already_is_accepted(self, call):
        pipeline = run(FakeSource(), FakeSink())
        CALLS[call](pipeline)
        assert pipeline.state is PipelineState.FINISHED

    def test_a_pipeline_starts_once(self):
        with StreamPipeline(FakeSource(), FakeSegmenter(), [FakeSink()]) as pipeline:
            pipeline.start()
            with pytest.raises(PipelineError, match="already; make a new one"):
                pipeline.start()

    def test_waiting_on_a_thread_of_its_own_is_refused(self):
        pipeline = StreamPipeline(FakeSource(), FakeSegmenter(), [FakeSink(on_write=lambda result: pipeline.wait())])
        pipeline.start()
        with pytest.raises(PipelineError, match="wait for itself"):
            pipeline.wait(5.0)

    def test_waiting_can_time_out(self):
        with StreamPipeline(FakeSource(hang_at=0), FakeSegmenter(), [FakeSink()]) as pipeline:
            pipeline.start()
            assert not pipeline.wait(0.01)

    def test_any_calls_in_any_order_leave_a_pipeline_that_stops(self):
        for seed in range(12):
            rng = random.Random(seed)
            source = FakeSource(250, read_s=0.0002)
            sinks = [FakeSink("every", write_s=0.0005), FakeSink("shown", live=True, write_s=0.001)]
            pipeline = StreamPipeline(source, FakeSegmenter(), sinks, keep_open=True, realtime=seed % 3 == 0, speed=20)
            pipeline.start()

            def play(rng: random.Random = rng, pipeline: StreamPipeline = pipeline) -> None:
                for _ in range(40):
                    try:
                        rng.choice([*list(CALLS.values())[:3], lambda p: p.seek(rng.random() * 2)])(pipeline)
                    except BsdnetError:
                        continue  # a step while running
                    time.sleep(rng.random() * 0.002)

            threads = [threading.Thread(target=play) for _ in range(3)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            pipeline.pause()
            settled(lambda sinks=sinks: len(sinks[0].results), 0.03)
            pipeline.seek(1.0)
            assert eventually(lambda sinks=sinks: sinks[0].indices[-1] == sinks[1].indices[-1] == 100)
            assert timed_stop(pipeline) < 2.0
            epochs = [result.frame.epoch for result in sinks[0].results]
            assert epochs == sorted(epochs)


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
                assert eventually(lambda: sink.indices == [0, 100], 1.0)
            elif call == "pause":
                pipeline.pause()
                pipeline.step()
                assert eventually(lambda: sink.indices == [0, 1], 1.0)
            elif call == "stop":
                assert timed_stop(pipeline) < 2.0
            else:
                assert pipeline.stop(finish=True, timeout_s=1.0)

    def test_a_live_source_is_not_paced(self):
        started_s = time.monotonic()
        run(FakeSource(20, live=True), FakeSink(), realtime=True, speed=0.001)
        assert time.monotonic() - started_s < 2.0


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


def test_pictures_are_handed_on_as_they_are():
    sink = FakeSink()
    run(FakeSource(1), sink)
    np.testing.assert_array_equal(sink.results[0].frame.rgb, np.zeros((2, 3, 3), np.uint8))
