"""What the window paints: the visible part of a frame with its classes, at the size of the screen's own pixels.

None of this runs on the GUI thread, which only copies the result to the screen.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray
from PySide6.QtGui import QImage

from app.view_geometry import Rect, Tile, ViewGeometry, ViewMode
from bsdnet.classes import ClassSet
from bsdnet.picture import Picture
from bsdnet.runtime.prediction import Prediction
from bsdnet.stream.frame import Frame, StreamResult

if TYPE_CHECKING:  # it imports PyTorch, which the window does not wait for
    from bsdnet.rendering import Renderer

_SHARE_STEP = 4  # class shares are counted on every fourth row and column
_AREA_BELOW = 0.75  # shrinking farther than this averages pixels, or fine structures flicker
_NEAREST_ABOVE = 4.0  # enlarged farther than this, single pixels are what one wants to see


@dataclass(frozen=True, kw_only=True)
class Look:
    """How frames are shown."""

    mode: ViewMode = "overlay"
    """What is shown."""
    alpha: float = 0.5
    """Opacity of the classes over the frame, 0 to 1."""
    only: frozenset[int] | None = None
    """Class indices to draw; None for all."""


@dataclass(frozen=True, kw_only=True, eq=False)
class PaintedTile:
    """A tile and its pixels."""

    tile: Tile
    image: QImage
    pixels: NDArray[np.uint8]
    """The image's memory, `(h, w, 4)` BGRX: Qt does not keep it alive."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Composed:
    """A frame, ready to be painted."""

    result: StreamResult
    """The frame and its prediction."""
    classes: ClassSet
    """What its labels mean."""
    shares: NDArray[np.float64]
    """Share of the frame's pixels by class, 0 to 1."""
    number: int
    """How many frames were composed before; the same frame in another look has the same number."""
    tiles: tuple[PaintedTile, ...]
    """What to paint."""
    geometry: ViewGeometry | None
    """For which geometry the tiles were made; None: for none, as that of this frame's size was not known."""


def compose_tiles(
    result: StreamResult, geometry: ViewGeometry, look: Look, renderer: "Renderer"
) -> tuple[PaintedTile, ...]:
    """Paint what is seen of a frame into memory."""
    labels = result.prediction.labels
    painted = []
    for tile in geometry.tiles(look.mode):
        rgb = visible_rgb(result.frame.picture, tile.crop, tile.target.size)
        if tile.drawn and labels is not None:
            rgb = renderer.render(rgb, _resize(_cut(labels, tile.crop), tile.target.size, cv2.INTER_NEAREST))
        pixels = np.asarray(cv2.cvtColor(rgb, cv2.COLOR_RGB2BGRA), np.uint8)
        height, width = pixels.shape[:2]
        image = QImage(pixels.data, width, height, pixels.strides[0], QImage.Format.Format_RGB32)
        painted.append(PaintedTile(tile=tile, image=image, pixels=pixels))
    return tuple(painted)


def make_renderer(classes: ClassSet, look: Look) -> "Renderer":
    """Make what draws the classes."""
    from bsdnet.rendering import Renderer, RenderStyle

    only = None if look.only is None else frozenset(index for index in look.only if index < len(classes))
    style = RenderStyle(alpha=look.alpha, view="mask" if look.mode == "mask" else "overlay", only=only, legend=False)
    return Renderer(classes, style)


def full_picture(frame: Frame, prediction: Prediction, classes: ClassSet, look: Look) -> NDArray[np.uint8]:
    """Draw a whole frame as it is shown, at its own size: `(H, W, 3)` uint8 RGB, side by side `(H, 2W, 3)`."""
    rgb = frame.rgb
    if look.mode == "original" or prediction.labels is None:
        return rgb
    drawn = make_renderer(classes, look).render(rgb, prediction.labels)
    return np.hstack([rgb, drawn]) if look.mode == "side-by-side" else drawn


def class_shares(labels: NDArray[np.uint8], num_classes: int) -> NDArray[np.float64]:
    """Count the share of pixels of each class, `(num_classes,)`; pixels of no class make the sum less than 1."""
    sample = labels[::_SHARE_STEP, ::_SHARE_STEP]
    return np.bincount(sample.ravel(), minlength=num_classes)[:num_classes] / sample.size


def visible_rgb(picture: Picture, crop: Rect, size: tuple[int, int]) -> NDArray[np.uint8]:
    """Cut, scale and convert a picture.

    Scaling comes first, so that no more is converted than is seen.

    Args:
        picture: RGB, or YUV 4:2:0.
        crop: the part to show; its edges are even, except at the picture's own.
        size: height and width of the result.

    Returns:
        `(*size, 3)` uint8 RGB.
    """
    scale = size[0] / crop.size[0]
    if scale < _AREA_BELOW:
        interpolation = cv2.INTER_AREA
    else:
        interpolation = cv2.INTER_NEAREST if scale > _NEAREST_ABOVE else cv2.INTER_LINEAR
    if picture.encoding is None:
        return _resize(_cut(picture.planes[0], crop), size, interpolation)
    half = Rect(*(edge // 2 for edge in crop))
    luma, *chroma = picture.planes
    planes = [
        _resize(_cut(luma, crop), size, interpolation),
        *(_resize(_cut(plane, half), size, cv2.INTER_LINEAR) for plane in chroma),
    ]
    return picture.encoding.decode(planes)


def _cut(plane: NDArray[np.uint8], crop: Rect) -> NDArray[np.uint8]:
    return plane[crop.top : crop.bottom, crop.left : crop.right]


def _resize(plane: NDArray[np.uint8], size: tuple[int, int], interpolation: int) -> NDArray[np.uint8]:
    if plane.shape[:2] == size:
        return plane
    return np.asarray(cv2.resize(plane, (size[1], size[0]), interpolation=interpolation), np.uint8)
