"""What moves: the car with the camera, other cars, cyclists and walkers, each a function of time."""

import math
from collections.abc import Iterator

import numpy as np

from bsdnet.demo_scene.bodies import PAINTS, VehicleKind
from bsdnet.demo_scene.people import Cyclist, Looks, Pedestrian
from bsdnet.demo_scene.street import KERB_M, Thing
from bsdnet.demo_scene.vehicles import Vehicle
from bsdnet.demo_scene.view import HALF_ROAD_M

LANE_M = 1.55
"""Middle of a lane, from the centre line."""


class Ego:
    """The way of the car that carries the camera."""

    CAMERA_HEIGHT_M = 1.38
    SPEED_M_S = 8.3

    def __init__(self, seed: int) -> None:
        """Choose how the driver drives."""
        rng = np.random.default_rng([seed, 4])
        self._phases = rng.uniform(0, 2 * math.pi, 4)

    def along(self, time_s: float) -> float:
        """Metres driven."""
        rate = 0.42
        return self.SPEED_M_S * time_s - 1.7 / rate * (
            math.cos(rate * time_s + self._phases[0]) - math.cos(self._phases[0])
        )

    def position(self, time_s: float) -> tuple[float, float, float]:
        """The camera's place in street coordinates."""
        lateral = LANE_M - 0.1 + 0.13 * math.sin(0.6 * time_s + self._phases[1])
        height = self.CAMERA_HEIGHT_M + 0.012 * math.sin(7.1 * time_s + self._phases[2])
        return lateral, height, self.along(time_s)

    def pitch(self, time_s: float) -> float:
        """How far the camera nods, in radians."""
        return 0.0020 * math.sin(6.3 * time_s + self._phases[3]) + 0.0012 * math.sin(11.7 * time_s)


class Traffic:
    """Everybody else."""

    WALK_M_S = 1.35
    RIDE_M_S = 4.6
    DRIVE_M_S = 8.8

    def __init__(self, seed: int, ego: Ego) -> None:
        """Nobody is there yet; who comes depends on the seed and on a number of their own."""
        self._seed = seed
        self._ego = ego

    def between(self, time_s: float, near_m: float, far_m: float) -> Iterator[Thing]:
        """All that move within this stretch at this time."""
        yield self._car_ahead(time_s)
        yield from self._oncoming(time_s, near_m, far_m)
        for heading in (1, -1):
            yield from self._cyclists(time_s, near_m, far_m, heading)
            for side in (1, -1):
                yield from self._walkers(time_s, near_m, far_m, heading, side)

    def _rng(self, kind: int, number: int) -> np.random.Generator:
        return np.random.default_rng([self._seed, 5, kind, number + 100_000])

    @staticmethod
    def _numbers(near_m: float, far_m: float, moved_m: float, spacing_m: float) -> range:
        """Who of an endless column is in sight after it has moved."""
        return range(math.floor((near_m - moved_m) / spacing_m) - 1, math.ceil((far_m - moved_m) / spacing_m) + 1)

    def _car_ahead(self, time_s: float) -> Thing:
        rng = self._rng(0, 0)
        phase = rng.uniform(0, 2 * math.pi)
        gap = 19.0 + 5.0 * math.sin(0.33 * time_s + phase)
        kind = (VehicleKind.HATCHBACK, VehicleKind.SALOON, VehicleKind.SUV)[rng.integers(3)]
        return Vehicle(
            lateral_m=LANE_M + 0.1 * math.sin(0.5 * time_s), far_m=self._ego.along(time_s) + gap, heading=1,
            kind=kind, paint=PAINTS[rng.integers(len(PAINTS))], braking=math.cos(0.33 * time_s + phase) < -0.55,
        )  # fmt: skip

    def _oncoming(self, time_s: float, near_m: float, far_m: float) -> Iterator[Thing]:
        moved, spacing = -self.DRIVE_M_S * time_s, 34.0
        for number in self._numbers(near_m, far_m, moved, spacing):
            rng = self._rng(1, number)
            place = number * spacing + moved + rng.uniform(0, 18)
            yield Vehicle(
                lateral_m=-LANE_M + rng.uniform(-0.15, 0.15), far_m=place, heading=-1,
                kind=list(VehicleKind)[rng.integers(4)], paint=PAINTS[rng.integers(len(PAINTS))],
            )  # fmt: skip

    def _cyclists(self, time_s: float, near_m: float, far_m: float, heading: int) -> Iterator[Thing]:
        moved, spacing = heading * self.RIDE_M_S * time_s, 52.0
        for number in self._numbers(near_m, far_m, moved, spacing):
            rng = self._rng(2 + (heading > 0), number)
            place = number * spacing + moved + rng.uniform(0, 26)
            yield Cyclist(
                lateral_m=heading * (HALF_ROAD_M - 2.3 + rng.uniform(-0.05, 0.1)), far_m=place, heading=heading,
                crank=-6.0 * time_s + rng.uniform(0, 6), looks=Looks.of(rng), frame=PAINTS[rng.integers(len(PAINTS))],
            )  # fmt: skip

    def _walkers(self, time_s: float, near_m: float, far_m: float, heading: int, side: int) -> Iterator[Thing]:
        moved, spacing = heading * self.WALK_M_S * time_s, 17.0
        for number in self._numbers(near_m, far_m, moved, spacing):
            rng = self._rng(4 + (heading > 0) + 2 * (side > 0), number)
            place = number * spacing + moved + rng.uniform(0, 13)
            lateral = side * (KERB_M + (0.75 if heading > 0 else 1.45) + rng.uniform(-0.2, 0.3))
            yield Pedestrian(
                lateral_m=lateral, far_m=place, turn=0.0 if heading > 0 else math.pi,
                stride=math.pi * self.WALK_M_S / 0.72 * time_s + rng.uniform(0, 6), looks=Looks.of(rng),
            )  # fmt: skip
