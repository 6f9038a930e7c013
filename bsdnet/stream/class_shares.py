"""How much of each frame every class covers, as a table."""

import csv
import io
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from bsdnet.classes import ClassSet
from bsdnet.errors import SinkError
from bsdnet.runtime.prediction import Output
from bsdnet.stream.frame import StreamInfo, StreamResult
from bsdnet.stream.interfaces import VideoSink
from bsdnet.stream.partial_file import PartialFile, check_folder


class ClassSharesSink(VideoSink):
    """Writes a CSV file with a row for each frame: its index, its time in seconds, and the share of every class.

    Shares are of the frame's pixels, from 0 to 1; void pixels belong to no class. The file is `NAME.part` until it is
    finished, and holds every frame that was written whatever happens to the program.

    Args:
        path: the file; the folder around it must exist.
        classes: the columns.
        overwrite: whether a file of that name, and what an earlier run has left of one, may be replaced.
        source_path: the input, which must not be written over; None if it is no file.

    Raises:
        SinkError: the name is taken or the input's, or the folder is missing or may not be written to.
    """

    wants: frozenset[Output] = frozenset({"labels"})
    live = False

    def __init__(
        self, path: str | Path, classes: ClassSet, *, overwrite: bool = False, source_path: str | None = None
    ) -> None:
        self._path = Path(path)
        self.name = self._path.name
        self._classes = classes
        self._overwrite = overwrite
        self._file = PartialFile(self._path, overwrite=True)
        self._rows = 0
        if source_path is not None:
            self._file.check_not_input(source_path)
        self._check()

    def open(self, info: StreamInfo) -> None:
        """Create the file with its heading."""
        self._check()
        self._output = self._file.create()
        self._write(["frame", "time_s", *self._classes.names])

    def write(self, result: StreamResult) -> None:
        """Write one row."""
        labels = result.prediction.labels
        if labels is None:
            raise SinkError(f"{self.name} was given a result without labels; ask the segmenter for them")
        shares = class_shares(labels, len(self._classes.names))
        self._write([result.frame.index, f"{result.frame.time_s:.6f}", *(f"{share:.6f}" for share in shares)])
        self._rows += 1

    def finish(self) -> None:
        """Give the file its name."""
        try:
            self._file.commit()
        except OSError as error:
            raise self._error(error) from error

    def abort(self) -> None:
        """Keep what was written under the name `NAME.part`, if there is a row."""
        self._file.release(keep=self._rows > 0)

    def _check(self) -> None:
        check_folder(self._path.parent)
        if self._path.is_dir():
            raise SinkError(f"{self._path} is a folder; give the name of a file for the classes' shares")
        self._file.check_free()
        for taken in (self._path, self._file.path):
            if taken.exists() and not self._overwrite:
                raise SinkError(f"{taken} exists already; give another name, or pass -y to replace it (overwrite=True)")

    def _write(self, row: list[object]) -> None:
        line = io.StringIO()
        csv.writer(line).writerow(row)
        try:
            self._output.write(line.getvalue().encode())  # not buffered, so that a kill costs nothing
        except OSError as error:
            raise self._error(error) from error

    def _error(self, error: OSError) -> SinkError:
        return SinkError(
            f"{self._path} cannot be written: {error.strerror}; {self._rows} rows were written to {self._file.path}"
        )


def class_shares(labels: NDArray[np.uint8], num_classes: int) -> NDArray[np.float64]:
    """Count the pixels of each class.

    Args:
        labels: class indices, `(H, W)` uint8; 255 is no class.
        num_classes: how many classes there are.

    Returns:
        Each class's share of all pixels, `(num_classes,)`, from 0 to 1.
    """
    # Five times as fast as np.bincount, which makes 64-bit integers of all pixels first.
    counts = cv2.calcHist([np.ascontiguousarray(labels)], [0], None, [256], [0, 256]).ravel()
    return counts[:num_classes].astype(np.float64) / labels.size
