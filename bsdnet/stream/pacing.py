"""Playback by the clock."""

from bsdnet.errors import ConfigError

_MAX_LAG_S = 0.1


class Pacer:
    """Says when a frame is due, by its timestamp; the first frame that it sees is due at once.

    Args:
        speed: seconds of the stream to play in one second.

    Raises:
        ConfigError: `speed` is not positive.
    """

    def __init__(self, speed: float) -> None:
        if not speed > 0:
            raise ConfigError(f"speed is {speed}: a number above 0 was expected, 1 being the stream's own speed")
        self.speed = speed
        self._origin: tuple[float, float] | None = None

    def reset(self) -> None:
        """Forget the past: playback was interrupted."""
        self._origin = None

    def delay_s(self, time_s: float, now_s: float) -> float:
        """Seconds until the frame with this timestamp is due; not positive if it is."""
        if self._origin is None:
            self._origin = now_s, time_s
        delay_s = self._origin[0] + (time_s - self._origin[1]) / self.speed - now_s
        if delay_s < -_MAX_LAG_S:  # inference cannot keep up: go on from here rather than rush to catch up
            self._origin = now_s, time_s
        return delay_s
