"""Where a stream is, and where the user wants it to be."""

import time

_AWAIT_FRAME_S = 2.0  # for which a frame that was sought is taken to be on its way; beyond the end there is none


class Position:
    """The time of the frame that is shown, and of the one that was sought until it is there: quick keys add up."""

    def __init__(self) -> None:
        self.time_s = 0.0
        """The newest frame's time in seconds."""
        self._target_s: float | None = None
        self._sought_at_s = 0.0

    def show(self, time_s: float, frame_s: float, *, plays: bool) -> None:
        """Note the frame that is shown.

        Args:
            time_s: its time in seconds.
            frame_s: from one frame to the next, in seconds.
            plays: whether others follow by themselves; else it is the one that was sought, wherever its timestamp is.
        """
        self.time_s = time_s
        if not plays or (self._target_s is not None and abs(time_s - self._target_s) < 2 * frame_s):
            self._target_s = None

    def aim_at(self, time_s: float) -> None:
        """Note where the user has sought to, in seconds."""
        self._target_s, self._sought_at_s = time_s, time.monotonic()

    def begin(self) -> None:
        """Be at the beginning."""
        self.time_s, self._target_s = 0.0, None

    @property
    def is_awaiting(self) -> bool:
        """Whether a frame that was sought is on its way."""
        return self._target_s is not None and time.monotonic() < self._sought_at_s + _AWAIT_FRAME_S

    @property
    def aim_s(self) -> float:
        """Where the stream is, or will be once the frame that was sought is there, in seconds."""
        return self._target_s if self.is_awaiting and self._target_s is not None else self.time_s
