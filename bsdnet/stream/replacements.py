"""Segmenters that take the place of a pipeline's own while it runs."""

import threading
from collections import deque
from collections.abc import Callable

from bsdnet.errors import PipelineError
from bsdnet.stream.interfaces import SegmenterLike

Replacement = tuple[SegmenterLike, Callable[[], None] | None]
"""A segmenter, and what to call once the one before it is not used any more."""


class Replacements:
    """What other threads want the inference thread to go on with, in their order; none is taken and then forgotten."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._over = False
        self._waiting: deque[Replacement] = deque()

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def add(self, replacement: Replacement) -> None:
        """Have a segmenter used from the next frame on.

        Raises:
            PipelineError: there is no next frame.
        """
        with self._lock:
            if self._over:
                raise PipelineError("replace_segmenter: the pipeline is coming to its end; make a new one")
            self._waiting.append(replacement)

    def take(self) -> Replacement:
        """Give the first one; there is one."""
        return self._waiting.popleft()

    def close(self) -> None:
        """Take none any more."""
        with self._lock:
            self._over = True
