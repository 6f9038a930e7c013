"""A combo box whose arrow follows theme and size of words."""

from PySide6.QtCore import QRectF
from PySide6.QtGui import QKeyEvent, QPainter, QPaintEvent, QPalette, QPen, QWheelEvent
from PySide6.QtWidgets import QComboBox

from app.icons import paint_icon


class Choice(QComboBox):
    """A combo box; the wheel over it scrolls the panel that it is on instead of changing it unseen.

    Args:
        name: for screen readers.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        self.setAccessibleName(name)
        self.setToolTip(name)

    def paintEvent(self, event: QPaintEvent) -> None:
        """Add the arrow."""
        super().paintEvent(event)
        side = self.fontMetrics().height()
        place = QRectF(self.width() - 1.5 * side, (self.height() - side) / 2, side, side)
        role = QPalette.ColorRole.Mid if self.isEnabled() else QPalette.ColorRole.Midlight
        paint_icon(QPainter(self), "chevron", place, QPen(self.palette().color(role)))

    def keyPressEvent(self, event: QKeyEvent) -> None:
        """Leave letters to the window: many are commands, and looking for entries by them would choose one."""
        if event.text().strip() and event.text().isprintable():
            event.ignore()
        else:
            super().keyPressEvent(event)

    def wheelEvent(self, event: QWheelEvent) -> None:
        """Leave it to the panel."""
        event.ignore()
