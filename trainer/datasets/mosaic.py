"""Small pictures laid side by side, so that one without labels fills a crop: pictures of things, not of streets."""

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from bsdnet.classes import ClassSet
from trainer.datasets.files import checked_index
from trainer.datasets.imagenet import ImageFolder

_SIDES = (48, 128)
"""Smallest and largest side of a tile in pixels, drawn log-uniformly."""


class Mosaics:
    """Pictures that are tiled with smaller ones, by index: the first tile is the picture of that index.

    A network that looks at them beside its own data learns from a teacher how things look that its data have not. All
    labels are 0, which says no more than that the pixel is valid. Tiles are square, whatever shape their pictures have.

    Args:
        root: a folder with `train*.zip` or `train/`, entries `<class>/<picture>` (Tiny-ImageNet, ImageNet).
        classes: what the teacher tells apart.
        size: height and width of a mosaic in pixels.

    Raises:
        DatasetError: there are no such pictures, or a zip file is damaged.
    """

    def __init__(self, root: Path, classes: ClassSet, size: tuple[int, int]) -> None:
        self.classes = classes
        self._root, self._size = root, size
        self._pictures = ImageFolder(root, "train")

    @staticmethod
    def lie_in(source: Path) -> bool:
        """Tell whether a source is a folder of pictures to lay to mosaics."""
        return source.is_dir() and ((source / "train").is_dir() or any(source.glob("train*.zip")))

    def __len__(self) -> int:
        return len(self._pictures)

    def __getitem__(self, index: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Lay one mosaic, `(H, W, 3)` uint8 RGB, with labels that are all 0, `(H, W)` uint8.

        Raises:
            IndexError: there is no such picture.
            DatasetError: a picture cannot be read.
        """
        rng = np.random.default_rng(checked_index(index, len(self)))
        side = round(float(np.exp(rng.uniform(*np.log(_SIDES)))))
        rows, columns = (-(-length // side) for length in self._size)
        chosen = rng.integers(len(self), size=rows * columns)
        chosen[0] = index
        tiles = np.stack([_resized(self._pictures[int(number)][0], side) for number in chosen])
        laid = tiles.reshape(rows, columns, side, side, 3).swapaxes(1, 2).reshape(rows * side, columns * side, 3)
        rgb = np.ascontiguousarray(laid[: self._size[0], : self._size[1]])
        return rgb, np.zeros(self._size, np.uint8)

    def name(self, index: int) -> str:
        """Give the folder with the mosaic's number."""
        return f"{self._root}#{checked_index(index, len(self))}"


def _resized(rgb: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    shrinks = side < min(rgb.shape[:2])
    return np.asarray(
        cv2.resize(rgb, (side, side), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR), np.uint8
    )
