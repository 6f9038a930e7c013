"""Closing the window in any state ends all threads within two seconds."""

import time

import pytest

from app import keeping
from app.cameras import Camera
from app.engine import EngineChoice
from app.phase import Phase
from app.player import CLOSE_S
from bsdnet.stream import pipeline

from . import stand_ins
from .conftest import WAIT_MS, viewer_threads

SLACK_S = 5.0  # of a machine that stalls


@pytest.fixture(autouse=True)
def patient(monkeypatch):
    """The two seconds are meant for threads that hang for good, not for a machine that stalls."""
    monkeypatch.setattr("app.player.CLOSE_S", CLOSE_S + SLACK_S)


def test_a_pipeline_has_given_up_by_then():
    assert pipeline._READ_GRACE_S + pipeline._ABORT_S < CLOSE_S


def close(qtbot, window, *, left_behind: int = 0) -> None:
    """Close the window, and see that it is gone at once and its threads soon."""
    began = time.perf_counter()
    with qtbot.waitSignal(window.player.closed, timeout=WAIT_MS) as closed:
        window.close()
        assert not window.isVisible()
        assert time.perf_counter() - began < 1.0, "the window does not wait"
    qtbot.waitUntil(lambda: len(viewer_threads()) <= left_behind, timeout=WAIT_MS)
    assert time.perf_counter() - began < CLOSE_S + SLACK_S
    assert closed.args == [True]


def test_empty(qtbot, window):
    close(qtbot, window)


def test_while_a_source_is_opened(qtbot, window):
    window.player.network.choose(EngineChoice(device="cpu"))
    window.open("slow")
    close(qtbot, window)


def test_while_the_network_is_loaded(qtbot, window, loads, monkeypatch):
    def load(choice):
        time.sleep(0.8)
        loads.append(stand_ins.StandInSegmenter(choice))
        return loads[-1]

    monkeypatch.setattr(window.player.network, "_load", load)
    window.player.network.choose(EngineChoice(device="cpu"))
    window.open("clip")
    close(qtbot, window)
    assert loads[0].closed, "what came too late is not left open"


@pytest.mark.parametrize("spec", ["clip", "camera:0"])
def test_playing(qtbot, start, spec):
    close(qtbot, start(spec))


def test_paused(qtbot, start):
    window = start("clip")
    window.player.toggle()
    close(qtbot, window)


def test_ended(qtbot, start):
    window = start("short")
    qtbot.waitUntil(lambda: window.player.phase is Phase.ENDED, timeout=WAIT_MS)
    close(qtbot, window)


def test_seeking(qtbot, start):
    window = start("hangs-in-seek")
    window.player.seek(1.0)
    assert stand_ins.opened[-1].hangs.wait(5)
    close(qtbot, window)


def test_recording(qtbot, start, settings):
    window = start("clip")
    window.player.recording.start(settings.folder)
    qtbot.waitUntil(lambda: window.player.recording.path is not None, timeout=WAIT_MS)
    before = window.player.stats.frames_out
    qtbot.waitUntil(lambda: window.player.stats.frames_out > before + 5, timeout=WAIT_MS)
    close(qtbot, window)
    assert [path.suffix for path in settings.folder.iterdir()] == [".mp4"], "it is finished, with nothing beside it"


def test_saving(qtbot, start, settings, monkeypatch):
    save = keeping.save_png

    def save_slowly(*arguments):
        time.sleep(0.5)
        return save(*arguments)

    monkeypatch.setattr(keeping, "save_png", save_slowly)
    window = start("clip")
    there = []
    window.player.closed.connect(lambda _: there.extend(path.suffix for path in settings.folder.glob("*")))
    window.actions_by_name["save"].trigger()
    close(qtbot, window)
    assert there == [".png"], "it is there before the process may end"


def test_saving_in_vain(qtbot, start, monkeypatch, caplog):
    def fail_slowly(*arguments):
        time.sleep(0.5)
        raise OSError(28, "No space left on device", "street.png")

    monkeypatch.setattr(keeping, "save_png", fail_slowly)
    window = start("clip")
    window.actions_by_name["save"].trigger()
    close(qtbot, window)
    assert [record.getMessage() for record in caplog.records if record.name == "app.keeping"] == [
        "the picture was not saved: street.png: No space left on device."
    ], "there is no window to say it in"


def test_looking_for_cameras(qtbot, window, monkeypatch):
    def list_slowly():
        time.sleep(0.3)
        return [Camera(number=0, name="Front")]

    monkeypatch.setattr("app.opening.list_cameras", list_slowly)
    window.opening.ask_camera()
    close(qtbot, window)
    qtbot.wait(50)
    assert window.player.spec == "", "nothing is opened any more"


def test_changing_the_network(qtbot, start):
    window = start("clip")
    window.player.network.choose(EngineChoice(device="cpu", precision="bf16"))
    close(qtbot, window)


def test_a_network_that_comes_too_late_is_waited_for(qtbot, start, loads, monkeypatch):
    def close_slowly(segmenter):
        time.sleep(0.5)
        segmenter.closed = True

    monkeypatch.setattr(stand_ins.StandInSegmenter, "close", close_slowly)
    window = start("clip")
    window.player.network.choose(EngineChoice(device="cpu", precision="bf16"))
    while len(loads) < 2 or "bsdnet-view load" in [thread.name for thread in viewer_threads()]:
        time.sleep(0.01)  # it is there now, and the window does not know yet
    closed = []
    window.player.closed.connect(lambda _: closed.extend(load.closed for load in loads))
    close(qtbot, window)
    assert closed == [True, True]


def test_after_an_error(qtbot, window):
    window.player.network.choose(EngineChoice(device="cpu"))
    window.open("nothing")
    qtbot.waitUntil(lambda: window.player.phase is Phase.FAILED, timeout=WAIT_MS)
    close(qtbot, window)


def test_a_live_source_hangs(qtbot, start):
    window = start("hangs-in-read")
    assert stand_ins.opened[-1].hangs.wait(5)
    close(qtbot, window)


def test_a_live_source_hangs_for_good(qtbot, start):
    window = start("hangs-for-good")
    source = stand_ins.opened[-1]
    assert source.hangs.wait(5)
    try:
        close(qtbot, window, left_behind=1)
    finally:
        source.free.set()
    qtbot.waitUntil(lambda: not viewer_threads(), timeout=WAIT_MS)
