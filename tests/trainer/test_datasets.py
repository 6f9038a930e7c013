import shutil
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest

from bsdnet.errors import DatasetError
from trainer.datasets.camvid import CamVid
from trainer.datasets.imagenet import ZippedImages


def test_camvid_pairs_pictures_with_labels(street_camvid: Path):
    dataset = CamVid(street_camvid, "train")
    assert len(dataset) == 12
    for index in range(len(dataset)):
        rgb, labels = dataset[index]
        assert rgb.shape == (96, 128, 3)
        assert rgb.dtype == labels.dtype == np.uint8
        assert labels.shape == (96, 128)
        assert set(np.unique(labels)) <= {*range(11), 255}
    sky = dataset[0][1] == 0
    assert dataset[0][0][sky][:, 2].mean() > dataset[0][0][sky][:, 0].mean()  # RGB: the sky is blue


def test_camvid_drives(street_camvid: Path):
    assert CamVid(street_camvid, "train").drives == ["A", "B"]
    assert CamVid(street_camvid, "train", only=["B"]).drives == ["B"]
    assert len(CamVid(street_camvid, "train", without=["B"])) == 6
    assert len(CamVid(street_camvid, "trainval")) == 15
    with pytest.raises(DatasetError, match="no drive X; its drives are A, B"):
        CamVid(street_camvid, "train", without=["X"])
    with pytest.raises(DatasetError, match="no pictures are left"):
        CamVid(street_camvid, "val", without=["C"])


def test_camvid_reports_what_is_missing(street_camvid: Path, tmp_path: Path):
    with pytest.raises(DatasetError, match="train is missing"):
        CamVid(tmp_path, "train")
    shutil.copytree(street_camvid, tmp_path, dirs_exist_ok=True)
    label = min((tmp_path / "valannot").iterdir())
    label.unlink()
    with pytest.raises(DatasetError, match=f"1 label files are missing, the first is .*{label.name}"):
        CamVid(tmp_path, "val")
    label.write_bytes(b"rubbish")
    with pytest.raises(DatasetError, match=rf"{label.name} cannot be read"):
        CamVid(tmp_path, "val")[0]
    cv2.imwrite(str(label), np.full((96, 128), 12, np.uint8))
    with pytest.raises(DatasetError, match="holds the label 12; expected class indices 0 to 10, and 11 for no class"):
        CamVid(tmp_path, "val")[0]
    cv2.imwrite(str(label), np.tile(np.uint8([10, 11, 255]), (96, 43))[:, :128])
    assert set(np.unique(CamVid(tmp_path, "val")[0][1])) == {10, 255}
    cv2.imwrite(str(label), np.zeros((10, 10), np.uint8))
    with pytest.raises(DatasetError, match="shape"):
        CamVid(tmp_path, "val")[0]
    shutil.rmtree(tmp_path / "test")
    (tmp_path / "test").mkdir()
    with pytest.raises(DatasetError, match="holds no"):
        CamVid(tmp_path, "test")


@pytest.mark.data
def test_camvid_as_published(data_dir: Path):
    sizes = {split: len(CamVid(data_dir / "camvid", split)) for split in ("train", "val", "test", "trainval")}
    assert sizes == {"train": 367, "val": 101, "test": 233, "trainval": 468}
    rgb, labels = CamVid(data_dir / "camvid", "test")[0]
    assert rgb.shape == (360, 480, 3)
    assert (labels == 3).sum() > (labels == 2).sum() > 0  # more road than poles


def zipped(path: Path, names: list[str], size: int = 8) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for number, name in enumerate(names):
            picture = np.full((size, size, 3), number, np.uint8)
            archive.writestr(name, cv2.imencode(".png", picture)[1].tobytes())
    return path


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
    with pytest.raises(DatasetError, match="is missing"):
        ZippedImages([tmp_path / "none.zip"])
    (tmp_path / "bad.zip").write_bytes(b"rubbish")
    with pytest.raises(DatasetError, match="no zip file"):
        ZippedImages([tmp_path / "bad.zip"])
    good = zipped(tmp_path / "a.zip", ["cat/0.png"])
    with pytest.raises(DatasetError, match="do not have: cat"):
        ZippedImages([good], ["dog"])
    with pytest.raises(DatasetError, match="one size"):
        ZippedImages([good, zipped(tmp_path / "b.zip", ["cat/1.png"], size=9)])
    with zipfile.ZipFile(tmp_path / "c.zip", "w") as archive:
        archive.writestr("cat/0.png", b"rubbish")
    with pytest.raises(DatasetError, match=r"cat/0\.png is no picture"):
        ZippedImages([tmp_path / "c.zip"])
