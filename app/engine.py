"""The network of the viewer: which one is wanted, and what happens when that one cannot be had or fails."""

import logging
import threading
from collections.abc import Callable, Iterable, Set
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

from bsdnet.classes import ClassSet
from bsdnet.errors import BackendError
from bsdnet.picture import Picture
from bsdnet.runtime.prediction import Output, Prediction, PredictionHandle

if TYPE_CHECKING:  # PyTorch takes a second to import: the window is there before
    import torch

    from bsdnet.runtime.backends import BackendName, PrecisionName
    from bsdnet.runtime.smoothing import Smoother

logger = logging.getLogger(__name__)

Report = Callable[[str], None]
"""Is told in words that something else is used than what was asked for; called on any thread."""


@dataclass(frozen=True, kw_only=True)
class EngineChoice:
    """What the user asks for; see `bsdnet.Segmenter` for the values."""

    weights: str | None = None
    device: str = "auto"
    backend: "BackendName" = "auto"
    precision: "PrecisionName" = "auto"
    size: tuple[int, int] | None = None
    """Height and width at which the network sees frames; None for its default."""


class TakesPictures(Protocol):
    """A segmenter, or what stands before it."""

    def submit(self, picture: Picture, *, outputs: Set[Output]) -> PredictionHandle:
        """Begin with one picture."""
        ...


class SegmenterLike(Protocol):
    """What the viewer needs of a segmenter; `bsdnet.Segmenter` has it."""

    classes: ClassSet
    architecture: str
    device: "torch.device"
    precision: str

    @property
    def backend(self) -> str:
        """How the network is run."""
        ...

    def size_for(self, frame_size: tuple[int, int]) -> tuple[int, int]:
        """Tell at which size the network sees frames of a size."""
        ...

    def prepare(self, sizes: Iterable[tuple[int, int]], *, frame_size: tuple[int, int], outputs: Set[Output]) -> None:
        """Build what frames of a size need, so that none waits for it."""
        ...

    def submit(self, picture: Picture, *, outputs: Set[Output], smoother: "Smoother | None" = None) -> PredictionHandle:
        """Begin with one picture."""
        ...

    def close(self) -> None:
        """Finish and free everything."""
        ...


Load = Callable[[EngineChoice], SegmenterLike]


@dataclass(frozen=True, kw_only=True, slots=True)
class SeenPrediction(Prediction):
    """A prediction that knows what its labels mean: the network may be another one by the time it is shown."""

    classes: ClassSet


def load_segmenter(choice: EngineChoice) -> SegmenterLike:
    """Load what was asked for, or raise as `bsdnet.Segmenter.load` does."""
    from bsdnet.runtime.segmenter import Segmenter

    return Segmenter.load(
        choice.weights,
        device=choice.device,
        backend=choice.backend,
        precision=choice.precision,
        size=choice.size,
    )


class Engine:
    """A segmenter that steps down rather than fail: from its backend to plain PyTorch, from the GPU to the CPU.

    Args:
        choice: what is asked for.
        report: is told of every step down.
        load: makes a segmenter; it may raise.
        frame_size: height and width of the frames that are playing; the segmenter is made ready for them, and those
            that take the place of a failed one likewise. None if nothing plays.

    Raises:
        BsdnetError: neither what was asked for nor anything below can be had.
    """

    def __init__(
        self,
        choice: EngineChoice,
        report: Report,
        load: Load = load_segmenter,
        frame_size: tuple[int, int] | None = None,
    ) -> None:
        self._load = load
        self._report = report
        self._frame_size = frame_size
        self._lock = threading.Lock()  # one thread steps down, the others wait for it
        self._closed = False
        self.confidence = True
        """Whether confidences are computed; without them a frame is done sooner."""
        self.choice, self._segmenter = self._open(choice)

    @property
    def segmenter(self) -> SegmenterLike:
        """The one in use."""
        return self._segmenter

    @property
    def classes(self) -> ClassSet:
        """What the labels of coming frames mean."""
        return self._segmenter.classes

    def submit(
        self,
        picture: Picture,
        *,
        outputs: frozenset[Output],
        by: Callable[[SegmenterLike], TakesPictures] = lambda segmenter: segmenter,
    ) -> PredictionHandle:
        """Begin with one picture; its prediction is a `SeenPrediction`.

        Args:
            picture: see `bsdnet.Segmenter.submit`.
            outputs: see there.
            by: gives what takes the picture in place of the segmenter in use.
        """
        if not self.confidence:
            outputs -= {"confidence"}
        segmenter = self._segmenter
        try:
            return _Handle(self, segmenter, by(segmenter).submit(picture, outputs=outputs), picture, outputs)
        except BackendError as error:
            segmenter = self.step_down(segmenter, error)
            return _Handle(self, segmenter, by(segmenter).submit(picture, outputs=outputs), picture, outputs)

    def step_down(self, failed: SegmenterLike, error: BackendError) -> SegmenterLike:
        """Replace a segmenter that failed, unless that has been done.

        Raises:
            BackendError: the one given, if there is nothing below.
        """
        with self._lock:
            if self._segmenter is not failed:
                return self._segmenter
            below = None if self._closed else choice_below(self.choice, error)
            if below is None:
                raise error
            self._report(_words(below, error))
            failed.close()
            self.choice, self._segmenter = self._open(below)
            return self._segmenter

    def close(self) -> None:
        """Free the segmenter."""
        with self._lock:
            self._closed = True
        self._segmenter.close()

    def _open(self, choice: EngineChoice) -> tuple[EngineChoice, SegmenterLike]:
        while True:
            try:
                return choice, self._ready(self._load(choice))
            except (BackendError, RuntimeError) as error:
                below = choice_below(choice, error)
                if below is None or not (isinstance(error, BackendError) or is_out_of_memory(error)):
                    raise
                self._report(_words(below, error))
                choice = below

    def _ready(self, segmenter: SegmenterLike) -> SegmenterLike:
        """Build before it is used: the stream would stand still meanwhile."""
        if self._frame_size is not None:
            try:
                size = segmenter.size_for(self._frame_size)
                segmenter.prepare([size], frame_size=self._frame_size, outputs=frozenset({"labels", "confidence"}))
            except BaseException:
                segmenter.close()
                raise
        return segmenter


def choice_below(choice: EngineChoice, error: Exception) -> EngineChoice | None:
    """Tell what to try after `choice` has failed of `error`; None if there is nothing below it."""
    if choice.backend not in ("auto", "eager") and not is_out_of_memory(error):
        return replace(choice, backend="eager")
    if choice.device != "cpu":
        return replace(choice, device="cpu", backend="auto", precision="auto")
    return None


def is_out_of_memory(error: BaseException | None) -> bool:
    """Tell whether the GPU's memory was the reason, however deep."""
    while error is not None:
        if type(error).__name__ == "OutOfMemoryError":
            return True
        error = error.__cause__
    return False


def _words(below: EngineChoice, error: Exception) -> str:
    instead = "plain PyTorch" if below.backend == "eager" else "the CPU"
    reason = "The GPU's memory is full" if is_out_of_memory(error) else str(error).rstrip(".")
    return f"{reason[:1].upper()}{reason[1:]}. Going on with {instead}."


@dataclass(frozen=True, slots=True)
class _Handle:
    engine: Engine
    segmenter: SegmenterLike
    inner: PredictionHandle
    picture: Picture
    outputs: frozenset[Output]

    def result(self, timeout_s: float | None = None) -> Prediction:
        segmenter = self.segmenter
        try:
            prediction = self.inner.result(timeout_s)
        except BackendError as error:
            segmenter = self.engine.step_down(segmenter, error)
            prediction = segmenter.submit(self.picture, outputs=self.outputs).result(timeout_s)
        return SeenPrediction(
            labels=prediction.labels,
            confidence=prediction.confidence,
            infer_s=prediction.infer_s,
            busy_s=prediction.busy_s,
            classes=segmenter.classes,
        )

    def done(self) -> bool:
        return self.inner.done()
