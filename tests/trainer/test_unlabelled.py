"""Pictures without labels beside labelled ones: mosaics of small pictures, and several sources as one."""

import json
import pickle
import zipfile
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from bsdnet.classes import CAMVID_11
from bsdnet.errors import ConfigError, DatasetError
from bsdnet.modeling.bsdnet import BSDNet
from tests.trainer.command import assert_one_line, run, train
from tests.trainer.test_bsdnet_teacher import write
from tests.trainer.tiny import TINY
from tests.trainer.trees import picture, zipped
from tests.trainer.trees import write as write_picture
from trainer.data import with_unlabelled
from trainer.datasets.combining import Part, Together
from trainer.datasets.mosaic import Mosaics
from trainer.datasets.video import UnlabelledImages
from trainer.recipes import CAMVID_360
from trainer.segmentation import SegmentationData


@pytest.fixture
def tiles(tmp_path: Path) -> Path:
    """Zip files of ten grey pictures of 64x64, as bright as their numbers in each file."""
    folder = tmp_path / "tiles"
    folder.mkdir()
    for number in range(2):
        zipped(folder / f"train-{number}.zip", [f"n{number}/{index}.png" for index in range(5)], size=64)
    return folder


def test_mosaics_are_filled_with_small_pictures(tiles: Path):
    mosaics = Mosaics(tiles, CAMVID_11, (200, 300))
    assert len(mosaics) == 10
    sides = set()
    for index in range(10):
        rgb, labels = mosaics[index]
        assert (rgb.shape, rgb.dtype, labels.shape, labels.dtype) == ((200, 300, 3), np.uint8, (200, 300), np.uint8)
        assert not labels.any()
        assert rgb[0, 0, 0] == index % 5  # its own picture comes first
        assert rgb.max() <= 4
        assert len(np.unique(rgb)) > 1
        assert all(np.array_equal(*pair) for pair in zip(mosaics[index], (rgb, labels), strict=True))  # always the same
        changes = np.flatnonzero(np.diff(rgb[0, :, 0].astype(int)))
        sides.update(changes[:1])
    assert len(sides) > 3  # tiles of many sizes
    assert min(sides) >= 40
    assert np.array_equal(pickle.loads(pickle.dumps(mosaics))[3][0], mosaics[3][0])  # as worker processes get them
    with pytest.raises(IndexError):
        mosaics[10]
    assert mosaics.name(3) == f"{tiles}#3"


def test_tiles_are_laid_whole_and_upright(tmp_path: Path):
    gradient = np.broadcast_to(np.arange(64, dtype=np.uint8)[:, None, None] * 4, (64, 64, 3))
    with zipfile.ZipFile(tmp_path / "train.zip", "w") as archive:
        archive.writestr("n0/a.png", cv2.imencode(".png", np.ascontiguousarray(gradient))[1].tobytes())
    rgb, _ = Mosaics(tmp_path, CAMVID_11, (900, 64))[0]
    assert (rgb == rgb[:, :1]).all()  # the same in each column
    assert rgb[0, 0, 0] < 8
    falls = np.flatnonzero(np.diff(rgb[:, 0, 0].astype(int)) < -100)
    assert len(falls) > 5
    assert len(set(np.diff(falls))) == 1  # each as high as the one before


def test_without_small_pictures(tmp_path: Path):
    with pytest.raises(DatasetError, match="neither the folder"):
        Mosaics(tmp_path, CAMVID_11, (64, 64))


def test_several_sources_are_one(tiles: Path, tmp_path: Path):
    write_picture(tmp_path / "street" / "a.png", picture(1))
    parts = [Mosaics(tiles, CAMVID_11, (64, 96)), UnlabelledImages([tmp_path / "street"], CAMVID_11)]
    both = Together(parts)
    assert len(both) == 11
    assert np.array_equal(both[9][0], parts[0][9][0])
    assert np.array_equal(both[10][0], parts[1][0][0])
    assert both.name(10) == str(tmp_path / "street" / "a.png")
    with pytest.raises(IndexError):
        both[11]


def test_a_part_has_pictures_and_names_of_the_whole(tiles: Path):
    whole = Mosaics(tiles, CAMVID_11, (64, 96))
    part = Part(whole, [7, 3])
    assert [part.name(index) for index in range(len(part))] == [whole.name(7), whole.name(3)]
    assert np.array_equal(part[1][0], whole[3][0])


@pytest.mark.parametrize(
    ("changes", "labelled", "message"),
    [({"distill": "none"}, True, "needs a teacher: not --distill none"), ({}, False, "not --dataset video")],
)
def test_what_they_need(tiles: Path, changes: dict[str, str], labelled: bool, message: str):
    images = Mosaics(tiles, CAMVID_11, (64, 96))
    data = SegmentationData(train=images, val=images, labelled=labelled, description={})
    with pytest.raises(ConfigError, match=message):
        with_unlabelled(data, [tiles], 1, replace(CAMVID_360, **changes))
    assert with_unlabelled(data, [], 1, replace(CAMVID_360, **changes)).unlabelled is None


def test_small_pictures_beside_others_are_refused(tiles: Path):
    images = Mosaics(tiles, CAMVID_11, (64, 96))
    write_picture(tiles / "street.png", picture(1))
    with pytest.raises(ConfigError, match="and others beside them"):
        with_unlabelled(SegmentationData(train=images, val=images, description={}), [tiles], 1, CAMVID_360)


def test_a_run_learns_from_them(street_camvid: Path, tiles: Path, tmp_path: Path):
    teacher = write(tmp_path / "teacher.safetensors", BSDNet(replace(TINY, num_classes=11)))
    arguments = ["--distill", "sidm", "--teacher", teacher, "--unlabelled", str(tiles)]
    assert_one_line(
        train(street_camvid, tmp_path / "no", *arguments, "--unlabelled-share", "1.5"), "unlabelled_share", exit_code=2
    )
    missing = train(street_camvid, tmp_path / "no", *arguments, "--unlabelled", str(tmp_path / "missing"))
    assert_one_line(missing, "there is no video, picture or folder", "missing")
    result = train(street_camvid, tmp_path / "run", *arguments, "--unlabelled-share", "0.5")
    assert result.exit_code == 0, result.stderr
    described = json.loads((tmp_path / "run" / "run.json").read_text())
    assert described["unlabelled"] == ["tiles"]
    assert (described["images"], described["unlabelled_images"], described["unlabelled_share"]) == (12, 10, 0.5)
    again = train(street_camvid, tmp_path / "run", *arguments[:4], "--resume")
    assert_one_line(again, "was made with unlabelled = ['tiles'], this run has None")
    useless = train(street_camvid, tmp_path / "no", *arguments[:4], "--unlabelled-share", "0.5")
    assert "--unlabelled-share is of no use without --unlabelled" in useless.stderr
    assert not (tmp_path / "no").exists()  # nothing was begun
    other = run(
        "--dataset", "camvid", "--data-dir", street_camvid, "--output", tmp_path / "none", "--distill", "none",
        "--unlabelled", tiles,
    )  # fmt: skip
    assert_one_line(other, "--unlabelled needs a teacher", exit_code=2)
