"""Containers, encoders, segments and rescues, by their options."""

from pathlib import Path

import av
import pytest

from bsdnet.stream.sink import FileSink, SegmentSink
from cli.options import parse_bytes
from cli.outputs import written
from tests.cli.conftest import Run, run_main
from tests.cli.test_options import CONTEXT, OPTIONS
from tests.stream.media import INFO, decoded_times, result


def codec_of(path: Path) -> str:
    with av.open(str(path)) as container:
        return container.streams.video[0].codec_context.name


@pytest.mark.parametrize(("suffix", "codec", "sounds"), [(".webm", "vp9", 0), (".avi", "mpeg4", 1)])
def test_other_containers(run: Run, clip: Path, tmp_path: Path, suffix: str, codec: str, sounds: int):
    out = tmp_path / f"out{suffix}"
    done = run(clip, "-o", out)
    assert (done.exit_code, codec_of(out), len(decoded_times(out))) == (0, codec, 5)
    assert ("aac sound of clip.mp4 does not fit" in done.stderr) == (sounds == 0)
    with av.open(str(out)) as container:
        assert len(container.streams.audio) == sounds


def test_the_summary_says_which_encoder_and_why(run: Run, clip: Path, tmp_path: Path):
    done = run(clip, "-o", tmp_path / "out.mp4", "--preset", "veryfast", "--crf", 40)
    assert done.summary["encoder"] == "libx264: crf and preset are its own"
    assert ": " in run(clip, "-o", tmp_path / "auto.mp4").summary["encoder"]
    assert (tmp_path / "out.mp4").stat().st_size < (tmp_path / "auto.mp4").stat().st_size


def test_segments(run: Run, tmp_path: Path):
    done = run("demo", "-o", tmp_path / "out.mkv", "--segment", 1, "--frames", 30)
    assert done.exit_code == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out-000001.mkv", "out-000002.mkv"]
    assert done.summary["output"] == f"{tmp_path / 'out-000001.mkv'} to out-000002.mkv, 2 files"
    again = run("demo", "-o", tmp_path / "out.mkv", "--segment", 1, "--segment-budget", "1kB", "--frames", 3)
    assert again.summary["output"] == str(tmp_path / "out-000003.mkv")
    assert [path.name for path in tmp_path.iterdir()] == ["out-000003.mkv"]


def test_what_a_stopped_run_has_left_is_named(tmp_path: Path):
    sink = SegmentSink(tmp_path / "out.mp4", segment_s=1)
    sink.open(INFO)
    for index in range(28):
        sink.write(result(index))
    sink.abort()
    (tmp_path / "plain.mp4.part").touch()
    options = {name: tmp_path / file for name, file in (("output", "out.mp4"), ("record", "plain.mp4"))}
    found = written({**options, "masks": None, "classes_csv": tmp_path / "classes.csv"}, [sink], finished=False)
    assert found.pop("encoder").startswith(f"{sink.encoder.codec}: ")
    assert found == {
        "output": tmp_path / "out-000001.mp4",
        "partial": tmp_path / "out-000002.mp4.part",
        "record": tmp_path / "plain.mp4.part",
        "classes": tmp_path / "classes.csv.part",
    }


def test_a_rescue(tmp_path: Path):
    sink = FileSink(tmp_path / "out.mp4")
    sink.open(INFO)
    for index in range(20):
        sink.write(result(index))
    sink.abort()
    (tmp_path / "out.mp4").write_bytes(b"old")
    part = tmp_path / "out.mp4.part"
    refused = run_main("--rescue", part)
    assert (refused.exit_code, refused.stdout) == (1, "")
    assert "out.mp4 exists already" in refused.stderr
    done = run_main("--rescue", part, "-y")
    assert (done.exit_code, done.stdout) == (0, f"rescued 20 frames, 0.8 s: {tmp_path / 'out.mp4'}\n")
    assert len(decoded_times(tmp_path / "out.mp4")) == 20
    assert run_main("--rescue", part).exit_code == 1


@pytest.mark.parametrize(
    ("text", "size"), [("10GB", 10**10), ("1.5 GiB", 3 * 2**29), ("500mb", 5 * 10**8), ("7k", 7000), ("12", 12)]
)
def test_amounts(text: str, size: int):
    assert parse_bytes(CONTEXT, OPTIONS[0], text) == size
