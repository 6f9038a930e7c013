"""Opening what a user names, on a thread of its own, and letting it go again."""

import threading
from collections.abc import Callable

from bsdnet.stream.interfaces import VideoSource

OpenSource = Callable[[str], VideoSource]

_LET_GO_S = 2.0  # the longest that a stream takes to stop


def open_any_source(spec: str) -> VideoSource:
    """Open a source as `bsdnet-run` does."""
    import bsdnet.stream.pipeline
    import bsdnet.stream.sink  # noqa: F401 - imported here, they do not hold up the window when they are needed
    from bsdnet.stream.source import open_source

    return open_source(spec)


class SourceOpener:
    """Opens sources, a camera once the stream before has let it go: only one may have it.

    Args:
        open_source: opens what a user names.
    """

    def __init__(self, open_source: OpenSource) -> None:
        self.open_source = open_source
        self._let_go = threading.Event()  # by the stream before
        self._let_go.set()

    def opening(self, spec: str) -> Callable[[], VideoSource]:
        """Give what opens a source, to be called on any thread."""
        let_go = self._let_go

        def open_it() -> VideoSource:
            if spec.startswith("camera:"):
                let_go.wait(_LET_GO_S)
            return self.open_source(spec)

        return open_it

    def stopping(self, stop: Callable[[], object]) -> Callable[[], None]:
        """Give what stops a stream, to be called on any thread; cameras that are opened from now on wait for it."""
        let_go = self._let_go = threading.Event()

        def stop_it() -> None:
            try:
                stop()
            finally:
                let_go.set()

        return stop_it
