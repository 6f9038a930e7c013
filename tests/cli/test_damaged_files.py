"""bsdnet-run on damaged files: a finished output, and an exit code that says whether anything was lost."""

from pathlib import Path

import numpy as np
import pytest

from tests.cli.conftest import SIZE, Run
from tests.stream.media import decoded_times, write_clip
from tests.stream.test_damage import packets_of

NUM_FRAMES = 12
OPTIONS = {"bf": "0", "g": "4"}


def noise(index: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    return np.random.default_rng(index).integers(0, 255, (*size, 3), np.uint8)


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("noise")
    frames = [noise(index) for index in range(NUM_FRAMES)]
    clips = {kind: write_clip(folder / f"clip.{kind}", frames, options=OPTIONS) for kind in ("mp4", "mkv", "ts")}
    other = [noise(index, (96, 160)) for index in range(NUM_FRAMES)]
    return clips | {"small": write_clip(folder / "small.ts", other, options=OPTIONS)}


def zeroed(clip: Path, path: Path, numbers: range) -> Path:
    data = bytearray(clip.read_bytes())
    for start, size in packets_of(clip)[numbers.start : numbers.stop]:
        data[start : start + size] = bytes(size)
    path.write_bytes(data)
    return path


def test_a_damaged_frame(run: Run, clips: dict[str, Path], tmp_path: Path):
    result = run(zeroed(clips["mp4"], tmp_path / "in.mp4", range(11, 12)), "-o", tmp_path / "out.mp4")
    assert (result.exit_code, result.stderr) == (3, "")
    assert result.summary["frames"] == "11 in, 11 out, 1 could not be decoded"
    assert len(decoded_times(tmp_path / "out.mp4")) == 11


@pytest.mark.parametrize("kind", ["mkv", "ts"])
def test_a_hole(run: Run, clips: dict[str, Path], tmp_path: Path, kind: str):
    whole = clips[kind].read_bytes()
    places = packets_of(clips[kind])
    damaged = tmp_path / f"in.{kind}"
    damaged.write_bytes(whole[: places[5][0] + 30] + whole[places[8][0] :])
    result = run(damaged, "-o", tmp_path / "out.mp4")
    assert result.exit_code == 3, result
    written = len(decoded_times(tmp_path / "out.mp4"))
    assert 8 <= written < NUM_FRAMES
    assert f"{NUM_FRAMES - written} could not be decoded" in result.summary["frames"]


def test_a_truncated_matroska_file(run: Run, clips: dict[str, Path], tmp_path: Path):
    damaged = tmp_path / "in.mkv"
    damaged.write_bytes(clips["mkv"].read_bytes()[: packets_of(clips["mkv"])[9][0]])
    result = run(damaged, "-o", tmp_path / "out.mp4")
    assert (result.exit_code, result.summary["frames"]) == (3, "9 in, 9 out, 3 could not be decoded")


def test_timestamps_that_go_back(run: Run, clips: dict[str, Path], tmp_path: Path):
    twice = tmp_path / "in.ts"
    twice.write_bytes(clips["ts"].read_bytes() * 2)
    result = run(twice, "-o", tmp_path / "out.mp4")
    assert result.exit_code == 0, result
    times = decoded_times(tmp_path / "out.mp4")
    assert len(times) == 2 * NUM_FRAMES
    assert times == sorted(set(times))


def test_a_size_that_changes(run: Run, clips: dict[str, Path], tmp_path: Path):
    joined = tmp_path / "in.ts"
    joined.write_bytes(clips["ts"].read_bytes() + clips["small"].read_bytes())
    result = run(joined, "-o", tmp_path / "out.mp4")
    assert result.exit_code == 0, result
    assert len(decoded_times(tmp_path / "out.mp4")) == 2 * NUM_FRAMES


def test_nothing_that_can_be_decoded(run: Run, clips: dict[str, Path], tmp_path: Path):
    headless = tmp_path / "headless.mp4"
    headless.write_bytes(clips["mp4"].read_bytes()[: packets_of(clips["mp4"])[6][0]])  # its index stood at the end
    for damaged in (headless, zeroed(clips["mp4"], tmp_path / "in.mp4", range(NUM_FRAMES))):
        out = tmp_path / "out.mp4"
        out.write_bytes(b"an older video")
        result = run(damaged, "-o", out, "-y")
        assert (result.exit_code, result.stderr.count("\n"), "damaged" in result.stderr) == (1, 1, True)
        assert out.read_bytes() == b"an older video"
        assert not (tmp_path / "out.mp4.part").exists()
