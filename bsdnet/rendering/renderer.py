"""Class masks drawn onto frames, on the CPU with OpenCV and on any device with torch, with equal results.

Opacities are whole 255ths. `(a * f + (255 - a) * c) / 255` is then never half-way between two integers, 255 being odd,
so every way to compute it that is off by less than 1/510 rounds to the same pixel.
"""

from dataclasses import dataclass
from typing import Literal, get_args

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bsdnet.classes import ClassSet
from bsdnet.errors import ConfigError
from bsdnet.rendering.panels import Panel, legend_panel

View = Literal["overlay", "mask", "side-by-side"]
"""`overlay`: classes over the frame; `mask`: classes alone; `side-by-side`: the frame, and the overlay to its right."""

LEGEND_LIMIT = 19
"""Most classes that a legend explains; larger sets show those in the frame."""
SAMPLE_STEP = 8
"""Which classes are in a frame is read from every eighth row and column."""
DIMMED = 64
"""Brightness, of 255, of the frame where the mask view has no class to show."""


@dataclass(frozen=True, kw_only=True)
class RenderStyle:
    """How a prediction is drawn.

    Raises:
        ConfigError: `alpha` is not within 0 to 1, or `view` is none of the views.
    """

    alpha: float = 0.5
    """Opacity of the classes over the frame, 0 to 1; the mask view is always opaque."""
    view: View = "overlay"
    """What to show."""
    only: frozenset[int] | None = None
    """Class indices to draw, None for all. Elsewhere the overlay shows the frame, the mask view a dark frame."""
    legend: bool = True
    """Whether the colours are explained on the frame."""

    def __post_init__(self) -> None:
        """Reject what cannot be drawn."""
        if not 0 <= self.alpha <= 1:
            raise ConfigError(f"alpha must be an opacity from 0 to 1, got {self.alpha}")
        if self.view not in get_args(View):
            raise ConfigError(f"view must be one of {', '.join(get_args(View))}, got {self.view!r}")


class Renderer:
    """Draws label maps onto frames in one style.

    Raises:
        ConfigError: the style's `only` names a class that the set does not have.
    """

    def __init__(self, classes: ClassSet, style: RenderStyle = RenderStyle()) -> None:
        strangers = sorted(index for index in style.only or () if not 0 <= index < len(classes))
        if strangers:
            raise ConfigError(
                f"only has no such class in {classes.name}: {strangers}; indices are 0 to {len(classes) - 1}"
            )
        self.classes = classes
        self.style = style
        self._drawn = sorted(range(len(classes)) if style.only is None else style.only)
        mask = style.view == "mask"
        self._opacity = 255 if mask else round(style.alpha * 255)
        self._elsewhere = DIMMED if mask else 255
        self._colors = _color_map(classes)  # (256, 1, 3)
        self._undrawn = np.ones(256, np.uint8)  # 1 where a label leaves the frame as it is, or dimmed
        self._undrawn[self._drawn] = 0
        self._tables: dict[torch.device, Tensor] = {}

    def render(self, rgb: NDArray[np.uint8], labels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Draw a label map onto its frame.

        Args:
            rgb: the frame, `(H, W, 3)` uint8 RGB.
            labels: class indices, `(H, W)` uint8; indices beyond the class set, such as 255, are not drawn.

        Returns:
            A new picture, `(H, W, 3)` uint8 RGB; side by side it is `(H, 2W, 3)`.

        Raises:
            ConfigError: the frame or the label map has another shape or type.
        """
        _check(rgb.shape, labels.shape, rgb.dtype == np.uint8 and labels.dtype == np.uint8)
        rgb, labels = np.ascontiguousarray(rgb), np.ascontiguousarray(labels)
        height, width = labels.shape
        if self.style.view == "side-by-side":
            out = np.empty((height, 2 * width, 3), np.uint8)
            out[:, :width] = rgb
            drawn = out[:, width:]
        else:
            out = drawn = np.empty_like(rgb)
        self._draw(rgb, labels, drawn)
        legend = self._legend(labels)
        if legend is not None:
            legend.blend(drawn)
        return out

    def render_torch(self, rgb: Tensor, labels: Tensor) -> Tensor:
        """Draw a label map onto its frame on the tensors' device, pixel for pixel as `render` does.

        Nothing waits for the device, but for the legend of sets of more than 19 classes: it reads which are there.

        Args:
            rgb: the frame, `(H, W, 3)` uint8 RGB.
            labels: class indices, `(H, W)` uint8.

        Returns:
            A new picture as of `render`, on the device of `rgb`.

        Raises:
            ConfigError: the frame or the label map has another shape or type.
        """
        _check(rgb.shape, labels.shape, rgb.dtype == torch.uint8 and labels.dtype == torch.uint8)
        if rgb.device not in self._tables:
            self._tables[rgb.device] = self._table().to(rgb.device)
        entries = self._tables[rgb.device][labels.int()]  # (H, W, 4)
        drawn = (rgb * entries[..., 3:] + entries[..., :3]).round_().to(torch.uint8)
        legend = self._legend(labels)
        if legend is not None:
            legend.blend_torch(drawn)
        return torch.cat((rgb, drawn), dim=1) if self.style.view == "side-by-side" else drawn

    def _draw(self, rgb: NDArray[np.uint8], labels: NDArray[np.uint8], out: NDArray[np.uint8]) -> None:
        """Draw into `out`, in place: allocating pictures in between takes as long as the arithmetic."""
        cv2.applyColorMap(labels, self._colors, out)
        if self._opacity < 255:
            cv2.addWeighted(rgb, (255 - self._opacity) / 255, out, self._opacity / 255, 0, out)
        if len(self._drawn) < len(self.classes) or int(labels.max()) >= len(self.classes):
            kept = rgb if self._elsewhere == 255 else cv2.convertScaleAbs(rgb, alpha=self._elsewhere / 255)
            cv2.copyTo(kept, cv2.LUT(labels, self._undrawn), out)

    def _table(self) -> Tensor:
        """What each label adds to the frame (RGB) and keeps of it, `(256, 4)` float32."""
        drawn = torch.from_numpy(self._undrawn == 0)[:, None]  # (256, 1)
        add = torch.from_numpy(self._colors[:, 0]).float() * (self._opacity / 255) * drawn
        keep = torch.where(drawn, (255 - self._opacity) / 255, self._elsewhere / 255)
        return torch.cat((add, keep), dim=1)

    def _legend(self, labels: NDArray[np.uint8] | Tensor) -> Panel | None:
        """Return the legend for a frame; its labels are read only if not all drawn classes have room."""
        if not self.style.legend:
            return None
        shown = self._drawn
        if len(shown) > LEGEND_LIMIT:
            sample = labels[::SAMPLE_STEP, ::SAMPLE_STEP].reshape(-1)
            counts = np.bincount(sample.cpu().numpy() if isinstance(sample, Tensor) else sample, minlength=256)
            frequent = sorted(shown, key=lambda index: -int(counts[index]))[:LEGEND_LIMIT]
            shown = sorted(index for index in frequent if counts[index])
        return legend_panel(self.classes, tuple(shown), (labels.shape[0], labels.shape[1]))


def mask_to_rgb(labels: NDArray[np.uint8], classes: ClassSet) -> NDArray[np.uint8]:
    """Colour a label map: `(H, W)` uint8 class indices to `(H, W, 3)` uint8 RGB; indices beyond the set are black.

    Raises:
        ConfigError: `labels` is no `(H, W)` uint8 array.
    """
    if labels.ndim != 2 or labels.size == 0 or labels.dtype != np.uint8:
        raise ConfigError(f"a label map must be (H, W) uint8, got {labels.shape} {labels.dtype}")
    return np.asarray(cv2.applyColorMap(np.ascontiguousarray(labels), _color_map(classes)), np.uint8)


def _color_map(classes: ClassSet) -> NDArray[np.uint8]:
    """The palette for all 256 labels as OpenCV wants it, `(256, 1, 3)`; black where there is no class."""
    table = np.zeros((256, 1, 3), np.uint8)
    table[: len(classes), 0] = classes.palette
    return table


def _check(rgb_shape: tuple[int, ...], labels_shape: tuple[int, ...], are_bytes: bool) -> None:
    if len(rgb_shape) != 3 or rgb_shape[2] != 3 or 0 in rgb_shape or rgb_shape[:2] != labels_shape or not are_bytes:
        raise ConfigError(
            "rendering needs an (H, W, 3) uint8 RGB frame and its (H, W) uint8 labels, "
            f"got shapes {tuple(rgb_shape)} and {tuple(labels_shape)}{'' if are_bytes else ' of another type'}"
        )
