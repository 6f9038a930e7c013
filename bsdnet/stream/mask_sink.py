"""Label maps as files, one indexed PNG a frame."""

import contextlib
import os
import re
import shlex
import struct
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bsdnet.classes import ClassSet
from bsdnet.errors import SinkError
from bsdnet.runtime.prediction import Output
from bsdnet.stream.frame import StreamInfo, StreamResult
from bsdnet.stream.interfaces import VideoSink

_MASK_NAME = re.compile(r"\d{6,}\.png")
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_COMPRESSION = 1  # label maps are flat: higher levels cost time and save little


class MaskFolderSink(VideoSink):
    """Writes each label map as `000000.png`, named by the frame's index: class indices as pixels, colours as palette.

    Args:
        folder: made if it is missing; the folder around it must exist.
        classes: what the indices mean.
        overwrite: whether the folder may hold something already. Masks of an earlier run are replaced, and those that
            this run has not written are removed when it finishes; other files stay.

    Raises:
        SinkError: the folder is a file, not empty and not to be overwritten, holds other pictures with names of masks,
            or cannot be made or written to.
    """

    wants: frozenset[Output] = frozenset({"labels"})
    live = False

    def __init__(self, folder: str | Path, classes: ClassSet, *, overwrite: bool = False) -> None:
        self._folder = Path(folder)
        self.name = self._folder.name or str(folder)
        self._palette = classes.palette
        self._overwrite = overwrite
        self._written: set[str] = set()
        self._check()
        self._check_old_masks()

    def open(self, info: StreamInfo) -> None:
        """Make the folder."""
        self._check()
        try:
            self._folder.mkdir(exist_ok=True)
        except OSError as error:
            raise SinkError(f"the folder {self._folder} cannot be made: {error.strerror}") from error

    def write(self, result: StreamResult) -> None:
        """Write one label map."""
        labels = result.prediction.labels
        if labels is None:
            raise SinkError(f"{self.name} was given a result without labels; ask the segmenter for them")
        name = f"{result.frame.index:06d}.png"
        try:
            (self._folder / name).write_bytes(encode_indexed_png(labels, self._palette))
        except OSError as error:
            with contextlib.suppress(OSError):
                (self._folder / name).unlink()  # half a mask
            raise SinkError(
                f"{self._folder / name} cannot be written: {error.strerror}; "
                f"{len(self._written)} masks were written to the folder"
            ) from error
        self._written.add(name)

    def finish(self) -> None:
        """Remove masks of an earlier, longer run, so that the folder holds one run's."""
        try:
            for file in self._folder.iterdir():
                if _MASK_NAME.fullmatch(file.name) and file.name not in self._written:
                    file.unlink()
        except OSError as error:
            raise SinkError(f"an old mask in {self._folder} cannot be removed: {error.strerror}") from error

    def abort(self) -> None:
        """Keep what was written: each mask is whole."""

    def _check(self) -> None:
        folder = self._folder
        if folder.exists() and not folder.is_dir():
            raise SinkError(f"{folder} is a file; give the name of a folder for the masks")
        if not folder.parent.is_dir():
            parent = shlex.quote(str(folder.parent))
            raise SinkError(f"the folder {folder.parent} does not exist; make it first: mkdir -p {parent}")
        try:
            occupied = folder.is_dir() and any(folder.iterdir())
        except OSError as error:
            raise SinkError(f"the folder {folder} cannot be read: {error.strerror}") from error
        if occupied and not self._overwrite:
            raise SinkError(
                f"the folder {folder} is not empty; give another name, or pass -y to replace its masks (overwrite=True)"
            )
        if not os.access(folder if folder.is_dir() else folder.parent, os.W_OK | os.X_OK):
            raise SinkError(f"the folder {folder} may not be written to: permission denied")

    def _check_old_masks(self) -> None:
        """Refuse a folder of other pictures with such names, the frames of the input for one: they would be lost."""
        for file in self._folder.iterdir() if self._folder.is_dir() else ():
            if _MASK_NAME.fullmatch(file.name) and not _may_be_mask(file):
                raise SinkError(f"{file} is no mask of an earlier run and would be lost; give another folder")


def encode_indexed_png(labels: NDArray[np.uint8], palette: NDArray[np.uint8]) -> bytes:
    """Encode a label map as PNG of colour type 3, which OpenCV cannot write.

    Args:
        labels: `(H, W)` uint8, stored as they are.
        palette: `(num_classes, 3)` uint8 RGB; indices beyond it are shown black.

    Returns:
        The file's bytes.
    """
    height, width = labels.shape
    rows = np.zeros((height, width + 1), np.uint8)  # each row begins with the number of its filter: 0, none
    rows[:, 1:] = labels
    colors = np.zeros((256, 3), np.uint8)
    colors[: len(palette)] = palette
    header = struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)
    return _SIGNATURE + b"".join(
        (
            _chunk(b"IHDR", header),
            _chunk(b"PLTE", colors.tobytes()),
            _chunk(b"IDAT", zlib.compress(rows.tobytes(), _COMPRESSION)),
            _chunk(b"IEND", b""),
        )
    )


def _may_be_mask(file: Path) -> bool:
    """Whether a file is an indexed PNG, or too short to be a picture at all."""
    with file.open("rb") as opened:
        start = opened.read(26)
    return len(start) < 26 or (start.startswith(_SIGNATURE) and start[24:] == b"\x08\x03")


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
