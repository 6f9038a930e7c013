"""The files of a recording in segments: their names, and what they may take of the disk."""

import contextlib
import logging
import re
from collections.abc import Collection
from pathlib import Path

import av

from bsdnet.errors import BsdnetError, SinkError
from bsdnet.stream.partial_file import PARTIAL_SUFFIX, partial_path
from bsdnet.stream.rescue import rescue

logger = logging.getLogger(__name__)

COMMENT = "bsdnet segment"
"""Stands in the metadata of every segment: by it we know those that may be deleted."""


class SegmentStore:
    """Names `out-000001.mp4`, `out-000002.mp4` and so on beside `out.mp4`, on from what is there already.

    Numbers, because a vehicle may not know the time when it starts; when a segment ended is the file's own time.

    Args:
        path: the name of which those of the segments are made.
        budget_bytes: what they may take in all; None for any amount.
        keep: files that are never deleted: the input.
    """

    def __init__(self, path: Path, *, budget_bytes: int | None, keep: Collection[Path] = ()) -> None:
        self._path = path
        self._budget_bytes = budget_bytes
        self._foreign = {file.resolve() for file in keep}
        self._pattern = re.compile(rf"{re.escape(path.stem)}-(\d{{6,}}){re.escape(path.suffix)}")
        self._newest = 0

    def next_path(self) -> Path:
        """Give the next name; it is higher than that of any file, finished or not."""
        found = [*self._finished(), *self._left_over()]
        self._newest = max([self._newest, *(number for number, _ in found)]) + 1
        return self._path.with_name(f"{self._path.stem}-{self._newest:06d}{self._path.suffix}")

    def rescue_left_over(self) -> None:
        """Finish what runs that were cut off have left; what cannot be saved is named and stays."""
        for _, target in self._left_over():
            part = partial_path(target)
            try:
                rescued = rescue(part)
            except BsdnetError as error:
                logger.warning("%s", error)
            else:
                logger.warning("%s, left by a run that was cut off, is now %s", part, rescued.path.name)

    def make_room(self) -> None:
        """Delete the oldest segments until one as large as the newest fits into the budget.

        Raises:
            SinkError: one cannot be deleted.
        """
        if self._budget_bytes is None:
            return
        sizes = {}
        for _, file in self._finished():
            with contextlib.suppress(FileNotFoundError):  # somebody else has taken it away
                if file.resolve() not in self._foreign:
                    sizes[file] = file.stat().st_size
        if not sizes:
            return
        *oldest, newest = sizes
        total = sum(sizes.values()) + sizes[newest]
        for file in oldest:
            if total <= self._budget_bytes:
                return
            if _is_segment(file):
                _delete(file)
            else:
                logger.warning("%s is called like a segment but is none of ours: it stays, beyond the budget", file)
                self._foreign.add(file.resolve())
            total -= sizes[file]

    def _finished(self) -> list[tuple[int, Path]]:
        return self._numbered("")

    def _left_over(self) -> list[tuple[int, Path]]:
        return self._numbered(PARTIAL_SUFFIX)

    def _numbered(self, ending: str) -> list[tuple[int, Path]]:
        """The segments there are whose names end so, without that ending, by number."""
        names = [file.name for file in self._path.parent.iterdir() if file.name.endswith(ending)]
        found = [self._pattern.fullmatch(name.removesuffix(ending)) for name in names]
        return sorted((int(match[1]), self._path.with_name(match[0])) for match in found if match)


def _is_segment(file: Path) -> bool:
    try:
        with av.open(str(file.absolute())) as container:  # FFmpeg takes what stands before a colon for a protocol
            tags = {name.lower(): value for name, value in container.metadata.items()}
    except (av.FFmpegError, OSError):
        return False
    return tags.get("comment") == COMMENT


def _delete(file: Path) -> None:
    try:
        file.unlink(missing_ok=True)
    except OSError as error:
        raise SinkError(f"the oldest segment {file} cannot be deleted: {error.strerror}") from error
