"""The cameras of this machine."""

import sys
from dataclasses import dataclass
from pathlib import Path

_PROBED = 4  # elsewhere than on Linux cameras can only be found by opening them


@dataclass(frozen=True, kw_only=True)
class Camera:
    """A camera that can be opened."""

    number: int
    """For `camera:N`."""
    name: str
    """As its maker calls it."""


def list_cameras(folder: Path = Path("/sys/class/video4linux")) -> list[Camera]:
    """Find the cameras; may take seconds elsewhere than on Linux.

    Args:
        folder: where Linux lists them. A camera has several nodes there; the one with index 0 gives pictures.
    """
    if sys.platform != "linux":
        return _probe()
    nodes = [node for node in folder.glob("video*") if node.name.removeprefix("video").isdecimal()]
    found = [
        Camera(number=int(node.name.removeprefix("video")), name=_read(node / "name") or node.name)
        for node in nodes
        if _read(node / "index") in ("0", "")
    ]
    return sorted(found, key=lambda camera: camera.number)


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""


def _probe() -> list[Camera]:
    import cv2

    found = []
    for number in range(_PROBED):
        capture = cv2.VideoCapture(number)
        if capture.isOpened():
            found.append(Camera(number=number, name=f"Camera {number}"))
        capture.release()
    return found
