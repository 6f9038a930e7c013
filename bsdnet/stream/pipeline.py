"""The way of frames from a source through a segmenter to sinks, each on a thread of its own."""

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from types import TracebackType
from typing import Self

from bsdnet.errors import ConfigError, PipelineError
from bsdnet.picture import Picture
from bsdnet.runtime.prediction import Output, Prediction, PredictionHandle
from bsdnet.stream.flow import INFERENCE, READER, Ending, Flow, Job, Outlet, PipelineState
from bsdnet.stream.frame import Frame, StreamResult
from bsdnet.stream.interfaces import SegmenterLike, VideoSink, VideoSource
from bsdnet.stream.pacing import Pacer
from bsdnet.stream.replacements import Replacements
from bsdnet.stream.stats import StatsRecorder, StreamStats

__all__ = ["Annotate", "PipelineState", "SegmenterLike", "StreamPipeline"]

logger = logging.getLogger(__name__)

Annotate = Callable[[Picture, StreamStats], Picture]
"""Draws on the rendered picture, in place or on a copy, and returns it."""

_STOP_S = 2.0  # the longest that stop() waits
_ABORT_S = 1.2  # threads that hang in foreign code for longer than this are left behind
_READ_GRACE_S = 0.3  # a reader that is still in read() after this is freed by closing its source under it
_HUD_REFRESH_S = 0.25  # numbers that change with every frame cannot be read


class StreamPipeline:
    """Reads frames, segments them and hands them to sinks; controlled from any thread.

    A file loses no frame: each stage waits for the next one through a bounded queue. Of a live source only the newest
    frame is kept until inference is free; a live sink is given only the newest result. All calls return at once, but
    for `wait`, `drain` and `stop`. Used as a context manager, the pipeline is stopped at the end.

    Args:
        source: where frames come from; the pipeline closes it.
        segmenter: what makes predictions; it is asked for the union of what the sinks want.
        sinks: where results go, at least one; a sink's methods are all called on one thread of its own.
        in_flight: frames of a file that the segmenter works on at once. A live source has one: a second would only
            grow old behind it.
        queue_frames: frames that may wait before inference, and results before each sink that is not live.
        max_frames: end after so many frames; None for all.
        max_time_s: end before the frame that comes so many seconds or more after the first one; None for all.
        keep_open: at the source's end pause, so that `seek` still works, instead of finishing.
        realtime: play a file by its timestamps rather than as fast as possible; late frames are shown late, not left
            out.
        speed: seconds of the stream to play in one second of `realtime`.
        annotate: draws on each rendered picture, once, before the sinks get it; its statistics are up to 0.25 s old.
        on_frame: is told of each frame, on the inference thread, right before the segmenter gets its picture.

    Raises:
        ConfigError: a setting has a value that cannot work.
    """

    def __init__(
        self,
        source: VideoSource,
        segmenter: SegmenterLike,
        sinks: Sequence[VideoSink],
        *,
        in_flight: int = 2,
        queue_frames: int = 4,
        max_frames: int | None = None,
        max_time_s: float | None = None,
        keep_open: bool = False,
        realtime: bool = False,
        speed: float = 1.0,
        annotate: Annotate | None = None,
        on_frame: Callable[[Frame], None] | None = None,
    ) -> None:
        if not sinks:
            raise ConfigError("a pipeline got no sinks, so nobody would see its results; give it at least one")
        for name, value in (("in_flight", in_flight), ("queue_frames", queue_frames), ("max_frames", max_frames)):
            if value is not None and value < 1:
                raise ConfigError(f"{name} is {value}; a pipeline needs at least 1")
        if max_time_s is not None and not max_time_s > 0:
            raise ConfigError(f"the duration, max_time_s, is {max_time_s}; expected seconds above 0")
        self._source = source
        self._info = source.info
        self._segmenter = segmenter
        self._sinks = tuple(sinks)
        self._outputs: frozenset[Output] = frozenset().union(*(sink.wants for sink in sinks))
        self._in_flight = 1 if self._info.live else in_flight
        self._annotate = annotate
        self._on_frame = on_frame
        self._hud: tuple[float, StreamStats] | None = None
        self._pending: deque[tuple[Job, PredictionHandle]] = deque()  # the inference thread's
        self._replacements = Replacements()
        self._threads: list[threading.Thread] = []
        self._recorder = StatsRecorder([(sink.name, sink.live) for sink in sinks])
        self._speed, pacer = speed, Pacer(speed)  # it refuses a speed that is none, whether it paces or not
        self._flow = Flow(
            self._info,
            [sink.live for sink in sinks],
            self._recorder,
            capacity=queue_frames,
            max_frames=math.inf if max_frames is None else max_frames,
            max_time_s=math.inf if max_time_s is None else max_time_s,
            keep_open=keep_open,
            pacer=pacer if realtime and not self._info.live else None,
        )
        self._outlets_live_first = sorted(self._flow.outlets, key=lambda outlet: not outlet.live)

    @property
    def state(self) -> PipelineState:
        """Where the pipeline is in its life."""
        return self._flow.state

    @property
    def error(self) -> BaseException | None:
        """What the pipeline failed of, which `wait` raises; None if nothing went wrong."""
        return self._flow.error

    @property
    def at_end(self) -> bool:
        """Whether all frames up to the source's end have gone to the segmenter; with `keep_open` it is then paused."""
        return self._flow.is_exhausted()

    @property
    def stats(self) -> StreamStats:
        """How the stream is doing; once it has ended, how it was doing then."""
        read_ahead, queued = self._flow.depths()
        return self._recorder.snapshot(
            lost=self._source.lost_frames,
            signal=self._source.signal,
            read_ahead=read_ahead,
            in_flight=len(self._pending),
            queued=queued,
        )

    @property
    def speed(self) -> float:
        """Seconds of the stream played in one second of realtime; may be set at any time."""
        return self._speed

    @speed.setter
    def speed(self, speed: float) -> None:
        self._flow.set_pacer(Pacer(speed))
        self._speed = speed

    def start(self, *, paused: bool = False) -> None:
        """Start reading, and unless `paused`, playing. Errors of source, segmenter and sinks come out of `wait`.

        Raises:
            PipelineError: it was started or stopped before.
        """
        bodies: dict[str, Callable[[], None]] = {READER: self._read_frames, INFERENCE: self._infer_frames}
        for outlet, sink in zip(self._flow.outlets, self._sinks, strict=True):
            bodies[f"sink {outlet.number} ({sink.name})"] = partial(self._write_results, outlet, sink)
        self._flow.start(tuple(bodies), paused=paused)
        self._recorder.start()
        self._threads = [_thread(name, partial(self._run, name, body)) for name, body in bodies.items()]
        self._threads.append(_thread("supervisor", self._supervise))
        for thread in self._threads:
            thread.start()

    def pause(self) -> None:
        """Give the segmenter no more frames until `resume`; those that it works on are still delivered.

        Does nothing if the pipeline is paused already or at its end.

        Raises:
            PipelineError: it was not started.
        """
        self._flow.pause()

    def resume(self) -> None:
        """Play on. Does nothing if the pipeline is playing.

        Raises:
            PipelineError: it was not started, or is at its end.
        """
        self._flow.resume()

    def step(self) -> None:
        """Play one frame while paused.

        Raises:
            PipelineError: it is not paused.
        """
        self._flow.step()

    def seek(self, time_s: float) -> None:
        """Go on from `time_s` in seconds from the stream's start; while paused play that one frame.

        Frames of before are dropped wherever they are, but for one that a sink is writing at this moment. Of several
        calls in quick succession the last counts.

        Raises:
            ConfigError: `time_s` is negative or not finite.
            SourceError: the source cannot seek.
            PipelineError: the pipeline was not started, or is at its end.
        """
        if not 0 <= time_s < math.inf:
            raise ConfigError(f"seek to {time_s} s; a time from 0 s on was expected")
        self._flow.seek(time_s)

    def replace_segmenter(self, segmenter: SegmenterLike, *, release: Callable[[], None] | None = None) -> None:
        """Let `segmenter` have the frames from the next one on; those before are finished by the old one, in order.

        Args:
            segmenter: the new one.
            release: called on the inference thread once the old one is not used any more, at the latest when
                inference ends: its `close`, for example.

        Raises:
            PipelineError: the pipeline was not started, or is at its end.
        """
        self._flow.require_active("replace_segmenter")
        self._replacements.add((segmenter, release))

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until the pipeline has ended; a paused one does not end by itself.

        Returns:
            Whether it has ended within `timeout_s` seconds (None: wait for ever).

        Raises:
            PipelineError: it was not started, or this is one of its own threads.
            Exception: the first error of any stage, as it was raised there; later ones are logged.
        """
        if self.state is PipelineState.IDLE:
            raise PipelineError("wait: the pipeline has not been started; call start() first")
        if threading.current_thread() in self._threads:
            raise PipelineError("wait: called from one of the pipeline's own threads, which would wait for itself")
        ended = self._flow.wait_for(lambda flow: flow.state.ended, timeout_s)
        if ended and self.error is not None:
            raise self.error
        return ended

    def drain(self, timeout_s: float | None = None) -> bool:
        """Play to the end of the source, even if paused or `keep_open`, and wait like `wait`."""
        self._flow.resume(to_end=True)
        return self.wait(timeout_s)

    def stop(self, *, finish: bool = False, timeout_s: float | None = None) -> bool:
        """End the pipeline from any state; does nothing if it has ended.

        Args:
            finish: read no more, deliver what was read (while paused: what the segmenter was given), finish the
                sinks, and wait like `wait`, raising what it raises. Else drop everything and abort the sinks.
            timeout_s: longest wait; None is two seconds, or for ever with `finish`. Threads that hang in a source,
                segmenter or sink are left behind.

        Returns:
            Whether it has ended. A call from one of the pipeline's own threads does not wait.
        """
        was_idle = self.state is PipelineState.IDLE
        self._flow.end(Ending.FINISH if finish else Ending.ABORT)
        if was_idle and self.state.ended:
            self._close_source()
        if threading.current_thread() in self._threads:
            return self.state.ended
        if finish:
            return self.wait(timeout_s)
        return self._flow.wait_for(lambda flow: flow.state.ended, _STOP_S if timeout_s is None else timeout_s)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.stop()

    # The threads

    def _run(self, name: str, body: Callable[[], None]) -> None:
        try:
            body()
        except BaseException as error:  # whatever it is, the other threads must not wait for this one
            self._fail(name, error)
        finally:
            self._flow.thread_ended(name)

    def _fail(self, name: str, error: BaseException) -> None:
        error.add_note(f"It was raised in the pipeline's {name} thread.")
        if name == READER and self._flow.ending is not None:
            logger.debug("the source failed when it was not needed any more", exc_info=error)
        elif not self._flow.end(Ending.ABORT, error):
            logger.warning("the %s failed too, after the pipeline was aborted: %s", name, error)

    def _read_frames(self) -> None:
        try:
            while (turn := self._flow.next_read()) is not None:
                epoch, seek_to_s = turn
                if seek_to_s is not None:
                    self._source.seek(seek_to_s)
                started_s = time.perf_counter()
                frame = self._source.read()
                decode_s = time.perf_counter() - started_s
                if frame is not None and epoch:
                    frame = replace(frame, epoch=epoch)
                self._flow.put_frame(frame, epoch, decode_s)
        except BaseException as error:
            self._fail(READER, error)  # before the source is closed, which may take its time
        finally:
            self._close_source()

    def _close_source(self) -> None:
        try:
            self._source.close()
        except Exception as error:
            logger.warning("%s could not be closed: %s", self._info.name, error)

    def _infer_frames(self) -> None:
        try:
            while self._flow.ending is not Ending.ABORT:
                job = self._flow.take_frame(wait=not self._pending)
                if job is not None:
                    self._submit(job)
                elif not self._pending:
                    return
                if job is None or len(self._pending) == self._in_flight:
                    self._collect()
        finally:
            self._replacements.close()
            self._swap_segmenter()

    def _submit(self, job: Job) -> None:
        if self._replacements:
            while self._pending:
                self._collect()
            self._swap_segmenter()
        if self._on_frame:
            self._on_frame(job.frame)
        self._pending.append((job, self._segmenter.submit(job.frame.picture, outputs=self._outputs)))

    def _swap_segmenter(self) -> None:
        while self._replacements:
            self._segmenter, release = self._replacements.take()
            if release:
                release()

    def _collect(self) -> None:
        job, handle = self._pending[0]
        prediction = handle.result()
        self._pending.popleft()
        if self._flow.is_current(job.frame):
            self._deliver(job, prediction)

    def _deliver(self, job: Job, prediction: Prediction) -> None:
        render_s = None
        if prediction.rendered is not None:
            started_s = time.perf_counter()
            if self._annotate:
                prediction = replace(prediction, rendered=self._annotate(prediction.rendered, self._hud_stats()))
            render_s = prediction.render_s + time.perf_counter() - started_s
        self._recorder.frame_inferred(prediction.infer_s, render_s)
        result = StreamResult(frame=job.frame, prediction=prediction)
        for outlet in self._outlets_live_first:  # they never make the others wait
            self._flow.put_result(outlet, result, job.read_at_s)

    def _hud_stats(self) -> StreamStats:
        now_s = time.perf_counter()
        if self._hud is None or now_s - self._hud[0] >= _HUD_REFRESH_S or not self._hud[1].fps_out:
            self._hud = now_s, self.stats
        return self._hud[1]

    def _write_results(self, outlet: Outlet, sink: VideoSink) -> None:
        finished = False
        try:
            sink.open(self._info)
            while (item := self._flow.next_result(outlet)) is not None:
                result, read_at_s = item
                started_s = time.perf_counter()
                sink.write(result)
                now_s = time.perf_counter()
                self._recorder.frame_written(outlet.number, now_s - started_s, now_s - read_at_s)
            if self._flow.ending is not Ending.ABORT:
                sink.finish()
                finished = True
        finally:
            if not finished:
                sink.abort()

    def _supervise(self) -> None:
        """See to it that an end which has begun comes about, whatever hangs, and say when it has."""
        flow = self._flow
        flow.wait_for(lambda flow: flow.ending is not None)
        if not flow.wait_for(lambda flow: READER not in flow.alive, _READ_GRACE_S):
            # On a thread of its own, because a close() may hang as well.
            _thread("closer", self._close_source).start()
        flow.wait_for(lambda flow: not flow.alive - {READER} or flow.ending is Ending.ABORT)
        flow.wait_for(lambda flow: not flow.alive, _ABORT_S)
        for name in flow.alive.copy():
            logger.warning("the pipeline's %s thread does not return; it is left behind", name)
        self._recorder.end()
        flow.settle()


def _thread(name: str, target: Callable[[], None]) -> threading.Thread:
    return threading.Thread(target=target, name=f"bsdnet {name}", daemon=True)
