"""What stands in place of the picture or over it: nothing is cut off, and names are shown as they are."""

import pytest
from PySide6.QtCore import QPoint, QSize, Qt
from PySide6.QtWidgets import QApplication, QScrollArea, QToolButton, QWidget

from app.banner import Banner
from app.pages import ProblemPage, StartPage
from app.problems import Problem
from app.shortcuts import ShortcutSheet

LONG_PATH = "/data/recordings of the long drive & back/" + "through-the-old-town-" * 12 + "take-17.mp4"


def recent_buttons(page: StartPage) -> list[QToolButton]:
    return [button for button in page.findChildren(QToolButton) if button.accessibleName().endswith("again")]


@pytest.mark.parametrize(("width", "columns"), [(320, 1), (640, 2), (1280, 2)])
def test_everything_on_the_start_page_can_be_seen(qtbot, width, columns):
    page = StartPage()
    qtbot.addWidget(page)
    page.show_recent([LONG_PATH, "demo"])
    page.resize(width, 400)
    page.show()
    QApplication.processEvents()
    controls: list[QWidget] = [*page.cards, *recent_buttons(page)]
    for control in controls:
        left = control.mapTo(page.viewport(), QPoint(0, 0)).x()
        assert left >= 0
        assert left + control.width() <= page.viewport().width()
    lefts = {card.mapTo(page, QPoint(0, 0)).x() for card in page.cards}
    assert len(lefts) == columns
    assert min(lefts) == recent_buttons(page)[0].mapTo(page, QPoint(0, 0)).x(), "one below the other"


def test_the_end_of_a_long_name_is_shown(qtbot):
    page = StartPage()
    qtbot.addWidget(page)
    page.show_recent([LONG_PATH])
    page.resize(640, 400)
    page.show()
    QApplication.processEvents()
    shown = recent_buttons(page)[0]._shown
    assert shown.startswith("…")
    assert LONG_PATH.endswith(shown[1:])
    assert len(shown) > 20


@pytest.mark.parametrize(("name", "tip"), [("a<b>c.mp4", "a&lt;b&gt;c.mp4"), ("R&D.mp4", "R&D.mp4")])
def test_a_tip_shows_a_name_that_looks_like_markup_as_it_is(qtbot, name, tip):
    page = StartPage()
    qtbot.addWidget(page)
    page.show_recent([name])
    assert recent_buttons(page)[0].toolTip() == tip


def test_a_message_shows_names_as_they_are(qtbot):
    over = QWidget()
    qtbot.addWidget(over)
    over.resize(400, 300)
    banner = Banner(over)
    banner.say(f"Nothing is recorded: /data/<b>{'x' * 200}</b>: No space left on device.")
    assert banner.label.textFormat() is Qt.TextFormat.PlainText
    assert banner.sizeHint().width() < 1000
    assert banner.height() > 5 * banner.fontMetrics().height(), "the name goes on in the next line"


def test_a_long_name_is_not_cut_in_a_small_window(qtbot):
    page = ProblemPage()
    qtbot.addWidget(page)
    page.resize(384, 351)
    page.show_problem(Problem(title="There is no such file", text=f"There is no {'verylongname' * 12}.", advice=""))
    page.show()
    QApplication.processEvents()
    assert page.widget().width() <= page.viewport().width()


def test_the_sheet_of_keys_stays_on_the_screen(qtbot, window, monkeypatch):
    class SmallScreen:
        def availableSize(self) -> QSize:
            return QSize(800, 480)

    monkeypatch.setattr(ShortcutSheet, "screen", lambda sheet: SmallScreen(), raising=False)
    sheet = ShortcutSheet(window)
    sheet.show()
    QApplication.processEvents()
    assert sheet.width() <= 800
    assert sheet.height() <= 480
    bar = sheet.findChild(QScrollArea).horizontalScrollBar()
    assert bar.maximum() > 0
    assert bar.height() > 0, "what has no room is scrolled to"
