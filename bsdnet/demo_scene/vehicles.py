"""Cars and vans at their places in the street."""

from dataclasses import dataclass

import numpy as np

from bsdnet.demo_scene.bodies import VehicleKind, vehicle_mesh
from bsdnet.demo_scene.canvas import Color, to_fixed
from bsdnet.demo_scene.labels import Label
from bsdnet.demo_scene.painter import Painter, ShadowMap
from bsdnet.demo_scene.view import NEAR_M

DETAIL_PX = 30
"""Cars that are lower than this are drawn without details."""


@dataclass(frozen=True, kw_only=True)
class Vehicle:
    """A car at a place in the street."""

    lateral_m: float
    """Its middle across the street."""
    far_m: float
    """Its middle along the street."""
    heading: int
    """1: along the camera's way; -1: towards it."""
    kind: VehicleKind
    """Body."""
    paint: Color
    """Colour."""
    braking: bool = False
    """Whether the brake lights shine."""

    def draw(self, painter: Painter) -> None:
        """Paint the faces that are turned to the camera."""
        mesh = vehicle_mesh(self.kind, self.braking)
        turn = np.array([self.heading, 1.0, self.heading])
        place = np.array([self.lateral_m, 0.0, self.far_m])
        camera = painter.view.to_camera(mesh.points * turn + place)
        if camera[:, 2].max() < NEAR_M * 2:
            return
        camera[:, 2] = np.maximum(camera[:, 2], NEAR_M)
        pixels = painter.view.to_pixels(camera)
        height, width = painter.view.size
        low, high = pixels.min(axis=0), pixels.max(axis=0)
        if high[0] < 0 or low[0] > width or low[1] > height:
            return
        visible = (mesh.normals * turn * (painter.view.position - place - mesh.anchors * turn)).sum(axis=1) > 0
        if high[1] - low[1] < DETAIL_PX:
            visible &= ~mesh.details
        normals = mesh.normals * turn
        light = (
            painter.light.facing(0.0)
            + 0.22 * normals[:, 1]
            + (painter.light.sun * 0.16 * painter.light.sun_side) * normals[:, 0]
        )
        depth = float(camera[:, 2].mean())
        tones = np.where(mesh.colors[:, :1] < 0, np.array(self.paint), mesh.colors)
        colors, fixed = painter.colors(depth, tones, light * mesh.shades), to_fixed(pixels)
        seen = np.flatnonzero(visible).tolist()
        outlines = [fixed[mesh.starts[face] : mesh.starts[face + 1]] for face in seen]
        painter.canvas.paint(outlines, [colors[face] for face in seen])
        solid = ~mesh.details[seen]
        painter.canvas.mark([outline for outline, is_solid in zip(outlines, solid, strict=True) if is_solid], Label.CAR)

    def cast(self, painter: Painter, shadows: ShadowMap) -> None:
        """Throw the sun's shadow and the dark one right under the body."""
        shape = self.kind.value
        half, reach = shape.width_m / 2, shape.length_m / 2
        body = np.array([[x, y, self.far_m + z * 0.92] for x in (self.lateral_m - half, self.lateral_m + half)
                         for z in (-reach, reach) for y in (0.2, shape.height_m * 0.8)])  # fmt: skip
        shadows.polygon(painter.light.cast(body), painter.light.shadow)
        for grow, strength in ((1.06, 150), (0.98, 90), (0.9, 45)):
            x, z = half * grow, reach * grow
            footprint = np.array([[-x, 0, -z], [x, 0, -z], [x, 0, z], [-x, 0, z]])
            shadows.polygon(np.add(footprint, (self.lateral_m, 0.01, self.far_m)), strength)
