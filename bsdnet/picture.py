"""A picture in memory, in the pixel format in which it came."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from bsdnet.errors import ConfigError

Matrix = Literal["bt601", "bt709", "bt2020"]
"""How luma and chroma are made of R, G and B, by ITU-R recommendation (BT.2020 with non-constant luminance)."""

_LUMA_WEIGHTS: Mapping[Matrix, tuple[float, float]] = {  # of red and of blue; green has the rest
    "bt601": (0.299, 0.114),
    "bt709": (0.2126, 0.0722),
    "bt2020": (0.2627, 0.0593),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class YuvEncoding:
    """What the numbers in the planes of Y, U and V (Cb and Cr) mean."""

    matrix: Matrix
    """How they are made of R, G and B."""
    full_range: bool
    """True: 0 to 255 in all planes. False: 16 to 235 in Y, 16 to 240 in U and V, as nearly all video has it."""

    @property
    def black(self) -> tuple[int, int, int]:
        """Y, U and V of black."""
        return (0 if self.full_range else 16), 128, 128

    def from_rgb(self) -> NDArray[np.float64]:
        """The matrix `(3, 3)` that takes R, G, B of 0 to 255 to Y, U, V less those of `black` (ITU-T H.273, 8.3)."""
        red, blue = _LUMA_WEIGHTS[self.matrix]
        luma = np.array([red, 1 - red - blue, blue])
        u = (np.array([0, 0, 1]) - luma) / (2 * (1 - blue))
        v = (np.array([1, 0, 0]) - luma) / (2 * (1 - red))
        luma_scale, chroma_scale = (1.0, 1.0) if self.full_range else (219 / 255, 224 / 255)
        return np.stack([luma * luma_scale, u * chroma_scale, v * chroma_scale])

    def to_rgb(self) -> NDArray[np.float64]:
        """The inverse of `from_rgb`, `(3, 3)`."""
        return np.asarray(np.linalg.inv(self.from_rgb()), np.float64)

    def decode(self, planes: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
        """Convert Y, U and V of the same size, `(H, W)` uint8 each, to `(H, W, 3)` uint8 RGB."""
        matrix = self.to_rgb()
        affine = np.column_stack([matrix, -matrix @ self.black])
        return np.asarray(cv2.transform(cv2.merge(planes), affine), np.uint8)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Picture:
    """One picture: RGB in one plane, or luma and half-sized chroma (YUV 4:2:0) as video decoders give it.

    Rows may lie further apart than their length; the pixels of a row are contiguous.

    Raises:
        ConfigError: the planes do not make a picture.
    """

    planes: tuple[NDArray[np.uint8], ...]
    """RGB24: `(H, W, 3)`. YUV420P: Y `(H, W)`, U and V `(H/2, W/2)`; H and W are even. All uint8."""
    encoding: YuvEncoding | None = None
    """What Y, U and V mean; None: it is RGB."""

    def __post_init__(self) -> None:
        """Reject what is no picture."""
        shapes = [plane.shape for plane in self.planes] or [()]
        if self.encoding is None:
            fits = len(shapes) == 1 and len(shapes[0]) == 3 and shapes[0][2] == 3
        else:
            fits = len(shapes) == 3 and len(shapes[0]) == 2 and shapes[0][0] % 2 == shapes[0][1] % 2 == 0
            fits = fits and shapes[1] == shapes[2] == (shapes[0][0] // 2, shapes[0][1] // 2)
        if not fits or 0 in shapes[0] or any(plane.dtype != np.uint8 for plane in self.planes):
            expected = "(H, W, 3) RGB" if self.encoding is None else "Y (H, W), U and V (H/2, W/2) with even H and W"
            raise ConfigError(f"a picture needs planes of uint8 {expected}; got shapes {shapes}")

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.planes[0].shape[0], self.planes[0].shape[1]

    @property
    def rgb(self) -> NDArray[np.uint8]:
        """The picture as `(H, W, 3)` uint8 RGB: the plane itself if it is RGB, else converted at each call.

        All in bytes, a quarter of the time of doing it in floats: at most two levels away from the exact values.
        """
        if self.encoding is None:
            return self.planes[0]
        luma, *chroma = self.planes
        enlarged = [cv2.resize(plane, self.size[::-1], interpolation=cv2.INTER_LINEAR) for plane in chroma]
        return self.encoding.decode([luma, *(np.asarray(plane, np.uint8) for plane in enlarged)])


def empty_like(picture: Picture, *, width: int | None = None) -> Picture:
    """Make a picture of the same format and height, with rows without gaps; its pixels are not set.

    Args:
        picture: whose format and size it gets.
        width: another width in pixels, even for YUV.
    """
    full = picture.size[1]
    planes = [
        np.empty((plane.shape[0], plane.shape[1] * (width or full) // full, *plane.shape[2:]), np.uint8)
        for plane in picture.planes
    ]
    return Picture(planes=tuple(planes), encoding=picture.encoding)
