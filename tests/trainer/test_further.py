"""Other data sets beside a run's own, as far as their labels say what its own do."""

import json
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bsdnet.classes import CAMVID_11, CITYSCAPES_19
from bsdnet.errors import ConfigError, DatasetError
from bsdnet.modeling.bsdnet import BSDNet
from tests.trainer import trees
from tests.trainer.command import assert_one_line, run, train
from tests.trainer.test_bsdnet_teacher import write
from tests.trainer.tiny import TINY
from trainer.data import with_further
from trainer.datasets.camvid import CamVid
from trainer.datasets.cityscapes import Cityscapes
from trainer.datasets.combining import Relabelled
from trainer.datasets.contract import TAUGHT
from trainer.datasets.folder import LabelledFolder, save_pair, write_classes
from trainer.datasets.labelmefacade import LabelMeFacade
from trainer.segmentation import SegmentationData

MAPPING = {"building": ["building", "door", "window"], "tree": ["vegetation"], "car": ["car"]}


@pytest.fixture
def facades(tmp_path: Path) -> Path:
    return trees.labelmefacade(tmp_path / "facades")


@pytest.fixture
def mapping(tmp_path: Path) -> Path:
    file = tmp_path / "classes.toml"
    file.write_text("".join(f"{name} = {json.dumps(names)}\n" for name, names in MAPPING.items()))
    return file


def test_labels_are_said_in_the_other_classes(facades: Path):
    images = LabelMeFacade(facades, "all")
    relabelled = Relabelled(images, CAMVID_11, MAPPING | {"car": ["car", "Car"]})
    assert (len(relabelled), relabelled.name(1), relabelled.classes) == (3, "a", CAMVID_11)
    building, tree, car = CAMVID_11.indices(["building", "tree", "car"])
    # various, building, car, door, pavement, road, sky, vegetation, window
    expected = [TAUGHT, building, car, building, TAUGHT, TAUGHT, TAUGHT, tree, building]
    rgb, labels = pickle.loads(pickle.dumps(relabelled))[2]
    np.testing.assert_array_equal(rgb, images[2][0])
    np.testing.assert_array_equal(labels, np.array(expected)[images[2][1]])
    assert labels.dtype == np.uint8


def test_without_a_mapping_classes_are_those_of_the_same_name(facades: Path, tmp_path: Path):
    labels = Relabelled(LabelMeFacade(facades, "all"), CAMVID_11)[0][1]
    same = {CAMVID_11.names[label] for label in np.unique(labels) if label != TAUGHT}
    assert same == {"building", "car", "pavement", "road", "sky"}
    cityscapes = Cityscapes(trees.cityscapes(tmp_path / "city"), "train")
    labels = Relabelled(cityscapes, CAMVID_11)[0][1]
    assert (labels[cityscapes[0][1] == 255] == 255).all()  # what has no class there has none here either
    road, car = CITYSCAPES_19.indices(["road", "car"])
    assert set(labels[cityscapes[0][1] == road]) == set(CAMVID_11.indices(["road"]))
    assert set(labels[cityscapes[0][1] == car]) == set(CAMVID_11.indices(["car"]))


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        ({"barn": ["building"]}, "no class 'barn' in camvid-11"),
        ({"building": ["door"], "car": ["door"]}, "'door' of labelmefacade-9 cannot be two classes"),
        ({}, "labelmefacade-9 has no class of camvid-11.*--further-classes"),
    ],
)
def test_a_mapping_that_does_not_fit(facades: Path, mapping: dict[str, list[str]], message: str):
    with pytest.raises(ConfigError, match=message):
        Relabelled(LabelMeFacade(facades, "all"), CAMVID_11, mapping)


def test_they_go_beside_labels_alone(facades: Path, street_camvid: Path, tmp_path: Path):
    images = CamVid(street_camvid, "train")
    data = SegmentationData(train=images, val=images, description={"dataset": "camvid"})
    assert with_further(data, "camvid", [], None).further is None
    sources = [("labelmefacade", facades), ("cityscapes", trees.cityscapes(tmp_path / "city"))]
    found = with_further(data, "camvid", sources, None)
    assert found.further is not None
    assert len(found.further) == 3 + 4
    assert found.description == {
        "dataset": "camvid",
        "further": ["labelmefacade", "cityscapes"],
        "further_images": 7,
        "further_classes": None,
    }
    with pytest.raises(ConfigError, match="--further needs labelled data"):
        with_further(replace(data, labelled=False), "video", sources, None)
    with pytest.raises(DatasetError, match=r"the folder .* is missing"):
        with_further(data, "camvid", [("ade20k", facades)], None)


def test_a_held_out_drive_does_not_come_back_with_them(facades: Path, street_camvid: Path):
    images = CamVid(street_camvid, "train", without=["A"])
    data = SegmentationData(train=images, val=images, description={})
    with pytest.raises(ConfigError, match="--further camvid is the data set of --dataset itself"):
        with_further(data, "camvid", [("labelmefacade", facades), ("camvid", street_camvid)], None)


def test_ones_own_labels_may_have_others_of_ones_own_beside_them(tmp_path: Path):
    for name in ("yard", "street"):
        write_classes(tmp_path / name, CAMVID_11)
        save_pair(tmp_path / name, "train", "a/b", trees.picture(0), np.zeros(trees.SIZE, np.uint8))
    images = LabelledFolder(tmp_path / "yard", "train")
    data = SegmentationData(train=images, val=images, description={})
    further = with_further(data, "folder", [("folder", tmp_path / "street")], None, root=tmp_path / "yard").further
    assert further is not None
    assert len(further) == 1
    with pytest.raises(ConfigError, match="--further folder is the data set of --dataset itself"):
        with_further(data, "folder", [("folder", tmp_path / "street/../yard")], None, root=tmp_path / "yard")


def test_one_file_serves_several_of_them(facades: Path, street_camvid: Path, tmp_path: Path):
    images = CamVid(street_camvid, "train")
    data = SegmentationData(train=images, val=images, description={})
    sources = [("labelmefacade", facades), ("cityscapes", trees.cityscapes(tmp_path / "city"))]
    file = tmp_path / "classes.toml"
    file.write_text('building = ["building", "door"]\npavement = ["Sidewalk"]\n')
    further = with_further(data, "camvid", sources, file).further
    assert further is not None
    building, pavement = CAMVID_11.indices(["building", "pavement"])
    assert set(np.unique(further[0][1])) == {building, TAUGHT}
    assert set(np.unique(further[3][1])) == {building, pavement, TAUGHT, 255}
    file.write_text('building = ["barn"]\n')
    with pytest.raises(ConfigError, match=r"classes\.toml: none of labelmefacade, cityscapes has a class 'barn'"):
        with_further(data, "camvid", sources, file)


def test_a_run_learns_from_them(street_camvid: Path, facades: Path, mapping: Path, tmp_path: Path):
    given = ["--further", f"labelmefacade={facades}", "--further-classes", str(mapping)]
    teacher = write(tmp_path / "teacher.safetensors", BSDNet(replace(TINY, num_classes=11)))
    taught = ["--distill", "sidm", "--teacher", teacher]
    for name, more in (("labels", []), ("taught", taught)):
        result = train(street_camvid, tmp_path / name, *more, *given, "--further-share", "0.8")
        assert result.exit_code == 0, result.stderr
        described = json.loads((tmp_path / name / "run.json").read_text())
        assert (described["further"], described["further_images"]) == (["labelmefacade"], 3)
        assert described["further_share"] == 0.8
        assert described["further_classes"] == "classes.toml"
    again = train(street_camvid, tmp_path / "labels", "--resume")
    assert_one_line(again, "was made with further = ['labelmefacade'], this run has None")
    plain = train(street_camvid, tmp_path / "plain")
    assert plain.exit_code == 0, plain.stderr
    described = json.loads((tmp_path / "plain" / "run.json").read_text())
    assert described["further"] is None


def test_a_teacher_learns_from_them(street_camvid: Path, facades: Path, tmp_path: Path):
    result = run(
        "teacher", "--dataset", "camvid", "--data-dir", street_camvid, "--output", tmp_path / "run", "--model",
        "segformer-b0", "--further", f"labelmefacade={facades}", "--iterations", "2", "--batch-size", "2",
        "--crop-size", "64x64", "--set", "train_size=128x96", "--eval-every", "2",
    )  # fmt: skip
    assert result.exit_code == 0, result.stderr
    assert json.loads((tmp_path / "run" / "run.json").read_text())["further"] == ["labelmefacade"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--further", "facades"],
            "expected NAME=FOLDER with a name of labelmefacade, cityscapes, camvid, ade20k, folder",
        ),
        (["--further", "video=clips"], "expected NAME=FOLDER"),
        (["--further", "camvid="], "expected NAME=FOLDER"),
        (["--further-share", "0.3"], "--further-share is of no use without --further"),
        (["--further-classes", "a.toml"], "--further-classes is of no use without --further"),
    ],
)
def test_what_the_command_refuses(street_camvid: Path, tmp_path: Path, arguments: list[str], message: str):
    result = train(street_camvid, tmp_path / "run", *arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert not (tmp_path / "run").exists()
