"""A strip over the picture that says something, while all goes on."""

from collections.abc import Callable

from PySide6.QtCore import QTimer
from PySide6.QtGui import QAccessible, QAccessibleEvent
from PySide6.QtWidgets import QFrame, QHBoxLayout, QLabel, QPushButton, QToolButton, QWidget

from app.icons import icon

_SHOWN_MS = 12_000


class Banner(QFrame):
    """Shows one message at a time, the newest; it goes by itself unless it is to stay."""

    def __init__(self, parent: QWidget) -> None:
        super().__init__(parent)
        self.setObjectName("banner")
        self.label = QLabel()
        self.label.setWordWrap(True)
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

    def say(self, words: str, *, stays: bool = False, action: tuple[str, Callable[[], None]] | None = None) -> None:
        """Show a message.

        Args:
            words: the message.
            stays: until it is dismissed or another one comes.
            action: words of a button and what it does.
        """
        self.label.setText(words)
        self.setAccessibleName(words)
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

    def place(self) -> None:
        """Lie over the upper edge of what is beneath."""
        parent = self.parentWidget()
        if parent is None:
            return
        margin = self.fontMetrics().height() // 2
        width = min(parent.width() - 2 * margin, 46 * self.fontMetrics().averageCharWidth() * 2)
        height = max(self.sizeHint().height(), self.heightForWidth(width))
        self.setGeometry((parent.width() - width) // 2, margin, width, height)
