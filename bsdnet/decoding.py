"""What FFmpeg decodes, as the pictures that everything of bsdnet takes: the same for playing and for training."""

import struct
from collections.abc import Iterable
from fractions import Fraction
from typing import NamedTuple, cast

import numpy as np
from av.sidedata.sidedata import SideData, Type
from av.video.frame import VideoFrame
from av.video.plane import VideoPlane
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter
from av.video.stream import VideoStream
from numpy.typing import NDArray

from bsdnet.picture import Matrix, Picture, YuvEncoding

_SD_MAX_HEIGHT = 719  # players take untagged video up to this height for BT.601, higher video for BT.709
_FALLBACK_FPS = 25.0

_MATRICES = {  # of AVColorSpace, as H.273 numbers them, the ones that swscale knows
    1: Colorspace.ITU709,
    4: Colorspace.FCC,
    5: Colorspace.ITU601,
    6: Colorspace.ITU601,
    7: Colorspace.SMPTE240M,
    9: Colorspace.BT2020,
    10: Colorspace.BT2020,
}
_OURS: dict[Colorspace, Matrix] = {
    Colorspace.ITU601: "bt601",
    Colorspace.ITU709: "bt709",
    Colorspace.BT2020: "bt2020",
}


def decoded_picture(picture: VideoFrame, reformatter: VideoReformatter, square_width: Fraction) -> Picture:
    """Take a decoded picture as it is if it is upright 8-bit YUV 4:2:0 with square pixels, else convert it to RGB.

    Args:
        picture: of any pixel format, colour matrix and range. Planes that are taken as they are stay the decoder's.
        reformatter: keeps what it prepared for the next picture of the same kind.
        square_width: of the stream; see `square_width_of`.
    """
    encoding = _encoding(picture)
    upright = _placing(picture) is None and square_width == 1
    if encoding is None or not upright or picture.width % 2 or picture.height % 2:
        return Picture(planes=(_to_rgb(picture, reformatter, square_width),))
    if picture.format.name == "nv12":  # as graphics cards decode: the same numbers in another order
        picture = reformatter.reformat(picture, format="yuv420p")
    return Picture(planes=tuple(plane_pixels(plane) for plane in picture.planes), encoding=encoding)


def plane_pixels(plane: VideoPlane) -> NDArray[np.uint8]:
    """The pixels of an 8-bit plane of FFmpeg's, `(h, w)`, in its own memory."""
    rows = np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)
    return rows[: plane.height, : plane.width]


def _to_rgb(picture: VideoFrame, reformatter: VideoReformatter, square_width: Fraction) -> NDArray[np.uint8]:
    """Convert a decoded picture to upright `(H, W, 3)` uint8 RGB with square pixels."""
    rgb = reformatter.reformat(
        picture,
        width=round(picture.width * square_width),
        format="rgb24",
        src_colorspace=_matrix(picture),
        src_color_range=_range(picture),
        dst_color_range=ColorRange.JPEG,
    ).to_ndarray()
    placing = _placing(picture)
    if placing is not None:
        rgb = rgb.swapaxes(0, 1) if placing.swapped else rgb
        rgb = rgb[:: -1 if placing.from_below else 1, :: -1 if placing.from_right else 1]
    return np.ascontiguousarray(rgb, np.uint8)


def square_width_of(stream: VideoStream) -> Fraction:
    """By what to multiply the width of a stream's pictures so that pixels are square."""
    aspect = as_fraction(stream.sample_aspect_ratio)
    return aspect if Fraction(1, 4) <= aspect <= 4 else Fraction(1)


def announced_fps(stream: VideoStream) -> float:
    """Frames per second on average, as a stream announces them; 25 where it announces none that can be."""
    rates = (stream.average_rate, stream.guessed_rate)
    return next((float(rate) for rate in rates if rate and 0.01 <= float(rate) <= 1000), _FALLBACK_FPS)


def as_fraction(value: Fraction | None) -> Fraction:
    """Take a rational of PyAV, which newer versions give in a type of their own, as a Fraction; unset is 0."""
    return Fraction(value.numerator, value.denominator) if value else Fraction(0)


class _Placing(NamedTuple):
    """How a picture must be turned or mirrored to be upright: rows and columns are swapped first."""

    swapped: bool
    from_right: bool
    from_below: bool


def _placing(picture: VideoFrame) -> _Placing | None:
    """Read the display matrix, at the nearest quarter turn; None for a picture that is upright as it is.

    Column p and row q are shown at x = a p + c q and y = b p + d q, up to a shift (ISO/IEC 14496-12, 8.3.2).
    """
    found = cast(Iterable[SideData], picture.side_data)  # PyAV's stubs take it for a mapping by name
    matrix = next((bytes(side) for side in found if side.type is Type.DISPLAYMATRIX), None)
    if matrix is None:
        return None
    a, b, _, c, d, *_ = struct.unpack("=9i", matrix)
    swapped = abs(b) + abs(c) > abs(a) + abs(d)
    placing = _Placing(swapped, (c if swapped else a) < 0, (b if swapped else d) < 0)
    return placing if any(placing) else None


def _encoding(picture: VideoFrame) -> YuvEncoding | None:
    """What the planes mean, if they are among those that can be taken as they are."""
    if picture.format.name not in ("yuv420p", "yuvj420p", "nv12"):
        return None
    matrix = _OURS.get(_matrix(picture) or Colorspace.DEFAULT)
    full_range = ColorRange.JPEG in (_range(picture), picture.color_range)
    return None if matrix is None else YuvEncoding(matrix=matrix, full_range=full_range)


def _matrix(picture: VideoFrame) -> Colorspace | None:
    if picture.format.is_rgb:
        return None
    untagged = Colorspace.ITU601 if picture.height <= _SD_MAX_HEIGHT else Colorspace.ITU709
    return _MATRICES.get(picture.colorspace, untagged)


def _range(picture: VideoFrame) -> ColorRange | None:
    if picture.format.is_rgb or picture.color_range != ColorRange.UNSPECIFIED:
        return None
    full = picture.format.name.startswith(("yuvj", "gray"))
    return ColorRange.JPEG if full else ColorRange.MPEG
