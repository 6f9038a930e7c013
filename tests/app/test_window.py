"""The window: what clicks, keys and drops do, and what is seen then."""

import numpy as np
import pytest
from PySide6.QtCore import QMimeData, QPoint, QPointF, Qt, QUrl
from PySide6.QtGui import QDropEvent, QGuiApplication, QImage
from PySide6.QtWidgets import QApplication

from app.engine import EngineChoice
from app.opening import dropped_source
from app.phase import Phase
from app.shortcuts import COMMANDS, HOLD_KEY, ShortcutSheet
from bsdnet.classes import CAMVID_11

from .conftest import WAIT_MS
from .stand_ins import CAR, GRAY, ROAD, SIZE


def point(window, x: float, y: float) -> QPoint:
    """A place on the picture, by shares of the frame."""
    height, width = window.video.view.picture
    px, py = window.video.view.to_widget(x * width, y * height)
    ratio = window.video.devicePixelRatioF()
    return QPoint(round(px / ratio), round(py / ratio))


def color_at(window, x: float, y: float) -> tuple[int, int, int]:
    """What is painted there."""
    return window.video.grab().toImage().pixelColor(point(window, x, y)).getRgb()[:3]


def blend(index: int, alpha: float) -> list[float]:
    return [alpha * channel + (1 - alpha) * GRAY for channel in CAMVID_11.colors[index]]


def until_painted(qtbot, window, x: float, y: float, expected) -> None:
    qtbot.waitUntil(lambda: np.abs(np.subtract(color_at(window, x, y), expected)).max() <= 2, timeout=WAIT_MS)


def test_begins_with_ways_to_begin(window):
    assert window.stack.currentWidget() is window.start
    assert [card.accessibleName() for card in window.start.cards] == [
        "Open file",
        "Open camera",
        "Open URL",
        "Play the demo",
    ]
    assert not window.transport.isVisible()


def test_paints_the_classes_over_the_frame(qtbot, start):
    window = start("clip")
    until_painted(qtbot, window, 0.25, 0.5, blend(CAR, 0.5))
    until_painted(qtbot, window, 0.75, 0.5, blend(ROAD, 0.5))
    assert window.stack.currentWidget() is window.video
    assert window.windowTitle().startswith("clip")


def test_opacity_and_classes_change_at_once_while_paused(qtbot, start, loads):
    window = start("clip")
    window.player.toggle()
    qtbot.wait(100)
    runs = len(loads[0].outputs)
    window.bar.alpha.setValue(100)
    until_painted(qtbot, window, 0.25, 0.5, CAMVID_11.colors[CAR])
    window.classes.model.solo(ROAD)
    until_painted(qtbot, window, 0.25, 0.5, [GRAY] * 3)
    until_painted(qtbot, window, 0.75, 0.5, CAMVID_11.colors[ROAD])
    assert len(loads[0].outputs) == runs, "the network is not asked again"


def test_the_original_is_seen_while_its_key_is_held(qtbot, start):
    window = start("clip")
    until_painted(qtbot, window, 0.75, 0.5, blend(ROAD, 0.5))
    qtbot.keyPress(window.video, HOLD_KEY)
    until_painted(qtbot, window, 0.75, 0.5, [GRAY] * 3)
    qtbot.keyRelease(window.video, HOLD_KEY)
    until_painted(qtbot, window, 0.75, 0.5, blend(ROAD, 0.5))


def test_the_split_follows_the_mouse(qtbot, start):
    window = start("clip")
    window.actions_by_name["split"].trigger()
    qtbot.mouseMove(window.video, point(window, 0.9, 0.5))
    until_painted(qtbot, window, 0.75, 0.3, [GRAY] * 3)
    qtbot.mouseMove(window.video, point(window, 0.6, 0.5))
    until_painted(qtbot, window, 0.75, 0.3, blend(ROAD, 0.5))
    until_painted(qtbot, window, 0.25, 0.3, [GRAY] * 3)


def test_keys_move_the_split(qtbot, start):
    window = start("clip")
    window.actions_by_name["split"].trigger()
    until_painted(qtbot, window, 0.48, 0.3, [GRAY] * 3)
    qtbot.keyClick(window.video, Qt.Key.Key_Left, Qt.KeyboardModifier.ShiftModifier)
    until_painted(qtbot, window, 0.48, 0.3, blend(CAR, 0.5))
    qtbot.keyClick(window.video, Qt.Key.Key_Right, Qt.KeyboardModifier.ShiftModifier)
    until_painted(qtbot, window, 0.48, 0.3, [GRAY] * 3)
    for _ in range(30):  # it stays in the picture
        qtbot.keyClick(window.video, Qt.Key.Key_Right, Qt.KeyboardModifier.ShiftModifier)
    until_painted(qtbot, window, 0.97, 0.3, [GRAY] * 3)
    qtbot.keyClick(window.video, Qt.Key.Key_Left, Qt.KeyboardModifier.ShiftModifier)
    until_painted(qtbot, window, 0.97, 0.3, blend(ROAD, 0.5))


def test_side_by_side(qtbot, start):
    window = start("clip")
    window.actions_by_name["side-by-side"].trigger()
    qtbot.waitUntil(lambda: window.video.view.beside, timeout=WAIT_MS)
    until_painted(qtbot, window, 0.1, 0.5, [GRAY] * 3)
    until_painted(qtbot, window, 0.6, 0.5, blend(CAR, 0.5))
    until_painted(qtbot, window, 0.9, 0.5, blend(ROAD, 0.5))


def test_names_what_is_under_the_cursor(qtbot, start):
    window = start("clip")
    qtbot.mouseMove(window.video, point(window, 0.25, 0.5))
    qtbot.waitUntil(lambda: window.video.hovered() == (CAR, "car", pytest.approx(0.8)), timeout=WAIT_MS)
    qtbot.mouseMove(window.video, point(window, 0.75, 0.5))
    qtbot.waitUntil(lambda: window.video.hovered() == (ROAD, "road", pytest.approx(0.8)), timeout=WAIT_MS)


def test_a_click_isolates_a_class_and_a_drag_does_not(qtbot, start):
    window = start("clip")
    qtbot.mouseClick(window.video, Qt.MouseButton.LeftButton, pos=point(window, 0.25, 0.5))
    assert window.classes.model.only == {CAR}
    qtbot.mouseClick(window.video, Qt.MouseButton.LeftButton, pos=point(window, 0.25, 0.5))
    assert window.classes.model.only is None
    window.video.zoom_by(4)
    before = window.video.view.to_widget(0, 0)
    qtbot.mousePress(window.video, Qt.MouseButton.LeftButton, pos=QPoint(200, 200))
    qtbot.mouseMove(window.video, QPoint(210, 200))
    qtbot.mouseMove(window.video, QPoint(260, 220))
    qtbot.mouseRelease(window.video, Qt.MouseButton.LeftButton, pos=QPoint(260, 220))
    moved = np.subtract(window.video.view.to_widget(0, 0), before)
    assert moved == pytest.approx([60, 20])
    assert window.classes.model.only is None


def test_the_wheel_zooms_around_the_cursor(qtbot, start):
    window = start("clip")
    window.video.set_scaling("actual")
    assert window.video.view.zoom == 1
    window.actions_by_name["zoom-in"].trigger()
    assert window.video.view.zoom == pytest.approx(1.25)
    window.actions_by_name["fit"].trigger()
    assert window.video.view.scaling == "fit"


def test_plays_and_pauses_with_the_space_bar(qtbot, start):
    window = start("clip")
    qtbot.keyClick(window.video, Qt.Key.Key_Space)
    assert window.player.phase is Phase.PAUSED
    assert window.transport.play.accessibleName() == "Play"
    qtbot.keyClick(window.video, Qt.Key.Key_Space)
    assert window.player.phase is Phase.PLAYING


def test_nothing_stands_around_the_picture_in_full_screen(qtbot, start):
    window = start("clip")
    around = (window.bar, window.transport, window.sidebar)
    window.actions_by_name["full-screen"].trigger()
    for phase in (Phase.PAUSED, Phase.PLAYING):
        window.player.toggle()
        assert window.player.phase is phase
        assert not any(part.isVisible() for part in around)
    window.actions_by_name["leave"].trigger()
    assert all(part.isVisible() for part in around)


def test_without_a_picture_full_screen_leaves_no_transport_behind(window):
    for full in (True, False):
        window.actions_by_name["full-screen"].trigger()
        assert window.isFullScreen() is full
        assert window.bar.isVisible() is not full
        assert not window.transport.isVisible()


def test_a_button_in_focus_keeps_the_space_bar(qtbot, start):
    window = start("clip")
    qtbot.keyClick(window.transport.loop, Qt.Key.Key_Space)
    assert window.transport.loop.isChecked()
    assert window.player.phase is Phase.PLAYING


def test_a_click_on_the_position_goes_there(qtbot, start):
    window = start("clip")
    slider = window.transport.slider
    window.player.toggle()
    qtbot.mouseClick(slider, Qt.MouseButton.LeftButton, pos=QPoint(slider.width() // 2, slider.height() // 2))
    qtbot.waitUntil(
        lambda: abs(window.video.composed.result.frame.time_s - slider.duration_s / 2) < 1.0, timeout=WAIT_MS
    )


def test_a_position_that_cannot_be_moved_says_why(start):
    slider = start("unseekable").transport.slider
    assert not slider.isEnabled()
    assert slider.toolTip() == "This video can only be played through"
    assert start("clip").transport.slider.toolTip() == ""


def test_live_sources_have_no_position(qtbot, start):
    window = start("camera:0")
    assert not window.transport.slider.isVisible()
    assert window.transport.live.isVisible()
    qtbot.waitUntil(lambda: "behind" in window.transport.latency.text(), timeout=WAIT_MS)


def test_shows_how_much_of_the_picture_each_class_is(qtbot, start):
    window = start("clip")
    model = window.classes.model
    role = Qt.ItemDataRole.AccessibleTextRole
    qtbot.waitUntil(lambda: model.data(model.index(CAR), role) == "car, 50.0% of the picture, drawn", timeout=WAIT_MS)


def test_a_row_is_toggled_by_a_click_and_isolated_by_two(qtbot, start):
    window = start("clip")
    rows, model = window.classes.list, window.classes.model
    place = rows.visualRect(model.index(CAR)).center()
    qtbot.mouseClick(rows.viewport(), Qt.MouseButton.LeftButton, pos=place)
    assert model.only == set(range(len(CAMVID_11))) - {CAR}
    qtbot.wait(QApplication.doubleClickInterval() + 50)
    qtbot.mouseClick(rows.viewport(), Qt.MouseButton.LeftButton, pos=place)
    qtbot.mouseDClick(rows.viewport(), Qt.MouseButton.LeftButton, pos=place)
    assert model.only == {CAR}


def test_errors_are_said_in_the_window(qtbot, window):
    window.player.network.choose(EngineChoice(device="cpu"))
    window.open("nothing.mp4")
    qtbot.waitUntil(lambda: window.stack.currentWidget() is window.problem, timeout=WAIT_MS)
    assert window.problem.title.text() == "There is no such file"
    assert window.problem.advice.text()
    window.problem.back.click()
    assert window.stack.currentWidget() is window.start


def test_says_that_a_camera_is_silent(qtbot, start):
    from . import stand_ins

    window = start("camera:0")
    stand_ins.opened[-1].silent_s = 7.0
    qtbot.waitUntil(window.banner.isVisible, timeout=WAIT_MS)
    assert window.banner.label.text().startswith("Camera 0 gives no picture for 7 s")
    stand_ins.opened[-1].silent_s = 0.0
    qtbot.waitUntil(lambda: not window.banner.isVisible(), timeout=WAIT_MS)


def test_saves_the_frame_with_and_without_classes(qtbot, start, settings):
    window = start("clip")
    for command in ("save", "save-original"):
        window.actions_by_name[command].trigger()
        window.banner.hide()
        qtbot.waitUntil(window.banner.isVisible, timeout=WAIT_MS)
    seen, plain = (
        QImage(str(path)) for path in sorted(settings.folder.glob("*.png"), key=lambda p: p.stat().st_mtime_ns)
    )
    for image in (seen, plain):
        assert (image.height(), image.width()) == SIZE
    assert plain.pixelColor(5, 5).getRgb()[:3] == (GRAY,) * 3
    assert np.abs(np.subtract(seen.pixelColor(5, 5).getRgb()[:3], blend(CAR, 0.5))).max() <= 1


def test_copies_what_is_shown(qtbot, start):
    window = start("clip")
    window.actions_by_name["copy-original"].trigger()
    qtbot.waitUntil(lambda: window.banner.label.text() == "Copied", timeout=WAIT_MS)
    assert QGuiApplication.clipboard().image().pixelColor(5, 5).getRgb()[:3] == (GRAY,) * 3


def test_records_and_says_where(qtbot, start, settings):
    window = start("clip")
    window.actions_by_name["record"].trigger()
    qtbot.waitUntil(window.transport.recording.isVisible, timeout=WAIT_MS)
    before = window.player.stats.frames_out
    qtbot.waitUntil(lambda: window.player.stats.frames_out > before + 3, timeout=WAIT_MS)
    window.actions_by_name["record"].trigger()
    qtbot.waitUntil(lambda: window.banner.label.text().startswith("Recorded clip-"), timeout=WAIT_MS)
    assert not window.transport.recording.isVisible()
    assert len(list(settings.folder.glob("clip-*.mp4"))) == 1


def test_changes_the_network_in_the_panel(qtbot, start, loads):
    window = start("clip")
    qtbot.waitUntil(lambda: "64 x 32" in window.engine.status.text(), timeout=WAIT_MS)
    box = window.engine.size_box
    box.setCurrentIndex(box.findText("1024 x 512"))
    box.activated.emit(box.currentIndex())
    qtbot.waitUntil(lambda: "1024 x 512" in window.engine.status.text(), timeout=WAIT_MS)
    qtbot.waitUntil(lambda: loads[0].closed, timeout=WAIT_MS)
    assert window.player.phase is Phase.PLAYING


def test_opens_the_first_of_what_is_dropped_and_says_so(qtbot, window, tmp_path):
    window.player.network.choose(EngineChoice(device="cpu"))
    mime = QMimeData()
    mime.setUrls([QUrl.fromLocalFile(str(tmp_path / name)) for name in ("street.mp4", "other.mp4")])
    event = QDropEvent(
        QPointF(5, 5), Qt.DropAction.CopyAction, mime, Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier
    )
    window.dropEvent(event)
    assert window.player.spec == str(tmp_path / "street.mp4")
    assert window.banner.label.text().startswith("One at a time")


def test_addresses_can_be_dropped_and_words_cannot():
    mime = QMimeData()
    mime.setText("hello")
    assert dropped_source(mime) is None
    mime.setUrls([QUrl("mailto:somebody@somewhere")])
    assert dropped_source(mime) is None
    for address in ("rtsp://camera/1", "http://camera/front%20left.mjpg"):  # as they came: servers want no spaces
        mime.setUrls([QUrl(address)])
        assert dropped_source(mime) == address


def test_every_command_can_be_given_and_has_a_key_of_its_own(window):
    assert set(window.actions_by_name) == {command.name for command in COMMANDS}
    keys = [keys for command in COMMANDS for keys in command.keys]
    assert len(keys) == len(set(keys))
    assert all(command.keys for command in COMMANDS)


@pytest.mark.parametrize("command", [command.name for command in COMMANDS if command.name not in ("quit", "help")])
def test_every_command_works_with_and_without_a_picture(qtbot, start, window, monkeypatch, command):
    for ask in ("ask_file", "ask_folder", "ask_address"):  # dialogs wait for somebody
        monkeypatch.setattr(window.opening, ask, lambda: None)
    monkeypatch.setattr("app.keeping.QDesktopServices.openUrl", lambda url: True)
    if command in ("open-file", "open-folder", "open-address"):
        return
    window.actions_by_name[command].trigger()
    window.player.close_stream()
    start("clip")
    window.actions_by_name[command].trigger()
    qtbot.wait(20)


def test_the_sheet_shows_every_command(qtbot, window):
    from PySide6.QtWidgets import QLabel

    sheet = ShortcutSheet(window)
    words = {label.text() for label in sheet.findChildren(QLabel)}
    assert {command.words for command in COMMANDS} <= words


def test_a_stream_can_be_left_with_the_mouse_whatever_it_does(qtbot, window, start):
    back = window.bar.back
    assert not back.isVisible(), "there is nothing to leave"
    window.open("slow")
    assert back.isVisible()
    qtbot.mouseClick(back, Qt.MouseButton.LeftButton)
    assert window.stack.currentWidget() is window.start
    start("clip")
    qtbot.mouseClick(back, Qt.MouseButton.LeftButton)
    assert window.player.phase is Phase.EMPTY


def test_panels_cannot_be_hidden_where_there_are_none(start, window):
    action = window.actions_by_name["sidebar"]
    assert not action.isEnabled()
    start("clip")
    assert action.isEnabled()


def test_settings_are_remembered(qtbot, window, settings):
    window.actions_by_name["mask"].trigger()
    window.actions_by_name["theme"].trigger()
    window.bar.alpha.setValue(80)
    assert settings.mode == "mask"
    assert settings.theme == "light"
    assert settings.alpha == 0.8
    window.actions_by_name["theme"].trigger()


@pytest.mark.parametrize("scale", [1, 2])
def test_everything_can_be_reached_at_any_size_of_words(qtbot, start, settings, scale):
    window = start("clip")
    while settings.font_scale < scale:
        window.actions_by_name["larger"].trigger()
    transport = window.transport
    controls = (transport.play, transport.time, transport.speed, window.bar.alpha)
    qtbot.waitUntil(lambda: all(control.width() >= control.minimumSizeHint().width() for control in controls))
    assert transport.time.width() >= transport.time.fontMetrics().horizontalAdvance("00:00:00.0")
    assert window.minimumSizeHint().width() <= 1440
    assert window.minimumSizeHint().height() <= 900
    while settings.font_scale > 1:
        window.actions_by_name["smaller"].trigger()
