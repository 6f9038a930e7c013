"""How many frames a file should have and does not give: what can be known of it."""

from fractions import Fraction

from bsdnet.stream.continuity import LONGEST_STEP_S

_WHOLE_SHARE = 0.9  # of the steps from frame to frame that are whole frames long, or the rate is not constant
_SINGLE_SHARE = 0.5  # of the steps that are one frame long
_TOLERANCE = 0.25  # of a frame: some containers round times to milliseconds


class Losses:
    """Counts lost frames, each of the ways of counting by itself; the highest count is nearest to the truth.

    A packet of which nothing can be decoded is a lost frame. What never came as a packet shows only in the timestamps,
    and only if the frame rate is constant: a step of several frames lacks all but one. Files have such steps without
    being damaged, so they count only once there was another sign of damage.

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
        self._single = 0
        self._whole = 0
        self._last_s: Fraction | None = None
        self._gap_from_s = Fraction(0)

    @property
    def count(self) -> int:
        """Frames lost so far."""
        skipped = self.skipped if self.damaged or self._cut_off else 0
        return max(self._failed, self._missing, skipped + (self._cut_off if self._is_constant else 0))

    @property
    def skipped(self) -> int:
        """Frames that the timestamps skip, lost or never recorded; 0 if the frame rate is not constant."""
        return self._skipped if self._is_constant else 0

    def fail(self) -> None:
        """Count a packet of which nothing can be decoded."""
        self.damaged = True
        self._failed += 1

    def give(self, time_s: Fraction) -> None:
        """Note the time of a frame that is given; in order, but for jumps back in a damaged file."""
        if self._last_s is None:
            self._last_s = self._gap_from_s = time_s
        elif time_s > self._last_s:
            frames = (time_s - self._last_s) / self._frame_s
            self._steps += 1
            self._single += abs(frames - 1) <= _TOLERANCE
            self._whole += abs(frames - max(round(frames), 1)) <= _TOLERANCE
            if round(frames) > 1 and time_s - self._last_s <= LONGEST_STEP_S:
                self._skipped += round(frames) - 1
                self._gap_from_s = self._last_s
            self._last_s = time_s
        elif self._gap_from_s < time_s < self._last_s:  # it comes late
            self._skipped = max(self._skipped - 1, 0)

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
        return self._whole >= _WHOLE_SHARE * self._steps and self._single >= _SINGLE_SHARE * self._steps
