"""What a segmenter gives back."""

from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from bsdnet.picture import Picture

Output = Literal["labels", "confidence", "rendered"]
"""What can be asked of a prediction."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Prediction:
    """The result for one frame; what was not asked for is None."""

    labels: NDArray[np.uint8] | None = None
    """Class indices at the frame's size, `(H, W)` uint8."""
    confidence: NDArray[np.uint8] | None = None
    """Softmax probability of the chosen class at the frame's size, `(H, W)` uint8, 255 being certain."""
    rendered: Picture | None = None
    """The frame with its classes drawn, in the frame's own pixel format; side by side it is twice as wide."""
    infer_s: float = 0.0
    """Seconds from the frame to its labels: resize, normalise, network, upsample, argmax."""
    render_s: float = 0.0
    """Seconds from the labels to the rendered frame; on a GPU one kernel decides and draws all but the legend, which
    counts in `infer_s`."""
    busy_s: float = 0.0
    """Seconds for which the segmenter was at work for this frame; frames that it works on at once share the time, so
    that its inverse is how many frames a second it can do."""


class PredictionHandle(Protocol):
    """A prediction that may still be under way."""

    def result(self, timeout_s: float | None = None) -> Prediction:
        """Wait for the prediction.

        Args:
            timeout_s: longest wait in seconds; None waits for ever.

        Raises:
            TimeoutError: it was not ready in time.
            BsdnetError: inference failed; the cause is chained.
        """
        ...

    def done(self) -> bool:
        """Tell whether `result` would return at once."""
        ...
