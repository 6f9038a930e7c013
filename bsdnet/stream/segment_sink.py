"""A recording in files of a given length, each finished before the next one is."""

import contextlib
import math
import threading
from concurrent.futures import Future
from fractions import Fraction
from pathlib import Path

from bsdnet.errors import ConfigError, SinkError
from bsdnet.picture import Picture
from bsdnet.runtime.prediction import Output
from bsdnet.stream.audio_copy import AudioCopy
from bsdnet.stream.encoders import Encoder, EncoderSettings
from bsdnet.stream.file_sink import open_audio, rendered_of
from bsdnet.stream.frame import StreamInfo, StreamResult
from bsdnet.stream.interfaces import VideoSink
from bsdnet.stream.partial_file import check_target
from bsdnet.stream.segment_store import COMMENT, SegmentStore
from bsdnet.stream.timeline import Timeline
from bsdnet.stream.video_file import VideoFile
from bsdnet.stream.video_writer import FORMATS


class SegmentSink(VideoSink):
    """Writes the rendered frames into `out-000001.mp4`, `out-000002.mp4` and so on, for machines that lose power.

    Each file plays by itself and begins at zero; played one after the other they are the whole stream: no frame and no
    packet of sound is lost or doubled at the seams, and a file lasts until the next one begins. A finished file has
    been forced to disk. What a run that was cut off has left is finished when the next one starts.

    Args:
        path: what the names are made of, such as `out.mp4`; its suffix chooses the container, one of `FORMATS`.
        segment_s: a file ends with the last frame before so many seconds have passed.
        budget_bytes: what the segments of this name may take in all; the oldest are deleted to make room for one as
            large as the newest. Files that we did not make stay.
        audio: whether the source's sound is copied.
        source_path: the input, which is not to be deleted.
        encoder: which one, and how good.

    Raises:
        SinkError: the path is a folder, or its folder is missing or not writable.
        ConfigError: its suffix tells no video format, or a setting has a value that cannot work.
    """

    wants: frozenset[Output] = frozenset({"rendered"})
    live = False

    def __init__(
        self,
        path: str | Path,
        *,
        segment_s: float,
        budget_bytes: int | None = None,
        audio: bool = True,
        source_path: str | Path | None = None,
        encoder: EncoderSettings | None = None,
    ) -> None:
        self._path = Path(path)
        check_target(self._path, tuple(FORMATS))
        self.name = self._path.name
        self.written: list[Path] = []
        """The finished files, also those that were deleted since."""
        self.left_over: Path | None = None
        """What an aborted run has left unfinished."""
        self.encoder: Encoder | None = None
        """What was chosen, once a frame was written."""
        self._settings = encoder or EncoderSettings()
        self._settings.check_container(FORMATS[self._path.suffix.lower()])
        for name, value in (("segment_s", segment_s), ("budget_bytes", budget_bytes)):
            if value is not None and not 0 < value < math.inf:
                raise ConfigError(f"{name} is {value}; expected more than 0, and not infinite")
        self._segment_s = Fraction(segment_s)
        self._store = SegmentStore(
            self._path, budget_bytes=budget_bytes, keep=[] if source_path is None else [Path(source_path)]
        )
        self._with_audio = audio
        self._info: StreamInfo | None = None
        self._audio: AudioCopy | None = None
        self._timeline: Timeline | None = None
        self._file: VideoFile | None = None
        self._zero = 0
        self._last = Fraction(0)
        self._closing: Future[None] | None = None

    def open(self, info: StreamInfo) -> None:
        """Finish what earlier runs have left, make room, and open the sound."""
        self._info = info
        self._store.rescue_left_over()
        self._store.make_room()
        if self._with_audio:
            self._audio = open_audio(info)

    def write(self, result: StreamResult) -> None:
        """Encode one rendered frame, in a new file if it is time."""
        rendered = rendered_of(result, self.name)
        if self._info is None:
            raise SinkError(f"{self.name} was not opened before it was written to")
        if self._timeline is None:
            self._timeline = Timeline(self._info, result.frame)
        pts = self._timeline.place(result.frame.pts)
        if self._file is not None and (pts - self._zero) * self._timeline.time_base >= self._segment_s:
            self._file.end(pts - self._zero)
            self._close(self._file)
            self._file = None
        if self._file is None:
            self._file = self._begin(self._timeline, rendered, pts)
        self._file.write(rendered, pts - self._zero)
        self._last = self._timeline.source_time(pts)

    def finish(self) -> None:
        """Finish the last file."""
        if self._file is None or self._timeline is None:
            self.abort()
            raise SinkError(f"{self._path} was not written: there was no frame to write")
        self._file.end(self._timeline.end - self._zero, last=self._last)
        self._close(self._file)
        self._file = None
        self._await_closing()
        self._release()

    def abort(self) -> None:
        """Close the file that is being written and keep it as `.part`; those before it stay."""
        if self._file is not None:
            if self._timeline is not None and self._file.num_written:
                with contextlib.suppress(SinkError):
                    self._file.end(self._timeline.end - self._zero, last=self._last)
            self._file.close_early()
            self.left_over = self._file.part.path if self._file.part.path.exists() else None
            self._file = None
        with contextlib.suppress(SinkError):
            self._await_closing()
        self._release()

    def _begin(self, timeline: Timeline, first: Picture, pts: int) -> VideoFile:
        # A recording goes from its own zero, which may lie before its first picture; the other files from a picture.
        self._zero = pts if self.written or self._closing else 0
        file = VideoFile(self._store.next_path(), overwrite=False)
        file.create()
        try:
            if self.encoder is None:
                self.encoder = file.choose_encoder(self._settings, first, timeline)
            file.start(first, timeline, self.encoder, self._audio, zero=self._zero, comment=COMMENT)
        except SinkError:
            file.release()
            raise
        return file

    def _close(self, file: VideoFile) -> None:
        """Finish a file while the next one is being written: a disk may take a second to have it all."""
        self._await_closing()
        self._closing = Future()
        # Not a thread pool's: Python would wait for that at its end, even if the disk hangs.
        threading.Thread(target=self._commit, args=(file, self._closing), name="bsdnet segment", daemon=True).start()

    def _commit(self, file: VideoFile, done: Future[None]) -> None:
        try:
            file.commit()
            self.written.append(file.path)
            self._store.make_room()
        except BaseException as error:  # for whoever asks next
            done.set_exception(error)
        else:
            done.set_result(None)

    def _await_closing(self) -> None:
        if self._closing is not None:
            self._closing.result()

    def _release(self) -> None:
        if self._audio is not None:
            self._audio.close()
        self._audio = None
