"""The engine as one stream uses it: with a past of its own, to steady the labels by if that is wanted."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from app.engine import Engine, SegmenterLike, TakesPictures
from bsdnet.picture import Picture
from bsdnet.runtime.prediction import Output, PredictionHandle
from bsdnet.stream.frame import Frame

if TYPE_CHECKING:  # it imports PyTorch, which the window does not wait for
    from bsdnet.stream.smoothed import SmoothedSegmenter


class StreamSegmenter:
    """What a pipeline gets as its segmenter; its methods are called on that pipeline's inference thread only.

    Args:
        engine: the one to begin with.
        smooth: tells, before each frame, whether its labels are to be steadied.
    """

    def __init__(self, engine: Engine, smooth: Callable[[], bool]) -> None:
        self._engine = engine
        self._smooth = smooth
        self._frame: Frame | None = None
        self._smoothed: tuple[SegmenterLike, SmoothedSegmenter] | None = None

    def follow(self, frame: Frame) -> None:
        """Take the frame that is submitted next."""
        self._frame = frame

    def submit(self, picture: Picture, *, outputs: frozenset[Output]) -> PredictionHandle:
        """Begin with the picture of that frame."""
        return self._engine.submit(picture, outputs=outputs, by=self._steadied)

    def change(self, engine: Engine) -> None:
        """Use another engine from the next frame on, and close the one so far."""
        old, self._engine = self._engine, engine
        old.close()

    def _steadied(self, segmenter: SegmenterLike) -> TakesPictures:
        """What takes the frame in place of a segmenter; past frames of another one mean nothing to it."""
        if not self._smooth() or self._frame is None:
            self._smoothed = None
            return segmenter
        if self._smoothed is None or self._smoothed[0] is not segmenter:
            from bsdnet.stream.smoothed import SmoothedSegmenter

            self._smoothed = segmenter, SmoothedSegmenter(segmenter)
        smoothed = self._smoothed[1]
        smoothed.follow(self._frame)
        return smoothed
