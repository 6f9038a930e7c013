"""The player: what it shows, what it says, and that nothing makes it wait."""

import time
from fractions import Fraction

import pytest

from app.engine import EngineChoice
from app.phase import Phase
from bsdnet.errors import BackendError, CheckpointError
from bsdnet.stream.source import open_source
from tests.stream.media import numbered, write_clip

from . import stand_ins
from .conftest import WAIT_MS, until_still, until_written


def test_opens_without_making_anybody_wait(qtbot, player):
    player.network.choose(EngineChoice(device="cpu"))
    began = time.perf_counter()
    player.open("slow")
    assert time.perf_counter() - began < 0.8, "opening takes a second"
    assert player.phase is Phase.OPENING
    qtbot.waitUntil(lambda: player.phase is Phase.PLAYING, timeout=WAIT_MS)


def test_waits_for_the_network_if_that_comes_last(qtbot, player):
    player.open("clip")
    qtbot.wait(100)
    assert player.phase is Phase.OPENING
    player.network.choose(EngineChoice(device="cpu"))
    qtbot.waitUntil(lambda: player.phase is Phase.PLAYING, timeout=WAIT_MS)


def test_only_what_was_opened_last_is_played(qtbot, player):
    player.network.choose(EngineChoice(device="cpu"))
    for spec in ("slow", "clip", "short"):
        player.open(spec)
    qtbot.waitUntil(lambda: player.phase is Phase.ENDED, timeout=WAIT_MS)
    assert player.info.num_frames == 5
    qtbot.wait(1200)  # until the slow one is there, which nobody wants any more
    assert player.info.num_frames == 5


def test_pauses_steps_and_plays_on(qtbot, playing):
    playing.toggle()
    assert playing.phase is Phase.PAUSED
    until_still(qtbot, playing)
    before = playing.stats.frames_out
    playing.step()
    qtbot.waitUntil(lambda: playing.stats.frames_out == before + 1, timeout=WAIT_MS)
    until_still(qtbot, playing)
    assert playing.stats.frames_out == before + 1
    playing.toggle()
    until_written(qtbot, playing, 5)


def test_seeks_while_paused(qtbot, playing):
    playing.toggle()
    shown = []
    playing.frame_ready.disconnect(playing.take)
    playing.frame_ready.connect(lambda: shown.append(playing.take()))
    playing.seek(50.0)
    qtbot.waitUntil(lambda: any(one and one.result.frame.time_s == 50.0 for one in shown), timeout=WAIT_MS)
    assert playing.phase is Phase.PAUSED


def test_goes_back_a_frame(qtbot, playing):
    playing.seek(50.0)
    qtbot.waitUntil(lambda: playing.position_s >= 50.0, timeout=WAIT_MS)
    playing.toggle()
    qtbot.wait(100)
    before = playing.position_s
    playing.step_back()
    qtbot.waitUntil(lambda: playing.position_s == pytest.approx(before - 0.02), timeout=WAIT_MS)
    assert playing.phase is Phase.PAUSED


def test_goes_back_through_every_frame_whose_timestamps_are_rounded(qtbot, playing, tmp_path, monkeypatch):
    path = write_clip(tmp_path / "a.mkv", [numbered(number) for number in range(20)], time_base=Fraction(1, 30))
    monkeypatch.setattr(playing._opener, "open_source", open_source)
    playing.open(str(path))
    qtbot.waitUntil(lambda: playing.phase is Phase.ENDED and round(playing.position_s * 30) == 19, timeout=WAIT_MS)
    seen = [19]
    for _ in range(6):
        qtbot.waitUntil(lambda: round(playing.position_s * 30) <= seen[-1], timeout=WAIT_MS)
        seen[-1:] = [round(playing.position_s * 30), seen[-1] - 1]
        playing.step_back()
    assert seen[:-1] == [19, 18, 17, 16, 15, 14]


def test_dragging_pauses_and_plays_on(playing):
    playing.hold(True)
    assert playing.phase is Phase.PAUSED
    playing.hold(False)
    assert playing.phase is Phase.PLAYING
    playing.toggle()
    playing.hold(True)
    playing.hold(False)
    assert playing.phase is Phase.PAUSED, "who had paused is not made to play"


def test_ends_and_begins_again(qtbot, playing):
    playing.open("short")
    qtbot.waitUntil(lambda: playing.phase is Phase.ENDED, timeout=WAIT_MS)
    playing.toggle()
    assert playing.phase is Phase.PLAYING
    qtbot.waitUntil(lambda: playing.stats.frames_out >= 10, timeout=WAIT_MS)
    qtbot.waitUntil(lambda: playing.phase is Phase.ENDED, timeout=WAIT_MS)


def test_begins_again_after_the_last_step(qtbot, playing):
    playing.open("short")
    qtbot.waitUntil(lambda: playing.phase is Phase.ENDED, timeout=WAIT_MS)
    playing.seek(0.08)
    assert playing.phase is Phase.PAUSED
    qtbot.waitUntil(lambda: playing._pipeline.at_end and playing._pipeline.state.value == "paused", timeout=WAIT_MS)
    with qtbot.waitSignal(playing.frame_ready, timeout=WAIT_MS):
        playing.toggle()
    qtbot.waitUntil(lambda: playing.phase is Phase.ENDED, timeout=WAIT_MS)


def test_a_position_that_is_dragged_to_the_end_stays_there(qtbot, playing):
    playing.hold(True)
    playing.seek(99.98)
    qtbot.waitUntil(lambda: playing._pipeline.at_end and playing._pipeline.state.value == "paused", timeout=WAIT_MS)
    playing.hold(False)
    qtbot.waitUntil(lambda: playing.phase is Phase.ENDED, timeout=WAIT_MS)
    assert playing.position_s > 99.0


def test_what_cannot_be_sought_in_ends_and_is_opened_again(qtbot, playing):
    playing.loop = True
    playing.open("unseekable")
    qtbot.waitUntil(lambda: playing.phase is Phase.ENDED, timeout=WAIT_MS)
    first = stand_ins.opened[-1]
    playing.toggle()
    qtbot.waitUntil(lambda: stand_ins.opened[-1] is not first and playing.phase is Phase.ENDED, timeout=WAIT_MS)


def test_a_seek_right_after_the_last_frame_plays_on(qtbot, playing):
    playing.phase_changed.connect(lambda phase: phase is Phase.PLAYING and playing._poll.stop())  # it comes too late
    playing.open("short")
    qtbot.waitUntil(lambda: playing.stats is not None and playing.stats.frames_out == 5, timeout=WAIT_MS)
    qtbot.waitUntil(lambda: playing._pipeline.at_end and playing._pipeline.state.value == "paused", timeout=WAIT_MS)
    playing.seek(0.0)
    playing._poll.start()
    assert playing.phase is Phase.PLAYING
    qtbot.waitUntil(lambda: playing.phase is Phase.ENDED and playing.stats.frames_out >= 10, timeout=WAIT_MS)


def test_another_network_is_made_ready_for_what_plays_before_it_takes_over(qtbot, playing, loads):
    assert loads[0].prepared == []
    with qtbot.waitSignal(playing.network.replaced, timeout=WAIT_MS):
        playing.network.choose(EngineChoice(device="cpu", size=(64, 96)))
    assert [(sizes, frame_size) for sizes, frame_size, _ in loads[1].prepared] == [([(64, 96)], playing.info.size)]


def test_loops(qtbot, playing):
    playing.loop = True
    playing.open("short")
    qtbot.waitUntil(lambda: playing.stats is not None and playing.stats.frames_out > 12, timeout=WAIT_MS)


def test_says_what_cannot_be_opened(qtbot, player):
    player.network.choose(EngineChoice(device="cpu"))
    with qtbot.waitSignal(player.failed, timeout=WAIT_MS) as failed:
        player.open("nothing.mp4")
    assert failed.args[0].title == "There is no such file"
    assert player.phase is Phase.FAILED


def test_says_what_a_stream_failed_of(qtbot, player):
    player.network.choose(EngineChoice(device="cpu"))
    with qtbot.waitSignal(player.failed, timeout=WAIT_MS) as failed:
        player.open("breaks")
    assert "frame 5 is broken" in failed.args[0].text.lower()
    player.open("clip")
    qtbot.waitUntil(lambda: player.phase is Phase.PLAYING, timeout=WAIT_MS)


def test_says_that_a_live_stream_is_silent_and_that_it_is_back(qtbot, playing):
    silences = []
    playing.silent.connect(silences.append)
    playing.open("camera:0")
    qtbot.waitUntil(lambda: playing.info is not None and playing.info.live, timeout=WAIT_MS)
    stand_ins.opened[-1].silent_s = 4.0
    qtbot.waitUntil(lambda: silences[-1:] == [4.0], timeout=WAIT_MS)
    stand_ins.opened[-1].silent_s = 0.0
    qtbot.waitUntil(lambda: silences[-1:] == [0.0], timeout=WAIT_MS)
    count = len(silences)
    qtbot.wait(200)
    assert len(silences) == count


def test_a_live_stream_that_ends_is_said_to_have_ended(qtbot, playing):
    playing.open("camera:0")
    qtbot.waitUntil(lambda: playing.info is not None and playing.info.live, timeout=WAIT_MS)
    with qtbot.waitSignal(playing.failed, timeout=WAIT_MS) as failed:
        stand_ins.opened[-1].over = True
    assert "ended" in failed.args[0].text


def test_changes_the_network_while_it_plays(qtbot, playing, loads):
    playing.network.choose(EngineChoice(device="cpu", size=(64, 96)))
    qtbot.waitUntil(lambda: len(loads) == 2 and loads[0].closed, timeout=WAIT_MS)
    assert playing.phase is Phase.PLAYING
    assert not loads[1].closed
    until_written(qtbot, playing, 3)
    assert loads[1].outputs


def test_changes_the_network_of_the_frame_that_is_shown(qtbot, playing, loads):
    playing.toggle()
    qtbot.wait(50)
    playing.network.choose(EngineChoice(device="cpu", precision="bf16"))
    qtbot.waitUntil(lambda: len(loads) == 2 and len(loads[1].outputs) == 1, timeout=WAIT_MS)
    assert playing.phase is Phase.PAUSED


def test_a_network_that_cannot_be_had_changes_nothing(qtbot, playing, loads, monkeypatch):
    def fail(choice):
        raise CheckpointError("there are no such weights")

    monkeypatch.setattr(playing.network, "_load", fail)
    with qtbot.waitSignal(playing.network.notice, timeout=WAIT_MS) as notice:
        playing.network.choose(EngineChoice(weights="none"))
    assert notice.args[0] == "There are no such weights. The network is unchanged."
    assert playing.network.choice == EngineChoice(device="cpu")
    until_written(qtbot, playing, 3)


def test_a_network_that_fails_while_it_plays_steps_down(qtbot, player, loads):
    player.frame_ready.connect(player.take)
    player.network.choose(EngineChoice(device="cpu", backend="compile"))
    player.open("clip")
    qtbot.waitUntil(lambda: player.phase is Phase.PLAYING, timeout=WAIT_MS)
    with qtbot.waitSignal(player.network.notice, timeout=WAIT_MS) as notice:
        loads[0].fails_of = BackendError("the compiler is gone")
    assert notice.args[0] == "The compiler is gone. Going on with plain PyTorch."
    until_written(qtbot, player, 3)
    assert player.network.choice.backend == "eager"


def test_a_network_with_nothing_below_ends_the_stream_in_words(qtbot, playing, loads):
    with qtbot.waitSignal(playing.failed, timeout=WAIT_MS) as failed:
        loads[0].fails_of = BackendError("broken")
    assert failed.args[0].title == "The network cannot be run"


def test_asks_for_confidence_only_while_somebody_looks(qtbot, playing, loads):
    playing.want_confidence(False)
    until_written(qtbot, playing, 5)
    assert "confidence" not in loads[0].outputs[-1]
    playing.want_confidence(True)
    until_written(qtbot, playing, 5)
    assert "confidence" in loads[0].outputs[-1]


@pytest.fixture
def weights_are_damaged(player, loads, monkeypatch):
    """No network can be loaded, until the list is emptied."""
    reasons = ["they are damaged"]

    def load(choice):
        if reasons and choice.weights == "mine":
            raise CheckpointError(reasons[0])
        loads.append(stand_ins.StandInSegmenter(choice))
        return loads[-1]

    monkeypatch.setattr(player.network, "_load", load)
    return reasons


def test_without_a_network_nothing_waits_for_it(qtbot, player, weights_are_damaged):
    with qtbot.waitSignal(player.failed, timeout=WAIT_MS):
        player.network.choose(EngineChoice(weights="mine"))
    player.close_stream()
    with qtbot.waitSignal(player.failed, timeout=WAIT_MS) as failed:
        player.open("clip")
    assert failed.args[0].title == "These weights cannot be used"
    assert player.phase is Phase.FAILED
    weights_are_damaged.clear()
    player.retry()
    qtbot.waitUntil(lambda: player.phase is Phase.PLAYING, timeout=WAIT_MS)


@pytest.mark.parametrize(("spec", "phase"), [("clip", Phase.PLAYING), ("", Phase.EMPTY)])
@pytest.mark.usefixtures("weights_are_damaged")
def test_another_network_mends_what_the_first_one_broke(qtbot, player, spec, phase):
    if spec:
        player.open(spec)
    with qtbot.waitSignal(player.failed, timeout=WAIT_MS):
        player.network.choose(EngineChoice(weights="mine"))
    player.network.choose(EngineChoice(weights="s"))
    qtbot.waitUntil(lambda: player.phase is phase, timeout=WAIT_MS)


def test_what_failed_without_a_source_is_tried_again(qtbot, player, weights_are_damaged):
    with qtbot.waitSignal(player.failed, timeout=WAIT_MS):
        player.network.choose(EngineChoice(weights="mine"))
    weights_are_damaged.clear()
    player.retry()
    qtbot.waitUntil(lambda: player.phase is Phase.EMPTY, timeout=WAIT_MS)
    assert player.network.engine is not None
