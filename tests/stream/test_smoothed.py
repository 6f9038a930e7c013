"""A stream begins anew where its frames do not follow one another."""

from types import SimpleNamespace

import numpy as np
import pytest

from bsdnet.picture import Picture
from bsdnet.stream.frame import Frame
from bsdnet.stream.pipeline import StreamPipeline
from bsdnet.stream.smoothed import SmoothedSegmenter

from .fakes import FakeSegmenter, FakeSink, FakeSource, eventually, settles_at
from .running import run


class SpySmoother:
    def __init__(self):
        self.resets = 0

    def reset(self):
        self.resets += 1


@pytest.fixture
def smoothed(monkeypatch):
    monkeypatch.setattr("bsdnet.stream.smoothed.Smoother", SpySmoother)
    return SmoothedSegmenter(SimpleNamespace(submit=lambda picture, **options: options))


def frame_at(time_s, epoch=0):
    return Frame(picture=Picture(planes=(np.zeros((2, 2, 3), np.uint8),)), index=0, pts=0, time_s=time_s, epoch=epoch)


@pytest.mark.parametrize(
    ("after", "resets"),
    [
        pytest.param(frame_at(10.04), 0, id="next"),
        pytest.param(frame_at(10.4), 0, id="some frames were lost"),
        pytest.param(frame_at(10.6), 1, id="a gap"),
        pytest.param(frame_at(9.96), 1, id="backwards"),
        pytest.param(frame_at(10.0), 1, id="no time has passed"),
        pytest.param(frame_at(10.04, epoch=1), 1, id="a seek, to the next frame"),
    ],
)
def test_only_frames_that_follow_are_averaged(smoothed, after, resets):
    smoothed.follow(frame_at(10.0))
    smoother = smoothed.submit(frame_at(10.0).picture)["smoother"]
    before = smoother.resets
    smoothed.follow(after)
    assert smoother.resets - before == resets
    assert smoothed.submit(after.picture)["smoother"] is smoother


def test_each_stream_has_a_smoother_of_its_own(smoothed):
    other = SmoothedSegmenter(smoothed._segmenter)
    picture = frame_at(0).picture
    assert other.submit(picture)["smoother"] is not smoothed.submit(picture)["smoother"]


def test_what_is_asked_for_is_passed_on(smoothed):
    assert smoothed.submit(frame_at(0).picture, outputs={"rendered"})["outputs"] == {"rendered"}


def test_a_pipeline_tells_of_each_frame_right_before_it_submits_it():
    segmenter, told = FakeSegmenter(), []
    run(
        FakeSource(8),
        FakeSink(),
        segmenter=segmenter,
        on_frame=lambda frame: told.append((frame.index, len(segmenter.submitted))),
    )
    assert told == [(index, index) for index in range(8)]


def test_a_pipeline_tells_of_the_epoch_after_a_seek():
    told, sink = [], FakeSink()
    with StreamPipeline(FakeSource(100), FakeSegmenter(), [sink], on_frame=told.append) as pipeline:
        pipeline.start(paused=True)
        pipeline.step()
        assert eventually(lambda: sink.indices == [0])
        pipeline.seek(0.01)  # to the frame that comes next anyway
        assert settles_at(lambda: len(sink.results), 2)
    assert [(frame.index, frame.epoch) for frame in told] == [(0, 0), (1, 1)]
