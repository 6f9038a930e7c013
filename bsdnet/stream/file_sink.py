"""Video files as output."""

import contextlib
from fractions import Fraction
from pathlib import Path

import av

from bsdnet.errors import SinkError
from bsdnet.picture import Picture
from bsdnet.runtime.prediction import Output
from bsdnet.stream.audio_copy import AudioCopy
from bsdnet.stream.encoders import Encoder, EncoderSettings
from bsdnet.stream.frame import StreamInfo, StreamResult
from bsdnet.stream.interfaces import VideoSink
from bsdnet.stream.partial_file import check_target
from bsdnet.stream.timeline import Timeline
from bsdnet.stream.video_file import VideoFile
from bsdnet.stream.video_writer import FORMATS


class FileSink(VideoSink):
    """Writes the rendered frames as H.264, in .webm as VP9, with the source's timestamps and its sound.

    Everything goes into `OUT.part` beside the target, which plays even if the process is killed; `finish` makes it the
    target. The picture's size is that of the first rendered frame; others are scaled to it.

    Args:
        path: the target; its suffix chooses the container, one of `FORMATS`.
        overwrite: whether an existing target may be replaced, and a `.part` of an earlier run.
        audio: whether the source's sound is copied.
        source_path: the input, to be refused as target even if it has no sound.
        encoder: which one, and how good.

    Raises:
        SinkError: the target exists and is not to be replaced, is a folder or the input, or its folder is
            missing or not writable.
        ConfigError: its suffix tells no video format, or the encoder's settings do not go with the container.
    """

    wants: frozenset[Output] = frozenset({"rendered"})
    live = False

    def __init__(
        self,
        path: str | Path,
        *,
        overwrite: bool = False,
        audio: bool = True,
        source_path: str | Path | None = None,
        encoder: EncoderSettings | None = None,
    ) -> None:
        target = Path(path)
        check_target(target, tuple(FORMATS))
        self.name = target.name
        self.encoder: Encoder | None = None
        """What was chosen, once a frame was written."""
        self._settings = encoder or EncoderSettings()
        self._settings.check_container(FORMATS[target.suffix.lower()])
        self._file = VideoFile(target, overwrite=overwrite)
        self._with_audio = audio
        self._info: StreamInfo | None = None
        self._audio: AudioCopy | None = None
        self._timeline: Timeline | None = None
        self._last = Fraction(0)
        if source_path is not None:
            self._file.part.check_not_input(source_path)
        self._file.part.check_free()

    def open(self, info: StreamInfo) -> None:
        """Create the partial file and open the sound."""
        self._info = info
        if info.audio_path is not None:
            self._file.part.check_not_input(info.audio_path)
        self._file.create()
        if self._with_audio:
            self._audio = open_audio(info)

    def write(self, result: StreamResult) -> None:
        """Encode one rendered frame."""
        rendered = rendered_of(result, self.name)
        if self._info is None:
            raise SinkError(f"{self.name} was not opened before it was written to")
        if self._timeline is None:
            self._timeline = Timeline(self._info, result.frame)
            self.encoder = self._file.choose_encoder(self._settings, rendered, self._timeline)
            self._file.start(rendered, self._timeline, self.encoder, self._audio)
        pts = self._timeline.place(result.frame.pts)
        self._file.write(rendered, pts)
        self._last = self._timeline.source_time(pts)

    def finish(self) -> None:
        """Close the file and give it its name."""
        if self._timeline is None or not self._file.num_written:
            self.abort()
            raise SinkError(f"{self._file.path} was not written: there was no frame to write")
        self._file.end(self._timeline.end, last=self._last)
        self._file.commit()
        self._close_audio()

    def abort(self) -> None:
        """Close the partial file and keep it if there is a frame in it; the target stays as it was."""
        if self._timeline is not None and self._file.num_written and self._file.started:
            with contextlib.suppress(SinkError):
                self._file.end(self._timeline.end, last=self._last)
        self._file.close_early()
        self._close_audio()

    def _close_audio(self) -> None:
        if self._audio is not None:
            self._audio.close()
        self._audio = None


def open_audio(info: StreamInfo) -> AudioCopy | None:
    """Open the sound of a stream, if it has one.

    Raises:
        SinkError: it cannot be read.
    """
    if info.audio_path is None:
        return None
    try:
        return AudioCopy(info.audio_path)
    except (av.FFmpegError, OSError) as error:
        raise SinkError(f"the sound of {info.audio_path} cannot be read: {error.strerror}") from error


def rendered_of(result: StreamResult, name: str) -> Picture:
    """Give the picture to write.

    Raises:
        SinkError: the result has none.
    """
    if result.prediction.rendered is None:
        raise SinkError(f"{name} was given a result without a rendered frame; ask the segmenter for it")
    return result.prediction.rendered
