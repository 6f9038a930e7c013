"""What travels through a stream: frames, and what is known of the stream that they come from."""

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from bsdnet.picture import Picture
from bsdnet.runtime.prediction import Prediction


@dataclass(frozen=True, kw_only=True, slots=True)
class Frame:
    """One picture of a stream and when it is shown."""

    picture: Picture
    """The pixels as the source has them. They may be a decoder's own memory: nobody writes to them."""
    index: int
    """Number of the frame in the stream, from 0; after a seek it is the number by time and frame rate."""
    pts: int
    """Presentation time in units of the stream's time base."""
    time_s: float
    """Presentation time in seconds from the stream's start."""
    epoch: int = 0
    """How many seeks came before this frame: frames of an earlier epoch are stale."""
    captured_at_s: float | None = None
    """When a live picture was captured, as far as this machine can tell, on the clock of `time.perf_counter`; None for
    recordings."""
    repeated: bool = False
    """Whether it is the last picture of a live source again, because no newer one comes."""

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.picture.size

    @property
    def rgb(self) -> NDArray[np.uint8]:
        """The picture as `(H, W, 3)` uint8 RGB; converted at each call unless the source gives RGB."""
        return self.picture.rgb


@dataclass(frozen=True, kw_only=True, slots=True)
class StreamInfo:
    """What is known of a stream when it is opened."""

    name: str
    """For people: the file's name, `camera 0`, `demo`; never with credentials."""
    size: tuple[int, int]
    """Height and width of the upright pictures in pixels."""
    fps: float
    """Average frames per second, as announced; a hint, never a clock."""
    time_base: Fraction
    """Seconds per unit of a frame's `pts`."""
    num_frames: int | None = None
    """Frames to expect, estimated; None if nobody knows."""
    live: bool = False
    """Whether frames are lost when nobody reads them in time."""
    seekable: bool = False
    """Whether `seek` works."""
    audio_path: str | None = None
    """File whose audio belongs to this stream; None if it has none."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Signal:
    """How well pictures come in from a live source."""

    reconnects: int = 0
    """How often the connection was lost and found again."""
    outage_s: float = 0.0
    """Seconds in all, until now, for which no picture came when one should have."""
    silent_s: float = 0.0
    """Seconds since the last picture, if that is too long ago; 0 while pictures come."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StreamResult:
    """A frame with its prediction: what sinks are given, in the order of the frames."""

    frame: Frame
    """The frame as it came."""
    prediction: Prediction
    """What was asked for by the sinks of the pipeline."""
