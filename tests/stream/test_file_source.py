import os
import struct
import tempfile
import threading
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.stream import Disposition
from av.video.reformatter import Colorspace

from bsdnet.errors import SourceError
from bsdnet.picture import YuvEncoding
from bsdnet.stream.source import (
    FileSource,
)

from .media import SIZE, number_of, numbered, write_clip, write_sound


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

    def test_a_file_that_begins_late_is_no_longer_for_it(self, tmp_path: Path) -> None:
        pts = list(range(2500, 2525))
        clip = write_clip(tmp_path / "late.mkv", [numbered(i) for i in range(25)], pts=pts)
        with FileSource(clip) as source:
            assert source.info.num_frames == 25
            assert source.read().time_s == 0.0

    def test_a_stream_without_timestamps_gets_them_from_its_rate(self, tmp_path: Path) -> None:
        clip = write_clip(tmp_path / "clip.h264", [numbered(i) for i in range(6)], options={"bf": "0"})
        with FileSource(clip) as source:
            assert [frame.time_s for frame in source] == pytest.approx([i / 25 for i in range(6)])
            assert not source.info.seekable
            with pytest.raises(SourceError, match="cannot seek"):
                source.seek(0.0)

    def test_each_frame_is_found_by_its_own_time_however_that_is_rounded(self, tmp_path: Path) -> None:
        clip = write_clip(tmp_path / "ntsc.mp4", [numbered(i) for i in range(16)], time_base=Fraction(1001, 30_000))
        with FileSource(clip) as source:
            for number, time_s in enumerate([frame.time_s for frame in source]):
                source.seek(time_s)
                assert number_of(source.read().rgb) == number

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
        ("matrix", "shown"),
        [
            ((-1, 0, 0, 1), lambda stored: stored[:, ::-1]),
            ((1, 0, 0, -1), lambda stored: stored[::-1]),
            ((0, 1, 1, 0), lambda stored: stored.swapaxes(0, 1)),
            ((0, -1, -1, 0), lambda stored: stored[::-1, ::-1].swapaxes(0, 1)),
        ],
    )
    def test_a_mirrored_video_is_shown_as_players_do(
        self, tmp_path: Path, matrix: tuple[int, ...], shown: Callable[[np.ndarray], np.ndarray]
    ) -> None:
        stored = np.zeros((*SIZE, 3), np.uint8)
        stored[:24, :32] = 255
        stored[24:, 48:] = 128
        clip = write_clip(tmp_path / "selfie.mp4", [stored] * 3, options={"crf": "5"})
        content = bytearray(clip.read_bytes())
        place = content.index(b"tkhd") + 44  # ISO/IEC 14496-12, 8.3.2
        a, b, c, d = (value << 16 for value in matrix)
        content[place : place + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
        clip.write_bytes(content)
        expected = shown(stored)
        with FileSource(clip) as source:
            assert source.info.size == expected.shape[:2]
            assert np.abs(source.read().rgb.astype(int) - expected).mean() < 4

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

    def test_planes_of_yuv_are_the_decoders_own(self, tmp_path: Path) -> None:
        clip = write_clip(tmp_path / "bars.mp4", [color_bars(50)[:, :90]] * 2, matrix=Colorspace.ITU709, colorspace=1)
        with FileSource(clip) as source, av.open(str(clip)) as container:
            picture = source.read().picture
            decoded = next(container.decode(video=0)).to_ndarray()  # Y, U and V below each other
        assert picture.encoding == YuvEncoding(matrix="bt709", full_range=False)
        assert [plane.shape for plane in picture.planes] == [(50, 90), (25, 45), (25, 45)]
        np.testing.assert_array_equal(np.concatenate([plane.ravel() for plane in picture.planes]), decoded.ravel())

    @pytest.mark.parametrize(
        ("size", "properties"),
        [
            ((48, 64), {"rotation": 90}),
            ((48, 64), {"sample_aspect_ratio": Fraction(4, 3)}),
            ((49, 64), {"codec": "ffv1"}),
            ((48, 63), {"codec": "ffv1"}),
            ((48, 64), {"codec": "ffv1", "pix_fmt": "yuv444p"}),
            ((48, 64), {"colorspace": 7}),  # SMPTE 240M
        ],
    )
    def test_what_needs_work_comes_as_rgb(self, tmp_path: Path, size: tuple[int, int], properties: dict) -> None:
        with FileSource(write_clip(tmp_path / "clip.mkv", [numbered(9, size)] * 2, **properties)) as source:
            frame = source.read()
        assert frame.picture.encoding is None
        assert number_of(frame.rgb) == 9

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

    @pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no named pipes")
    def test_pipe(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "pipe.mp4")  # nobody writes to it: opening it would take for ever
        self.check(tmp_path / "pipe.mp4", "is a pipe")

    def test_text(self, tmp_path: Path) -> None:
        (tmp_path / "notes.mp4").write_text("This is not a video.\n" * 50)
        self.check(tmp_path / "notes.mp4", "not a video")

    def test_empty(self, tmp_path: Path) -> None:
        (tmp_path / "empty.mp4").touch()
        self.check(tmp_path / "empty.mp4", "0 bytes")

    @pytest.mark.parametrize(("name", "codec"), [("song.m4a", "aac"), ("song.wav", "pcm_s16le")])
    def test_sound_only(self, tmp_path: Path, name: str, codec: str) -> None:
        self.check(write_sound(tmp_path / name, codec), "no video stream", "audio")

    def test_a_song_with_a_cover(self, tmp_path: Path) -> None:
        song = write_sound(tmp_path / "plain.m4a", "aac")
        with av.open(str(song)) as source, av.open(str(tmp_path / "song.m4a"), "w", format="mp4") as output:
            sound = output.add_stream_from_template(source.streams.audio[0])
            cover = output.add_stream("mjpeg", width=64, height=64, pix_fmt="yuvj420p")
            cover.disposition = Disposition.attached_pic
            output.mux(cover.encode(av.VideoFrame(64, 64, "yuvj420p")))
            for packet in source.demux(audio=0):
                if packet.size:
                    packet.stream = sound
                    output.mux(packet)
        self.check(tmp_path / "song.m4a", "no video stream", "a cover picture and audio")

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
