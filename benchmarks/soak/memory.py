"""How the memory of a long run grows."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np


def resident_mib() -> float:
    """Memory of this process that is in RAM."""
    status = Path("/proc/self/status").read_text()
    return round(int(status.partition("VmRSS:")[2].split()[0]) / 1024, 1)


def slope(points: Sequence[tuple[float, float]]) -> float:
    """Give the slope of a straight line through points of seconds and values, per second."""
    seconds, values = np.array(points).T
    return float(np.polyfit(seconds, values, 1)[0])
