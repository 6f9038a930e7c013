"""Video files as output."""

import contextlib
import os
import shlex
import sys
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO

import av

from bsdnet.errors import ConfigError, SinkError
from bsdnet.picture import Picture
from bsdnet.runtime.prediction import Output
from bsdnet.stream.audio_copy import AudioCopy
from bsdnet.stream.frame import Frame, StreamInfo, StreamResult
from bsdnet.stream.h264_writer import FORMATS, H264Writer
from bsdnet.stream.interfaces import VideoSink

if sys.platform != "win32":
    import fcntl

PRESETS = ("ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow")
"""Presets of libx264, from the fastest to the one that makes the smallest files."""

DEFAULT_CRF = 21
DEFAULT_PRESET = "ultrafast"  # beside a network that needs the same cores; a third more bits than superfast at 720p
_FALLBACK_FPS = 25.0
_MAX_SIDE_PX = 16_384  # of libx264
_RESET_S = 1.0  # timestamps that go back by more than this begin anew; by less, they are just untidy


def partial_path(path: Path) -> Path:
    """Where a video is written until it is finished."""
    return path.with_name(path.name + ".part")


class FileSink(VideoSink):
    """Writes the rendered frames as H.264, with the source's timestamps and its sound.

    Everything goes into `OUT.part` beside the target, which plays even if the process is killed; `finish` makes it the
    target. The picture's size is that of the first rendered frame; others are scaled to it.

    Args:
        path: the target; its suffix chooses the container.
        overwrite: whether an existing target may be replaced, and a `.part` of an earlier run.
        audio: whether the source's sound is copied.
        source_path: the input, to be refused as target even if it has no sound.
        crf: constant rate factor, 0 (lossless) to 51.
        preset: one of `PRESETS`.

    Raises:
        SinkError: the target exists and is not to be replaced, is a folder or the input, has an unknown suffix, or its
            folder is missing or not writable.
        ConfigError: crf or preset is none.
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
        crf: int = DEFAULT_CRF,
        preset: str = DEFAULT_PRESET,
    ) -> None:
        self._path = Path(path)
        _check_target(self._path)
        self._part = partial_path(self._path)
        self.name = self._path.name
        self._overwrite = overwrite
        self._with_audio = audio
        self._crf = crf
        self._preset = preset
        self._info: StreamInfo | None = None
        self._file: BinaryIO | None = None
        self._audio: AudioCopy | None = None
        self._writer: H264Writer | None = None
        self._timeline = _Timeline(origin=0, step=1, reset=1)
        self._last = Fraction(0)
        self._frame_s = Fraction(0)
        self._num_written = 0
        if not 0 <= crf <= 51:
            raise ConfigError(f"crf is {crf}; expected 0 (lossless) to 51 (worst)")
        if preset not in PRESETS:
            raise ConfigError(f"preset is {preset!r}; expected one of {', '.join(PRESETS)}")
        if source_path is not None:
            self._check_not_input(source_path)
        self._check_free()

    def open(self, info: StreamInfo) -> None:
        """Create the partial file and open the sound."""
        self._info = info
        if info.audio_path is not None:
            self._check_not_input(info.audio_path)
        self._check_free()
        self._file = self._open_partial()
        if self._with_audio and info.audio_path is not None:
            try:
                self._audio = AudioCopy(info.audio_path)
            except (av.FFmpegError, OSError) as error:
                raise SinkError(f"the sound of {info.audio_path} cannot be read: {error.strerror}") from error

    def write(self, result: StreamResult) -> None:
        """Encode one rendered frame."""
        rendered = result.prediction.rendered
        if rendered is None:
            raise SinkError(f"{self.name} was given a result without a rendered frame; ask the segmenter for it")
        try:
            if self._writer is None:
                self._writer = self._start(result.frame, rendered)
            self._writer.write(rendered, self._timeline.place(result.frame.pts))
        except (av.FFmpegError, OSError) as error:
            raise self._failed(error) from error
        self._last = result.frame.pts * self._opened_info.time_base
        self._num_written += 1

    def finish(self) -> None:
        """Close the file and give it its name."""
        if self._writer is None or self._file is None:
            self.abort()
            raise SinkError(f"{self._path} was not written: there was no frame to write")
        try:
            self._writer.close(self._last, self._last + self._frame_s)
            os.fsync(self._file.fileno())
            self._release()
            self._check_free(partial=False)
            self._part.replace(self._path)
            _sync_folder(self._path.parent)
        except (av.FFmpegError, OSError) as error:
            raise self._failed(error) from error

    def abort(self) -> None:
        """Close the partial file and keep it if there is a frame in it; the target stays as it was."""
        if self._writer is not None:
            with contextlib.suppress(av.FFmpegError, OSError):
                self._writer.close(self._last, self._last + self._frame_s)
        self._release()

    def _open_partial(self) -> BinaryIO:
        """Open the partial file, and empty it once it is certain that no other run is writing it."""
        exclusive = 0 if self._overwrite else os.O_EXCL
        try:
            descriptor = os.open(self._part, os.O_RDWR | os.O_CREAT | exclusive | getattr(os, "O_BINARY", 0), 0o666)
        except OSError as error:
            raise SinkError(f"{self._part} cannot be created: {error.strerror}") from error
        file = os.fdopen(descriptor, "wb", buffering=0)
        if not _lock(file, self._part):
            file.close()
            raise SinkError(f"{self._part} is being written by another run; give the output another name")
        file.truncate(0)
        return file

    @property
    def _opened_info(self) -> StreamInfo:
        if self._info is None:
            raise SinkError(f"{self.name} was not opened before it was written to")
        return self._info

    def _start(self, first: Frame, rendered: Picture) -> H264Writer:
        info, size = self._opened_info, rendered.size
        if self._file is None:
            raise SinkError(f"{self.name} was not opened, or was closed, before it was written to")
        if max(size) > _MAX_SIDE_PX:
            pictures = f"its pictures would be {size[1]}x{size[0]}, and H.264 ends at {_MAX_SIDE_PX}"
            raise SinkError(f"{self._path} cannot be written: {pictures}")
        fps = Fraction(info.fps if info.fps > 0 else _FALLBACK_FPS).limit_denominator(1001)
        self._frame_s = 1 / fps
        from_start = first.index == 0
        # The output's zero is the source's, even if its pictures begin later than its sound.
        origin = first.pts - (round(first.time_s / info.time_base) if from_start else 0)
        self._timeline = _Timeline(
            origin=origin,
            step=max(int(self._frame_s / info.time_base), 1),
            reset=int(_RESET_S / info.time_base),
        )
        return H264Writer(
            self._file,
            container=FORMATS[self._path.suffix.lower()],
            size=size,
            encoding=rendered.encoding,
            time_base=info.time_base,
            fps=fps,
            crf=self._crf,
            preset=self._preset,
            audio=self._audio,
            origin=origin * info.time_base,
            from_start=from_start,
        )

    def _failed(self, error: OSError | av.FFmpegError) -> SinkError:
        """Leave the partial file as it is, and say where it is."""
        self._release()
        kept = f"; what was written is in {self._part}" if self._num_written else ""
        return SinkError(f"{self._path} cannot be written: {error.strerror}{kept}")

    def _release(self) -> None:
        """Close all files, and remove the partial one if there is no frame in it.

        An open writer writes nothing any more: on a full disk that would spoil what is there.
        """
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.close()
                if self._num_written == 0:
                    self._part.unlink()
        if self._audio is not None:
            self._audio.close()
        self._file = self._audio = self._writer = None

    def _check_free(self, *, partial: bool = True) -> None:
        if self._overwrite:
            return
        if self._path.exists():
            raise SinkError(
                f"{self._path} exists already; give another name, or pass -y to replace it (overwrite=True)"
            )
        if partial and self._part.exists():
            raise SinkError(
                f"{self._part} is left from a run that did not finish, or still goes on, and may hold its video; "
                "rename it, or pass -y to replace it (overwrite=True)"
            )

    def _check_not_input(self, source_path: str | Path) -> None:
        source = Path(source_path)
        for written in (self._path, self._part):
            if written.resolve() == source.resolve() or (
                written.exists() and source.exists() and written.samefile(source)
            ):
                raise SinkError(f"{written} is the input, which must not be written over; give the output another name")


class _Timeline:
    """Timestamps for the output: the source's, moved to begin at the output's zero and mended where they go back.

    Args:
        origin: the source's timestamp that is zero in the output.
        step: units between frames, as announced.
        reset: units; timestamps that go back farther than this began anew, and follow on one step later.
    """

    def __init__(self, *, origin: int, step: int, reset: int) -> None:
        self._shift = -origin
        self._step = step
        self._reset = reset
        self._last: int | None = None

    def place(self, pts: int) -> int:
        """Give the timestamp for the next frame, always greater than the last one."""
        placed = pts + self._shift
        if self._last is not None and placed <= self._last:
            if self._last - placed > self._reset:
                self._shift += self._last + self._step - placed
                placed = self._last + self._step
            else:
                placed = self._last + 1
        self._last = placed
        return placed


def _check_target(path: Path) -> None:
    if path.is_dir():
        raise SinkError(f"{path} is a folder; give the name of a video file in it")
    if path.suffix.lower() not in FORMATS:
        raise SinkError(f"{path} has no suffix that tells a video format; expected one of {' '.join(FORMATS)}")
    if not path.parent.is_dir():
        raise SinkError(
            f"the folder {path.parent} does not exist; make it first: mkdir -p {shlex.quote(str(path.parent))}"
        )
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise SinkError(f"the folder {path.parent} may not be written to: permission denied")


def _lock(file: BinaryIO, path: Path) -> bool:
    """Keep other runs from a file until it is closed; False if one has it, or has just moved it to its target."""
    if sys.platform == "win32":
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except (BlockingIOError, FileNotFoundError):
        return False
    except OSError:  # a file system without locks
        return True


def _sync_folder(folder: Path) -> None:
    """Make a renaming survive a loss of power, where the system can."""
    if sys.platform == "win32":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
