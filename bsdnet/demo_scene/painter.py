"""Painting things of the street as the camera sees them, with light and haze."""

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from bsdnet.demo_scene.canvas import SUBPIXEL_BITS, Canvas, Color, Image, Texture, Tint, to_fixed
from bsdnet.demo_scene.view import HALF_ROAD_M, KERB_HEIGHT_M, NEAR_M, Points, View, clip_near


@dataclass(frozen=True, kw_only=True)
class Light:
    """The weather of a scene."""

    sun_side: int
    """1: the sun stands on the right and lights what faces right; -1: on the left."""
    sun: float
    """How bright the sun is against the sky, 0 (overcast) to 1."""
    haze: Color
    """Colour of the distance."""
    haze_m: float
    """Distance in metres at which two thirds of a colour are lost."""
    cloud_cover: float
    """Share of the sky under clouds, 0 to 1."""

    def facing(self, lateral: float, along: float = 0.0) -> float:
        """Brightness of a wall by the way that it faces: `(lateral, along)` is its outward unit normal."""
        return 0.93 + self.sun * (0.17 * lateral * self.sun_side - 0.10 * along)

    @property
    def shadow(self) -> int:
        """What is left of the light in the sun's shadow, 0 to 255."""
        return round(255 * (1 - 0.45 * self.sun))

    def cast(self, points: Points) -> Points:
        """Where points `(N, 3)` throw their shadows on the ground, `(N, 3)` metres."""
        length = np.minimum(points[:, 1], 14.0)
        lateral = points[:, 0] - 0.72 * self.sun_side * length
        up = np.where(np.abs(lateral) > HALF_ROAD_M, KERB_HEIGHT_M, 0.0)
        return np.stack([lateral, up, points[:, 2] + 0.35 * length], axis=1)


class Painter:
    """A canvas seen through a view: takes street coordinates in metres."""

    def __init__(self, canvas: Canvas, view: View, light: Light) -> None:
        """Tie the three together."""
        self.canvas = canvas
        self.view = view
        self.light = light

    def tint(self, depth_m: float, shade: float = 1.0) -> Tint:
        """Light and haze of something at that distance."""
        fog = 1 - math.exp(-max(depth_m - 8.0, 0.0) / self.light.haze_m)
        return Tint(shade=shade, fog=fog, haze=self.light.haze)

    def project(self, points: Points) -> tuple[Points, NDArray[np.float64]]:
        """Pixels `(N, 2)` and pixels per metre `(N,)` of points; those behind the camera get NaN."""
        camera = self.view.to_camera(points)
        camera[camera[:, 2] < NEAR_M] = np.nan
        return self.view.to_pixels(camera), self.view.focal_px / camera[:, 2]

    def polygon(self, points: Points, color: Color, label: int, shade: float = 1.0) -> None:
        """Fill a flat polygon `(N, 3)`."""
        camera = clip_near(self.view.to_camera(points))
        if len(camera) >= 3:
            tint = self.tint(float(camera[:, 2].mean()), shade)
            self.canvas.polygon(self.view.to_pixels(camera), tint.apply(color), label)

    def quad(self, texture: Texture, corners: Points, label: int, shade: float = 1.0) -> None:
        """Spread a texture over a quadrilateral `(4, 3)`: top left, top right, bottom right, bottom left."""
        camera = self.view.to_camera(corners)
        if camera[:, 2].min() >= NEAR_M:
            self._texture(texture, camera, (0.0, 1.0), (0.0, 1.0), label, self.tint(float(camera[:, 2].mean()), shade))

    def wall(self, texture: Texture, corners: Points, columns: tuple[float, float], label: int, shade: float) -> None:
        """Spread the given share of a texture's columns over a wall along the street, cut off at the camera.

        Args:
            texture: what to show.
            corners: `(4, 3)`: near bottom, far bottom, far top, near top; on the right the texture is seen mirrored.
            columns: the texture's columns at the near and at the far end, as shares of its width.
            label: class of the wall.
            shade: brightness.
        """
        camera = self.view.to_camera(corners)
        near, far = float(camera[[0, 3], 2].min()), float(camera[[1, 2], 2].min())
        if far <= NEAR_M * 2:
            return
        cut = max(0.0, (NEAR_M - near) / (far - near))
        camera[0] += cut * (camera[1] - camera[0])
        camera[3] += cut * (camera[2] - camera[3])
        start = columns[0] + cut * (columns[1] - columns[0])
        tint = self.tint(float(camera[:, 2].mean()), shade)
        self._texture(texture, camera[[3, 2, 1, 0]], (start, columns[1]), (0.0, 1.0), label, tint)

    def ground(self, texture: Texture, corners: Points, rows: tuple[float, float], label: int) -> None:
        """Spread the given share of a texture's rows over the ground, without haze.

        Args:
            texture: what to show.
            corners: `(4, 3)`: far left, far right, near right, near left as the texture has them.
            rows: the texture's rows at the far and at the near end, as shares of its height.
            label: class of the ground.
        """
        self._texture(texture, self.view.to_camera(corners), (0.0, 1.0), rows, label, Tint())

    def _texture(
        self,
        texture: Texture,
        camera: Points,
        columns: tuple[float, float],
        rows: tuple[float, float],
        label: int,
        tint: Tint,
    ) -> None:
        corners = self.view.to_pixels(camera)
        height, width = self.view.size
        if (corners.max(axis=0) < 0).any() or (corners.min(axis=0) > (width, height)).any():
            return
        top_left, top_right, bottom_right, bottom_left = corners.tolist()
        across = max(math.dist(top_left, top_right), math.dist(bottom_left, bottom_right), 1.0)
        down = max(math.dist(top_left, bottom_left), math.dist(top_right, bottom_right), 1.0)
        full_height, full_width = texture.image.shape[:2]
        image = texture.variant(
            (columns[1] - columns[0]) * full_width / across, (rows[1] - rows[0]) * full_height / down, tint
        )
        self.canvas.texture(corners, image[_share(rows, image.shape[0]), _share(columns, image.shape[1])], label)

    def colors(self, depth_m: float, colors: NDArray[np.float64], shades: NDArray[np.float64]) -> list[Color]:
        """Light and haze for many colours `(N, 3)` at one distance, each with its own brightness `(N,)`."""
        tint = self.tint(depth_m)
        mixed = colors * shades[:, None] * (1 - tint.fog) + np.array(tint.haze) * tint.fog
        reached: list[Color] = np.minimum(mixed, 255.0).tolist()
        return reached


def rods(ends: Points, radii: Points) -> NDArray[np.int32]:
    """Outlines of tapered rods with round ends.

    Args:
        ends: `(2 * N, 2)` pixels: where each rod begins and ends.
        radii: `(N, 2)` pixels, at the beginning and at the end.

    Returns:
        `(N, 12, 2)`, for `Canvas.polygons`.
    """
    start, end = ends[0::2], ends[1::2]
    direction = np.arctan2(end[:, 1] - start[:, 1], end[:, 0] - start[:, 0])
    angle = direction[:, None] + _HALF_TURN  # (N, 6)
    arc = np.stack([np.cos(angle), np.sin(angle)], axis=2)  # (N, 6, 2)
    outline = np.concatenate(
        [start[:, None] + arc * radii[:, :1, None], end[:, None] - arc * radii[:, 1:, None]], axis=1
    )
    return to_fixed(outline)


_HALF_TURN = np.linspace(0.5 * math.pi, 1.5 * math.pi, 6)


class ShadowMap:
    """The shadows on the ground, gathered first and laid over it at once, so that they do not add up."""

    def __init__(self, painter: Painter) -> None:
        """Start with light everywhere."""
        self._painter = painter
        height, width = painter.view.size
        self._top = min(max(int(painter.view.center_px[1]), 0), height - 1)
        self._mask = np.full((height - self._top, width), 255, np.uint8)

    def polygon(self, points: Points, strength: int) -> None:
        """Shade a polygon `(N, 3)` on the ground down to `strength`, 0 (black) to 255 (lit)."""
        view = self._painter.view
        camera = clip_near(view.to_camera(points))
        if len(camera) < 3:
            return
        pixels = view.to_pixels(camera) - (0, self._top)
        if np.abs(pixels).max() < 3e4:
            cv2.fillConvexPoly(self._mask, cv2.convexHull(to_fixed(pixels)), (strength,), cv2.LINE_AA, SUBPIXEL_BITS)

    def apply(self) -> None:
        """Lay the shadows over the picture, with edges that are a little soft."""
        softness = max(1, self._mask.shape[1] // 400) * 2 + 1
        soft: Image = np.asarray(cv2.blur(self._mask, (softness, softness // 2 | 1)), np.uint8)
        self._painter.canvas.darken(soft, self._top)


def _share(share: tuple[float, float], length: int) -> slice:
    start = min(max(math.floor(share[0] * length + 1e-6), 0), length - 1)
    return slice(start, max(start + 1, min(math.ceil(share[1] * length - 1e-6), length)))
