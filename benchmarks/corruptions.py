"""What a dashcam does to its pictures, each at five strengths from slight to severe.

After the common corruptions of Hendrycks and Dietterich ("Benchmarking Neural Network Robustness to Common Corruptions
and Perturbations", ICLR 2019) and their use for driving by Michaelis et al. ("Benchmarking Robustness in Object
Detection: Autonomous Driving when Winter is Coming", 2019), with strengths of our own: theirs are meant for one object
that fills the picture, and bury a street at half of their scale. Lengths are of pictures with a short side of 360
pixels, and grow with it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from zlib import crc32

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from trainer.degrade import compress, disc_kernel, line_kernel

Picture = NDArray[np.uint8]
STRENGTHS = range(1, 6)
_SHORT_SIDE_PX = 360
_DISPLAY_GAMMA = 2.2


@dataclass(frozen=True, kw_only=True)
class Corruption:
    """One way in which pictures get worse."""

    apply: Callable[[Picture, float, Generator], Picture]
    """Maps a picture `(H, W, 3)` uint8 RGB, a level and the source of chance to a picture of the same shape."""
    levels: tuple[float, float, float, float, float]
    """What the five strengths are, in `unit`."""
    unit: str
    """What a level is."""
    trained: bool = True
    """Whether `bsdnet-train --degradation` shows its kind (colour jitter that of exposure); the numbers differ."""


def corrupt(rgb: Picture, name: str, strength: int, *, seed: int, picture: str) -> Picture:
    """Corrupt a picture; what is drawn depends on the seed and the picture alone, and so grows with the strength.

    Args:
        rgb: `(H, W, 3)` uint8.
        name: one of `CORRUPTIONS`.
        strength: 1 to 5.
        seed: of a whole benchmark.
        picture: what tells the picture from all others, such as its file's name.

    Returns:
        A picture of the same shape.
    """
    corruption = CORRUPTIONS[name]
    rng = np.random.default_rng((seed, crc32(f"{name} {picture}".encode())))
    return corruption.apply(rgb, corruption.levels[strength - 1], rng)


def _expose(rgb: Picture, stops: float, _: Generator) -> Picture:
    """Let in twice the light a stop, or half of it: what the sensor cannot hold is white, or lost between two steps."""
    return np.asarray(cv2.convertScaleAbs(rgb, alpha=2 ** (stops / _DISPLAY_GAMMA)), np.uint8)


def _add_noise(rgb: Picture, deviation: float, rng: Generator) -> Picture:
    noise = rng.standard_normal(rgb.shape, np.float32) * np.float32(255 * deviation)
    return np.asarray((rgb + noise).clip(0, 255).round(), np.uint8)


def _defocus(rgb: Picture, radius: float, _: Generator) -> Picture:
    return np.asarray(cv2.filter2D(rgb, -1, disc_kernel(radius * _scale(rgb))), np.uint8)


def _move(rgb: Picture, length: float, rng: Generator) -> Picture:
    return np.asarray(cv2.filter2D(rgb, -1, line_kernel(length / 2 * _scale(rgb), rng.uniform(0, np.pi))), np.uint8)


def _compress(rgb: Picture, quality: float, _: Generator) -> Picture:
    return compress(rgb, round(quality))


def _haze(rgb: Picture, share: float, rng: Generator) -> Picture:
    """Replace contrast by light: most at the horizon, least for the road before the wheels, which is near."""
    height, width = rgb.shape[:2]
    depth = np.interp(np.arange(height) / height, [0, 0.45, 1], [0.85, 1, 0.45])
    veil = np.repeat((share * depth).astype(np.float32)[:, None], width, 1)
    light = np.full_like(rgb, round(rng.uniform(190, 230)))
    return np.asarray(cv2.blendLinear(rgb, light, 1 - veil, veil), np.uint8)


def _rain(rgb: Picture, amount: float, rng: Generator) -> Picture:
    """Draw streaks of drops near and far, all leaning alike, under the grey light of a wet day."""
    height, width = rgb.shape[:2]
    lean = np.pi / 2 + rng.uniform(-0.3, 0.3)
    streaks = np.zeros((height, width), np.float32)
    for length, drops in ((10, 0.012), (24, 0.003)):  # far: many, short and faint
        shares, brightness = rng.random((2, height, width), np.float32)
        heads = np.where(shares < drops * amount / _scale(rgb), brightness * length / 24, 0)
        kernel = line_kernel(length / 2 * (0.6 + 0.4 * amount) * _scale(rgb), lean)
        streaks += cv2.filter2D(heads, -1, kernel / kernel.max())
    veil = 0.3 * amount + (1 - 0.3 * amount) * np.minimum(0.7 * streaks, 0.7)
    wet = cv2.GaussianBlur(rgb, (0, 0), (0.3 + 0.7 * amount) * _scale(rgb))  # water on the windscreen
    return np.asarray(cv2.blendLinear(wet, np.full_like(rgb, 190), 1 - veil, veil), np.uint8)


def _night(rgb: Picture, amount: float, rng: Generator) -> Picture:
    """Darken as by night: few colours, warm lamps, a sky that is darker than what they light, and a sensor's noise."""
    curve = 255 * np.linspace(0, 1, 256) ** (1 + 0.35 * amount) * (1 - 0.65 * amount)
    tint = np.array([1, 0.85, 0.6]) ** amount
    gray = cv2.cvtColor(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    faded = cv2.addWeighted(rgb, 1 - 0.6 * amount, gray, 0.6 * amount, 0)
    dark = cv2.LUT(faded, (curve[:, None] * tint).astype(np.float32)[None])
    rows = np.linspace(0, 1, len(rgb), dtype=np.float32)[:, None, None]
    lit = 1 - 0.8 * amount * np.clip(1 - rows / 0.55, 0, 1)  # lamps and headlights light what is below them
    noise = rng.standard_normal(rgb.shape, np.float32) * np.float32(8 * amount)
    return np.asarray((dark * lit + noise).clip(0, 255).round(), np.uint8)


def _scale(rgb: Picture) -> float:
    return float(min(rgb.shape[:2])) / _SHORT_SIDE_PX


CORRUPTIONS = {
    "over-exposure": Corruption(apply=_expose, levels=(0.5, 1, 1.5, 2, 2.5), unit="stops"),
    "under-exposure": Corruption(apply=_expose, levels=(-1, -2, -3, -4, -5), unit="stops"),
    "noise": Corruption(apply=_add_noise, levels=(0.02, 0.04, 0.07, 0.11, 0.16), unit="standard deviation of 0..1"),
    "defocus": Corruption(apply=_defocus, levels=(1, 1.75, 2.5, 3.5, 5), unit="radius in px"),
    "motion": Corruption(apply=_move, levels=(4, 7, 10, 14, 20), unit="length in px"),
    "JPEG": Corruption(apply=_compress, levels=(30, 20, 14, 9, 6), unit="quality"),
    "haze": Corruption(apply=_haze, levels=(0.25, 0.4, 0.55, 0.7, 0.8), unit="share of veil at the horizon"),
    "rain": Corruption(apply=_rain, levels=(0.1, 0.3, 0.5, 0.75, 1), unit="amount", trained=False),
    "night": Corruption(apply=_night, levels=(0.2, 0.4, 0.6, 0.8, 1), unit="amount"),
}
"""All of them by name."""
