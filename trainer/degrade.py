"""Crops as a worse camera, worse light or a worse link would show them; their labels stay."""

from statistics import NormalDist

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

Picture = NDArray[np.uint8]

_OTHERS = 0.25
"""Probability of each degradation beside the one that is certain: two of the five on average."""
_LARGEST_REACH_PX = 3.0
"""Kernels beyond 7x7 take OpenCV ten times as long: a larger blur is computed on the picture at half its size."""
_DISPLAY_GAMMA = 2.2
# Random bytes looked up here are noise, in a tenth of the time that `Generator.standard_normal` takes.
_QUANTILES = np.array([NormalDist().inv_cdf((byte + 0.5) / 256) for byte in range(256)], np.float32)


def degrade(rgb: Picture, rng: Generator) -> Picture:
    """Degrade a picture as dashcams do, in the order in which it happens from the scene to the file.

    Low light (with a colour cast, and noise), a veil of haze or glare, defocus or motion blur, sensor noise, JPEG: one
    of the five for certain, the others by chance, each of a random strength. Rain is left out on purpose: robustness to
    it says what is gained against corruptions that training has not seen.

    Args:
        rgb: picture, `(H, W, 3)` uint8.
        rng: the only source of chance.

    Returns:
        A picture of the same shape.
    """
    chosen = rng.random(5) < _OTHERS
    chosen[rng.integers(5)] = True
    dark, veiled, blurred, noisy, compressed = chosen
    if dark:
        rgb = _darken(rgb, rng)
    if veiled:
        rgb = _veil(rgb, rng)
    if blurred:
        rgb = _blur(rgb, rng)
    if noisy or dark:  # a camera in the dark amplifies its noise with the picture
        rgb = _add_noise(rgb, rng)
    if compressed:
        rgb = compress(rgb, round(_log_uniform(rng, 8, 60)))
    return rgb


def disc_kernel(radius_px: float) -> NDArray[np.float32]:
    """Make the kernel of a lens out of focus: a disc with a soft edge, of sum 1, odd in size."""
    y, x = _grid(radius_px)
    kernel = np.clip(radius_px + 0.5 - np.hypot(y, x), 0, 1)
    return np.asarray(kernel / kernel.sum(), np.float32)


def line_kernel(reach_px: float, angle: float) -> NDArray[np.float32]:
    """Make the kernel of a camera that moves: a line of half-length `reach_px` at an angle in radians, of sum 1."""
    y, x = _grid(reach_px)
    along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    kernel = np.clip(reach_px + 0.5 - np.abs(along), 0, 1) * np.clip(1 - np.abs(across), 0, 1)
    return np.asarray(kernel / kernel.sum(), np.float32)


def compress(rgb: Picture, quality: int) -> Picture:
    """Write and read a picture as JPEG, quality 1 to 100."""
    bgr = cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR)  # JPEG keeps less of blue than of green
    _, code = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return np.asarray(cv2.cvtColor(np.asarray(cv2.imdecode(code, cv2.IMREAD_COLOR)), cv2.COLOR_BGR2RGB), np.uint8)


def _darken(rgb: Picture, rng: Generator) -> Picture:
    """Lose light as at dusk: a curve that takes most from the shadows, tinted by street lamps or a blue sky."""
    gamma, gain = rng.uniform(1, 1.7), rng.uniform(0.35, 0.9)
    cast = rng.uniform(-0.3, 0.3)  # above 0 warm, below it cold
    tint = np.array([min(1, 1 + cast), 1 - abs(cast) / 3, min(1, 1 - cast)])
    curves = np.linspace(0, 1, 256)[:, None] ** gamma * gain * tint
    return np.asarray(cv2.LUT(rgb, (curves * 255).round().astype(np.uint8)[None]), np.uint8)


def _veil(rgb: Picture, rng: Generator) -> Picture:
    """Lay bright grey over a picture, most around one point: a wide one is haze, a narrow one the glare of the sun."""
    height, width = rgb.shape[:2]
    strength, level, spread = rng.uniform(0.2, 0.75), round(rng.uniform(150, 250)), _log_uniform(rng, 0.2, 2)
    row, column = rng.uniform(0, 0.6), rng.uniform(0, 1)  # as shares of the sides
    rows = np.exp(-np.square((np.arange(height) / height - row) / spread) / 2)
    columns = np.exp(-np.square((np.arange(width) / width - column) / spread) / 2)
    veil = (strength * rows[:, None] * columns).astype(np.float32)
    return np.asarray(cv2.blendLinear(rgb, np.full_like(rgb, level), 1 - veil, veil), np.uint8)


def _blur(rgb: Picture, rng: Generator) -> Picture:
    moving, angle = rng.random() < 0.5, rng.uniform(0, np.pi)
    reach = _log_uniform(rng, 0.7, 7 if moving else 4)
    factor = 2 if reach > _LARGEST_REACH_PX else 1
    kernel = line_kernel(reach / factor, angle) if moving else disc_kernel(reach / factor)
    height, width = rgb.shape[:2]
    small = cv2.resize(rgb, (width // factor, height // factor), interpolation=cv2.INTER_AREA)
    blurred = cv2.filter2D(small, -1, kernel)
    return np.asarray(cv2.resize(blurred, (width, height), interpolation=cv2.INTER_LINEAR), np.uint8)


def _add_noise(rgb: Picture, rng: Generator) -> Picture:
    """Add the noise of photons and of reading, seen through the display's curve; partly grey, fine or coarse."""
    shot, read = _log_uniform(rng, 0.01, 0.1), _log_uniform(rng, 0.001, 0.01)
    color, grain = rng.uniform(0.3, 1), int(rng.integers(1, 3))
    light = np.maximum(np.linspace(0, 1, 256), 0.1) ** _DISPLAY_GAMMA  # the curve is too steep at black itself
    slope = light ** (1 / _DISPLAY_GAMMA - 1) / _DISPLAY_GAMMA
    deviation = 255 * slope * np.sqrt(shot**2 * light + read**2)
    height, width = rgb.shape[:2]
    size = -(-height // grain), -(-width // grain)
    noise, gray = _normal((*size, 3), rng), cv2.cvtColor(_normal(size, rng), cv2.COLOR_GRAY2RGB)
    cv2.addWeighted(noise, color, gray, float(np.sqrt(1 - color**2)), 0, dst=noise)
    if grain > 1:
        noise = np.asarray(cv2.resize(noise, (width, height), interpolation=cv2.INTER_LINEAR), np.float32)
    cv2.multiply(noise, cv2.LUT(rgb, deviation.astype(np.float32)), dst=noise)
    return np.asarray(cv2.add(rgb, noise, dtype=cv2.CV_8U), np.uint8)


def _normal(shape: tuple[int, ...], rng: Generator) -> NDArray[np.float32]:
    """Draw from the normal distribution, fp32."""
    code = np.frombuffer(rng.bytes(int(np.prod(shape))), np.uint8).reshape(shape)
    return np.asarray(cv2.LUT(code, _QUANTILES), np.float32)


def _log_uniform(rng: Generator, low: float, high: float) -> float:
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def _grid(reach: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Give rows and columns around 0 that cover a reach, `(2 n + 1, 2 n + 1)` each."""
    size = int(np.ceil(reach))
    y, x = np.mgrid[-size : size + 1, -size : size + 1].astype(np.float64)
    return y, x
