"""Meshes of flat faces, for what turns in front of the camera."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bsdnet.demo_scene.canvas import Color
from bsdnet.demo_scene.view import Points

Vertex = tuple[float, float, float]
"""Metres to the right, up and to the front."""
PAINT: Color = (-1.0, -1.0, -1.0)
"""Stands for the car's own colour in a mesh."""


@dataclass(frozen=True, kw_only=True)
class Mesh:
    """Flat faces in painting order, seen from outside only; x to the right, y up, z to the front."""

    points: Points
    """`(N, 3)`, all faces' corners one after the other."""
    starts: list[int]
    """Where each face's corners begin in `points`, and at last N."""
    colors: Points
    """Of each face, `(F, 3)`; PAINT for the car's own."""
    shades: NDArray[np.float64]
    """Brightness of each face beside what the light does, `(F,)`."""
    normals: Points
    """Outward unit normals, `(F, 3)`."""
    anchors: Points
    """One point on each face, `(F, 3)`."""
    details: NDArray[np.bool_]
    """Faces that lie on other faces, and that a distant car can do without, `(F,)`."""


class MeshBuilder:
    """Collects faces; normals point away from a point inside the car."""

    def __init__(self, inside: Vertex) -> None:
        """Start empty."""
        self._inside = np.array(inside)
        self._faces: list[tuple[Points, Color, float, bool, Points]] = []

    def face(self, points: list[Vertex], color: Color, shade: float = 1.0, detail: bool = False) -> None:
        """Add a flat face."""
        corners = np.array(points)
        following = np.roll(corners, -1, axis=0)
        normal = np.cross(corners, following).sum(axis=0)
        normal /= np.linalg.norm(normal)
        if normal @ (corners.mean(axis=0) - self._inside) < 0:
            normal = -normal
        self._faces.append((corners, color, shade, detail, normal))

    def pair(self, points: list[Vertex], color: Color, shade: float = 1.0, detail: bool = False) -> None:
        """Add a face and its mirror image on the car's other side."""
        self.face(points, color, shade, detail)
        self.face([(-x, y, z) for x, y, z in points], color, shade, detail)

    def build(self) -> Mesh:
        """The mesh."""
        corners, colors, shades, details, normals = zip(*self._faces, strict=True)
        return Mesh(
            points=np.concatenate(corners),
            starts=[0, *np.cumsum([len(points) for points in corners]).tolist()],
            colors=np.array(colors),
            shades=np.array(shades),
            normals=np.array(normals),
            anchors=np.array([points.mean(axis=0) for points in corners]),
            details=np.array(details),
        )
