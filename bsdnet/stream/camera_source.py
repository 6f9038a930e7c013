"""Cameras, read through OpenCV."""

import sys
import time
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from bsdnet.errors import SourceError
from bsdnet.picture import Picture
from bsdnet.stream.live import LiveSource
from bsdnet.stream.receiver import DEFAULT_POLICY, LivePicture, ReconnectPolicy

_FALLBACK_FPS = 30.0


class CameraSource(LiveSource):
    """A camera, of which only the newest picture is kept; one that was unplugged is looked for until it is back.

    A picture counts as captured when the driver has given it: exposure and the way through the cable, usually one to
    two frames, come on top and cannot be seen from here.

    Args:
        device: the camera's number, from 0, or its path, such as `/dev/video0`. A path below `/dev/v4l/by-id` stays the
            same when the camera is plugged in again.
        policy: how patient to be.

    Raises:
        SourceError: there is no such camera, or it gives no picture.
    """

    def __init__(self, device: int | str, policy: ReconnectPolicy = DEFAULT_POLICY) -> None:
        super().__init__(f"camera {device}", partial(_CameraConnection, device), policy)


class _CameraConnection:
    """An open camera. Making, reading and closing it may block for ever in the driver."""

    is_recording = False

    def __init__(self, device: int | str) -> None:
        _check_exists(device)
        self._capture = cv2.VideoCapture(device)
        self.fps = self._capture.get(cv2.CAP_PROP_FPS) or _FALLBACK_FPS
        self._gave_one = False

    def read(self) -> LivePicture:
        """Wait for a picture."""
        given, bgr = self._capture.read()
        captured_at_s = time.perf_counter()
        if not given:
            reason = (
                "it stopped giving pictures; was it unplugged?"
                if self._gave_one
                else "it cannot be opened; is it in use?"
            )
            raise SourceError(reason)
        self._gave_one = True
        return LivePicture(convert=partial(_to_picture, np.asarray(bgr, np.uint8)), captured_at_s=captured_at_s)

    def close(self) -> None:
        """Give the camera back."""
        self._capture.release()


def _to_picture(bgr: NDArray[np.uint8]) -> Picture:
    return Picture(planes=(np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), np.uint8),))


def _check_exists(device: int | str) -> None:
    """Say at once, and without OpenCV's own warnings, that a camera is not there."""
    path = Path(f"/dev/video{device}" if isinstance(device, int) else device)
    if sys.platform != "linux" or path.exists():
        return
    here = ", ".join(sorted(str(camera) for camera in Path("/dev").glob("video*"))) or "none"
    raise SourceError(f"there is no {path}; cameras of this machine: {here}")
