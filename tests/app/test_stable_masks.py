"""Stable masks: the labels of one stream are averaged along its motion, and of no other stream, network or time."""

import pytest
from PySide6.QtCore import Qt

from app.engine import Engine, EngineChoice
from app.phase import Phase
from app.stream_segmenter import StreamSegmenter
from app.window import Window
from bsdnet.errors import BackendError
from bsdnet.runtime.smoothing import Smoother
from bsdnet.stream.frame import Frame

from .conftest import WAIT_MS
from .stand_ins import StandInSegmenter, gray

OUTPUTS = frozenset({"labels"})


def frame_at(time_s: float, epoch: int = 0) -> Frame:
    return Frame(picture=gray(), index=0, pts=0, time_s=time_s, epoch=epoch)


def pass_through(stream: StreamSegmenter, frame: Frame):
    stream.follow(frame)
    return stream.submit(frame.picture, outputs=OUTPUTS).result()


@pytest.fixture
def loaded() -> list[StandInSegmenter]:
    return []


@pytest.fixture
def engine(loaded) -> Engine:
    def load(choice: EngineChoice) -> StandInSegmenter:
        loaded.append(StandInSegmenter(choice))
        return loaded[-1]

    return Engine(EngineChoice(device="cuda:0", backend="eager"), lambda words: None, load)


def test_off_every_frame_stands_alone(engine, loaded):
    pass_through(StreamSegmenter(engine, lambda: False), frame_at(0.0))
    assert loaded[0].smoothers == [None]


def test_frames_of_a_stream_have_one_past_and_streams_do_not_share_it(engine, loaded):
    streams = [StreamSegmenter(engine, lambda: True) for _ in range(2)]
    for number in range(3):
        for stream in streams:
            pass_through(stream, frame_at(number * 0.04))
    one, other = loaded[0].smoothers[::2], loaded[0].smoothers[1::2]
    assert isinstance(one[0], Smoother)
    assert len(set(one)) == len(set(other)) == 1
    assert one[0] is not other[0]


def test_switched_off_and_on_it_has_forgotten(engine, loaded):
    wanted = iter([True, False, True])
    stream = StreamSegmenter(engine, lambda: next(wanted))
    for number in range(3):
        pass_through(stream, frame_at(number * 0.04))
    first, off, second = loaded[0].smoothers
    assert off is None
    assert isinstance(second, Smoother)
    assert second is not first


@pytest.mark.parametrize("when", ["fails_of", "refuses_with"])
def test_what_takes_the_place_of_a_network_that_failed_has_no_past(engine, loaded, when):
    stream = StreamSegmenter(engine, lambda: True)
    pass_through(stream, frame_at(0.0))
    setattr(loaded[0], when, BackendError("broken"))
    for number in (1, 2):
        pass_through(stream, frame_at(number * 0.04))
    assert len(loaded) == 2
    anew = loaded[1].smoothers[when == "fails_of" :]  # a frame that has failed is done again alone
    assert all(isinstance(smoother, Smoother) for smoother in anew)
    assert anew[-1] is not loaded[0].smoothers[0], "its logits lie on another device"


def test_another_engine_has_no_past_and_the_one_before_is_closed(engine, loaded):
    stream = StreamSegmenter(engine, lambda: True)
    pass_through(stream, frame_at(0.0))
    other = StandInSegmenter()
    stream.change(Engine(EngineChoice(), lambda words: None, lambda choice: other))
    pass_through(stream, frame_at(0.04))
    assert loaded[0].closed
    assert other.smoothers[0] is not loaded[0].smoothers[0]


@pytest.mark.parametrize(("time_s", "epoch", "resets"), [(0.04, 0, 0), (0.04, 1, 1), (9.0, 0, 1)])
def test_after_a_seek_or_a_gap_it_begins_anew(engine, loaded, monkeypatch, time_s, epoch, resets):
    stream, told = StreamSegmenter(engine, lambda: True), []
    pass_through(stream, frame_at(0.0))
    monkeypatch.setattr(Smoother, "reset", lambda smoother: told.append(smoother))
    pass_through(stream, frame_at(time_s, epoch))
    assert told == loaded[0].smoothers[:resets]


def last_smoother(segmenter: StandInSegmenter) -> Smoother | None:
    return segmenter.smoothers[-1] if segmenter.smoothers else None


def test_the_switch_works_while_it_plays(qtbot, start, settings, loads):
    window: Window = start("clip")
    switch = window.engine.smooth
    assert not switch.isChecked(), "off by default"
    assert last_smoother(loads[0]) is None
    pipeline = window.player._pipeline
    qtbot.mouseClick(switch, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: last_smoother(loads[0]) is not None, timeout=WAIT_MS)
    assert settings.smooth
    window.actions_by_name["smooth"].trigger()
    qtbot.waitUntil(lambda: last_smoother(loads[0]) is None, timeout=WAIT_MS)
    assert not settings.smooth
    assert window.player._pipeline is pipeline, "without a restart"
    assert window.player.phase is Phase.PLAYING
    assert len(loads) == 1


def test_another_network_is_smoothed_too(qtbot, start, loads):
    window = start("clip")
    window.engine.smooth.setChecked(True)
    window.player.network.choose(EngineChoice(device="cpu", precision="bf16"))
    qtbot.waitUntil(lambda: len(loads) == 2 and last_smoother(loads[1]) is not None, timeout=WAIT_MS)
    assert loads[0].closed


def test_it_is_remembered(player, settings):
    settings.smooth = True
    window = Window(player, settings)
    assert window.engine.smooth.isChecked()
    assert player.network.smooth
    window.deleteLater()


def test_pointing_at_a_paused_frame_does_not_label_it_anew_without_its_past(qtbot, start, loads):
    window = start("clip")
    window.player.want_confidence(False)
    window.engine.smooth.setChecked(True)
    qtbot.waitUntil(lambda: last_smoother(loads[0]) is not None, timeout=WAIT_MS)
    window.player.toggle()
    qtbot.wait(100)
    runs = len(loads[0].outputs)
    window.player.want_confidence(True)
    qtbot.wait(100)
    assert len(loads[0].outputs) == runs
    assert window.video.composed.result.prediction.confidence is not None


def test_switched_off_while_paused_the_frame_is_labelled_alone(qtbot, start, loads):
    window = start("clip")
    window.engine.smooth.setChecked(True)
    qtbot.waitUntil(lambda: last_smoother(loads[0]) is not None, timeout=WAIT_MS)
    window.player.toggle()
    qtbot.wait(100)
    window.engine.smooth.setChecked(False)
    qtbot.waitUntil(lambda: last_smoother(loads[0]) is None, timeout=WAIT_MS)
    assert window.player.phase is Phase.PAUSED
