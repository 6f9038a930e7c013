"""Where a picture lies in a widget: fit, fill, 1:1, zoom and pan, without any Qt.

Sizes are (height, width). Points are (x, y): of the widget in device pixels, of the picture in its own pixels.
"""

import math
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

ViewMode = Literal["overlay", "mask", "side-by-side", "split", "original"]
"""What is shown; `split` is the frame to the left of a line and the classes to its right."""

Scaling = Literal["fit", "fill", "actual", "free"]
"""How the picture is scaled: all of it seen, no bare edge, one to one, or as the user zoomed."""

MAX_ZOOM = 32.0
"""Device pixels per pixel of the picture: beyond, there is nothing more to see."""
_MIN_SHARE = 0.25  # a picture is never made smaller than this share of its fitting size


class Rect(NamedTuple):
    """Whole pixels; right and bottom are outside."""

    left: int
    top: int
    right: int
    bottom: int

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.bottom - self.top, self.right - self.left


class Tile(NamedTuple):
    """A part of the picture and where it is painted."""

    drawn: bool
    """Whether the classes are drawn on it."""
    crop: Rect
    """The part, in pixels of the frame."""
    target: Rect
    """Where it is painted, in device pixels of the widget; may begin or end beyond it."""
    part: Rect
    """The part, in pixels of all that is shown: side by side, the right one begins where the left one ends."""


@dataclass(frozen=True, kw_only=True)
class ViewGeometry:
    """One frame, or two side by side, in a widget."""

    frame: tuple[int, int]
    """Size of the frame in pixels."""
    widget: tuple[int, int]
    """Size of the widget in device pixels."""
    beside: bool = False
    """Whether the frame is there twice, side by side."""
    scaling: Scaling = "fit"
    """Which rule gives the zoom; with `free` it is as stored."""
    free_zoom: float = 1.0
    """Device pixels per pixel of the picture, if the user zoomed."""
    center: tuple[float, float] = (0.5, 0.5)
    """The point of the picture in the widget's middle, as shares of the picture's width and height."""

    @property
    def picture(self) -> tuple[int, int]:
        """Size of all that is shown, in pixels of the frame."""
        height, width = self.frame
        return height, width * (2 if self.beside else 1)

    @property
    def zoom(self) -> float:
        """Device pixels per pixel of the picture."""
        ratios = [
            max(1, available) / length for available, length in zip(self.widget, self.picture, strict=True)
        ]  # vertical, horizontal
        if self.scaling == "fit":
            return min(ratios)
        if self.scaling == "fill":
            return max(ratios)
        return 1.0 if self.scaling == "actual" else self.free_zoom

    def to_picture(self, x: float, y: float) -> tuple[float, float]:
        """Find the point of the picture under a point of the widget; it may lie outside the picture."""
        left, top = self._origin()
        return (x - left) / self.zoom, (y - top) / self.zoom

    def to_widget(self, x: float, y: float) -> tuple[float, float]:
        """Find where a point of the picture is painted."""
        left, top = self._origin()
        return left + x * self.zoom, top + y * self.zoom

    def pixel_at(self, x: float, y: float) -> tuple[int, int] | None:
        """Find the frame's pixel, as (row, column), under a point of the widget; None beside the picture."""
        px, py = self.to_picture(x, y)
        height, width = self.picture
        if not (0 <= px < width and 0 <= py < height):
            return None
        return int(py), int(px) % self.frame[1]

    def zoomed(self, factor: float, x: float, y: float) -> "ViewGeometry":
        """Zoom so that the point of the picture under (x, y) stays where it is."""
        smallest = min(1.0, replace(self, scaling="fit").zoom) * _MIN_SHARE
        zoom = min(max(self.zoom * factor, smallest), MAX_ZOOM)
        px, py = self.to_picture(x, y)
        moved = replace(self, scaling="free", free_zoom=zoom)
        height, width = self.widget
        return moved._centered(px - (x - width / 2) / zoom, py - (y - height / 2) / zoom)

    def panned(self, dx: float, dy: float) -> "ViewGeometry":
        """Move the picture by device pixels, as far as there is more of it to see."""
        x, y = self._clamped_center()
        return self._centered(x - dx / self.zoom, y - dy / self.zoom)

    def visible(self) -> Rect | None:
        """Find the part of the picture that is seen, widened to even pixels so that halved chroma can be cut too."""
        height, width = self.picture
        left, top = self.to_picture(0, 0)
        right, bottom = self.to_picture(self.widget[1], self.widget[0])
        seen = Rect(
            max(0, _even_below(left)),
            max(0, _even_below(top)),
            min(width, _even_above(right)),
            min(height, _even_above(bottom)),
        )
        return seen if seen.right > seen.left and seen.bottom > seen.top else None

    def target(self, rect: Rect) -> Rect:
        """Find where a part of the picture is painted."""
        left, top = self.to_widget(rect.left, rect.top)
        right, bottom = self.to_widget(rect.right, rect.bottom)
        left_px, top_px = round(left), round(top)
        return Rect(left_px, top_px, max(left_px + 1, round(right)), max(top_px + 1, round(bottom)))

    def tiles(self, mode: ViewMode) -> list[Tile]:
        """Tell what has to be painted where, in the order of painting."""
        seen = self.visible()
        if seen is None:
            return []
        if not self.beside:
            kinds = {"split": (False, True), "original": (False,)}.get(mode, (True,))
            return [Tile(drawn, seen, self.target(seen), seen) for drawn in kinds]
        width = self.frame[1]
        tiles = []
        for drawn, start in ((False, 0), (mode != "original", width)):
            part = seen._replace(left=max(seen.left, start), right=min(seen.right, start + width))
            if part.right > part.left:
                crop = part._replace(left=part.left - start, right=part.right - start)
                tiles.append(Tile(drawn, crop, self.target(part), part))
        return tiles

    def _origin(self) -> tuple[float, float]:
        """Where the picture's upper left corner is in the widget."""
        x, y = self._clamped_center()
        return self.widget[1] / 2 - x * self.zoom, self.widget[0] / 2 - y * self.zoom

    def _clamped_center(self) -> tuple[float, float]:
        """The centre in pixels of the picture, such that no edge is bare that need not be."""
        height, width = self.picture
        x, y = self.center[0] * width, self.center[1] * height
        return _clamp(x, width, self.widget[1] / self.zoom), _clamp(y, height, self.widget[0] / self.zoom)

    def _centered(self, x: float, y: float) -> "ViewGeometry":
        height, width = self.picture
        moved = replace(self, center=(x / width, y / height))
        x, y = moved._clamped_center()
        return replace(moved, center=(x / width, y / height))


def _clamp(center: float, length: float, window: float) -> float:
    if window >= length:
        return length / 2
    return min(max(center, window / 2), length - window / 2)


def _even_below(value: float) -> int:
    return math.floor(value / 2) * 2


def _even_above(value: float) -> int:
    return math.ceil(value / 2) * 2
