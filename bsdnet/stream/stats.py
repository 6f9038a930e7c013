"""How a stream is doing: frames in and out, rates, and the latency of every stage."""

import math
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from bsdnet.stream.frame import Signal

Stage = Literal["decode", "infer", "render", "encode", "total"]
"""What is timed: reading a frame; frame to labels; labels to picture; writing to a sink that gets every frame;
and the whole way until a sink had it, from the moment a frame was read, or, of a live source, captured."""

STAGES: tuple[Stage, ...] = ("decode", "infer", "render", "encode", "total")

_RATE_WINDOW_S = 1.5
_RATE_STAMPS = 4096  # bounds the memory; above 2700 frames a second the window shrinks
_LATENCY_SAMPLES = 1024


@dataclass(frozen=True, kw_only=True, slots=True)
class StageLatency:
    """How long one stage takes for a frame; all zero before the first one."""

    count: int = 0
    """Frames measured since the start."""
    mean_ms: float = 0.0
    """Mean since the start, in milliseconds."""
    p50_ms: float = 0.0
    """Median of the last 1024 frames, in milliseconds."""
    p95_ms: float = 0.0
    """95th percentile (nearest rank) of the last 1024 frames, in milliseconds."""
    p99_ms: float = 0.0
    """99th percentile (nearest rank) of the last 1024 frames, in milliseconds."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SinkStats:
    """How one sink is doing."""

    name: str
    """The sink's name."""
    frames: int
    """Frames that it has written."""
    skipped: int
    """Frames that it was not given because a newer one came first; always 0 for a sink that gets every frame."""
    fps: float
    """Frames a second that it writes, over the last 1.5 s."""
    queued: int
    """Results that wait for it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StreamStats:
    """A snapshot of a running or ended stream.

    "Out" is counted at the stream's main sink: the first that gets every frame, or the first if none does.
    """

    frames_in: int
    """Frames that the source gave."""
    frames_out: int
    """Frames that the main sink has written."""
    dropped: int
    """Frames of a live source that were overtaken by a newer one before inference."""
    lost: int
    """Frames that the source could not decode or receive."""
    fps_in: float
    """Frames a second read, over the last 1.5 s."""
    fps_infer: float
    """Frames a second inferred, over the last 1.5 s."""
    fps_out: float
    """Frames a second written by the main sink, over the last 1.5 s."""
    elapsed_s: float
    """Seconds since the start, until the end if it has ended."""
    first_frame_s: float | None
    """Seconds from the start until the main sink had the first frame; None before."""
    latency: Mapping[Stage, StageLatency]
    """Latency of each of `STAGES`."""
    read_ahead: int
    """Frames read that wait for inference."""
    in_flight: int
    """Frames that the segmenter is working on."""
    signal: Signal
    """How well pictures come in from a live source."""
    sinks: tuple[SinkStats, ...]
    """Every sink, in the order in which the pipeline got them."""


class StatsRecorder:
    """Collects what the stages of one stream report. Thread-safe, a few microseconds a frame, bounded memory.

    Args:
        sinks: name of each sink and whether it is live (may skip frames), in the pipeline's order; at least one.
    """

    def __init__(self, sinks: Sequence[tuple[str, bool]]) -> None:
        self._lock = threading.Lock()
        self._sinks = [_Sink(name, live) for name, live in sinks]
        self._main = next((i for i, sink in enumerate(self._sinks) if not sink.live), 0)
        self._read = _Rate()
        self._inferred = _Rate()
        self._dropped = 0
        self._timers: dict[Stage, _Timer] = {stage: _Timer() for stage in STAGES}
        self._started_at: float | None = None
        self._ended_at: float | None = None
        self._first_frame_s: float | None = None

    def start(self) -> None:
        """Start the clock of `elapsed_s` and `first_frame_s`."""
        with self._lock:
            self._started_at = time.perf_counter()

    def end(self) -> None:
        """Stop the clock: what `snapshot` says of rates and elapsed time is that of this moment."""
        with self._lock:
            self._ended_at = time.perf_counter()

    def frame_read(self, decode_s: float) -> None:
        """Count a frame that the source gave after `decode_s` seconds."""
        with self._lock:
            self._read.add(time.perf_counter())
            self._timers["decode"].add(decode_s)

    def frame_dropped(self) -> None:
        """Count a frame that was overtaken before inference."""
        with self._lock:
            self._dropped += 1

    def frame_inferred(self, infer_s: float, render_s: float | None) -> None:
        """Count a prediction; `render_s` is None if nothing was rendered."""
        with self._lock:
            self._inferred.add(time.perf_counter())
            self._timers["infer"].add(infer_s)
            if render_s is not None:
                self._timers["render"].add(render_s)

    def frame_skipped(self, sink: int) -> None:
        """Count a frame that the sink of this number was not given."""
        with self._lock:
            self._sinks[sink].skipped += 1

    def frame_written(self, sink: int, write_s: float, total_s: float) -> None:
        """Count a frame that the sink of this number wrote in `write_s`, `total_s` after it was read or captured."""
        now = time.perf_counter()
        with self._lock:
            self._sinks[sink].written.add(now)
            if not self._sinks[sink].live:
                self._timers["encode"].add(write_s)
            if sink == self._main:
                self._timers["total"].add(total_s)
                if self._first_frame_s is None and self._started_at is not None:
                    self._first_frame_s = now - self._started_at

    def snapshot(
        self,
        *,
        lost: int = 0,
        signal: Signal = Signal(),  # noqa: B008 - it is frozen
        read_ahead: int = 0,
        in_flight: int = 0,
        queued: Sequence[int] | None = None,
    ) -> StreamStats:
        """Sum up.

        Args:
            lost: frames that the source lost so far.
            signal: how well pictures come in.
            read_ahead: frames read that wait for inference.
            in_flight: frames that the segmenter is working on.
            queued: results that wait for each sink; None for nothing.
        """
        with self._lock:
            now = time.perf_counter() if self._ended_at is None else self._ended_at
            sinks = tuple(
                SinkStats(
                    name=sink.name,
                    frames=sink.written.count,
                    skipped=sink.skipped,
                    fps=sink.written.fps(now),
                    queued=waits,
                )
                for sink, waits in zip(self._sinks, queued or [0] * len(self._sinks), strict=True)
            )
            return StreamStats(
                frames_in=self._read.count,
                frames_out=sinks[self._main].frames,
                dropped=self._dropped,
                lost=lost,
                fps_in=self._read.fps(now),
                fps_infer=self._inferred.fps(now),
                fps_out=sinks[self._main].fps,
                elapsed_s=0.0 if self._started_at is None else now - self._started_at,
                first_frame_s=self._first_frame_s,
                latency={stage: timer.latency() for stage, timer in self._timers.items()},
                read_ahead=read_ahead,
                in_flight=in_flight,
                signal=signal,
                sinks=sinks,
            )


class _Rate:
    """Events a second over a sliding window."""

    def __init__(self) -> None:
        self.count = 0
        self._stamps: deque[float] = deque(maxlen=_RATE_STAMPS)

    def add(self, now: float) -> None:
        self.count += 1
        self._stamps.append(now)

    def fps(self, now: float) -> float:
        stamps = self._stamps
        # Two events stay, however old, so that a stream slower than the window has a rate too.
        while len(stamps) > 2 and stamps[1] < now - _RATE_WINDOW_S:
            stamps.popleft()
        if len(stamps) < 2:
            return 0.0
        intervals, span, silence = len(stamps) - 1, stamps[-1] - stamps[0], now - stamps[-1]
        patience = 2 * span / intervals
        if silence > max(patience, _RATE_WINDOW_S):
            return 0.0
        if silence > patience:  # slowing down: the silence counts
            span = now - stamps[0]
        return intervals / span if span > 0 else 0.0


class _Timer:
    """Mean of all durations, and percentiles of the recent ones."""

    def __init__(self) -> None:
        self._count = 0
        self._sum_s = 0.0
        self._recent_s: deque[float] = deque(maxlen=_LATENCY_SAMPLES)

    def add(self, duration_s: float) -> None:
        self._count += 1
        self._sum_s += duration_s
        self._recent_s.append(duration_s)

    def latency(self) -> StageLatency:
        if not self._count:
            return StageLatency()
        recent_ms = 1000 * np.sort(np.fromiter(self._recent_s, np.float64))
        p50, p95, p99 = (float(recent_ms[math.ceil(share * len(recent_ms)) - 1]) for share in (0.5, 0.95, 0.99))
        return StageLatency(
            count=self._count, mean_ms=1000 * self._sum_s / self._count, p50_ms=p50, p95_ms=p95, p99_ms=p99
        )


class _Sink:
    """What is counted for one sink."""

    def __init__(self, name: str, live: bool) -> None:
        self.name = name
        self.live = live
        self.written = _Rate()
        self.skipped = 0
