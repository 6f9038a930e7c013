"""Encoding pictures as H.264 and writing them, with sound, in a form that can be played even if it is cut off."""

from collections.abc import Mapping
from fractions import Fraction
from typing import BinaryIO

import av
import cv2
import numpy as np
from av.packet import Packet
from av.stream import Stream
from av.video.frame import PictureType, VideoFrame
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter
from numpy.typing import NDArray

from bsdnet.decoding import plane_pixels
from bsdnet.picture import Matrix, Picture, YuvEncoding
from bsdnet.stream.audio_copy import AudioCopy

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

FORMATS = {".mp4": "mp4", ".mov": "mov", ".mkv": "matroska"}
"""FFmpeg's names of the containers, by suffix."""

_CRASH_PROOF = {
    # Fragments of half a second that play without what is written last; when the file is finished it is an ordinary
    # one with an index. The header waits for the first fragment (delay_moov), because it tells how sound is offset.
    "mp4": {"movflags": "hybrid_fragmented+delay_moov", "frag_duration": "500000"},
    "mov": {"movflags": "hybrid_fragmented+delay_moov", "frag_duration": "500000"},
    "matroska": {"cluster_time_limit": "500"},
}
_WRITE_AT_ONCE = {"flush_packets": "1", "max_interleave_delta": "200000"}  # the latter where sound ends before pictures


class H264Writer:
    """Writes a video file.

    Args:
        file: an empty file, open for writing and seeking, unbuffered. The caller closes it.
        container: one of the values of `FORMATS`.
        size: height and width of the pictures in pixels. Odd ones get a repeated last row or column: yuv420p needs
            even ones. Pictures of another size are scaled.
        encoding: of the first picture, which need not be converted then; None if that is RGB.
        time_base: seconds per unit of the timestamps.
        fps: average frames per second, a hint for the encoder.
        crf: constant rate factor, 0 (lossless) to 51.
        preset: one of libx264's.
        audio: sound to copy, or None. It is started, but not closed.
        origin: the time in the source, in seconds, that is zero in the file.
        from_start: whether the pictures begin where the source does.

    Raises:
        av.FFmpegError, OSError: FFmpeg or the file system refuses.
    """

    def __init__(
        self,
        file: BinaryIO,
        *,
        container: str,
        size: tuple[int, int],
        encoding: YuvEncoding | None,
        time_base: Fraction,
        fps: Fraction,
        crf: int,
        preset: str,
        audio: AudioCopy | None,
        origin: Fraction,
        from_start: bool,
    ) -> None:
        height, width = (side + side % 2 for side in size)
        self._size = (height, width)
        expected: Matrix = "bt709" if height >= _HD_MIN_HEIGHT else "bt601"
        self._encoding = encoding or YuvEncoding(matrix=expected, full_range=False)
        self._reformatter = VideoReformatter()
        self._time_base = time_base
        self._audio = audio
        self._origin = origin
        self._next_keyframe: int | None = None
        self._last_pts = 0
        self._output = av.open(
            file, "w", format=container, container_options={**_CRASH_PROOF[container], **_WRITE_AT_ONCE}
        )
        # zerolatency: the encoder keeps no frames back, so that a kill costs none; it saves a fifth of the time, too.
        options = {"preset": preset, "crf": str(crf), "tune": "zerolatency"}
        self._stream = self._output.add_stream("libx264", rate=fps, options=options)
        self._stream.width, self._stream.height, self._stream.pix_fmt = width, height, "yuv420p"
        self._stream.time_base = time_base
        context = self._stream.codec_context
        context.time_base = time_base
        context.color_range = self._range
        context.colorspace, context.color_primaries, context.color_trc = _TAGS[self._encoding.matrix]
        if audio is not None:
            audio.add_streams(self._output)
        self._output.start_encoding()
        if audio is not None:
            audio.start(origin, from_start=from_start)

    @property
    def _range(self) -> ColorRange:
        return ColorRange.JPEG if self._encoding.full_range else ColorRange.MPEG

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
        frame.pts = self._last_pts = pts
        frame.time_base = self._time_base
        if self._next_keyframe is None or pts >= self._next_keyframe:
            frame.pict_type = PictureType.I
            self._next_keyframe = pts + int(_KEYFRAME_INTERVAL_S / self._time_base)
        self._mux(self._stream.encode(frame))

    def close(self, last_source_time: Fraction, end: Fraction) -> None:
        """Write what is still held back, the rest of the sound, and the index.

        Args:
            last_source_time: when the last picture is shown, in seconds of the source.
            end: when it ends, in seconds of the source: sound stops there if the source has later pictures.
        """
        self._mux(self._stream.encode(None))
        if self._audio is not None:
            self._audio.copy_rest(self._output, last_source_time, end)
        self._output.close()

    def _mux(self, packets: "list[Packet[Stream]]") -> None:
        for packet in packets:
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
