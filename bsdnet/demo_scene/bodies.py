"""The bodies of cars and vans: flat faces with windows, lights, wheels and plates."""

import math
from dataclasses import dataclass
from enum import Enum
from functools import cache

import numpy as np
from numpy.typing import NDArray

from bsdnet.demo_scene.canvas import Color
from bsdnet.demo_scene.mesh import PAINT, Mesh, MeshBuilder, Vertex

PAINTS: tuple[Color, ...] = (
    (188, 190, 194), (36, 38, 42), (222, 224, 226), (96, 102, 110), (128, 22, 28), (28, 54, 108), (62, 84, 72),
    (168, 160, 144), (46, 92, 140),
)  # fmt: skip
"""Colours of cars."""
GLASS: Color = (40.0, 47.0, 55.0)
GLASS_SKY: Color = (112.0, 128.0, 142.0)
RUBBER: Color = (27.0, 27.0, 29.0)


@dataclass(frozen=True, kw_only=True)
class BodyShape:
    """Measures of a car's body in metres; `from the front` and `from the rear` are along the car."""

    length_m: float
    width_m: float
    height_m: float
    belt_m: float
    """Height of the windows' lower edge."""
    nose_m: float
    """Height of the bonnet's front edge."""
    screen_base_m: float
    """Windscreen's lower edge, from the front."""
    roof_front_m: float
    """Windscreen's upper edge, from the front."""
    roof_rear_m: float
    """Rear window's upper edge, from the rear."""
    boot_m: float
    """Rear window's lower edge, from the rear."""
    side_windows: int = 2
    """Panes on a side; a van has one."""

    def cabin_point(self, along: float, up: float) -> Vertex:
        """A point of the cabin's right side: along 0 (rear) to 1 (front), up 0 (belt) to 1 (roof)."""
        half, lean = self.width_m / 2, 0.07 if self.side_windows == 1 else 0.2
        rear = -self.length_m / 2 + self.boot_m + up * (self.roof_rear_m - self.boot_m)
        front = self.length_m / 2 - self.screen_base_m + up * (self.screen_base_m - self.roof_front_m)
        height = self.belt_m + up * (self.height_m - 0.04 - self.belt_m)
        return half - 0.05 - up * lean, height, rear + along * (front - rear)

    def screen_point(self, ahead: bool, aside: float, up: float) -> Vertex:
        """A point of the windscreen, or of the rear window: aside -1 (left) to 1, up 0 to 1."""
        x, y, z = self.cabin_point(1.0 if ahead else 0.0, up)
        return x * aside, y, z


class VehicleKind(Enum):
    """The kinds of cars there are."""

    HATCHBACK = BodyShape(
        length_m=4.05, width_m=1.78, height_m=1.48, belt_m=0.94, nose_m=0.74,
        screen_base_m=1.05, roof_front_m=1.75, roof_rear_m=0.42, boot_m=0.06,
    )  # fmt: skip
    SALOON = BodyShape(
        length_m=4.65, width_m=1.82, height_m=1.44, belt_m=0.93, nose_m=0.72,
        screen_base_m=1.3, roof_front_m=2.05, roof_rear_m=1.2, boot_m=0.55,
    )  # fmt: skip
    SUV = BodyShape(
        length_m=4.5, width_m=1.88, height_m=1.68, belt_m=1.06, nose_m=0.9,
        screen_base_m=1.15, roof_front_m=1.75, roof_rear_m=0.3, boot_m=0.06,
    )  # fmt: skip
    VAN = BodyShape(
        length_m=5.2, width_m=1.98, height_m=2.2, belt_m=1.2, nose_m=0.98,
        screen_base_m=0.85, roof_front_m=1.5, roof_rear_m=0.12, boot_m=0.04, side_windows=1,
    )  # fmt: skip


@cache
def vehicle_mesh(kind: VehicleKind, braking: bool) -> Mesh:
    """Build the mesh of a kind of car."""
    shape = kind.value
    builder = MeshBuilder((0.0, shape.belt_m * 0.7, 0.0))
    _add_decks(builder, shape)
    _add_sides(builder, shape)
    _add_front(builder, shape)
    _add_rear(builder, shape, braking)
    _add_cabin(builder, shape)
    _add_wheels(builder, shape)
    return builder.build()


def _add_decks(builder: MeshBuilder, shape: BodyShape) -> None:
    half, front, rear = shape.width_m / 2, shape.length_m / 2, -shape.length_m / 2
    base = front - shape.screen_base_m
    bonnet = [
        (half - 0.26, shape.nose_m, front),
        (half, shape.nose_m + 0.03, front - 0.45),
        (half - 0.06, shape.belt_m, base),
    ]
    builder.face(bonnet + [(-x, y, z) for x, y, z in reversed(bonnet)], PAINT, 1.08)
    if shape.boot_m > 0.2:
        deck = [(half - 0.2, shape.belt_m, rear), (half - 0.04, shape.belt_m, rear + shape.boot_m)]
        builder.face(deck + [(-x, y, z) for x, y, z in reversed(deck)], PAINT, 1.06)


def _add_sides(builder: MeshBuilder, shape: BodyShape) -> None:
    half, front, rear = shape.width_m / 2, shape.length_m / 2, -shape.length_m / 2
    base, start, end, belt = front - shape.screen_base_m, front - 0.45, rear + 0.3, shape.belt_m
    crease = 0.62 * belt
    builder.pair([(half, 0.24, end), (half, 0.24, start), (half, crease, start), (half, crease, end)], PAINT, 0.80)
    upper = [
        (half, crease, end),
        (half, crease, start),
        (half, shape.nose_m + 0.03, start),
        (half - 0.05, belt, base),
        (half - 0.05, belt, end),
    ]
    builder.pair(upper, PAINT, 0.98)
    builder.pair(
        [(half, belt - 0.13, end), (half, belt - 0.13, base), (half, belt - 0.07, base), (half, belt - 0.07, end)],
        PAINT,
        1.18,
        True,
    )
    builder.pair(
        [(half, 0.24, end), (half, 0.24, start), (half, 0.34, start), (half, 0.34, end)], (44.0, 44.0, 46.0), 1.0
    )
    for at in (base - 0.12, base - 1.12):
        builder.pair(
            [(half, 0.36, at), (half, 0.36, at + 0.025), (half, belt, at + 0.025), (half, belt, at)], PAINT, 0.45, True
        )
        builder.pair(
            [
                (half, belt - 0.2, at - 0.9),
                (half, belt - 0.2, at - 0.7),
                (half, belt - 0.16, at - 0.7),
                (half, belt - 0.16, at - 0.9),
            ],
            PAINT,
            0.5,
            True,
        )


def _add_front(builder: MeshBuilder, shape: BodyShape) -> None:
    half, front, nose = shape.width_m / 2, shape.length_m / 2, shape.nose_m
    inner = half - 0.26
    builder.pair(
        [(half, 0.24, front - 0.45), (inner, 0.24, front), (inner, nose, front), (half, nose + 0.03, front - 0.45)],
        PAINT,
        0.9,
    )
    builder.face(
        [(-inner, 0.24, front), (inner, 0.24, front), (inner, nose, front), (-inner, nose, front)], PAINT, 0.97
    )
    low = nose - 0.2
    lamp = [
        (half - 0.015, low + 0.02, front - 0.4),
        (inner, low, front),
        (inner, nose - 0.04, front),
        (half - 0.015, nose - 0.01, front - 0.4),
    ]
    builder.pair(lamp, (226.0, 230.0, 232.0))
    builder.pair(
        [
            (inner, low, front),
            (inner - 0.2, low + 0.04, front),
            (inner - 0.2, nose - 0.05, front),
            (inner, nose - 0.04, front),
        ],
        (236.0, 238.0, 236.0),
    )
    grille = inner - 0.24
    builder.face(
        [
            (-grille, low + 0.01, front),
            (grille, low + 0.01, front),
            (grille, nose - 0.05, front),
            (-grille, nose - 0.05, front),
        ],
        (34.0, 35.0, 38.0),
    )
    builder.face(
        [(-inner, 0.26, front), (inner, 0.26, front), (inner - 0.12, 0.42, front), (-inner + 0.12, 0.42, front)],
        (30.0, 30.0, 32.0),
    )
    builder.face(
        [(-0.26, 0.44, front), (0.26, 0.44, front), (0.26, 0.55, front), (-0.26, 0.55, front)],
        (232.0, 232.0, 226.0),
        1.0,
        True,
    )


def _add_rear(builder: MeshBuilder, shape: BodyShape, braking: bool) -> None:
    half, rear, belt = shape.width_m / 2, -shape.length_m / 2, shape.belt_m
    inner = half - 0.2
    builder.pair(
        [(half, 0.26, rear + 0.3), (inner, 0.26, rear), (inner, belt, rear), (half - 0.05, belt, rear + 0.3)],
        PAINT,
        0.84,
    )
    builder.face([(-inner, 0.26, rear), (inner, 0.26, rear), (inner, belt, rear), (-inner, belt, rear)], PAINT, 0.92)
    builder.face(
        [(-inner, 0.58, rear), (inner, 0.58, rear), (inner, belt - 0.06, rear), (-inner, belt - 0.06, rear)],
        PAINT,
        1.0,
        True,
    )
    builder.face(
        [(-inner, 0.56, rear), (inner, 0.56, rear), (inner, 0.585, rear), (-inner, 0.585, rear)], PAINT, 0.4, True
    )
    red: Color = (250.0, 44.0, 34.0) if braking else (150.0, 18.0, 22.0)
    low, high = belt - 0.23, belt - 0.07
    builder.pair(
        [(half - 0.03, low, rear + 0.26), (inner, low, rear), (inner, high, rear), (half - 0.05, high, rear + 0.26)],
        red,
    )
    builder.pair(
        [(inner, low, rear), (inner - 0.13, low + 0.03, rear), (inner - 0.13, high, rear), (inner, high, rear)],
        red,
        1.1,
    )
    builder.pair(
        [
            (inner - 0.01, low + 0.02, rear),
            (inner - 0.12, low + 0.04, rear),
            (inner - 0.12, low + 0.08, rear),
            (inner - 0.01, low + 0.07, rear),
        ],
        (224.0, 190.0, 170.0),
        1.0,
        True,
    )
    builder.face(
        [(-inner, 0.26, rear), (inner, 0.26, rear), (inner, 0.40, rear), (-inner, 0.40, rear)], (42.0, 42.0, 44.0)
    )
    builder.face(
        [(-0.26, 0.62, rear), (0.26, 0.62, rear), (0.26, 0.74, rear), (-0.26, 0.74, rear)], (228.0, 222.0, 190.0)
    )
    builder.face(
        [(-0.21, 0.65, rear), (0.21, 0.65, rear), (0.21, 0.71, rear), (-0.21, 0.71, rear)],
        (70.0, 68.0, 60.0),
        1.0,
        True,
    )


def _add_cabin(builder: MeshBuilder, shape: BodyShape) -> None:
    side = shape.cabin_point
    ridge = [shape.screen_point(ahead, 0.82, 1.0) for ahead in (True, False)]
    builder.face(ridge + [(-x, y, z) for x, y, z in reversed(ridge)], PAINT, 1.1)
    builder.pair([*ridge, side(0, 0.9), side(1, 0.9)], PAINT, 1.06)
    builder.pair([side(0, 0), side(1, 0), side(1, 0.9), side(0, 0.9)], PAINT, 0.95)
    spans = ((0.08, 0.48), (0.53, 0.93)) if shape.side_windows == 2 else ((0.68, 0.95),)
    for start, end in spans:
        upper = [side(end - 0.01, 0.84), side(start + 0.02, 0.84)]
        builder.pair([side(start, 0.06), side(end, 0.06), *upper], GLASS)
        builder.pair([side(start, 0.55), side(end, 0.45), *upper], GLASS_SKY, 0.8, True)
    _add_screen(builder, shape, ahead=True)
    _add_screen(builder, shape, ahead=False)
    x, y, z = side(1, 0)
    mirror = [(x + 0.03, y + 0.02), (x + 0.25, y + 0.04), (x + 0.25, y + 0.18), (x + 0.05, y + 0.16)]
    builder.pair([(right, up, z - 0.15) for right, up in mirror], PAINT, 0.7)


def _add_screen(builder: MeshBuilder, shape: BodyShape, *, ahead: bool) -> None:
    def face(outline: list[tuple[float, float]], color: Color, shade: float = 1.0, detail: bool = False) -> None:
        builder.face([shape.screen_point(ahead, aside, up) for aside, up in outline], color, shade, detail)

    face([(-1, 0), (1, 0), (1, 0.9), (0.82, 1), (-0.82, 1), (-1, 0.9)], PAINT, 0.96)
    face([(-0.92, 0.06), (0.92, 0.06), (0.88, 0.88), (-0.88, 0.88)], GLASS)
    face([(-0.92, 0.5), (0.92, 0.36), (0.88, 0.88), (-0.88, 0.88)], GLASS_SKY, 0.85 if ahead else 0.7, True)
    for seat in (-0.42, 0.42):
        rest = [(seat - 0.15, 0.08), (seat + 0.15, 0.08), (seat + 0.12, 0.48), (seat - 0.12, 0.48)]
        face(rest, (26.0, 29.0, 33.0), 1.0, True)


def _add_wheels(builder: MeshBuilder, shape: BodyShape) -> None:
    half, radius = shape.width_m / 2 + 0.005, 0.21 * math.sqrt(shape.height_m) + 0.07
    full, arch = np.linspace(0, 2 * math.pi, 18, endpoint=False), np.linspace(0, math.pi, 10)
    for axle in (shape.length_m / 2 - 0.85, -shape.length_m / 2 + 0.78):

        def ring(angles: NDArray[np.float64], size: float, center: float = axle) -> list[Vertex]:
            return [(half, radius + size * math.sin(a), center + size * math.cos(a)) for a in angles]

        builder.pair(
            [*ring(arch, radius + 0.06), (half, 0.22, axle - radius - 0.06), (half, 0.22, axle + radius + 0.06)],
            (20.0, 20.0, 22.0),
        )
        builder.pair(ring(full, radius), RUBBER)
        builder.pair(ring(full, radius * 0.66), (150.0, 153.0, 157.0), 1.0, True)
        builder.pair(ring(full, radius * 0.56), (104.0, 106.0, 110.0), 1.0, True)
        builder.pair(ring(full, radius * 0.2), (176.0, 178.0, 180.0), 1.0, True)
    for end in (-shape.length_m / 2 + 0.55, shape.length_m / 2 - 0.6):
        builder.pair(
            [(half - 0.24, 0.0, end), (half - 0.03, 0.0, end), (half - 0.03, 0.3, end), (half - 0.24, 0.3, end)], RUBBER
        )
