"""Pictures that carry their number and the moment of their making, legible after H.264.

Needs the standard library only, so that the servers of another interpreter can draw them.
"""

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # that interpreter need not have it
    import numpy as np
    from numpy.typing import NDArray

WIDTH, HEIGHT = 256, 128
_BITS = 32
_BLOCK_PX = WIDTH // _BITS
_BLACK, _WHITE = 16, 235


def clock_ms() -> int:
    """Milliseconds of the clock that all processes of this machine share."""
    return time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1_000_000 % (1 << _BITS)


def luma(number: int) -> bytes:
    """A Y plane `(HEIGHT, WIDTH)` with the number in its upper half and the time of this call in the lower one."""
    return _row(number) * (HEIGHT // 2) + _row(clock_ms()) * (HEIGHT // 2)


def read_stamp(rgb: "NDArray[np.uint8]") -> tuple[int, int]:
    """The number and the time in milliseconds on an array `(HEIGHT, WIDTH, 3)`."""
    centres = rgb[HEIGHT // 4 :: HEIGHT // 2, _BLOCK_PX // 2 :: _BLOCK_PX, 1]
    number, made_at_ms = (int("".join("1" if pixel > 128 else "0" for pixel in row), 2) for row in centres)
    return number, made_at_ms


def _row(value: int) -> bytes:
    bits = f"{value % (1 << _BITS):0{_BITS}b}"
    return b"".join(bytes([_WHITE if bit == "1" else _BLACK]) * _BLOCK_PX for bit in bits)
