"""Words on the picture: dark, rounded and readable on whatever is behind them, in either theme."""

from PySide6.QtCore import QPointF, QRect, QRectF, Qt
from PySide6.QtGui import QColor, QFontMetricsF, QPainter

_PANEL = QColor(14, 17, 22, 205)
_TEXT = QColor(240, 243, 247)
_QUIET = QColor(176, 186, 197)


def paint_caption(painter: QPainter, text: str, corner: QPointF, *, right: bool) -> None:
    """Write what a part of the picture is into a lower corner.

    Args:
        painter: of the widget.
        text: the words.
        corner: the corner of the widget.
        right: whether it is the right one.
    """
    metrics = QFontMetricsF(painter.font())
    unit = metrics.height() / 2
    width, height = metrics.horizontalAdvance(text) + 2 * unit, metrics.height() + unit
    left = corner.x() - width - unit if right else corner.x() + unit
    box = QRectF(left, corner.y() - height - unit, width, height)
    _panel(painter, box)
    painter.setPen(_TEXT)
    painter.drawText(box, Qt.AlignmentFlag.AlignCenter, text)


def paint_hover(painter: QPainter, inside: QRect, cursor: QPointF, color: QColor | None, name: str, share: str) -> None:
    """Name a class beside the cursor, within the widget.

    Args:
        painter: of the widget.
        inside: the widget's rectangle.
        cursor: where the cursor is.
        color: the class's colour; None for none.
        name: the class's name.
        share: the confidence in words; empty if unknown.
    """
    metrics = QFontMetricsF(painter.font())
    unit = metrics.height() / 2
    swatch = unit * 1.4
    name_width = metrics.horizontalAdvance(name)
    share_width = metrics.horizontalAdvance(share) + unit if share else 0.0
    width, height = swatch + name_width + share_width + 3 * unit, metrics.height() + unit
    left = cursor.x() + 2 * unit if cursor.x() + 2 * unit + width < inside.width() else cursor.x() - unit - width
    top = cursor.y() + unit if cursor.y() + unit + height < inside.height() else cursor.y() - unit - height
    box = QRectF(left, top, width, height)
    _panel(painter, box)
    if color is not None:
        painter.setBrush(color)
        painter.setPen(QColor(255, 255, 255, 90))
        side = QRectF(left + unit, box.center().y() - swatch / 2, swatch, swatch)
        painter.drawRoundedRect(side, unit / 3, unit / 3)
    painter.setPen(_TEXT)
    words = box.adjusted(2 * unit + swatch, 0, 0, 0)
    middle = Qt.AlignmentFlag.AlignVCenter
    painter.drawText(words, middle, name)
    painter.setPen(_QUIET)
    painter.drawText(words.adjusted(name_width + unit, 0, 0, 0), middle, share)


def _panel(painter: QPainter, box: QRectF) -> None:
    painter.setRenderHint(QPainter.RenderHint.Antialiasing)
    painter.setPen(Qt.PenStyle.NoPen)
    painter.setBrush(_PANEL)
    painter.drawRoundedRect(box, box.height() / 4, box.height() / 4)
