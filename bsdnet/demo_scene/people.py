"""Pedestrians and cyclists: jointed figures whose legs move."""

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from bsdnet.demo_scene.canvas import Color
from bsdnet.demo_scene.labels import Label
from bsdnet.demo_scene.painter import Painter, ShadowMap, rods
from bsdnet.demo_scene.view import HALF_ROAD_M, KERB_HEIGHT_M, NEAR_M

SKINS: tuple[Color, ...] = ((224, 184, 156), (196, 148, 116), (134, 92, 66), (92, 62, 46))
HAIRS: tuple[Color, ...] = ((40, 30, 26), (92, 62, 38), (160, 124, 72), (150, 146, 142), (26, 24, 26))
CLOTHES: tuple[Color, ...] = (
    (44, 50, 66), (126, 36, 42), (60, 84, 122), (168, 150, 122), (52, 78, 62), (34, 34, 38),
    (196, 190, 182), (176, 128, 52), (104, 84, 116),
)  # fmt: skip
TROUSERS: tuple[Color, ...] = ((40, 46, 64), (56, 52, 50), (30, 30, 34), (104, 96, 84), (66, 82, 108))

Joint = tuple[float, float, float]
"""Metres to the right, up and ahead of the figure's foot."""


@dataclass(frozen=True, kw_only=True)
class Looks:
    """How a person is built and dressed."""

    skin: Color
    hair: Color
    coat: Color
    trousers: Color
    height: float = 1.0
    """Against the usual 1.75 m."""
    bag: Color | None = None
    """Colour of a shoulder bag or rucksack."""

    @classmethod
    def of(cls, rng: np.random.Generator) -> "Looks":
        """Somebody."""
        return cls(
            skin=SKINS[rng.integers(len(SKINS))],
            hair=HAIRS[rng.integers(len(HAIRS))],
            coat=CLOTHES[rng.integers(len(CLOTHES))],
            trousers=TROUSERS[rng.integers(len(TROUSERS))],
            height=float(rng.uniform(0.88, 1.06)),
            bag=CLOTHES[rng.integers(len(CLOTHES))] if rng.uniform() < 0.4 else None,
        )


class _Figure:
    """Rods between joints, painted from the farthest to the nearest."""

    def __init__(self) -> None:
        self._joints: list[Joint] = []
        self._rods: list[tuple[tuple[float, float], Color, float]] = []

    def rod(self, start: Joint, end: Joint, radii: tuple[float, float], color: Color, lit: float = 1.0) -> None:
        """Add a tapered rod; `lit` is its brightness."""
        self._rods.append((radii, color, lit))
        self._joints += [start, end]

    def draw(self, painter: Painter, place: NDArray[np.float64], turn: float, scale: float, label: Label) -> None:
        """Paint the figure at `place`, turned by `turn` radians to the left of the camera's way."""
        joints = np.array(self._joints) * scale
        cosine, sine = math.cos(turn), math.sin(turn)
        placed = np.stack(
            [joints[:, 0] * cosine - joints[:, 2] * sine, joints[:, 1], joints[:, 0] * sine + joints[:, 2] * cosine],
            axis=1,
        )
        camera = painter.view.to_camera(placed + place)
        if (
            camera[:, 2].min() < NEAR_M
            or abs(camera[0, 0] / camera[0, 2]) * painter.view.focal_px > painter.view.size[1]
        ):
            return
        pixels = painter.view.to_pixels(camera)
        radii, tones, lit = (np.array(part) for part in zip(*self._rods, strict=True))
        size = scale * painter.view.focal_px / camera[0::2, 2]
        radii = np.maximum(radii * size[:, None], 0.35)
        order = np.argsort(-(camera[0::2, 2] + camera[1::2, 2]), kind="stable")
        depth = float(camera[:, 2].mean())
        outlines, colors = rods(pixels, radii), painter.colors(depth, tones, 0.8 * lit)
        painter.canvas.mark(outlines, label)
        if radii.max() > 2.5:  # near enough for a lit side: a thinner rod on each one, towards the sun
            shift = np.repeat(radii[:, :1], 2, axis=0) * (0.28 * painter.light.sun_side, -0.15)
            bright = rods(pixels + shift, radii * 0.62)
            bright_colors = painter.colors(depth, tones, 1.02 * lit)
            for rod in order:
                painter.canvas.paint((outlines[rod], bright[rod]), (colors[rod], bright_colors[rod]))
        else:
            painter.canvas.paint(outlines[order], [colors[rod] for rod in order])


def _cast_person(painter: Painter, shadows: ShadowMap, lateral_m: float, along_m: float, tall_m: float) -> None:
    x = np.array([-0.2, 0.2, 0.14, -0.14])
    outline = np.stack([lateral_m + x, np.array([0.0, 0.0, tall_m, tall_m]), np.full(4, along_m)], axis=1)
    shadows.polygon(painter.light.cast(outline), painter.light.shadow)
    angle = np.linspace(0, 2 * math.pi, 10, endpoint=False)
    ground_m = KERB_HEIGHT_M if abs(lateral_m) > HALF_ROAD_M else 0.0
    spot = np.stack([lateral_m + 0.3 * np.cos(angle), np.full(10, ground_m), along_m + 0.35 * np.sin(angle)], axis=1)
    shadows.polygon(spot, min(painter.light.shadow, 150))


@dataclass(frozen=True, kw_only=True)
class Pedestrian:
    """Somebody on foot."""

    lateral_m: float
    """Place across the street."""
    far_m: float
    """Place along the street."""
    turn: float
    """Where they face: 0 along the camera's way, pi towards it, radians."""
    stride: float
    """Phase of the step in radians; a full turn is two steps."""
    looks: Looks
    """Build and clothes."""
    walking: bool = True
    """Whether the legs swing."""

    def draw(self, painter: Painter) -> None:
        """Paint the figure."""
        figure, swing = _Figure(), 0.44 if self.walking else 0.05
        bob = 0.02 * math.cos(2 * self.stride) if self.walking else 0.0
        hip = 0.92 + bob
        for side in (-1, 1):
            phase = self.stride + (0.0 if side < 0 else math.pi)
            thigh = swing * math.sin(phase)
            shin = thigh - (0.75 * max(0.0, math.cos(phase + 0.5)) * swing / 0.44)
            joint: Joint = (0.09 * side, hip - 0.45 * math.cos(thigh), 0.45 * math.sin(thigh))
            ankle: Joint = (0.09 * side, joint[1] - 0.43 * math.cos(shin), joint[2] + 0.43 * math.sin(shin))
            figure.rod((0.09 * side, hip, 0.0), joint, (0.095, 0.07), self.looks.trousers)
            figure.rod(joint, ankle, (0.068, 0.05), self.looks.trousers, 0.92)
            figure.rod(ankle, (ankle[0], max(ankle[1] - 0.03, 0.03), ankle[2] + 0.16), (0.05, 0.04), (34.0, 30.0, 30.0))
            arm = -0.8 * thigh
            elbow: Joint = (0.24 * side, 1.17 + bob, 0.26 * math.sin(arm))
            hand: Joint = (0.25 * side, 0.93 + bob, elbow[2] + 0.24 * math.sin(arm + 0.35))
            figure.rod((0.2 * side, 1.42 + bob, 0.0), elbow, (0.062, 0.05), self.looks.coat, 0.9)
            figure.rod(elbow, hand, (0.05, 0.042), self.looks.coat, 0.9)
            figure.rod(hand, (hand[0], hand[1] - 0.07, hand[2]), (0.04, 0.035), self.looks.skin)
            figure.rod((0.1 * side, 0.9 + bob, 0.0), (0.11 * side, 1.38 + bob, 0.01), (0.115, 0.115), self.looks.coat)
        figure.rod((0.0, 0.92 + bob, 0.0), (0.0, 1.4 + bob, 0.0), (0.13, 0.12), self.looks.coat)
        if self.looks.bag is not None:
            figure.rod((0.0, 1.12 + bob, -0.15), (0.0, 1.36 + bob, -0.15), (0.14, 0.13), self.looks.bag)
        figure.rod((0.0, 1.44 + bob, 0.01), (0.0, 1.55 + bob, 0.02), (0.055, 0.06), self.looks.skin, 0.9)
        figure.rod((0.0, 1.56 + bob, 0.04), (0.0, 1.63 + bob, 0.045), (0.07, 0.08), self.looks.skin)
        figure.rod((0.0, 1.61 + bob, -0.03), (0.0, 1.67 + bob, 0.01), (0.095, 0.102), self.looks.hair)
        figure.draw(painter, self._place, self.turn, self.looks.height, Label.PEDESTRIAN)

    def cast(self, painter: Painter, shadows: ShadowMap) -> None:
        """Throw the shadow."""
        _cast_person(painter, shadows, self.lateral_m, self.far_m, 1.7 * self.looks.height)

    @property
    def _place(self) -> NDArray[np.float64]:
        return np.array([self.lateral_m, KERB_HEIGHT_M, self.far_m])


@dataclass(frozen=True, kw_only=True)
class Cyclist:
    """Somebody on a bicycle."""

    lateral_m: float
    """Place across the street."""
    far_m: float
    """Place along the street."""
    heading: int
    """1: along the camera's way; -1: towards it."""
    crank: float
    """Angle of the pedals in radians."""
    looks: Looks
    """Build and clothes."""
    frame: Color = (150.0, 34.0, 40.0)
    """Colour of the bicycle."""

    WHEEL_M = 0.34

    def draw(self, painter: Painter) -> None:
        """Paint the bicycle and its rider."""
        figure = _Figure()
        self._add_bicycle(figure)
        self._add_rider(figure)
        place = np.array([self.lateral_m, 0.0, self.far_m])
        figure.draw(painter, place, 0.0 if self.heading > 0 else math.pi, 1.0, Label.BICYCLIST)

    def cast(self, painter: Painter, shadows: ShadowMap) -> None:
        """Throw the shadow."""
        _cast_person(painter, shadows, self.lateral_m, self.far_m, 1.75)
        strip = np.array([[-0.14, 0, -0.85], [0.14, 0, -0.85], [0.14, 0, 0.85], [-0.14, 0, 0.85]])
        shadows.polygon(np.add(strip, (self.lateral_m, 0.01, self.far_m)), min(painter.light.shadow, 140))

    def _add_bicycle(self, figure: _Figure) -> None:
        dark: Color = (30.0, 30.0, 32.0)
        angles = np.linspace(0, 2 * math.pi, 12)
        for axle in (-0.52, 0.52):
            rim = [(0.0, self.WHEEL_M * (1 + math.sin(a)), axle + self.WHEEL_M * math.cos(a)) for a in angles]
            for start, end in pairwise(rim):
                figure.rod(start, end, (0.026, 0.026), dark)
        saddle, crank, head = (0.0, 0.92, -0.22), (0.0, 0.32, -0.02), (0.0, 0.86, 0.40)
        for start, end in ((saddle, crank), (crank, head), ((0.0, 0.82, -0.19), head), (crank, (0.0, 0.34, -0.52)),
                           ((0.0, 0.34, -0.52), (0.0, 0.8, -0.18)), (head, (0.0, 0.34, 0.52))):  # fmt: skip
            figure.rod(start, end, (0.022, 0.022), self.frame)
        figure.rod((0.0, 0.95, -0.3), (0.0, 0.95, -0.12), (0.06, 0.03), dark)
        figure.rod((-0.26, 1.0, 0.42), (0.26, 1.0, 0.42), (0.018, 0.018), dark)
        figure.rod((0.0, 0.86, 0.4), (0.0, 1.0, 0.42), (0.02, 0.02), dark)
        if self.heading > 0:
            figure.rod((0.0, 0.74, -0.3), (0.0, 0.78, -0.3), (0.035, 0.035), (230.0, 30.0, 30.0), 1.2)

    def _add_rider(self, figure: _Figure) -> None:
        hip_y, hip_z = 1.0, -0.22
        for side in (-1, 1):
            angle = self.crank + (0.0 if side < 0 else math.pi)
            foot_y, foot_z = 0.36 + 0.17 * math.sin(angle), -0.02 + 0.17 * math.cos(angle)
            down, ahead = hip_y - foot_y, foot_z - hip_z
            reach = min(math.hypot(down, ahead), 0.87)
            bend = math.acos(min(1.0, reach / 0.88)) + math.atan2(ahead, down)
            knee: Joint = (0.1 * side, hip_y - 0.44 * math.cos(bend), hip_z + 0.44 * math.sin(bend))
            foot: Joint = (0.1 * side, foot_y, foot_z)
            figure.rod((0.09 * side, hip_y, hip_z), knee, (0.095, 0.07), self.looks.trousers)
            figure.rod(knee, foot, (0.066, 0.048), self.looks.trousers, 0.92)
            figure.rod(foot, (foot[0], foot_y - 0.02, foot_z + 0.15), (0.045, 0.038), (40.0, 38.0, 38.0))
            elbow: Joint = (0.25 * side, 1.2, 0.14)
            figure.rod((0.18 * side, 1.44, 0.06), elbow, (0.06, 0.05), self.looks.coat, 0.9)
            figure.rod(elbow, (0.22 * side, 1.02, 0.4), (0.048, 0.04), self.looks.coat, 0.9)
            figure.rod((0.08 * side, 1.0, hip_z), (0.1 * side, 1.42, 0.04), (0.125, 0.115), self.looks.coat)
        figure.rod((0.0, 1.0, hip_z), (0.0, 1.44, 0.05), (0.14, 0.12), self.looks.coat)
        if self.looks.bag is not None:
            figure.rod((0.0, 1.2, -0.28), (0.0, 1.44, -0.14), (0.13, 0.12), self.looks.bag)
        figure.rod((0.0, 1.5, 0.09), (0.0, 1.58, 0.12), (0.055, 0.06), self.looks.skin, 0.9)
        figure.rod((0.0, 1.62, 0.14), (0.0, 1.69, 0.13), (0.085, 0.09), self.looks.skin)
        figure.rod((0.0, 1.7, 0.07), (0.0, 1.73, 0.16), (0.105, 0.1), (226.0, 226.0, 220.0))
