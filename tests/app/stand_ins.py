"""A network that knows the answer, and sources that behave as they are named."""

import threading
from collections.abc import Iterable, Set
from concurrent.futures import Future
from dataclasses import replace

import numpy as np
import torch

from app.engine import EngineChoice
from bsdnet.classes import CAMVID_11, ClassSet
from bsdnet.errors import BackendError, SourceError
from bsdnet.picture import Picture
from bsdnet.runtime.prediction import Output, Prediction
from bsdnet.runtime.smoothing import Smoother
from bsdnet.stream.frame import Frame, Signal, StreamInfo
from bsdnet.stream.source import ArraySource, VideoSource
from tests.stream.fakes import FakeSource

SIZE = (36, 64)
FPS = 50.0
ROAD, CAR = CAMVID_11.names.index("road"), CAMVID_11.names.index("car")
GRAY = 100


class Handle:
    def __init__(self, future: "Future[Prediction]") -> None:
        self.future = future

    def result(self, timeout_s: float | None = None) -> Prediction:
        return self.future.result(timeout_s)

    def done(self) -> bool:
        return self.future.done()


class StandInSegmenter:
    """Sees a car in the left half of every picture and a road in the right one."""

    architecture = "bsdnet_s"

    def __init__(self, choice: EngineChoice | None = None, classes: ClassSet = CAMVID_11) -> None:
        choice = choice or EngineChoice()
        self.classes = classes
        self.device = torch.device("cpu" if choice.device == "auto" else choice.device)
        self.precision = "fp32" if choice.precision == "auto" else choice.precision
        self.backend = "eager" if choice.backend == "auto" else choice.backend
        self.size = choice.size or (32, 64)
        self.closed = False
        self.fails_of: Exception | None = None
        self.refuses_with: Exception | None = None
        self.outputs: list[frozenset[Output]] = []
        self.smoothers: list[Smoother | None] = []
        self.prepared: list[tuple[list[tuple[int, int]], tuple[int, int], frozenset[Output]]] = []
        self.cannot_prepare: Exception | None = None

    def prepare(self, sizes: Iterable[tuple[int, int]], *, frame_size: tuple[int, int], outputs: Set[Output]) -> None:
        if self.cannot_prepare:
            raise self.cannot_prepare
        self.prepared.append((list(sizes), frame_size, frozenset(outputs)))

    def size_for(self, frame_size: tuple[int, int]) -> tuple[int, int]:
        return self.size

    def submit(self, picture: Picture, *, outputs: frozenset[Output], smoother: Smoother | None = None) -> Handle:
        if self.refuses_with:
            raise self.refuses_with
        if self.closed:
            raise BackendError("this segmenter is closed; load another one")
        self.outputs.append(frozenset(outputs))
        self.smoothers.append(smoother)
        future: Future[Prediction] = Future()
        if self.fails_of:
            future.set_exception(self.fails_of)
            return Handle(future)
        labels = np.full(picture.size, ROAD, np.uint8)
        labels[:, : picture.size[1] // 2] = CAR
        confidence = np.full(picture.size, 204, np.uint8) if "confidence" in outputs else None
        future.set_result(Prediction(labels=labels, confidence=confidence, infer_s=0.001))
        return Handle(future)

    def close(self) -> None:
        self.closed = True


class StandInCamera(VideoSource):
    """A live source that gives frames until it is told to be silent."""

    def __init__(self) -> None:
        self._info = replace(clip(1).info, name="camera 0", live=True, seekable=False, num_frames=None)
        self._closed = threading.Event()
        self._index = 0
        self.silent_s = 0.0
        self.over = False

    @property
    def info(self) -> StreamInfo:
        return self._info

    @property
    def lost_frames(self) -> int:
        return 0

    @property
    def signal(self) -> Signal:
        return Signal(silent_s=self.silent_s)

    def read(self) -> Frame | None:
        if self._closed.wait(0.01) or self.over:
            return None
        self._index += 1
        return Frame(picture=gray(), index=self._index, pts=self._index, time_s=self._index / FPS)

    def seek(self, time_s: float) -> None:
        raise SourceError("a camera has no past")

    def close(self) -> None:
        self._closed.set()


def gray() -> Picture:
    return Picture(planes=(np.full((*SIZE, 3), GRAY, np.uint8),))


def clip(num_frames: int) -> ArraySource:
    return ArraySource([np.full((*SIZE, 3), GRAY, np.uint8)] * num_frames, FPS)


opened: list[VideoSource] = []
"""What was opened last, the newest at the end."""


def open_stand_in(spec: str) -> VideoSource:
    """Open a source by what it does."""
    sources = {
        "clip": lambda: clip(5000),
        "short": lambda: clip(5),
        "unseekable": lambda: FakeSource(5, seekable=False),
        "camera:0": StandInCamera,
        "hangs-in-read": lambda: FakeSource(100, live=True, hang_at=5),
        "hangs-in-seek": lambda: FakeSource(5000, hang_in_seek=True, read_s=0.005),
        "hangs-for-good": lambda: FakeSource(100, live=True, hang_at=5, close_frees=False),
        "breaks": lambda: FakeSource(100, fail_at=5, read_s=0.005),
    }
    if spec == "slow":
        threading.Event().wait(1.0)
        return clip(5000)
    if spec not in sources:
        raise SourceError(f"there is no {spec}; expected a file")
    opened[:] = [*opened[-3:], sources[spec]()]
    return opened[-1]
