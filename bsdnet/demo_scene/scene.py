"""The demo scene: a street that the program draws itself, seen from a moving car, with exact labels."""

from dataclasses import dataclass, fields
from functools import cached_property
from numbers import Integral
from typing import ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bsdnet.classes import CAMVID_11, ClassSet
from bsdnet.demo_scene.stage import Stage
from bsdnet.errors import ConfigError

MIN_SIZE = (96, 128)
MAX_SIZE = (2160, 3840)


class DemoFrame(NamedTuple):
    """One picture of the scene with its labels."""

    rgb: NDArray[np.uint8]
    """`(H, W, 3)` uint8 RGB."""
    labels: NDArray[np.uint8]
    """`(H, W)` uint8: indices of `DemoScene.classes`, or 255 for what belongs to no class."""


@dataclass(frozen=True, kw_only=True)
class DemoScene:
    """A street scene of any length, the same in every process for the same fields.

    Raises:
        ConfigError: a field has a value that cannot work; the message names it.
    """

    classes: ClassVar[ClassSet] = CAMVID_11
    """What the labels mean."""

    size: tuple[int, int] = (720, 1280)
    """Height and width in pixels, from 96x128 to 2160x3840."""
    fps: float = 25.0
    """Frames per second of the scene's time."""
    num_frames: int = 250
    """How many frames there are."""
    seed: int = 0
    """Which street it is, 0 or more."""

    def __post_init__(self) -> None:
        """Reject what cannot be drawn."""
        for name in ("size", "num_frames", "seed"):
            value = getattr(self, name)
            numbers = value if name == "size" and isinstance(value, tuple) and len(value) == 2 else (value,)
            if not all(isinstance(number, Integral) for number in numbers):
                raise ConfigError(f"demo scene: {name} is {value!r}, expected whole numbers")
        height, width = self.size
        if not (MIN_SIZE[0] <= height <= MAX_SIZE[0] and MIN_SIZE[1] <= width <= MAX_SIZE[1]):
            raise ConfigError(
                f"demo scene: size is {height}x{width} (height x width), expected {MIN_SIZE[0]}x{MIN_SIZE[1]} to"
                f" {MAX_SIZE[0]}x{MAX_SIZE[1]}"
            )
        if not 1 <= self.fps <= 1000:
            raise ConfigError(f"demo scene: fps is {self.fps}, expected 1 to 1000")
        if self.num_frames < 1:
            raise ConfigError(f"demo scene: num_frames is {self.num_frames}, expected at least 1")
        if self.seed < 0:
            raise ConfigError(f"demo scene: seed is {self.seed}, expected 0 or more")

    def __getstate__(self) -> dict[str, object]:
        """The fields alone: another process draws its textures itself."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def __len__(self) -> int:
        return self.num_frames

    def frame(self, index: int) -> DemoFrame:
        """Draw one frame; any order, always the same.

        Args:
            index: 0 to `num_frames - 1`.

        Returns:
            Arrays of the caller's own.

        Raises:
            IndexError: there is no such frame.
        """
        if not 0 <= index < self.num_frames:
            raise IndexError(f"demo scene: there is no frame {index}, only 0 to {self.num_frames - 1}")
        return DemoFrame(*self._stage.shoot(index, index / self.fps))

    @cached_property
    def _stage(self) -> Stage:
        return Stage(self.size, self.seed)
