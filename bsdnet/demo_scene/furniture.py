"""What stands beside the street: trees, hedges, fences, lamps, signs, traffic lights and bins."""

import math
from dataclasses import dataclass
from enum import Enum

import numpy as np

from bsdnet.demo_scene.canvas import Color, Texture
from bsdnet.demo_scene.labels import Label
from bsdnet.demo_scene.painter import Painter, ShadowMap, rods
from bsdnet.demo_scene.view import NEAR_M, Points

STEEL: Color = (104.0, 108.0, 110.0)
WHITE: Color = (238.0, 238.0, 234.0)
BLACK: Color = (30.0, 31.0, 32.0)
RED: Color = (196.0, 28.0, 36.0)
BLUE: Color = (26.0, 74.0, 160.0)
GREEN: Color = (20.0, 96.0, 70.0)


def _rect(left: float, right: float, bottom: float, top: float, along: float) -> Points:
    """An upright rectangle across the street."""
    return np.array([[left, top, along], [right, top, along], [right, bottom, along], [left, bottom, along]])


def _disc(x: float, y: float, along: float, radius: float, corners: int = 20, turn: float = 0.0) -> Points:
    angle = np.linspace(0, 2 * math.pi, corners, endpoint=False) + turn
    return np.stack([x + radius * np.sin(angle), y + radius * np.cos(angle), np.full(corners, along)], axis=1)


@dataclass(frozen=True, kw_only=True)
class Tree:
    """A tree, always turned towards the camera."""

    lateral_m: float
    """Place across the street."""
    far_m: float
    """Place along the street."""
    height_m: float
    """Of the whole tree."""
    texture: Texture
    """With the trunk's foot in the middle of its lower edge."""
    sway: float = 0.0
    """How far the wind moves the top, in metres."""

    def draw(self, painter: Painter) -> None:
        """Paint it."""
        image = self.texture.image
        half = self.height_m * image.shape[1] / image.shape[0] / 2
        corners = _rect(self.lateral_m - half, self.lateral_m + half, 0.05, self.height_m, self.far_m)
        corners[:2, 0] += self.sway
        painter.quad(self.texture, corners, Label.TREE, 0.92 + 0.1 * painter.light.sun)

    def cast(self, painter: Painter, shadows: ShadowMap) -> None:
        """Throw the crown's and the trunk's shadow."""
        crown = _disc(self.lateral_m, self.height_m * 0.62, self.far_m, self.height_m * 0.33, 12)
        shadows.polygon(painter.light.cast(crown), painter.light.shadow)
        trunk = _rect(self.lateral_m - 0.15, self.lateral_m + 0.15, 0.0, self.height_m / 2, self.far_m)
        shadows.polygon(painter.light.cast(trunk), painter.light.shadow)


@dataclass(frozen=True, kw_only=True)
class Barrier:
    """A piece of fence or hedge along the street."""

    lateral_m: float
    """Place across the street."""
    near_m: float
    """Where it begins."""
    far_m: float
    """Where it ends."""
    height_m: float
    """From the ground."""
    texture: Texture
    """Of its face."""
    label: Label
    """FENCE or TREE."""
    thickness_m: float = 0.0
    """Of a hedge; a fence is thin."""

    def draw(self, painter: Painter) -> None:
        """Paint it."""
        x, near, far, top = self.lateral_m, self.near_m, self.far_m, self.height_m
        side = 1 if x > 0 else -1
        shade = painter.light.facing(-side)
        if self.thickness_m:
            outer = x + side * self.thickness_m
            end = _rect(min(x, outer), max(x, outer), 0.1, top, near)
            painter.quad(self.texture, end, self.label, shade * 0.8)
        corners = np.array([[x, 0.1, near], [x, 0.1, far], [x, top, far], [x, top, near]])
        painter.wall(self.texture, corners, (0.0, 1.0), self.label, shade)

    def cast(self, painter: Painter, shadows: ShadowMap) -> None:
        """Throw its shadow."""
        x, top = self.lateral_m, self.height_m
        face = np.array([[x, 0, self.near_m], [x, top, self.near_m], [x, top, self.far_m], [x, 0, self.far_m]])
        shadows.polygon(painter.light.cast(face), painter.light.shadow)


@dataclass(frozen=True, kw_only=True)
class Lamp:
    """A street lamp with an arm over the carriageway."""

    lateral_m: float
    """Place across the street."""
    far_m: float
    """Place along the street."""
    height_m: float = 7.5
    """Of the column."""

    def draw(self, painter: Painter) -> None:
        """Paint column, arm and head."""
        x, z, top = self.lateral_m, self.far_m, self.height_m
        inward = -1.0 if x > 0 else 1.0
        bends = np.array([[x, 0.1], [x, 1.1], [x, top - 0.5], [x + 0.35 * inward, top], [x + 1.7 * inward, top + 0.15]])
        joints = np.column_stack([np.repeat(bends, 2, axis=0)[1:-1], np.full(8, z)])
        camera = painter.view.to_camera(joints)
        if camera[0, 2] < NEAR_M:
            return
        px_per_m = painter.view.focal_px / camera[0, 2]
        radii = np.maximum(np.array([[0.13, 0.12], [0.075, 0.065], [0.06, 0.05], [0.05, 0.045]]) * px_per_m, 0.4)
        outlines = rods(painter.view.to_pixels(camera), radii)
        shades = np.array([0.72, 0.95, 0.95, 0.95])
        colors = painter.colors(float(camera[0, 2]), np.tile(STEEL, (4, 1)), shades)
        painter.canvas.paint(outlines, colors)
        painter.canvas.mark(outlines, Label.POLE)
        tip = x + 1.7 * inward
        head = np.array(
            [
                [tip - 0.4, top + 0.07, z],
                [tip + 0.4, top + 0.07, z],
                [tip + 0.3, top + 0.27, z],
                [tip - 0.3, top + 0.27, z],
            ]
        )
        painter.polygon(head, (150.0, 152.0, 152.0), Label.POLE, 0.9)
        glass = np.array(
            [[tip - 0.32, top + 0.07, z], [tip + 0.32, top + 0.07, z], [tip + 0.2, top, z], [tip - 0.2, top, z]]
        )
        painter.polygon(glass, (238.0, 234.0, 214.0), Label.POLE)

    def cast(self, painter: Painter, shadows: ShadowMap) -> None:
        """Throw the column's shadow."""
        column = _rect(self.lateral_m - 0.07, self.lateral_m + 0.07, 0.0, self.height_m, self.far_m)
        shadows.polygon(painter.light.cast(column), painter.light.shadow)


class SignKind(Enum):
    """Signs and lights on a post; the value is the post's height in metres."""

    SPEED = 2.9
    WARNING = 2.8
    PARKING = 2.7
    STOP = 2.75
    DIRECTIONS = 3.3
    TRAFFIC_LIGHT = 3.4


@dataclass(frozen=True, kw_only=True)
class Sign:
    """A post with a traffic sign or a traffic light that faces the camera."""

    lateral_m: float
    """Place across the street."""
    far_m: float
    """Place along the street."""
    kind: SignKind
    """What is on the post."""
    green: bool = True
    """State of a traffic light."""

    def draw(self, painter: Painter) -> None:
        """Paint the post and what it carries."""
        x, z, top = self.lateral_m, self.far_m, self.kind.value
        radius = 0.09 if self.kind is SignKind.TRAFFIC_LIGHT else 0.055
        painter.polygon(_rect(x - radius, x + radius, 0.1, top, z), STEEL, Label.POLE, 0.9)
        painter.polygon(_rect(x - radius, x - radius * 0.2, 0.1, top, z), STEEL, Label.POLE, 1.25)
        for outline, color in self._plates():
            painter.polygon(outline, color, Label.SIGN)

    def cast(self, painter: Painter, shadows: ShadowMap) -> None:
        """Throw the post's shadow."""
        post = _rect(self.lateral_m - 0.06, self.lateral_m + 0.06, 0.0, self.kind.value, self.far_m)
        shadows.polygon(painter.light.cast(post), painter.light.shadow)

    def _plates(self) -> list[tuple[Points, Color]]:
        """Outlines and colours, painted in this order."""
        x, z, y = self.lateral_m, self.far_m, self.kind.value - 0.1

        def disc(
            color: Color, radius: float, right: float = 0.0, up: float = 0.0, corners: int = 20
        ) -> tuple[Points, Color]:
            return _disc(x + right, y + up, z, radius, corners, math.pi / 8 if corners == 8 else 0.0), color

        def rect(color: Color, left: float, right: float, bottom: float, top: float) -> tuple[Points, Color]:
            return _rect(x + left, x + right, y + bottom, y + top, z), color

        match self.kind:
            case SignKind.SPEED:  # 30
                return [
                    disc(RED, 0.42), disc(WHITE, 0.31),
                    rect(BLACK, -0.20, -0.03, -0.15, 0.15), rect(WHITE, -0.20, -0.08, -0.1, 0.1),
                    rect(BLACK, -0.17, -0.03, -0.025, 0.025),
                    rect(BLACK, 0.03, 0.20, -0.15, 0.15), rect(WHITE, 0.08, 0.15, -0.1, 0.1),
                ]  # fmt: skip
            case SignKind.WARNING:
                return [
                    disc(RED, 0.56, corners=3), disc(WHITE, 0.38, up=-0.01, corners=3),
                    rect(BLACK, -0.035, 0.035, -0.05, 0.17), rect(BLACK, -0.035, 0.035, -0.14, -0.08),
                ]  # fmt: skip
            case SignKind.PARKING:
                return [
                    rect(WHITE, -0.34, 0.34, -0.36, 0.36), rect(BLUE, -0.31, 0.31, -0.33, 0.33),
                    rect(WHITE, -0.13, -0.04, -0.22, 0.22),
                    disc(WHITE, 0.13, 0.04, 0.09), disc(BLUE, 0.055, 0.03, 0.09),
                ]  # fmt: skip
            case SignKind.STOP:
                letters = [
                    rect(WHITE, -0.29 + 0.155 * letter, -0.18 + 0.155 * letter, -0.1, 0.1) for letter in range(4)
                ]
                return [disc(WHITE, 0.45, corners=8), disc(RED, 0.41, corners=8), *letters]
            case SignKind.DIRECTIONS:
                lines = [
                    rect(WHITE, -0.7, end, up, up + 0.14) for up, end in ((0.22, 0.25), (-0.08, 0.5), (-0.4, 0.05))
                ]
                return [rect(WHITE, -0.9, 0.9, -0.6, 0.55), rect(GREEN, -0.86, 0.86, -0.56, 0.51), *lines]
            case SignKind.TRAFFIC_LIGHT:
                top = disc((236.0, 40.0, 36.0) if not self.green else (54.0, 14.0, 14.0), 0.115, up=0.3)
                low = disc((60.0, 236.0, 120.0) if self.green else (14.0, 54.0, 28.0), 0.115, up=-0.3)
                return [rect(BLACK, -0.24, 0.24, -0.56, 0.56), top, disc((56.0, 42.0, 12.0), 0.115), low]


@dataclass(frozen=True, kw_only=True)
class Bin:
    """A wheeled refuse bin on the pavement: nothing that the classes name."""

    lateral_m: float
    """Place across the street."""
    far_m: float
    """Place along the street."""
    color: Color
    """Of the plastic."""

    def draw(self, painter: Painter) -> None:
        """Paint its two visible faces and the lid."""
        x, near, far = self.lateral_m, self.far_m - 0.35, self.far_m + 0.35
        inner = x - 0.29 if x > 0 else x + 0.29
        side = np.array([[inner, 0.12, near], [inner, 0.12, far], [inner, 1.05, far], [inner, 1.05, near]])
        painter.polygon(side, self.color, Label.VOID, 0.95)
        painter.polygon(_rect(x - 0.25, x + 0.25, 0.12, 1.05, near), self.color, Label.VOID, 0.72)
        lid = np.array([[x - 0.31, 1.05, near], [x + 0.31, 1.05, near], [x + 0.28, 1.17, far], [x - 0.28, 1.17, far]])
        painter.polygon(lid, self.color, Label.VOID, 1.2)

    def cast(self, painter: Painter, shadows: ShadowMap) -> None:
        """Throw its shadow."""
        shadows.polygon(
            painter.light.cast(_rect(self.lateral_m - 0.3, self.lateral_m + 0.3, 0.0, 1.1, self.far_m)),
            painter.light.shadow,
        )
