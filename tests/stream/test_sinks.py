from collections.abc import Callable
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from bsdnet.classes import CAMVID_11
from bsdnet.errors import SinkError
from bsdnet.runtime.prediction import Prediction
from bsdnet.stream.frame import StreamResult
from bsdnet.stream.sink import CallbackSink, FileSink, MaskFolderSink, NullSink, VideoSink

from .media import INFO, numbered, result, snapshot

Maker = Callable[[Path], VideoSink]
MAKERS: dict[str, Maker] = {
    "mp4": lambda target: FileSink(target.with_suffix(".mp4"), overwrite=True),
    "mov": lambda target: FileSink(target.with_suffix(".mov"), overwrite=True),
    "mkv": lambda target: FileSink(target.with_suffix(".mkv"), overwrite=True),
    "masks": lambda target: MaskFolderSink(target, CAMVID_11, overwrite=True),
    "null": lambda target: NullSink(frozenset({"labels", "rendered"})),
    "callback": lambda target: CallbackSink(lambda result: None, live=False),
}


@pytest.fixture(params=MAKERS)
def make(request: pytest.FixtureRequest) -> Maker:
    return MAKERS[request.param]


class TestContract:
    def test_describes_itself(self, make: Maker, tmp_path: Path) -> None:
        sink = make(tmp_path / "out")
        assert sink.name
        assert sink.wants
        assert sink.wants <= {"labels", "confidence", "rendered"}
        assert sink.live is False

    def test_takes_frames_and_leaves_nothing_unfinished(self, make: Maker, tmp_path: Path) -> None:
        sink = make(tmp_path / "out")
        sink.open(INFO)
        for index in range(10):
            sink.write(result(index))
        sink.finish()
        before = snapshot(tmp_path)
        assert not [name for name in before if name.endswith(".part")]
        sink.abort()
        assert snapshot(tmp_path) == before

    def test_abort_before_anything_was_written_leaves_no_trace(self, make: Maker, tmp_path: Path) -> None:
        sink = make(tmp_path / "out")
        sink.abort()
        sink.open(INFO)
        sink.abort()
        sink.abort()
        assert snapshot(tmp_path) == {}

    def test_the_same_frames_make_the_same_output(self, make: Maker, tmp_path: Path) -> None:
        outputs = []
        for attempt in ("a", "b"):
            folder = tmp_path / attempt
            folder.mkdir()
            sink = make(folder / "out")
            sink.open(INFO)
            for index in range(5):
                sink.write(result(index))
            sink.finish()
            outputs.append({name: len(content) for name, content in snapshot(folder).items()})
        assert outputs[0] == outputs[1]


class TestMaskFolderSink:
    def write(self, sink: VideoSink, indices: range) -> None:
        sink.open(INFO)
        for index in indices:
            sink.write(result(index))
        sink.finish()

    def test_pixels_are_class_indices_and_the_palette_is_the_class_sets(self, tmp_path: Path) -> None:
        labels = np.arange(35, dtype=np.uint8).reshape(5, 7) % 11
        labels[0, 0] = 255
        sink = MaskFolderSink(tmp_path / "masks", CAMVID_11)
        sink.open(INFO)
        sink.write(StreamResult(frame=result(3).frame, prediction=Prediction(labels=labels)))
        sink.finish()
        path = tmp_path / "masks" / "000003.png"
        with av.open(str(path)) as container:  # FFmpeg gives the indices and the palette apart
            indices, palette = next(container.decode(video=0)).to_ndarray()
        np.testing.assert_array_equal(indices, labels)
        np.testing.assert_array_equal(palette.reshape(256, 4)[:11, 1:], CAMVID_11.palette)
        colors = cv2.imread(str(path))[..., ::-1]  # OpenCV looks the colours up
        np.testing.assert_array_equal(colors[labels != 255], CAMVID_11.palette[labels[labels != 255]])

    def test_a_folder_with_something_in_it_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "notes.txt").write_text("mine")
        with pytest.raises(SinkError, match="not empty"):
            MaskFolderSink(tmp_path, CAMVID_11)

    def test_overwriting_removes_old_masks_at_the_end_and_nothing_else(self, tmp_path: Path) -> None:
        self.write(MaskFolderSink(tmp_path / "masks", CAMVID_11), range(5))
        (tmp_path / "masks" / "notes.txt").write_text("mine")
        sink = MaskFolderSink(tmp_path / "masks", CAMVID_11, overwrite=True)
        sink.open(INFO)
        sink.write(result(0))
        assert len(list((tmp_path / "masks").iterdir())) == 6
        sink.finish()
        assert sorted(snapshot(tmp_path / "masks")) == ["000000.png", "notes.txt"]

    def test_pictures_that_are_no_masks_are_never_overwritten(self, tmp_path: Path) -> None:
        cv2.imwrite(str(tmp_path / "000007.png"), numbered(1))  # such as the frames that are segmented
        (tmp_path / "000001.png").touch()  # what a kill leaves of a mask
        before = snapshot(tmp_path)
        with pytest.raises(SinkError, match=r"000007\.png is no mask"):
            MaskFolderSink(tmp_path, CAMVID_11, overwrite=True)
        assert snapshot(tmp_path) == before

    def test_no_half_mask_stays_on_a_full_disk(self, tmp_path: Path) -> None:
        resource = pytest.importorskip("resource")
        sink = MaskFolderSink(tmp_path / "masks", CAMVID_11)
        sink.open(INFO)
        sink.write(result(0))
        kept = snapshot(tmp_path / "masks")
        limit, ceiling = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (16, ceiling))
        try:
            with pytest.raises(SinkError, match="1 masks were written"):
                sink.write(result(1))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, ceiling))
        assert snapshot(tmp_path / "masks") == kept

    def test_what_else_it_refuses(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(SinkError, match="is a file"):
            MaskFolderSink(tmp_path / "file", CAMVID_11)
        with pytest.raises(SinkError, match="mkdir -p"):
            MaskFolderSink(tmp_path / "none" / "masks", CAMVID_11)
        sink = MaskFolderSink(tmp_path / "masks", CAMVID_11)
        sink.open(INFO)
        with pytest.raises(SinkError, match="labels"):
            sink.write(StreamResult(frame=result(0).frame, prediction=Prediction()))


class TestOtherSinks:
    def test_null_counts(self) -> None:
        sink = NullSink()
        sink.open(INFO)
        for index in range(3):
            sink.write(result(index))
        sink.finish()
        assert sink.num_results == 3

    def test_callback_hands_results_on(self) -> None:
        found: list[StreamResult] = []
        sink = CallbackSink(found.append, live=True, wants=frozenset({"labels"}), name="window")
        given = result(4)
        sink.open(INFO)
        sink.write(given)
        assert found == [given]
        assert (sink.live, sink.wants, sink.name) == (True, {"labels"}, "window")
