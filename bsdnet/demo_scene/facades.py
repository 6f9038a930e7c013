"""Fronts of houses as textures: walls, windows, doors and shops."""

from dataclasses import dataclass

import cv2
import numpy as np

from bsdnet.demo_scene.canvas import Color, Image
from bsdnet.demo_scene.materials import Field, brick, opaque, plaster

BRICKS: tuple[Color, ...] = ((150, 92, 72), (168, 118, 88), (132, 84, 70), (176, 148, 112), (120, 96, 84))
RENDERS: tuple[Color, ...] = (
    (214, 200, 172),
    (226, 220, 208),
    (196, 180, 158),
    (206, 176, 146),
    (180, 186, 188),
    (222, 206, 160),
)
SHOPS: tuple[Color, ...] = ((30, 74, 62), (130, 34, 40), (36, 48, 84), (52, 50, 50), (176, 122, 40), (38, 96, 120))


END_M = 8.0
"""Depth of a house: the width of the wall around the corner."""


@dataclass(frozen=True, kw_only=True)
class FacadePlan:
    """What a front looks like."""

    width_m: float
    """Along the street."""
    storeys: int
    """With the ground floor."""
    storey_m: float = 3.0
    """Height of a storey."""
    bay_m: float = 3.0
    """Width of the wall around one window."""
    brick: bool = True
    """Brickwork, or else render."""
    shop: bool = False
    """Shop windows on the ground floor."""
    glass: bool = False
    """Bands of glass instead of single windows."""

    @property
    def height_m(self) -> float:
        """From the ground to the eaves."""
        return self.storeys * self.storey_m + 0.5


class FacadeDrawing:
    """A front being drawn; places in metres from the left and up from the ground."""

    def __init__(self, wall: Field, px_per_m: float) -> None:
        """Begin with a bare wall `(h, w, 3)`."""
        self.pixels = wall
        self._px = px_per_m

    def box(self, left: float, bottom: float, width: float, height: float, color: Color) -> None:
        """Fill a rectangle."""
        rows, columns = self._part(left, bottom, width, height)
        self.pixels[rows, columns] = color

    def shade(self, left: float, bottom: float, width: float, height: float, factor: float) -> None:
        """Multiply a rectangle's brightness."""
        rows, columns = self._part(left, bottom, width, height)
        self.pixels[rows, columns] *= factor

    def glass(self, rng: np.random.Generator, left: float, bottom: float, width: float, height: float) -> None:
        """A pane: dark inside, the sky's reflection in its upper part, sometimes a curtain or a lamp."""
        rows, columns = self._part(left, bottom, width, height)
        area = self.pixels[rows, columns]
        down = np.linspace(0, 1, max(area.shape[0], 1), dtype=np.float32)[: area.shape[0], None, None]
        across = np.linspace(0, 1, max(area.shape[1], 1), dtype=np.float32)[None, : area.shape[1], None]
        reflection, slant = rng.uniform(0.25, 0.9), rng.uniform(-0.4, 0.4)
        mix = np.clip(reflection * (1.05 - down + slant * (across - 0.5)), 0, 0.85)
        area[:] = np.array([38, 44, 52], np.float32) * (1 - mix) + np.array([150, 170, 190], np.float32) * mix
        kind, reach = rng.uniform(), rng.uniform(0.12, 0.3)
        if kind < 0.35:
            curtain = ((across < reach) | (across > 1 - reach)).astype(np.float32) * 0.55
            folds = 0.85 + 0.15 * np.cos(across * 70)
            area[:] = area * (1 - curtain) + np.array([206, 198, 184], np.float32) * folds * curtain
        elif kind < 0.5:
            blind = (down < reach * 2).astype(np.float32) * 0.7
            area[:] = area * (1 - blind) + np.array([214, 208, 196], np.float32) * blind
        elif kind < 0.55:
            area[:] = area * 0.5 + np.array([216, 176, 112], np.float32) * 0.5

    def window(
        self, rng: np.random.Generator, left: float, bottom: float, width: float, height: float, frame: Color
    ) -> None:
        """A window in its reveal: lintel, shadow, frame, glazing bars, panes and sill."""
        self.shade(left - 0.10, bottom + height, width + 0.20, 0.20, 1.14)
        self.box(left - 0.03, bottom - 0.02, width + 0.06, height + 0.04, (52, 48, 46))
        self.box(left, bottom, width, height - 0.06, frame)
        self.glass(rng, left + 0.08, bottom + 0.08, width - 0.16, height - 0.22)
        self.box(left + width / 2 - 0.035, bottom, 0.07, height - 0.1, frame)
        self.box(left, bottom + height * 0.55, width, 0.06, frame)
        self.shade(left + 0.04, bottom + height - 0.24, width - 0.08, 0.18, 0.6)
        self.box(left - 0.10, bottom - 0.12, width + 0.20, 0.10, (206, 202, 192))
        self.shade(left - 0.10, bottom - 0.26, width + 0.20, 0.14, 0.72)

    def door(self, left: float, width: float, color: Color) -> None:
        """A panelled door under a fanlight, up two steps."""
        dark: Color = (color[0] * 0.7, color[1] * 0.7, color[2] * 0.7)
        self.box(left - 0.14, 0.0, width + 0.28, 2.75, (220, 216, 206))
        self.box(left, 0.28, width, 2.35, color)
        self.box(left, 2.25, width, 0.34, (70, 82, 94))
        for row in (0.45, 1.35):
            self.box(left + 0.14, row, width / 2 - 0.2, 0.72, dark)
            self.box(left + width / 2 + 0.06, row, width / 2 - 0.2, 0.72, dark)
        self.box(left + width - 0.16, 1.22, 0.07, 0.1, (214, 190, 110))
        self.box(left - 0.2, 0.0, width + 0.4, 0.15, (150, 146, 140))
        self.box(left - 0.1, 0.15, width + 0.2, 0.13, (166, 162, 156))

    def shop(self, rng: np.random.Generator, left: float, width: float, color: Color) -> None:
        """A shop: large panes, things behind them, and a fascia with strokes that look like writing."""
        self.box(left, 0.0, width, 3.15, color)
        for part in range(3):
            pane = width / 3 - 0.14
            start = left + 0.08 + part * width / 3
            if part == 1:
                self.box(start, 0.05, pane, 2.45, (40, 40, 42))
                self.glass(rng, start + 0.1, 0.25, pane - 0.2, 2.15)
                continue
            self.glass(rng, start, 0.55, pane, 1.95)
            for item in range(4):
                tone = rng.uniform(60, 220, 3)
                high = rng.uniform(0.2, 0.75)
                self.box(start + 0.1 + item * pane / 4, 0.6, pane / 5, high, (tone[0], tone[1], tone[2]))
        self.shade(left, 2.3, width, 0.25, 0.6)
        self.box(left, 2.55, width, 0.6, tuple(min(255.0, 1.12 * part) for part in color))  # type: ignore[arg-type]
        at = left + width * rng.uniform(0.12, 0.3)
        while at < left + width * 0.78:
            stroke = rng.uniform(0.10, 0.24)
            self.box(at, 2.72, stroke, rng.uniform(0.2, 0.3), (236, 228, 200))
            at += stroke + rng.uniform(0.05, 0.12)

    def _part(self, left: float, bottom: float, width: float, height: float) -> tuple[slice, slice]:
        rows = self.pixels.shape[0]
        top_row, bottom_row = rows - round((bottom + height) * self._px), rows - round(bottom * self._px)
        return (
            slice(max(top_row, 0), max(bottom_row, 0)),
            slice(max(round(left * self._px), 0), max(round((left + width) * self._px), 0)),
        )


def facade(rng: np.random.Generator, plan: FacadePlan, px_per_m: float) -> tuple[Image, Image]:
    """Draw a front and the wall around its corner.

    Args:
        rng: source of chance.
        plan: what to draw.
        px_per_m: resolution.

    Returns:
        RGBA `(h, w, 4)` of `plan.height_m` times `plan.width_m`, and of `plan.height_m` times END_M.
    """
    colors = BRICKS if plan.brick else RENDERS
    color = colors[rng.integers(len(colors))]
    end = _end_wall(rng, _wall(rng, plan, END_M, color, px_per_m / 2), plan, px_per_m / 2)
    return _front(rng, _wall(rng, plan, plan.width_m, color, px_per_m), plan, px_per_m), end


def _wall(rng: np.random.Generator, plan: FacadePlan, width_m: float, color: Color, px_per_m: float) -> Field:
    shape = round(plan.height_m * px_per_m), round(width_m * px_per_m)
    return brick(rng, shape, px_per_m, color) if plan.brick else plaster(rng, shape, color)


def _end_wall(rng: np.random.Generator, wall: Field, plan: FacadePlan, px_per_m: float) -> Image:
    drawing = FacadeDrawing(wall, px_per_m)
    for storey in range(1, plan.storeys):
        for left in (1.9, 5.1)[: int(rng.integers(1, 3))]:
            drawing.window(rng, left, storey * plan.storey_m + 1.0, 0.9, 1.4, (222, 220, 214))
    drawing.shade(0, 0, END_M, 0.5, 0.8)
    return opaque(drawing.pixels)


def _front(rng: np.random.Generator, wall: Field, plan: FacadePlan, px_per_m: float) -> Image:
    drawing = FacadeDrawing(wall, px_per_m)
    if plan.glass:
        _glass_bands(rng, drawing, plan)
    else:
        _bays(rng, drawing, plan)
    drawing.shade(0, plan.height_m - 0.75, plan.width_m, 0.28, 0.78)
    drawing.box(0, plan.height_m - 0.45, plan.width_m, 0.32, (198, 192, 180))
    drawing.shade(0, 0, plan.width_m, 0.45, 0.8)
    foot = np.clip(np.linspace(plan.height_m, 0, wall.shape[0], dtype=np.float32) / 5, 0, 1)
    drawing.pixels *= (0.84 + 0.16 * foot)[:, None, None]
    soft = cv2.GaussianBlur(drawing.pixels, (3, 3), 0.6)
    return opaque(np.asarray(soft, np.float32))


def _bays(rng: np.random.Generator, drawing: FacadeDrawing, plan: FacadePlan) -> None:
    bays = max(1, round(plan.width_m / plan.bay_m))
    bay = plan.width_m / bays
    frame: Color = (232, 230, 224) if rng.uniform() < 0.7 else (70, 66, 62)
    width, height = bay * rng.uniform(0.38, 0.48), plan.storey_m * rng.uniform(0.50, 0.58)
    door_bay, door_tone = int(rng.integers(bays)), SHOPS[rng.integers(len(SHOPS))]
    for storey in range(plan.storeys):
        bottom = storey * plan.storey_m + 0.95
        for column in range(bays):
            left = column * bay + (bay - width) / 2
            if storey == 0 and plan.shop:
                continue
            if storey == 0 and column == door_bay:
                drawing.door(column * bay + bay / 2 - 0.5, 1.0, door_tone)
            else:
                drawing.window(rng, left, bottom, width, height, frame)
    if plan.shop:
        for column in range(0, bays, 2):
            size = min(2, bays - column) * bay
            drawing.shop(rng, column * bay + 0.1, size - 0.2, SHOPS[rng.integers(len(SHOPS))])
    elif plan.storeys > 2:
        drawing.box(0, plan.storey_m + 0.2, plan.width_m, 0.16, (200, 194, 184))
        drawing.shade(0, plan.storey_m + 0.06, plan.width_m, 0.14, 0.75)


def _glass_bands(rng: np.random.Generator, drawing: FacadeDrawing, plan: FacadePlan) -> None:
    panes = max(2, round(plan.width_m / 1.5))
    pane = plan.width_m / panes
    for storey in range(plan.storeys):
        bottom = storey * plan.storey_m + (0.3 if storey == 0 else 0.9)
        height = plan.storey_m * (storey + 1) - 0.25 - bottom
        drawing.shade(0, bottom - 0.12, plan.width_m, 0.12, 0.7)
        for column in range(panes):
            drawing.glass(rng, column * pane, bottom, pane, height)
            drawing.box(column * pane - 0.05, bottom, 0.1, height, (88, 90, 94))
        drawing.shade(0, bottom + height - 0.3, plan.width_m, 0.3, 0.65)
        drawing.box(0, bottom + height * 0.62, plan.width_m, 0.06, (88, 90, 94))
