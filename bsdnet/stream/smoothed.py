"""A segmenter that steadies the labels of one stream."""

from collections.abc import Set as AbstractSet
from typing import Protocol

from bsdnet.picture import Picture
from bsdnet.runtime.prediction import Output, PredictionHandle
from bsdnet.runtime.segmenter import LABELS
from bsdnet.runtime.smoothing import Smoother
from bsdnet.stream.frame import Frame

MAX_GAP_S = 0.5
"""Seconds. Frames that lie further apart are not averaged: at 1 s two of three real pairs look like a cut."""


class TakesSmoother(Protocol):
    """A segmenter that can average, such as `Segmenter` and `AdaptiveSegmenter`."""

    def submit(self, picture: Picture, *, outputs: AbstractSet[Output], smoother: Smoother | None) -> PredictionHandle:
        """Have a frame segmented in the background; see `Segmenter.submit`."""
        ...


class SmoothedSegmenter:
    """Segments the frames of one stream, each averaged with those before; see `bsdnet.runtime.smoothing`.

    Give `submit` to a pipeline as its segmenter, and `follow` as its `on_frame`.

    Args:
        segmenter: does the work, and may work for other streams too; who made it closes it.
    """

    def __init__(self, segmenter: TakesSmoother) -> None:
        self._segmenter = segmenter
        self._smoother = Smoother()
        self._epoch, self._time_s = 0, 0.0

    def follow(self, frame: Frame) -> None:
        """Begin anew if this frame, which is submitted next, does not follow the one before: after a seek or a gap."""
        if frame.epoch != self._epoch or not 0 < frame.time_s - self._time_s <= MAX_GAP_S:
            self._smoother.reset()
        self._epoch, self._time_s = frame.epoch, frame.time_s

    def submit(self, picture: Picture, *, outputs: AbstractSet[Output] = LABELS) -> PredictionHandle:
        """Have a frame segmented in the background; see `Segmenter.submit`."""
        return self._segmenter.submit(picture, outputs=outputs, smoother=self._smoother)
