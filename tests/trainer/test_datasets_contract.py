"""What every segmentation data set must do, held over each of them."""

import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from torch.utils.data import DataLoader, Subset

from bsdnet.classes import ADE20K_150, CAMVID_11, CITYSCAPES_19
from tests.stream.media import numbered, write_clip
from tests.trainer import trees
from trainer.datasets.ade20k import ADE20K
from trainer.datasets.camvid import CamVid, CamVidOriginal
from trainer.datasets.cityscapes import Cityscapes
from trainer.datasets.contract import LabelledImages
from trainer.datasets.demo import DemoStreet
from trainer.datasets.labelmefacade import LabelMeFacade
from trainer.datasets.video import UnlabelledImages

Pairs = dict[int, tuple[np.ndarray, np.ndarray]]

DRAWN: dict[str, Callable[[Path], LabelledImages]] = {
    "cityscapes": lambda root: Cityscapes(root / "cityscapes", "trainval"),
    "cityscapes-test": lambda root: Cityscapes(root / "cityscapes", "test"),
    "camvid": lambda root: CamVid(root / "camvid", "trainval"),
    "camvid-original": lambda root: CamVidOriginal(root / "camvid-original", "trainval"),
    "ade20k": lambda root: ADE20K(root / "ade20k", "trainval"),
    "labelmefacade": lambda root: LabelMeFacade(root / "labelmefacade", "all"),
    "demo": lambda _: DemoStreet("val", size=(96, 128)),
    "unlabelled": lambda root: UnlabelledImages([root / "clip.mp4", root / "ade20k/images/training"], CAMVID_11),
}
REAL: dict[str, Callable[[Path], LabelledImages]] = {
    "cityscapes": lambda root: Cityscapes(root / "cityscapes-sample", "trainval"),
    "camvid": lambda root: CamVid(root / "camvid", "test"),
    "ade20k": lambda root: ADE20K(root / "ade20k-sample", "val"),
    "unlabelled": lambda root: UnlabelledImages([root / "video"], CAMVID_11, every=100),
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, street_camvid: Path) -> Path:
    """Every data set that can be drawn, each in a folder."""
    folder = tmp_path_factory.mktemp("datasets")
    (folder / "camvid").symlink_to(street_camvid)
    trees.cityscapes(folder / "cityscapes")
    trees.camvid_original(folder / "camvid-original")
    trees.ade20k(folder / "ade20k")
    trees.labelmefacade(folder / "labelmefacade")
    write_clip(folder / "clip.mp4", [numbered(index) for index in range(6)])
    return folder


@pytest.fixture(
    scope="module",
    params=[(DRAWN, name) for name in DRAWN] + [pytest.param((REAL, name), marks=pytest.mark.data) for name in REAL],
    ids=lambda param: f"{'drawn' if param[0] is DRAWN else 'real'}-{param[1]}",
)
def dataset(request: pytest.FixtureRequest, root: Path) -> LabelledImages:
    factories, name = request.param
    return factories[name](root if factories is DRAWN else request.getfixturevalue("data_dir"))


@pytest.fixture(scope="module")
def pairs(dataset: LabelledImages) -> Pairs:
    """The first and the last pair, by index."""
    return {index: dataset[index] for index in (0, len(dataset) - 1)}


def check_pair(pair: tuple[np.ndarray, np.ndarray], expected: tuple[np.ndarray, np.ndarray]) -> None:
    for array, wanted in zip(pair, expected, strict=True):
        np.testing.assert_array_equal(array, wanted)


def test_pairs_are_pictures_with_labels_of_the_class_set(dataset: LabelledImages, pairs: Pairs):
    if not isinstance(dataset, LabelMeFacade):  # which networks learn from, but none has its classes
        assert any(dataset.classes is known for known in (ADE20K_150, CAMVID_11, CITYSCAPES_19))
    for rgb, labels in pairs.values():
        assert rgb.dtype == labels.dtype == np.uint8
        assert rgb.ndim == 3
        assert rgb.shape == (*labels.shape, 3)
        assert set(np.unique(labels)) <= {*range(len(dataset.classes)), 255}
        for array in (rgb, labels):
            assert array.flags.c_contiguous
            assert array.flags.writeable


def test_the_same_index_gives_the_same_pair_whatever_became_of_the_first(dataset: LabelledImages, pairs: Pairs):
    for index, pair in pairs.items():
        for array in dataset[index]:
            array[:] = 0
        check_pair(dataset[index], pair)


def test_a_pickled_copy_reads_the_same(dataset: LabelledImages, pairs: Pairs):
    copy = pickle.loads(pickle.dumps(dataset))
    assert [copy.name(index) for index in range(len(copy))] == [dataset.name(index) for index in range(len(dataset))]
    check_pair(copy[0], pairs[0])


def test_a_worker_process_reads_what_this_one_has_read(dataset: LabelledImages, pairs: Pairs):
    loader = DataLoader(Subset(dataset, list(pairs)), batch_size=None, num_workers=1)
    for pair, expected in zip(loader, pairs.values(), strict=True):
        check_pair(pair, expected)


def test_names_tell_pairs_apart(dataset: LabelledImages):
    names = [dataset.name(index) for index in range(len(dataset))]
    assert len(set(names)) == len(dataset) > 1


def test_the_first_picture_is_not_the_last(pairs: Pairs):
    (one, _), (other, _) = pairs.values()
    assert one.shape != other.shape or (one != other).any()


def test_there_is_nothing_before_the_first_and_after_the_last(dataset: LabelledImages):
    for index in (-1, len(dataset)):
        with pytest.raises(IndexError):
            dataset[index]
        with pytest.raises(IndexError):
            dataset.name(index)
