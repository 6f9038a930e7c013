"""What a pipeline asks of a source of frames, of a segmenter and of a sink of results."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from types import TracebackType
from typing import Protocol, Self

from bsdnet.picture import Picture
from bsdnet.runtime.prediction import Output, PredictionHandle
from bsdnet.stream.frame import Frame, Signal, StreamInfo, StreamResult


class VideoSource(ABC):
    """Gives the frames of a video, one by one.

    A source is open as soon as it is made: what is wrong with it is said then, by a `SourceError`. Use it as a context
    manager or call `close`; iterate over it or call `read`. `read` and `seek` are called by one thread at a time, which
    need not be the one that made the source; `close` may come at any time.
    """

    @property
    @abstractmethod
    def info(self) -> StreamInfo:
        """What is known of the stream."""

    @property
    @abstractmethod
    def lost_frames(self) -> int:
        """How many frames could not be decoded so far."""

    @property
    def signal(self) -> Signal:
        """How well pictures come in; recordings have no outages."""
        return Signal()

    @abstractmethod
    def read(self) -> Frame | None:
        """Give the next frame in the order of presentation.

        Returns:
            The frame, of epoch 0; None at the end of the stream and after `close`.

        Raises:
            SourceError: the source failed, and no further frame will come.
        """

    @abstractmethod
    def seek(self, time_s: float) -> None:
        """Make the frame that is shown at a time the next one to be read.

        Args:
            time_s: seconds from the stream's start. The next frame is the last one with `Frame.time_s <= time_s`; the
                first one if there is none.

        Raises:
            SourceError: the source is live or closed, or cannot seek.
        """

    @abstractmethod
    def close(self) -> None:
        """Give everything back, within two seconds even if a `read` is blocked. Calling it again does nothing."""

    def __iter__(self) -> Iterator[Frame]:
        while (frame := self.read()) is not None:
            yield frame

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class SegmenterLike(Protocol):
    """Makes predictions of pictures."""

    def submit(self, picture: Picture, *, outputs: frozenset[Output]) -> PredictionHandle:
        """Begin with one picture; predictions become ready in the order of the calls."""
        ...


class VideoSink(ABC):
    """Takes the results of a pipeline: `open`, any number of `write`, and then either `finish` or `abort`.

    What is wrong with its destination is said by a `SinkError` as soon as it can be known, the latest in `open`.
    """

    name: str
    """For messages and statistics."""
    wants: frozenset[Output]
    """What it needs of a prediction."""
    live: bool
    """False: it is given every frame, in order, and the pipeline waits for it. True: it is given the newest only."""

    @abstractmethod
    def open(self, info: StreamInfo) -> None:
        """Create what is written to.

        Raises:
            SinkError: that is not possible.
        """

    @abstractmethod
    def write(self, result: StreamResult) -> None:
        """Take one result.

        Raises:
            SinkError: it cannot be written; the message names what is left of the output.
        """

    @abstractmethod
    def finish(self) -> None:
        """Everything was written: make the output final.

        Raises:
            SinkError: it cannot be made final; the message names what is left of it.
        """

    @abstractmethod
    def abort(self) -> None:
        """Stop early: leave no half-made output under the final name, and an older one as it was. Never raises."""
