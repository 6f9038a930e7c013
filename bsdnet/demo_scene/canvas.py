"""The picture and its labels, painted together: every stroke that is drawn is also labelled, with a hard edge."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]
"""Textures: `(h, w, 4)` RGBA with colours already multiplied by alpha; label maps and masks: `(H, W)`."""
Color = tuple[float, float, float]
"""RGB, 0 to 255."""

SUBPIXEL_BITS = 4
"""Corners of polygons are drawn to a sixteenth of a pixel."""


def to_fixed(points: NDArray[np.float64]) -> NDArray[np.int32]:
    """Pixels as OpenCV's fixed-point numbers."""
    return np.rint(points * (1 << SUBPIXEL_BITS)).astype(np.int32)


@dataclass(frozen=True, kw_only=True)
class Tint:
    """What light and air do to a surface."""

    shade: float = 1.0
    """Brightness of the light that falls on it; 1 is the surface's own colour."""
    fog: float = 0.0
    """Share of haze between it and the camera, 0 to 1."""
    haze: Color = (200.0, 208.0, 216.0)
    """Colour of the haze."""

    def apply(self, color: Color) -> Color:
        """The colour that reaches the camera."""
        keep = self.shade * (1 - self.fog)
        red, green, blue = (
            min(255.0, part * keep + haze * self.fog) for part, haze in zip(color, self.haze, strict=True)
        )
        return red, green, blue


@dataclass(frozen=True, eq=False)
class Texture:
    """An image for surfaces, kept in all the resolutions, lights and hazes in which it has been needed."""

    image: Image
    """`(h, w, 4)` RGBA, premultiplied."""
    _variants: dict[tuple[int, int, int, int], Image] = field(default_factory=dict, init=False, repr=False)

    FOG_STEPS = 48
    SHADE_STEPS = 12

    def variant(self, reduce_x: float, reduce_y: float, tint: Tint) -> Image:
        """The image reduced by about the given factors (each axis its own power of two), tinted."""
        height, width = self.image.shape[:2]
        level_x = max(0, min(round(math.log2(max(reduce_x, 1.0))), int(math.log2(width))))
        level_y = max(0, min(round(math.log2(max(reduce_y, 1.0))), int(math.log2(height))))
        fog, shade = round(tint.fog * self.FOG_STEPS), round(tint.shade * self.SHADE_STEPS)
        key = (level_x, level_y, fog, shade)
        if key not in self._variants:
            size = max(1, width >> level_x), max(1, height >> level_y)
            reduced = cv2.resize(self.image, size, interpolation=cv2.INTER_AREA)
            self._variants[key] = _tinted(reduced, fog / self.FOG_STEPS, shade / self.SHADE_STEPS, tint.haze)
        return self._variants[key]


def _tinted(image: NDArray[Any], fog: float, shade: float, haze: Color) -> Image:
    matrix = np.zeros((4, 4), np.float32)
    matrix[:3, :3] = np.eye(3) * shade * (1 - fog)
    matrix[:3, 3] = np.array(haze) * fog / 255
    matrix[3, 3] = 1
    return np.asarray(cv2.transform(image, matrix), np.uint8)


class Canvas:
    """A picture `(H, W, 4)`, whose fourth channel means nothing, and its label map `(H, W)`."""

    def __init__(self, size: tuple[int, int], label: int) -> None:
        """Start black, everything of one label."""
        self.picture = np.zeros((*size, 4), np.uint8)
        self.labels = np.full(size, label, np.uint8)

    def polygon(self, points: NDArray[np.float64], color: Color, label: int) -> None:
        """Fill a polygon `(N, 2)` of pixels: smooth edges in the picture, hard ones in the labels."""
        height, width = self.labels.shape
        low, high = points.min(axis=0), points.max(axis=0)
        if high[0] < 0 or high[1] < 0 or low[0] > width or low[1] > height or max(high - low) > 1e4:
            return
        outline = to_fixed(points)
        self.paint([outline], [color])
        self.mark([outline], label)

    def paint(self, outlines: Iterable[NDArray[np.int32]], colors: Iterable[Color]) -> None:
        """Fill polygons, each `(N, 2)` as `to_fixed` gives them, in the picture alone, in this order."""
        for outline, color in zip(outlines, colors, strict=True):
            cv2.fillPoly(self.picture, [outline], (*color, 255), cv2.LINE_AA, SUBPIXEL_BITS)

    def mark(self, outlines: Iterable[NDArray[np.int32]], label: int) -> None:
        """Fill polygons, each `(N, 2)` as `to_fixed` gives them, in the labels alone."""
        for outline in outlines:
            cv2.fillPoly(self.labels, [outline], (label,), cv2.LINE_8, SUBPIXEL_BITS)

    def texture(self, corners: NDArray[np.float64], image: Image, label: int) -> None:
        """Spread an image over a quadrilateral.

        Args:
            corners: `(4, 2)` pixels of the image's top left, top right, bottom right and bottom left.
            image: `(h, w, 4)` RGBA, premultiplied.
            label: given to the pixels that the image covers by more than half.
        """
        height, width = self.labels.shape
        low = np.maximum(np.floor(corners.min(axis=0)).astype(int) - 1, 0)
        high = np.minimum(np.ceil(corners.max(axis=0)).astype(int) + 2, (width, height))
        if (low >= high).any():
            return
        rows, columns = slice(low[1], high[1]), slice(low[0], high[0])
        image_height, image_width = image.shape[:2]
        right, bottom = max(image_width - 1, 0.5), max(image_height - 1, 0.5)
        source = np.array([[0, 0], [right, 0], [right, bottom], [0, bottom]], np.float32)
        transform = cv2.getPerspectiveTransform(source, (corners - low).astype(np.float32))
        warped = cv2.warpPerspective(image, transform, (int(high[0] - low[0]), int(high[1] - low[1])))
        patch = np.asarray(warped, np.uint8)
        alpha = np.asarray(cv2.extractChannel(patch, 3), np.uint8)
        self._blend(self.picture[rows, columns], patch, alpha)
        _, covered = cv2.threshold(alpha, 127, 255, cv2.THRESH_BINARY)
        cv2.copyTo(np.full(covered.shape, label, np.uint8), covered, self.labels[rows, columns])

    @staticmethod
    def _blend(target: Image, patch: Image, alpha: Image) -> None:
        clear = cv2.bitwise_not(alpha)
        cv2.multiply(target, cv2.merge([clear, clear, clear, clear]), dst=target, scale=1 / 255)
        cv2.add(target, patch, dst=target)

    def darken(self, shadow: Image, top: int = 0) -> None:
        """Multiply the picture, from row `top` on, by `shadow` `(rows, W)`: 255 leaves it, 0 makes it black."""
        target = self.picture[top : top + shadow.shape[0]]
        cv2.multiply(target, cv2.merge([shadow] * 4), dst=target, scale=1 / 255)
