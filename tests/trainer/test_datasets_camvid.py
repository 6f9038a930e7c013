from pathlib import Path

import cv2
import numpy as np
import pytest

from bsdnet.classes import CAMVID_11
from bsdnet.errors import DatasetError
from tests.trainer import trees
from trainer.datasets.camvid import CamVid, CamVidOriginal

GROUPS = {
    "sky": {"Sky": (128, 128, 128)},
    "building": {"Building": (128, 0, 0), "Wall": (64, 192, 0)},
    "pole": {"Column_Pole": (192, 192, 128)},
    "road": {
        "Road": (128, 64, 128),
        "LaneMkgsDriv": (128, 0, 192),
        "LaneMkgsNonDriv": (192, 0, 64),
        "RoadShoulder": (128, 128, 192),
        "Tunnel": (64, 0, 64),
    },
    "pavement": {"Sidewalk": (0, 0, 192), "ParkingBlock": (64, 192, 128)},
    "tree": {"Tree": (128, 128, 0), "VegetationMisc": (192, 192, 0)},
    "sign": {"SignSymbol": (192, 128, 128), "Misc_Text": (128, 128, 64), "TrafficLight": (0, 64, 64)},
    "fence": {"Fence": (64, 64, 128)},
    "car": {
        "Car": (64, 0, 128),
        "SUVPickupTruck": (64, 128, 192),
        "Truck_Bus": (192, 128, 192),
        "Train": (192, 64, 128),
    },
    "pedestrian": {"Pedestrian": (64, 64, 0)},
    "bicyclist": {"Bicyclist": (0, 128, 192), "MotorcycleScooter": (192, 0, 192)},
}
"""Colours by class of the 11 and of the 32, the one that gives the class its name first."""

NO_CLASS = {
    "Void": (0, 0, 0),
    "Archway": (192, 0, 128),
    "Bridge": (0, 128, 64),
    "TrafficCone": (0, 0, 64),
    "OtherMoving": (128, 64, 64),
    "Child": (192, 128, 64),
    "CartLuggagePram": (64, 0, 192),
    "Animal": (64, 128, 64),
}


def test_pictures_are_paired_with_their_labels(street_camvid: Path):
    dataset = CamVid(street_camvid, "train")
    assert len(dataset) == 12
    sky = dataset[0][1] == 0
    assert dataset[0][0][sky][:, 2].mean() > dataset[0][0][sky][:, 0].mean()  # RGB: the sky is blue


def test_drives_can_be_kept_and_left_out(street_camvid: Path):
    assert CamVid(street_camvid, "train").groups == ["A", "B"]
    assert CamVid(street_camvid, "train", only=["B"]).groups == ["B"]
    without = CamVid(street_camvid, "train", without=["B"])
    assert [without.name(index)[0] for index in range(len(without))] == ["A"] * 6
    assert len(CamVid(street_camvid, "trainval")) == 15
    with pytest.raises(DatasetError, match="CamVid train has no recording X; its recordings are A, B"):
        CamVid(street_camvid, "train", without=["X"])
    with pytest.raises(DatasetError, match="no pictures are left"):
        CamVid(street_camvid, "val", without=["C"])
    with pytest.raises(DatasetError, match="no split 'all'; its splits are train, val, test, trainval"):
        CamVid(street_camvid, "all")


def test_labels_beyond_the_eleven_are_no_class_or_an_error(tmp_path: Path):
    trees.write(tmp_path / "val" / "A_0.png", trees.picture(0))
    label = trees.write(tmp_path / "valannot" / "A_0.png", np.resize(np.uint8([10, 11, 255]), trees.SIZE))
    assert np.unique(CamVid(tmp_path, "val")[0][1]).tolist() == [10, 255]
    trees.write(label, np.full(trees.SIZE, 12, np.uint8))
    with pytest.raises(DatasetError, match=r"A_0\.png holds the label 12; CamVid has 0 to 11, 255"):
        CamVid(tmp_path, "val")[0]


def labels_of(tmp_path: Path, colors: np.ndarray, **options: str) -> np.ndarray:
    trees.write(tmp_path / "701_StillsRaw_full" / "0016E5_08159.png", trees.picture(0, colors.shape[:2]))
    trees.write(tmp_path / "LabeledApproved_full" / "0016E5_08159_L.png", colors)
    return CamVidOriginal(tmp_path, "val", **options)[0][1]


def test_the_32_colours_become_11_classes(tmp_path: Path):
    colors = [*NO_CLASS.values(), *(color for group in GROUPS.values() for color in group.values())]
    expected = [255] * len(NO_CLASS) + [CAMVID_11.names.index(name) for name, group in GROUPS.items() for _ in group]
    assert len(set(colors)) == 32
    assert labels_of(tmp_path, np.array([colors], np.uint8)).tolist() == [expected]


def test_the_finer_classes_can_be_ignored(tmp_path: Path):
    colors = [*NO_CLASS.values(), *(color for group in GROUPS.values() for color in group.values())]
    expected = [255] * len(NO_CLASS) + [
        CAMVID_11.names.index(name) if place == 0 else 255
        for name, group in GROUPS.items()
        for place in range(len(group))
    ]
    assert labels_of(tmp_path, np.array([colors], np.uint8), finer="ignored").tolist() == [expected]


def test_stray_colours_have_no_class_as_long_as_they_are_few(tmp_path: Path):
    colors = np.full((10, 10, 3), 128, np.uint8)
    colors[0, :5] = (128, 128, 127), (129, 128, 128), (192, 192, 192), (255, 255, 255), (128, 192, 128)
    assert labels_of(tmp_path, colors).tolist() == [[255] * 5 + [0] * 5] + [[0] * 10] * 9
    colors[0, 5] = (1, 2, 3)
    with pytest.raises(DatasetError, match=r"6% of the pixels have none of CamVid's 32 colours"):
        labels_of(tmp_path, colors)


def test_the_original_is_split_by_drive_and_frame(tmp_path: Path):
    root = trees.camvid_original(tmp_path)
    names = {
        split: [dataset.name(index) for index in range(len(dataset))]
        for split in ("train", "val", "test")
        for dataset in [CamVidOriginal(root, split)]
    }
    assert names == {
        "train": ["0001TP_008520", "0006R0_f00930", "0016E5_07920"],
        "val": ["0016E5_07959"],
        "test": ["0001TP_008550", "Seq05VD_f00000"],
    }
    assert CamVidOriginal(root, "trainval").groups == ["0001TP", "0006R0", "0016E5"]


def test_the_original_says_what_is_wrong(tmp_path: Path):
    root = trees.camvid_original(tmp_path)
    label = root / "LabeledApproved_full" / "0016E5_07959_L.png"
    trees.write(label, np.zeros(trees.SIZE, np.uint8))
    with pytest.raises(DatasetError, match=r"must be a colour picture of 8 bits.*480x360 form"):
        CamVidOriginal(root, "val")[0]
    label.unlink()
    (root / "701_StillsRaw_full" / "0016E5_07959.png").unlink()
    with pytest.raises(DatasetError, match=r"no picture of .*701_StillsRaw_full belongs to val"):
        CamVidOriginal(root, "val")
    for folder, ending in (("701_StillsRaw_full", ""), ("LabeledApproved_full", "_L")):
        trees.write(root / folder / f"holiday{ending}.png", np.zeros((*trees.SIZE, 3), np.uint8))
    with pytest.raises(DatasetError, match="has no picture holiday; its names are as"):
        CamVidOriginal(root, "val")


@pytest.mark.data
def test_the_published_names_give_the_published_split(data_dir: Path, tmp_path: Path):
    parts = {split: CamVid(data_dir / "camvid", split) for split in ("train", "val", "test")}
    assert {split: len(part) for split, part in parts.items()} == CamVid.published
    assert len(CamVid(data_dir / "camvid", "trainval")) == 468
    names = {split: {part.name(index) for index in range(len(part))} for split, part in parts.items()}
    for folder, ending in (("701_StillsRaw_full", ""), ("LabeledApproved_full", "_L")):
        (tmp_path / folder).mkdir()
        for name in set().union(*names.values()):
            (tmp_path / folder / f"{name}{ending}.png").touch()
    for split in parts:
        original = CamVidOriginal(tmp_path, split)
        assert {original.name(index) for index in range(len(original))} == names[split]


@pytest.mark.data
def test_the_published_pictures_show_streets(data_dir: Path):
    rgb, labels = CamVid(data_dir / "camvid", "test")[0]
    assert rgb.shape == (360, 480, 3)
    assert (labels == 3).sum() > (labels == 2).sum() > 0  # more road than poles
    assert cv2.mean(rgb, (labels == 0).astype(np.uint8))[0] > cv2.mean(rgb, (labels == 3).astype(np.uint8))[0]
