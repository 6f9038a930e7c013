import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from bsdnet.classes import CAMVID_11
from bsdnet.errors import BsdnetError, ConfigError, SinkError
from bsdnet.runtime.prediction import Prediction
from bsdnet.stream.class_shares import ClassSharesSink
from bsdnet.stream.frame import StreamResult
from bsdnet.stream.interfaces import VideoSink
from bsdnet.stream.partial_file import PartialFile
from bsdnet.stream.sink import EncoderSettings, FileSink, MaskFolderSink
from bsdnet.stream.source import FileSource

from .media import INFO, decoded_times, numbered, result, snapshot, write_clip


class TestFileSinkRefusals:
    def check(self, target: Path, *words: str, error: type[BsdnetError] = SinkError, **arguments: object) -> None:
        before = snapshot(target.parent) if target.parent.is_dir() else None
        with pytest.raises(error) as caught:
            FileSink(target, **arguments)
        for word in (str(target.name), *words):
            assert word in str(caught.value)
        assert "\n" not in str(caught.value)
        if before is not None:
            assert snapshot(target.parent) == before

    def test_existing_target(self, tmp_path: Path) -> None:
        (tmp_path / "out.mp4").write_bytes(b"old")
        self.check(tmp_path / "out.mp4", "exists")

    def test_partial_file_of_an_earlier_run(self, tmp_path: Path) -> None:
        (tmp_path / "out.mp4.part").write_bytes(b"what the last run saved")
        self.check(tmp_path / "out.mp4", "out.mp4.part", "did not finish")
        FileSink(tmp_path / "out.mp4", overwrite=True)

    @pytest.mark.skipif(sys.platform == "win32", reason="Windows has no locks that go away with their process")
    def test_partial_file_of_a_run_that_goes_on(self, tmp_path: Path) -> None:
        first, second = FileSink(tmp_path / "out.mp4", overwrite=True), FileSink(tmp_path / "out.mp4", overwrite=True)
        first.open(INFO)
        first.write(result(0))
        before = snapshot(tmp_path)
        with pytest.raises(SinkError, match="by another run"):
            second.open(INFO)
        second.abort()
        assert snapshot(tmp_path) == before
        first.finish()
        assert decoded_times(tmp_path / "out.mp4") == [0]
        second.open(INFO)  # the lock has gone with the first one
        second.abort()

    def test_input_before_existing_target(self, tmp_path: Path) -> None:
        clip = write_clip(tmp_path / "clip.mp4", [numbered(1)] * 3)
        self.check(clip, "input", source_path=clip)

    @pytest.mark.parametrize("name", ["", "."])
    def test_no_name(self, name: str) -> None:
        with pytest.raises(SinkError, match="is a folder"):
            FileSink(name)

    def test_unknown_suffix(self, tmp_path: Path) -> None:
        self.check(tmp_path / "out.wmv", ".mp4 .mov .mkv .webm .avi", error=ConfigError)
        self.check(tmp_path / "out", ".mp4", error=ConfigError)

    def test_folder_as_target(self, tmp_path: Path) -> None:
        (tmp_path / "out.mp4").mkdir()
        self.check(tmp_path / "out.mp4", "is a folder", overwrite=True)

    @pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such files")
    @pytest.mark.parametrize("sink", [FileSink, partial(ClassSharesSink, classes=CAMVID_11)])
    @pytest.mark.parametrize("taken", ["out.mp4", "out.mp4.part"])
    def test_a_pipe_or_device_is_not_replaced_even_on_request(
        self, tmp_path: Path, sink: Callable[..., VideoSink], taken: str
    ) -> None:
        os.mkfifo(tmp_path / taken)
        with pytest.raises(SinkError, match="no ordinary file"):
            sink(tmp_path / "out.mp4", overwrite=True)

    def test_what_a_link_in_the_place_of_the_partial_file_leads_to_stays(self, tmp_path: Path) -> None:
        (tmp_path / "notes.txt").write_text("mine")
        (tmp_path / "out.mp4.part").symlink_to("notes.txt")
        sink = FileSink(tmp_path / "out.mp4", overwrite=True)
        with pytest.raises(SinkError, match="cannot be created"):
            sink.open(INFO)
        assert (tmp_path / "notes.txt").read_text() == "mine"

    def test_a_link_to_itself(self, tmp_path: Path) -> None:
        (tmp_path / "out.mp4").symlink_to("out.mp4")
        clip = write_clip(tmp_path / "clip.mp4", [numbered(1)])
        FileSink(tmp_path / "out.mp4", source_path=clip)  # nothing is there that could be lost

    def test_missing_folder(self, tmp_path: Path) -> None:
        with pytest.raises(SinkError, match=r"mkdir -p '.*/a new folder'"):
            FileSink(tmp_path / "a new folder" / "out.mp4")

    def test_unwritable_folder(self, unwritable_dir: Path) -> None:
        with pytest.raises(SinkError, match="permission denied"):
            FileSink(unwritable_dir / "out.mp4")
        with pytest.raises(SinkError, match="permission denied"):
            MaskFolderSink(unwritable_dir / "masks", CAMVID_11)

    @pytest.mark.parametrize("through", ["same", "link", "dots", "twin"])
    def test_input_as_target(self, tmp_path: Path, through: str) -> None:
        clip = write_clip(tmp_path / "clip.mp4", [numbered(1)] * 3)
        (tmp_path / "link.mp4").symlink_to(clip)
        (tmp_path / "twin.mp4").hardlink_to(clip)
        (tmp_path / "folder").mkdir()
        names = {
            "same": clip,
            "link": tmp_path / "link.mp4",
            "dots": tmp_path / "folder" / ".." / "clip.mp4",
            "twin": tmp_path / "twin.mp4",
        }
        self.check(names[through], "input", overwrite=True, source_path=clip)

    def test_input_as_partial_file(self, tmp_path: Path) -> None:
        rescued = write_clip(tmp_path / "clip.mp4", [numbered(1)] * 3).rename(tmp_path / "out.mp4.part")
        self.check(tmp_path / "out.mp4", "input", overwrite=True, source_path=rescued)

    def test_file_of_the_sound_as_target(self, tmp_path: Path) -> None:
        clip = write_clip(tmp_path / "clip.mp4", [numbered(1)] * 3, sound="aac", sound_s=0.1)
        before = snapshot(tmp_path)
        sink = FileSink(clip, overwrite=True)
        with FileSource(clip) as source, pytest.raises(SinkError, match="input"):
            sink.open(source.info)
        sink.abort()
        assert snapshot(tmp_path) == before

    def test_settings(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="crf"):
            FileSink(tmp_path / "out.mp4", encoder=EncoderSettings(crf=52))
        with pytest.raises(ConfigError, match="preset"):
            FileSink(tmp_path / "out.mp4", encoder=EncoderSettings(preset="hasty"))

    def test_a_picture_that_cannot_be_encoded(self, tmp_path: Path) -> None:
        sink = FileSink(tmp_path / "out.mp4")
        sink.open(INFO)
        with pytest.raises(SinkError, match=r"cannot be written.* 20000x2,"):
            sink.write(result(0, numbered(0, (2, 20_000))))
        sink.abort()
        assert snapshot(tmp_path) == {}

    def test_a_result_without_a_rendered_frame(self, tmp_path: Path) -> None:
        sink = FileSink(tmp_path / "out.mp4")
        sink.open(INFO)
        with pytest.raises(SinkError, match="rendered"):
            sink.write(StreamResult(frame=result(0).frame, prediction=Prediction()))
        sink.abort()


@pytest.fixture
def unwritable_dir() -> Iterator[Path]:
    """A folder that may not be written to, seen without the rights of root."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o555)
        is_root = os.geteuid() == 0
        if is_root:
            os.setresuid(65534, 65534, 0)
        try:
            yield folder
        finally:
            if is_root:
                os.setresuid(0, 0, 0)
            folder.chmod(0o755)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows does not let go of folders that are written to")
class TestVanishedFolder:
    @pytest.fixture(autouse=True)
    def look_at_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("bsdnet.stream.video_file._LOOK_EVERY_S", 0.0)

    def begin(self, folder: Path) -> FileSink:
        folder.mkdir()
        sink = FileSink(folder / "out.mp4")
        sink.open(INFO)
        sink.write(result(0))
        return sink

    def test_it_is_noticed_while_frames_come(self, tmp_path: Path) -> None:
        sink = self.begin(tmp_path / "usb")
        shutil.rmtree(tmp_path / "usb")
        with pytest.raises(SinkError, match=r"usb/out\.mp4 cannot be written: it was removed or renamed") as caught:
            sink.write(result(1))
        assert "what was written" not in str(caught.value)
        sink.abort()

    def test_a_folder_that_was_renamed_keeps_what_was_written(self, tmp_path: Path) -> None:
        sink = self.begin(tmp_path / "usb")
        (tmp_path / "usb").rename(tmp_path / "moved")
        with pytest.raises(SinkError, match="removed or renamed"):
            sink.finish()
        sink.abort()
        assert decoded_times(tmp_path / "moved" / "out.mp4.part") == [0]

    def test_another_file_of_that_name_is_not_taken_for_ours(self, tmp_path: Path) -> None:
        sink = self.begin(tmp_path / "usb")
        (tmp_path / "usb" / "out.mp4.part").unlink()
        (tmp_path / "usb" / "out.mp4.part").write_bytes(b"another's")
        with pytest.raises(SinkError, match="removed or renamed"):
            sink.finish()
        sink.abort()
        assert snapshot(tmp_path) == {"usb/out.mp4.part": b"another's"}


@pytest.mark.skipif(sys.platform == "win32", reason="limits of POSIX")
def test_a_write_that_does_not_fit_fails_rather_than_leaving_a_hole(tmp_path: Path) -> None:
    import resource

    part = PartialFile(tmp_path / "out.mp4", overwrite=False)
    file = part.create()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50, before[1]))
    try:
        with pytest.raises(OSError, match="too large"):
            file.write(b"x" * 80)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        part.release(keep=False)
    assert snapshot(tmp_path) == {}
