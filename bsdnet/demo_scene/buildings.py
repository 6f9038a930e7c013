"""Houses along the street."""

from dataclasses import dataclass

import numpy as np

from bsdnet.demo_scene.canvas import Color, Texture
from bsdnet.demo_scene.facades import END_M
from bsdnet.demo_scene.labels import Label
from bsdnet.demo_scene.painter import Painter, ShadowMap

SEGMENT_M = 6.0
"""Walls are drawn in pieces of at most this length, so that they follow the street's bend."""


@dataclass(frozen=True, kw_only=True)
class Building:
    """A house with its front along the street."""

    front_m: float
    """Lateral place of the front; negative on the left."""
    near_m: float
    """Where it begins along the street."""
    far_m: float
    """Where it ends."""
    height_m: float
    """Of the front, from the ground to the eaves."""
    front: Texture
    """Of the front."""
    end: Texture
    """Of the wall at its near end."""
    end_color: Color
    """Of the gable."""
    roof: Texture | None = None
    """Tiles of a pitched roof; None for a flat one."""
    awning: Texture | None = None
    """Stripes of an awning above the ground floor."""
    shows_end: bool = True
    """Whether the wall at its near end can be seen; a neighbour may hide it."""
    depth_m: float = END_M
    """From the front to the back."""

    ROOF_M = 3.9
    CORNICE_M = 0.4

    @property
    def _outward(self) -> int:
        return 1 if self.front_m > 0 else -1

    def draw(self, painter: Painter) -> None:
        """Paint what can be seen from the street."""
        if self.shows_end:
            self._draw_end(painter)
        shade = painter.light.facing(-self._outward)
        segment_m = SEGMENT_M if self.near_m < painter.view.position[2] + 60 else 2 * SEGMENT_M
        count = max(1, round((self.far_m - self.near_m) / segment_m))
        roof = self.roof if self._shows_roof(painter) else None
        edges = np.linspace(self.near_m, self.far_m, count + 1)
        for index in reversed(range(count)):
            near, far, columns = edges[index], edges[index + 1], (index / count, (index + 1) / count)
            corners = self._strip(self.front_m, 0.0, self.front_m, self.height_m, near, far)
            painter.wall(self.front, corners, columns, Label.BUILDING, shade)
            if roof is not None:
                eaves = self.front_m - 0.3 * self._outward
                ridge = self.front_m + self.depth_m / 2 * self._outward
                slope = self._strip(eaves, self.height_m - 0.15, ridge, self.height_m + self.ROOF_M, near, far)
                painter.wall(roof, slope, columns, Label.BUILDING, shade * 1.04)
            if self.awning is not None:
                edge = self.front_m - 1.15 * self._outward
                painter.wall(
                    self.awning, self._strip(edge, 2.45, self.front_m, 2.95, near, far), columns, Label.BUILDING, 0.66
                )
                painter.wall(
                    self.awning, self._strip(edge, 2.25, edge, 2.47, near, far), columns, Label.BUILDING, shade
                )
        if self.roof is not None:
            self._draw_chimney(painter)
        else:
            self._draw_cornice(painter)

    def _shows_roof(self, painter: Painter) -> bool:
        """Whether the camera is above the plane of the roof's street side."""
        slope = self.ROOF_M / (self.depth_m / 2)
        x, y = painter.view.position[:2].tolist()
        return bool(self.height_m - slope * abs(self.front_m - x) < y)

    def cast(self, painter: Painter, shadows: ShadowMap) -> None:
        """Throw the building's shadow on the ground."""
        if self._outward != painter.light.sun_side:
            return
        height = self.height_m + (self.ROOF_M if self.roof is not None else 0.0) * 0.5
        top = np.array([[self.front_m, height, self.near_m], [self.front_m, height, self.far_m]])
        foot = np.array([[self.front_m, 0.0, self.far_m], [self.front_m, 0.0, self.near_m]])
        shadows.polygon(np.concatenate([painter.light.cast(top), foot]), painter.light.shadow)

    @staticmethod
    def _strip(low_m: float, bottom_m: float, high_m: float, top_m: float, near: float, far: float) -> np.ndarray:
        return np.array([[low_m, bottom_m, near], [low_m, bottom_m, far], [high_m, top_m, far], [high_m, top_m, near]])

    def _draw_end(self, painter: Painter) -> None:
        back = self.front_m + self._outward * self.depth_m
        left, right = min(self.front_m, back), max(self.front_m, back)
        shade = painter.light.facing(0.0, -1.0) * 0.92
        z, top = self.near_m, self.height_m
        corners = np.array([[left, top, z], [right, top, z], [right, 0, z], [left, 0, z]])
        painter.quad(self.end, corners, Label.BUILDING, shade)
        if self.roof is not None:
            ridge = [(left + right) / 2, top + self.ROOF_M, z]
            painter.polygon(np.array([[left, top, z], [right, top, z], ridge]), self.end_color, Label.BUILDING, shade)

    def _draw_cornice(self, painter: Painter) -> None:
        edge = self.front_m - 0.35 * self._outward
        low, high = self.height_m - 0.1, self.height_m + self.CORNICE_M
        color, shade = (196.0, 190.0, 180.0), painter.light.facing(-self._outward)
        under = self._strip(self.front_m, low, edge, low, self.near_m, self.far_m)
        painter.polygon(under, color, Label.BUILDING, 0.5)
        face = self._strip(edge, low, edge, high, self.near_m, self.far_m)
        painter.polygon(face, color, Label.BUILDING, shade)
        back = self.front_m + self._outward * self.depth_m
        end = np.array(
            [[edge, low, self.near_m], [back, low, self.near_m], [back, high, self.near_m], [edge, high, self.near_m]]
        )
        painter.polygon(end, color, Label.BUILDING, shade * 0.85)

    def _draw_chimney(self, painter: Painter) -> None:
        center, base = self.front_m + self.depth_m / 2 * self._outward, self.height_m + self.ROOF_M - 0.8
        half, near, far, top = 0.55, self.near_m + 0.2, self.near_m + 1.0, self.height_m + self.ROOF_M + 0.9
        inner = center - half * self._outward
        painter.polygon(self._strip(inner, base, inner, top, near, far), self.end_color, Label.BUILDING, 0.95)
        end = np.array(
            [
                [center - half, base, near],
                [center + half, base, near],
                [center + half, top, near],
                [center - half, top, near],
            ]
        )
        painter.polygon(end, self.end_color, Label.BUILDING, 0.75)
        for pot in (-0.25, 0.25):
            x, z = center + pot, (near + far) / 2
            clay = np.array([[x - 0.12, top, z], [x + 0.12, top, z], [x + 0.1, top + 0.4, z], [x - 0.1, top + 0.4, z]])
            painter.polygon(clay, (168.0, 104.0, 76.0), Label.BUILDING, 0.9)
