"""The thread that paints: from the newest result and the newest look to the newest picture."""

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from app.compose import Composed, Look, class_shares, compose_tiles, make_renderer
from app.engine import SeenPrediction
from app.view_geometry import ViewGeometry
from bsdnet.classes import ClassSet
from bsdnet.stream.frame import StreamResult

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class _Seen:
    """A result with what is known of it whatever it looks like."""

    result: StreamResult
    classes: ClassSet
    shares: np.ndarray[tuple[int, ...], np.dtype[np.float64]]
    number: int


class Composer:
    """Holds one result and one picture at most, each the newest: nothing piles up, however slow the screen is.

    A change of look or geometry paints the same frame anew, without the network.

    Args:
        notify: told on the thread that there is a picture, once until `take` is called.
    """

    def __init__(self, notify: Callable[[], None]) -> None:
        self._notify = notify
        self._changed = threading.Condition()
        self._stream = 0
        self._result: StreamResult | None = None
        self._look = Look()
        self._geometry: ViewGeometry | None = None
        self._dirty = False
        self._closed = False
        self._picture: Composed | None = None
        self._seen: _Seen | None = None  # the thread's
        self._thread = threading.Thread(target=self._run, name="bsdnet-view composer", daemon=True)
        self._thread.start()

    def offer(self, stream: int, result: StreamResult) -> None:
        """Take a new result of a stream in place of the last one; one of another stream comes too late."""
        with self._changed:
            if stream == self._stream:
                self._result = result
                self._mark()

    def show(self, look: Look, geometry: ViewGeometry | None) -> None:
        """Take a new look; the newest result is painted anew if it differs from the last one."""
        with self._changed:
            if (look, geometry) != (self._look, self._geometry):
                self._look, self._geometry = look, geometry
                self._mark()

    def clear(self, stream: int) -> None:
        """Forget the result, and take only those of another stream from now on."""
        with self._changed:
            self._stream = stream
            self._result = self._picture = None

    def take(self) -> Composed | None:
        """Fetch the newest picture; None if there is none that was not fetched."""
        with self._changed:
            picture, self._picture = self._picture, None
            return picture

    def close(self) -> None:
        """End the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify()

    def _mark(self) -> None:
        self._dirty = True
        self._changed.notify()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or (self._dirty and self._result is not None))
                if self._closed:
                    return
                self._dirty = False
                stream, result, look, geometry = self._stream, self._result, self._look, self._geometry
            try:
                picture = self._compose(result, look, geometry) if result is not None else None
            except Exception:  # one bad frame must not end the view
                logger.exception("a frame could not be painted")
                continue
            with self._changed:
                pending = self._picture is not None
                if stream != self._stream:
                    continue
                self._picture = picture
            if not pending:
                self._notify()

    def _compose(self, result: StreamResult, look: Look, geometry: ViewGeometry | None) -> Composed:
        seen = self._seen
        if seen is None or seen.result is not result:
            seen = self._seen = _look_at(result, 0 if seen is None else seen.number + 1)
        fits = geometry is not None and geometry.frame == result.frame.size
        renderer = make_renderer(seen.classes, look)
        return Composed(
            result=result,
            classes=seen.classes,
            shares=seen.shares,
            number=seen.number,
            tiles=compose_tiles(result, geometry, look, renderer) if fits and geometry else (),
            geometry=geometry if fits else None,
        )


def _look_at(result: StreamResult, number: int) -> _Seen:
    prediction = result.prediction
    if not isinstance(prediction, SeenPrediction) or prediction.labels is None:
        raise TypeError("the viewer's results come from its own engine, with labels")
    return _Seen(result, prediction.classes, class_shares(prediction.labels, len(prediction.classes)), number)
