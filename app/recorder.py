"""Recording in the middle of a stream, with the writer that bsdnet-run has."""

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from app.compose import Look, make_renderer
from app.engine import SeenPrediction
from bsdnet.errors import BsdnetError, SinkError
from bsdnet.runtime.prediction import Output
from bsdnet.stream.frame import StreamInfo, StreamResult
from bsdnet.stream.interfaces import VideoSink

if TYPE_CHECKING:  # the encoder is loaded when it is needed
    from bsdnet.stream.sink import FileSink

_FALLBACK_FPS = 25.0


class Recorder(VideoSink):
    """Forwards every frame to a file from `begin` to `end`, as it is shown at that moment.

    It is no live sink: no frame is lost, and a computer that cannot encode as fast as the stream comes shows it as
    slowly as it writes. There is no sound, since who records may pause, seek and change the speed; after a seek the
    recording goes on without a gap. A paused frame that is labelled anew is not recorded again.

    Args:
        ended: told on any thread that a recording has ended, and what it failed of if it did.
    """

    name = "recorder"
    wants: frozenset[Output] = frozenset({"labels"})
    live = False

    def __init__(self, ended: Callable[[Path, BsdnetError | None], None]) -> None:
        self._ended = ended
        self._lock = threading.Lock()  # the pipeline writes, somebody else begins and ends
        self._file: FileSink | None = None
        self._path = Path()
        self._info: StreamInfo | None = None
        self._last: tuple[int, int, int] | None = None  # epoch, pts and output pts of the last frame
        self._shift = 0
        self.look = Look()
        """How coming frames are drawn; set from any thread."""

    def begin(self, path: Path, info: StreamInfo) -> None:
        """Create the file; the next frame is its first. May take as long as the disk does.

        Raises:
            SinkError: it cannot be created, or a recording is under way.
        """
        with self._lock:
            if self._file is not None:
                raise SinkError(f"a recording is under way; stop it before {path.name} is begun")
            from bsdnet.stream.sink import FileSink

            file = FileSink(path, audio=False)
            file.open(info)
            self._file, self._path, self._info, self._last, self._shift = file, path, info, None, 0

    def end(self) -> None:
        """Finish the file, if there is one. May take as long as the disk does."""
        with self._lock:
            file, self._file = self._file, None
            if file is None:
                return
            try:
                file.finish()
            except SinkError as error:
                self._ended(self._path, error)
            else:
                self._ended(self._path, None)

    def open(self, info: StreamInfo) -> None:
        """There is nothing to open before `begin`."""

    def write(self, result: StreamResult) -> None:
        """Write one frame if a recording is under way."""
        with self._lock:
            if self._file is None or self._is_seen_anew(result):
                return
            try:
                self._file.write(self._drawn(result))
            except BsdnetError as error:
                self._file.abort()
                self._file = None
                self._ended(self._path, error)

    def finish(self) -> None:
        """Finish the file when the stream ends, however that is: what was recorded is what was wanted."""
        self.end()

    def abort(self) -> None:
        """Do what `finish` does."""
        self.end()

    def _drawn(self, result: StreamResult) -> StreamResult:
        prediction = result.prediction
        if not isinstance(prediction, SeenPrediction) or prediction.labels is None:
            raise SinkError("a recording needs labels from the viewer's own engine")
        frame = replace(result.frame, pts=self._place(result))
        if self.look.mode == "original":
            return StreamResult(frame=frame, prediction=replace(prediction, rendered=frame.picture))
        renderer = make_renderer(prediction.classes, self.look)
        rendered = renderer.render_picture(frame.picture, prediction.labels)
        return StreamResult(frame=frame, prediction=replace(prediction, rendered=rendered))

    def _is_seen_anew(self, result: StreamResult) -> bool:
        """Whether a seek went to the frame that was the last: the next one follows it as if there had been none."""
        epoch, pts = result.frame.epoch, result.frame.pts
        if self._last is None or epoch == self._last[0] or pts != self._last[1]:
            return False
        self._last = epoch, pts, self._last[2]
        return True

    def _place(self, result: StreamResult) -> int:
        """Move the frame's time so that a seek leaves no gap."""
        epoch, pts = result.frame.epoch, result.frame.pts + self._shift
        if self._last is not None and self._info is not None and epoch != self._last[0]:
            step = max(1, round(1 / (self._info.fps or _FALLBACK_FPS) / self._info.time_base))
            self._shift += self._last[2] + step - pts
            pts = self._last[2] + step
        self._last = epoch, result.frame.pts, pts
        return pts
