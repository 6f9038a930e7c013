"""LabelMeFacade: photographs of streets and house fronts from many towns, 8 classes."""

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from bsdnet.classes import ClassSet
from bsdnet.errors import DatasetError
from trainer.datasets.files import UNKNOWN, LabelledFiles, Pair, color_codes, label_table

_CLASSES = {
    "various": (0, 0, 0),
    "building": (128, 0, 0),
    "car": (128, 0, 128),
    "door": (128, 128, 0),
    "pavement": (128, 128, 128),
    "road": (128, 64, 0),
    "sky": (0, 128, 128),
    "vegetation": (0, 128, 0),
    "window": (0, 0, 128),
}
"""Class by name, and its colour in the labels; various is all that is none of the others, labelled or not."""


class LabelMeFacade(LabelledFiles):
    """LabelMeFacade (Fröhlich, Rodner and Denzler, ICPR 2010), pictures of LabelMe of many sizes.

    Expected layout: `<root>/images/<name>.jpg` with `<root>/labels/<name>.png`, and the lists `train.txt` and
    `test.txt` of the pictures of each part. There are no recordings.

    Args:
        root: the data set's folder.
        split: `train` (100 pictures), `test` (845), or `all`.

    Raises:
        DatasetError: a folder or a file is missing; the message says where it was looked for.
    """

    title = "LabelMeFacade"
    origin = "github.com/cvjena/labelmefacade"
    splits: ClassVar = {"train": ("train",), "test": ("test",), "all": ("train", "test")}
    published: ClassVar = {"train": 100, "test": 845}
    classes = ClassSet(name="labelmefacade-9", names=tuple(_CLASSES), colors=tuple(_CLASSES.values()))

    def __init__(self, root: Path, split: str) -> None:
        super().__init__(root, split)
        codes = color_codes(np.array([list(_CLASSES.values())], np.uint8))[0]
        self._class_of = label_table({int(code): label for label, code in enumerate(codes)})

    def _pairs_of(self, root: Path, part: str) -> list[Pair]:
        images = self._files(root / "images", "*", [".jpg"])
        pairs = self._pair_up(images, self._files(root / "labels", "*", [".png"]))
        listed = root / f"{part}.txt"
        try:
            names = {Path(line.strip()).stem for line in listed.read_text(encoding="utf-8").splitlines()}
        except (OSError, UnicodeDecodeError) as error:
            raise DatasetError(
                f"{self.title}: {listed} cannot be read: {error}; it comes with {self.origin}"
            ) from error
        kept = [pair for pair in pairs if pair.name in names]
        if not kept:
            raise DatasetError(f"{self.title}: no picture of {root / 'images'} is in {listed}")
        return kept

    def _to_classes(self, raw: NDArray[Any], path: Path) -> NDArray[np.uint8]:
        # As published: four channels of 16 bits, of which the lower 8 repeat the upper.
        raw = np.asarray(raw >> 8, np.uint8) if raw.dtype == np.uint16 else raw
        if raw.ndim != 3 or raw.shape[2] < 3 or raw.dtype != np.uint8:
            raise DatasetError(f"{path} must be a colour picture, found the shape {raw.shape} of {raw.dtype}")
        labels = self._class_of[color_codes(raw[:, :, 2::-1])]
        stray = (labels == UNKNOWN) | (raw[:, :, :3] & 63).any(axis=2)
        if stray.any():
            row, column = np.argwhere(stray)[0]
            found = tuple(raw[row, column, 2::-1].tolist())
            raise DatasetError(f"{path} holds the colour {found}, which none of {self.title}'s classes has")
        return labels
