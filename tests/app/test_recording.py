"""Recordings: what is in them, and that none begins, goes on or ends with the wrong stream."""

import itertools
import threading
import time
from pathlib import Path

import av
import pytest

from app.recording import new_path
from bsdnet.errors import SinkError

from .conftest import WAIT_MS, until_still, until_written


def video_times(path: Path) -> list[float]:
    with av.open(str(path)) as container:
        return [float(frame.pts * frame.time_base) for frame in container.decode(video=0)]


def record(qtbot, player, folder: Path, during) -> Path:
    player.recording.toggle(folder)
    qtbot.waitUntil(lambda: player.recording.path is not None, timeout=WAIT_MS)
    during()
    with qtbot.waitSignal(player.recording.finished, timeout=WAIT_MS) as recorded:
        player.recording.toggle(folder)
    return recorded.args[0]


def test_records_in_the_middle(qtbot, playing, tmp_path):
    path = record(qtbot, playing, tmp_path, lambda: until_written(qtbot, playing, 10))
    times = video_times(path)
    assert len(times) >= 9
    assert times[0] == 0.0
    assert playing.recording.path is None
    until_written(qtbot, playing, 3)


def test_a_seek_leaves_no_gap_in_a_recording(qtbot, playing, tmp_path):
    def during() -> None:
        until_written(qtbot, playing, 5)
        playing.seek(60.0)
        until_written(qtbot, playing, 5)
        playing.seek(1.0)
        until_written(qtbot, playing, 5)

    times = video_times(record(qtbot, playing, tmp_path, during))
    gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert max(gaps) < 0.5
    assert min(gaps) > 0


def test_a_paused_frame_that_is_labelled_anew_is_recorded_once(qtbot, playing, tmp_path):
    until_written(qtbot, playing, 3)
    playing.toggle()
    until_still(qtbot, playing)

    def during() -> None:
        for _ in range(3):
            start = playing.stats.frames_out
            playing.seek_by(0.0)
            qtbot.waitUntil(lambda start=start: playing.stats.frames_out > start, timeout=WAIT_MS)

    assert len(video_times(record(qtbot, playing, tmp_path, during))) == 1


def test_what_was_recorded_is_kept_when_the_stream_is_closed(qtbot, playing, tmp_path):
    playing.recording.start(tmp_path)
    qtbot.waitUntil(lambda: playing.recording.path is not None, timeout=WAIT_MS)
    until_written(qtbot, playing, 5)
    with qtbot.waitSignal(playing.recording.finished, timeout=WAIT_MS) as recorded:
        playing.close_stream()
    assert len(video_times(recorded.args[0])) >= 4


def test_says_why_nothing_is_recorded(qtbot, playing, tmp_path):
    (tmp_path / "file").touch()
    with qtbot.waitSignal(playing.notice, timeout=WAIT_MS) as notice:
        playing.recording.start(tmp_path / "file")
    assert notice.args[0].startswith("Nothing is recorded")
    assert playing.recording.path is None


@pytest.fixture
def gate(monkeypatch):
    """Holds recordings back when they begin, until it is set."""
    gate = threading.Event()

    def waits(*arguments) -> Path:
        assert gate.wait(5)
        return new_path(*arguments)

    monkeypatch.setattr("app.recording.new_path", waits)
    return gate


def all_done() -> bool:
    return not any(thread.name.startswith("bsdnet-view rec") for thread in threading.enumerate())


def test_stopped_before_it_has_begun_it_ends(qtbot, playing, tmp_path, gate):
    said = []
    playing.notice.connect(said.append)
    playing.recording.toggle(tmp_path)
    playing.recording.toggle(tmp_path)
    with qtbot.waitSignal(playing.recording.changed, timeout=WAIT_MS):
        gate.set()
    qtbot.waitUntil(lambda: all_done() and playing.recording.path is None, timeout=WAIT_MS)
    assert not list(tmp_path.glob("*.part"))
    assert not any("under way" in words for words in said)


def test_stopped_before_it_is_known_to_have_begun_it_ends(qtbot, playing, tmp_path):
    playing.recording.toggle(tmp_path)
    while not all_done():  # no event is delivered meanwhile
        time.sleep(0.005)
    playing.recording.toggle(tmp_path)
    changes = []
    playing.recording.changed.connect(changes.append)
    qtbot.waitUntil(lambda: len(changes) == 2, timeout=WAIT_MS)
    assert changes[0] is not None
    assert changes[1] is None


def test_the_end_of_its_stream_ends_what_has_not_begun(qtbot, playing, tmp_path, gate):
    playing.recording.toggle(tmp_path)
    playing.close_stream()
    with qtbot.waitSignal(playing.recording.changed, timeout=WAIT_MS):
        gate.set()
    qtbot.waitUntil(lambda: all_done(), timeout=WAIT_MS)
    assert playing.recording.path is None
    assert not list(tmp_path.iterdir())
    playing.open("clip")
    qtbot.waitUntil(lambda: playing.stats is not None and playing.stats.frames_out > 0, timeout=WAIT_MS)
    assert len(video_times(record(qtbot, playing, tmp_path, lambda: until_written(qtbot, playing, 5)))) >= 4


def test_the_next_stream_is_not_in_it(qtbot, playing, tmp_path):
    playing.recording.start(tmp_path)
    qtbot.waitUntil(lambda: playing.recording.path is not None, timeout=WAIT_MS)
    until_written(qtbot, playing, 5)
    first = playing._pipeline
    with qtbot.waitSignal(playing.recording.finished, timeout=WAIT_MS) as finished:
        playing.open("camera:0")
    qtbot.waitUntil(lambda: playing.stats is not None and playing.stats.frames_out > 5, timeout=WAIT_MS)
    assert len(video_times(finished.args[0])) <= first.stats.frames_out
    assert playing.recording.path is None


def test_one_that_breaks_off_is_said_and_another_can_begin(qtbot, playing, tmp_path):
    playing.recording.start(tmp_path)
    qtbot.waitUntil(lambda: playing.recording.path is not None, timeout=WAIT_MS)
    with qtbot.waitSignal(playing.notice, timeout=WAIT_MS) as notice:
        playing.recording._recorder._file.write = lambda result: fail()
    assert notice.args[0] == "The recording broke off: No space left on device."
    assert playing.recording.path is None
    assert len(video_times(record(qtbot, playing, tmp_path, lambda: until_written(qtbot, playing, 5)))) >= 4


def fail() -> None:
    raise SinkError("no space left on device")
