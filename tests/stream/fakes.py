"""A source, a segmenter and a sink that do what a test says, and note what was done to them."""

import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np

from bsdnet.errors import SourceError
from bsdnet.picture import Picture
from bsdnet.runtime.prediction import Output, Prediction
from bsdnet.stream.frame import Frame, StreamInfo, StreamResult
from bsdnet.stream.interfaces import VideoSink, VideoSource

FPS = 100.0
"""Frame rate of every fake source."""
ENDLESS = 1_000_000
"""Frames of a source that does not end during a test."""


def eventually(condition: Callable[[], bool], timeout_s: float = 5.0) -> bool:
    """Wait for something that other threads bring about."""
    deadline_s = time.monotonic() + timeout_s
    while time.monotonic() < deadline_s:
        if condition():
            return True
        time.sleep(0.002)
    return condition()


def settled(value: Callable[[], int], quiet_s: float = 0.08) -> int:
    """Wait until a number that threads change stays the same."""
    last, since_s = value(), time.monotonic()
    while time.monotonic() - since_s < quiet_s:
        time.sleep(0.005)
        if value() != last:
            last, since_s = value(), time.monotonic()
    return last


def settles_at(value: Callable[[], int], expected: int) -> bool:
    """Wait until a number that threads change is as expected, and see it stay so."""
    return eventually(lambda: value() == expected) and settled(value) == expected


def picture(index: int) -> np.ndarray:
    """A picture that knows its number, below 256."""
    return np.full((2, 3, 3), index % 256, np.uint8)


class FakeSource(VideoSource):
    """Counts from 0 to `num_frames`; hangs or fails where it is told to."""

    def __init__(
        self,
        num_frames: int = 10,
        *,
        live: bool = False,
        seekable: bool = True,
        read_s: float = 0.0,
        fail_at: int | None = None,
        hang_at: int | None = None,
        hang_in_seek: bool = False,
        fail_in_seek: bool = False,
        close_frees: bool = True,
    ) -> None:
        self._info = StreamInfo(
            name="fake", size=(2, 3), fps=FPS, time_base=Fraction(1, 100), live=live, seekable=seekable and not live
        )
        self.num_frames = num_frames
        self.read_s = read_s
        self.fail_at = fail_at
        self.hang_at = hang_at
        self.hang_in_seek = hang_in_seek
        self.fail_in_seek = fail_in_seek
        self.close_frees = close_frees
        self.free = threading.Event()
        self.hangs = threading.Event()
        self.closed = False
        self.reads = 0
        self.seeks: list[float] = []
        self.readers: set[int] = set()
        self._next = 0

    @property
    def info(self) -> StreamInfo:
        return self._info

    @property
    def lost_frames(self) -> int:
        return 3

    def read(self) -> Frame | None:
        self.readers.add(threading.get_ident())
        if self._next == self.hang_at:
            self._hang()
        if self._next == self.fail_at:
            raise SourceError(f"frame {self._next} is broken")
        if self._next >= self.num_frames:
            return None
        time.sleep(self.read_s)
        index, self._next = self._next, self._next + 1
        self.reads += 1
        return Frame(picture=Picture(planes=(picture(index),)), index=index, pts=index, time_s=index / FPS)

    def seek(self, time_s: float) -> None:
        self.readers.add(threading.get_ident())
        if self.hang_in_seek:
            self._hang()
        if self.fail_in_seek:
            raise SourceError("no way there")
        self.seeks.append(time_s)
        self._next = round(time_s * FPS)

    def close(self) -> None:
        self.closed = True
        if self.close_frees:
            self.free.set()

    def _hang(self) -> None:
        self.hangs.set()
        self.free.wait()
        if self.closed:
            raise SourceError("closed under the reader")


class FakeHandle:
    """A prediction that is ready when the segmenter's gate is open."""

    def __init__(self, segmenter: "FakeSegmenter", index: int, prediction: Prediction) -> None:
        self._segmenter = segmenter
        self._index = index
        self._prediction = prediction

    def result(self, timeout_s: float | None = None) -> Prediction:
        self._segmenter.waits.set()
        self._segmenter.gate.wait(timeout_s)
        time.sleep(self._segmenter.infer_s)
        if self._index == self._segmenter.fail_at:
            raise RuntimeError(f"inference of frame {self._index} failed")
        self._segmenter.taken.append(self._index)
        return self._prediction

    def done(self) -> bool:
        return self._segmenter.gate.is_set()


class FakeSegmenter:
    """Predicts each picture's number; marks the rendered one with its own."""

    def __init__(self, mark: int = 0, *, infer_s: float = 0.0, fail_at: int | None = None) -> None:
        self.mark = mark
        self.infer_s = infer_s
        self.fail_at = fail_at
        self.fail_submit_at: int | None = None
        self.gate = threading.Event()
        self.gate.set()
        self.waits = threading.Event()
        self.submitted: list[int] = []
        self.taken: list[int] = []
        self.most_in_flight = 0
        self.outputs: set[frozenset[Output]] = set()

    def submit(self, picture: Picture, *, outputs: frozenset[Output]) -> FakeHandle:
        rgb = picture.rgb
        index = int(rgb[0, 0, 0])
        if index == self.fail_submit_at:
            raise RuntimeError(f"frame {index} was refused")
        self.submitted.append(index)
        self.outputs.add(outputs)
        self.most_in_flight = max(self.most_in_flight, len(self.submitted) - len(self.taken))
        prediction = Prediction(
            labels=rgb[..., 0].copy() if "labels" in outputs else None,
            rendered=Picture(planes=(np.full_like(rgb, self.mark),)) if "rendered" in outputs else None,
            infer_s=0.004,
            render_s=0.002,
        )
        return FakeHandle(self, index, prediction)


@dataclass
class FakeSink(VideoSink):
    """Keeps what it is given; its gate holds up `write`."""

    name: str = "fake"
    wants: frozenset[Output] = frozenset({"labels"})
    live: bool = False
    write_s: float = 0.0
    fails: Iterable[str] = ()
    hold: bool = False
    results: list[StreamResult] = field(default_factory=list)
    events: list[str] = field(default_factory=list)
    threads: set[int] = field(default_factory=set)
    on_write: Callable[[StreamResult], None] | None = None

    def __post_init__(self) -> None:
        self.gate = threading.Event()
        self.writing = threading.Event()
        if not self.hold:
            self.gate.set()

    @property
    def indices(self) -> list[int]:
        return [result.frame.index for result in self.results]

    def open(self, info: StreamInfo) -> None:
        self._note("open")

    def write(self, result: StreamResult) -> None:
        self.writing.set()
        self.gate.wait()
        time.sleep(self.write_s)
        if self.on_write:
            self.on_write(result)
        self._note("write")
        self.results.append(result)

    def finish(self) -> None:
        self._note("finish")

    def abort(self) -> None:
        self.threads.add(threading.get_ident())
        self.events.append("abort")

    def _note(self, event: str) -> None:
        self.threads.add(threading.get_ident())
        if event in self.fails:
            raise OSError(f"{self.name} cannot {event}")
        if event != "write":
            self.events.append(event)
