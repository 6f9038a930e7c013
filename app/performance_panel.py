"""How fast it is: rates, latency, and a graph of the last minute."""

from collections import deque
from typing import TYPE_CHECKING

from PySide6.QtCore import QPointF, QRectF, QSize, Qt
from PySide6.QtGui import QColor, QFontMetricsF, QPainter, QPaintEvent, QPalette, QPen
from PySide6.QtWidgets import QGridLayout, QLabel, QSizePolicy, QVBoxLayout, QWidget

if TYPE_CHECKING:  # it imports PyTorch by its package
    from bsdnet.stream.stats import StreamStats

SAMPLES_PER_S = 4
MINUTE = 60 * SAMPLES_PER_S
_ROUND_TOPS = (10, 15, 30, 60, 120, 240, 480, 1000, 2000, 4000)


class RateGraph(QWidget):
    """Frames a second over the last minute: what the network does as a line, what is shown as an area."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setAccessibleName("Frames a second over the last minute")
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self._network: deque[float] = deque(maxlen=MINUTE)
        self._display: deque[float] = deque(maxlen=MINUTE)

    def add(self, network_fps: float, display_fps: float) -> None:
        """Take the rates of this moment; called `SAMPLES_PER_S` times a second."""
        self._network.append(network_fps)
        self._display.append(display_fps)
        self.update()

    def clear(self) -> None:
        """Begin anew."""
        self._network.clear()
        self._display.clear()
        self.update()

    def sizeHint(self) -> QSize:
        """Ask for a height that grows with the font."""
        return QSize(200, round(6 * QFontMetricsF(self.font()).height()))

    def paintEvent(self, event: QPaintEvent) -> None:
        """Draw both rates on one scale."""
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        palette = self.palette()
        metrics = QFontMetricsF(self.font())
        box = QRectF(self.rect()).adjusted(0, metrics.height() / 2, 0, -metrics.height() * 1.3)
        top = graph_top(max((*self._network, *self._display), default=0.0))
        painter.setPen(QPen(palette.color(QPalette.ColorRole.Midlight), 1))
        for share in (0.0, 0.5, 1.0):
            y = round(box.bottom() - share * box.height()) + 0.5
            painter.drawLine(QPointF(box.left(), y), QPointF(box.right(), y))
        quiet = palette.color(QPalette.ColorRole.Mid)
        accent = palette.color(QPalette.ColorRole.Highlight)
        display = self._points(self._display, box, top)
        if len(display) > 1:
            shade = QColor(accent)
            shade.setAlphaF(0.18)
            painter.setPen(Qt.PenStyle.NoPen)
            painter.setBrush(shade)
            first, last = display[0], display[-1]
            painter.drawPolygon([QPointF(first.x(), box.bottom()), *display, QPointF(last.x(), box.bottom())])
            painter.setBrush(Qt.BrushStyle.NoBrush)
            painter.setPen(QPen(accent, 1.6))
            painter.drawPolyline(display)
            painter.setPen(QPen(quiet, 1.3, Qt.PenStyle.DotLine))
            painter.drawPolyline(self._points(self._network, box, top))
        painter.setPen(quiet)
        words = QRectF(0, box.bottom(), self.width(), metrics.height() * 1.3)
        bottom = Qt.AlignmentFlag.AlignBottom
        painter.drawText(words, bottom | Qt.AlignmentFlag.AlignLeft, "1 min")
        painter.drawText(words, bottom | Qt.AlignmentFlag.AlignHCenter, "—  shown    ···  network")
        painter.drawText(words, bottom | Qt.AlignmentFlag.AlignRight, "now")
        painter.drawText(QPointF(0, box.top() + metrics.ascent()), f"{top:g} fps")

    def _points(self, rates: deque[float], box: QRectF, top: float) -> list[QPointF]:
        step = box.width() / (MINUTE - 1)
        left = box.right() - step * (len(rates) - 1)
        return [QPointF(left + i * step, box.bottom() - rate / top * box.height()) for i, rate in enumerate(rates)]


class PerformancePanel(QWidget):
    """Numbers above the graph."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("section")
        self.setAttribute(Qt.WidgetAttribute.WA_StyledBackground)
        heading = QLabel("Performance")
        heading.setProperty("heading", True)
        self._values: dict[str, QLabel] = {}
        grid = QGridLayout()
        names = (
            ("shown", "Shown fps", "New frames painted in a second"),
            ("network", "Network fps", "Frames that the network labels in a second"),
            ("source", "Source fps", "Frames read in a second"),
            ("p50", "Delay p50", "Half of all frames are labelled this soon after they were read"),
            ("p95", "Delay p95", "95 of 100 frames are labelled this soon after they were read"),
            ("dropped", "Dropped", "Frames of a live source that were overtaken; files drop none"),
        )
        for number, (key, words, meaning) in enumerate(names):
            value, name = QLabel("-"), QLabel(words)
            value.setProperty("metric", True)
            name.setProperty("quiet", True)
            name.setContentsMargins(0, 0, 0, 6)
            for label in (value, name):
                label.setToolTip(meaning)
            row, column = divmod(number, 3)
            grid.addWidget(value, 2 * row, column)
            grid.addWidget(name, 2 * row + 1, column)
            grid.setColumnStretch(column, 1)
            self._values[key] = value
        grid.setVerticalSpacing(0)
        self.graph = RateGraph()
        layout = QVBoxLayout(self)
        layout.addWidget(heading)
        layout.addLayout(grid)
        layout.addWidget(self.graph)

    def show_stats(self, stats: "StreamStats | None", display_fps: float) -> None:
        """Show the numbers of this moment; None if there is no stream."""
        if stats is None:
            for value in self._values.values():
                value.setText("-")
            return
        total = stats.latency["total"]
        texts = {
            "shown": f"{display_fps:.0f}",
            "network": f"{stats.fps_infer:.0f}",
            "source": f"{stats.fps_in:.0f}",
            "p50": f"{total.p50_ms:.0f} ms",
            "p95": f"{total.p95_ms:.0f} ms",
            "dropped": f"{stats.dropped + stats.lost}",
        }
        for key, text in texts.items():
            self._values[key].setText(text)
        self.graph.add(stats.fps_infer, display_fps)


def graph_top(highest: float) -> float:
    """Choose a round top for the scale, so that it does not change with every frame."""
    return next((float(top) for top in _ROUND_TOPS if highest <= top), highest)
