"""The textures of one scene: drawn once, shared by everything that stands in the street."""

from dataclasses import dataclass

import cv2
import numpy as np

from bsdnet.demo_scene.canvas import Color, Image, Texture
from bsdnet.demo_scene.facades import SHOPS, FacadePlan, facade
from bsdnet.demo_scene.materials import Field, asphalt, foliage, grass, noise, opaque, paving, roof_tiles
from bsdnet.demo_scene.view import HALF_ROAD_M, PAVEMENT_M

VERGE_M = 12.0
"""Width of the ground behind the pavement that is drawn."""
GROUND_PERIOD_M = 36.0
"""The ground repeats after this length."""
GROUND_SPAN_M = 24.0
"""Longest piece of ground that is drawn at once."""
LEAVES: tuple[Color, ...] = ((128, 146, 62), (104, 134, 60), (146, 150, 70), (92, 118, 58), (150, 136, 60))
ROOFS: tuple[Color, ...] = ((120, 74, 58), (92, 88, 90), (104, 82, 72))


@dataclass(frozen=True, kw_only=True)
class House:
    """A front with what goes with it."""

    plan: FacadePlan
    """Measures."""
    front: Texture
    """The facade."""
    end: Texture
    """The wall around the corner."""
    end_color: Color
    """Its mean colour."""
    roof: Texture | None
    """Tiles; None for a flat roof."""
    awning: Texture | None
    """Stripes of its awning, if it has one."""


@dataclass(frozen=True, kw_only=True)
class Props:
    """All textures of a scene."""

    road: Texture
    pavement: Texture
    kerb: Texture
    verge: Texture
    trees: tuple[Texture, ...]
    hedge: Texture
    fences: tuple[Texture, ...]
    terraces: tuple[House, ...]
    blocks: tuple[House, ...]

    @classmethod
    def build(cls, seed: int, px_per_m: float) -> "Props":
        """Draw everything.

        Args:
            seed: of the scene.
            px_per_m: resolution.
        """
        rng = np.random.default_rng([seed, 1])
        terraces = [
            FacadePlan(width_m=6.0, storeys=int(rng.integers(2, 4)), brick=bool(rng.uniform() < 0.7)) for _ in range(5)
        ]
        blocks = [
            FacadePlan(
                width_m=12.0,
                storeys=int(rng.integers(3, 6)),
                brick=bool(rng.uniform() < 0.45),
                shop=index != 2,
                storey_m=3.2,
            )
            for index in range(5)
        ] + [FacadePlan(width_m=12.0, storeys=5, brick=False, glass=True, storey_m=3.4)]
        ground = px_per_m * 0.9
        return cls(
            road=Texture(_repeat(_marked_road(rng, ground), ground)),
            pavement=Texture(_repeat(opaque(paving(rng, PAVEMENT_M, GROUND_PERIOD_M, ground)), ground)),
            kerb=Texture(_repeat(_kerb_face(rng, ground), ground)),
            verge=Texture(_repeat(opaque(grass(rng, VERGE_M, GROUND_PERIOD_M, ground * 0.5)), ground * 0.5)),
            trees=tuple(Texture(_tree(rng, index, px_per_m)) for index in range(4)),
            hedge=Texture(_hedge(rng, px_per_m)),
            fences=(Texture(_planks(rng, px_per_m)), Texture(_railing(px_per_m))),
            terraces=tuple(_house(rng, plan, px_per_m, pitched=True) for plan in terraces),
            blocks=tuple(_house(rng, plan, px_per_m, pitched=False) for plan in blocks),
        )


def _repeat(image: Image, px_per_m: float) -> Image:
    """Append the beginning below the end, so that each span is in one piece."""
    return np.concatenate([image, image[: round(GROUND_SPAN_M * px_per_m)]])


def _house(rng: np.random.Generator, plan: FacadePlan, px_per_m: float, *, pitched: bool) -> House:
    front, end = facade(rng, plan, px_per_m)
    mean = end[:, :, :3].reshape(-1, 3).mean(axis=0)
    tiles = None
    if pitched:
        shape = round(5.0 * px_per_m), round(plan.width_m * px_per_m)
        tiles = Texture(opaque(roof_tiles(rng, shape, px_per_m, ROOFS[rng.integers(len(ROOFS))])))
    awning = (
        Texture(_stripes(SHOPS[rng.integers(len(SHOPS))], plan.width_m)) if plan.shop and rng.uniform() < 0.6 else None
    )
    color = float(mean[0]), float(mean[1]), float(mean[2])
    return House(plan=plan, front=Texture(front), end=Texture(end), end_color=color, roof=tiles, awning=awning)


def _stripes(color: Color, width_m: float) -> Image:
    """Cloth in stripes of 0.6 m, open at both ends."""
    image = np.zeros((4, round(width_m * 20), 4), np.uint8)
    for index, start in enumerate(range(10, image.shape[1] - 12, 12)):
        image[:, start : start + 12] = (*color, 255) if index % 2 else (232, 226, 212, 255)
    return image


def _marked_road(rng: np.random.Generator, px_per_m: float) -> Image:
    road = asphalt(rng, 2 * HALF_ROAD_M, GROUND_PERIOD_M, px_per_m)
    paint = np.zeros(road.shape[:2], np.float32)

    def line(lateral_m: float, width_m: float, start_m: float, length_m: float) -> None:
        left, right = lateral_m - width_m / 2 + HALF_ROAD_M, lateral_m + width_m / 2 + HALF_ROAD_M
        rows = slice(round(start_m * px_per_m), round((start_m + length_m) * px_per_m))
        paint[rows, round(left * px_per_m) : max(round(right * px_per_m), round(left * px_per_m) + 2)] = 1.0

    for start in np.arange(0, GROUND_PERIOD_M, 6.0):
        line(0.0, 0.14, float(start), 3.0)
    for side in (-1, 1):
        for start in np.arange(0, GROUND_PERIOD_M, 6.0):
            line(side * (HALF_ROAD_M - 2.15), 0.10, float(start), 1.2)
            line(side * (HALF_ROAD_M - 1.2), 2.0, float(start) + 5.95, 0.1) if start % 12 == 0 else None
        line(side * (HALF_ROAD_M - 0.3), 0.09, 0.0, GROUND_PERIOD_M)
    worn = np.clip(0.86 + 0.5 * noise(rng, road.shape[:2], (40, 12), 3), 0.25, 0.95) * paint
    worn = cv2.GaussianBlur(worn, (3, 3), 0.7)[:, :, None]
    marked = road * (1 - worn) + np.array([216, 214, 206], np.float32) * worn
    x, y, radius = 3.1 * px_per_m, 15.0 * px_per_m, 0.36 * px_per_m
    cover = (round(x * 16), round(y * 16))
    cv2.circle(marked, cover, round(radius * 16), (62.0, 60.0, 58.0), -1, cv2.LINE_AA, 4)
    cv2.circle(marked, cover, round(radius * 13), (84.0, 80.0, 76.0), max(1, round(radius / 7)), cv2.LINE_AA, 4)
    return opaque(np.asarray(marked, np.float32))


def _kerb_face(rng: np.random.Generator, px_per_m: float) -> Image:
    shape = round(GROUND_PERIOD_M * px_per_m), 6
    level = 0.9 + 0.1 * noise(rng, shape, (36, 1), 2)
    return opaque(np.asarray(level[:, :, None] * np.array([112, 111, 108], np.float32), np.float32))


def _tree(rng: np.random.Generator, index: int, px_per_m: float) -> Image:
    height = round(7.5 * px_per_m)
    shape = height, round(height * 0.8)
    slim = index == 3
    count = 13
    turn = rng.uniform(0, 6.28, count) + np.arange(count) * 2.4
    spread = np.sqrt((np.arange(count) + 0.5) / count)
    wide, tall = (0.13, 0.30) if slim else (0.24, 0.25)
    lobes = np.stack(
        [
            0.4 + wide * spread * np.cos(turn),
            0.38 + tall * spread * np.sin(turn),
            rng.uniform(0.09, 0.125, count) * (0.8 if slim else 1),
        ],
        axis=1,
    )
    lobes = lobes[np.argsort(-lobes[:, 1] + rng.uniform(-0.1, 0.1, count), kind="stable")]
    crown = foliage(rng, shape, lobes, LEAVES[rng.integers(len(LEAVES))])
    trunk = np.zeros_like(crown)
    bark: Color = (78, 66, 56)
    for end, width in (((0.4, 0.4), 0.018), ((0.3, 0.42), 0.010), ((0.5, 0.44), 0.010)):
        fork = (0.4, 1.0) if end[0] == 0.4 else (0.4, 0.68)
        outline = np.array(
            [
                [fork[0] - width * 1.3, fork[1]],
                [fork[0] + width * 1.3, fork[1]],
                [end[0] + width * 0.6, end[1]],
                [end[0] - width * 0.6, end[1]],
            ]
        )
        cv2.fillPoly(trunk, [np.rint(outline * height * 16).astype(np.int32)], (*bark, 255), cv2.LINE_AA, 4)
    shadow = np.linspace(0.55, 1.0, height, dtype=np.float32)[:, None, None]
    trunk[:, :, :3] = (trunk[:, :, :3] * shadow).astype(np.uint8)
    clear = 1 - crown[:, :, 3:].astype(np.float32) / 255
    return np.asarray(crown + trunk * clear, np.uint8)


def _hedge(rng: np.random.Generator, px_per_m: float) -> Image:
    height, width = round(1.6 * px_per_m), round(4.0 * px_per_m)
    x, y = np.meshgrid(np.linspace(0.06, 2.44, 13), np.linspace(0.95, 0.2, 4))
    lobes = np.stack(
        [x.ravel() + rng.normal(0, 0.03, x.size), y.ravel() + rng.normal(0, 0.02, x.size), np.full(x.size, 0.19)],
        axis=1,
    )
    lobes = lobes[np.argsort(-lobes[:, 1], kind="stable")]
    return foliage(rng, (height, width), lobes, (84, 108, 52))


def _planks(rng: np.random.Generator, px_per_m: float) -> Image:
    shape = round(1.7 * px_per_m), round(4.0 * px_per_m)
    y, x = np.mgrid[0 : shape[0], 0 : shape[1]].astype(np.float32) / px_per_m
    position = x / 0.16
    table = rng.uniform(0.78, 1.08, 64).astype(np.float32)
    level = table[position.astype(int) % 64] * np.where(position % 1 > 0.92, 0.4, 1.0)
    level *= 1 + 0.10 * noise(rng, shape, (2, 60), 2)
    level *= np.where((np.abs(y - 0.25) < 0.02) | (np.abs(y - 1.45) < 0.02), 0.7, 1.0)
    level = np.where(y < 0.06, 1.15, level)
    wood: Field = np.asarray(level[:, :, None] * np.array([146, 112, 78], np.float32), np.float32)
    image = opaque(wood)
    post = np.minimum(x, 4.0 - x) < 0.07
    image[post, :3] = (112, 86, 60)
    return image


def _railing(px_per_m: float) -> Image:
    shape = round(1.3 * px_per_m), round(4.0 * px_per_m)
    y, x = np.mgrid[0 : shape[0], 0 : shape[1]].astype(np.float32) / px_per_m
    bar = np.abs((x / 0.11) % 1 - 0.5) < 0.3
    base = y > 0.85
    solid = bar | base | (np.abs(y - 0.12) < 0.03) | (np.minimum(x, 4.0 - x) < 0.06)
    image = np.zeros((*shape, 4), np.uint8)
    image[solid] = (40, 48, 46, 255)
    courses = np.where(
        ((y - 0.85) / 0.09 % 1 < 0.15) | ((x / 0.22 + np.floor((y - 0.85) / 0.09) * 0.5) % 1 < 0.06), 0.75, 1.0
    )
    wall = courses[:, :, None] * np.array([148, 106, 86], np.float32)
    image[base, :3] = wall[base].astype(np.uint8)
    image[(y > 0.82) & (y < 0.9), :3] = (186, 180, 168)
    return image
