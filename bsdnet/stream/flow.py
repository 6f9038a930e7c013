"""What the threads of a pipeline share, behind one lock.

    reader ──inbox──> inference ──outlet──> sink
                                ──outlet──> sink ...

Nothing in here calls a source, segmenter or sink, so the lock is held for microseconds only. Every thread sleeps on a
condition of its own, and every change of plan (seek, end, error) notifies all of them; a reader makes sure of room
before it reads. So a thread waits either for a condition that is notified, or for foreign code outside of here.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum

from bsdnet.errors import PipelineError, SourceError
from bsdnet.stream.frame import Frame, StreamInfo, StreamResult
from bsdnet.stream.pacing import Pacer
from bsdnet.stream.stats import StatsRecorder

READER = "reader"
INFERENCE = "inference"


class PipelineState(Enum):
    """Where a pipeline is in its life."""

    IDLE = "idle"
    """Not started."""
    RUNNING = "running"
    """Frames flow, or the last ones are being written."""
    PAUSED = "paused"
    """Only `step` and `seek` give a frame to the segmenter."""
    STOPPED = "stopped"
    """Ended by `stop`; the sinks were aborted."""
    FAILED = "failed"
    """Ended by an error; the sinks were aborted."""
    FINISHED = "finished"
    """Ended well; every sink has finished."""

    @property
    def ended(self) -> bool:
        """Whether it is one of the three states that a pipeline never leaves."""
        return self in (PipelineState.STOPPED, PipelineState.FAILED, PipelineState.FINISHED)


class Ending(Enum):
    """How a pipeline comes to its end."""

    FINISH = "finish"
    """Read no more, deliver what was read, finish the sinks."""
    ABORT = "abort"
    """Drop everything, abort the sinks."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """A frame on its way."""

    frame: Frame
    """The frame, in the epoch in which it was read."""
    read_at_s: float
    """When it had been read or, of a live source, captured, on the clock of `time.perf_counter`."""


class Outlet:
    """The queue before one sink."""

    def __init__(self, number: int, live: bool, wake: threading.Condition) -> None:
        self.number = number
        self.live = live
        self.wake = wake
        self.results: deque[tuple[StreamResult, float]] = deque()


class Flow:
    """Queues, plans and state of one pipeline. Every method may be called from any thread.

    Args:
        info: what is known of the source.
        sinks_live: for each sink whether it is live, getting only the newest result.
        recorder: is told of frames that are read, dropped and skipped.
        capacity: frames that may wait before inference, and results before each sink that is not live.
        max_frames: frames to give to the segmenter in all; infinite for no limit.
        max_time_s: seconds after the first frame that are taken for the source's end; infinite for no limit.
        keep_open: pause at the source's end instead of finishing.
        pacer: when frames are due; None for as soon as possible.
    """

    def __init__(
        self,
        info: StreamInfo,
        sinks_live: Sequence[bool],
        recorder: StatsRecorder,
        *,
        capacity: int,
        max_frames: float,
        max_time_s: float,
        keep_open: bool,
        pacer: Pacer | None,
    ) -> None:
        self.state = PipelineState.IDLE
        self.ending: Ending | None = None
        self.error: BaseException | None = None
        self.alive: set[str] = set()
        self._info = info
        self._recorder = recorder
        self._capacity = capacity
        self._remaining = max_frames
        self._max_time_s = max_time_s
        self._first_time_s: float | None = None
        self._keep_open = keep_open
        self._pacer = pacer

        self._lock = threading.Lock()
        self._reader_wake = threading.Condition(self._lock)
        self._infer_wake = threading.Condition(self._lock)
        self._changed = threading.Condition(self._lock)
        self._outlets = [Outlet(i, live, threading.Condition(self._lock)) for i, live in enumerate(sinks_live)]

        self._inbox: deque[Job] = deque()
        self._steps = 0
        self._epoch = 0
        self._seek_to_s: float | None = None
        self._source_ended = False

    # What callers plan

    def start(self, threads: Sequence[str], *, paused: bool) -> None:
        """Leave IDLE; `threads` are those that will report to `thread_ended`."""
        with self._lock:
            if self.state is not PipelineState.IDLE:
                raise PipelineError(f"start: the pipeline is {self.state.value} already; make a new one")
            self.state = PipelineState.PAUSED if paused else PipelineState.RUNNING
            self.alive.update(threads)

    def pause(self) -> None:
        """Give the segmenter no more frames."""
        with self._lock:
            self._require_started("pause")
            if self.state is PipelineState.RUNNING and self.ending is None:
                self.state = PipelineState.PAUSED
                self._changed.notify_all()

    def resume(self, *, to_end: bool = False) -> None:
        """Let frames flow again; `to_end` finishes at the source's end, whatever `keep_open` said."""
        with self._lock:
            if to_end:
                self._require_started("drain")
                self._keep_open = False
            else:
                self._require_active("resume")
            if self.state is PipelineState.PAUSED:
                self.state = PipelineState.RUNNING
                self._steps = 0
                if self._pacer:
                    self._pacer.reset()
            self._wake_all()

    def step(self) -> None:
        """Let one more frame through while paused."""
        with self._lock:
            self._require_active("step")
            if self.state is not PipelineState.PAUSED:
                raise PipelineError("step: the pipeline is running; pause it first")
            self._steps += 1
            self._infer_wake.notify()

    def seek(self, time_s: float) -> None:
        """Drop everything that was read and go on from `time_s`; while paused let exactly one frame through."""
        with self._lock:
            self._require_active("seek")
            if not self._info.seekable:
                raise SourceError(f"seek: {self._info.name} cannot be sought in; it only plays on")
            self._epoch += 1
            self._seek_to_s = time_s
            self._source_ended = False
            self._steps = 1 if self.state is PipelineState.PAUSED else 0
            self._clear()
            if self._pacer:
                self._pacer.reset()
            self._wake_all()

    def set_pacer(self, pacer: Pacer) -> None:
        """Change the speed of playback, if the stream is paced at all."""
        with self._lock:
            if self._pacer:
                self._pacer = pacer
                self._infer_wake.notify()

    def require_active(self, call: str) -> None:
        """Raise PipelineError if the pipeline has not been started or is at its end."""
        with self._lock:
            self._require_active(call)

    def end(self, ending: Ending, error: BaseException | None = None) -> bool:
        """Bring the end about; False if an abort is under way or over already.

        The first call with an error decides what the pipeline failed of.
        """
        with self._lock:
            if self.state.ended or self.ending is Ending.ABORT or self.ending is ending:
                return False
            self.error = error
            if self.state is PipelineState.IDLE:
                self.state = PipelineState.STOPPED
            else:
                self._begin(ending)
            return True

    def settle(self) -> None:
        """Enter the final state."""
        with self._lock:
            if self.error is not None:
                self.state = PipelineState.FAILED
            else:
                self.state = PipelineState.FINISHED if self.ending is Ending.FINISH else PipelineState.STOPPED
            self._wake_all()

    # What the stages ask and tell

    def next_read(self) -> tuple[int, float | None] | None:
        """Wait until a frame should be read; its epoch, and the time to seek to first. None: stop reading."""
        with self._lock:
            while self.ending is None:
                if self._seek_to_s is not None or self._has_room():
                    seek_to_s, self._seek_to_s = self._seek_to_s, None
                    return self._epoch, seek_to_s
                self._reader_wake.wait()
            return None

    def put_frame(self, frame: Frame | None, epoch: int, decode_s: float) -> None:
        """Take what was read for `epoch` in `decode_s`, None being the source's end, if it is still wanted."""
        with self._lock:
            if self.ending is not None or epoch != self._epoch:
                return
            if frame is not None and self._first_time_s is None:
                self._first_time_s = frame.time_s
            if frame is None or frame.time_s - (self._first_time_s or 0.0) >= self._max_time_s:
                self._source_ended = True
            else:
                self._recorder.frame_read(decode_s)
                if self._info.live and self._inbox:
                    self._inbox.clear()
                    self._recorder.frame_dropped()
                read_at_s = time.perf_counter() if frame.captured_at_s is None else frame.captured_at_s
                self._inbox.append(Job(frame=frame, read_at_s=read_at_s))
            self._infer_wake.notify()

    def take_frame(self, *, wait: bool) -> Job | None:
        """The next frame to infer.

        Args:
            wait: wait for it. Then None means that there will be none any more, and the end has begun; else None
                means that none is due right now.
        """
        with self._lock:
            while self.ending is not Ending.ABORT:
                delay_s = self._delay_s()
                if delay_s is not None and delay_s <= 0:
                    return self._pop()
                if not wait or (self._flows() and self._is_exhausted() and not self._stays_open()):
                    return None
                self._infer_wake.wait(delay_s)
            return None

    def is_current(self, frame: Frame) -> bool:
        """Whether the frame is still wanted: no seek and no abort came since it was read."""
        with self._lock:
            return self._is_current(frame)

    def put_result(self, outlet: Outlet, result: StreamResult, read_at_s: float) -> None:
        """Queue a result; waits for room if the sink gets every frame, replaces the older one if it is live."""
        with self._lock:
            while not outlet.live and len(outlet.results) >= self._capacity and self._is_current(result.frame):
                self._infer_wake.wait()
            if not self._is_current(result.frame):
                return
            if outlet.live and outlet.results:
                outlet.results.clear()
                self._recorder.frame_skipped(outlet.number)
            outlet.results.append((result, read_at_s))
            outlet.wake.notify()

    def next_result(self, outlet: Outlet) -> tuple[StreamResult, float] | None:
        """Wait for the next result and when its frame was read; None at the end or when aborted."""
        with self._lock:
            while self.ending is not Ending.ABORT:
                if outlet.results:
                    self._infer_wake.notify()
                    return outlet.results.popleft()
                if INFERENCE not in self.alive:
                    return None
                outlet.wake.wait()
            return None

    def thread_ended(self, name: str) -> None:
        """Tell the others that this thread does no more."""
        with self._lock:
            self.alive.discard(name)
            self._wake_all()

    # What those outside see

    @property
    def outlets(self) -> Sequence[Outlet]:
        """The queue of each sink."""
        return self._outlets

    def depths(self) -> tuple[int, list[int]]:
        """Frames that wait for inference, and results that wait for each sink."""
        with self._lock:
            return len(self._inbox), [len(outlet.results) for outlet in self._outlets]

    def is_exhausted(self) -> bool:
        """Whether nothing is left to infer, unless a seek brings more."""
        with self._lock:
            return self._is_exhausted()

    def wait_for(self, condition: Callable[["Flow"], bool], timeout_s: float | None = None) -> bool:
        """Wait until the condition holds; it is looked at whenever a state changes or a thread ends."""
        with self._lock:
            return self._changed.wait_for(lambda: condition(self), timeout_s)

    # Called with the lock held

    def _require_started(self, call: str) -> None:
        if self.state is PipelineState.IDLE:
            raise PipelineError(f"{call}: the pipeline has not been started; call start() first")

    def _require_active(self, call: str) -> None:
        self._require_started(call)
        if self.state.ended or self.ending is not None:
            state = self.state.value if self.state.ended else "coming to its end"
            raise PipelineError(f"{call}: the pipeline is {state} and plays no more; make a new one")

    def _begin(self, ending: Ending) -> None:
        self.ending = ending
        self._source_ended = True
        if ending is Ending.ABORT:
            self._clear()
        elif self.state is PipelineState.PAUSED:
            self._inbox.clear()  # who paused has not seen these frames
        self._wake_all()

    def _clear(self) -> None:
        self._inbox.clear()
        for outlet in self._outlets:
            outlet.results.clear()

    def _wake_all(self) -> None:
        for wake in (self._reader_wake, self._infer_wake, self._changed, *(outlet.wake for outlet in self._outlets)):
            wake.notify_all()

    def _has_room(self) -> bool:
        room = self._info.live or len(self._inbox) < min(self._capacity, self._remaining)
        return room and not self._source_ended

    def _is_exhausted(self) -> bool:
        return self._remaining == 0 or (self._source_ended and not self._inbox)

    def _stays_open(self) -> bool:
        """At the source's end: pause, or begin to finish and return False."""
        if self.ending is None and self._keep_open:
            self.state = PipelineState.PAUSED
            self._steps = 0
            self._changed.notify_all()
            return True
        if self.ending is None:
            self._begin(Ending.FINISH)
        return False

    def _flows(self) -> bool:
        return self.state is PipelineState.RUNNING or self._steps > 0 or self.ending is not None

    def _delay_s(self) -> float | None:
        """Seconds until the next frame is to be inferred, not positive if it is now; None while there is none."""
        if not self._flows() or self._is_exhausted() or not self._inbox:
            return None
        if self._pacer is None or self._steps or self.ending:
            return 0.0
        return self._pacer.delay_s(self._inbox[0].frame.time_s, time.perf_counter())

    def _pop(self) -> Job:
        self._steps = max(0, self._steps - 1)
        self._remaining -= 1
        self._reader_wake.notify()
        return self._inbox.popleft()

    def _is_current(self, frame: Frame) -> bool:
        return frame.epoch == self._epoch and self.ending is not Ending.ABORT
