"""Encoding pictures and writing them, with sound, in a form that can be played even if it is cut off."""

import logging
from collections.abc import Mapping
from fractions import Fraction
from typing import BinaryIO, cast

import av
import cv2
import numpy as np
from av.packet import Packet
from av.stream import Stream
from av.video.frame import PictureType, VideoFrame
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter
from av.video.stream import VideoStream
from numpy.typing import NDArray

from bsdnet.decoding import plane_pixels
from bsdnet.picture import Matrix, Picture, YuvEncoding
from bsdnet.stream.audio_copy import AudioCopy
from bsdnet.stream.encoders import Encoder

logger = logging.getLogger(__name__)

_HD_MIN_HEIGHT = 720  # from here on players take video for BT.709, below for BT.601; we write what they expect
_KEYFRAME_INTERVAL_S = 1

_TAGS: Mapping[Matrix, tuple[int, int, int]] = {  # matrix, primaries and transfer function, as H.273 numbers them
    "bt601": (6, 6, 6),
    "bt709": (1, 1, 1),
    "bt2020": (9, 9, 14),
}
_COLORSPACES: Mapping[Matrix, Colorspace] = {
    "bt601": Colorspace.ITU601,
    "bt709": Colorspace.ITU709,
    "bt2020": Colorspace.BT2020,
}

FORMATS = {".mp4": "mp4", ".mov": "mov", ".mkv": "matroska", ".webm": "webm", ".avi": "avi"}
"""FFmpeg's names of the containers, by suffix."""

_CRASH_PROOF = {
    # Fragments of half a second that play without what is written last; when the file is finished it is an ordinary
    # one with an index. The header waits for the first fragment (delay_moov), because it tells how sound is offset.
    "mp4": {"movflags": "hybrid_fragmented+delay_moov", "frag_duration": "500000"},
    "mov": {"movflags": "hybrid_fragmented+delay_moov", "frag_duration": "500000"},
    "matroska": {"cluster_time_limit": "500"},
    "webm": {"cluster_time_limit": "500"},
    # An AVI without its index plays from the beginning. Sound of before time zero must not push the pictures about.
    "avi": {"avoid_negative_ts": "disabled"},
}
_WRITE_AT_ONCE = {"flush_packets": "1", "max_interleave_delta": "200000"}  # the latter where sound ends before pictures
_MPEG4_MAX_TICKS = 65_535  # numerator of a frame rate
_MAX_GAP_FRAMES = 60_000  # FFmpeg's own limit in an AVI, which holds an entry for each frame that is not there
_OFF_GRID_FRAMES = 0.25  # timestamps that an AVI moves by more than this part of a frame are worth a warning


class VideoWriter:
    """Writes a video file.

    Args:
        file: an empty file, open for writing and seeking. The caller closes it.
        name: of the file, for messages.
        container: one of the values of `FORMATS`.
        encoder: makes the bits.
        size: height and width of the pictures in pixels. Odd ones get a repeated last row or column: yuv420p needs
            even ones. Pictures of another size are scaled.
        encoding: of the first picture, which need not be converted then; None if that is RGB.
        time_base: seconds per unit of the timestamps.
        fps: average frames per second, a hint for the encoder; in an AVI the frame rate, to which timestamps are moved.
        audio: sound to copy, or None. It is started, but not closed.
        origin: the time in the source, in seconds, that is zero in the file.
        from_start: whether the pictures begin where the source does.
        comment: stands in the file's metadata.

    Raises:
        av.FFmpegError, OSError: FFmpeg or the file system refuses.
    """

    def __init__(
        self,
        file: BinaryIO,
        *,
        name: str,
        container: str,
        encoder: Encoder,
        size: tuple[int, int],
        encoding: YuvEncoding | None,
        time_base: Fraction,
        fps: Fraction,
        audio: AudioCopy | None,
        origin: Fraction,
        from_start: bool,
        comment: str | None = None,
    ) -> None:
        self._name = name
        self._size = even_size(size)
        expected: Matrix = "bt709" if self._size[0] >= _HD_MIN_HEIGHT else "bt601"
        usual = YuvEncoding(matrix=expected, full_range=False)
        self._encoding = encoding if encoding is not None and container != "avi" else usual  # AVI names no colours
        self._pix_fmt = encoder.pix_fmt
        self._reformatter = VideoReformatter()
        self._reorderer = VideoReformatter()
        self._time_base = time_base
        self._is_avi = container == "avi"
        self._fps = fps.limit_denominator(int(_MPEG4_MAX_TICKS / fps) or 1) if self._is_avi else fps
        self._audio = audio
        self._origin = origin
        self._next_keyframe: int | None = None
        self._last_slot = -1
        self._left_out = 0
        self._warned = False
        self._held: Packet[Stream] | None = None
        options = {**_CRASH_PROOF[container], **_WRITE_AT_ONCE}
        self._output = av.open(file, "w", format=container, container_options=options)
        if comment is not None:
            self._output.metadata["comment"] = comment
        stream = self._output.add_stream(encoder.codec, rate=self._fps, options=dict(encoder.options))
        self._stream = cast(VideoStream, stream)
        self._stream.time_base = self._file_time_base
        context = self._stream.codec_context
        encoder.configure(context, self._size, self._file_time_base, self._fps)
        context.color_range = self._range
        context.colorspace, context.color_primaries, context.color_trc = _TAGS[self._encoding.matrix]
        if audio is not None:
            audio.add_streams(self._output)
        self._output.start_encoding()
        if audio is not None:
            audio.start(origin, from_start=from_start)

    def write(self, picture: Picture, pts: int) -> None:
        """Encode one picture.

        Args:
            picture: of any size and pixel format.
            pts: timestamp in the file, greater than the last one.
        """
        if picture.encoding == self._encoding and picture.size == self._size:
            frame = _copy(picture)
        else:
            frame = self._convert(picture.rgb)
        if self._pix_fmt != frame.format.name:
            frame = self._reorderer.reformat(frame, format=self._pix_fmt)
        frame.pts = self._slot(pts) if self._is_avi else pts
        frame.time_base = self._file_time_base
        if self._next_keyframe is None or pts >= self._next_keyframe:
            frame.pict_type = PictureType.I
            self._next_keyframe = pts + int(_KEYFRAME_INTERVAL_S / self._time_base)
        self._mux(self._stream.encode(frame))

    def end(self, end_pts: int, *, last: Fraction | None = None) -> None:
        """Write what is still held back, and the rest of the sound.

        Args:
            end_pts: timestamp in the file at which the last picture ends.
            last: when that is shown, in seconds of the source; sound that goes on after the source's pictures is
                copied then too. None: another file follows, and has the sound from `end_pts` on.
        """
        self._mux(self._stream.encode(None))
        end_s = end_pts * self._time_base
        if self._held is not None:
            self._put(self._held, max(round(end_s / self._file_time_base) - (self._held.dts or 0), 1))
        if self._audio is not None:
            if last is None:
                self._audio.cut(self._output, end_s + self._origin)
            else:
                self._audio.copy_rest(self._output, last, last + 1 / self._fps)

    def close(self) -> None:
        """Write the index."""
        self._output.close()

    @property
    def _file_time_base(self) -> Fraction:
        return 1 / self._fps if self._is_avi else self._time_base

    @property
    def _range(self) -> ColorRange:
        return ColorRange.JPEG if self._encoding.full_range else ColorRange.MPEG

    def _slot(self, pts: int) -> int:
        """Give the next place in an AVI, which has one for each frame and none between them, nor any for a huge gap."""
        exact = pts * self._time_base * self._fps
        if exact - self._left_out - self._last_slot > _MAX_GAP_FRAMES:
            self._left_out = round(exact) - self._last_slot - 1
        slot = max(round(exact) - self._left_out, self._last_slot + 1)
        if abs(slot - exact) > _OFF_GRID_FRAMES and not self._warned:
            self._warned = True
            logger.warning(
                "%s: an AVI has one frame rate, here %.6g, and the source's timestamps do not follow it: frames are "
                "shown earlier or later than in the source; .mp4 and .mkv keep them",
                self._name,
                self._fps,
            )
        self._last_slot = slot
        return slot

    def _mux(self, packets: "list[Packet[Stream]]") -> None:
        """Write all packets but the newest, which lasts until the next one, whenever that comes."""
        for packet in packets:
            if self._held is not None:
                self._put(self._held, (packet.dts or 0) - (self._held.dts or 0))
            self._held = packet

    def _put(self, packet: "Packet[Stream]", duration: int) -> None:
        packet.duration = duration
        if self._audio is not None and packet.dts is not None:
            self._audio.copy_until(self._output, packet.dts * packet.time_base + self._origin)
        self._output.mux(packet)

    def _convert(self, rgb: NDArray[np.uint8]) -> VideoFrame:
        height, width = rgb.shape[:2]
        bottom, right = height % 2, width % 2
        if (height + bottom, width + right) == self._size and (bottom or right):
            rgb = np.asarray(cv2.copyMakeBorder(rgb, 0, bottom, 0, right, cv2.BORDER_REPLICATE), np.uint8)
        if rgb.strides[1:] != (3, 1):
            rgb = np.ascontiguousarray(rgb)
        return self._reformatter.reformat(
            VideoFrame.from_numpy_buffer(rgb, format="rgb24"),
            width=self._size[1],
            height=self._size[0],
            format="yuv420p",
            dst_colorspace=_COLORSPACES[self._encoding.matrix],
            src_color_range=ColorRange.JPEG,
            dst_color_range=self._range,
        )


def _copy(picture: Picture) -> VideoFrame:
    """Give the planes of Y, U and V to FFmpeg, which reads them later, in memory of its own."""
    frame = VideoFrame(picture.size[1], picture.size[0], "yuv420p")
    for source, target in zip(picture.planes, frame.planes, strict=True):
        plane_pixels(target)[:] = source
    return frame


def even_size(size: tuple[int, int]) -> tuple[int, int]:
    """Give the size, height and width, that pictures have in a file."""
    height, width = size
    return height + height % 2, width + width % 2
