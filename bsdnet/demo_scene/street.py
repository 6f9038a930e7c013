"""What stands where: the street is laid out in plots, each from chance of its own, so that it never ends."""

from collections.abc import Iterator
from functools import lru_cache
from typing import Protocol

import numpy as np

from bsdnet.demo_scene.bodies import PAINTS, VehicleKind
from bsdnet.demo_scene.buildings import Building
from bsdnet.demo_scene.canvas import Color
from bsdnet.demo_scene.furniture import Barrier, Bin, Lamp, Sign, SignKind, Tree
from bsdnet.demo_scene.labels import Label
from bsdnet.demo_scene.painter import Painter, ShadowMap
from bsdnet.demo_scene.people import Looks, Pedestrian
from bsdnet.demo_scene.props import House, Props
from bsdnet.demo_scene.vehicles import Vehicle
from bsdnet.demo_scene.view import HALF_ROAD_M, PAVEMENT_M

PLOT_M = 24.0
"""Length of a plot along the street."""
BINS: tuple[Color, ...] = ((52, 60, 56), (40, 72, 48), (56, 62, 84))
KERB_M = HALF_ROAD_M + 0.5
"""Where posts stand."""
EDGE_M = HALF_ROAD_M + PAVEMENT_M
"""Where the pavement ends."""


class Thing(Protocol):
    """Whatever stands in the street or moves through it."""

    @property
    def far_m(self) -> float:
        """Its far end along the street in metres: what is farther is painted first."""
        ...

    def draw(self, painter: Painter) -> None:
        """Paint it."""
        ...

    def cast(self, painter: Painter, shadows: ShadowMap) -> None:
        """Throw its shadow on the ground."""
        ...


class Street:
    """The things that stand still, plot by plot."""

    def __init__(self, seed: int, props: Props) -> None:
        """Lay out nothing yet."""
        self._seed = seed
        self._props = props
        self._plot = lru_cache(maxsize=64)(self._lay_out)

    def between(self, near_m: float, far_m: float) -> Iterator[Thing]:
        """All things of the plots that touch this stretch."""
        for index in range(int(near_m // PLOT_M), int(far_m // PLOT_M) + 1):
            yield from self._plot(index)

    def _lay_out(self, index: int) -> tuple[Thing, ...]:
        return tuple(self._things(index))

    def _things(self, index: int) -> Iterator[Thing]:
        for side in (-1, 1):
            rng = np.random.default_rng([self._seed, 2, index + 1000, side + 1])
            start = index * PLOT_M
            kind = rng.uniform()
            if kind < 0.36:
                yield from self._terrace(rng, start, side)
            elif kind < 0.76:
                yield from self._blocks(rng, start, side)
            else:
                yield from self._park(rng, start, side)
            yield from self._kerbside(rng, index, start, side)

    def _house(self, house: House, near_m: float, front_m: float, hidden_by: House | None = None) -> Building:
        plan = house.plan
        return Building(
            front_m=front_m, near_m=near_m, far_m=near_m + plan.width_m, height_m=plan.height_m,
            front=house.front, end=house.end, end_color=house.end_color, roof=house.roof, awning=house.awning,
            shows_end=hidden_by is None or hidden_by.plan.height_m < plan.height_m,
        )  # fmt: skip

    def _terrace(self, rng: np.random.Generator, start: float, side: int) -> Iterator[Thing]:
        pair = rng.permutation(len(self._props.terraces))[:2]
        neighbour: House | None = None
        for number in range(4):
            house = self._props.terraces[pair[0] if rng.uniform() < 0.7 else pair[1]]
            yield self._house(house, start + 6 * number, side * (EDGE_M + 2.6), neighbour)
            neighbour = house
        yield from self._barriers(rng, start, side, gaps=0.2)
        if rng.uniform() < 0.6:
            yield self._tree(rng, side * (EDGE_M + 1.4), start + rng.uniform(3, 21), 3.2, 4.6)

    def _blocks(self, rng: np.random.Generator, start: float, side: int) -> Iterator[Thing]:
        for number in range(2):
            house = self._props.blocks[rng.integers(len(self._props.blocks))]
            yield self._house(house, start + 12 * number, side * (EDGE_M + 0.1 + 0.4 * rng.integers(2)))

    def _park(self, rng: np.random.Generator, start: float, side: int) -> Iterator[Thing]:
        yield from self._barriers(rng, start, side, gaps=0.0)
        for row in range(3):
            for number in range(3):
                place = side * (EDGE_M + 3.2 + 4.5 * row + rng.uniform(-1, 1))
                yield self._tree(rng, place, start + 8 * number + rng.uniform(0.5, 7.5), 6.0 + row, 9.0 + row)

    def _barriers(self, rng: np.random.Generator, start: float, side: int, gaps: float) -> Iterator[Thing]:
        kind = int(rng.integers(4))
        for number in range(6):
            place = {"lateral_m": side * (EDGE_M + 0.12), "near_m": start + 4 * number, "far_m": start + 4 * number + 4}
            if rng.uniform() < gaps:
                continue
            if kind == 0:
                yield Barrier(**place, height_m=1.55, texture=self._props.hedge, label=Label.TREE, thickness_m=0.9)
            else:
                fence = self._props.fences[kind % 2]
                yield Barrier(**place, height_m=1.75 if kind % 2 == 0 else 1.3, texture=fence, label=Label.FENCE)

    def _kerbside(self, rng: np.random.Generator, index: int, start: float, side: int) -> Iterator[Thing]:
        if (index + (side > 0)) % 2 == 0:
            yield Lamp(lateral_m=side * KERB_M, far_m=start + 8.0)
        if rng.uniform() < (0.75 if side > 0 else 0.4):
            sign = list(SignKind)[rng.integers(len(SignKind))]
            lateral = side * (KERB_M + (0.8 if sign is SignKind.DIRECTIONS else 0.0))
            yield Sign(lateral_m=lateral, far_m=start + 15.0, kind=sign, green=bool(rng.uniform() < 0.7))
        for place in (3.5, 19.5):
            if rng.uniform() < 0.42:
                yield self._tree(rng, side * (KERB_M + 0.15), start + place, 5.5, 7.5)
        if rng.uniform() < 0.3:
            yield Bin(
                lateral_m=side * (EDGE_M - 0.55), far_m=start + rng.uniform(2, 22), color=BINS[rng.integers(len(BINS))]
            )
        if rng.uniform() < 0.45:
            lateral, along = side * rng.uniform(KERB_M + 0.3, EDGE_M - 0.5), start + rng.uniform(4, 20)
            turn, looks = rng.uniform(0, 6.28), Looks.of(rng)
            yield Pedestrian(lateral_m=lateral, far_m=along, turn=turn, stride=0.0, looks=looks, walking=False)
        parking = rng.choice((0.0, 0.45, 0.7))
        for slot in range(4):
            if rng.uniform() < parking:
                kind = list(VehicleKind)[rng.choice(4, p=(0.4, 0.3, 0.2, 0.1))]
                lateral = side * (HALF_ROAD_M - 1.15 + rng.uniform(-0.1, 0.08))
                along = start + 3 + 6 * slot + rng.uniform(-0.4, 0.4)
                paint = PAINTS[rng.integers(len(PAINTS))]
                yield Vehicle(lateral_m=lateral, far_m=along, heading=side, kind=kind, paint=paint)

    def _tree(self, rng: np.random.Generator, lateral_m: float, far_m: float, low_m: float, high_m: float) -> Tree:
        texture = self._props.trees[rng.integers(len(self._props.trees))]
        return Tree(
            lateral_m=float(lateral_m), far_m=float(far_m), height_m=float(rng.uniform(low_m, high_m)), texture=texture
        )
