"""One video file in the making."""

import contextlib
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO

import av

from bsdnet.errors import SinkError
from bsdnet.picture import Picture
from bsdnet.stream.audio_copy import AudioCopy
from bsdnet.stream.encoders import Encoder, EncoderSettings, choose_encoder
from bsdnet.stream.partial_file import PartialFile
from bsdnet.stream.timeline import Timeline
from bsdnet.stream.video_writer import FORMATS, VideoWriter, even_size

_MAX_SIDE_PX = 16_384  # of H.264
_LOOK_EVERY_S = 1.0  # whether the file is still there: a write to one that was removed succeeds


class VideoFile:
    """Everything goes into `NAME.part` beside the target, which plays even if the process is killed.

    Args:
        path: the target.
        overwrite: whether an existing target may be replaced, and a `.part` of an earlier run.
    """

    def __init__(self, path: Path, *, overwrite: bool) -> None:
        self.path = path
        self.part = PartialFile(path, overwrite=overwrite)
        self.num_written = 0
        """Frames so far."""
        self._file: BinaryIO | None = None
        self._writer: VideoWriter | None = None
        self._look_due_s = 0.0

    @property
    def started(self) -> bool:
        """Whether there is a picture in it, or nearly."""
        return self._writer is not None

    def create(self) -> None:
        """Create the partial file.

        Raises:
            SinkError: that is not possible, or not allowed.
        """
        self._file = self.part.create()

    def choose_encoder(self, settings: EncoderSettings, picture: Picture, timeline: Timeline) -> Encoder:
        """Choose an encoder for pictures like this one.

        Raises:
            SinkError: there is none.
        """
        height, width = picture.size
        if max(height, width) > _MAX_SIDE_PX:
            pictures = f"its pictures would be {width}x{height}, and H.264 ends at {_MAX_SIDE_PX}"
            raise SinkError(f"{self.path} cannot be written: {pictures}")
        return choose_encoder(settings, self._container, even_size(picture.size), timeline.fps)

    def start(
        self,
        first: Picture,
        timeline: Timeline,
        encoder: Encoder,
        audio: AudioCopy | None,
        *,
        zero: int = 0,
        comment: str | None = None,
    ) -> None:
        """Begin to write.

        Args:
            first: the first picture, which is not written yet.
            timeline: of the whole output.
            encoder: makes the bits.
            audio: sound to copy.
            zero: timestamp in the whole output that is zero in this file.
            comment: stands in the file's metadata.

        Raises:
            SinkError: FFmpeg or the file system refuses.
        """
        if self._file is None:
            raise SinkError(f"{self.path.name} was not opened, or was closed, before it was written to")
        with self._naming_the_part():
            self._writer = VideoWriter(
                self._file,
                name=self.path.name,
                container=self._container,
                encoder=encoder,
                size=first.size,
                encoding=first.encoding,
                time_base=timeline.time_base,
                fps=timeline.fps,
                audio=audio,
                origin=timeline.source_time(zero),
                from_start=timeline.from_start and zero == 0,
                comment=comment,
            )

    def write(self, picture: Picture, pts: int) -> None:
        """Encode one picture.

        Args:
            picture: of any size and pixel format.
            pts: timestamp in the file, greater than the last one.

        Raises:
            SinkError: it cannot be written.
        """
        with self._naming_the_part():
            if time.monotonic() >= self._look_due_s:
                self.part.check_there()
                self._look_due_s = time.monotonic() + _LOOK_EVERY_S
            self._opened_writer.write(picture, pts)
        self.num_written += 1

    def end(self, end_pts: int, *, last: Fraction | None = None) -> None:
        """Write what is still held back; see `VideoWriter.end`.

        Raises:
            SinkError: it cannot be written.
        """
        with self._naming_the_part():
            self._opened_writer.end(end_pts, last=last)

    def commit(self) -> None:
        """Close the file and give it its name.

        Raises:
            SinkError: that is not possible; what was written is kept under its partial name.
        """
        with self._naming_the_part():
            self._opened_writer.close()
            self.part.commit()
        self._file = self._writer = None

    def close_early(self) -> None:
        """Close the partial file in good order and keep it, if there is a frame in it; never raises."""
        if self._writer is not None:
            with contextlib.suppress(av.FFmpegError, OSError):
                self._writer.close()
        self.release()

    def release(self) -> None:
        """Close the partial file as it is, and remove it if there is no frame in it.

        An open writer writes nothing any more: on a full disk that would spoil what is there.
        """
        self.part.release(keep=self.num_written > 0)
        self._file = self._writer = None

    @property
    def _container(self) -> str:
        return FORMATS[self.path.suffix.lower()]

    @property
    def _opened_writer(self) -> VideoWriter:
        if self._writer is None:
            raise SinkError(f"{self.path.name} was not opened, or was closed, before it was written to")
        return self._writer

    @contextlib.contextmanager
    def _naming_the_part(self) -> Iterator[None]:
        """On failure leave the partial file as it is, and say where it is."""
        try:
            yield
        except (av.FFmpegError, OSError) as error:
            self.release()
            raise SinkError(f"{self.path} cannot be written: {error.strerror}{self._kept()}") from error
        except SinkError as error:
            self.release()
            raise SinkError(f"{error}{self._kept()}") from error

    def _kept(self) -> str:
        return f"; what was written is in {self.part.path}" if self.num_written and self.part.path.exists() else ""
