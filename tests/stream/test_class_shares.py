import csv
from pathlib import Path

import numpy as np
import pytest

from bsdnet.classes import CAMVID_11
from bsdnet.errors import SinkError
from bsdnet.runtime.prediction import Prediction
from bsdnet.stream.class_shares import ClassSharesSink, class_shares
from bsdnet.stream.frame import StreamResult

from .media import INFO, result


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_shares_are_counted_and_void_belongs_to_nobody():
    labels = np.array([[0, 0, 1, 255], [3, 1, 0, 0]], np.uint8)
    np.testing.assert_allclose(class_shares(labels, 4), [0.5, 0.25, 0, 0.125])
    many = np.random.default_rng(0).integers(0, 11, (270, 481), np.uint8)
    expected = np.bincount(many.ravel(), minlength=11) / many.size
    np.testing.assert_allclose(class_shares(many, 11), expected)
    np.testing.assert_allclose(class_shares(many[:, ::2], 11).sum(), 1)  # rows apart in memory


def test_a_row_for_each_frame_with_its_time(tmp_path: Path):
    path = tmp_path / "classes.csv"
    sink = ClassSharesSink(path, CAMVID_11)
    sink.open(INFO)
    for index in (0, 2):
        sink.write(result(index))  # all of class `index`
        assert not path.exists()
        assert rows_of(tmp_path / "classes.csv.part")[-1]["frame"] == str(index), "it is there at once"
    sink.finish()
    rows = rows_of(path)
    assert [name for name in tmp_path.iterdir()] == [path]
    assert list(rows[0]) == ["frame", "time_s", *CAMVID_11.names]
    assert [(row["frame"], row["time_s"]) for row in rows] == [("0", "0.000000"), ("2", "0.080000")]
    for row, present in zip(rows, (0, 2), strict=True):
        shares = [float(row[name]) for name in CAMVID_11.names]
        assert shares == [float(index == present) for index in range(11)]


@pytest.mark.parametrize("taken", ["classes.csv", "classes.csv.part"])
def test_what_exists_is_replaced_only_on_request(tmp_path: Path, taken: str):
    (tmp_path / taken).write_text("old")
    with pytest.raises(SinkError, match="exists already"):
        ClassSharesSink(tmp_path / "classes.csv", CAMVID_11)
    sink = ClassSharesSink(tmp_path / "classes.csv", CAMVID_11, overwrite=True)
    sink.open(INFO)
    sink.finish()
    assert (tmp_path / "classes.csv").read_text().startswith("frame,time_s,")


def test_a_run_that_fails_leaves_an_older_table_and_keeps_its_rows(tmp_path: Path):
    path = tmp_path / "classes.csv"
    path.write_text("old")
    for rows in (0, 1):
        sink = ClassSharesSink(path, CAMVID_11, overwrite=True)
        sink.open(INFO)
        for index in range(rows):
            sink.write(result(index))
        sink.abort()
        assert path.read_text() == "old"
        assert (tmp_path / "classes.csv.part").exists() == bool(rows)


def test_the_input_a_folder_and_a_missing_folder_are_refused(tmp_path: Path):
    clip = tmp_path / "clip.mp4"
    clip.write_text("video")
    with pytest.raises(SinkError, match="is the input"):
        ClassSharesSink(clip, CAMVID_11, overwrite=True, source_path=str(clip))
    with pytest.raises(SinkError, match="is a folder"):
        ClassSharesSink(tmp_path, CAMVID_11, overwrite=True)
    with pytest.raises(SinkError, match="does not exist"):
        ClassSharesSink(tmp_path / "none" / "classes.csv", CAMVID_11)


def test_a_full_disk_is_an_error_that_names_what_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    sink = ClassSharesSink(tmp_path / "classes.csv", CAMVID_11)
    sink.open(INFO)
    sink.write(result(0))
    with Path("/dev/full").open("wb", buffering=0) as full:
        monkeypatch.setattr(sink, "_output", full)
        with pytest.raises(SinkError, match=r"No space left.*1 rows were written to .*classes\.csv\.part"):
            sink.write(result(1))
    sink.abort()
    assert len(rows_of(tmp_path / "classes.csv.part")) == 1


def test_without_labels(tmp_path: Path):
    sink = ClassSharesSink(tmp_path / "classes.csv", CAMVID_11)
    sink.open(INFO)
    with pytest.raises(SinkError, match="without labels"):
        sink.write(StreamResult(frame=result(0).frame, prediction=Prediction()))
    sink.abort()
