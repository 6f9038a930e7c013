"""What a player may be doing."""

from enum import Enum

SPEEDS = (0.25, 0.5, 1.0, 2.0, 4.0)
"""Speeds of playback: seconds of a file in one second."""


class Phase(Enum):
    """What the player is doing."""

    EMPTY = "empty"
    OPENING = "opening"
    PLAYING = "playing"
    PAUSED = "paused"
    ENDED = "ended"
    """At the end of a file; playing begins it again."""
    FAILED = "failed"
