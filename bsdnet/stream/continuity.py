"""Where a file's timestamps jump: what is a gap, what is damage, and what begins anew.

Recordings that were joined begin anew in the middle, and damage puts single timestamps anywhere. Pictures and sound go
the same way: the rules here are those of both.
"""

from fractions import Fraction
from typing import Generic, TypeVar

RESET_S = 1
"""Timestamps that go back by more begin anew; by less, they are just untidy."""
LONGEST_STEP_S = 60
"""From one frame to the next; a longer step is a damaged timestamp, or a gap in what was recorded."""
MAX_GAP_S = 12 * 3600
"""A longer gap is closed: MP4 cannot hold it, and nobody waits for its end."""

ItemT = TypeVar("ItemT")


class Continuity(Generic[ItemT]):
    """Puts the packets of one stream, in the order in which they are decoded, on one line of time.

    Whoever gives a packet that jumps gets it back with the one after it, which tells a gap from a damaged timestamp.
    """

    def __init__(self) -> None:
        self.shift = Fraction(0)
        """What is added to the timestamps now, in seconds."""
        self._end: Fraction | None = None
        self._held: tuple[ItemT, Fraction, Fraction] | None = None

    def place(self, item: ItemT, time: Fraction, duration: Fraction) -> list[tuple[ItemT, Fraction]]:
        """Give what can be placed now, in order, each with what is to be added to its timestamps.

        Args:
            item: a packet.
            time: when it is decoded, in seconds.
            duration: how long it lasts, in seconds; 0 if it does not say.
        """
        placed = self.rest(time)
        if self._jumps(time):
            self._held = item, time, duration
            return placed
        return [*placed, (item, self._put(time, duration))]

    def rest(self, following: Fraction | None = None) -> list[tuple[ItemT, Fraction]]:
        """Give what is held back.

        Args:
            following: when the next packet is decoded, in seconds; None at the end.
        """
        if self._held is None or self._end is None:
            return []
        (item, time, duration), self._held = self._held, None
        jump = time + self.shift - self._end
        if following is None:
            is_damaged = not 0 <= jump <= LONGEST_STEP_S
        else:
            next_jump = following + self.shift - self._end
            is_damaged = -RESET_S <= next_jump <= LONGEST_STEP_S and (jump < 0 or next_jump < jump)
        if is_damaged:
            lone = self._end - time  # the stream goes on as if nothing had been: this one's timestamp is damaged
            self._end += duration
            return [(item, lone)]
        if not 0 <= jump <= MAX_GAP_S:
            self.shift = self._end - time
        return [(item, self._put(time, duration))]

    def follow(self, other: "Continuity[ItemT]") -> None:
        """Take over the shift of the stream that this one belongs to, unless the two lie apart."""
        if abs(other.shift - self.shift) < RESET_S:
            self.shift = other.shift

    def _jumps(self, time: Fraction) -> bool:
        return self._end is not None and abs(time + self.shift - self._end) > RESET_S

    def _put(self, time: Fraction, duration: Fraction) -> Fraction:
        self._end = time + self.shift + duration
        return self.shift
