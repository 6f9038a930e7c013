"""Pictures with one class each: folders and zip files."""

import os
import pickle
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest
from torch.utils.data import DataLoader

from bsdnet.errors import DatasetError
from tests.trainer import trees
from tests.trainer.trees import zipped
from trainer.datasets.imagenet import ImageFolder, ZippedImages


def test_zipped_images_in_the_order_of_archives(tmp_path: Path):
    first = zipped(tmp_path / "train-0.zip", ["dog/0.png", "cat/0.png", "cat/1.png"])
    second = zipped(tmp_path / "train-1.zip", ["dog/7.png"])
    images = ZippedImages([first, second])
    assert images.classes == ("cat", "dog")
    assert images.labels.tolist() == [0, 0, 1, 1]
    assert images.images[:, 0, 0, 0].tolist() == [1, 2, 0, 0]
    assert ZippedImages([second], images.classes).labels.tolist() == [1]


def test_zipped_images_are_rgb(tmp_path: Path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("cat/0.png", cv2.imencode(".png", np.uint8([[[3, 2, 1]]]))[1].tobytes())  # OpenCV's BGR
    assert ZippedImages([tmp_path / "a.zip"]).images.tolist() == [[[[1, 2, 3]]]]


def test_zipped_images_report_what_is_wrong(tmp_path: Path):
    with pytest.raises(DatasetError, match=r"none\.zip is missing"):
        ZippedImages([tmp_path / "none.zip"])
    (tmp_path / "bad.zip").write_bytes(b"rubbish")
    with pytest.raises(DatasetError, match="no zip file"):
        ZippedImages([tmp_path / "bad.zip"])
    good = zipped(tmp_path / "a.zip", ["cat/0.png"])
    with pytest.raises(DatasetError, match="1 classes that the training pictures do not have: cat"):
        ZippedImages([good], ["dog"])
    with pytest.raises(DatasetError, match="one size"):
        ZippedImages([good, zipped(tmp_path / "b.zip", ["cat/1.png"], size=9)])
    with zipfile.ZipFile(tmp_path / "c.zip", "w") as archive:
        archive.writestr("cat/0.png", b"rubbish")
    with pytest.raises(DatasetError, match=r"cat/0\.png cannot be read as a picture"):
        ZippedImages([tmp_path / "c.zip"])
    with pytest.raises(DatasetError, match=r"a folder for each class; found loose\.png outside of any"):
        ZippedImages([zipped(tmp_path / "d.zip", ["loose.png"])])
    with pytest.raises(DatasetError, match="a folder for each class; found no pictures"):
        ZippedImages([zipped(tmp_path / "e.zip", [])])


@pytest.fixture(params=["folder", "zip"])
def image_root(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """The same pictures in folders, and in zip files of which two belong together."""
    root = trees.image_folder(tmp_path / "folders")
    if request.param == "folder":
        return root
    for archive, names in (("train-0", ["n01/b.PNG", "n02/a.png"]), ("train-1", ["n01/c.png"]), ("val", ["n02/d.png"])):
        with zipfile.ZipFile(tmp_path / f"{archive}.zip", "w") as opened:
            for name in names:
                opened.write(root / archive.partition("-")[0] / name, name)
    return tmp_path


def test_folders_and_zips_give_the_same_pictures(image_root: Path):
    train = ImageFolder(image_root, "train")
    val = ImageFolder(image_root, "val", train.classes)
    assert train.classes == val.classes == ("n01", "n02")
    names = [Path(train.name(index)).name for index in range(3)]
    assert sorted(names) == ["a.png", "b.PNG", "c.png"]
    for index, name in enumerate(names):
        rgb, label = train[index]
        number = ["a.png", "b.PNG", "c.png"].index(name)
        np.testing.assert_array_equal(rgb, trees.picture(number, (10 + number, 12)))
        assert label == train.labels[index] == (1 if name == "a.png" else 0)
    assert (len(val), val[0][1]) == (1, 1)
    for index in (-1, 3):
        with pytest.raises(IndexError):
            train[index]


def test_each_process_opens_its_own_zip_files(image_root: Path):
    images = ImageFolder(image_root, "train")
    expected = [images[index] for index in range(3)]  # this process has them open when the workers start
    copy = pickle.loads(pickle.dumps(images))
    loaded = DataLoader(images, batch_size=None, num_workers=2)
    for (rgb, label), (loaded_rgb, loaded_label), (copied, _) in zip(expected, loaded, copy, strict=True):
        np.testing.assert_array_equal(rgb, loaded_rgb)
        np.testing.assert_array_equal(rgb, copied)
        assert label == loaded_label


def test_a_process_that_was_forked_does_not_read_through_its_parents_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    zipped(tmp_path / "train.zip", ["cat/0.png"])
    images, opened = ImageFolder(tmp_path, "train"), []

    class Counted(zipfile.ZipFile):
        def __init__(self, path: Path) -> None:
            opened.append(os.getpid())
            super().__init__(path)

    monkeypatch.setattr(zipfile, "ZipFile", Counted)
    parent = os.getpid()
    for _ in range(2):
        images[0]
    monkeypatch.setattr(os, "getpid", lambda: parent + 1)
    for _ in range(2):
        images[0]
    assert opened == [parent, parent + 1]


def test_image_folders_report_what_is_wrong(tmp_path: Path):
    with pytest.raises(DatasetError, match=rf"neither the folder {tmp_path}/train nor .*train\*\.zip.*www\.image-net"):
        ImageFolder(tmp_path, "train")
    trees.write(tmp_path / "val" / "ILSVRC2012_val_00000001.png", trees.picture(0))
    with pytest.raises(DatasetError, match="each class must have a folder of its own"):
        ImageFolder(tmp_path, "val")
    trees.image_folder(tmp_path)
    with pytest.raises(DatasetError, match="val has 1 classes that the training pictures do not have: n02"):
        ImageFolder(tmp_path, "val", ["n01"])
    images = ImageFolder(tmp_path, "train")
    (tmp_path / "train" / "n01" / "b.PNG").write_bytes(b"rubbish")
    with pytest.raises(DatasetError, match=r"n01/b\.PNG cannot be read as a picture"):
        images[0]
    (tmp_path / "train" / "n01" / "b.PNG").unlink()
    with pytest.raises(DatasetError, match=r"n01/b\.PNG cannot be read"):
        images[0]


def test_a_damaged_entry_of_a_zip_is_named(tmp_path: Path):
    path = zipped(tmp_path / "train.zip", ["cat/0.png", "cat/1.png"])
    whole = path.read_bytes()
    place = whole.index(b"IDAT") + 8
    path.write_bytes(whole[:place] + bytes([whole[place] ^ 255]) + whole[place + 1 :])
    images = ImageFolder(tmp_path, "train")
    with pytest.raises(DatasetError, match=r"cat/0\.png cannot be read: Bad CRC"):
        images[0]
    assert images[1][0].max() == 1


@pytest.mark.data
def test_tiny_imagenet_is_read_from_its_zips(data_dir: Path):
    val = ImageFolder(data_dir / "tiny-imagenet", "val")
    assert val[0][0].shape == (64, 64, 3)
    assert len(val.classes) > 100
