"""Where things are and where they appear: the street's course and the camera that drives along it.

Street coordinates are metres: `(lateral, up, along)`, with `lateral` to the right of the centre line, `up` above the
road and `along` the way of travel. The course bends the street by moving each cross-section sideways.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]
"""`(N, 3)` points in metres, or `(N, 2)` pixels."""

HALF_ROAD_M = 5.3
"""From the centre line to the kerb."""
PAVEMENT_M = 3.0
"""Width of a pavement with its kerb."""
KERB_HEIGHT_M = 0.12
"""How far the pavement is above the road."""
NEAR_M = 0.8
"""Nothing closer to the camera than this is drawn."""


@dataclass(frozen=True, kw_only=True)
class Course:
    """The bends of a street: a sum of sine waves, each `(amplitude_m, wavelength_m, phase)`."""

    waves: tuple[tuple[float, float, float], ...]
    """Amplitude and wavelength in metres, phase in radians."""

    def offset(self, along: NDArray[np.float64]) -> NDArray[np.float64]:
        """How far the centre line swings to the right, in metres, at each distance along the street."""
        total: NDArray[np.float64] = sum(
            (
                amplitude_m * np.sin(along * (2 * math.pi / wavelength_m) + phase)
                for amplitude_m, wavelength_m, phase in self.waves
            ),
            start=np.zeros(1),
        )
        return total


class View:
    """A pinhole camera at a place in the street, looking along the bend ahead."""

    LOOK_AHEAD_M = 18.0

    def __init__(
        self, course: Course, size: tuple[int, int], position: tuple[float, float, float], pitch: float = 0.0
    ) -> None:
        """Place the camera.

        Args:
            course: the street's bends.
            size: height and width of the picture in pixels.
            position: camera in street coordinates, metres.
            pitch: how far the camera looks up, in radians; small.
        """
        height, width = size
        self.course = course
        self.size = size
        self.position = np.array(position)
        self.focal_px = 0.9 * max(width, height * 4 / 3)
        self.center_px = np.array([width / 2 - 0.5, 0.475 * height - 0.5 + pitch * self.focal_px])
        here, ahead = course.offset(np.array([position[2], position[2] + self.LOOK_AHEAD_M]))
        self.yaw = math.atan2(ahead - here, self.LOOK_AHEAD_M)
        self._origin = np.array([position[0] + here, position[1], position[2]])
        cosine, sine = math.cos(self.yaw), math.sin(self.yaw)
        self._rotation = np.array([[cosine, 0.0, sine], [0.0, 1.0, 0.0], [-sine, 0.0, cosine]])

    def to_camera(self, points: Points) -> Points:
        """Turn street coordinates `(N, 3)` into camera coordinates `(N, 3)`: right, up, depth, in metres."""
        world = np.array(points, np.float64)
        world[:, 0] += self.course.offset(world[:, 2])
        camera: Points = (world - self._origin) @ self._rotation
        return camera

    def to_pixels(self, camera: Points) -> Points:
        """Project camera coordinates `(N, 3)` with a depth above zero to pixels `(N, 2)`, x and y."""
        scale = self.focal_px / camera[:, 2:]
        pixels: Points = camera[:, :2] * scale * (1.0, -1.0) + self.center_px
        return pixels


def clip_near(camera: Points) -> Points:
    """Cut off what is nearer than NEAR_M from a polygon `(N, 3)` in camera coordinates: `(M, 3)`, maybe empty."""
    inside = camera[:, 2] >= NEAR_M
    if inside.all():
        return camera
    if not inside.any():
        return camera[:0]
    kept = []
    for index in range(len(camera)):
        start, end = camera[index - 1], camera[index]
        if inside[index - 1] != inside[index]:
            share = (NEAR_M - start[2]) / (end[2] - start[2])
            kept.append(start + share * (end - start))
        if inside[index]:
            kept.append(end)
    return np.array(kept)
