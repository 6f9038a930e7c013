"""How sure a mean of few runs is."""

import math
import statistics

# Student's t of 95 %, both sides, by degrees of freedom
_QUANTILES = (math.nan, 12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306)

MOST = len(_QUANTILES)
"""Runs that `half_width` takes."""


def half_width(values: list[float]) -> float | None:
    """Give half the width of the mean's 95 % confidence interval; None for one value, or more than `MOST`."""
    if not 2 <= len(values) <= MOST:
        return None
    return round(_QUANTILES[len(values) - 1] * statistics.stdev(values) / math.sqrt(len(values)), 2)
