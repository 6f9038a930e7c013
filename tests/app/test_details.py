"""What a user meets at the edges: messages over every page, quick keys, long names, a full GPU, cameras."""

import threading
from pathlib import Path

import pytest
import torch
from PySide6.QtCore import QEvent, QPoint, QPointF, Qt
from PySide6.QtGui import QKeyEvent, QWheelEvent
from PySide6.QtWidgets import QApplication, QInputDialog

from app import main, opening
from app.appearance import Appearance
from app.choice import Choice
from app.class_panel import ClassPanel
from app.engine import EngineChoice
from app.phase import Phase
from app.problems import Problem
from app.shortcuts import HOLD_KEY, ShortcutSheet
from bsdnet.classes import CAMVID_11
from bsdnet.stream.file_source import FileSource
from tests.stream.media import numbered, write_clip

from . import stand_ins
from .conftest import WAIT_MS, until_still


def is_seen(window) -> bool:
    """Whether the banner is what lies at its place: a page that came up later would cover it."""
    found = window.stack.childAt(window.banner.geometry().center())
    return found is window.banner or window.banner.isAncestorOf(found)


def test_a_message_lies_over_every_page(qtbot, start):
    window = start("clip")
    window.banner.say("words")
    assert is_seen(window)
    for go in (
        window.player.close_stream,
        lambda: window._show_problem(Problem(title="title", text="text", advice="advice")),
    ):
        go()
        assert is_seen(window)
    window.open("clip")
    assert is_seen(window)
    qtbot.waitUntil(lambda: window.stack.currentWidget() is window.video, timeout=WAIT_MS)
    assert is_seen(window)


def test_a_message_keeps_its_place_when_the_panels_come(qtbot, start):
    window = start("clip")
    window.show_sidebar(False)
    window.banner.say("words")
    for shown in (True, False):
        window.show_sidebar(shown)
        QApplication.processEvents()
        assert window.stack.rect().contains(window.banner.geometry())
        assert abs(window.banner.geometry().center().x() - window.stack.rect().center().x()) <= 1


def test_a_silent_camera_says_so_once_and_leaves_other_messages_alone(qtbot, start):
    window = start("camera:0")
    said: list[str] = []
    say = window.banner.say
    window.banner.say = lambda words, **more: said.append(words) or say(words, **more)
    source = stand_ins.opened[-1]
    source.silent_s = 7.0
    qtbot.waitUntil(lambda: "7 s" in window.banner.label.text(), timeout=WAIT_MS)
    source.silent_s = 8.2
    qtbot.waitUntil(lambda: "9 s" in window.banner.label.text(), timeout=WAIT_MS)
    assert len(said) == 1, "it is read out once, not each second"
    window.banner.dismiss.click()
    source.silent_s = 10.0
    qtbot.wait(200)
    assert not window.banner.isVisible(), "who has dismissed it does not want it back"
    window.banner.say("Saved a picture")
    source.silent_s = 11.0
    qtbot.wait(200)
    assert window.banner.label.text() == "Saved a picture"
    source.silent_s = 0.0
    qtbot.waitUntil(lambda: "LIVE" in window.transport.live.text(), timeout=WAIT_MS)
    assert window.banner.isVisible(), "it is about something else"


def test_what_a_silent_camera_said_goes_with_it(qtbot, start):
    window = start("camera:0")
    stand_ins.opened[-1].silent_s = 5.0
    qtbot.waitUntil(window.banner.isVisible, timeout=WAIT_MS)
    window.open("clip")
    assert not window.banner.isVisible()
    qtbot.waitUntil(lambda: window.player.phase is Phase.PLAYING, timeout=WAIT_MS)
    assert not window.banner.isVisible()


def test_a_paused_camera_whose_signal_returns_is_still_paused(qtbot, start):
    window = start("camera:0")
    window.player.toggle()
    for silent_s, words in ((4.0, "NO SIGNAL"), (0.0, "PAUSED")):
        stand_ins.opened[-1].silent_s = silent_s
        qtbot.waitUntil(lambda words=words: words in window.transport.live.text(), timeout=WAIT_MS)


def test_quick_keys_add_up(qtbot, playing):
    """Each press counts, though the network has not shown the frame of the one before."""
    playing.toggle()
    until_still(qtbot, playing)
    playing.seek(0.5)
    until_still(qtbot, playing)
    assert playing.position_s == pytest.approx(0.5, abs=0.05)
    for _ in range(3):
        playing.seek_by(0.2)
    until_still(qtbot, playing)
    assert playing.position_s == pytest.approx(1.1, abs=0.05)
    before = playing.position_s
    for _ in range(4):
        playing.step_back()
    until_still(qtbot, playing)
    assert playing.position_s == pytest.approx(before - 4 / playing.info.fps, abs=0.01)


def test_another_network_shows_at_the_end_too(qtbot, playing, loads):
    playing.seek(playing.info.num_frames / playing.info.fps)
    qtbot.waitUntil(lambda: playing.phase is Phase.ENDED, timeout=WAIT_MS)
    playing.network.choose(EngineChoice(device="cpu", size=(64, 64)))
    qtbot.waitUntil(lambda: len(loads) == 2 and bool(loads[1].outputs), timeout=WAIT_MS)
    assert playing.phase is Phase.ENDED, "to play is to begin again"


def test_frames_far_apart_are_gone_back_through_one_by_one(qtbot, playing, tmp_path, monkeypatch):
    """A still part of a recording, in which nothing lies where the mean rate would have it."""
    pts = [*range(25), *range(50, 300, 25)]
    path = write_clip(tmp_path / "still.mkv", [numbered(index % 28) for index in range(len(pts))], pts=pts)
    monkeypatch.setattr(playing._opener, "open_source", lambda spec: FileSource(path))
    playing.open("still")
    qtbot.waitUntil(lambda: playing.phase is Phase.PLAYING and playing.info.size == (48, 64), timeout=WAIT_MS)
    playing.toggle()
    playing.seek(10.0)
    until_still(qtbot, playing)
    seen = []
    for _ in range(4):
        playing.step_back()
        until_still(qtbot, playing)
        seen.append(round(playing.position_s))
    assert seen == [9, 8, 7, 6]


def test_beyond_the_end_nothing_is_waited_for_long(qtbot, playing, monkeypatch):
    monkeypatch.setattr("app.position._AWAIT_FRAME_S", 0.2)
    end_s = playing.info.num_frames / playing.info.fps
    playing.toggle()
    playing.seek(10 * end_s)
    until_still(qtbot, playing)
    playing.seek_by(-1.0)
    until_still(qtbot, playing)
    assert playing.position_s == pytest.approx(end_s - 1, abs=0.1)


def test_a_gpu_that_was_full_once_is_tried_again(qtbot, playing, monkeypatch):
    asked: list[EngineChoice] = []
    load = playing.network._load

    def full(choice: EngineChoice):
        asked.append(choice)
        if choice.device == "auto" and choice.size is not None:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return load(choice)

    monkeypatch.setattr(playing.network, "_load", full)
    for size in ((1024, 2048), None):
        before = playing.network.engine
        playing.network._choice = EngineChoice(device="auto", size=playing.network.choice.size)
        playing.network.change(EngineChoice(device=playing.network.choice.device, size=size))
        qtbot.waitUntil(lambda before=before: playing.network.engine is not before, timeout=WAIT_MS)
    assert [(choice.device, choice.size) for choice in asked] == [
        ("auto", (1024, 2048)), ("cpu", (1024, 2048)), ("auto", None),
    ]  # fmt: skip


def test_a_camera_is_opened_again_once_it_was_let_go(qtbot, player, monkeypatch):
    held, seen = threading.Lock(), []
    opened = stand_ins.open_stand_in

    def exclusive(spec: str):
        seen.append(held.acquire(blocking=False))
        source = opened("camera:0")
        close = source.close

        def release() -> None:
            close()
            if held.locked():
                held.release()

        source.close = release
        return source

    monkeypatch.setattr(player._opener, "open_source", exclusive)
    player.network.choose(EngineChoice(device="cpu"))
    for _ in range(3):
        player.open("camera:0")
        qtbot.waitUntil(lambda: player.phase is Phase.PLAYING, timeout=WAIT_MS)
    assert seen == [True] * 3


def test_addresses_need_a_protocol(window, monkeypatch):
    chosen: list[str] = []
    window.opening.chosen.disconnect()
    window.opening.chosen.connect(chosen.append)
    for text in ("admin:s3cret@192.168.1.5/stream", " rtsp://camera/1 "):
        monkeypatch.setattr(QInputDialog, "getText", lambda *_, text=text: (text, True))
        window.opening.ask_address()
    assert chosen == ["rtsp://camera/1"]
    assert "rtsp://" in window.banner.label.text()


def test_only_what_played_is_remembered(qtbot, window, start, settings):
    window.player.network.choose(EngineChoice(device="cpu"))
    window.open("missing")
    qtbot.waitUntil(lambda: window.player.phase is Phase.FAILED, timeout=WAIT_MS)
    assert settings.recent == []
    start("clip")
    assert settings.recent == [str(Path("clip").absolute())]


def test_letters_in_a_list_are_the_windows_commands(qtbot, start):
    window = start("clip")
    box = window.engine.model_box
    box.setFocus()
    activated: list[int] = []
    box.activated.connect(activated.append)
    qtbot.keyPress(box, HOLD_KEY)
    assert not activated
    assert window.video.look.mode == "original"
    qtbot.keyRelease(box, HOLD_KEY)
    qtbot.keyPress(box, Qt.Key.Key_Down)
    assert activated == [1], "arrows still choose"


def test_other_keys_stay_with_the_list():
    box = Choice("name")
    box.addItems(["a", "b"])
    for key, text, taken in ((Qt.Key.Key_B, "b", False), (Qt.Key.Key_Down, "", True), (Qt.Key.Key_Home, "", True)):
        event = QKeyEvent(QEvent.Type.KeyPress, key, Qt.KeyboardModifier.NoModifier, text)
        box.keyPressEvent(event)
        assert event.isAccepted() is taken


def test_the_original_is_let_go_when_another_window_comes(qtbot, start):
    window = start("clip")
    qtbot.keyPress(window.video, HOLD_KEY)
    assert window.video.look.mode == "original"
    window.isActiveWindow = lambda: False
    QApplication.sendEvent(window, QEvent(QEvent.Type.ActivationChange))
    assert window.video.look.mode != "original"


@pytest.mark.parametrize("length", [150, 300])
def test_a_long_name_leaves_the_window_its_size(window, length):
    before = window.minimumSizeHint().width()
    window.wait.show_words(f"Opening {'v' * length}.mp4 ...")
    window.problem.show_problem(Problem(title="title", text=f"{'v' * length} cannot be read", advice="advice"))
    window.stack.setCurrentWidget(window.problem)
    QApplication.processEvents()
    assert window.minimumSizeHint().width() == before
    assert window.problem.text.width() <= window.problem.viewport().width()
    assert (
        window.problem.text.heightForWidth(window.problem.viewport().width())
        > window.problem.text.fontMetrics().height()
    )


def test_a_name_that_looks_like_markup_is_shown_as_it_is(window):
    window.problem.show_problem(Problem(title="<b>title</b>", text="<i>text</i>", advice=""))
    assert window.problem.title.textFormat() is Qt.TextFormat.PlainText
    window.start.show_recent(["/data/R&D/cam & car.mp4"])
    buttons = [window.start._recent.itemAt(index).widget() for index in range(window.start._recent.count())]
    assert "/data/R&&D/cam && car.mp4" in [getattr(button, "text", str)() for button in buttons]


def test_full_screen_and_back_leaves_a_maximised_window_maximised(window):
    window.showMaximized()
    for full in (True, False):
        window.toggle_full_screen()
        assert window.isFullScreen() is full
    assert window.isMaximized()


def test_a_network_that_is_chosen_by_keys_leaves_the_focus_where_it_was(qtbot, start):
    window = start("clip")
    window.activateWindow()
    box = window.engine.size_box
    box.setFocus()
    loaded = window.player.network.engine
    qtbot.keyPress(box, Qt.Key.Key_Down)
    qtbot.waitUntil(lambda: window.player.network.engine is not loaded, timeout=WAIT_MS)
    qtbot.waitUntil(lambda: window.focusWidget() is box, timeout=WAIT_MS)


def test_a_sheet_that_was_closed_is_gone(qtbot, window):
    for _ in range(3):
        window.show_shortcuts()
        window.findChildren(ShortcutSheet)[-1].close()
    qtbot.waitUntil(lambda: not window.findChildren(ShortcutSheet), timeout=WAIT_MS)


def test_threads_that_hang_in_foreign_code_are_known():
    let_go = threading.Event()
    assert not main._threads_left()
    thread = threading.Thread(target=let_go.wait, name="bsdnet reader", daemon=True)
    thread.start()
    assert main._threads_left()
    let_go.set()
    thread.join()
    assert not main._threads_left()


def test_one_picture_can_be_labelled_again(tmp_path: Path):
    from bsdnet.stream.source import open_source
    from tests.trainer.trees import write

    for name in ("photo.png", "photo[1].jpg"):
        with open_source(str(write(tmp_path / name, numbered(3)))) as source:
            assert source.info.seekable
            assert source.info.num_frames == 1
            first = source.read()
            assert source.read() is None
            source.seek(0.0)
            again = source.read()
            assert first is not None
            assert again is not None
            assert (first.picture.rgb == again.picture.rgb).all()


def test_the_menu_of_cameras_shows_their_names(window, monkeypatch):
    from app.cameras import Camera

    shown: list[str] = []
    monkeypatch.setattr(opening.QMenu, "popup", lambda menu, _: shown.extend(a.text() for a in menu.actions()))
    window.opening._offer_cameras([Camera(number=0, name="A & B"), Camera(number=1, name="C")])
    assert shown == ["A && B  (camera 0)", "C  (camera 1)"]


@pytest.mark.parametrize("theme", ["dark", "light"])
def test_the_box_of_every_class_is_seen_in_both_themes(qtbot, settings, theme):
    settings.theme = theme
    appearance = Appearance(settings)
    appearance.apply()
    panel = ClassPanel()
    qtbot.addWidget(panel)
    panel.resize(320, 420)
    panel.show()
    panel.model.set_classes(CAMVID_11)
    panel.draw_none()
    QApplication.processEvents()
    image = panel.grab().toImage()
    background = image.pixelColor(image.width() - 2, image.height() - 2)
    assert (background.lightnessF() > 0.5) == (theme == "light")
    for row in range(len(CAMVID_11)):
        place = panel.list.viewport().mapTo(panel, panel.list.visualRect(panel.model.index(row)).topLeft())
        middle = place.y() + panel.list.visualRect(panel.model.index(row)).height() // 2
        edge = [image.pixelColor(x, middle).lightnessF() for x in range(place.x(), place.x() + 20)]
        assert max(abs(lightness - background.lightnessF()) for lightness in edge) > 0.12, CAMVID_11.names[row]
    settings.theme = "dark"
    appearance.apply()


def test_playing_on_leaves_the_position_where_it_is(start):
    window = start("clip")
    window.player.seek(50.0)
    window.player.take = lambda: None  # no frame comes after this
    window.player._position.show(50.0, 0.02, plays=True)
    window.player.toggle()
    window.player.toggle()
    assert window.player.phase is Phase.PLAYING
    assert window.transport.time.text() == "0:50.0"
    assert window.transport.slider.value() == 5000


def test_the_wheel_turned_sideways_leaves_a_fitted_picture_fitted(start):
    video = start("clip").video
    place = QPointF(video.rect().center())
    none = Qt.MouseButton.NoButton, Qt.KeyboardModifier.NoModifier, Qt.ScrollPhase.NoScrollPhase, False
    for turn, scaling in ((QPoint(120, 0), "fit"), (QPoint(0, 120), "free")):
        QApplication.sendEvent(video, QWheelEvent(place, video.mapToGlobal(place), QPoint(), turn, *none))
        assert video.view.scaling == scaling


def test_captions_stay_on_the_picture_until_another_is_made(qtbot, start):
    window = start("clip")
    window.set_mode("side-by-side")
    qtbot.waitUntil(lambda: window.video.composed.geometry.beside, timeout=WAIT_MS)
    composed = window.video.composed
    place = window.video._seen_rect(composed)
    window.set_mode("split")
    assert window.video._seen_rect(composed) == place
