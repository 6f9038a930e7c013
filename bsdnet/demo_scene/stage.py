"""Everything of one scene put together, and the camera's own marks: vignette and grain."""

import math
from itertools import pairwise

import cv2
import numpy as np
from numpy.typing import NDArray

from bsdnet.demo_scene.buildings import Building
from bsdnet.demo_scene.canvas import Canvas, Color, Image
from bsdnet.demo_scene.furniture import Tree
from bsdnet.demo_scene.labels import Label
from bsdnet.demo_scene.materials import noise, sky
from bsdnet.demo_scene.painter import Light, Painter, ShadowMap
from bsdnet.demo_scene.props import (
    GROUND_PERIOD_M,
    GROUND_SPAN_M,
    VERGE_M,
    Props,
)
from bsdnet.demo_scene.street import Street, Thing
from bsdnet.demo_scene.traffic import Ego, Traffic
from bsdnet.demo_scene.vehicles import Vehicle
from bsdnet.demo_scene.view import HALF_ROAD_M, KERB_HEIGHT_M, PAVEMENT_M, Course, View

SIGHT_M = 230.0
"""What is farther is not drawn."""
VEHICLE_SIGHT_M = 150.0
"""Nor are vehicles farther than this."""
SMALL_SIGHT_M = 105.0
"""Nor are small things farther than this."""
SHADOW_SIGHT_M = 65.0
"""Nor shadows."""


class Stage:
    """Draws the frames of one scene."""

    def __init__(self, size: tuple[int, int], seed: int) -> None:
        """Build what all frames share.

        Args:
            size: height and width in pixels.
            seed: of the street.
        """
        rng = np.random.default_rng([seed, 0])
        self._size = size
        self._light = _weather(rng)
        self._course = Course(
            waves=(
                (rng.uniform(5, 8), 310.0, rng.uniform(0, 6.28)),
                (rng.uniform(1.5, 2.6), 150.0, rng.uniform(0, 6.28)),
            )
        )
        px_per_m = float(np.clip(48 * size[1] / 1280, 12, 80))
        self._props = Props.build(seed, px_per_m)
        self._ego = Ego(seed)
        self._street = Street(seed, self._props)
        self._traffic = Traffic(seed, self._ego)
        self._backdrop = Backdrop(rng, size, self._light)
        self._lens = Lens(rng, size)

    def shoot(self, index: int, time_s: float) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Draw the frame at a time: RGB `(H, W, 3)` and labels `(H, W)`, both uint8."""
        position = self._ego.position(time_s)
        view = View(self._course, self._size, position, self._ego.pitch(time_s))
        canvas = Canvas(self._size, Label.SKY)
        painter = Painter(canvas, view, self._light)
        things = self._things(time_s, position[2])
        self._backdrop.draw(canvas, view)
        self._draw_ground(painter)
        shadows = ShadowMap(painter)
        for thing in things:
            if thing.far_m < position[2] + SHADOW_SIGHT_M:
                thing.cast(painter, shadows)
        shadows.apply()
        self._backdrop.draw_haze(canvas, view)
        for thing in things:
            thing.draw(painter)
        return self._lens.expose(canvas.picture, index), canvas.labels

    def _things(self, time_s: float, here_m: float) -> list[Thing]:
        """What may be in sight, the farthest first."""
        things = [
            *self._street.between(here_m, here_m + SIGHT_M),
            *self._traffic.between(time_s, here_m, here_m + VEHICLE_SIGHT_M),
        ]
        seen = [thing for thing in things if here_m < thing.far_m + 3 < here_m + _sight_m(thing)]
        return sorted(seen, key=lambda thing: -thing.far_m)

    def _draw_ground(self, painter: Painter) -> None:
        view = painter.view
        here = float(view.position[2])
        first = 0.75 * view.focal_px * view.position[1] / (self._size[0] - view.center_px[1])
        edges = [max(first, 0.9)]
        while edges[-1] < SIGHT_M:
            edges.append(edges[-1] + min(edges[-1] * 0.7, GROUND_SPAN_M - 2))
        outer = HALF_ROAD_M + PAVEMENT_M
        for near, far in reversed(list(pairwise(edges))):
            start = (here + near) % GROUND_PERIOD_M
            whole = GROUND_PERIOD_M + GROUND_SPAN_M
            rows = 1 - (start + far - near) / whole, 1 - start / whole
            for side in (-1, 1):
                for texture, inner_x, inner_y, outer_x, reach, label in (
                    (self._props.verge, outer, KERB_HEIGHT_M, outer + VERGE_M, 70, Label.TREE),
                    (self._props.pavement, HALF_ROAD_M, KERB_HEIGHT_M, outer, SIGHT_M, Label.PAVEMENT),
                    (self._props.kerb, HALF_ROAD_M, 0.0, HALF_ROAD_M, 100, Label.PAVEMENT),
                ):
                    if near > reach:
                        continue
                    corners = np.array([
                        [side * inner_x, inner_y, here + far], [side * outer_x, KERB_HEIGHT_M, here + far],
                        [side * outer_x, KERB_HEIGHT_M, here + near], [side * inner_x, inner_y, here + near],
                    ])  # fmt: skip
                    painter.ground(texture, corners, rows, label)
            road = np.array([[-HALF_ROAD_M, 0, here + far], [HALF_ROAD_M, 0, here + far],
                             [HALF_ROAD_M, 0, here + near], [-HALF_ROAD_M, 0, here + near]])  # fmt: skip
            painter.ground(self._props.road, road, rows, Label.ROAD)


def _sight_m(thing: Thing) -> float:
    """How far away a thing is still drawn."""
    if isinstance(thing, Building | Tree):
        return SIGHT_M
    return VEHICLE_SIGHT_M if isinstance(thing, Vehicle) else SMALL_SIGHT_M


def _weather(rng: np.random.Generator) -> Light:
    sun = float(rng.uniform(0.45, 1.0))
    haze = np.array([196, 206, 218]) + rng.uniform(-8, 8)
    return Light(
        sun_side=int(rng.choice([-1, 1])), sun=sun, haze=(float(haze[0]), float(haze[1]), float(haze[2])),
        haze_m=float(rng.uniform(210, 300)), cloud_cover=float(rng.uniform(0.35, 0.6)) + 0.25 * (1 - sun),
    )  # fmt: skip


class Backdrop:
    """What is too far away to come nearer: sky, distant roofs and woods, and the haze over the ground."""

    def __init__(self, rng: np.random.Generator, size: tuple[int, int], light: Light) -> None:
        """Draw the panorama.

        Args:
            rng: source of chance.
            size: height and width of the picture in pixels.
            light: the weather.
        """
        height, width = size
        self._focal_px = 0.9 * max(width, height * 4 / 3)
        self._margin = math.ceil(0.35 * self._focal_px)
        panorama = width + 2 * self._margin
        self._horizon = math.ceil(0.5 * height) + 2
        self._sky = sky(rng, (self._horizon, panorama), self._focal_px, light.cloud_cover, light.haze)
        unit = self._focal_px / SIGHT_M
        self._roofs = _skyline(rng, (math.ceil(17 * unit), panorama), unit, light.haze)
        self._woods = _woods(rng, (math.ceil(11 * unit), panorama), light.haze)
        self._ground: Color = (118.0, 132.0, 96.0)
        below = math.ceil(0.6 * height)  # rows from the horizon down, with room for the camera's nodding
        depth = self._focal_px * Ego.CAMERA_HEIGHT_M / np.arange(0.5, below, dtype=np.float32)
        fog = 1 - np.exp(-np.maximum(depth - 8, 0) / light.haze_m)
        rows = fog[:, None, None] * np.array([*light.haze, 0], np.float32)
        self._haze = np.ascontiguousarray(np.broadcast_to(rows, (below, width, 4)).astype(np.uint8))
        kept = np.broadcast_to(255 * (1 - fog[:, None, None]), (below, width, 4))
        self._kept = np.ascontiguousarray(kept.astype(np.uint8))

    def draw(self, canvas: Canvas, view: View) -> None:
        """Fill the whole canvas: sky above the horizon, plain ground below."""
        height, width = canvas.labels.shape
        horizon = float(view.center_px[1])
        left = self._margin + view.yaw * self._focal_px
        shift = np.array([[1, 0, -left], [0, 1, horizon - self._horizon]], np.float32)
        rows = min(height, math.ceil(horizon) + 1)
        cv2.warpAffine(self._sky, shift, (width, rows), canvas.picture[:rows], borderMode=cv2.BORDER_REPLICATE)
        canvas.picture[rows:] = (*self._ground, 255)
        canvas.labels[rows:] = Label.TREE
        for strip, label in ((self._roofs, Label.BUILDING), (self._woods, Label.TREE)):
            bottom = horizon + self._focal_px * Ego.CAMERA_HEIGHT_M / SIGHT_M + 1
            top = bottom - strip.shape[0]
            right = strip.shape[1] - left
            corners = np.array([[-left, top], [right, top], [right, bottom], [-left, bottom]])
            canvas.texture(corners, strip, label)

    def draw_haze(self, canvas: Canvas, view: View) -> None:
        """Lay the haze over the ground, row by row as the distance has it."""
        first = min(max(math.ceil(view.center_px[1]), 0), canvas.labels.shape[0])
        ground = canvas.picture[first:]
        cv2.multiply(ground, self._kept[: len(ground)], dst=ground, scale=1 / 255)
        cv2.add(ground, self._haze[: len(ground)], dst=ground)


def _skyline(rng: np.random.Generator, shape: tuple[int, int], unit: float, haze: Color) -> Image:
    """Distant houses and towers: RGBA `(h, w, 4)`."""
    image = np.zeros((*shape, 4), np.uint8)
    at = 0.0
    while at < shape[1]:
        width, high = rng.uniform(5, 14) * unit, rng.uniform(0.35, 0.75) * shape[0]
        if rng.uniform() < 0.12:
            width, high = 5 * unit, shape[0]
        tone = rng.uniform(0.16, 0.3)
        color = np.array(haze) * (1 - tone) + np.array([120, 96, 84]) * tone
        box = np.rint(np.array([[at, shape[0] - high], [at + width, shape[0]]]) * 16).astype(np.int32)
        outline = np.array(
            [[box[0, 0], box[0, 1]], [box[1, 0], box[0, 1]], [box[1, 0], box[1, 1]], [box[0, 0], box[1, 1]]]
        )
        cv2.fillPoly(image, [outline], (*color, 255), cv2.LINE_AA, 4)
        at += width * rng.uniform(0.8, 1.3)
    return image


def _woods(rng: np.random.Generator, shape: tuple[int, int], haze: Color) -> Image:
    """Distant trees: RGBA `(h, w, 4)`."""
    height, width = shape
    crest = 0.55 + 0.25 * noise(rng, (8, width), (1, 9), 4)[0] + 0.12 * noise(rng, (8, width), (1, 60), 2)[0]
    rows = np.arange(height, 0, -1, dtype=np.float32)[:, None] / height
    alpha = np.clip((crest[None] - rows) * height + 0.5, 0, 1)
    tone = np.clip(0.36 + 0.22 * noise(rng, shape, (4, 120), 3) - 0.1 * rows, 0.2, 0.6)[:, :, None]
    color = np.array(haze, np.float32) * (1 - tone) + np.array([70, 92, 60], np.float32) * tone
    return np.asarray(np.dstack([color, np.full(shape, 255.0, np.float32)]) * alpha[:, :, None], np.uint8)


class Lens:
    """Darker corners, sensor noise and the camera's contrast curve."""

    def __init__(self, rng: np.random.Generator, size: tuple[int, int]) -> None:
        """Draw both once; the noise is larger than the picture and moved from frame to frame."""
        height, width = size
        y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j].astype(np.float32)
        vignette = 255 * (1 - 0.20 * ((x * x + y * y) / 2) ** 1.4)
        self._vignette = np.ascontiguousarray(np.repeat(vignette[:, :, None], 4, axis=2).astype(np.uint8))
        tone = np.arange(256) / 255
        self._curve = np.clip(255 * 1.06 * (tone + 0.11 * tone * (1 - tone) * (2 * tone - 0.7)), 0, 255).astype(
            np.uint8
        )
        self._slack = 64
        shape = height + self._slack, width + self._slack, 3
        grain = (248 + 2.6 * rng.standard_normal(shape, np.float32)).clip(236, 255)
        self._grain = np.dstack([grain, np.full(shape[:2], 255, np.float32)]).astype(np.uint8)

    def expose(self, picture: Image, index: int) -> NDArray[np.uint8]:
        """Turn the canvas's picture `(H, W, 4)` into the frame's RGB `(H, W, 3)`."""
        height, width = picture.shape[:2]
        top, left = index * 37 % self._slack, index * 23 % self._slack
        cv2.multiply(picture, self._grain[top : top + height, left : left + width], dst=picture, scale=1 / 251)
        cv2.multiply(picture, self._vignette, dst=picture, scale=1 / 255)
        return np.asarray(cv2.LUT(cv2.cvtColor(picture, cv2.COLOR_RGBA2RGB), self._curve), np.uint8)
