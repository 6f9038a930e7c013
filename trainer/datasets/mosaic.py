"""Small pictures laid side by side, so that one without labels fills a crop: pictures of things, not of streets."""

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from bsdnet.classes import ClassSet
from trainer.datasets.files import checked_index
from trainer.datasets.imagenet import ZippedImages

_SIDES = (48, 128)
"""Smallest and largest side of a tile in pixels, drawn log-uniformly."""


class Mosaics:
    """Pictures that are tiled with small ones, by index: the first tile is the picture of that index.

    A network that looks at them beside its own data learns from a teacher how things look that its data have not. All
    labels are 0, which says no more than that the pixel is valid.

    Args:
        root: a folder with `train*.zip`, entries `<class>/<picture>`, all of one size (Tiny-ImageNet).
        classes: what the teacher tells apart.
        size: height and width of a mosaic in pixels.

    Raises:
        DatasetError: the zip files are missing or damaged.
    """

    def __init__(self, root: Path, classes: ClassSet, size: tuple[int, int]) -> None:
        self.classes = classes
        self._root, self._size = root, size
        self._tiles = ZippedImages(sorted(root.glob("train*.zip")) or [root / "train.zip"]).images

    def __len__(self) -> int:
        return len(self._tiles)

    def __getitem__(self, index: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Lay one mosaic, `(H, W, 3)` uint8 RGB, with labels that are all 0, `(H, W)` uint8.

        Raises:
            IndexError: there is no such picture.
        """
        rng = np.random.default_rng(checked_index(index, len(self)))
        side = round(float(np.exp(rng.uniform(*np.log(_SIDES)))))
        rows, columns = (-(-length // side) for length in self._size)
        chosen = rng.integers(len(self), size=rows * columns)
        chosen[0] = index
        tiles = self._tiles[chosen]
        height, width = tiles.shape[1:3]
        grid = tiles.reshape(rows, columns, height, width, 3).swapaxes(1, 2).reshape(rows * height, columns * width, 3)
        shrinks = side < height
        laid = cv2.resize(
            grid, (columns * side, rows * side), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        )
        rgb = np.ascontiguousarray(laid[: self._size[0], : self._size[1]], np.uint8)
        return rgb, np.zeros(self._size, np.uint8)

    def name(self, index: int) -> str:
        """Give the folder with the mosaic's number."""
        return f"{self._root}#{checked_index(index, len(self))}"
