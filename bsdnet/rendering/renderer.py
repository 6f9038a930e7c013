"""Class masks drawn onto frames, on the CPU with OpenCV and on any device with torch, with equal results.

Opacities are whole 255ths. `(a * f + (255 - a) * c) / 255` is then never half-way between two integers, 255 being odd,
so every way to compute it that is off by less than 1/510 rounds to the same pixel.
"""

import numbers
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal, get_args

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bsdnet.classes import ClassSet
from bsdnet.errors import ConfigError
from bsdnet.picture import Picture, YuvEncoding, empty_like
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
        if not isinstance(self.alpha, numbers.Real) or not 0 <= self.alpha <= 1:
            raise ConfigError(f"alpha must be an opacity from 0 to 1, got {self.alpha!r}")
        if self.view not in get_args(View):
            raise ConfigError(f"view must be one of {', '.join(get_args(View))}, got {self.view!r}")


class Renderer:
    """Draws label maps onto frames in one style.

    Raises:
        ConfigError: the style's `only` names a class that the set does not have.
    """

    def __init__(self, classes: ClassSet, style: RenderStyle = RenderStyle()) -> None:
        known = range(len(classes))
        strangers = [
            index for index in style.only or () if not isinstance(index, numbers.Integral) or index not in known
        ]
        if strangers:
            raise ConfigError(
                f"only has no such class in {classes.name}: {sorted(strangers, key=repr)}; indices are 0 to "
                f"{len(classes) - 1}, and classes.indices gives those of names"
            )
        self.classes = classes
        self.style = style
        self._drawn = sorted(range(len(classes)) if style.only is None else style.only)
        mask = style.view == "mask"
        self._opacity = 255 if mask else round(style.alpha * 255)
        self._elsewhere = DIMMED if mask else 255
        self._undrawn = np.ones(256, np.uint8)  # 1 where a label leaves the frame as it is, or dimmed
        self._undrawn[self._drawn] = 0
        self._colors: dict[YuvEncoding | None, NDArray[np.uint8]] = {}
        self._tables: dict[tuple[torch.device, YuvEncoding | None], Tensor] = {}

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
        return self.render_picture(Picture(planes=(np.ascontiguousarray(rgb),)), labels).planes[0]

    def render_picture(self, picture: Picture, labels: NDArray[np.uint8]) -> Picture:
        """Draw a label map onto its frame in the frame's own pixel format.

        Chroma of YUV 4:2:0 takes the label of the upper left one of its four pixels.

        Args:
            picture: the frame, H high and W wide.
            labels: class indices, `(H, W)` uint8; indices beyond the class set, such as 255, are not drawn.

        Returns:
            A new picture; side by side it is twice as wide.

        Raises:
            ConfigError: the label map has another size or type.
        """
        if labels.shape != picture.size or labels.dtype != np.uint8:
            raise ConfigError(f"a frame of {picture.size} needs labels of that size, got {labels.shape} {labels.dtype}")
        width = picture.size[1]
        beside = self.style.view == "side-by-side"
        out = empty_like(picture, width=2 * width if beside else width)
        drawn = [plane[:, plane.shape[1] // 2 if beside else 0 :] for plane in out.planes]
        labels = np.ascontiguousarray(labels)
        halved = labels if picture.encoding is None else np.ascontiguousarray(labels[::2, ::2])
        for number, (plane, target) in enumerate(zip(picture.planes, drawn, strict=True)):
            if beside:
                out.planes[number][:, : plane.shape[1]] = plane
            self._draw(plane, halved if number else labels, target, number, picture.encoding)
        self.draw_legend(out, labels)
        return out

    @property
    def legend_follows_labels(self) -> bool:
        """Whether the legend depends on the frame, because not all drawn classes have room in it."""
        return self.style.legend and len(self._drawn) > LEGEND_LIMIT

    @cached_property
    def without_legend(self) -> "Renderer":
        """One that draws the same, but no legend."""
        return Renderer(self.classes, replace(self.style, legend=False))

    def draw_legend(self, rendered: Picture, labels: NDArray[np.uint8]) -> None:
        """Draw the legend, if the style wants one, onto a picture as of `render_picture`, in place.

        Args:
            rendered: the picture; side by side it is twice as wide as the labels.
            labels: class indices, `(H, W)` uint8.
        """
        legend = self._legend(labels)
        if legend is not None:
            beside = self.style.view == "side-by-side"
            drawn = [plane[:, plane.shape[1] // 2 if beside else 0 :] for plane in rendered.planes]
            legend.blend(drawn, rendered.encoding)

    def render_torch(
        self, planes: Sequence[Tensor], labels: Tensor, encoding: YuvEncoding | None = None
    ) -> tuple[Tensor, ...]:
        """Draw a label map onto its frame on the tensors' device, pixel for pixel as `render_picture` does.

        Nothing waits for the device, unless `legend_follows_labels`: then it reads which classes are there.

        Args:
            planes: the frame's planes, uint8, as of a `Picture`.
            labels: class indices, `(H, W)` uint8.
            encoding: that of the frame.

        Returns:
            The planes of a new picture as of `render_picture`, on the device of `labels`.
        """
        table = self.table(encoding, labels.device)  # (256, 3, 2)
        if encoding is None:
            entries = table[labels.int()]  # (H, W, 3, 2)
            drawn = [_mix(planes[0], entries)]
        else:
            halved = labels[::2, ::2]
            drawn = [
                _mix(plane, table[:, number][(halved if number else labels).int()])
                for number, plane in enumerate(planes)
            ]
        self.blend_legend(drawn, labels, encoding)
        if self.style.view == "side-by-side":
            return tuple(torch.cat(pair, dim=1) for pair in zip(planes, drawn, strict=True))
        return tuple(drawn)

    def table(self, encoding: YuvEncoding | None, device: torch.device) -> Tensor:
        """What each label keeps of the frame and what it adds to it.

        Args:
            encoding: that of the frame.
            device: where the table shall be.

        Returns:
            `(256, 3, 2)` float32, by label and by R, G, B or Y, U, V: a drawn pixel is `round(p * t[0] + t[1])`.
        """
        if (device, encoding) not in self._tables:
            drawn = (self._undrawn == 0)[:, None]  # (256, 1)
            opacity = np.where(drawn, self._opacity, 255 - self._elsewhere) / 255
            towards = np.where(drawn, self._color_table(encoding), _black(encoding))  # (256, 3)
            table = np.stack(np.broadcast_arrays(1 - opacity, towards * opacity), axis=2).astype(np.float32)
            self._tables[device, encoding] = torch.from_numpy(table).to(device)
        return self._tables[device, encoding]

    def blend_legend(self, drawn: Sequence[Tensor], labels: Tensor, encoding: YuvEncoding | None) -> None:
        """Draw the legend, if the style wants one, onto a drawn frame's planes, in place and on their device.

        It waits for the device if `legend_follows_labels`.

        Args:
            drawn: planes of the part of the picture that shows the classes.
            labels: class indices, `(H, W)` uint8.
            encoding: that of the frame.
        """
        legend = self._legend(labels)
        if legend is not None:
            legend.blend_torch(drawn, encoding)

    def _draw(
        self,
        plane: NDArray[np.uint8],
        labels: NDArray[np.uint8],
        out: NDArray[np.uint8],
        number: int,
        encoding: YuvEncoding | None,
    ) -> None:
        """Draw one plane into `out`, in place: allocating pictures in between takes as long as the arithmetic."""
        colors, black = self._color_table(encoding), _black(encoding)[number]
        if encoding is None:
            cv2.applyColorMap(labels, colors[:, None], out)
        else:
            cv2.LUT(labels, colors[:, number], out)
        if self._opacity < 255:
            cv2.addWeighted(plane, (255 - self._opacity) / 255, out, self._opacity / 255, 0, out)
        if len(self._drawn) < len(self.classes) or int(labels.max()) >= len(self.classes):
            share = self._elsewhere / 255
            kept = plane if share == 1 else cv2.convertScaleAbs(plane, alpha=share, beta=black * (1 - share))
            cv2.copyTo(kept, cv2.LUT(labels, self._undrawn), out)

    def _color_table(self, encoding: YuvEncoding | None) -> NDArray[np.uint8]:
        """The palette for all 256 labels, `(256, 3)`, in the frame's own terms; black where there is no class."""
        if encoding not in self._colors:
            colors = _color_map(self.classes)[:, 0]
            if encoding is not None:
                colors = np.rint(colors @ encoding.from_rgb().T + encoding.black).astype(np.uint8)
            self._colors[encoding] = colors
        return self._colors[encoding]

    def _legend(self, labels: NDArray[np.uint8] | Tensor) -> Panel | None:
        """Return the legend for a frame; its labels are read only if not all drawn classes have room."""
        if not self.style.legend:
            return None
        shown = self._drawn
        if self.legend_follows_labels:
            sample = labels[::SAMPLE_STEP, ::SAMPLE_STEP].reshape(-1)
            counts = np.bincount(sample.cpu().numpy() if isinstance(sample, Tensor) else sample, minlength=256)
            frequent = sorted(shown, key=lambda index: -int(counts[index]))[:LEGEND_LIMIT]
            shown = sorted(index for index in frequent if counts[index])
        return legend_panel(self.classes, tuple(shown), (labels.shape[0], labels.shape[1]))


def _color_map(classes: ClassSet) -> NDArray[np.uint8]:
    """The palette for all 256 labels as OpenCV wants it, `(256, 1, 3)`; black where there is no class."""
    table = np.zeros((256, 1, 3), np.uint8)
    table[: len(classes), 0] = classes.palette
    return table


def _black(encoding: YuvEncoding | None) -> tuple[int, int, int]:
    return (0, 0, 0) if encoding is None else encoding.black


def _mix(plane: Tensor, entries: Tensor) -> Tensor:
    """Apply entries of the table, `(..., 2)`, to the pixels of a plane, `(...)` uint8."""
    return (plane * entries[..., 0] + entries[..., 1]).round_().to(torch.uint8)
