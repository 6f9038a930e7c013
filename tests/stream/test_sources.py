import struct
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest

from bsdnet.demo_scene import DemoScene
from bsdnet.errors import ConfigError, SourceError
from bsdnet.stream.source import (
    ArraySource,
    CameraSource,
    DemoSource,
    FileSource,
    ImageFolderSource,
    VideoSource,
    open_source,
)

from .fakes import eventually
from .media import SIZE, number_of, numbered, write_clip

NUM = 12
Opener = Callable[[], VideoSource]


class FakeCapture:
    """A camera at 100 frames per second, or one that hangs, or one that is unplugged."""

    hang = threading.Event()

    def __init__(self, num_frames: int = 10**6, hang_at: int | None = None) -> None:
        self._num_frames, self._hang_at = num_frames, hang_at
        self._number = 0

    def get(self, _property: int) -> float:
        return 100.0

    def read(self) -> tuple[bool, np.ndarray | None]:
        if self._number == self._hang_at:
            self.hang.wait(30)
        time.sleep(0.01)
        if self._number >= self._num_frames:
            return False, None
        self._number += 1
        return True, np.dstack([numbered(0)[..., 0], numbered(0)[..., 0], numbered(1)[..., 0]])

    def release(self) -> None:
        pass


@pytest.fixture
def plug_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Callable[..., str]]:
    """Connects a fake camera and gives its device path."""
    FakeCapture.hang.clear()

    def plug(**behaviour: int) -> str:
        monkeypatch.setattr("bsdnet.stream.camera_source.cv2.VideoCapture", lambda device: FakeCapture(**behaviour))
        device = tmp_path / "video0"
        device.touch()
        return str(device)

    yield plug
    FakeCapture.hang.set()


def png_that_says(width: int, height: int) -> bytes:
    """A PNG that says it is so large, and holds next to nothing."""
    chunks = (b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0), b"IDAT" + zlib.compress(bytes(9)))
    lengths_and_sums = ((struct.pack(">I", len(chunk) - 4), struct.pack(">I", zlib.crc32(chunk))) for chunk in chunks)
    parts = (length + chunk + sum_ for chunk, (length, sum_) in zip(chunks, lengths_and_sums, strict=True))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.fixture(scope="module")
def scene() -> DemoScene:
    return DemoScene(size=(96, 128), num_frames=NUM)


@pytest.fixture(params=["mp4", "mkv", "ts", "images", "array", "demo", "camera"])
def opener(request: pytest.FixtureRequest, tmp_path: Path, plug_in: Callable[..., str]) -> Opener:
    """Opens a source of each kind: twelve numbered frames, or a camera."""
    kind = request.param
    frames = [numbered(index) for index in range(NUM)]
    if kind in ("mp4", "mkv", "ts"):
        # Few keyframes and many B-frames, which make exact seeking hard.
        options = {"g": "5", "bf": "3", "b-adapt": "0", "crf": "10"}
        clip = write_clip(tmp_path / f"clip.{kind}", frames, options=options, sound="aac", sound_s=NUM / 25)
        return lambda: FileSource(clip)
    if kind == "images":
        for index, frame in enumerate(frames):
            cv2.imwrite(str(tmp_path / f"{index}.png"), frame)
        return lambda: ImageFolderSource(tmp_path)
    if kind == "array":
        return lambda: ArraySource(frames, 30.0)
    if kind == "demo":
        return lambda: DemoSource(request.getfixturevalue("scene"))
    return lambda: CameraSource(plug_in())


class TestContract:
    def test_frames_come_in_order_and_agree_with_what_is_announced(self, opener: Opener) -> None:
        with opener() as source:
            info = source.info
            frames = [source.read() for _ in range(NUM)]
            times = [frame.time_s for frame in frames]
            assert times == sorted(set(times))
            for frame in frames:
                assert frame.rgb.dtype == np.uint8
                assert frame.rgb.flags.c_contiguous
                assert frame.size == info.size
                assert frame.epoch == 0
                assert frame.time_s == pytest.approx(float((frame.pts - frames[0].pts) * info.time_base) + times[0])
            indices = [frame.index for frame in frames]
            if info.live:
                assert indices == sorted(set(indices))
            else:
                assert indices == list(range(NUM))
                assert abs(info.num_frames - NUM) <= 1  # some containers only tell the length of their sound
                assert [source.read(), source.read()] == [None, None]
            assert source.lost_frames == 0

    def test_close_ends_it_and_may_be_repeated(self, opener: Opener) -> None:
        with opener() as source:
            assert source.read() is not None
        source.close()
        assert source.read() is None
        with pytest.raises(SourceError):
            source.seek(0.0)

    def test_another_thread_may_read(self, opener: Opener) -> None:
        source = opener()
        found = []
        reader = threading.Thread(target=lambda: found.extend(source.read() for _ in range(3)))
        reader.start()
        reader.join(10)
        assert len(found) == 3
        assert None not in found
        source.close()

    def test_seek_finds_exactly_the_frame_that_is_shown(self, opener: Opener) -> None:
        with opener() as source:
            if source.info.live:
                with pytest.raises(SourceError, match="live"):
                    source.seek(0.0)
                return
            assert source.info.seekable
            straight = list(source)
            for number in (7, 3, 11, 0, 10, 4, 5):
                source.seek(straight[number].time_s)
                for expected in straight[number : number + 2]:
                    found = source.read()
                    assert (found.index, found.pts, found.time_s) == (expected.index, expected.pts, expected.time_s)
                    np.testing.assert_array_equal(found.rgb, expected.rgb)
            between_s = (straight[6].time_s + straight[7].time_s) / 2
            for time_s, number in ((between_s, 6), (-1.0, 0), (1e6, NUM - 1)):
                source.seek(time_s)
                assert source.read().index == number


class TestImageFolder:
    def fill(self, folder: Path, *names: str) -> None:
        for number, name in enumerate(names):
            cv2.imwrite(str(folder / name), numbered(number))

    def test_numbers_sort_as_numbers(self, tmp_path: Path) -> None:
        self.fill(tmp_path, "f1.png", "f2.PNG", "f10.jpg", "f11.bmp", "f100.webp", "f101.tif")
        (tmp_path / "notes.txt").write_text("not an image")
        with ImageFolderSource(tmp_path, fps=10) as source:
            assert [number_of(frame.rgb) for frame in source] == [0, 1, 2, 3, 4, 5]
            assert source.info.fps == 10
            assert source.info.name == tmp_path.name

    def test_a_pattern_chooses(self, tmp_path: Path) -> None:
        self.fill(tmp_path, "left_1.png", "left_2.png", "right_1.png")
        with open_source(str(tmp_path / "left_*.png"), fps=5) as source:
            assert [number_of(frame.rgb) for frame in source] == [0, 1]
            assert [frame.time_s for frame in (source.seek(0.0), *source)[1:]] == [0.0, 0.2]

    def test_colours_are_rgb(self, tmp_path: Path) -> None:
        blue_in_bgr = np.zeros((*SIZE, 3), np.uint8)
        blue_in_bgr[..., 0] = 200
        cv2.imwrite(str(tmp_path / "blue.png"), blue_in_bgr)
        with ImageFolderSource(tmp_path) as source:
            assert source.read().rgb[0, 0].tolist() == [0, 0, 200]

    def test_each_image_keeps_its_size(self, tmp_path: Path) -> None:
        cv2.imwrite(str(tmp_path / "1.png"), numbered(1))
        cv2.imwrite(str(tmp_path / "2.png"), numbered(1, (30, 40)))
        with ImageFolderSource(tmp_path) as source:
            assert [frame.size for frame in source] == [SIZE, (30, 40)]

    def test_a_broken_image_is_lost_and_the_others_keep_their_time(self, tmp_path: Path) -> None:
        self.fill(tmp_path, "1.png", "2.png", "3.png")
        (tmp_path / "2.png").write_bytes(b"")
        with ImageFolderSource(tmp_path, fps=10) as source:
            assert [(frame.index, frame.time_s) for frame in source] == [(0, 0.0), (2, 0.2)]
            assert source.lost_frames == 1

    def test_what_was_lost_is_named(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        self.fill(tmp_path, "1.png", "2.png", "3.png")
        (tmp_path / "1.png").write_bytes(png_that_says(60_000, 60_000))
        (tmp_path / "3.png").unlink()
        (tmp_path / "3.png").symlink_to("nowhere")
        (tmp_path / "4.png").mkdir()
        with ImageFolderSource(tmp_path) as source:
            assert [number_of(frame.rgb) for frame in source] == [1]
            assert source.lost_frames == 2
        assert [str(tmp_path / name) in caplog.text for name in ("1.png", "2.png", "3.png")] == [True, False, True]

    def test_only_broken_images(self, tmp_path: Path) -> None:
        (tmp_path / "1.png").write_bytes(b"broken")
        with pytest.raises(SourceError, match=r"none of the 1 images .* can be decoded"):
            ImageFolderSource(tmp_path)

    def test_an_empty_folder_names_the_suffixes(self, tmp_path: Path) -> None:
        with pytest.raises(SourceError, match=r"\.png \.jpg"):
            ImageFolderSource(tmp_path)


class TestArraySource:
    def test_what_it_refuses(self) -> None:
        with pytest.raises(SourceError, match="no frames"):
            ArraySource([])
        with pytest.raises(SourceError, match="frame 1 is a float64 array"):
            ArraySource([numbered(0), np.zeros((4, 4, 3))])
        with pytest.raises(SourceError, match="frame 1 is a list; expected a uint8 RGB array"):
            ArraySource([numbered(0), [[0, 0, 0]]])
        with pytest.raises(SourceError, match=r"frame 0 is a uint8 array of shape \(0, 4, 3\)"):
            ArraySource([np.zeros((0, 4, 3), np.uint8)])
        for fps in (0.0, -1.0, float("nan"), float("inf")):
            with pytest.raises(ConfigError, match="fps"):
                ArraySource([numbered(0)], fps)

    @pytest.mark.parametrize(
        ("fps", "time_base"),
        [(25.0, Fraction(1, 25)), (29.97, Fraction(1001, 30_000)), (0.5, Fraction(2)), (12.5, Fraction(2, 25))],
    )
    def test_time_base_is_exact(self, fps: float, time_base: Fraction) -> None:
        assert ArraySource([numbered(0)], fps).info.time_base == time_base


class TestCameraSource:
    def test_only_the_newest_picture_is_kept(self, plug_in: Callable[..., str]) -> None:
        with CameraSource(plug_in()) as source:
            assert source.info.live
            first = source.read()
            time.sleep(0.2)
            second = source.read()
            assert second.index - first.index > 5
            assert second.time_s - first.time_s > 0.05
            assert first.rgb[0, 0].tolist() == [24, 16, 16]

    def test_a_blocked_camera_does_not_block_close(self, plug_in: Callable[..., str]) -> None:
        source = CameraSource(plug_in(hang_at=1))
        assert source.read() is not None
        found = []
        reader = threading.Thread(target=lambda: found.append(source.read()))
        reader.start()
        start_s = time.monotonic()
        source.close()
        reader.join(10)
        assert time.monotonic() - start_s < 8
        assert found == [None]

    def test_an_unplugged_camera_is_looked_for_until_it_is_back(self, plug_in: Callable[..., str]) -> None:
        camera = plug_in(num_frames=3)
        with CameraSource(camera) as source:
            assert source.read() is not None
            Path(camera).rename(f"{camera}.unplugged")
            assert eventually(lambda: source.signal.silent_s > 2)
            assert source.signal.reconnects == 0
            Path(f"{camera}.unplugged").rename(camera)
            assert eventually(lambda: source.signal.reconnects > 0)

    def test_a_camera_that_gives_nothing(self, plug_in: Callable[..., str]) -> None:
        with pytest.raises(SourceError, match="cannot be opened"):
            CameraSource(plug_in(num_frames=0))

    def test_no_camera(self) -> None:
        with pytest.raises(SourceError, match="camera 97"):
            open_source("camera:97")


class TestOpenSource:
    def test_demo(self) -> None:
        with open_source("demo", fps=10) as source:
            assert source.info.name == "demo"
            assert source.info.fps == 10

    def test_file_as_text_and_path(self, tmp_path: Path) -> None:
        clip = write_clip(tmp_path / "a [clip] with: signs.mp4", [numbered(1)] * 3)
        for spec in (clip, str(clip)):
            with open_source(spec) as source:
                assert len(list(source)) == 3

    def test_fps_is_not_for_videos(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="timestamps"):
            open_source(write_clip(tmp_path / "clip.mp4", [numbered(1)] * 3), fps=10)

    def test_missing_file_and_pattern(self, tmp_path: Path) -> None:
        with pytest.raises(SourceError, match="there is no file"):
            open_source(tmp_path / "none.mp4")
        with pytest.raises(SourceError, match="empty name"):
            open_source("")
        with pytest.raises(SourceError, match="the pattern"):
            open_source(str(tmp_path / "*.png"))
