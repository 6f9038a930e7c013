"""One's own labelled pictures."""

import struct
import zlib
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from bsdnet.classes import CAMVID_11, ClassSet
from bsdnet.errors import BsdnetError, ConfigError, DatasetError, SinkError
from tests.trainer import trees
from trainer.datasets.files import read_rgb
from trainer.datasets.folder import LabelledFolder, read_classes, save_pair, write_classes

CLASSES = ClassSet(name="yard", names=("gravel", 'the "wall"', "bin"), colors=((9, 8, 7), (255, 0, 0), (0, 0, 255)))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two recordings and a picture of none to train on, one picture to judge by."""
    write_classes(tmp_path, CLASSES)
    for number, name in enumerate(("train/monday/a.jpg", "train/tuesday/a.PNG", "train/b.png", "val/c.jpeg")):
        trees.write(tmp_path / "images" / name, trees.picture(number))
        labels = np.arange(np.prod(trees.SIZE)).reshape(trees.SIZE) % 4
        labels[labels == 3] = 255
        trees.write((tmp_path / "labels" / name).with_suffix(".png"), labels.astype(np.uint8))
    return tmp_path


def colored(color: tuple[int, int, int]) -> np.ndarray:
    picture = np.zeros((*trees.SIZE, 3), np.uint8)
    picture[:8], picture[8:16] = color, (255, 0, 0)
    return picture


def write_with_palette(path: Path, indices: np.ndarray, palette: list[tuple[int, int, int]]) -> None:
    height, width = indices.shape
    rows = np.pad(indices.astype(np.uint8), ((0, 0), (1, 0)))  # each begins with its filter, none
    chunks = {
        b"IHDR": struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0),
        b"PLTE": np.array(palette, np.uint8).tobytes(),
        b"IDAT": zlib.compress(rows.tobytes()),
        b"IEND": b"",
    }
    content = b"\x89PNG\r\n\x1a\n"
    for name, data in chunks.items():
        content += struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
    path.write_bytes(content)


def test_folders_in_a_name_are_recordings(root: Path):
    dataset = LabelledFolder(root, "train")
    assert [dataset.name(index) for index in range(3)] == ["b", "monday/a", "tuesday/a"]
    assert dataset.groups == ["monday", "tuesday"]
    assert [dataset.group(index) for index in range(3)] == ["", "monday", "tuesday"]
    assert dataset.classes == CLASSES
    assert len(LabelledFolder(root, "trainval")) == 4
    assert len(LabelledFolder(root, "train", only=["monday"])) == 1
    assert len(LabelledFolder(root, "train", without=["monday"])) == 2
    with pytest.raises(DatasetError, match="no recording wednesday"):
        LabelledFolder(root, "train", only=["wednesday"])


def test_linked_folders_are_recordings_and_hidden_ones_are_not(root: Path, tmp_path: Path):
    for kind in ("images", "labels"):
        (root / kind / "train" / "tuesday").rename(tmp_path / f"elsewhere-{kind}")
        (root / kind / "train" / "tuesday").symlink_to(tmp_path / f"elsewhere-{kind}")
    trees.write(root / "images/train/monday/.ipynb_checkpoints/a-checkpoint.jpg", trees.picture(0))
    assert LabelledFolder(root, "train").groups == ["monday", "tuesday"]


def test_pictures_and_labels_are_read_as_they_are(root: Path):
    rgb, labels = LabelledFolder(root, "train")[0]
    np.testing.assert_array_equal(rgb, trees.picture(2))
    assert set(np.unique(labels)) == {0, 1, 2, 255}


def test_labels_may_be_the_colours_of_the_classes(root: Path):
    trees.write(root / "labels/train/b.png", colored((9, 8, 7)))
    labels = LabelledFolder(root, "train")[0][1]
    assert (labels[:8] == 0).all()
    assert (labels[8:16] == 1).all()
    assert (labels[16:] == 255).all()  # black
    assert labels.dtype == np.uint8
    trees.write(root / "labels/train/b.png", colored((9, 8, 6)))
    with pytest.raises(DatasetError, match=r"b\.png holds the colour \(9, 8, 6\), which no class of classes\.toml has"):
        LabelledFolder(root, "train")[0]


def test_of_a_palette_the_colours_count(root: Path):
    path = root / "labels/train/b.png"
    rows = np.arange(np.prod(trees.SIZE)).reshape(trees.SIZE) % 3
    write_with_palette(path, rows, [(255, 0, 0), (9, 8, 7), (0, 0, 0)])
    np.testing.assert_array_equal(LabelledFolder(root, "train")[0][1], np.array([1, 0, 255])[rows])
    write_with_palette(path, rows, [(0, 0, 0), (1, 1, 1), (2, 2, 2)])
    with pytest.raises(DatasetError, match=r"holds the colour \(1, 1, 1\).*with a palette the colours count"):
        LabelledFolder(root, "train")[0]


def test_black_is_a_class_where_one_is_black(root: Path):
    write_classes(root, ClassSet(name="yard", names=("soot", "wall"), colors=((0, 0, 0), (255, 0, 0))))
    trees.write(root / "labels/train/b.png", colored((0, 0, 0)))
    assert set(np.unique(LabelledFolder(root, "train")[0][1])) == {0, 1}


def test_coloured_labels_need_colours_that_differ(root: Path):
    write_classes(root, ClassSet(name="yard", names=("a", "b"), colors=((9, 8, 7), (9, 8, 7))))
    trees.write(root / "labels/train/b.png", colored((9, 8, 7)))
    with pytest.raises(DatasetError, match="two classes the same colour"):
        LabelledFolder(root, "train")[0]


def test_labels_that_no_class_has_are_refused(root: Path):
    trees.write(root / "labels/train/b.png", np.full(trees.SIZE, 3, np.uint8))
    with pytest.raises(DatasetError, match=r"b\.png holds the label 3; the labelled folder has 0 to 2, 255"):
        LabelledFolder(root, "train")[0]
    assert cv2.imwrite(str(root / "labels/train/b.png"), np.zeros((*trees.SIZE, 3), np.uint16))
    with pytest.raises(DatasetError, match="one channel of 8 bits"):
        LabelledFolder(root, "train")[0]


def test_labels_that_lie_across_are_told_from_others(root: Path):
    height, width = trees.SIZE
    trees.write(root / "labels/train/b.png", np.zeros((width, height), np.uint8))
    with pytest.raises(DatasetError, match=r"its picture b\.png; where the picture is turned by its EXIF orientation"):
        LabelledFolder(root, "train")[0]
    trees.write(root / "labels/train/b.png", np.zeros((width, width), np.uint8))
    with pytest.raises(DatasetError, match=r"its picture b\.png$"):
        LabelledFolder(root, "train")[0]


@pytest.mark.parametrize(("orientation", "warns"), [(1, False), (2, True), (3, True)])
def test_a_picture_that_is_shown_turned_is_warned_of(
    root: Path, caplog: pytest.LogCaptureFixture, orientation: int, warns: bool
):
    (root / "images/train/b.png").unlink()
    path = trees.turned(root / "images/train/b.jpg", orientation, trees.SIZE)
    found = LabelledFolder(root, "train")
    for _ in range(2):
        np.testing.assert_array_equal(found[0][0], read_rgb(path))  # not turned: its labels are not
    assert [record.getMessage().split(" asks ")[0] for record in caplog.records] == [f"warning: {path}"] * warns


def test_labels_of_one_bit_are_refused(root: Path):
    path = root / "labels/train/b.png"
    assert cv2.imwrite(str(path), np.eye(*trees.SIZE, dtype=np.uint8), [cv2.IMWRITE_PNG_BILEVEL, 1])
    with pytest.raises(DatasetError, match=r"b\.png has 1-bit values, expected 8-bit ones"):
        LabelledFolder(root, "train")[0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda root: (root / "labels/train/monday/a.png").unlink(),
            r"1 of 3 pictures have no labels.*a\.jpg; what must lie where: docs",
        ),
        (lambda root: (root / "images/train/b.png").unlink(), "1 of 3 labels have no picture"),
        (lambda root: trees.write(root / "images/train/b.jpg", trees.picture(1)), "the same name but for its ending"),
        (lambda root: (root / "classes.toml").unlink(), r"classes\.toml cannot be read.*docs/datasets\.md"),
        (lambda root: (root / "classes.toml").write_text("name = [", "utf-8"), "is no TOML file"),
        (lambda root: (root / "classes.toml").write_bytes(b"name = '\xff'"), "is no TOML file"),
        (lambda root: (root / "classes.toml").write_text("name = 'a'", "utf-8"), r"must have name = \"...\", names ="),
        (
            lambda root: (root / "classes.toml").write_text("name = 'a'\nnames = ['b']\ncolors = [[1, 2]]", "utf-8"),
            r"classes\.toml: .*colors must be RGB triples",
        ),
        (
            lambda root: (root / "classes.toml").write_text("name='a'\nnames=['b']\ncolors=[[1,2,3]]\nsize=2", "utf-8"),
            "and not 'size'",
        ),
    ],
)
def test_what_cannot_be_used_is_named(root: Path, change, message: str):
    change(root)
    with pytest.raises(BsdnetError, match=message):
        LabelledFolder(root, "train")


def test_a_part_that_is_missing_is_named_with_what_belongs_there(root: Path):
    with pytest.raises(
        DatasetError, match=r"the folder \S*images/test is missing; what must lie where: docs/datasets\.md, \"Your own"
    ):
        LabelledFolder(root, "test")


def test_what_is_written_is_read_back(tmp_path: Path):
    labels = np.full(trees.SIZE, 255, np.uint8)
    labels[:4] = 10
    rgb = np.full((*trees.SIZE, 3), (200, 100, 50), np.uint8)
    write_classes(tmp_path, CAMVID_11)
    save_pair(tmp_path, "train", "a/b/000001", rgb, labels)
    dataset = LabelledFolder(tmp_path, "train")
    assert (dataset.classes, dataset.name(0), dataset.group(0)) == (CAMVID_11, "a/b/000001", "a/b")
    np.testing.assert_array_equal(dataset[0][1], labels)
    np.testing.assert_allclose(dataset[0][0], rgb, atol=4)
    assert read_classes(tmp_path) == CAMVID_11


def test_class_names_may_hold_anything_that_a_text_may(tmp_path: Path):
    odd = ClassSet(name='a"\\', names=("\n", "\x7f", "é # ]"), colors=((0, 0, 0), (1, 1, 1), (2, 2, 2)))
    write_classes(tmp_path, odd)
    assert read_classes(tmp_path) == odd
    file = tmp_path / "classes.toml"
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    assert read_classes(tmp_path) == odd


def test_names_that_differ_in_case_alone_are_refused(tmp_path: Path):
    write_classes(tmp_path, ClassSet(name="yard", names=("Car", "bin", "BIN", "car"), colors=((1, 2, 3),) * 4))
    with pytest.raises(ConfigError, match=r"classes\.toml: the class names 'bin' and 'BIN' must differ"):
        read_classes(tmp_path)


def test_there_is_room_for_254_classes(tmp_path: Path):
    many = ClassSet(name="many", names=tuple(map(str, range(255))), colors=((1, 2, 3),) * 255)
    write_classes(tmp_path, many)
    with pytest.raises(ConfigError, match=r"classes\.toml has 255 classes, expected at most 254"):
        read_classes(tmp_path)
    write_classes(tmp_path, replace(many, names=many.names[:254], colors=many.colors[:254]))
    save_pair(tmp_path, "train", "a", trees.picture(0), np.full(trees.SIZE, 253, np.uint8))
    assert (LabelledFolder(tmp_path, "train")[0][1] == 253).all()


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SinkError, match=r"classes\.toml cannot be written: File exists"):
        write_classes(tmp_path / "file", CAMVID_11)


def test_a_split_that_there_is_not(root: Path):
    with pytest.raises(DatasetError, match="has no split 'all'"):
        LabelledFolder(root, "all")
    with pytest.raises((ConfigError, DatasetError), match=r"classes\.toml"):
        LabelledFolder(root / "images", "train")
