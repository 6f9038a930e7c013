"""Translucent panels with words: the legend of the classes and the head-up display.

A panel is drawn once, as what it keeps of the picture and what it adds to it, and then costs one multiplication and
one addition of its own region per frame.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal, get_args

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bsdnet.classes import ClassSet
from bsdnet.errors import ConfigError
from bsdnet.picture import Picture, YuvEncoding

Corner = Literal["top-left", "top-right", "bottom-left", "bottom-right"]
"""Where a head-up display is put."""

PANEL_RGB = (14, 17, 22)
PANEL_OPACITY = 0.66
TEXT_RGB = (240, 242, 245)
QUIET_TEXT_RGB = (198, 204, 212)
OUTLINE_OPACITY = 0.4

LEGEND_FONT = 0.024
HEADLINE_FONT = 0.046
LINE_FONT = 0.024
"""Font sizes as shares of the frame's short side."""
MIN_FONT_PX = 11
"""The smallest font that is wanted: below 460 lines the words take a larger share of the frame."""
MIN_LEGEND_FONT_PX = 8
"""The smallest font that a legend may shrink to before it is left out."""
MAX_LEGEND_HEIGHT = 0.25
"""Largest share of the frame's height that a legend may cover."""


@dataclass(frozen=True, kw_only=True, eq=False)
class _Patch:
    """A rectangle of one plane: `plane * keep / 255 + add`."""

    keep: NDArray[np.uint8]
    add: NDArray[np.uint8]
    top: int
    left: int
    _copies: dict[object, tuple[Tensor, Tensor]] = field(default_factory=dict, init=False, repr=False)

    def blend(self, plane: NDArray[np.uint8]) -> None:
        height, width = self.keep.shape[:2]
        region = plane[self.top : self.top + height, self.left : self.left + width]
        region[:] = cv2.add(cv2.multiply(region, self.keep, scale=1 / 255), self.add)

    def blend_torch(self, plane: Tensor) -> None:
        # A copy for each stream of a GPU: one that another stream made, or may free, would have to be waited for.
        place = torch.cuda.current_stream(plane.device) if plane.is_cuda else plane.device
        if place not in self._copies:
            keep = torch.from_numpy(self.keep).to(plane.device).float() / 255
            self._copies[place] = keep, torch.from_numpy(self.add).to(plane.device)
        keep, add = self._copies[place]
        height, width = self.keep.shape[:2]
        region = plane[self.top : self.top + height, self.left : self.left + width]
        region.copy_((region * keep).round_().add_(add))


@dataclass(frozen=True, kw_only=True, eq=False)
class Panel:
    """A prerendered picture with transparency, at its place on the frame: `frame * keep / 255 + add`."""

    keep: NDArray[np.uint8]
    """What stays of the frame, 255 being all, `(h, w)` uint8."""
    add: NDArray[np.uint8]
    """What is added, RGB `(h, w, 3)` uint8; `keep + add` never passes 255."""
    top: int
    """First row on the frame in pixels."""
    left: int
    """First column on the frame in pixels."""
    _patches: dict[YuvEncoding | None, tuple[_Patch, ...]] = field(default_factory=dict, init=False, repr=False)

    def blend(self, planes: Sequence[NDArray[np.uint8]], encoding: YuvEncoding | None = None) -> None:
        """Draw the panel onto the planes of a picture, in place."""
        for patch, plane in zip(self._patches_for(encoding), planes, strict=True):
            patch.blend(plane)

    def blend_torch(self, planes: Sequence[Tensor], encoding: YuvEncoding | None = None) -> None:
        """Draw the panel onto the planes of a picture, in place and on their device; the same pixels as `blend`."""
        for patch, plane in zip(self._patches_for(encoding), planes, strict=True):
            patch.blend_torch(plane)

    def _patches_for(self, encoding: YuvEncoding | None) -> tuple[_Patch, ...]:
        if encoding not in self._patches:
            if encoding is None:
                keep = np.asarray(cv2.merge((self.keep, self.keep, self.keep)), np.uint8)
                self._patches[None] = (_Patch(keep=keep, add=self.add, top=self.top, left=self.left),)
            else:
                self._patches[encoding] = self._yuv_patches(encoding)
        return self._patches[encoding]

    def _yuv_patches(self, encoding: YuvEncoding) -> tuple[_Patch, ...]:
        """One patch for each of Y, U and V; those of chroma are averages of two by two pixels."""
        top, left = self.top % 2, self.left % 2  # a margin that keeps everything, so that chroma begins on its grid
        height, width = self.keep.shape
        margins = (top, (top + height) % 2, left, (left + width) % 2)
        keep = cv2.copyMakeBorder(self.keep, *margins, cv2.BORDER_CONSTANT, value=255).astype(np.float32)
        rgb = cv2.copyMakeBorder(self.add, *margins, cv2.BORDER_CONSTANT, value=0)
        yuv = rgb @ encoding.from_rgb().T + (1 - keep / 255)[..., None] * encoding.black
        patches = []
        for number in range(3):
            step = 2 if number else 1
            size = (keep.shape[1] // step, keep.shape[0] // step)
            kept, added = (cv2.resize(x, size, interpolation=cv2.INTER_AREA) for x in (keep, yuv[..., number]))
            patches.append(
                _Patch(
                    keep=np.rint(kept).astype(np.uint8),
                    add=np.rint(added).astype(np.uint8),
                    top=(self.top - top) // step,
                    left=(self.left - left) // step,
                )
            )
        return tuple(patches)


class _Canvas:
    """A rounded dark panel to paint on."""

    def __init__(self, height: int, width: int, radius: int) -> None:
        self._keep = np.full((height, width), 255, np.uint8)
        self._add = np.zeros((height, width, 3), np.uint8)
        self.paint(_rounded(height, width, radius), 0, 0, PANEL_RGB, PANEL_OPACITY)

    def paint(
        self, coverage: NDArray[np.uint8], top: int, left: int, rgb: tuple[int, int, int], opacity: float = 1.0
    ) -> None:
        """Paint a colour where `coverage` `(h, w)` uint8 says so; it must lie within the canvas."""
        rows, columns = slice(top, top + coverage.shape[0]), slice(left, left + coverage.shape[1])
        rest = cv2.convertScaleAbs(coverage, alpha=-opacity, beta=255)
        levels = np.arange(256, dtype=np.float32)[:, None, None] * (opacity / 255)
        paint = cv2.applyColorMap(coverage, np.rint(levels * np.array(rgb)).astype(np.uint8))
        faded = cv2.multiply(self._add[rows, columns], cv2.merge((rest, rest, rest)), scale=1 / 255)
        self._add[rows, columns] = cv2.add(faded, paint)
        self._keep[rows, columns] = cv2.multiply(self._keep[rows, columns], rest, scale=1 / 255)

    def panel(self, top: int, left: int) -> Panel:
        """Freeze what was painted, to be shown at `(top, left)` of a frame."""
        add = np.minimum(self._add, 255 - self._keep[..., None])
        return Panel(keep=self._keep, add=add, top=top, left=left)


@lru_cache(maxsize=64)
def _rounded(height: int, width: int, radius: int) -> NDArray[np.uint8]:
    """Coverage of a rectangle with round corners, `(height, width)` uint8, smooth at its edge."""
    zoom = 4
    right, bottom, radius = width * zoom - 1, height * zoom - 1, radius * zoom
    mask = np.zeros((height * zoom, width * zoom), np.uint8)
    cv2.rectangle(mask, (radius, 0), (right - radius, bottom), 255, cv2.FILLED)
    cv2.rectangle(mask, (0, radius), (right, bottom - radius), 255, cv2.FILLED)
    for x in (radius, right - radius):
        for y in (radius, bottom - radius):
            cv2.circle(mask, (x, y), radius, 255, cv2.FILLED)
    return np.asarray(cv2.resize(mask, (width, height), interpolation=cv2.INTER_AREA), np.uint8)


@lru_cache(maxsize=256)
def _text(text: str, font_px: int) -> NDArray[np.uint8]:
    """Coverage of a line of text, uint8, 1.25 `font_px` high with the baseline at 0.95.

    OpenCV 4 draws its stroke fonts without hinting, so small sizes are drawn large and reduced; OpenCV 5 draws a
    real typeface through the same call. In both, all digits are equally wide: numbers do not make the line jump.
    """
    zoom = math.ceil(64 / font_px)
    scale = font_px * zoom / 30  # both fonts have capitals of 21 pixels at scale 1, which is 0.7 of the font size
    thickness = max(1, round(font_px * zoom / 11))
    margin = zoom  # strokes may pass their advance width
    (advance, _), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, thickness)
    width = math.ceil(advance / zoom) + 2
    height = math.ceil(font_px * 1.25)
    mask = np.zeros((height * zoom, width * zoom), np.uint8)
    origin = (margin, round(font_px * 0.95 * zoom))
    cv2.putText(mask, text, origin, cv2.FONT_HERSHEY_SIMPLEX, scale, 255, thickness, cv2.LINE_AA)
    return np.asarray(cv2.resize(mask, (width, height), interpolation=cv2.INTER_AREA), np.uint8)


def _font_px(share: float, size: tuple[int, int]) -> int:
    return max(MIN_FONT_PX, round(share * min(size)))


def _columns(widths: list[int], gap: int, limit: int) -> tuple[int, list[int]] | None:
    """Lay entries out in aligned columns, filled downwards, with as few rows as fit.

    Returns:
        The number of rows and each column's width, or None if even one column is wider than `limit`.
    """
    for rows in range(1, len(widths) + 1):
        columns = [max(widths[start : start + rows]) for start in range(0, len(widths), rows)]
        if sum(columns) + gap * (len(columns) - 1) <= limit:
            return rows, columns
    return None


@lru_cache(maxsize=8)
def legend_panel(classes: ClassSet, shown: tuple[int, ...], size: tuple[int, int]) -> Panel | None:
    """Draw the legend: a swatch and a name for each class, along the lower edge of the frame.

    Args:
        classes: names and colours.
        shown: the class indices to explain, in the order of the legend.
        size: height and width of the frame in pixels.

    Returns:
        The panel, at most a quarter as high as the frame; None if nothing is to be shown or it would not fit.
    """
    for font_px in range(_font_px(LEGEND_FONT, size), MIN_LEGEND_FONT_PX - 1, -1) if shown else ():
        panel = _legend_in_font(classes, shown, size, font_px)
        if panel is not None:
            return panel
    return None


def _legend_in_font(classes: ClassSet, shown: tuple[int, ...], size: tuple[int, int], font_px: int) -> Panel | None:
    """Draw the legend in one font size; None if it does not fit."""
    edge, pad, swatch, space = (round(font_px * share) for share in (0.8, 0.75, 0.8, 0.4))
    gap, line_px = round(font_px * 1.1), round(font_px * 1.45)
    texts = [_text(classes.names[index], font_px) for index in shown]
    layout = _columns([swatch + space + text.shape[1] for text in texts], gap, size[1] - 2 * (edge + pad))
    if layout is None:
        return None
    rows, columns = layout
    width = sum(columns) + gap * (len(columns) - 1) + 2 * pad
    height = rows * line_px + 2 * pad - round(font_px * 0.3)
    if height + edge > size[0] * MAX_LEGEND_HEIGHT:
        return None
    canvas = _Canvas(height, width, round(font_px * 0.5))
    for place, (index, text) in enumerate(zip(shown, texts, strict=True)):
        column, row = divmod(place, rows)
        left, top = pad + sum(columns[:column]) + gap * column, pad + row * line_px
        baseline = top + font_px * 0.85
        _paint_swatch(canvas, round(baseline - swatch + font_px * 0.05), left, swatch, classes.colors[index])
        canvas.paint(text, round(baseline - font_px * 0.95), left + swatch + space, TEXT_RGB)
    return canvas.panel(size[0] - height - edge, (size[1] - width) // 2)


def _paint_swatch(canvas: _Canvas, top: int, left: int, side: int, rgb: tuple[int, int, int]) -> None:
    """Paint a colour's sample; a light outline keeps dark colours visible on the dark panel."""
    line, radius = max(1, round(side / 14)), max(1, round(side * 0.22))
    canvas.paint(_rounded(side, side, radius), top, left, (255, 255, 255), OUTLINE_OPACITY)
    canvas.paint(_rounded(side - 2 * line, side - 2 * line, max(1, radius - line)), top + line, left + line, rgb)


@lru_cache(maxsize=4)
def _hud_panel(lines: tuple[str, ...], corner: Corner, size: tuple[int, int]) -> Panel | None:
    """Draw a head-up display for a picture of `size` (height, width); None if it does not fit."""
    headline_px, line_px = _font_px(HEADLINE_FONT, size), _font_px(LINE_FONT, size)
    texts = [_text(line, line_px if number else headline_px) for number, line in enumerate(lines)]
    edge, pad, leading = round(line_px * 0.8), round(line_px * 0.7), round(line_px * 0.15)
    height = sum(text.shape[0] for text in texts) + leading * (len(texts) - 1) + 2 * pad - round(line_px * 0.25)
    width = max(text.shape[1] for text in texts) + 2 * pad
    if height + edge > size[0] or width + edge > size[1]:
        return None
    canvas = _Canvas(height, width, round(line_px * 0.5))
    top = pad - round(line_px * 0.25)
    for number, text in enumerate(texts):
        canvas.paint(text, top, pad, QUIET_TEXT_RGB if number else TEXT_RGB)
        top += text.shape[0] + leading
    return canvas.panel(
        edge if corner.startswith("top") else size[0] - height - edge,
        edge if corner.endswith("left") else size[1] - width - edge,
    )


def draw_hud(picture: Picture | NDArray[np.uint8], lines: Sequence[str], *, corner: Corner = "top-left") -> None:
    """Draw a head-up display in place: the first line large, such as `58.3 FPS`, the others small below it.

    Only its own corner of the picture is touched. A picture too small for the words is left as it is.

    Args:
        picture: a picture, or an RGB array `(H, W, 3)` uint8.
        lines: what to write; nothing is drawn if it is empty. Characters beyond ASCII need OpenCV 5.
        corner: where to put it.

    Raises:
        ConfigError: the array is no RGB picture, or `corner` is none of the corners.
    """
    if not isinstance(picture, Picture):
        picture = Picture(planes=(picture,))
    if corner not in get_args(Corner):
        raise ConfigError(f"corner must be one of {', '.join(get_args(Corner))}, got {corner!r}")
    panel = _hud_panel(tuple(lines), corner, picture.size) if lines else None
    if panel is not None:
        panel.blend(picture.planes, picture.encoding)
