"""The drawn street as a data set: exact labels without any download, for trying out a training."""

from collections.abc import Collection

import numpy as np
from numpy.typing import NDArray

from bsdnet.demo_scene import DemoScene
from bsdnet.errors import ConfigError
from trainer.datasets.files import checked_index, select_groups

_SEEDS = {"train": (0, 1, 2, 3), "val": (4,)}
_FRAMES_PER_STREET = 50
_FPS = 2.0  # half a second apart, so that neighbours differ


class DemoStreet:
    """Pictures of drawn streets: four to train on, and another one to judge by.

    The recordings are the streets, `street-0` to `street-4`. A process draws a street's textures, which takes some
    seconds, when it first reads from it.

    Args:
        split: `train` (200 pictures) or `val` (50).
        size: height and width of the pictures in pixels.
        only: streets to keep; None keeps all.
        without: streets to leave out.

    Raises:
        ConfigError: there is no such split, or the size is none that the scene can have.
        DatasetError: there is no such street, or none is left.
    """

    classes = DemoScene.classes

    def __init__(
        self,
        split: str,
        *,
        size: tuple[int, int] = (360, 480),
        only: Collection[str] | None = None,
        without: Collection[str] = (),
    ) -> None:
        if split not in _SEEDS:
            raise ConfigError(f"the demo scene has no split {split!r}; its splits are {', '.join(_SEEDS)}")
        scenes = [DemoScene(size=size, fps=_FPS, num_frames=_FRAMES_PER_STREET, seed=seed) for seed in _SEEDS[split]]
        streets = [f"street-{scene.seed}" for scene in scenes]
        self._scenes = [scenes[index] for index in select_groups(f"demo scene {split}", streets, only, without)]

    def __len__(self) -> int:
        return len(self._scenes) * _FRAMES_PER_STREET

    def __getitem__(self, index: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Draw one pair: picture `(H, W, 3)` uint8 RGB, labels `(H, W)` uint8 with 255 for no class.

        Raises:
            IndexError: there is no such pair.
        """
        scene, frame = self._locate(index)
        rgb, labels = scene.frame(frame)
        return rgb, labels

    def name(self, index: int) -> str:
        """Give the street and the frame."""
        scene, frame = self._locate(index)
        return f"street-{scene.seed}_{frame:03d}"

    @property
    def groups(self) -> list[str]:
        """The streets."""
        return [f"street-{scene.seed}" for scene in self._scenes]

    def group(self, index: int) -> str:
        """Give the street."""
        scene, _ = self._locate(index)
        return f"street-{scene.seed}"

    def _locate(self, index: int) -> tuple[DemoScene, int]:
        street, frame = divmod(checked_index(index, len(self)), _FRAMES_PER_STREET)
        return self._scenes[street], frame
