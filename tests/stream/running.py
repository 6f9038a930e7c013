"""Helpers that run pipelines."""

import threading
import time

from bsdnet.stream.pipeline import StreamPipeline

from .fakes import FakeSegmenter, FakeSink, FakeSource, eventually

STOP_LIMIT_S = 8.0
"""A pipeline stops within two seconds; a machine that stalls may take longer."""
RACES = range(50)
"""How often a race is run."""


def pipeline_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("bsdnet ")]


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


def timed_stop(pipeline: StreamPipeline) -> float:
    started_s = time.monotonic()
    assert pipeline.stop(timeout_s=STOP_LIMIT_S)
    return time.monotonic() - started_s
