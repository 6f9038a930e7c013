import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from av.video.reformatter import Colorspace

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
from tests.stream.media import SIZE, number_of, numbered, write_clip, write_sound

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


class TestFileSource:
    def test_variable_timestamps_are_kept(self, tmp_path: Path) -> None:
        pts = [0, 1001, 1500, 9000, 9090, 40_000]
        clip = write_clip(tmp_path / "vfr.mkv", [numbered(i) for i in range(6)], pts=pts, time_base=Fraction(1, 1000))
        with FileSource(clip) as source:
            assert [round(frame.time_s * 1000) for frame in source] == pts

    def test_time_counts_from_the_start_of_the_file(self, tmp_path: Path) -> None:
        # MPEG-TS begins at 1.4 s.
        with FileSource(write_clip(tmp_path / "clip.ts", [numbered(i) for i in range(5)])) as source:
            frame = source.read()
            assert frame.pts > 0
            assert frame.time_s == 0.0

    def test_a_stream_without_timestamps_gets_them_from_its_rate(self, tmp_path: Path) -> None:
        clip = write_clip(tmp_path / "clip.h264", [numbered(i) for i in range(6)], options={"bf": "0"})
        with FileSource(clip) as source:
            assert [frame.time_s for frame in source] == pytest.approx([i / 25 for i in range(6)])
            assert not source.info.seekable
            with pytest.raises(SourceError, match="Cannot seek"):
                source.seek(0.0)

    @pytest.mark.parametrize("rotation", [-90, 90, 180])
    def test_a_turned_video_is_upright(self, tmp_path: Path, rotation: int) -> None:
        upright = np.zeros((*SIZE, 3), np.uint8)
        upright[:24, :32] = 255
        stored = np.rot90(upright, -rotation // 90)  # the player turns it back counterclockwise
        clip = write_clip(tmp_path / "phone.mp4", [stored] * 3, rotation=rotation, options={"crf": "5"})
        with FileSource(clip) as source:
            assert source.info.size == SIZE
            assert np.abs(source.read().rgb.astype(int) - upright).mean() < 4

    @pytest.mark.parametrize(
        ("matrix", "tags", "height"),
        [
            (Colorspace.ITU601, {"colorspace": 6}, 720),
            (Colorspace.ITU709, {"colorspace": 1}, 48),
            (Colorspace.ITU601, {}, 48),
            (Colorspace.ITU709, {}, 720),
            (Colorspace.ITU601, {"colorspace": 6, "color_range": 2}, 48),
            (Colorspace.ITU709, {"colorspace": 1, "color_range": 2}, 720),
        ],
    )
    def test_colours_follow_matrix_and_range(
        self, tmp_path: Path, matrix: Colorspace, tags: dict[str, int], height: int
    ) -> None:
        bars = color_bars(height)
        clip = write_clip(tmp_path / "bars.mp4", [bars] * 2, matrix=matrix, options={"crf": "1"}, **tags)
        with FileSource(clip) as source:
            found = source.read().rgb
        centres = slice(8, None, 16)  # chroma is shared by neighbours at the edges of bars
        assert np.abs(found[height // 2, centres].astype(int) - bars[height // 2, centres]).max() <= 5

    def test_pixels_come_out_square(self, tmp_path: Path) -> None:
        clip = write_clip(tmp_path / "wide.mp4", [numbered(1)] * 2, sample_aspect_ratio=Fraction(4, 3))
        with FileSource(clip) as source:
            assert source.info.size == (48, 85)
            assert source.read().size == (48, 85)

    @pytest.mark.parametrize(
        ("name", "codec", "pix_fmt"),
        [
            ("ten_bit.mp4", "libx265", "yuv420p10le"),
            ("vp9.webm", "libvpx-vp9", "yuv420p"),
            ("old.avi", "mpeg4", "yuv420p"),
            ("motion.mov", "mjpeg", "yuvj420p"),
            ("animation.gif", "gif", "rgb8"),
            ("grey.mkv", "ffv1", "gray"),
            ("lossless.mkv", "ffv1", "bgr0"),
        ],
    )
    def test_formats(self, tmp_path: Path, name: str, codec: str, pix_fmt: str) -> None:
        if codec not in av.codecs_available:
            pytest.skip(f"this FFmpeg has no {codec}")
        options = {"x265-params": "log-level=none"} if codec == "libx265" else {}
        full = {"color_range": 2} if pix_fmt.startswith("yuvj") else {}
        clip = write_clip(
            tmp_path / name, [numbered(2 * i) for i in range(6)], codec=codec, pix_fmt=pix_fmt, options=options, **full
        )
        with FileSource(clip) as source:
            numbers = [number_of(frame.rgb) for frame in source]
            assert source.lost_frames == 0
        if codec == "gif":  # 3 + 3 + 2 bits of colour
            assert numbers == sorted(numbers)
            assert len(numbers) == 6
        else:
            assert numbers == [0, 2, 4, 6, 8, 10]

    def test_a_size_change_gives_frames_of_their_own_size(self, tmp_path: Path) -> None:
        first = write_clip(tmp_path / "a.ts", [numbered(1)] * 6, options={"bf": "0"})
        second = write_clip(tmp_path / "b.ts", [numbered(2, (80, 112))] * 6, options={"bf": "0"})
        joined = tmp_path / "joined.ts"
        joined.write_bytes(first.read_bytes() + second.read_bytes())
        with FileSource(joined) as source:
            assert source.info.size == SIZE
            assert [frame.size for frame in source] == [SIZE] * 6 + [(80, 112)] * 6

    def test_damaged_packets_cost_only_themselves(self, tmp_path: Path) -> None:
        # Pictures that stand alone: each one can be broken without touching its neighbours.
        clip = write_clip(tmp_path / "clip.mp4", noise_frames(20), codec="mjpeg", pix_fmt="yuvj420p", color_range=2)
        with av.open(str(clip)) as container:
            places = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
        damaged = bytearray(clip.read_bytes())
        for number in (4, 9):
            start, size = places[number]
            damaged[start : start + size] = bytes(size)
        clip.write_bytes(damaged)
        with FileSource(clip) as source:
            assert [frame.pts for frame in source] == [
                pts for number, pts in enumerate(pts_of(source, 20)) if number not in (4, 9)
            ]
            assert source.lost_frames == 2

    def test_a_truncated_file_gives_what_is_there_and_counts_the_rest(self, tmp_path: Path) -> None:
        options = {"movflags": "faststart"}
        clip = tmp_path / "clip.mp4"
        with av.open(str(clip), "w", options=options) as output:
            video = output.add_stream("libx264", rate=25, options={"bf": "0", "crf": "30"})
            video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
            for rgb in noise_frames(30):
                output.mux(video.encode(av.VideoFrame.from_ndarray(rgb, format="rgb24")))
            output.mux(video.encode(None))
        with av.open(str(clip)) as container:
            ends = [packet.pos + packet.size for packet in container.demux(video=0) if packet.size]
        os.truncate(clip, ends[19])
        with FileSource(clip) as source:
            assert [frame.index for frame in source] == list(range(20))
            assert source.lost_frames == 10

    def test_close_while_another_thread_reads(self, tmp_path: Path) -> None:
        source = FileSource(write_clip(tmp_path / "clip.mp4", noise_frames(60)))
        reader = threading.Thread(target=lambda: list(source))
        reader.start()
        source.close()
        reader.join(10)
        assert not reader.is_alive()

    def test_sound_is_announced(self, tmp_path: Path) -> None:
        mute = write_clip(tmp_path / "mute.mp4", [numbered(1)] * 3)
        loud = write_clip(tmp_path / "loud.mp4", [numbered(1)] * 3, sound="aac", sound_s=0.1)
        with FileSource(mute) as source:
            assert source.info.audio_path is None
        with FileSource(loud) as source:
            assert source.info.audio_path == str(loud)


class TestFileErrors:
    def check(self, path: Path, *words: str) -> None:
        with pytest.raises(SourceError) as caught:
            FileSource(path)
        message = str(caught.value)
        assert "\n" not in message
        assert path.name in message
        for word in words:
            assert word in message

    def test_missing(self, tmp_path: Path) -> None:
        self.check(tmp_path / "none.mp4", "no file")

    def test_folder(self, tmp_path: Path) -> None:
        self.check(tmp_path, "is a folder")

    def test_text(self, tmp_path: Path) -> None:
        (tmp_path / "notes.mp4").write_text("This is not a video.\n" * 50)
        self.check(tmp_path / "notes.mp4", "not a video")

    def test_empty(self, tmp_path: Path) -> None:
        (tmp_path / "empty.mp4").touch()
        self.check(tmp_path / "empty.mp4", "0 bytes")

    @pytest.mark.parametrize(("name", "codec"), [("song.m4a", "aac"), ("song.wav", "pcm_s16le")])
    def test_sound_only(self, tmp_path: Path, name: str, codec: str) -> None:
        self.check(write_sound(tmp_path / name, codec), "no video stream", "audio")

    def test_without_index(self, tmp_path: Path) -> None:
        clip = write_clip(tmp_path / "clip.mp4", noise_frames(10))
        os.truncate(clip, clip.stat().st_size // 2)
        self.check(clip, "damaged")

    def test_nothing_decodable(self, tmp_path: Path) -> None:
        clip = write_clip(tmp_path / "clip.mp4", noise_frames(10))
        with av.open(str(clip)) as container:
            places = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
        damaged = bytearray(clip.read_bytes())
        for start, size in places:
            damaged[start : start + size] = bytes(size)
        clip.write_bytes(damaged)
        self.check(clip, "no frame", "damaged")

    def test_permission_denied(self, unprivileged_dir: Path) -> None:
        path = unprivileged_dir / "secret.mp4"
        self.check(path, "permission denied")


@pytest.fixture
def unprivileged_dir(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a file `secret.mp4` that nobody may read, seen without the rights of root."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "secret.mp4").write_bytes(b"secret")
        (folder / "secret.mp4").chmod(0)
        folder.chmod(0o755)
        is_root = os.geteuid() == 0
        if is_root:
            os.seteuid(65534)
        try:
            yield folder
        finally:
            if is_root:
                os.seteuid(0)


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

    def test_only_broken_images(self, tmp_path: Path) -> None:
        (tmp_path / "1.png").write_bytes(b"broken")
        with pytest.raises(SourceError, match=r"None of the 1 images .* can be decoded"):
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
            assert second.time_s - first.time_s == pytest.approx(0.2, abs=0.15)
            assert first.rgb[0, 0].tolist() == [24, 16, 16]

    def test_a_blocked_camera_does_not_block_close(self, plug_in: Callable[..., str]) -> None:
        source = CameraSource(plug_in(hang_at=1))
        assert source.read() is not None
        found = []
        reader = threading.Thread(target=lambda: found.append(source.read()))
        reader.start()
        start_s = time.monotonic()
        source.close()
        reader.join(2)
        assert time.monotonic() - start_s < 2
        assert found == [None]

    def test_an_unplugged_camera_is_an_error(self, plug_in: Callable[..., str]) -> None:
        with CameraSource(plug_in(num_frames=1)) as source:
            assert source.read() is not None
            with pytest.raises(SourceError, match="stopped"):
                source.read()

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

    @pytest.mark.parametrize("address", ["rtsp://user:hunter2@camera/1", "https://host/live?key=hunter2*"])
    def test_live_addresses_are_refused_without_printing_credentials(self, address: str) -> None:
        with pytest.raises(SourceError, match="not supported yet") as caught:
            open_source(address)
        assert "hunter2" not in str(caught.value)

    def test_missing_file_and_pattern(self, tmp_path: Path) -> None:
        with pytest.raises(SourceError, match="There is no file"):
            open_source(tmp_path / "none.mp4")
        with pytest.raises(SourceError, match="The pattern"):
            open_source(str(tmp_path / "*.png"))


@pytest.mark.data
class TestRealClips:
    def test_all_frames_of_a_dashcam_clip(self, data_dir: Path) -> None:
        with FileSource(data_dir / "video" / "solidWhiteRight.mp4") as source:
            times = [frame.time_s for frame in source]
            assert times == pytest.approx([number / 25 for number in range(221)])
            assert source.lost_frames == 0
            assert source.info.size == (540, 960)

    @pytest.mark.parametrize("share", [0.3, 0.8])
    def test_a_truncated_clip(self, data_dir: Path, tmp_path: Path, share: float) -> None:
        whole = (data_dir / "video" / "solidWhiteRight.mp4").read_bytes()
        clip = tmp_path / "truncated.mp4"
        clip.write_bytes(whole[: int(len(whole) * share)])
        with FileSource(clip) as source:
            frames = [frame.index for frame in source]
            assert len(frames) > 221 * share * 0.8
            assert frames == list(range(len(frames)))
            assert source.lost_frames == 221 - len(frames)


def color_bars(height: int) -> np.ndarray:
    colors = [
        (235, 235, 235),
        (200, 200, 20),
        (20, 200, 200),
        (20, 200, 20),
        (200, 20, 200),
        (200, 20, 20),
        (20, 20, 200),
    ]
    return np.repeat(np.array([colors], np.uint8), height, axis=0).repeat(16, axis=1)


def noise_frames(count: int) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 255, (*SIZE, 3), np.uint8) for _ in range(count)]


def pts_of(source: FileSource, count: int) -> list[int]:
    step = round(1 / 25 / source.info.time_base)
    return [number * step for number in range(count)]
