import logging
from fnmatch import fnmatch
from pathlib import Path

import cv2
import numpy as np
import pytest

from bsdnet.classes import ADE20K_150, CITYSCAPES_19
from bsdnet.errors import ConfigError, DatasetError, SinkError
from tests.trainer import trees
from trainer.datasets.ade20k import ADE20K
from trainer.datasets.cityscapes import Cityscapes, save_cityscapes_prediction

LABEL_IDS = {
    "road": 7, "sidewalk": 8, "building": 11, "wall": 12, "fence": 13, "pole": 17, "traffic light": 19,
    "traffic sign": 20, "vegetation": 21, "terrain": 22, "sky": 23, "person": 24, "rider": 25, "car": 26,
    "truck": 27, "bus": 28, "train": 31, "motorcycle": 32, "bicycle": 33,
}  # fmt: skip
NAME = "berlin_000000_000019"


def test_label_ids_become_train_ids(tmp_path: Path):
    labels = Cityscapes(trees.cityscapes(tmp_path), "val")[0][1].ravel()[:34]
    names = {label_id: name for name, label_id in LABEL_IDS.items()}
    expected = [CITYSCAPES_19.names.index(names[label_id]) if label_id in names else 255 for label_id in range(34)]
    assert labels.tolist() == expected


def test_cities_are_the_recordings(tmp_path: Path):
    root = trees.cityscapes(tmp_path)
    assert Cityscapes(root, "trainval").groups == ["aachen", "bochum", "lindau"]
    kept = Cityscapes(root, "train", only=["bochum"])
    assert [kept.name(index) for index in range(2)] == ["bochum_000000_000019", "bochum_000001_000019"]
    assert Cityscapes(root, "train", without=["bochum"]).groups == ["aachen"]
    with pytest.raises(DatasetError, match="Cityscapes train has no recording lindau; its recordings are aachen, boch"):
        Cityscapes(root, "train", only=["lindau"])


def test_the_test_split_has_no_labels(tmp_path: Path):
    root = trees.cityscapes(tmp_path)
    assert all((labels == 255).all() for _, labels in Cityscapes(root, "test"))
    (root / "gtFine").rename(root / "elsewhere")
    assert len(Cityscapes(root, "test")) == 2


def test_an_excerpt_is_told_from_the_whole(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    Cityscapes(trees.cityscapes(tmp_path), "val")
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert f"Cityscapes val: 2 of 500 pictures are in {tmp_path}" in caplog.text


def test_predictions_are_saved_as_the_server_wants(tmp_path: Path):
    labels = np.resize(np.arange(19, dtype=np.uint8), (1024, 2048))
    path = save_cityscapes_prediction(tmp_path, NAME, labels)
    assert fnmatch(path.name, f"{NAME}*.png")
    saved = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    assert (saved.dtype, saved.shape) == (np.uint8, (1024, 2048))
    assert saved[0, :19].tolist() == list(LABEL_IDS.values())
    np.testing.assert_array_equal(Cityscapes.table[saved], labels)


def test_predictions_that_the_server_would_refuse_are_not_saved(tmp_path: Path):
    good = np.zeros((1024, 2048), np.uint8)
    with pytest.raises(ConfigError, match=r"no name of a Cityscapes picture.*berlin_000000_000019"):
        save_cityscapes_prediction(tmp_path, f"{NAME}_leftImg8bit", good)
    for wrong in (good[:512, :1024], good.T, good[None], good.astype(np.int64)):
        with pytest.raises(ConfigError, match="must be 1024x2048"):
            save_cityscapes_prediction(tmp_path, NAME, wrong)
    for label in (19, 255):
        with pytest.raises(ConfigError, match=f"train ids 0 to 18, got {label}"):
            save_cityscapes_prediction(tmp_path, NAME, np.full_like(good, label))
    assert not list(tmp_path.iterdir())
    with pytest.raises(SinkError, match="cannot be written"):
        save_cityscapes_prediction(tmp_path / "nowhere", NAME, good)


def test_the_classes_of_ade20k_begin_at_one(tmp_path: Path):
    dataset = ADE20K(trees.ade20k(tmp_path), "train")
    assert [dataset.name(index) for index in range(2)] == ["ADE_train_00000001", "ADE_train_00000002"]
    assert dataset[1][1].ravel()[:151].tolist() == [255, *range(150)]
    assert len(ADE20K(tmp_path, "trainval")) == 4
    assert dataset.groups == []


@pytest.mark.data
def test_real_cityscapes_shows_a_street(data_dir: Path):
    dataset = Cityscapes(data_dir / "cityscapes-sample", "val")
    rgb, labels = dataset[0]
    assert rgb.shape == (1024, 2048, 3)
    assert dataset.name(0) == "aachen_000003_000019"
    rows = {name: np.nonzero(labels == CITYSCAPES_19.names.index(name))[0].mean() for name in ("sky", "road", "car")}
    assert rows["sky"] < rows["car"] < rows["road"]
    assert (labels == 255).mean() < 0.2


@pytest.mark.data
def test_real_ade20k_shows_what_it_says(data_dir: Path):
    rgb, labels = ADE20K(data_dir / "ade20k-sample", "val")[0]
    assert rgb.shape == (512, 683, 3)
    seen = {ADE20K_150.names[label] for label in np.unique(labels) if label != 255}
    assert seen == {"wall", "building", "sky", "tree", "road", "grass", "plant"}
