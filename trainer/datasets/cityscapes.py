"""Cityscapes: street scenes from 50 cities, 19 classes."""

import re
from pathlib import Path
from typing import ClassVar

import cv2
import numpy as np
from numpy.typing import NDArray

from bsdnet.classes import CITYSCAPES_19, IGNORE_INDEX
from bsdnet.errors import ConfigError, SinkError
from trainer.datasets.files import LabelledFiles, Pair, label_table

_TRAIN_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
"""labelIds of the 19 classes, by train id."""
_NUM_LABEL_IDS = 34
_SIZE = (1024, 2048)
_NAME = re.compile(r"[^_/]+_\d{6}_\d{6}")


class Cityscapes(LabelledFiles):
    """Cityscapes with fine labels, in the layout in which it is unpacked.

    Expected layout: `<root>/leftImg8bit/<split>/<city>/<name>_leftImg8bit.png` with
    `<root>/gtFine/<split>/<city>/<name>_gtFine_labelIds.png`. The recordings are the cities.

    Args:
        root: the data set's folder.
        split: `train` (2975 pictures), `val` (500), `test` (1525) or `trainval`. The labels of `test` are not public:
            each pixel is 255 there, and `gtFine/test`, which holds dummies, is not read.
        only: cities to keep, such as `aachen`; None keeps all.
        without: cities to leave out.

    Raises:
        DatasetError: a folder, a file or a named city is missing; the message says where it was looked for.
    """

    title = "Cityscapes"
    origin = "leftImg8bit_trainvaltest.zip and gtFine_trainvaltest.zip from www.cityscapes-dataset.com"
    splits: ClassVar = {"train": ("train",), "val": ("val",), "test": ("test",), "trainval": ("train", "val")}
    published: ClassVar = {"train": 2975, "val": 500, "test": 1525}
    classes = CITYSCAPES_19
    table = label_table(
        dict.fromkeys(range(_NUM_LABEL_IDS), IGNORE_INDEX)
        | {label_id: train_id for train_id, label_id in enumerate(_TRAIN_IDS)}
    )

    def _pairs_of(self, root: Path, part: str) -> list[Pair]:
        images = self._files(root / "leftImg8bit" / part, "*/*", ["_leftImg8bit.png"])
        if part == "test":
            return [Pair(name=name, image=path, labels=None) for name, path in images.files.items()]
        return self._pair_up(images, self._files(root / "gtFine" / part, "*/*", ["_gtFine_labelIds.png"]))

    def _group_of(self, name: str) -> str:
        return name.split("_")[0]


def save_cityscapes_prediction(folder: Path, name: str, labels: NDArray[np.uint8]) -> Path:
    """Write a prediction as the benchmark's server takes it: labelIds in a PNG of 2048x1024 with 8 bits.

    The server looks for exactly one `<city>_<sequence>_<frame>*.png` per picture, at any depth of the archive.

    Args:
        folder: where to; it must exist, and hold predictions alone.
        name: the picture's name as `Cityscapes.name` gives it, such as `berlin_000000_000019`.
        labels: train ids, `(1024, 2048)` uint8, 0 to 18: the server counts a pixel without class as wrong.

    Returns:
        The file.

    Raises:
        ConfigError: the name is none of a Cityscapes picture, or the labels have another shape, type or range.
        SinkError: the file cannot be written.
    """
    if not _NAME.fullmatch(name):
        raise ConfigError(f"{name!r} is no name of a Cityscapes picture, such as berlin_000000_000019")
    if labels.shape != _SIZE or labels.dtype != np.uint8:
        raise ConfigError(
            f"a Cityscapes prediction must be {_SIZE[0]}x{_SIZE[1]} (height x width) of uint8, got the shape "
            f"{labels.shape} of {labels.dtype}: bring logits to the picture's size before choosing classes"
        )
    if labels.max() >= len(_TRAIN_IDS):
        raise ConfigError(f"a Cityscapes prediction must hold train ids 0 to 18, got {labels.max()}")
    path = folder / f"{name}_labelIds.png"
    _, png = cv2.imencode(".png", np.array(_TRAIN_IDS, np.uint8)[labels])
    try:
        path.write_bytes(png.tobytes())
    except OSError as error:
        raise SinkError(f"{path} cannot be written: {error.strerror}") from error
    return path
