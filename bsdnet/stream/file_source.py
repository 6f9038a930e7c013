"""Video files, decoded by FFmpeg through PyAV."""

import logging
import math
import re
import threading
from collections.abc import Generator
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import get_args

import av
from av.container import InputContainer
from av.packet import Packet
from av.stream import Stream
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream

from bsdnet.decoding import announced_fps, as_fraction, decoded_picture, square_width_of
from bsdnet.errors import ConfigError, SourceError
from bsdnet.picture import Picture
from bsdnet.stream.continuity import LONGEST_STEP_S, RESET_S
from bsdnet.stream.demux import is_cover, iter_packets
from bsdnet.stream.frame import Frame, StreamInfo
from bsdnet.stream.hardware_decoding import (
    HardwareDecoding,
    open_on_device,
    why_not_decoded_on_device,
    why_not_on_device,
)
from bsdnet.stream.interfaces import VideoSource
from bsdnet.stream.losses import Losses
from bsdnet.stream.whole_decoding import decode_whole

_SEEK_TOLERANCE_S = 1e-6  # so that a frame's own time finds this frame whatever the rounding of floats
_SEEK_BACK_S = (0.0, 2.0, 10.0, 60.0, math.inf)  # not every demuxer lands before what is asked for: try farther back
_BEFORE_START_S = -10.0  # where to go to get the first frame for certain
_CLOSE_TIMEOUT_S = 1.0

logger = logging.getLogger(__name__)


class _DeviceFailed(Exception):
    """The GPU could not decode something; software may, or knows how to step over it."""


class FileSource(VideoSource):
    """A video file: its first video stream, upright, with square pixels and the file's own timestamps.

    Damage costs the frames that it touches and no others; see `decode_whole`. A picture may have another
    size than the first one.

    Args:
        path: any file that FFmpeg decodes.
        hwaccel: where to decode. What fails on the GPU is decoded again in software, so that no frame is lost by it.
        gpu: the GPU that decodes, from 0, as CUDA counts them.

    Raises:
        SourceError: the file is missing, may not be read, is no video, or no frame of it can be decoded.
        ConfigError: no such `hwaccel`.
    """

    def __init__(self, path: str | Path, *, hwaccel: HardwareDecoding = "none", gpu: int = 0) -> None:
        if hwaccel not in get_args(HardwareDecoding):
            raise ConfigError(f"hwaccel must be one of {', '.join(get_args(HardwareDecoding))}, got {hwaccel!r}")
        self._path = Path(path)
        self._container = _open(self._path)
        self._lock = threading.Lock()  # FFmpeg crashes if a container is closed while it decodes
        self._closed = False
        try:
            self._adopt(self._container)
            self._time_base = as_fraction(self._stream.time_base) or Fraction(1, 90_000)
            self._fps = announced_fps(self._stream)
            self._start_pts = self._find_start()
            self._square_width = square_width_of(self._stream)
            self._reformatter = VideoReformatter()
            self._losses = Losses(1 / Fraction(self._fps))
            self._sought = False
            self._index = 0
            self._last_pts: int | None = None
            self._on_device = False
            if hwaccel == "auto":
                self._try_device(gpu)
            self._info = self._describe()
        except BaseException:
            self._container.close()
            raise

    @property
    def info(self) -> StreamInfo:
        """What is known of the stream."""
        return self._info

    @property
    def lost_frames(self) -> int:
        """How many frames could not be decoded so far, as far as that can be known; see `Losses`.

        What the end of a file lacks is counted at its end, and only if the file says how long it should be: the index
        of MP4 and MOV does, the header of Matroska may, that of others does not.
        """
        return self._losses.count

    def read(self) -> Frame | None:
        """Decode the next frame, or give None at the end."""
        with self._lock:
            picture = None if self._closed else self._next_picture()
            if picture is None:
                self._count_missing()
                return None
            index, pts = self._index, self._mended(self._pts_of(picture))
            self._index, self._last_pts = index + 1, pts
            if not self._sought:
                self._losses.give(pts * self._time_base)
            return Frame(picture=self._take(picture), index=index, pts=pts, time_s=self._time_of(pts))

    def seek(self, time_s: float) -> None:
        """Make the frame that is shown at `time_s` the next one."""
        with self._lock:
            if self._closed or not self._info.seekable:
                reason = "is closed" if self._closed else "does not say where its frames are"
                raise SourceError(f"cannot seek in {self._path.name}: it {reason}")
            self._sought = True
            self._last_pts = None
            target = self._start_pts + math.floor((time_s + _SEEK_TOLERANCE_S) / self._time_base)
            self._go_to(target)
            pts = self._ahead[0].pts if self._ahead else None
            self._index = 0 if pts is None else round(float((pts - self._first_pts) * self._time_base) * self._fps)

    def close(self) -> None:
        """Close the file; a `read` that hangs in it is left behind."""
        self._closed = True
        if self._lock.acquire(timeout=_CLOSE_TIMEOUT_S):
            try:
                self._frames.close()
                self._container.close()
            finally:
                self._lock.release()

    def _adopt(self, container: InputContainer, *, from_start: bool = True) -> None:
        """Read from `container` from now on: from the start, thoroughly, or from where it is sought to."""
        self._container = container
        self._stream = _video_stream(container, self._path)
        self._stream.thread_type = "AUTO"
        self._from_start = from_start
        self._frames = self._decode_whole() if from_start else self._decode()
        self._ahead: list[VideoFrame] = []

    def _try_device(self, gpu: int) -> None:
        """Decode on the GPU if that seems to work; the first picture tells for certain."""
        reason = why_not_on_device(self._stream.codec_context.codec, gpu)
        if reason is None and self._container.duration is None:
            reason = "it does not say where its frames are, so what fails on the GPU could not be decoded again"
        if reason is None:
            try:
                container = open_on_device(self._path, gpu)
            except av.FFmpegError as error:
                reason = f"the GPU does not take it: {error.strerror}"
        if reason is not None:
            logger.info("%s is decoded in software: %s", self._path.name, reason)
            return
        self._container.close()
        self._adopt(container, from_start=False)
        self._on_device = True

    def _use_software(self, reason: object) -> None:
        """Leave the GPU and begin anew in software."""
        logger.info("%s is decoded in software from here on: %s", self._path.name, reason)
        self._on_device = False
        self._container.close()
        self._adopt(_open(self._path))

    def _resume(self) -> None:
        """Go to the frame after the last one that was read."""
        last_pts = self._last_pts
        if last_pts is None:
            return
        self._go_to(last_pts)
        self._ahead = [picture for picture in self._ahead if picture.pts is None or picture.pts > last_pts]

    def _describe(self) -> StreamInfo:
        first = self._next_picture()
        if self._on_device and (reason := why_not_decoded_on_device(self._stream)):
            self._use_software(reason)
            self._resume()
            first = self._next_picture()
        elif self._on_device:
            logger.info("%s is decoded on the GPU", self._path.name)
        if first is None:
            raise SourceError(f"{self._path} has a video stream, but no frame of it can be decoded; it is damaged")
        self._ahead = [first]
        self._first_pts = self._pts_of(first)
        duration = self._container.duration
        if duration is not None and "matroska" in self._container.format.name:
            duration -= max(self._container.start_time or 0, 0)  # it counts from zero, wherever the pictures begin
        num_frames = self._stream.frames or (round(duration / av.time_base * self._fps) if duration else 0)
        return StreamInfo(
            name=self._path.name,
            size=self._take(first).size,
            fps=self._fps,
            time_base=self._time_base,
            num_frames=num_frames or None,
            seekable=duration is not None,
            audio_path=str(self._path) if self._container.streams.audio else None,
        )

    def _find_start(self) -> int:
        """The earliest start of the file's pictures and sound, in units of the video's time base."""
        starts = [
            stream.start_time * as_fraction(stream.time_base)
            for stream in (self._stream, *self._container.streams.audio)
            if stream.start_time is not None
        ]
        return math.floor(min(starts) / self._time_base) if starts else 0

    def _next_picture(self) -> VideoFrame | None:
        if self._ahead:
            return self._ahead.pop(0)
        try:
            return next(self._frames, None)
        except _DeviceFailed as failure:
            self._use_software(failure)
            self._resume()
            return self._next_picture()

    def _decode_whole(self) -> Generator[VideoFrame, None, None]:
        yield from decode_whole(self._container, self._stream, self._open_again, self._losses)

    def _open_again(self) -> tuple[InputContainer, VideoStream]:
        container = _open(self._path)
        return container, _video_stream(container, self._path)

    def _decode(self) -> Generator[VideoFrame, None, None]:
        """Decode packet by packet, so that one that is broken takes no other with it."""
        # None gives the frames that the decoder still holds back.
        for packet in chain(iter_packets(self._container, [self._stream]), (None,)):
            yield from self._decode_packet(packet)

    def _decode_packet(self, packet: "Packet[Stream] | None") -> list[VideoFrame]:
        try:
            return self._stream.decode(packet)
        except av.FFmpegError as error:
            if self._on_device:
                raise _DeviceFailed(f"the GPU failed: {error.strerror}") from error
            self._losses.fail()
            return []

    def _count_missing(self) -> None:
        """Count what the file says it has beyond what was read, if all of it was read."""
        if not self._closed and not self._sought:
            self._losses.end(given=self._index, indexed=self._num_indexed(), end_s=self._announced_end_s())
            if self._losses.skipped and not self._losses.count:
                logger.warning(
                    "%s skips %d frames, with no other sign of damage: they may never have been recorded",
                    self._path.name, self._losses.skipped,
                )  # fmt: skip

    def _announced_end_s(self) -> Fraction | None:
        """When the last picture ends, on the clock of timestamps, as Matroska files say that are cut off."""
        match = re.fullmatch(r"(\d+):(\d+):(\d+\.\d+)", self._stream.metadata.get("DURATION", ""))
        return Fraction(match[3]) + 60 * int(match[2]) + 3600 * int(match[1]) if match else None

    def _num_indexed(self) -> int:
        """How many pictures the file says it has, where it has an index of all (MP4, MOV), else 0."""
        if "mp4" not in self._container.format.name:
            return 0
        return sum(not entry.is_discard for entry in self._stream.index_entries)

    def _go_to(self, target: int) -> None:
        """Make the last frame not after `target`, in units of the time base, the next one."""
        if self._from_start:
            self._frames.close()
            self._container.close()
            self._adopt(_open(self._path), from_start=False)
        try:
            for back_s in _SEEK_BACK_S:
                if self._seek_to(target, max(self._time_of(target) - back_s, _BEFORE_START_S)):
                    return
        except _DeviceFailed as failure:
            self._use_software(failure)
            self._go_to(target)

    def _seek_to(self, target: int, from_s: float) -> bool:
        """Decode from before `from_s` on until the last frame not after `target` is the next one.

        Returns:
            Whether it is; False if decoding began too late for that.
        """
        start = self._start_pts + math.floor(from_s / self._time_base)
        try:
            self._container.seek(start, stream=self._stream, backward=True)
        except av.FFmpegError:  # nothing to land on, such as behind the end
            self._container.seek(self._start_pts, stream=self._stream, backward=True)
        self._frames = self._decode()
        shown: list[VideoFrame] = []
        following: list[VideoFrame] = []
        for picture in self._frames:
            if picture.pts is not None and picture.pts > target:
                following = [picture]
                break
            shown = [picture]
        self._ahead = shown + following
        return bool(shown) or from_s <= _BEFORE_START_S

    def _time_of(self, pts: int) -> float:
        """Seconds from the stream's start."""
        return float((pts - self._start_pts) * self._time_base)

    def _pts_of(self, picture: VideoFrame) -> int:
        """The picture's timestamp; where the file gives none, one frame after the last."""
        if picture.pts is not None:
            return picture.pts
        if self._last_pts is None:
            return self._start_pts
        return self._last_pts + self._step

    def _mended(self, pts: int) -> int:
        """Give a picture's timestamp; one frame after the last, if it alone is far from those around it."""
        last = self._last_pts
        if last is None or abs(pts - last) * self._time_base <= RESET_S:
            return pts
        following = self._next_picture()
        if following is None:  # a long still may end a file that says how long it is
            is_long = (pts - last) * self._time_base > LONGEST_STEP_S
            return last + self._step if is_long and not self._tells_duration else pts
        self._ahead.insert(0, following)
        if following.pts is None or not 0 < (following.pts - last) * self._time_base <= LONGEST_STEP_S:
            return pts
        is_alone = pts < last or following.pts < pts
        return min(last + self._step, following.pts - 1) if is_alone else pts

    @property
    def _tells_duration(self) -> bool:
        """Whether the file itself says how long it is, and FFmpeg does not conclude it from the last timestamps."""
        return any(kind in self._container.format.name for kind in ("mp4", "matroska"))

    @property
    def _step(self) -> int:
        """From one picture to the next, in units of the time base."""
        return max(round(1 / (Fraction(self._fps) * self._time_base)), 1)

    def _take(self, picture: VideoFrame) -> Picture:
        return decoded_picture(picture, self._reformatter, self._square_width)


def _open(path: Path) -> InputContainer:
    if not path.exists():
        raise SourceError(f"there is no file {path}")
    if path.is_dir():
        raise SourceError(f"{path} is a folder; expected a video file")
    if not path.is_file():  # they cannot be read from the start again, as probing, seeking and sound need it
        raise SourceError(f"{path} is a pipe or a device; expected a video file, or camera:{path} for a camera")
    if path.stat().st_size == 0:
        raise SourceError(f"{path} is empty (0 bytes); expected a video file")
    try:
        # An absolute path, because FFmpeg takes what stands before a colon for a protocol.
        return av.open(str(path.absolute()), "r")
    except PermissionError:
        raise SourceError(f"{path} may not be read: permission denied") from None
    except (av.FFmpegError, OSError) as error:
        raise SourceError(f"{path} is not a video that can be read, or is damaged ({error.strerror})") from error


def _video_stream(container: InputContainer, path: Path) -> VideoStream:
    for stream in container.streams.video:
        if not is_cover(stream):
            if stream.codec_context is None:
                raise SourceError(f"{path} holds video in a format for which there is no decoder")
            return stream
    kinds = sorted({"a cover picture" if stream.type == "video" else stream.type for stream in container.streams})
    raise SourceError(f"{path} has no video stream; it holds {' and '.join(kinds) or 'nothing'}")
