from pathlib import Path

import cv2
import numpy as np
import pytest

from bsdnet.errors import DatasetError
from tests.trainer import trees
from trainer.datasets.labelmefacade import LabelMeFacade


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return trees.labelmefacade(tmp_path)


def test_colours_of_16_bits_become_classes(root: Path):
    dataset = LabelMeFacade(root, "all")
    assert [dataset.name(index) for index in range(len(dataset))] == ["b", "a", "c"]  # train, then test
    for index, height in enumerate((24, 24, 25)):
        rgb, labels = dataset[index]
        assert (rgb.shape, labels.dtype) == ((height, 32, 3), np.uint8)
        np.testing.assert_array_equal(labels, np.arange(height * 32).reshape(height, 32) % 9)
    assert dataset.classes.names[1:3] == ("building", "car")
    assert dataset.groups == []


def test_parts_are_those_of_the_lists(root: Path):
    assert [len(LabelMeFacade(root, part)) for part in ("train", "test")] == [1, 2]
    assert LabelMeFacade(root, "train").name(0) == "b"
    (root / "train.txt").write_text("images/other.jpg\n")
    with pytest.raises(DatasetError, match=r"no picture of \S*images is in \S*train\.txt"):
        LabelMeFacade(root, "train")
    (root / "train.txt").unlink()
    with pytest.raises(DatasetError, match=r"train\.txt cannot be read.*github\.com/cvjena/labelmefacade"):
        LabelMeFacade(root, "all")


def test_labels_of_8_bits_without_alpha_are_read_too(root: Path):
    labels = root / "labels" / "b.png"
    wide = cv2.imread(str(labels), cv2.IMREAD_UNCHANGED)
    expected = LabelMeFacade(root, "train")[0][1]
    trees.write(labels, (wide[:, :, 2::-1] >> 8).astype(np.uint8))
    np.testing.assert_array_equal(LabelMeFacade(root, "train")[0][1], expected)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.full((24, 32, 3), (0, 64, 0), np.uint8), r"holds the colour \(0, 64, 0\), which none of LabelMeFacade's"),
        (np.full((24, 32, 3), (128, 1, 0), np.uint8), r"holds the colour \(128, 1, 0\)"),
        (np.zeros((24, 32), np.uint8), "must be a colour picture"),
    ],
)
def test_other_labels_are_refused(root: Path, labels: np.ndarray, message: str):
    trees.write(root / "labels" / "b.png", labels)
    with pytest.raises(DatasetError, match=message):
        LabelMeFacade(root, "train")[0]


def test_a_picture_without_labels_is_refused(root: Path):
    (root / "labels" / "c.png").unlink()
    with pytest.raises(DatasetError, match="1 of 3 pictures have no labels"):
        LabelMeFacade(root, "all")
