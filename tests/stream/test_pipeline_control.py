import math
import random
import threading
import time

import pytest

from bsdnet.errors import BsdnetError, ConfigError, PipelineError, SourceError
from bsdnet.stream.pipeline import PipelineState, StreamPipeline

from .fakes import FPS, FakeSegmenter, FakeSink, FakeSource, eventually, settled, settles_at
from .running import RACES, STOP_LIMIT_S, run, start_read_ahead, timed_stop

pytestmark = [pytest.mark.timeout(30), pytest.mark.usefixtures("no_thread_stays")]


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
        segmenter, sink, drawn = FakeSegmenter(), FakeSink(wants=frozenset({"rendered"})), []
        segmenter.gate.clear()
        pipeline = StreamPipeline(
            FakeSource(60), segmenter, [sink], annotate=lambda picture, stats: drawn.append(picture) or picture
        )
        start_read_ahead(pipeline)
        assert eventually(lambda: segmenter.submitted == [0, 1])
        pipeline.seek(0.5)
        segmenter.gate.set()
        assert pipeline.wait(5.0)
        assert sink.indices == list(range(50, 60))
        assert len(drawn) == 10  # nothing is drawn on what nobody will see

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
            marks = [int(result.prediction.rendered.rgb[0, 0, 0]) for result in sink.results]
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

    def test_it_is_refused_once_inference_has_ended(self, monkeypatch):
        pipeline = StreamPipeline(FakeSource(10), FakeSegmenter(), [FakeSink()])
        pipeline.start()
        assert pipeline.wait(5.0)
        monkeypatch.setattr(pipeline._flow, "require_active", lambda call: None)  # it was, a moment ago
        released = threading.Event()
        with pytest.raises(PipelineError, match="replace_segmenter: the pipeline is coming to its end"):
            pipeline.replace_segmenter(FakeSegmenter(), release=released.set)
        assert not released.is_set()

    def test_while_paused_the_next_step_uses_it(self):
        old, new = FakeSegmenter(), FakeSegmenter()
        with StreamPipeline(FakeSource(10), old, [FakeSink()]) as pipeline:
            pipeline.start(paused=True)
            pipeline.replace_segmenter(new)
            pipeline.step()
            assert eventually(lambda: new.taken == [0])
        assert not old.submitted


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
            assert timed_stop(pipeline) < STOP_LIMIT_S
            epochs = [result.frame.epoch for result in sinks[0].results]
            assert epochs == sorted(epochs)
