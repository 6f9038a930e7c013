"""Folders of images as videos."""

import glob
import logging
import re
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from bsdnet.errors import SourceError
from bsdnet.stream.indexed_source import DEFAULT_FPS, IndexedSource

logger = logging.getLogger(__name__)

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff")
"""Files that count as images, whatever their case."""


class ImageFolderSource(IndexedSource):
    """The images of a folder, or those that a pattern finds, in the order in which people number them: 2 before 10.

    A single file is a video of one image. Each image keeps its size. One that cannot be decoded is named, left out and
    counted as lost.

    Args:
        path: a folder, a file, or a glob pattern such as `drive/*_left.png`; `**` goes into folders.
        fps: how many images are shown a second.

    Raises:
        SourceError: the folder is missing or may not be read, there is no image, or none can be decoded.
        ConfigError: fps is not from 0.01 to 1000.
    """

    def __init__(self, path: str | Path, *, fps: float = DEFAULT_FPS) -> None:
        self._paths = _find_images(path)
        first = next((picture for picture in map(_load, self._paths) if picture is not None), None)
        if first is None:
            raise SourceError(f"none of the {len(self._paths)} images of {path} can be decoded; they are damaged")
        height, width = first.shape[:2]
        name = Path(path).name or str(path)
        super().__init__(name=name, size=(height, width), num_frames=len(self._paths), fps=fps)

    def _picture(self, index: int) -> NDArray[np.uint8] | None:
        picture = _load(self._paths[index])
        if picture is None:
            logger.warning("%s cannot be decoded and is left out", self._paths[index])
        return picture


def _find_images(path: str | Path) -> list[Path]:
    folder = Path(path)
    try:
        if folder.is_dir():
            found = list(folder.iterdir())
        elif folder.exists():
            found = [folder]
        else:
            found = [Path(name) for name in glob.glob(str(path), recursive=True)]  # noqa: PTH207  (may be absolute)
    except PermissionError:
        raise SourceError(f"{path} may not be read: permission denied") from None
    # A link to nowhere is there and cannot be read: a lost image.
    images = [file for file in found if file.suffix.lower() in IMAGE_SUFFIXES and (file.is_file() or not file.exists())]
    if not images:
        kind = "the folder" if folder.is_dir() else "the pattern"
        raise SourceError(f"{kind} {path} holds no image; expected files ending in {' '.join(IMAGE_SUFFIXES)}")
    return sorted(images, key=_natural_key)


def _natural_key(path: Path) -> list[tuple[int, str]]:
    """Split a path so that its numbers compare as numbers."""
    parts = re.split(r"(\d+)", str(path).casefold())
    return [(int(part), part) if position % 2 else (0, part) for position, part in enumerate(parts)]


def _load(path: Path) -> NDArray[np.uint8] | None:
    """Decode an image, turned upright as its EXIF data say, to `(H, W, 3)` uint8 RGB; None if that fails."""
    try:
        encoded = np.fromfile(path, np.uint8)
    except OSError:
        return None
    if encoded.size == 0:
        return None
    try:
        bgr = cv2.imdecode(encoded, cv2.IMREAD_COLOR)
    except cv2.error:  # it says that it has more pixels than OpenCV takes
        return None
    return None if bgr is None else np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), np.uint8)
