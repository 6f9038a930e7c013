import logging
import threading
import time

import pytest

from bsdnet.errors import PipelineError, SourceError
from bsdnet.stream.pipeline import PipelineState, StreamPipeline

from .fakes import ENDLESS, FPS, FakeSegmenter, FakeSink, FakeSource, eventually
from .running import RACES, STOP_LIMIT_S, pipeline_threads, run, start_read_ahead, timed_stop

pytestmark = [pytest.mark.timeout(30), pytest.mark.usefixtures("no_thread_stays")]


class TestStop:
    def test_drops_what_is_queued_and_aborts_the_sinks(self):
        for _ in RACES:
            source, sink, shown = FakeSource(ENDLESS), FakeSink(write_s=0.001), FakeSink("shown", live=True)
            pipeline = StreamPipeline(source, FakeSegmenter(), [sink, shown])
            pipeline.start()
            assert eventually(lambda sink=sink: len(sink.results) >= 2)
            assert timed_stop(pipeline) < STOP_LIMIT_S
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
            assert timed_stop(pipeline) < STOP_LIMIT_S
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
        assert timed_stop(pipeline) < STOP_LIMIT_S
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
        assert timed_stop(pipeline) < STOP_LIMIT_S
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
        assert timed_stop(pipeline) < STOP_LIMIT_S
        assert sink.events == ["open", "abort"]
        segmenter.gate.set()

    def test_during_seeks(self):
        for seed in RACES:
            pipeline = StreamPipeline(FakeSource(ENDLESS), FakeSegmenter(), [FakeSink()])
            pipeline.start(paused=seed % 2 == 0)
            for index in range(seed % 7):
                pipeline.seek(index / FPS)
            assert timed_stop(pipeline) < STOP_LIMIT_S

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
        assert pipeline.wait(STOP_LIMIT_S)
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
        assert time.monotonic() - started_s < STOP_LIMIT_S
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
        assert timed_stop(pipeline) < STOP_LIMIT_S
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
            pipeline.wait(STOP_LIMIT_S)

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

    def test_a_source_that_cannot_be_closed_spoils_nothing(self, monkeypatch, caplog):
        source, sink = FakeSource(5), FakeSink()
        monkeypatch.setattr(source, "close", lambda: 1 / 0)
        assert run(source, sink).state is PipelineState.FINISHED
        assert sink.events == ["open", "finish"]
        assert "fake could not be closed: division by zero" in caplog.text

    def test_stop_does_not_raise_what_wait_raised(self):
        with StreamPipeline(FakeSource(fail_at=0), FakeSegmenter(), [FakeSink()]) as pipeline:
            pipeline.start()
            assert eventually(lambda: pipeline.state is PipelineState.FAILED)
        with pytest.raises(SourceError):
            pipeline.stop(finish=True)
