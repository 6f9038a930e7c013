"""ADE20K: scenes of all kinds, 150 classes, as the scene parsing benchmark publishes it."""

from pathlib import Path
from typing import ClassVar

from bsdnet.classes import ADE20K_150, IGNORE_INDEX
from trainer.datasets.files import LabelledFiles, Pair, label_table

_FOLDERS = {"train": "training", "val": "validation"}


class ADE20K(LabelledFiles):
    """ADE20K in the layout of the scene parsing benchmark (ADEChallengeData2016).

    Expected layout: `<root>/images/training/<name>.jpg` with `<root>/annotations/training/<name>.png`, and the same
    for `validation`. The labels' 0, everything else, becomes 255; 1 to 150 become 0 to 149. Pictures differ in size.
    There are no recordings.

    Args:
        root: the data set's folder.
        split: `train` (20210 pictures), `val` (2000) or `trainval`.

    Raises:
        DatasetError: a folder or a file is missing; the message says where it was looked for.
    """

    title = "ADE20K"
    origin = "ADEChallengeData2016.zip from sceneparsing.csail.mit.edu"
    splits: ClassVar = {"train": ("train",), "val": ("val",), "trainval": ("train", "val")}
    published: ClassVar = {"train": 20210, "val": 2000}
    classes = ADE20K_150
    table = label_table({0: IGNORE_INDEX} | {label + 1: label for label in range(len(ADE20K_150))})

    def __init__(self, root: Path, split: str) -> None:
        super().__init__(root, split)

    def _pairs_of(self, root: Path, part: str) -> list[Pair]:
        images = self._files(root / "images" / _FOLDERS[part], "*", [".jpg"])
        return self._pair_up(images, self._files(root / "annotations" / _FOLDERS[part], "*", [".png"]))
