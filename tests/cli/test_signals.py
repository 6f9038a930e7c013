"""Ctrl-C, SIGTERM and SIGHUP: the first finishes the output, the second stops at once."""

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import av
import pytest

from cli.signals import StopSignals
from tests.stream.media import numbered, write_clip

FRAMES = 4000


@pytest.fixture(scope="module")
def long_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clips") / "long.mp4"
    return write_clip(path, [numbered(1)] * FRAMES, options={"preset": "ultrafast"})


@contextmanager
def running(clip: Path, weights: Path, out: Path) -> Iterator[subprocess.Popen[str]]:
    """The command, as soon as it has written a part of its output."""
    command = [sys.executable, "-m", "cli.run", clip, "-o", out, "--weights", weights, "--device", "cpu", "-y"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    part = out.with_name(out.name + ".part")
    try:
        deadline = time.monotonic() + 120
        while not (part.exists() and part.stat().st_size) and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        yield process
    finally:
        process.kill()
        process.communicate()


def decodable(path: Path) -> int:
    with av.open(str(path)) as container:
        return sum(1 for _ in container.decode(video=0))


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_the_first_signal_finishes_the_output(
    weights: Path, long_clip: Path, tmp_path: Path, number: signal.Signals, code: int
):
    out = tmp_path / "out.mp4"
    with running(long_clip, weights, out) as process:
        process.send_signal(number)
        stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == code
    assert f"bsdnet-run: {number.name}: finishing the output; once more to stop at once" in stderr.splitlines()
    assert f"output   {out}" in stdout.splitlines()
    assert [path.name for path in tmp_path.iterdir()] == ["out.mp4"]
    assert stdout.startswith(f"frames   {decodable(out)} in, ")
    assert 0 < decodable(out) < FRAMES


def test_the_second_signal_leaves_the_part_and_the_old_output(weights: Path, long_clip: Path, tmp_path: Path):
    out = tmp_path / "out.mp4"
    out.write_bytes(b"the old output")
    with running(long_clip, weights, out) as process:
        process.send_signal(signal.SIGSTOP)  # so that both come at once, and the first cannot finish in between
        # To the main thread: of two that the whole process is sent, another thread may take the first and be the later.
        for number in (signal.SIGINT, signal.SIGTERM):
            assert ctypes.CDLL(None).tgkill(process.pid, process.pid, number) == 0
        process.send_signal(signal.SIGCONT)
        stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "stopping at once" in stderr
    assert "output  " not in stdout
    assert f"partial  {out}.part" in stdout.splitlines()
    assert out.read_bytes() == b"the old output"
    assert 0 < decodable(tmp_path / "out.mp4.part") < FRAMES


class Pipeline:
    """Notes how it is stopped."""

    def __init__(self, frames_in: int) -> None:
        self.stats = SimpleNamespace(frames_in=frames_in)
        self.stopped: list[dict[str, object]] = []

    def stop(self, **arguments: object) -> None:
        self.stopped.append(arguments)


def test_signals_are_noted_at_once_and_obeyed_when_asked():
    pipeline, before = Pipeline(5), signal.getsignal(signal.SIGTERM)
    with StopSignals() as signals:
        assert signals.obey(pipeline) is None
        signal.raise_signal(signal.SIGTERM)
        assert pipeline.stopped == []
        assert "finishing" in signals.obey(pipeline)
        assert signals.obey(pipeline) is None
        signal.raise_signal(signal.SIGINT)
        assert "SIGINT: stopping at once" in signals.obey(pipeline)
    assert pipeline.stopped == [{"finish": True, "timeout_s": 0}, {"timeout_s": 0}]
    assert signals.exit_code == 143
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_terminal_that_is_closed_tells_it_twice():
    pipeline = Pipeline(5)
    with StopSignals() as signals:
        signal.raise_signal(signal.SIGHUP)
        signals.obey(pipeline)
        signal.raise_signal(signal.SIGHUP)
        assert signals.obey(pipeline) is None
    assert pipeline.stopped == [{"finish": True, "timeout_s": 0}]
    assert signals.exit_code == 129


def test_what_is_ignored_stays_so():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with StopSignals() as signals:
            signal.raise_signal(signal.SIGHUP)
            assert signals.obey(Pipeline(5)) is None
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_without_a_frame_there_is_nothing_to_finish():
    pipeline = Pipeline(0)
    with StopSignals() as signals:
        signal.raise_signal(signal.SIGTERM)
        assert "stopping at once" in signals.obey(pipeline)
    assert pipeline.stopped == [{"timeout_s": 0}]


def test_a_signal_that_came_too_late_to_matter_leaves_no_trace():
    with StopSignals() as signals:
        signal.raise_signal(signal.SIGTERM)
    assert signals.exit_code is None
