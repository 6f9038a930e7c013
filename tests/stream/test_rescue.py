"""What a run that was killed has left."""

import sys
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest

from bsdnet.errors import ConfigError, SinkError, SourceError
from bsdnet.stream.sink import FileSink, rescue
from bsdnet.stream.source import FileSource

from .media import INFO, decoded_times, numbered, result, snapshot, sound_packets, write_clip

FRAMES = 75
FORMATS = [(".mp4", "aac"), (".mov", "aac"), (".mkv", "aac"), (".webm", "libopus"), (".avi", "aac")]


def left_over(folder: Path, suffix: str, sound: str | None = None) -> Path:
    """What is on the disk while the last of `FRAMES` noisy pictures is written: no index, no end."""
    clip = write_clip(folder / "sound.mkv", [numbered(1)] * 3, sound=sound, sound_s=4.0)
    sink = FileSink(folder / f"out{suffix}")
    sink.open(replace(INFO, audio_path=str(clip) if sound else None))
    rng = np.random.default_rng(0)
    for index in range(FRAMES):
        sink.write(result(index, rng.integers(0, 255, (48, 64, 3), np.uint8)))
    part = folder / f"out{suffix}.part"
    content = part.read_bytes()
    sink.abort()
    clip.unlink()
    part.write_bytes(content)
    return part


@pytest.mark.parametrize(("suffix", "sound"), FORMATS)
class TestRescue:
    def test_all_that_was_written_is_saved(self, tmp_path: Path, suffix: str, sound: str) -> None:
        part = left_over(tmp_path, suffix, sound)
        found, heard = decoded_times(part), [digest for digest, _ in sound_packets(part)]
        with av.open(str(part)) as container:
            tag = container.streams.video[0].codec_context.codec_tag
        rescued = rescue(part)
        out = tmp_path / f"out{suffix}"
        assert [path.name for path in tmp_path.iterdir()] == [out.name]
        assert (rescued.path, rescued.num_frames) == (out, len(found))
        assert rescued.duration_s == pytest.approx(found[-1] - found[0], abs=0.002)
        times = decoded_times(out)
        assert FRAMES - 25 <= len(times) == len(found)
        assert np.diff(times) == pytest.approx(np.full(len(times) - 1, 0.04), abs=0.002)
        assert [digest for digest, _ in sound_packets(out)] == heard
        assert len(heard) > 40
        with av.open(str(out)) as container:
            assert container.streams.video[0].codec_context.codec_tag == tag
            assert container.duration / 1e6 == pytest.approx(len(times) / 25, abs=1.0)
            assert sum(1 for _ in container.decode(audio=0)) > 40

    def test_cut_anywhere(self, tmp_path: Path, suffix: str, sound: str) -> None:
        part = left_over(tmp_path, suffix, sound)
        content = part.read_bytes()
        for cut in np.random.default_rng(1).integers(len(content) // 6, len(content), 6):
            part.write_bytes(content[:cut])
            with FileSource(part) as source:
                playable = sum(1 for _ in source)
            rescued = rescue(part, overwrite=True)
            assert playable - 1 <= rescued.num_frames, "but for the picture of which only a part is there"
            assert len(decoded_times(rescued.path)) == rescued.num_frames > 0

    @pytest.mark.parametrize("size", [0, 10, 300])
    def test_nothing_to_save_changes_nothing(self, tmp_path: Path, suffix: str, sound: str, size: int) -> None:
        part = left_over(tmp_path, suffix, sound)
        part.write_bytes(part.read_bytes()[:size])
        before = snapshot(tmp_path)
        with pytest.raises(SourceError, match="left as it is"):
            rescue(part)
        assert snapshot(tmp_path) == before


def test_an_existing_target_is_replaced_only_on_demand(tmp_path: Path) -> None:
    part = left_over(tmp_path, ".mp4")
    (tmp_path / "out.mp4").write_bytes(b"finished once")
    before = snapshot(tmp_path)
    with pytest.raises(SinkError, match=r"out\.mp4 exists already"):
        rescue(part)
    assert snapshot(tmp_path) == before
    rescue(part, overwrite=True)
    assert len(decoded_times(tmp_path / "out.mp4")) >= FRAMES - 25


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no locks that go away with their process")
def test_a_file_that_is_being_written_is_left_alone(tmp_path: Path) -> None:
    sink = FileSink(tmp_path / "out.mp4")
    sink.open(INFO)
    sink.write(result(0))
    before = snapshot(tmp_path)
    with pytest.raises(SourceError, match="being written by a run that goes on"):
        rescue(tmp_path / "out.mp4.part")
    assert snapshot(tmp_path) == before
    sink.finish()


def test_what_a_killed_rescue_has_left_is_no_obstacle(tmp_path: Path) -> None:
    part = left_over(tmp_path, ".mkv")
    (tmp_path / "out.mkv.rescue").write_bytes(b"half")
    rescue(part)
    assert [path.name for path in tmp_path.iterdir()] == ["out.mkv"]


@pytest.mark.parametrize(
    ("name", "error", "words"),
    [
        ("out.mp4", SourceError, "such as out.mp4.part"),
        ("none.mp4.part", SourceError, "No such file"),
        ("out.txt.part", ConfigError, "expected one of .mp4"),
    ],
)
def test_what_is_no_partial_file(tmp_path: Path, name: str, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        rescue(tmp_path / name)
