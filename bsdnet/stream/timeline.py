"""Timestamps for an output, made of those of a source."""

import logging
from fractions import Fraction

from bsdnet.stream.continuity import MAX_GAP_S, RESET_S
from bsdnet.stream.frame import Frame, StreamInfo

_FALLBACK_FPS = 25.0

logger = logging.getLogger(__name__)


class Timeline:
    """Moves a source's timestamps to begin at the output's zero, and mends them where they jump.

    Args:
        info: the stream.
        first: the first frame that is written. If it is the source's first, the output's zero is the source's, even if
            pictures begin later than sound; else it is that frame.
    """

    def __init__(self, info: StreamInfo, first: Frame) -> None:
        self.time_base = info.time_base
        """Seconds per unit, of the source and of the output."""
        self.fps = Fraction(info.fps if info.fps > 0 else _FALLBACK_FPS).limit_denominator(1001)
        """Frames per second, as announced."""
        self.from_start = first.index == 0
        """Whether the output begins where the source does."""
        self._origin = first.pts - (round(first.time_s / info.time_base) if self.from_start else 0)
        self._shift = -self._origin
        self._step = max(int(1 / self.fps / info.time_base), 1)
        self._name = info.name
        self._reset, self._max_gap = (int(limit_s / info.time_base) for limit_s in (RESET_S, MAX_GAP_S))
        self._last: int | None = None

    def place(self, pts: int) -> int:
        """Give the timestamp in the output for the next frame, always greater than the last one."""
        placed = pts + self._shift
        if self._last is not None and not self._last < placed <= self._last + self._max_gap:
            if placed > self._last:
                hours = float((placed - self._last) * self.time_base / 3600)
                logger.warning("%s: a gap of %.1f hours between two pictures is closed", self._name, hours)
            if abs(placed - self._last) > self._reset:
                self._shift += self._last + self._step - placed
                placed = self._last + self._step
            else:
                placed = self._last + 1
        self._last = placed
        return placed

    @property
    def end(self) -> int:
        """When the newest frame ends in the output, if it lasts as long as frames do."""
        return (self._last or 0) + self._step

    def source_time(self, placed: int) -> Fraction:
        """When something happens in the source, in seconds, that happens at a timestamp in the output.

        Where the source's timestamps jumped, they are meant as they would have gone on.
        """
        return (placed + self._origin) * self.time_base
