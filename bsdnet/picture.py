"""What FFmpeg decodes, as the RGB that everything of bsdnet takes: the same for playing and for training."""

from fractions import Fraction

import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter
from av.video.stream import VideoStream
from numpy.typing import NDArray

_SD_MAX_HEIGHT = 719  # players take untagged video up to this height for BT.601, higher video for BT.709

_MATRICES = {  # of AVColorSpace, as H.273 numbers them, the ones that swscale knows
    1: Colorspace.ITU709,
    4: Colorspace.FCC,
    5: Colorspace.ITU601,
    6: Colorspace.ITU601,
    7: Colorspace.SMPTE240M,
    9: Colorspace.BT2020,
    10: Colorspace.BT2020,
}


def picture_to_rgb(picture: VideoFrame, reformatter: VideoReformatter, square_width: Fraction) -> NDArray[np.uint8]:
    """Convert a decoded picture to upright `(H, W, 3)` uint8 RGB with square pixels.

    Args:
        picture: of any pixel format, colour matrix and range.
        reformatter: keeps what it prepared for the next picture of the same kind.
        square_width: of the stream; see `square_width_of`.
    """
    rgb = reformatter.reformat(
        picture,
        width=round(picture.width * square_width),
        format="rgb24",
        src_colorspace=_matrix(picture),
        src_color_range=_range(picture),
        dst_color_range=ColorRange.JPEG,
    ).to_ndarray()
    quarter_turns = round(picture.rotation / 90) % 4  # PyAV gives degrees counterclockwise, as rot90 turns
    return np.ascontiguousarray(np.rot90(rgb, quarter_turns), np.uint8)


def square_width_of(stream: VideoStream) -> Fraction:
    """By what to multiply the width of a stream's pictures so that pixels are square."""
    aspect = as_fraction(stream.sample_aspect_ratio)
    return aspect if Fraction(1, 4) <= aspect <= 4 else Fraction(1)


def as_fraction(value: Fraction | None) -> Fraction:
    """Take a rational of PyAV, which newer versions give in a type of their own, as a Fraction; unset is 0."""
    return Fraction(value.numerator, value.denominator) if value else Fraction(0)


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
