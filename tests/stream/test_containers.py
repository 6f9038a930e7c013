"""WebM and AVI, which hold less than MP4, MOV and Matroska do."""

import logging
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from bsdnet.picture import Picture, YuvEncoding
from bsdnet.runtime.prediction import Prediction
from bsdnet.stream.frame import StreamResult
from bsdnet.stream.sink import EncoderSettings, FileSink
from bsdnet.stream.source import ArraySource, FileSource

from .media import INFO, decoded_times, number_of, numbered, result, run, sound_packets, write_clip


@pytest.fixture
def warnings(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.WARNING, "bsdnet")
    return caplog


@pytest.mark.parametrize(("suffix", "codec"), [(".webm", "vp9"), (".avi", "mpeg4")])
class TestBoth:
    def test_frames_and_times(self, tmp_path: Path, suffix: str, codec: str) -> None:
        out = tmp_path / f"out{suffix}"
        sink = FileSink(out)
        run(ArraySource([numbered(index) for index in range(20)], 25.0), sink)
        with av.open(str(out)) as container:
            video = container.streams.video[0]
            assert (video.codec_context.name, video.codec_context.pix_fmt) == (codec, "yuv420p")
            numbers = [number_of(frame.to_ndarray(format="rgb24")) for frame in container.decode(video)]
        assert numbers == list(range(20))
        assert decoded_times(out) == pytest.approx([index / 25 for index in range(20)], abs=0.001)
        assert sink.encoder.why

    @pytest.mark.parametrize("size", [(1, 1), (67, 99), (720, 1280)])
    def test_sizes(self, tmp_path: Path, suffix: str, codec: str, size: tuple[int, int]) -> None:
        out = tmp_path / f"out{suffix}"
        run(ArraySource([numbered(3, size)] * 2), FileSink(out))
        with FileSource(out) as source:
            frames = list(source)
        assert [frame.size for frame in frames] == [(size[0] + size[0] % 2, size[1] + size[1] % 2)] * 2
        assert number_of(frames[1].rgb) == 3

    @pytest.mark.parametrize("height", [96, 720])
    def test_colours_come_back(self, tmp_path: Path, suffix: str, codec: str, height: int) -> None:
        colors = [(235, 235, 235), (200, 200, 20), (20, 200, 200), (20, 200, 20), (200, 20, 20), (128, 64, 128)]
        bars = np.repeat(np.array([colors], np.uint8), height, axis=0).repeat(16, axis=1)
        out = tmp_path / f"out{suffix}"
        run(ArraySource([bars] * 3), FileSink(out, encoder=EncoderSettings(crf=2)))
        with FileSource(out) as source:
            found = source.read().rgb[height // 2, 8::16].astype(int)
        assert np.abs(found - np.array(colors)).max() <= 6

    def test_unusual_planes_are_shown_right(self, tmp_path: Path, suffix: str, codec: str) -> None:
        encoding = YuvEncoding(matrix="bt709", full_range=True)
        planes = tuple(
            np.full(shape, value, np.uint8) for shape, value in (((48, 64), 90), ((24, 32), 150), ((24, 32), 110))
        )
        picture = Picture(planes=planes, encoding=encoding)
        out = tmp_path / f"out{suffix}"
        sink = FileSink(out)
        sink.open(INFO)
        sink.write(
            StreamResult(frame=replace(result(0).frame, picture=picture), prediction=Prediction(rendered=picture))
        )
        sink.finish()
        with FileSource(out) as source:
            np.testing.assert_allclose(source.read().rgb.mean(axis=(0, 1)), picture.rgb.mean(axis=(0, 1)), atol=4)

    def test_crf_counts(self, tmp_path: Path, suffix: str, codec: str) -> None:
        noise = np.random.default_rng(0).integers(0, 255, (10, 144, 192, 3), np.uint8)
        sizes = []
        for crf in (2, 30):
            out = tmp_path / f"{crf}{suffix}"
            run(ArraySource(list(noise)), FileSink(out, encoder=EncoderSettings(crf=crf)))
            sizes.append(out.stat().st_size)
        assert sizes[0] > 1.5 * sizes[1]


class TestWebM:
    def test_opus_is_copied(self, tmp_path: Path) -> None:
        clip = write_clip(tmp_path / "clip.mkv", [numbered(1)] * 20, sound="libopus", sound_s=0.8)
        run(FileSource(clip), FileSink(tmp_path / "out.webm"))
        assert [sound for sound, _ in sound_packets(tmp_path / "out.webm")] == [
            sound for sound, _ in sound_packets(clip)
        ]

    def test_aac_is_left_out_aloud(self, tmp_path: Path, warnings: pytest.LogCaptureFixture) -> None:
        clip = write_clip(tmp_path / "clip.mp4", [numbered(1)] * 5, sound="aac", sound_s=0.2)
        run(FileSource(clip), FileSink(tmp_path / "out.webm"))
        assert "the aac sound of clip.mp4 does not fit into a webm file" in warnings.text
        assert len(decoded_times(tmp_path / "out.webm")) == 5

    def test_variable_timestamps_are_kept(self, tmp_path: Path) -> None:
        pts = [0, 100, 130, 1000, 1001, 5000]
        clip = write_clip(tmp_path / "vfr.mkv", [numbered(i) for i in range(6)], pts=pts, time_base=Fraction(1, 1000))
        run(FileSource(clip), FileSink(tmp_path / "out.webm"))
        assert decoded_times(tmp_path / "out.webm") == pytest.approx([p / 1000 for p in pts], abs=1e-6)


class TestAvi:
    def write(self, path: Path, pts: list[int]) -> list[float]:
        sink = FileSink(path)
        sink.open(replace(INFO, time_base=Fraction(1, 1000)))  # 25 Hz
        for index, ticks in enumerate(pts):
            sink.write(result(index, pts=ticks, time_base=Fraction(1, 1000)))
        sink.finish()
        return decoded_times(path)

    def test_even_timestamps_are_kept_silently(self, tmp_path: Path, warnings: pytest.LogCaptureFixture) -> None:
        assert self.write(tmp_path / "out.avi", [0, 41, 79, 120]) == pytest.approx([0, 0.04, 0.08, 0.12])
        assert warnings.text == ""

    def test_uneven_ones_are_moved_with_one_warning(self, tmp_path: Path, warnings: pytest.LogCaptureFixture) -> None:
        times = self.write(tmp_path / "out.avi", [0, 10, 20, 400, 1000, 1020])
        assert times == pytest.approx([0, 0.04, 0.08, 0.4, 1.0, 1.04])
        assert len(warnings.records) == 1
        assert "out.avi: an AVI has one frame rate, here 25" in warnings.text

    def test_a_gap_of_hours_is_closed(self, tmp_path: Path, warnings: pytest.LogCaptureFixture) -> None:
        hours_ms = 36_000_000
        times = self.write(tmp_path / "out.avi", [0, 40, hours_ms, hours_ms + 40, hours_ms + 120])
        assert times == pytest.approx([0, 0.04, 0.08, 0.12, 0.2])
        assert "out.avi: an AVI has one frame rate" in warnings.text

    @pytest.mark.parametrize("fps", [29.97, 59.94, 119.88, 240.0])
    def test_frame_rates(self, tmp_path: Path, fps: float, warnings: pytest.LogCaptureFixture) -> None:
        run(ArraySource([numbered(1)] * 4, fps), FileSink(tmp_path / "out.avi"))
        assert decoded_times(tmp_path / "out.avi") == pytest.approx([index / fps for index in range(4)], abs=1e-4)
        assert warnings.text == ""

    @pytest.mark.parametrize("codec", ["aac", "libmp3lame", "ac3"])
    def test_sound_is_copied_and_does_not_move_the_pictures(self, tmp_path: Path, codec: str) -> None:
        clip = write_clip(tmp_path / "clip.mkv", [numbered(1)] * 20, sound=codec, sound_s=0.8)
        out = tmp_path / "out.avi"
        run(FileSource(clip), FileSink(out))
        assert [sound for sound, _ in sound_packets(out)] == [sound for sound, _ in sound_packets(clip)]
        assert decoded_times(out) == pytest.approx([index / 25 for index in range(20)])


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv", ".avi"])
def test_two_sounds_are_both_kept(tmp_path: Path, suffix: str) -> None:
    one = write_clip(tmp_path / "one.mkv", [numbered(1)] * 25, sound="aac", sound_s=1.0)
    two = write_clip(tmp_path / "two.mkv", [numbered(1)] * 25, sound="libmp3lame", sound_s=1.0)
    both = tmp_path / "both.mkv"
    with av.open(str(both), "w") as output, av.open(str(one)) as first, av.open(str(two)) as second:
        streams = [first.streams.video[0], first.streams.audio[0], second.streams.audio[0]]
        targets = [output.add_stream_from_template(stream) for stream in streams]
        for stream, target in zip(streams, targets, strict=True):
            source = first if stream is not streams[2] else second
            source.seek(0)
            for packet in source.demux(stream):
                if packet.size:
                    packet.stream = target
                    output.mux(packet)
    out = tmp_path / f"out{suffix}"
    run(FileSource(both), FileSink(out))
    with av.open(str(out)) as container:
        assert [len(list(container.decode(audio=0))) > 30, len(container.streams.audio)] == [True, 2]
    with av.open(str(out)) as container:
        assert len(list(container.decode(audio=1))) > 30
