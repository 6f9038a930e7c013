"""What is there when there is no picture: the start, waiting, and errors in words."""

import html
from collections.abc import Callable, Sequence

from PySide6.QtCore import QEvent, QRectF, QSize, Qt, QTimer, Signal
from PySide6.QtGui import QFontMetricsF, QPainter, QPaintEvent, QPalette, QPen, QResizeEvent
from PySide6.QtWidgets import (
    QGridLayout,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QScrollArea,
    QSizePolicy,
    QStyleOptionToolButton,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from app.elided_label import ElidedLabel
from app.icons import icon, paint_icon
from app.naming import breakable
from app.problems import Problem

_MAX_RECENT_SHOWN = 5
_CARD_SPACING = 12
_FEWEST_LINES = 8  # the least width of a recent source's name, in heights of a line


class StartPage(QScrollArea):
    """Ways to begin."""

    file_wanted = Signal()
    camera_wanted = Signal()
    address_wanted = Signal()
    demo_wanted = Signal()
    recent_chosen = Signal(str)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._page = page = _page(self)
        title = QLabel("See the street as the network does")
        title.setProperty("display", True)
        words = QLabel("Open a video or a camera, or drop a file here. Every pixel is labelled as it plays.")
        words.setProperty("quiet", True)
        for label in (title, words):
            label.setAlignment(Qt.AlignmentFlag.AlignHCenter)
            label.setWordWrap(True)
        self.cards = [
            _card("file", "Open file", "A video or a folder of images", self.file_wanted.emit),
            _card("camera", "Open camera", "Live, from this computer", self.camera_wanted.emit),
            _card("network", "Open URL", "Live, from the network", self.address_wanted.emit),
            _card("street", "Play the demo", "A street that is drawn", self.demo_wanted.emit),
        ]
        self._grid = QGridLayout()
        self._grid.setSpacing(_CARD_SPACING)
        self._columns = 0
        self._arrange()
        self.setFocusProxy(self.cards[0])
        self._recent = QVBoxLayout()
        choices = QVBoxLayout()
        choices.addLayout(self._grid)
        choices.addSpacing(16)
        choices.addLayout(self._recent)
        page.addStretch(2)
        page.addWidget(title)
        page.addWidget(words)
        page.addSpacing(20)
        page.addLayout(_centered(choices))
        page.addStretch(3)

    def _arrange(self) -> None:
        """Put the cards side by side, or below one another where there is no room for two."""
        margins = self._page.contentsMargins()
        room = self.width() - self.verticalScrollBar().sizeHint().width() - margins.left() - margins.right()
        needed = 2 * max(card.minimumSizeHint().width() for card in self.cards) + _CARD_SPACING
        columns = 2 if room >= needed else 1
        if columns != self._columns:
            self._columns = columns
            for number, card in enumerate(self.cards):
                self._grid.removeWidget(card)
                self._grid.addWidget(card, number // columns, number % columns)

    def resizeEvent(self, event: QResizeEvent) -> None:
        """Arrange anew."""
        super().resizeEvent(event)
        self._arrange()

    def event(self, event: QEvent) -> bool:
        """Arrange anew when the words have another size."""
        if event.type() is QEvent.Type.LayoutRequest:
            self._arrange()
        return super().event(event)

    def show_recent(self, specs: Sequence[str]) -> None:
        """List what was opened last."""
        while item := self._recent.takeAt(0):
            if widget := item.widget():
                widget.deleteLater()
        shown = list(specs)[:_MAX_RECENT_SHOWN]
        if shown:
            heading = QLabel("Recent")
            heading.setProperty("quiet", True)
            self._recent.addWidget(heading)
        for spec in shown:
            button = _RecentButton()
            button.setText(spec.replace("&", "&&"))  # a single one marks a key
            button.setToolTip(html.escape(spec) if "<" in spec else spec)
            button.setAccessibleName(f"Open {spec} again")
            kind = "camera" if spec.startswith("camera:") else "street" if spec == "demo" else "file"
            button.setIcon(icon(kind, QPalette.ColorRole.Mid))
            button.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextBesideIcon)
            button.clicked.connect(lambda _=False, spec=spec: self.recent_chosen.emit(spec))
            button.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
            self._recent.addWidget(button, 0, Qt.AlignmentFlag.AlignLeft)


class _RecentButton(QToolButton):
    """A name of which as much of the end is shown as there is room for."""

    _shown = ""

    def minimumSizeHint(self) -> QSize:
        """Ask for a few letters."""
        return QSize(_FEWEST_LINES * self.fontMetrics().height(), super().minimumSizeHint().height())

    def resizeEvent(self, event: QResizeEvent) -> None:
        """Cut the name."""
        metrics, flags = self.fontMetrics(), Qt.TextFlag.TextShowMnemonic
        beside = self.sizeHint().width() - metrics.size(flags, self.text()).width()
        room = self.width() - beside
        self._shown = metrics.elidedText(self.text(), Qt.TextElideMode.ElideLeft, room, flags)

    def initStyleOption(self, option: QStyleOptionToolButton) -> None:
        """Draw what was left of it."""
        super().initStyleOption(option)
        option.text = self._shown


class WaitPage(QWidget):
    """Something is being opened."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.label = ElidedLabel(Qt.AlignmentFlag.AlignHCenter)
        self.label.setProperty("quiet", True)
        layout = QVBoxLayout(self)
        layout.addStretch(1)
        layout.addWidget(_Spinner(), 0, Qt.AlignmentFlag.AlignHCenter)
        layout.addWidget(self.label)
        layout.addStretch(1)

    def show_words(self, words: str) -> None:
        """Say what is being waited for."""
        self.label.setText(words)


class ProblemPage(QScrollArea):
    """What went wrong and what to do."""

    retry_wanted = Signal()
    start_wanted = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        page = _page(self)
        self.title, self.text, self.advice = QLabel(), QLabel(), QLabel()
        self.title.setProperty("display", True)
        self.text.setProperty("quiet", True)
        picture = IconLabel("alert", QPalette.ColorRole.Highlight, lines=4)
        for label in (self.title, self.text, self.advice):
            label.setAlignment(Qt.AlignmentFlag.AlignHCenter)
            label.setWordWrap(True)
            label.setTextFormat(Qt.TextFormat.PlainText)  # a name may look like markup
            label.setTextInteractionFlags(
                Qt.TextInteractionFlag.TextSelectableByMouse | Qt.TextInteractionFlag.TextSelectableByKeyboard
            )
        self.retry = QPushButton("Try again")
        self.retry.setProperty("primary", True)
        self.back = QPushButton("Open something else")
        self.retry.clicked.connect(self.retry_wanted)
        self.back.clicked.connect(self.start_wanted)
        buttons = QHBoxLayout()
        buttons.addStretch(1)
        buttons.addWidget(self.retry)
        buttons.addWidget(self.back)
        buttons.addStretch(1)
        page.addStretch(2)
        page.setSpacing(10)
        page.addWidget(picture, 0, Qt.AlignmentFlag.AlignHCenter)
        for label in (self.title, self.text, self.advice):
            page.addWidget(label)
        page.addSpacing(16)
        page.addLayout(buttons)
        page.addStretch(3)

    def show_problem(self, problem: Problem) -> None:
        """Say it."""
        for label, words in ((self.title, problem.title), (self.text, problem.text), (self.advice, problem.advice)):
            label.setText(breakable(words))
        self.setAccessibleName(f"{problem.title}. {problem.text} {problem.advice}")
        self.retry.setFocus()


class _Card(QPushButton):
    """A large button that asks for as much room as what is in it."""

    def minimumSizeHint(self) -> QSize:
        """Ask for it."""
        layout = self.layout()
        return layout.minimumSize() if layout else super().minimumSizeHint()


class IconLabel(QWidget):
    """An icon that is so many lines of words high.

    Args:
        name: see `app.icons`.
        role: the palette's colour to draw in.
        lines: height.
    """

    def __init__(self, name: str, role: QPalette.ColorRole, *, lines: int) -> None:
        super().__init__()
        self._name = name
        self._role = role
        self._lines = lines
        self.setSizePolicy(QSizePolicy.Policy.Fixed, QSizePolicy.Policy.Fixed)

    def sizeHint(self) -> QSize:
        """Ask for a square."""
        side = round(self._lines * QFontMetricsF(self.font()).height())
        return QSize(side, side)

    def paintEvent(self, event: QPaintEvent) -> None:
        """Draw the icon."""
        painter = QPainter(self)
        paint_icon(painter, self._name, QRectF(self.rect()), QPen(self.palette().color(self._role)))


class _Spinner(QWidget):
    """Turns while it is seen."""

    def __init__(self) -> None:
        super().__init__()
        self._angle = 0
        self._timer = QTimer(self)
        self._timer.setInterval(33)
        self._timer.timeout.connect(self._turn)
        self.setSizePolicy(QSizePolicy.Policy.Fixed, QSizePolicy.Policy.Fixed)

    def sizeHint(self) -> QSize:
        side = round(3 * QFontMetricsF(self.font()).height())
        return QSize(side, side)

    def showEvent(self, event: object) -> None:
        self._timer.start()

    def hideEvent(self, event: object) -> None:
        self._timer.stop()

    def _turn(self) -> None:
        self._angle = (self._angle + 10) % 360
        self.update()

    def paintEvent(self, event: QPaintEvent) -> None:
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        width = self.width() / 14
        box = QRectF(self.rect()).adjusted(width, width, -width, -width)
        painter.setPen(QPen(self.palette().color(QPalette.ColorRole.Midlight), width))
        painter.drawEllipse(box)
        accent = self.palette().color(QPalette.ColorRole.Highlight)
        painter.setPen(QPen(accent, width, Qt.PenStyle.SolidLine, Qt.PenCapStyle.RoundCap))
        painter.drawArc(box, -self._angle * 16, 80 * 16)


def _page(area: QScrollArea) -> QVBoxLayout:
    inner = QWidget()
    area.setWidget(inner)
    area.setWidgetResizable(True)
    area.setFocusPolicy(Qt.FocusPolicy.NoFocus)  # its buttons can have the focus
    area.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
    return QVBoxLayout(inner)


def _centered(inner: QGridLayout | QVBoxLayout) -> QHBoxLayout:
    row = QHBoxLayout()
    row.addStretch(2)
    row.addLayout(inner, 3)
    row.addStretch(2)
    return row


def _card(name: str, title: str, words: str, action: Callable[[], None]) -> QPushButton:
    """A large button with an icon and two lines of words."""
    card = _Card()
    card.setObjectName("card")
    card.setAccessibleName(title)
    card.setAccessibleDescription(words)
    card.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
    picture = IconLabel(name, QPalette.ColorRole.Highlight, lines=2)
    heading, quiet = QLabel(title), QLabel(words)
    heading.setProperty("heading", True)
    quiet.setProperty("quiet", True)
    lines = QVBoxLayout()
    lines.setSpacing(2)
    for label in (heading, quiet):
        lines.addWidget(label)
    layout = QHBoxLayout(card)
    layout.setContentsMargins(20, 18, 20, 18)
    layout.setSpacing(16)
    layout.addWidget(picture)
    layout.addLayout(lines, 1)
    parts: tuple[QWidget, ...] = (picture, heading, quiet)
    for part in parts:
        part.setAttribute(Qt.WidgetAttribute.WA_TransparentForMouseEvents)
    layout.setSizeConstraint(QHBoxLayout.SizeConstraint.SetMinimumSize)
    card.clicked.connect(action)
    return card
