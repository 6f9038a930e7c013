"""Files whose timestamps jump: recordings that were joined, and damaged timestamps."""

from collections.abc import Iterator
from fractions import Fraction
from itertools import pairwise
from operator import itemgetter
from pathlib import Path
from types import SimpleNamespace

import av
import pytest

from bsdnet.stream.audio_copy import _continuous
from bsdnet.stream.continuity import MAX_GAP_S, Continuity
from bsdnet.stream.file_sink import FileSink
from bsdnet.stream.file_source import FileSource
from bsdnet.stream.pipeline import StreamPipeline
from bsdnet.stream.segment_sink import SegmentSink
from tests.stream.fakes import FakeSegmenter, FakeSink
from tests.stream.media import INFO, decoded_times, numbered, result, run, sound_packets, write_clip

HOUR_S, FRAME_S = 3600, 0.04
PICTURES, SOUND = 0xE0, 0xC0  # MPEG-TS: the kind of a stream in the header of its packets


def recording(path: Path) -> Path:
    """Three seconds with sound."""
    frames = [numbered(index % 28) for index in range(75)]
    return write_clip(path, frames, sound="aac", sound_s=3.0, options={"g": "25", "bf": "0"})


def move_stamp(path: Path, stream: int, number: int, seconds: float) -> Path:
    """Move the timestamps of one packet of one stream in MPEG-TS."""
    content = bytearray(path.read_bytes())
    found = 0
    for begin in range(0, len(content), 188):
        payload = begin + 4 + (1 + content[begin + 4] if content[begin + 3] & 0x20 else 0)
        if not content[begin + 1] & 0x40 or content[payload : payload + 4] != bytes([0, 0, 1, stream]):
            continue
        found += 1
        if found != number:
            continue
        has_both = content[payload + 7] >> 6 == 3
        for place in range(payload + 9, payload + (19 if has_both else 14), 5):
            stamp = content[place : place + 5]
            ticks = (stamp[0] >> 1 & 7) << 30 | stamp[1] << 22 | stamp[2] >> 1 << 15 | stamp[3] << 7 | stamp[4] >> 1
            ticks = (ticks + round(seconds * 90_000)) % 2**33
            content[place] = stamp[0] & 0xF1 | ticks >> 30 << 1
            content[place + 1], content[place + 2] = ticks >> 22 & 255, (ticks >> 15 & 127) << 1 | 1
            content[place + 3], content[place + 4] = ticks >> 7 & 255, (ticks & 127) << 1 | 1
    assert found >= number
    path.write_bytes(content)
    return path


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    return recording(tmp_path / "plain.ts")


def check(out: Path, source: Path, *, times: int = 1, missing: int = 0) -> None:
    """All pictures follow one another, and nearly all sound is there and as long as they are."""
    shown = decoded_times(out)
    assert len(shown) == 75 * times
    assert max(after - before for before, after in pairwise(shown)) < 1.5 * FRAME_S
    heard, original = sound_packets(out), sound_packets(source)
    assert len(heard) >= times * len(original) - missing
    assert heard[-1][1] == pytest.approx(shown[-1], abs=0.15)
    hashes = [packet for packet, _ in original]
    assert [packet for packet, _ in heard[: len(hashes)]] == hashes


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_joined_recordings_keep_their_sound_beside_their_pictures(tmp_path: Path, plain: Path, suffix: str) -> None:
    joined = tmp_path / "joined.ts"
    joined.write_bytes(plain.read_bytes() * 3)
    run(FileSource(joined), FileSink(tmp_path / f"out{suffix}"))
    remuxed = tmp_path / f"plain{suffix}"
    run(FileSource(plain), FileSink(remuxed))
    check(tmp_path / f"out{suffix}", remuxed, times=3, missing=4)
    heard, once = sound_packets(tmp_path / f"out{suffix}"), sound_packets(remuxed)
    (second,) = [time for packet, time in heard[len(once) - 2 :] if packet == once[5][0]][:1]
    shift = decoded_times(tmp_path / f"out{suffix}")[75] - decoded_times(remuxed)[0]
    assert second == pytest.approx(once[5][1] + shift, abs=0.03), (
        "sound and pictures of the second part belong together"
    )


def test_all_segments_of_joined_recordings_have_sound(tmp_path: Path, plain: Path) -> None:
    joined = tmp_path / "joined.ts"
    joined.write_bytes(plain.read_bytes() * 3)
    sink = SegmentSink(tmp_path / "out.mp4", segment_s=2)
    run(FileSource(joined), sink)
    assert len(sink.written) == 5
    assert all(len(sound_packets(file)) > 40 for file in sink.written)


@pytest.mark.parametrize("stream", [PICTURES, SOUND])
@pytest.mark.parametrize("seconds", [HOUR_S, 20, 5, -20])
def test_one_damaged_timestamp_touches_nothing_else(tmp_path: Path, plain: Path, stream: int, seconds: float) -> None:
    run(FileSource(plain), FileSink(tmp_path / "plain.mp4"))
    damaged = move_stamp(recording(tmp_path / "damaged.ts"), stream, 3 if stream == SOUND else 30, seconds)
    with FileSource(damaged) as source:
        times = [frame.time_s for frame in source]
    assert [after - before for before, after in pairwise(times)] == pytest.approx([FRAME_S] * 74)
    run(FileSource(damaged), FileSink(tmp_path / "out.mp4"))
    check(tmp_path / "out.mp4", tmp_path / "plain.mp4", missing=1)


def test_the_last_timestamp_may_be_the_damaged_one(tmp_path: Path) -> None:
    damaged = move_stamp(recording(tmp_path / "damaged.ts"), PICTURES, 75, HOUR_S)
    with FileSource(damaged) as source:
        assert [frame.time_s for frame in source][-1] < 3.1


def test_a_long_still_may_end_a_file(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "slides.mkv", [numbered(index) for index in range(3)], pts=[0, 25 * 30, 25 * 150])
    with FileSource(clip) as source:
        assert [frame.time_s for frame in source] == pytest.approx([0, 30, 150])


def test_a_gap_that_no_mp4_can_hold_is_closed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    clip = write_clip(
        tmp_path / "gap.mkv",
        [numbered(index) for index in range(4)],
        pts=[0, 1, 25 * 20 * HOUR_S, 25 * 20 * HOUR_S + 1],
    )
    run(FileSource(clip), FileSink(tmp_path / "out.mp4"))
    assert decoded_times(tmp_path / "out.mp4") == pytest.approx([0, 0.04, 0.08, 0.12])
    assert "a gap of 20.0 hours between two pictures is closed" in caplog.text


def test_a_gap_of_hours_stays(tmp_path: Path) -> None:
    clip = write_clip(
        tmp_path / "gap.mkv", [numbered(index) for index in range(4)], pts=[0, 1, 25 * 4 * HOUR_S, 25 * 4 * HOUR_S + 1]
    )
    run(FileSource(clip), FileSink(tmp_path / "out.mp4"))
    assert decoded_times(tmp_path / "out.mp4")[2] == pytest.approx(4 * HOUR_S)


def placed(*times: float, duration: float = 1.0) -> list[float]:
    """Give times, one after the other, and tell where they were put."""

    def put() -> Iterator[float]:
        line: Continuity[float] = Continuity()
        for time in times:
            given = line.place(time, Fraction(time), Fraction(duration))
            yield from (float(item + shift) for item, shift in given)
        yield from (float(item + shift) for item, shift in line.rest())

    return list(put())


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        ((5, 6, 7), [5, 6, 7]),
        ((5, 6, 20, 21), [5, 6, 20, 21]),  # a gap
        ((5, 6, 20), [5, 6, 20]),
        ((5, 6, 900, 8, 9), [5, 6, 7, 8, 9]),  # one that is damaged, forwards
        ((50, 51, 3, 53, 54), [50, 51, 52, 53, 54]),  # and backwards
        ((5, 6, 900), [5, 6, 7]),
        ((5, 6, 0, 1, 2), [5, 6, 7, 8, 9]),  # it begins anew
        ((5, 6, 0, 1, 900, 3, 4), [5, 6, 7, 8, 9, 10, 11]),  # and is damaged then
        ((5, 6, 0, 1, 4, 5), [5, 6, 7, 8, 11, 12]),  # or has a gap
        ((50, 51, 51, 52), [50, 51, 51, 52]),  # a second back is untidy, no new beginning
        ((5, 6, 0), [5, 6, 7]),
        ((0, 1, MAX_GAP_S + 3, MAX_GAP_S + 4), [0, 1, 2, 3]),
    ],
)
def test_a_stream_is_put_on_one_line(times: tuple[float, ...], expected: list[float]) -> None:
    assert placed(*times) == expected


def test_after_a_damaged_timestamp_the_next_one_may_be_early() -> None:
    assert placed(5, 5.5, 900, 5.9, 6.4, duration=0.5) == [5, 5.5, 6, 5.9, 6.4]


def test_sound_follows_its_pictures_where_both_begin_anew() -> None:
    pictures: Continuity[str] = Continuity()
    sound: Continuity[str] = Continuity()
    for line, end in ((pictures, 10.0), (sound, 9.7)):
        line.place("old", Fraction(end) - 1, Fraction(1))
        line.place("new", Fraction(0), Fraction(1))
        line.place("next", Fraction(1), Fraction(1))
    assert (float(pictures.shift), float(sound.shift)) == pytest.approx((10, 9.7))
    sound.follow(pictures)
    assert sound.shift == pictures.shift
    sound.shift = Fraction(5)
    sound.follow(pictures)
    assert sound.shift == 5


def moved(*packets: tuple[str, float]) -> list[tuple[str, float]]:
    """Say where packets, each of a kind and a second long, are moved to; by kind, in the order in which they come."""
    seconds = [
        SimpleNamespace(
            stream=SimpleNamespace(type=kind), stream_index=kind == "audio", dts=round(time * 10), pts=None,
            time_base=Fraction(1, 10), duration=10,
        )
        for kind, time in packets
    ]  # fmt: skip
    return sorted(((packet.stream.type, packet.dts / 10) for packet in _continuous(iter(seconds))), key=itemgetter(0))


def test_packets_that_jump_at_the_end_come_too() -> None:
    packets = [("audio", 5), ("audio", 6), ("audio", 30), ("video", 5), ("video", 6), ("video", 20)]
    assert moved(*packets) == packets


def test_sound_that_ends_a_little_before_its_pictures_is_beside_them_again_after_a_new_beginning() -> None:
    sound = [("audio", time) for time in (10, 10.6, 0, 1, 2, 3)]
    pictures = [("video", time) for time in (10, 11, 0, 1, 2, 3)]
    both = [packet for pair in zip(pictures, sound, strict=True) for packet in pair]
    assert moved(*both)[4:6] == [("audio", 14), ("audio", 15)]
    assert moved(*both)[-2:] == [("video", 14), ("video", 15)]


def test_a_cover_is_no_picture_that_sound_goes_on_after(tmp_path: Path) -> None:
    clip = recording(tmp_path / "clip.mp4")
    with av.open(str(tmp_path / "covered.mp4"), "w") as output, av.open(str(clip)) as source:
        cover = output.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 32, 32, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        targets = {stream.index: output.add_stream_from_template(stream) for stream in source.streams}
        frame = av.VideoFrame(32, 32, "yuvj420p")
        frame.pts = 0
        for packet in cover.encode(frame) + cover.encode(None):
            output.mux(packet)
        for packet in source.demux():
            if packet.size:
                packet.stream = targets[packet.stream_index]
                output.mux(packet)
    run(FileSource(tmp_path / "covered.mp4"), FileSink(tmp_path / "out.mp4"), frames=10)
    assert sound_packets(tmp_path / "out.mp4")[-1][1] < 0.5


def test_the_clock_of_results_is_not_touched(tmp_path: Path) -> None:
    sink = FileSink(tmp_path / "out.mkv", audio=False)
    sink.open(INFO)
    for index in range(5):
        sink.write(result(index, pts=[0, 1, 2, 30, 31][index]))
    sink.finish()
    assert decoded_times(tmp_path / "out.mkv") == pytest.approx([0, 0.04, 0.08, 1.2, 1.24])


def test_a_duration_begins_with_the_first_picture(tmp_path: Path) -> None:
    """The clock of a file begins with its sound, if that comes first."""
    clip = write_clip(
        tmp_path / "late.mkv", [numbered(index % 28) for index in range(75)], pts=list(range(50, 125)),
        sound="aac", sound_s=5.0,
    )  # fmt: skip
    sink = FakeSink()
    source = FileSource(clip)
    with StreamPipeline(source, FakeSegmenter(), [sink], max_time_s=1.0) as pipeline:
        pipeline.start()
        assert pipeline.wait(30)
    assert sink.results[0].frame.time_s == pytest.approx(2)
    assert len(sink.results) == 25
