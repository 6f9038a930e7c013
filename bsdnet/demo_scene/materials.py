"""Procedural materials: asphalt, paving, grass, brick, foliage and sky, drawn from noise.

Everything takes a resolution in pixels per metre, and draws its chance from `rng` in the same order at each
resolution, so that a scene looks the same at each size.
"""

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from bsdnet.demo_scene.canvas import Color, Image

Field = NDArray[np.float32]
"""`(h, w)` or `(h, w, 3)` values."""


def noise(rng: np.random.Generator, shape: tuple[int, int], cells: tuple[int, int], octaves: int = 1) -> Field:
    """Smooth noise `(h, w)` of about -1 to 1 that repeats at the borders.

    Args:
        rng: source of chance.
        shape: height and width in pixels.
        cells: how many bumps of the coarsest octave fit down and across.
        octaves: each adds bumps of half the size and half the height.
    """
    height, width = shape
    total = np.zeros(shape, np.float32)
    for octave in range(octaves):
        rows, columns = cells[0] << octave, cells[1] << octave
        grid = np.pad(rng.standard_normal((rows, columns)).astype(np.float32), 2, mode="wrap")
        transform = np.array([[(columns / width), 0, 2.0], [0, (rows / height), 2.0]], np.float32)
        flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
        total += cv2.warpAffine(grid, transform, (width, height), flags=flags).astype(np.float32) * 0.5**octave
    return np.asarray(np.clip(total / 1.6, -1.5, 1.5), np.float32)


def grain(rng: np.random.Generator, shape: tuple[int, int]) -> Field:
    """Noise of single pixels `(h, w)`, about -1 to 1, from a stream of its own: its size depends on the resolution."""
    return rng.spawn(1)[0].standard_normal(shape, np.float32) * 0.5


def opaque(field: Field) -> Image:
    """An RGBA image without holes from colours `(h, w, 3)` of 0 to 255."""
    image = np.full((*field.shape[:2], 4), 255, np.uint8)
    image[:, :, :3] = np.clip(field, 0, 255)
    return image


def _tone(values: Field, color: Color) -> Field:
    return values[:, :, None] * np.array(color, np.float32)


def asphalt(rng: np.random.Generator, width_m: float, length_m: float, px_per_m: float) -> Field:
    """A worn carriageway `(h, w, 3)`: wheel tracks, patches, cracks and stains, without markings."""
    shape = round(length_m * px_per_m), round(width_m * px_per_m)
    lateral = np.linspace(-width_m / 2, width_m / 2, shape[1], dtype=np.float32)
    tracks = sum(np.exp(-(((lateral - at) / 0.32) ** 2)) for at in (-2.45, -0.95, 0.95, 2.45))
    oil = sum(np.exp(-(((lateral - at) / 0.25) ** 2)) for at in (-1.7, 1.7))
    gutter = np.exp(-((np.abs(np.abs(lateral) - width_m / 2) / 0.25) ** 2))
    level = 1 + 0.05 * noise(rng, shape, (8, 3), 3) + 0.025 * noise(rng, shape, (190, 60)) + 0.05 * grain(rng, shape)
    level += (0.05 * tracks - 0.04 * oil - 0.16 * gutter).astype(np.float32)[None]
    for _ in range(7):
        left, top = rng.uniform(-width_m / 2, width_m / 2 - 1), rng.uniform(0, length_m - 6)
        size = rng.uniform(0.7, 2.2), rng.uniform(1.0, 5.5)
        x, y = round((left + width_m / 2) * px_per_m), round(top * px_per_m)
        patch = level[y : y + round(size[1] * px_per_m), x : x + round(size[0] * px_per_m)]
        patch *= rng.uniform(0.86, 1.05)
    for _ in range(26):
        steps = rng.normal(0, 0.07, (30, 2)) + np.array([rng.normal(0, 0.04), 0.09])
        start = rng.uniform(0, width_m), rng.uniform(0, length_m - 4)
        path = np.rint((np.cumsum(steps, axis=0) + start) * px_per_m * 16).astype(np.int32)
        crack = np.zeros(shape, np.uint8)
        cv2.polylines(crack, [path], False, (255,), max(1, round(0.016 * px_per_m)), cv2.LINE_AA, 4)
        level *= 1 - crack.astype(np.float32) * (0.26 / 255)
    return _tone(level, (96, 97, 101))


def paving(rng: np.random.Generator, width_m: float, length_m: float, px_per_m: float) -> Field:
    """Slabs of 0.6 m with joints `(h, w, 3)`; the kerb's stones are the first 0.25 m from the left."""
    shape = round(length_m * px_per_m), round(width_m * px_per_m)
    y, x = np.mgrid[0 : shape[0], 0 : shape[1]].astype(np.float32) / px_per_m
    row = np.floor(y / 0.6)
    column_position = x / 0.6 + 0.5 * (row % 2)
    table = rng.uniform(0.88, 1.06, (round(length_m / 0.6) + 2, round(width_m / 0.6) + 3)).astype(np.float32)
    level = table[row.astype(int), column_position.astype(int)]
    joint = np.minimum(np.abs((y / 0.6 + 0.5) % 1 - 0.5), np.abs((column_position + 0.5) % 1 - 0.5)) * 0.6
    level *= 1 - 0.30 * np.exp(-((joint / 0.018) ** 2))
    level *= 1 + 0.07 * noise(rng, shape, (16, 3), 3) + 0.05 * grain(rng, shape)
    colors = _tone(level, (152, 146, 138))
    kerb = x < 0.25
    joint = np.abs((y / 0.9 + 0.5) % 1 - 0.5) * 0.9
    stone = 1.0 - 0.35 * np.exp(-((joint / 0.02) ** 2)) + 0.05 * grain(rng, shape)
    colors[kerb] = _tone(stone, (172, 171, 168))[kerb]
    return colors


def grass(rng: np.random.Generator, width_m: float, length_m: float, px_per_m: float) -> Field:
    """A lawn `(h, w, 3)`."""
    shape = round(length_m * px_per_m), round(width_m * px_per_m)
    level = 1 + 0.12 * noise(rng, shape, (16, 4), 4) + 0.16 * grain(rng, shape)
    return _tone(level, (86, 108, 52))


def plaster(rng: np.random.Generator, shape: tuple[int, int], color: Color) -> Field:
    """Painted render `(h, w, 3)` with streaks that rain has left."""
    streaks = cv2.resize(noise(rng, (8, shape[1]), (1, 40), 2), (shape[1], shape[0]), interpolation=cv2.INTER_LINEAR)
    level = 1 + 0.035 * noise(rng, shape, (3, 3), 4) + 0.025 * streaks + 0.02 * grain(rng, shape)
    return _tone(level.astype(np.float32), color)


def brick(rng: np.random.Generator, shape: tuple[int, int], px_per_m: float, color: Color) -> Field:
    """Brickwork `(h, w, 3)` in running bond."""
    y, x = np.mgrid[0 : shape[0], 0 : shape[1]].astype(np.float32) / px_per_m
    course = np.floor(y / 0.075)
    position = x / 0.225 + 0.5 * (course % 2)
    table = rng.uniform(0.72, 1.15, (257, 131)).astype(np.float32)
    level = table[course.astype(int) % 257, position.astype(int) % 131]
    mortar = np.maximum(y / 0.075 % 1 > 0.84, position % 1 > 0.94).astype(np.float32)
    mortar = 0.6 * cv2.blur(mortar, (3, 3))
    level = level * (1 + 0.06 * noise(rng, shape, (2, 3), 3) + 0.05 * grain(rng, shape))
    return _tone(level * (1 - mortar), color) + _tone(mortar, (176, 166, 152))


def roof_tiles(rng: np.random.Generator, shape: tuple[int, int], px_per_m: float, color: Color) -> Field:
    """Rows of overlapping tiles `(h, w, 3)`."""
    y, x = np.mgrid[0 : shape[0], 0 : shape[1]].astype(np.float32) / px_per_m
    row = np.floor(y / 0.3)
    position = x / 0.25 + 0.5 * (row % 2)
    table = rng.uniform(0.8, 1.12, (64, 64)).astype(np.float32)
    level = table[row.astype(int) % 64, position.astype(int) % 64] * (0.72 + 0.36 * (y / 0.3 % 1))
    level *= 1 + 0.12 * noise(rng, shape, (2, 4), 3)
    return _tone(level, color)


def foliage(rng: np.random.Generator, shape: tuple[int, int], lobes: NDArray[np.float64], color: Color) -> Image:
    """Leaves in round lobes, lit from above: RGBA `(h, w, 4)` with holes.

    Args:
        rng: source of chance.
        shape: height and width in pixels.
        lobes: `(N, 3)`: centre x, centre y and radius as shares of the height, back to front.
        color: of the leaves in full light.
    """
    image = np.zeros((*shape, 4), np.uint8)
    height = shape[0]
    for order, (center_x, center_y, radius) in enumerate(lobes):
        depth = 0.6 + 0.4 * order / max(1, len(lobes) - 1)
        count = int(520 * (radius / 0.12) ** 1.5)
        angle, spread = (
            rng.uniform(0, 2 * math.pi, count),
            np.sqrt(rng.uniform(0, 1, count)) * rng.normal(1, 0.11, count),
        )
        across, down = np.cos(angle) * spread, np.sin(angle) * spread
        light = depth * (0.78 - 0.34 * down - 0.12 * across) * rng.normal(1, 0.14, count)
        size = rng.uniform(0.0035, 0.0085, (count, 2))
        tilt, hue = rng.uniform(0, 180, count).tolist(), rng.uniform(-0.07, 0.1, count)
        colors = np.ones((count, 4)) * (*color, 255)
        colors[:, :3] *= light[:, None] * np.stack([1 + hue, np.ones(count), 1 - hue], axis=1)
        tones = np.clip(colors, 4, 255).tolist()
        places = np.stack([center_x + across * radius, center_y + down * radius], axis=1)
        centers, axes = (np.rint(part * height * 16).astype(int).tolist() for part in (places, size))
        for leaf in np.argsort(light, kind="stable").tolist():
            cv2.ellipse(image, centers[leaf], axes[leaf], tilt[leaf], 0, 360, tones[leaf], cv2.FILLED, cv2.LINE_AA, 4)
    return image


def sky(rng: np.random.Generator, shape: tuple[int, int], focal_px: float, cover: float, haze: Color) -> Image:
    """Sky above the horizon, which is its last row: RGBA `(h, w, 4)`.

    Args:
        rng: source of chance.
        shape: height and width in pixels.
        focal_px: of the camera that looks at it.
        cover: share of the sky under clouds, 0 to 1.
        haze: colour at the horizon.
    """
    height, width = shape
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    elevation = (height - y) / focal_px
    blue = np.array([92, 136, 196], np.float32) + np.array([60, 52, 34], np.float32) * cover
    mix = np.exp(-elevation / 0.16)[:, :, None]
    clear = blue * (1 - mix) + np.array(haze, np.float32) * mix
    distance = 1 / (elevation + 0.17)  # of the cloud layer along the ray, in units of its height
    field = noise(rng, (1024, 1024), (10, 10), 6)
    across = ((x - width / 2) / focal_px * distance * 62).astype(np.float32)
    ahead = (distance * 92).astype(np.float32)
    density = cv2.remap(field, across, ahead, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)
    lit = cv2.remap(field, across + 9, ahead + 9, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)
    amount = np.clip((density - (0.62 - 1.25 * cover)) * 1.7, 0, 1) * np.clip(elevation / 0.05, 0, 1)
    amount = (amount * amount * (3 - 2 * amount))[:, :, None]
    cloud = np.clip(240 - 46 * cover + 34 * (density - lit) - 26 * np.maximum(density - 0.2, 0), 120, 250)
    cloud = cloud[:, :, None] * np.array([1.0, 1.0, 1.015], np.float32)
    return opaque(np.asarray(clear * (1 - amount) + cloud * amount, np.float32))
