"""What a screen reader finds, and what somebody without a mouse can reach and see."""

from collections.abc import Iterator

import pytest
from PySide6.QtCore import Qt
from PySide6.QtGui import QAccessible, QAccessibleInterface
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QApplication, QWidget

from app.phase import Phase
from app.window import Window

from .conftest import WAIT_MS

Role = QAccessible.Role
NAME, DESCRIPTION = QAccessible.Text.Name, QAccessible.Text.Description
CONTROLS = (Role.Button, Role.CheckBox, Role.ComboBox, Role.Slider, Role.List, Role.EditableText, Role.RadioButton)


def interfaces(window: Window) -> list[QAccessibleInterface]:
    """All that a screen reader finds in the window and that can be seen."""

    def walk(interface: QAccessibleInterface) -> Iterator[QAccessibleInterface]:
        if not interface.state().invisible:
            yield interface
            for number in range(interface.childCount()):
                yield from walk(interface.child(number))

    return list(walk(QAccessible.queryAccessibleInterface(window)))


def label_of(interface: QAccessibleInterface) -> str:
    """The words of the label that belongs to it."""
    labels = [label for label, kind in interface.relations() if kind & QAccessible.RelationFlag.Label]
    return labels[0].text(NAME) if labels else ""


def name_of(interface: QAccessibleInterface) -> str:
    """What it is called: on Linux Qt gives a list's choice in place of its name."""
    is_list = interface.role() == Role.ComboBox
    return label_of(interface) or interface.text(DESCRIPTION) if is_list else interface.text(NAME)


@pytest.fixture(params=["start", "playing", "failed"])
def state(qtbot, request, window, start) -> Window:
    """The window in one of its states."""
    if request.param == "start":
        window.settings.remember("demo")
        window.start.show_recent(["demo"])
    else:
        start("clip")
    if request.param == "failed":
        window.open("nothing")
        qtbot.waitUntil(lambda: window.player.phase is Phase.FAILED, timeout=WAIT_MS)
    window.activateWindow()
    return window


def test_all_that_can_have_the_focus_has_a_name_and_a_role(state):
    focusable = [interface for interface in interfaces(state) if interface.state().focusable]
    assert len(focusable) >= 8
    for interface in focusable:
        role, name = interface.role(), name_of(interface)
        assert name, (role, interface.object())
        assert role in (*CONTROLS, Role.ListItem, Role.StaticText) or interface.object() is state.video, (role, name)


def test_names_of_lists_are_not_their_choices(start):
    window = start("clip")
    lists = [interface for interface in interfaces(window) if interface.role() == Role.ComboBox]
    assert [label_of(interface) for interface in lists] == ["", "Model", "Input", "Backend", "Precision"]
    assert lists[0].text(DESCRIPTION) == "Speed of playback"


def test_numbers_can_be_heard(qtbot, start):
    window = start("clip")
    labels = {interface.object(): interface for interface in interfaces(window)}
    qtbot.waitUntil(lambda: window.performance._values["network"].text() not in ("-", "0"), timeout=WAIT_MS)
    for value in window.performance._values.values():
        assert labels[value].text(NAME) == value.text()
        assert labels[value].text(DESCRIPTION)
    assert "64 x 32" in labels[window.engine.status].text(NAME)


def test_a_message_is_read_out(window, monkeypatch):
    told = []
    monkeypatch.setattr("app.banner.QAccessible.updateAccessibility", told.append)
    window.banner.say("Saved")
    assert [event.type() for event in told] == [QAccessible.Event.Alert]
    assert QAccessible.queryAccessibleInterface(window.banner).text(NAME) == "Saved"


def tab_order(window: Window, first: QWidget) -> list[QWidget]:
    """What Tab goes through."""
    first.setFocus()
    order = [first]
    while window.focusNextChild() and QApplication.focusWidget() not in order:
        order.append(QApplication.focusWidget())
    return order


def test_it_begins_at_what_to_open(window):
    window.activateWindow()
    assert QApplication.focusWidget() is window.start.cards[0]


def test_tab_goes_through_the_window_from_top_to_bottom(start):
    window = start("clip")
    window.activateWindow()
    order = tab_order(window, window.bar.back)
    parts = [window.bar, window.video, window.transport, window.classes, window.engine]
    seen = [next(part for part in parts if part is widget or part.isAncestorOf(widget)) for widget in order]
    assert list(dict.fromkeys(seen)) == parts
    assert seen == sorted(seen, key=parts.index)
    assert window.engine.smooth in order
    for part in (window.bar, window.transport):
        rows = [widget.mapTo(window, widget.rect().center()).x() for widget in order if part.isAncestorOf(widget)]
        assert rows == sorted(rows)


def test_the_focus_can_be_seen_wherever_it_is(qtbot, state):
    state.player.toggle()
    qtbot.wait(50)
    first = state.bar.findChildren(QWidget, options=Qt.FindChildOption.FindDirectChildrenOnly)[-1]
    for widget in tab_order(state, first):
        widget.setFocus(Qt.FocusReason.TabFocusReason)
        focused = widget.grab().toImage()
        widget.clearFocus()
        assert widget.grab().toImage() != focused, (widget, widget.accessibleName())


def test_the_position_can_be_moved_with_keys(qtbot, start):
    window = start("clip")
    window.player.toggle()
    slider = window.transport.slider
    for key, seconds in ((Qt.Key.Key_Home, 0.0), (Qt.Key.Key_Right, 1.0), (Qt.Key.Key_PageUp, 11.0)):
        QTest.keyClick(slider, key)
        qtbot.waitUntil(lambda seconds=seconds: window.player.position_s == pytest.approx(seconds), timeout=WAIT_MS)


@pytest.mark.parametrize("key", [Qt.Key.Key_Space, Qt.Key.Key_Return])
def test_a_class_is_drawn_or_not_with_keys(start, key):
    window = start("clip")
    QTest.keyClick(window.classes.list, Qt.Key.Key_Down)
    QTest.keyClick(window.classes.list, key)
    assert window.classes.list.currentIndex().row() not in window.classes.model.only
    QTest.keyClick(window.classes.list, key)
    assert window.classes.model.only is None


@pytest.mark.parametrize("width", [1000, 1280, 1920])
def test_panels_leave_room_for_the_picture(start, settings, width):
    window = start("clip")
    settings.font_scale = 2.0
    window.appearance.apply()
    window.resize(width, 800)
    usual = 22 * window.fontMetrics().height()
    bar = window.sidebar.verticalScrollBar()
    assert window.sidebar.width() >= window.panels.minimumSizeHint().width() + bar.width() * bar.isVisible()
    assert window.sidebar.width() == usual if width == 1920 else window.sidebar.width() < usual
    settings.font_scale = 1.0
    window.appearance.apply()


@pytest.mark.parametrize(("size", "font_scale"), [((640, 480), 1.0), ((800, 480), 1.25)])
def test_a_small_screen_is_not_outgrown(window, start, settings, size, font_scale):
    """Those of vehicles have 800x480."""
    settings.font_scale = font_scale
    window.appearance.apply()
    window.resize(*size)
    assert (window.width(), window.height()) == size
    start("clip")
    QTest.qWait(50)
    assert (window.width(), window.height()) == size
    bar = window.bar
    assert (bar.choice.isVisible(), bar.segments.isVisible()) == (True, False)
    assert all(bar.rect().contains(part.geometry()) for part in bar.children() if getattr(part, "isVisible", bool)())
    assert window.panels.width() == window.sidebar.viewport().width(), "nothing in them is cut off"
    QTest.keyClick(bar.choice, Qt.Key.Key_Down)
    assert settings.mode == "mask"
    window.resize(1600, 800)
    assert (bar.choice.isVisible(), bar.segments.isVisible()) == (False, True)
    window.close()
    settings.font_scale = 1.0
    window.appearance.apply()


def test_a_long_name_is_cut_where_it_can_be_seen(window):
    window.bar.title.setText("a-very-long-name-of-a-street-at-night-" * 5)
    image = window.bar.title.grab().toImage()
    window.bar.title.setText(window.bar.title.text() + "and-more")
    assert window.bar.title.grab().toImage() == image
    window.bar.title.setText("street")
    assert window.bar.title.grab().toImage() != image
