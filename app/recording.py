"""Beginning and ending recordings of what is played, without making anybody wait."""

from pathlib import Path

from PySide6.QtCore import QObject, Signal

from app.compose import Look
from app.jobs import Jobs
from app.naming import new_path
from app.problems import sentence
from app.recorder import Recorder
from bsdnet.errors import BsdnetError
from bsdnet.stream.frame import StreamInfo


class Recording(QObject):
    """At most one recording at a time; each stream has a recorder of its own, so that no frame gets into another's.

    Args:
        jobs: threads.
        parent: Qt's owner.
    """

    changed = Signal(object)  # Path while one is under way, else None
    finished = Signal(object)  # Path
    failed = Signal(str)  # why, in words

    def __init__(self, jobs: Jobs, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._jobs = jobs
        self._look = Look()
        self._recorder: Recorder | None = None  # the stream's
        self._stream: tuple[str, StreamInfo] | None = None
        self._path: Path | None = None
        self._beginning = False
        self._wanted = False
        self._ended_path: Path | None = None  # since the last beginning

    @property
    def path(self) -> Path | None:
        """The file that is being recorded."""
        return self._path

    def show(self, look: Look) -> None:
        """Record frames this way from now on."""
        self._look = look
        if self._recorder:
            self._recorder.look = look

    def follow(self, spec: str, info: StreamInfo) -> Recorder:
        """Make the sink of a stream that begins."""
        self._stream = spec, info
        self._recorder = Recorder(self._ended)
        self._recorder.look = self._look
        return self._recorder

    def leave(self) -> None:
        """Finish what is recorded of the stream, which is not played any more."""
        self.stop()
        self._recorder = self._stream = None

    def toggle(self, folder: Path) -> None:
        """Begin to record into a new file, or stop recording."""
        if self._wanted:
            self.stop()
        else:
            self.start(folder)

    def start(self, folder: Path) -> None:
        """Record what is shown from now on into a new file, if there is a stream and nothing is recorded."""
        recorder = self._recorder
        if recorder is None or self._stream is None or self._beginning or self._path is not None:
            return
        spec, info = self._stream
        self._beginning = self._wanted = True
        self._ended_path = None

        def begin() -> Path:
            path = new_path(folder, spec, ".mp4")
            recorder.begin(path, info)
            if not self._wanted:  # the stream may have ended before, and nobody else would finish the file
                recorder.end()
            return path

        self._jobs.start("record", begin, done=lambda path: self._begun(recorder, path), failed=self._not_begun)

    def stop(self) -> None:
        """Finish the recording, if there is one."""
        if self._wanted and self._recorder is not None and not self._beginning:
            self._jobs.start("finish recording", self._recorder.end)
        self._wanted = False

    def _begun(self, recorder: Recorder, path: Path) -> None:
        self._beginning = False
        if path == self._ended_path:  # the stream was over sooner than this was known
            return
        self._set(path)
        if not self._wanted:
            self._jobs.start("finish recording", recorder.end)

    def _not_begun(self, error: Exception) -> None:
        self._beginning = self._wanted = False
        self.failed.emit(f"Nothing is recorded: {sentence(error)}")

    def _ended(self, path: Path, error: BsdnetError | None) -> None:
        """Pass on, from any thread, that a recording is finished or broke off."""
        self._jobs.call_later(lambda: self._over(path, error))

    def _over(self, path: Path, error: BsdnetError | None) -> None:
        self._ended_path = path
        self._wanted = False
        self._set(None)
        if error is None:
            self.finished.emit(path)
        else:
            self.failed.emit(f"The recording broke off: {sentence(error)}")

    def _set(self, path: Path | None) -> None:
        self._path = path
        self.changed.emit(path)
