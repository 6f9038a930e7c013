"""Sources whose pictures can be had by number: arrays in memory, the demo scene, the base of image folders."""

import math
from abc import abstractmethod
from collections.abc import Sequence
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bsdnet.errors import ConfigError, SourceError
from bsdnet.picture import Picture
from bsdnet.stream.frame import Frame, StreamInfo
from bsdnet.stream.interfaces import VideoSource

if TYPE_CHECKING:
    from bsdnet.demo_scene import DemoScene

DEFAULT_FPS = 15.0
"""Frames per second of pictures that bring no time of their own."""

_SEEK_TOLERANCE_S = 1e-6  # so that a frame's own time finds this frame whatever the rounding of floats


class IndexedSource(VideoSource):
    """Pictures with numbers, shown at a constant rate.

    Args:
        name: for people.
        size: height and width of the pictures in pixels.
        num_frames: how many there are.
        fps: frames per second.

    Raises:
        ConfigError: fps is not from 0.01 to 1000.
    """

    def __init__(self, *, name: str, size: tuple[int, int], num_frames: int, fps: float) -> None:
        self._rate = frame_rate(fps)
        self._info = StreamInfo(
            name=name, size=size, fps=fps, time_base=1 / self._rate, num_frames=num_frames, seekable=True
        )
        self._num_frames = num_frames
        self._next = 0
        self._lost_frames = 0
        self._closed = False

    @abstractmethod
    def _picture(self, index: int) -> NDArray[np.uint8] | None:
        """Give picture `index` as `(H, W, 3)` uint8 RGB, or None if it cannot be decoded."""

    @property
    def info(self) -> StreamInfo:
        """What is known of the stream."""
        return self._info

    @property
    def lost_frames(self) -> int:
        """How many pictures could not be decoded so far."""
        return self._lost_frames

    def read(self) -> Frame | None:
        """Give the next picture that can be decoded, or None at the end."""
        while self._next < self._num_frames and not self._closed:
            index = self._next
            self._next += 1
            picture = self._picture(index)
            if picture is not None:
                return Frame(
                    picture=Picture(planes=(picture,)), index=index, pts=index, time_s=float(index / self._rate)
                )
            self._lost_frames += 1
        return None

    def seek(self, time_s: float) -> None:
        """Make the picture that is shown at `time_s` the next one."""
        if self._closed:
            raise SourceError(f"{self._info.name} is closed; open it again to seek in it")
        index = math.floor((time_s + _SEEK_TOLERANCE_S) * self._rate)
        self._next = min(max(index, 0), self._num_frames - 1)

    def close(self) -> None:
        """End the stream."""
        self._closed = True


class ArraySource(IndexedSource):
    """Frames in memory, for tests and measurements.

    Args:
        frames: `(H, W, 3)` uint8 RGB arrays, at least one. They are handed out as they are, not copied.
        fps: frames per second.
        name: for people.

    Raises:
        SourceError: there is no frame, or one is not as said above.
    """

    def __init__(self, frames: Sequence[NDArray[np.uint8]], fps: float = 25.0, *, name: str = "frames") -> None:
        if len(frames) == 0:
            raise SourceError(f"{name}: no frames were given; give at least one")
        for index, frame in enumerate(frames):
            is_array = isinstance(frame, np.ndarray)
            if not is_array or frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8 or not frame.size:
                came = f"{frame.dtype} array of shape {frame.shape}" if is_array else type(frame).__name__
                raise SourceError(
                    f"{name}: frame {index} is a {came}; expected a uint8 RGB array of shape (height, width, 3)"
                )
        height, width = frames[0].shape[:2]
        super().__init__(name=name, size=(height, width), num_frames=len(frames), fps=fps)
        self._frames = frames

    def _picture(self, index: int) -> NDArray[np.uint8]:
        return self._frames[index]


class DemoSource(IndexedSource):
    """The drawn street as a video.

    Args:
        scene: what is drawn.
    """

    def __init__(self, scene: "DemoScene") -> None:
        super().__init__(name="demo", size=scene.size, num_frames=scene.num_frames, fps=scene.fps)
        self._scene = scene

    def _picture(self, index: int) -> NDArray[np.uint8]:
        return self._scene.frame(index).rgb


def frame_rate(fps: float) -> Fraction:
    """Find the exact rate that is meant: 29.97 and 23.976 are multiples of 1/1001.

    Raises:
        ConfigError: fps is not from 0.01 to 1000.
    """
    if not 0.01 <= fps <= 1000:
        raise ConfigError(f"fps is {fps}; expected 0.01 to 1000 frames per second")
    ntsc = Fraction(round(fps * 1.001) * 1000, 1001)
    if ntsc and abs(float(ntsc) - fps) < 0.005 and not float(fps).is_integer():
        return ntsc
    return Fraction(fps).limit_denominator(1000)
