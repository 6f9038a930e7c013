"""Cameras, read through OpenCV."""

import sys
import threading
import time
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from bsdnet.errors import SourceError
from bsdnet.picture import Picture
from bsdnet.stream.frame import Frame, StreamInfo
from bsdnet.stream.interfaces import VideoSource

_TICKS_PER_S = 90_000
_OPEN_TIMEOUT_S = 10.0
_CLOSE_TIMEOUT_S = 1.0
_FALLBACK_FPS = 30.0


class CameraSource(VideoSource):
    """A camera, of which only the newest picture is kept.

    A thread of its own opens, reads and releases the camera, because all three may block for ever in the driver; it
    puts each picture where the last one was, and is left behind if it does not end.

    Args:
        device: the camera's number, from 0, or its path, such as `/dev/video0`.

    Raises:
        SourceError: there is no such camera, or it gives no picture within ten seconds.
    """

    def __init__(self, device: int | str) -> None:
        self._device = device
        self._name = f"camera {device}"
        _check_exists(device, self._name)
        self._changed = threading.Condition()
        self._newest: tuple[NDArray[np.uint8], int, int] | None = None  # BGR picture, its number, its pts
        self._fps = _FALLBACK_FPS
        self._ended = False
        self._closed = False
        self._info: StreamInfo
        threading.Thread(target=self._grab, name=self._name, daemon=True).start()
        with self._changed:
            self._changed.wait_for(lambda: self._newest is not None or self._ended, _OPEN_TIMEOUT_S)
            if self._newest is None:
                self._closed = True
                reason = "cannot be opened; is it in use?" if self._ended else f"gave no picture in {_OPEN_TIMEOUT_S} s"
                raise SourceError(f"the {self._name} {reason}")
            height, width = self._newest[0].shape[:2]
        self._info = StreamInfo(
            name=self._name,
            size=(height, width),
            fps=self._fps,
            time_base=Fraction(1, _TICKS_PER_S),
            live=True,
        )

    @property
    def info(self) -> StreamInfo:
        """What is known of the stream."""
        return self._info

    @property
    def lost_frames(self) -> int:
        """Zero: a camera's pictures come decoded, and those that nobody fetched in time are no loss."""
        return 0

    def read(self) -> Frame | None:
        """Wait for a picture that was not read yet; None after `close`.

        Raises:
            SourceError: the camera stopped giving pictures.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._newest is not None or self._ended or self._closed)
            if self._closed:
                return None
            if self._newest is None:
                raise SourceError(f"the {self._name} stopped giving pictures; was it unplugged?")
            bgr, index, pts = self._newest
            self._newest = None
        rgb = np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), np.uint8)
        return Frame(picture=Picture(planes=(rgb,)), index=index, pts=pts, time_s=pts / _TICKS_PER_S)

    def seek(self, time_s: float) -> None:
        """Raise: a camera has no past."""
        raise SourceError(f"cannot seek in {self._name}: it is live")

    def close(self) -> None:
        """Stop; a driver that does not answer is left behind."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._ended, _CLOSE_TIMEOUT_S)

    def _grab(self) -> None:
        """Keep the newest picture in the mailbox until the camera fails or the source is closed."""
        capture = cv2.VideoCapture(self._device)
        try:
            self._fps = capture.get(cv2.CAP_PROP_FPS) or _FALLBACK_FPS
            index, start_s = 0, 0.0
            while not self._closed:
                given, bgr = capture.read()
                now_s = time.monotonic()
                if not given:
                    return
                start_s = start_s or now_s
                with self._changed:
                    self._newest = (np.asarray(bgr, np.uint8), index, round((now_s - start_s) * _TICKS_PER_S))
                    self._changed.notify_all()
                index += 1
        finally:
            capture.release()
            with self._changed:
                self._ended = True
                self._changed.notify_all()


def _check_exists(device: int | str, name: str) -> None:
    """Say at once, and without OpenCV's own warnings, that a camera is not there."""
    path = Path(f"/dev/video{device}" if isinstance(device, int) else device)
    if sys.platform != "linux" or path.exists():
        return
    here = ", ".join(sorted(str(camera) for camera in Path("/dev").glob("video*"))) or "none"
    raise SourceError(f"there is no {name} ({path}); cameras of this machine: {here}")
