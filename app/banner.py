"""A strip over the picture that says something, while all goes on."""

from collections.abc import Callable

from PySide6.QtCore import QEvent, QObject, Qt, QTimer
from PySide6.QtGui import QAccessible, QAccessibleEvent
from PySide6.QtWidgets import QFrame, QHBoxLayout, QLabel, QPushButton, QToolButton, QWidget

from app.icons import icon
from app.naming import breakable

_SHOWN_MS = 12_000


class Banner(QFrame):
    """Shows one message at a time, the newest; it goes by itself unless it is to stay.

    Args:
        parent: what it lies over; it follows its size.
    """

    def __init__(self, parent: QWidget) -> None:
        super().__init__(parent)
        parent.installEventFilter(self)
        self._number = 0  # of the newest message
        self.setObjectName("banner")
        self.label = QLabel()
        self.label.setWordWrap(True)
        self.label.setTextFormat(Qt.TextFormat.PlainText)  # a name may look like markup
        self.button = QPushButton()
        self.dismiss = QToolButton()
        self.dismiss.setIcon(icon("close"))
        self.dismiss.setAccessibleName("Dismiss this message")
        self._action: Callable[[], None] = self.hide
        self.button.clicked.connect(lambda: self._action())
        self.dismiss.clicked.connect(self.hide)
        layout = QHBoxLayout(self)
        layout.addWidget(self.label, 1)
        layout.addWidget(self.button)
        layout.addWidget(self.dismiss)
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.timeout.connect(self.hide)
        self.hide()

    def say(self, words: str, *, stays: bool = False, action: tuple[str, Callable[[], None]] | None = None) -> int:
        """Show a message.

        Args:
            words: the message.
            stays: until it is dismissed or another one comes.
            action: words of a button and what it does.

        Returns:
            The message's number, for `change` and `withdraw`.
        """
        self._number += 1
        self._set_words(words)
        self.button.setVisible(action is not None)
        if action is not None:
            self.button.setText(action[0])
            self._action = action[1]
        self._timer.stop()
        if not stays:
            self._timer.start(_SHOWN_MS)
        self.show()
        self.place()
        self.raise_()
        QAccessible.updateAccessibility(QAccessibleEvent(self, QAccessible.Event.Alert))  # have it read out
        return self._number

    def change(self, number: int, words: str) -> None:
        """Give a message other words, which are not read out; nothing happens if it is not shown any more."""
        if number == self._number and self.isVisible():
            self._set_words(words)

    def withdraw(self, number: int) -> None:
        """Take a message away, unless another one has come."""
        if number == self._number:
            self.hide()

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        """Keep its place when what is beneath changes its size."""
        if event.type() is QEvent.Type.Resize:
            self.place()
        return super().eventFilter(watched, event)

    def _set_words(self, words: str) -> None:
        self.label.setText(breakable(words))
        self.setAccessibleName(words)

    def place(self) -> None:
        """Lie over the upper edge of what is beneath."""
        parent = self.parentWidget()
        if parent is None:
            return
        margin = self.fontMetrics().height() // 2
        width = min(parent.width() - 2 * margin, 46 * self.fontMetrics().averageCharWidth() * 2)
        height = max(self.sizeHint().height(), self.heightForWidth(width))
        self.setGeometry((parent.width() - width) // 2, margin, width, height)
