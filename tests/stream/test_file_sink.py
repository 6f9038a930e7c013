import logging
import signal
import subprocess
import sys
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from bsdnet.errors import SinkError
from bsdnet.picture import Matrix, Picture, YuvEncoding
from bsdnet.runtime.prediction import Prediction
from bsdnet.stream.frame import Frame, StreamInfo, StreamResult
from bsdnet.stream.sink import EncoderSettings, FileSink
from bsdnet.stream.source import ArraySource, FileSource

from .media import INFO, SIZE, decoded_times, number_of, numbered, result, run, snapshot, sound_packets, write_clip


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
class TestFileSink:
    def test_writes_h264_that_plays_everywhere(self, tmp_path: Path, suffix: str) -> None:
        out = tmp_path / f"out{suffix}"
        run(ArraySource([numbered(index) for index in range(20)], 25.0), FileSink(out))
        with av.open(str(out)) as container:
            video = container.streams.video[0]
            assert video.codec_context.name == "h264"
            assert video.codec_context.pix_fmt == "yuv420p"
            assert (video.height, video.width) == SIZE
            frames = list(container.decode(video))
            assert [number_of(frame.to_ndarray(format="rgb24")) for frame in frames] == list(range(20))
        assert decoded_times(out) == pytest.approx([index / 25 for index in range(20)], abs=0.001)

    def test_variable_timestamps_are_kept(self, tmp_path: Path, suffix: str) -> None:
        pts = [0, 100, 130, 1000, 1001, 5000]
        clip = write_clip(tmp_path / "vfr.mkv", [numbered(i) for i in range(6)], pts=pts, time_base=Fraction(1, 1000))
        run(FileSource(clip), FileSink(tmp_path / f"out{suffix}"))
        assert decoded_times(tmp_path / f"out{suffix}") == pytest.approx([p / 1000 for p in pts], abs=1e-6)

    def test_time_begins_at_zero_with_the_source(self, tmp_path: Path, suffix: str) -> None:
        clip = write_clip(tmp_path / "clip.ts", [numbered(i) for i in range(8)], sound="aac", sound_s=0.32)
        with FileSource(clip) as source:
            times = [frame.time_s for frame in source]
        run(FileSource(clip), FileSink(tmp_path / f"out{suffix}"))
        assert decoded_times(tmp_path / f"out{suffix}") == pytest.approx(times, abs=0.001)
        with av.open(str(clip)) as container:
            start_s = container.start_time / av.time_base
        before, after = sound_packets(clip), sound_packets(tmp_path / f"out{suffix}")
        assert start_s > 0.05
        assert [time_s for _, time_s in after] == pytest.approx([time_s - start_s for _, time_s in before], abs=0.001)

    def test_sound_is_copied_packet_for_packet(self, tmp_path: Path, suffix: str) -> None:
        # Sound longer than the pictures is kept, and so is AAC's lead-in of before time zero.
        clip = write_clip(tmp_path / "clip.mp4", [numbered(i) for i in range(20)], sound="aac", sound_s=1.2)
        out = tmp_path / f"out{suffix}"
        run(FileSource(clip), FileSink(out))
        before, after = sound_packets(clip), sound_packets(out)
        assert before[0][1] < 0
        assert [digest for digest, _ in after] == [digest for digest, _ in before]
        zero_s = lead_in(out)
        assert [time_s - zero_s for _, time_s in after] == pytest.approx([time_s for _, time_s in before], abs=0.001)
        assert decoded_times(out) == pytest.approx([zero_s + index / 25 for index in range(20)], abs=0.001)

    @pytest.mark.parametrize("next_frame", [10, 50])  # at once, or after a gap
    def test_sound_is_cut_where_fewer_frames_are_written(self, tmp_path: Path, suffix: str, next_frame: int) -> None:
        pts = [*range(10), next_frame, next_frame + 1]
        options = {"bf": "0"}  # else the late frame comes early in the file
        clip = write_clip(tmp_path / "clip.mp4", [numbered(1)] * 12, pts=pts, options=options, sound="aac", sound_s=2.2)
        out = tmp_path / f"out{suffix}"
        run(FileSource(clip), FileSink(out), frames=10)
        last_s = sound_packets(out)[-1][1] - lead_in(out)
        with FileSource(clip) as source:
            end_s = 9 / 25 + 1 / source.info.fps
        assert end_s - 1024 / 48_000 <= last_s < end_s < 0.6

    def test_sound_can_be_left_out(self, tmp_path: Path, suffix: str) -> None:
        clip = write_clip(tmp_path / "clip.mp4", [numbered(1)] * 5, sound="aac", sound_s=0.2)
        out = tmp_path / f"out{suffix}"
        run(FileSource(clip), FileSink(out, audio=False))
        with av.open(str(out)) as container:
            assert not container.streams.audio

    @pytest.mark.parametrize("height", [96, 720])
    def test_colours_come_back(self, tmp_path: Path, suffix: str, height: int) -> None:
        colors = [(235, 235, 235), (200, 200, 20), (20, 200, 200), (20, 200, 20), (200, 20, 20), (128, 64, 128)]
        bars = np.repeat(np.array([colors], np.uint8), height, axis=0).repeat(16, axis=1)
        out = tmp_path / f"out{suffix}"
        run(ArraySource([bars] * 3), FileSink(out, encoder=EncoderSettings(crf=5)))
        with FileSource(out) as source:
            found = source.read().rgb[height // 2, 8::16].astype(int)
        assert np.abs(found - np.array(colors)).max() <= 4
        with av.open(str(out)) as container:
            context = container.streams.video[0].codec_context
            tags = (context.colorspace, context.color_primaries, context.color_trc, context.color_range)
        assert tags == ((1, 1, 1, 1) if height == 720 else (6, 6, 6, 1))

    @pytest.mark.parametrize(
        ("matrix", "full_range", "tags"),
        [("bt601", False, (6, 6, 6, 1)), ("bt709", True, (1, 1, 1, 2)), ("bt2020", False, (9, 9, 14, 1))],
    )
    def test_yuv_is_encoded_as_it_is(
        self, tmp_path: Path, suffix: str, matrix: Matrix, full_range: bool, tags: tuple[int, ...]
    ) -> None:
        encoding = YuvEncoding(matrix=matrix, full_range=full_range)
        rng = np.random.default_rng(0)
        planes = tuple(rng.integers(16, 236, shape, np.uint8) for shape in ((50, 90), (25, 45), (25, 45)))
        frame = replace(result(0).frame, picture=Picture(planes=planes, encoding=encoding))
        out = tmp_path / f"out{suffix}"
        sink = FileSink(out, encoder=EncoderSettings(crf=0))
        sink.open(INFO)
        sink.write(StreamResult(frame=frame, prediction=Prediction(rendered=frame.picture)))
        planes[0][:] = 0  # the sink has made it its own
        sink.finish()
        expected = (np.random.default_rng(0).integers(16, 236, (50, 90), np.uint8), *planes[1:])
        with av.open(str(out)) as container:
            context = container.streams.video[0].codec_context
            assert (context.colorspace, context.color_primaries, context.color_trc, context.color_range) == tags
            decoded = next(container.decode(video=0)).to_ndarray(format="yuvj420p" if full_range else "yuv420p")
        np.testing.assert_array_equal(decoded.ravel(), np.concatenate([plane.ravel() for plane in expected]))

    def test_another_pixel_format_in_the_middle_is_converted(self, tmp_path: Path, suffix: str) -> None:
        first = Picture(
            planes=(np.full(SIZE, 126, np.uint8), *[np.full((24, 32), 128, np.uint8)] * 2),
            encoding=YuvEncoding(matrix="bt601", full_range=True),
        )
        other = replace(first, encoding=YuvEncoding(matrix="bt601", full_range=False))
        out = tmp_path / f"out{suffix}"
        sink = FileSink(out)
        sink.open(INFO)
        for index, picture in enumerate((first, Picture(planes=(numbered(10),)), other)):
            sink.write(replace(result(index), prediction=Prediction(rendered=picture)))
        sink.finish()
        with FileSource(out) as source:
            levels = [float(frame.rgb.mean()) for frame in source]
        assert levels == pytest.approx([126, 96, (126 - 16) * 255 / 219], abs=2)

    def test_odd_sizes_repeat_the_last_row_and_column(self, tmp_path: Path, suffix: str) -> None:
        rng = np.random.default_rng(0)
        coarse = rng.integers(40, 216, (9, 13, 1), np.uint8)
        picture = coarse.repeat(8, 0).repeat(8, 1)[:67, :99].repeat(3, 2)
        out = tmp_path / f"out{suffix}"
        run(ArraySource([picture] * 2), FileSink(out, encoder=EncoderSettings(crf=1)))
        with FileSource(out) as source:
            found = source.read().rgb
        assert found.shape == (68, 100, 3)
        assert np.abs(found[:67, :99].astype(int) - picture).max() <= 6  # scaled, every edge would be blurred
        assert np.abs(found[67, :99].astype(int) - picture[66]).max() <= 6

    def test_a_size_change_is_scaled_to_the_first_size(self, tmp_path: Path, suffix: str) -> None:
        out = tmp_path / f"out{suffix}"
        run(ArraySource([numbered(3), numbered(5, (80, 112)), numbered(7, (47, 63))]), FileSink(out))
        with FileSource(out) as source:
            frames = list(source)
        assert [frame.size for frame in frames] == [SIZE] * 3
        assert [number_of(frame.rgb) for frame in frames] == [3, 5, 7]

    def test_keyframes_come_every_second_whatever_the_rate(self, tmp_path: Path, suffix: str) -> None:
        info = StreamInfo(name="test", size=SIZE, fps=1000.0, time_base=Fraction(1, 1000))  # announced wrongly
        sink = FileSink(tmp_path / f"out{suffix}")
        sink.open(info)
        for index in range(40):
            sink.write(result(index, numbered(3), pts=index * 100, time_base=info.time_base))
        sink.finish()
        with av.open(str(tmp_path / f"out{suffix}")) as container:
            keys = [float(p.pts * p.time_base) for p in container.demux(video=0) if p.size and p.is_keyframe]
        assert keys == pytest.approx([0, 1, 2, 3], abs=0.001)

    @pytest.mark.parametrize(
        ("given", "written"),
        [
            ([0, 1, 1, 2, 3, 3, 6], [0, 1, 2, 3, 4, 5, 6]),  # repeated: each is shown
            ([10, 11, 9, 12, 13], [0, 1, 2, 3, 4]),  # going back a little
            ([500, 501, 502, 0, 1, 2], [0, 1, 2, 3, 4, 5]),  # begun anew
        ],
    )
    def test_timestamps_that_go_back_are_mended(
        self, tmp_path: Path, suffix: str, given: list[int], written: list[int]
    ) -> None:
        sink = FileSink(tmp_path / f"out{suffix}")
        sink.open(INFO)
        for index, pts in enumerate(given):
            shown = result(index, pts=pts)
            # The source's zero is its first frame.
            sink.write(StreamResult(frame=retimed(shown, (pts - given[0]) / 25), prediction=shown.prediction))
        sink.finish()
        times = decoded_times(tmp_path / f"out{suffix}")
        assert times == pytest.approx([pts / 25 for pts in written], abs=0.001)

    def test_abort_keeps_a_playable_part_and_the_old_target(self, tmp_path: Path, suffix: str) -> None:
        out = tmp_path / f"out{suffix}"
        out.write_bytes(b"old")
        sink = FileSink(out, overwrite=True)
        sink.open(INFO)
        for index in range(10):
            sink.write(result(index))
        sink.abort()
        assert out.read_bytes() == b"old"
        assert len(decoded_times(tmp_path / f"out{suffix}.part")) == 10

    def test_finish_without_a_frame_is_an_error_and_keeps_the_old_target(self, tmp_path: Path, suffix: str) -> None:
        out = tmp_path / f"out{suffix}"
        out.write_bytes(b"old")
        sink = FileSink(out, overwrite=True)
        sink.open(INFO)
        with pytest.raises(SinkError, match="no frame"):
            sink.finish()
        assert snapshot(tmp_path) == {out.name: b"old"}

    def test_a_target_that_appears_meanwhile_is_not_replaced(self, tmp_path: Path, suffix: str) -> None:
        out = tmp_path / f"out{suffix}"
        sink = FileSink(out)
        sink.open(INFO)
        sink.write(result(0))
        out.write_bytes(b"somebody else's")
        with pytest.raises(SinkError, match="exists"):
            sink.finish()
        sink.abort()
        assert out.read_bytes() == b"somebody else's"
        assert len(decoded_times(tmp_path / f"out{suffix}.part")) == 1

    @pytest.mark.skipif(sys.platform == "win32", reason="limits of POSIX")
    def test_a_full_disk_names_the_partial_file_and_keeps_it_playable(self, tmp_path: Path, suffix: str) -> None:
        out = tmp_path / f"out{suffix}"
        done = subprocess.run(
            [sys.executable, "-c", LIMITED_WRITER, str(out)],
            capture_output=True,
            text=True,
            cwd=Path(__file__).parents[2],
            check=True,
        )
        assert f"{out.name}.part" in done.stdout
        assert "cannot be written" in done.stdout
        assert done.stderr == ""
        assert not out.exists()
        with FileSource(tmp_path / f"out{suffix}.part") as source:
            assert len(list(source)) >= 10


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
@pytest.mark.parametrize(
    ("suffix", "sound", "sound_s", "kill_at"),
    [
        (".mp4", None, 0.0, 100),
        (".mp4", "aac", 1.0, 77),
        (".mov", "aac", 30.0, 131),
        (".mkv", "aac", 1.0, 60),
        (".webm", "libopus", 1.0, 93),
        (".avi", "aac", 1.0, 48),
    ],
)
def test_a_kill_costs_at_most_a_second(
    tmp_path: Path, suffix: str, sound: str | None, sound_s: float, kill_at: int
) -> None:
    # Sound that ends before the pictures must not make the muxer wait for more of it.
    with_sound = write_clip(tmp_path / "sound.mp4", [numbered(1)] * 3, sound=sound, sound_s=sound_s)
    out = tmp_path / f"out{suffix}"
    command = [sys.executable, "-c", ENDLESS_WRITER, str(out), str(with_sound) if sound else ""]
    root = Path(__file__).parents[2]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=root) as writer:
        for line in writer.stdout:
            written = int(line)
            if written == kill_at:
                writer.send_signal(signal.SIGKILL)
                break
    assert not out.exists()
    part = tmp_path / f"out{suffix}.part"
    times = [time_s - lead_in(part) for time_s in decoded_times(part)]
    assert times == pytest.approx([index / 25 for index in range(len(times))], abs=0.001)
    assert times[-1] >= written / 25 - 1.0


ENDLESS_WRITER = """
import sys
from fractions import Fraction
from pathlib import Path
import numpy as np
from bsdnet.stream.frame import StreamInfo
from bsdnet.stream.sink import FileSink
from tests.stream.media import result

sink = FileSink(Path(sys.argv[1]))
sink.open(StreamInfo(name="t", size=(48, 64), fps=25.0, time_base=Fraction(1, 25), audio_path=sys.argv[2] or None))
rng = np.random.default_rng(0)
for index in range(100_000):
    sink.write(result(index, rng.integers(0, 255, (48, 64, 3), np.uint8)))
    print(index, flush=True)
"""


LIMITED_WRITER = """
import resource, sys
from fractions import Fraction
from pathlib import Path
import numpy as np
from bsdnet.errors import SinkError
from bsdnet.picture import Matrix, Picture, YuvEncoding
from bsdnet.runtime.prediction import Prediction
from bsdnet.stream.frame import StreamInfo
from bsdnet.stream.sink import FileSink
from tests.stream.media import result

resource.setrlimit(resource.RLIMIT_FSIZE, (150_000, 150_000))
sink = FileSink(Path(sys.argv[1]))
sink.open(StreamInfo(name="t", size=(48, 64), fps=25.0, time_base=Fraction(1, 25)))
rng = np.random.default_rng(0)
try:
    for index in range(10_000):
        sink.write(result(index, rng.integers(0, 255, (48, 64, 3), np.uint8)))
except SinkError as error:
    print(error)
sink.abort()
"""


def lead_in(path: Path) -> float:
    """How far everything was moved so that a lead-in of sound begins at zero: Matroska knows no time before."""
    return max(decoded_times(path)[0], 0.0) if ".mkv" in path.name or ".webm" in path.name else 0.0


def retimed(shown: StreamResult, time_s: float) -> Frame:
    return replace(shown.frame, time_s=time_s)


class TestFileSinkSound:
    @pytest.mark.parametrize(("codec", "suffix"), [("wavpack", ".mp4"), ("flac", ".mov")])
    def test_sound_that_does_not_fit_is_left_out_aloud(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture, codec: str, suffix: str
    ) -> None:
        clip = write_clip(tmp_path / "clip.mkv", [numbered(1)] * 10, sound=codec, sound_s=0.4)
        out = tmp_path / f"out{suffix}"
        with caplog.at_level(logging.WARNING, "bsdnet"):
            run(FileSource(clip), FileSink(out))
        assert f"the {codec} sound of clip.mkv does not fit" in caplog.text
        with av.open(str(out)) as container:
            assert not container.streams.audio
        assert len(decoded_times(out)) == 10

    @pytest.mark.parametrize("codec", ["pcm_s16le", "libmp3lame", "ac3"])
    @pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
    def test_the_sound_of_cameras_that_write_avi_fits_everywhere(self, tmp_path: Path, codec: str, suffix: str) -> None:
        clip = write_clip(
            tmp_path / "clip.avi", [numbered(1)] * 20, codec="mpeg4", pix_fmt="yuv420p", sound=codec, sound_s=0.8
        )
        out = tmp_path / f"out{suffix}"
        run(FileSource(clip), FileSink(out))
        assert [digest for digest, _ in sound_packets(out)] == [digest for digest, _ in sound_packets(clip)]

    def test_a_part_of_the_source_has_the_sound_of_that_part(self, tmp_path: Path) -> None:
        clip = write_clip(tmp_path / "clip.mp4", [numbered(i) for i in range(25)], sound="aac", sound_s=1.0)
        out = tmp_path / "out.mp4"
        source = FileSource(clip)
        source.seek(0.4)
        run(source, FileSink(out), frames=5)
        assert decoded_times(out) == pytest.approx([index / 25 for index in range(5)])
        digests = [digest for digest, _ in sound_packets(clip)]
        found = sound_packets(out)
        first = digests.index(found[0][0])
        assert [digest for digest, _ in found] == digests[first : first + len(found)]
        original_s = dict(sound_packets(clip))
        assert found[0][1] == pytest.approx(original_s[found[0][0]] - 0.4, abs=0.001)
        assert 0.0 <= found[0][1] <= found[-1][1] < 0.2


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "num_frames", "suffix"),
    [("solidWhiteRight.mp4", 221, ".mp4"), ("vehicle_detection_test.mp4", 38, ".mkv")],
)
def test_a_real_clip_keeps_frames_times_and_sound(
    data_dir: Path, tmp_path: Path, name: str, num_frames: int, suffix: str
) -> None:
    clip, out = data_dir / "video" / name, tmp_path / f"out{suffix}"
    run(FileSource(clip), FileSink(out))
    times = decoded_times(out)
    assert len(times) == num_frames
    assert times == pytest.approx(decoded_times(clip), abs=0.001)
    before, after = sound_packets(clip), sound_packets(out)
    assert [digest for digest, _ in after] == [digest for digest, _ in before]
    assert [time_s for _, time_s in after] == pytest.approx([time_s for _, time_s in before], abs=0.001)
    with FileSource(clip) as source, FileSource(out) as written:
        for time_s in times[::30]:
            source.seek(time_s)
            written.seek(time_s + 0.001)  # Matroska rounds times to milliseconds
            assert np.abs(source.read().rgb.astype(int) - written.read().rgb).mean() < 4


def test_a_name_that_was_taken_meanwhile_leaves_a_whole_video_beside_it(tmp_path: Path) -> None:
    sink = FileSink(tmp_path / "out.mp4")
    sink.open(INFO)
    for index in range(5):
        sink.write(result(index))
    (tmp_path / "out.mp4").write_bytes(b"somebody else's")
    with pytest.raises(SinkError, match=r"exists already.*; what was written is in \S*out\.mp4\.part$"):
        sink.finish()
    assert (tmp_path / "out.mp4").read_bytes() == b"somebody else's"
    assert len(decoded_times(tmp_path / "out.mp4.part")) == 5
