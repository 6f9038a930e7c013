"""Recordings in several files."""

import logging
import shutil
import threading
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import pytest

from bsdnet.errors import ConfigError, SinkError
from bsdnet.stream import segment_sink, segment_store
from bsdnet.stream.segment_store import COMMENT
from bsdnet.stream.sink import FileSink, SegmentSink
from bsdnet.stream.source import FileSource

from .media import INFO, decoded_times, number_of, numbered, result, run, snapshot, sound_packets, write_clip

pytestmark = pytest.mark.usefixtures("no_thread_stays")


def record(folder: Path, frames: int, *, start: int = 0, suffix: str = ".mp4", **options: object) -> SegmentSink:
    """Write frames at 25 Hz, in segments of a second."""
    sink = SegmentSink(folder / f"out{suffix}", segment_s=1, **options)
    sink.open(INFO)
    for index in range(start, start + frames):
        sink.write(result(index, numbered(index % 28), pts=index - start))
    sink.finish()
    return sink


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("out-*"))


@pytest.mark.parametrize(
    ("suffix", "sound"), [(".mp4", "aac"), (".mov", "aac"), (".mkv", "aac"), (".webm", "libopus"), (".avi", "ac3")]
)
class TestSeams:
    def test_no_frame_and_no_sound_is_lost_or_doubled(self, tmp_path: Path, suffix: str, sound: str) -> None:
        clip = write_clip(tmp_path / "clip.mkv", [numbered(i % 28) for i in range(83)], sound=sound, sound_s=3.4)
        sink = SegmentSink(tmp_path / f"out{suffix}", segment_s=1)
        run(FileSource(clip), sink)
        files = sorted(tmp_path.glob("out-*"))
        assert files == sink.written == [tmp_path / f"out-{number:06d}{suffix}" for number in (1, 2, 3, 4)]
        found = []
        for file in files:
            with av.open(str(file)) as container:
                found.append([number_of(frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)])
        assert [len(numbers) for numbers in found] == [25, 25, 25, 8]
        assert [number for numbers in found for number in numbers] == [index % 28 for index in range(83)]
        sounds = [sound_packets(file) for file in files]
        assert [digest for packets in sounds for digest, _ in packets] == [digest for digest, _ in sound_packets(clip)]

    def test_each_begins_at_zero_with_its_own_sound(self, tmp_path: Path, suffix: str, sound: str) -> None:
        clip = write_clip(tmp_path / "clip.mkv", [numbered(1)] * 60, sound=sound, sound_s=2.4)
        run(FileSource(clip), SegmentSink(tmp_path / f"out{suffix}", segment_s=1))
        for file in sorted(tmp_path.glob("out-*"))[1:]:
            times, heard = decoded_times(file), [time_s for _, time_s in sound_packets(file)]
            assert times == pytest.approx([index / 25 for index in range(len(times))], abs=0.001)
            assert 0 <= heard[0] < 0.04
            assert times[-1] - 0.04 < heard[-1] < times[-1] + 0.06


def test_an_uneven_stream_is_whole_when_the_files_are_joined(tmp_path: Path) -> None:
    pts = [0, 300, 990, 1500, 2600, 2700, 9000, 9100]
    sink = SegmentSink(tmp_path / "out.mp4", segment_s=1)
    sink.open(replace(INFO, time_base=Fraction(1, 1000)))
    for index, ticks in enumerate(pts):
        sink.write(result(index, pts=ticks, time_base=Fraction(1, 1000)))
    sink.finish()
    begin_s, times = 0.0, []
    for file in sink.written:
        times += [begin_s + time_s for time_s in decoded_times(file)]
        with av.open(str(file)) as container:
            video = container.streams.video[0]
            begin_s += float(video.duration * video.time_base)
    assert times == pytest.approx([ticks / 1000 for ticks in pts], abs=0.001)
    assert begin_s == pytest.approx(9.14, abs=0.001)


def test_a_second_sound_that_lags_behind_stays_with_its_pictures(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mkv", [numbered(1)] * 60, options={"bf": "0"}, sound="aac", sound_s=2.4)
    both = tmp_path / "both.mkv"
    options = {"max_interleave_delta": "1"}  # write the packets in the order in which they are given
    with av.open(str(both), "w", container_options=options) as output, av.open(str(clip)) as source:
        video, audio = source.streams.video[0], source.streams.audio[0]
        delays_s = {
            output.add_stream_from_template(template): delay_s
            for template, delay_s in ((video, 0), (audio, 0), (audio, 0.4))
        }
        order = []
        for packet in source.demux():
            for target, delay_s in delays_s.items():
                if packet.size and packet.stream.type == target.type:
                    order.append((float(packet.pts * packet.time_base) + delay_s, packet, target))
        for _, packet, target in sorted(order, key=lambda entry: entry[0]):
            twin = av.Packet(bytes(packet))
            twin.pts, twin.dts, twin.time_base, twin.stream = packet.pts, packet.pts, packet.time_base, target
            twin.is_keyframe = packet.is_keyframe
            output.mux(twin)
    sink = SegmentSink(tmp_path / "out.mp4", segment_s=1)
    run(FileSource(both), sink)
    assert len(sink.written) == 3
    for file in sink.written:
        assert heard(file, 0) == heard(file, 1)


def heard(path: Path, number: int) -> list[int]:
    with av.open(str(path)) as container:
        return [packet.pts for packet in container.demux(audio=number) if packet.size]


class TestNumbers:
    def test_they_go_on_from_what_is_there(self, tmp_path: Path) -> None:
        record(tmp_path, 30)
        record(tmp_path, 30, start=30)
        assert names(tmp_path) == [f"out-{number:06d}.mp4" for number in (1, 2, 3, 4)]

    def test_other_files_do_not_count(self, tmp_path: Path) -> None:
        for name in ("out-7.mp4", "out-000009.mkv", "about-000008.mp4", "out-000009.mp4.txt", "out.mp4"):
            (tmp_path / name).write_bytes(b"other")
        assert record(tmp_path, 5).written == [tmp_path / "out-000001.mp4"]

    def test_more_than_a_million_is_a_number_too(self, tmp_path: Path) -> None:
        shutil.copy(record(tmp_path, 3).written[0], tmp_path / "out-1000000.mp4")
        assert record(tmp_path, 3).written == [tmp_path / "out-1000001.mp4"]


def test_what_an_aborted_run_has_left_is_named(tmp_path: Path) -> None:
    sink = SegmentSink(tmp_path / "out.mp4", segment_s=1)
    sink.open(INFO)
    for index in range(30):
        sink.write(result(index, numbered(index % 28)))
    assert sink.left_over is None
    sink.abort()
    assert [path.name for path in sink.written] == ["out-000001.mp4"]
    assert sink.left_over == tmp_path / "out-000002.mp4.part"
    assert sink.left_over.exists()


class TestBudget:
    def test_the_oldest_go_so_that_one_more_fits(self, tmp_path: Path) -> None:
        size = record(tmp_path, 25).written[0].stat().st_size
        sink = record(tmp_path, 250, budget_bytes=int(size * 4.5))
        assert len(sink.written) == 10
        assert names(tmp_path) == [f"out-{number:06d}.mp4" for number in (9, 10, 11)]

    def test_a_name_with_a_colon_is_no_protocol(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.chdir(tmp_path)
        sink = SegmentSink("drive-12:30.mp4", segment_s=1, budget_bytes=1)
        sink.open(INFO)
        for index in range(75):
            sink.write(result(index, numbered(index % 28)))
        sink.finish()
        assert [path.name for path in tmp_path.iterdir()] == ["drive-12:30-000003.mp4"]
        assert "none of ours" not in caplog.text

    def test_the_newest_stays_even_if_it_is_too_large(self, tmp_path: Path) -> None:
        record(tmp_path, 75, budget_bytes=1)
        assert names(tmp_path) == ["out-000003.mp4"]

    def test_room_is_made_before_the_first_frame(self, tmp_path: Path) -> None:
        record(tmp_path, 75)
        sink = SegmentSink(tmp_path / "out.mp4", segment_s=1, budget_bytes=1)
        sink.open(INFO)
        assert names(tmp_path) == ["out-000003.mp4"]
        sink.abort()

    def test_what_we_did_not_make_stays(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        others = tmp_path / "others"
        others.mkdir()
        run(FileSource(write_clip(others / "clip.mp4", [numbered(1)] * 25)), FileSink(others / "ours.mp4"))
        shutil.copy(others / "clip.mp4", tmp_path / "out-000001.mp4")
        shutil.copy(others / "ours.mp4", tmp_path / "out-000002.mp4")  # made by us, but not as a segment
        (tmp_path / "out-000003.mp4").write_bytes(b"no video")
        (tmp_path / "outing-000001.mp4").write_bytes(b"x")
        (tmp_path / "out-000001.mkv").write_bytes(b"x")
        before = snapshot(tmp_path)
        record(tmp_path, 75, budget_bytes=1)
        after = snapshot(tmp_path)
        assert {name: after.get(name) for name in before} == before
        assert set(after) - set(before) == {"out-000006.mp4"}
        assert caplog.text.count("is none of ours") == 3

    def test_segments_may_be_taken_away_meanwhile(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "out-000001.mp4").symlink_to("taken")  # as one that is there when names are listed, but not later
        (tmp_path / "out-000002.mp4").write_bytes(b"x")
        monkeypatch.setattr(segment_store, "_is_segment", lambda file: file.unlink() is None)
        record(tmp_path, 50, budget_bytes=1)
        assert names(tmp_path) == ["out-000001.mp4", "out-000004.mp4"]

    def test_the_input_is_never_deleted(self, tmp_path: Path) -> None:
        source = record(tmp_path, 50).written[0]
        sink = SegmentSink(tmp_path / "out.mp4", segment_s=1, budget_bytes=1, source_path=source)
        run(FileSource(source), sink)
        assert source in tmp_path.iterdir()

    @pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv", ".webm", ".avi"])
    def test_segments_are_known_by_their_metadata(self, tmp_path: Path, suffix: str) -> None:
        record(tmp_path, 75, suffix=suffix, budget_bytes=1)
        assert names(tmp_path) == [f"out-000003{suffix}"]
        with av.open(str(tmp_path / names(tmp_path)[0])) as container:
            assert COMMENT in container.metadata.values()


class TestCutOff:
    @pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
    def test_what_is_left_is_finished_at_the_next_start(
        self, tmp_path: Path, suffix: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        sink = SegmentSink(tmp_path / f"out{suffix}", segment_s=1)
        sink.open(INFO)
        for index in range(40):
            sink.write(result(index, numbered(index % 28)))
        sink.abort()
        assert names(tmp_path) == [f"out-000001{suffix}", f"out-000002{suffix}.part"]
        with caplog.at_level(logging.WARNING, "bsdnet"):
            record(tmp_path, 30, suffix=suffix, budget_bytes=10**9)
        assert names(tmp_path) == [f"out-{number:06d}{suffix}" for number in (1, 2, 3, 4)]
        assert len(decoded_times(tmp_path / f"out-000002{suffix}")) == 15
        assert "out-000002" in caplog.text
        record(tmp_path, 3, suffix=suffix, budget_bytes=1)
        assert names(tmp_path) == [f"out-000005{suffix}"], "what was saved counts as a segment"

    def test_what_cannot_be_saved_is_named_and_stays(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        (tmp_path / "out-000004.mp4.part").write_bytes(b"nothing")
        record(tmp_path, 3)
        assert names(tmp_path) == ["out-000004.mp4.part", "out-000005.mp4"]
        assert "out-000004.mp4.part" in caplog.text


class TestFailures:
    def test_a_file_that_cannot_be_finished_ends_the_recording(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def commit(file: segment_sink.VideoFile) -> None:
            file.release()
            raise SinkError("the disk is full")

        monkeypatch.setattr(segment_sink.VideoFile, "commit", commit)
        sink = SegmentSink(tmp_path / "out.mp4", segment_s=1)
        sink.open(INFO)
        with pytest.raises(SinkError, match="the disk is full"):
            for index in range(60):
                sink.write(result(index, numbered(index % 28)))
        sink.abort()

    def test_the_next_file_does_not_wait_for_the_disk(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        free, commit = threading.Event(), segment_sink.VideoFile.commit
        monkeypatch.setattr(segment_sink.VideoFile, "commit", lambda file: free.wait(10) and commit(file))
        sink = SegmentSink(tmp_path / "out.mp4", segment_s=1)
        sink.open(INFO)
        for index in range(45):
            sink.write(result(index, numbered(index % 28)))
        assert names(tmp_path) == ["out-000001.mp4.part", "out-000002.mp4.part"]
        free.set()
        sink.finish()
        assert names(tmp_path) == ["out-000001.mp4", "out-000002.mp4"]

    def test_no_frame(self, tmp_path: Path) -> None:
        sink = SegmentSink(tmp_path / "out.mp4", segment_s=1)
        sink.open(INFO)
        with pytest.raises(SinkError, match="no frame"):
            sink.finish()
        assert names(tmp_path) == []

    def test_a_picture_that_cannot_be_encoded_leaves_nothing(self, tmp_path: Path) -> None:
        sink = SegmentSink(tmp_path / "out.mp4", segment_s=1)
        sink.open(INFO)
        with pytest.raises(SinkError, match="20000x2"):
            sink.write(result(0, numbered(0, (2, 20_000))))
        sink.abort()
        assert names(tmp_path) == []

    def test_settings(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="segment_s is 0"):
            SegmentSink(tmp_path / "out.mp4", segment_s=0)
        with pytest.raises(ConfigError, match="budget_bytes is -1"):
            SegmentSink(tmp_path / "out.mp4", segment_s=1, budget_bytes=-1)
        with pytest.raises(SinkError, match="is a folder"):
            SegmentSink(tmp_path, segment_s=1)
