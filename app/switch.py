"""A check box that looks like a switch, and follows theme and size of words."""

from PySide6.QtCore import QPointF, QRectF, QSize, Qt
from PySide6.QtGui import QPainter, QPaintEvent, QPalette, QPen
from PySide6.QtWidgets import QCheckBox


class Switch(QCheckBox):
    """On or off; the words beside it are a label's.

    Args:
        name: for screen readers.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        self.setAccessibleName(name)
        self.setFocusPolicy(Qt.FocusPolicy.TabFocus)

    def sizeHint(self) -> QSize:
        """Ask for the height of a line."""
        height = self.fontMetrics().height() + 4
        return QSize(round(1.9 * height), height)

    def hitButton(self, place: object) -> bool:
        """Take clicks anywhere."""
        return True

    def paintEvent(self, event: QPaintEvent) -> None:
        """Draw a groove with a knob at its left or right end, and a ring while it has the focus."""
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        palette, roles = self.palette(), QPalette.ColorRole
        hint = self.sizeHint()
        groove = QRectF(1.5, (self.height() - hint.height()) / 2 + 1.5, hint.width() - 3, hint.height() - 3)
        radius = groove.height() / 2
        on = self.isChecked() and self.isEnabled()
        ring = roles.WindowText if self.hasFocus() else roles.Highlight if on else roles.Mid
        painter.setPen(QPen(palette.color(ring), 1.5))
        painter.setBrush(palette.color(roles.Highlight if on else roles.Button))
        painter.drawRoundedRect(groove, radius, radius)
        x = groove.right() - radius if self.isChecked() else groove.left() + radius
        painter.setPen(Qt.PenStyle.NoPen)
        painter.setBrush(palette.color(roles.HighlightedText if on else roles.Mid))
        painter.drawEllipse(QPointF(x, groove.center().y()), radius * 0.62, radius * 0.62)
