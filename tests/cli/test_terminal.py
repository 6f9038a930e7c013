import io
import logging
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from bsdnet.stream.frame import Signal
from bsdnet.stream.stats import StatsRecorder, StreamStats
from cli.terminal import LogHandler, Progress, tell
from tests.stream.media import INFO


def stats(frames: int) -> StreamStats:
    recorder = StatsRecorder([("out.mp4", False)])
    for _ in range(frames):
        recorder.frame_written(0, 0.0, 0.0)
    return recorder.snapshot()


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_pipe_gets_a_line_now_and_then(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    with Progress(INFO, 10) as progress:
        progress.show(stats(3))
        assert capsys.readouterr().err == ""
        monkeypatch.setattr("time.monotonic", lambda: 1e9)
        progress.show(stats(4))
    assert capsys.readouterr().err.startswith("4 of 10 frames, ")


def test_a_terminal_gets_a_bar_that_goes_away(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    with Progress(INFO, 10) as progress:
        progress._bar.mininterval = 0
        progress.show(stats(4))
    drawn = sys.stderr.getvalue().split("\r")
    assert any(line.startswith("test:  40%") and "| 4/10 [" in line for line in drawn)
    assert drawn[-1].strip() == ""


def test_a_live_source_shows_what_comes_in_what_is_lost_and_how_old_it_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    recorder = StatsRecorder([("out.mp4", False)])
    recorder.frame_dropped()
    recorder.frame_written(0, 0.0, 0.09)
    live = recorder.snapshot(lost=2, signal=Signal(silent_s=3.2))
    expected = "0.0 fps in, 1 dropped, latency 90 ms, 2 lost, no signal for 3 s"
    with Progress(replace(INFO, live=True), None) as progress:
        monkeypatch.setattr("time.monotonic", lambda: 1e9)
        progress.show(live)
    assert capsys.readouterr().err == f"1 frames, 0.0 fps, {expected}\n"
    monkeypatch.undo()
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setenv("COLUMNS", "160")
    with Progress(replace(INFO, live=True), None) as progress:
        progress.show(live)
    assert expected in sys.stderr.getvalue()


def test_characters_that_a_terminal_does_not_know_are_escaped(monkeypatch: pytest.MonkeyPatch):
    output = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(output, "ascii"))
    tell("ü.mp4")
    tell(os.fsdecode(b"\xff.mp4"))
    assert output.getvalue().decode().split() == [r"\xfc.mp4", r"\udcff.mp4"]


def test_log_records_are_lines_of_the_command(capsys: pytest.CaptureFixture[str]):
    record = logging.LogRecord("bsdnet.x", logging.WARNING, "x.py", 1, "no %s here", ("sound",), None)
    LogHandler("bsdnet-run", debug=False).handle(record)
    LogHandler("bsdnet-run", debug=True).handle(record)
    plain, debug = capsys.readouterr().err.splitlines()
    assert plain == "bsdnet-run: warning: no sound here"
    assert debug.endswith("ms bsdnet.x: no sound here")


@pytest.mark.skipif(sys.platform == "win32", reason="it needs a POSIX shell")
@pytest.mark.parametrize("shell", ['"$@" --debug 2>&1 | true', '"$@" <&- >&- 2>&-'])
def test_a_video_outlives_its_audience(weights: Path, clip: Path, tmp_path: Path, shell: str):
    """Neither a reader that goes away nor closed streams cost the output."""
    command = [
        sys.executable,
        "-m",
        "cli.run",
        clip,
        "-o",
        tmp_path / "out.mp4",
        "--weights",
        weights,
        "--device",
        "cpu",
    ]
    script = f"{shell}\nexit ${{PIPESTATUS[0]}}"
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    assert subprocess.run(["bash", "-c", script, "bash", *command], env=environment, check=False).returncode == 0
    assert [path.name for path in tmp_path.iterdir()] == ["out.mp4"]
