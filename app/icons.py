"""Icons, drawn as strokes on a grid of 24 by 24, in the colour of the words around them at any size."""

from collections.abc import Callable, Sequence

from PySide6.QtCore import QPointF, QRect, QRectF, QSize, Qt
from PySide6.QtGui import QIcon, QIconEngine, QPainter, QPainterPath, QPalette, QPen, QPixmap
from PySide6.QtWidgets import QApplication

Points = Sequence[tuple[float, float]]


def _lines(*polylines: Points, closed: bool = False) -> QPainterPath:
    path = QPainterPath()
    for points in polylines:
        path.moveTo(*points[0])
        for point in points[1:]:
            path.lineTo(*point)
        if closed:
            path.closeSubpath()
    return path


def _circle(x: float, y: float, radius: float) -> QPainterPath:
    path = QPainterPath()
    path.addEllipse(QPointF(x, y), radius, radius)
    return path


def _box(x: float, y: float, width: float, height: float, radius: float = 2) -> QPainterPath:
    path = QPainterPath()
    path.addRoundedRect(QRectF(x, y, width, height), radius, radius)
    return path


def _join(*paths: QPainterPath) -> QPainterPath:
    joined = QPainterPath()
    for path in paths:
        joined.addPath(path)
    return joined


def _loop() -> QPainterPath:
    path = QPainterPath()
    path.arcMoveTo(QRectF(5, 5, 14, 14), 60)
    path.arcTo(QRectF(5, 5, 14, 14), 60, 290)
    return _join(path, _lines([(12.5, 3.5), (15.7, 5.8), (13.3, 9)]))


_FILLED = ("play", "pause", "stop", "record")

_PATHS: dict[str, Callable[[], QPainterPath]] = {
    "play": lambda: _lines([(8, 5), (19, 12), (8, 19)], closed=True),
    "pause": lambda: _join(_box(6.5, 5, 4, 14, 1), _box(13.5, 5, 4, 14, 1)),
    "stop": lambda: _box(6.5, 6.5, 11, 11, 1.5),
    "record": lambda: _circle(12, 12, 6),
    "step": lambda: _join(_lines([(7, 6), (15, 12), (7, 18)], closed=True), _lines([(18, 6), (18, 18)])),
    "start": lambda: _join(_lines([(17, 6), (9, 12), (17, 18)], closed=True), _lines([(6, 6), (6, 18)])),
    "loop": _loop,
    "file": lambda: _join(_box(3.5, 6, 17, 12.5), _lines([(10, 9.5), (14.8, 12.2), (10, 15)], closed=True)),
    "camera": lambda: _join(_box(3, 7, 12.5, 10.5), _lines([(15.5, 11.2), (21, 8), (21, 16.5), (15.5, 13.5)])),
    "network": lambda: _join(
        _circle(12, 12, 8.5),
        _lines([(3.5, 12), (20.5, 12)]),
        _ellipse(12, 12, 3.8, 8.5),
    ),
    "street": lambda: _lines(
        [(8.5, 4), (3.5, 20)], [(15.5, 4), (20.5, 20)], [(12, 4.5), (12, 7)], [(12, 10), (12, 13)], [(12, 16), (12, 20)]
    ),
    "photo": lambda: _join(
        _box(3, 7, 18, 12.5), _circle(12, 13.2, 3.4), _lines([(8.5, 7), (10, 4.5), (14, 4.5), (15.5, 7)])
    ),
    "copy": lambda: _join(
        _box(8.5, 8.5, 11, 11), _lines([(5.5, 15.5), (4.5, 15.5), (4.5, 4.5), (15.5, 4.5), (15.5, 5.5)])
    ),
    "folder": lambda: _lines([(3.5, 18.5), (3.5, 5.5), (9.5, 5.5), (11.5, 8), (20.5, 8), (20.5, 18.5)], closed=True),
    "sidebar": lambda: _join(_box(3.5, 5, 17, 14), _lines([(14.5, 5), (14.5, 19)])),
    "theme": lambda: _join(
        _circle(12, 12, 7.5), _lines([(12, 4.5), (12, 19.5)], [(15, 6), (15, 18)], [(18, 8), (18, 16)])
    ),
    "help": lambda: _join(_circle(12, 12, 8.5), _question(), _lines([(12, 16.4), (12, 16.8)])),
    "fit": lambda: _lines(
        [(4, 9), (4, 4), (9, 4)],
        [(15, 4), (20, 4), (20, 9)],
        [(20, 15), (20, 20), (15, 20)],
        [(9, 20), (4, 20), (4, 15)],
    ),
    "back": lambda: _lines([(11, 6), (5, 12), (11, 18)], [(5, 12), (19.5, 12)]),
    "close": lambda: _lines([(6.5, 6.5), (17.5, 17.5)], [(17.5, 6.5), (6.5, 17.5)]),
    "alert": lambda: _join(
        _lines([(12, 4), (21, 19.5), (3, 19.5)], closed=True), _lines([(12, 10), (12, 14)], [(12, 16.6), (12, 17)])
    ),
    "chevron": lambda: _lines([(7, 10), (12, 15), (17, 10)]),
}


def _ellipse(x: float, y: float, across: float, down: float) -> QPainterPath:
    path = QPainterPath()
    path.addEllipse(QPointF(x, y), across, down)
    return path


def _question() -> QPainterPath:
    path = QPainterPath()
    path.moveTo(9.6, 9.6)
    path.cubicTo(9.6, 6.4, 14.6, 6.4, 14.5, 9.8)
    path.cubicTo(14.4, 11.8, 12, 11.8, 12, 13.9)
    return path


NAMES = tuple(_PATHS)
"""All icons."""


def paint_icon(painter: QPainter, name: str, rect: QRectF, pen: QPen) -> None:
    """Draw an icon into a rectangle in the pen's colour."""
    side = min(rect.width(), rect.height())
    painter.save()
    painter.setRenderHint(QPainter.RenderHint.Antialiasing)
    painter.translate(rect.center().x() - side / 2, rect.center().y() - side / 2)
    painter.scale(side / 24, side / 24)
    stroke = QPen(pen.color(), 1.7, Qt.PenStyle.SolidLine, Qt.PenCapStyle.RoundCap, Qt.PenJoinStyle.RoundJoin)
    painter.setPen(stroke)
    if name in _FILLED:
        painter.setBrush(pen.color())
    painter.drawPath(_PATHS[name]())
    painter.restore()


class _Engine(QIconEngine):
    """Draws when asked, so that icons are sharp on every screen and follow the theme."""

    def __init__(self, name: str, role: QPalette.ColorRole | None) -> None:
        super().__init__()
        self._name = name
        self._role = role

    def paint(self, painter: QPainter, rect: QRect, mode: QIcon.Mode, state: QIcon.State) -> None:
        """Draw in the palette's colours."""
        palette = QApplication.palette()
        role = self._role or QPalette.ColorRole.ButtonText
        if self._role is None and state == QIcon.State.On:
            role = QPalette.ColorRole.Highlight
        if mode == QIcon.Mode.Disabled:
            role = QPalette.ColorRole.Midlight
        paint_icon(painter, self._name, QRectF(rect), QPen(palette.color(role)))

    def pixmap(self, size: QSize, mode: QIcon.Mode, state: QIcon.State) -> QPixmap:
        """Draw onto a clear pixmap."""
        pixmap = QPixmap(size)
        pixmap.fill(Qt.GlobalColor.transparent)
        if pixmap.isNull():  # of a button that has no room for it
            return pixmap
        painter = QPainter(pixmap)
        self.paint(painter, QRect(0, 0, size.width(), size.height()), mode, state)
        painter.end()
        return pixmap

    def clone(self) -> QIconEngine:
        """Make the same engine anew."""
        return _Engine(self._name, self._role)


def icon(name: str, role: QPalette.ColorRole | None = None) -> QIcon:
    """Make an icon.

    Args:
        name: one of `NAMES`.
        role: the palette's colour to draw in; None for that of buttons, and the accent while checked.
    """
    return QIcon(_Engine(name, role))
