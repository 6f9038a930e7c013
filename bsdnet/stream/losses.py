"""How many frames a file should have and does not give: what can be known of it."""

from fractions import Fraction

_REGULAR_SHARE = 0.8  # of the steps between timestamps that are as the frame rate says, or the rate is not constant
_TOLERANCE = 0.25  # of a frame: some containers round times to milliseconds


class Losses:
    """Counts lost frames, each of the ways of counting by itself; the highest count is nearest to the truth.

    A packet of which nothing can be decoded is a lost frame. What never came as a packet shows only in the timestamps:
    once damage was seen, each step that is as long as several frames counts for those that are missing, if the frame
    rate is constant but for such steps. An undamaged file may have them on purpose, so there they count for nothing.

    Args:
        frame_s: seconds from one frame to the next, as the file announces.
    """

    def __init__(self, frame_s: Fraction) -> None:
        self.damaged = False
        """Whether there was any sign of damage."""
        self._frame_s = frame_s
        self._failed = 0
        self._missing = 0
        self._skipped = 0
        self._cut_off = 0
        self._steps = 0
        self._regular = 0
        self._last_s: Fraction | None = None

    @property
    def count(self) -> int:
        """Frames lost so far."""
        skipped = self._skipped if self.damaged or self._cut_off else 0
        return max(self._failed, self._missing, skipped + self._cut_off if self._is_constant else 0)

    def fail(self) -> None:
        """Count a packet of which nothing can be decoded."""
        self.damaged = True
        self._failed += 1

    def give(self, time_s: Fraction) -> None:
        """Note the time of a frame that is given; in order, but for jumps back in a damaged file."""
        if self._last_s is not None:
            frames = (time_s - self._last_s) / self._frame_s
            self._steps += 1
            self._regular += abs(frames - 1) <= _TOLERANCE
            self._skipped += max(round(frames) - 1, 0)
        self._last_s = time_s

    def end(self, *, given: int, indexed: int, end_s: Fraction | None) -> None:
        """Compare what was given with what the file says of itself, at its end.

        Args:
            given: frames given.
            indexed: frames in its index; 0 if it has none.
            end_s: when it says that its last frame ends; None if it does not say.
        """
        self._missing = max(indexed - given, 0)
        if end_s is not None and self._last_s is not None:
            self._cut_off = max(round((end_s - self._last_s) / self._frame_s) - 1, 0)

    @property
    def _is_constant(self) -> bool:
        return self._regular >= _REGULAR_SHARE * self._steps
