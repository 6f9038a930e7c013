"""The picture: painted from what the composer made, zoomed, moved and pointed at with the mouse."""

import time
from collections import deque
from dataclasses import replace

from PySide6.QtCore import QEvent, QPointF, QRect, QRectF, QSize, Qt, Signal
from PySide6.QtGui import (
    QColor,
    QEnterEvent,
    QFocusEvent,
    QMouseEvent,
    QNativeGestureEvent,
    QPainter,
    QPaintEvent,
    QPalette,
    QPen,
    QResizeEvent,
    QWheelEvent,
)
from PySide6.QtWidgets import QApplication, QSizePolicy, QWidget

from app.compose import Composed, Look
from app.picture_labels import paint_caption, paint_hover
from app.view_geometry import Scaling, ViewGeometry

_RATE_WINDOW_S = 1.5
_ZOOM_PER_NOTCH = 1.2
_NO_CLASS = "no class"


class VideoWidget(QWidget):
    """Shows one picture at a time; every input on it is answered without waiting for the next one."""

    view_changed = Signal(object, object)  # Look, ViewGeometry or None: what should be composed
    class_clicked = Signal(int)
    pointer_inside = Signal(bool)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setAccessibleName("Picture")
        self.setMouseTracking(True)
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.setAttribute(Qt.WidgetAttribute.WA_OpaquePaintEvent)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Expanding)
        self._look = Look()
        self._holding = False
        self._geometry: ViewGeometry | None = None
        self._composed: Composed | None = None
        self._painted: deque[float] = deque()  # when new frames were painted
        self._painted_number = -1
        self._mouse: QPointF | None = None
        self._pressed: QPointF | None = None
        self._dragging = False
        self._split = 0.5  # share of the widget's width
        self._faded = False
        self._ringed = False

    # What the window tells

    @property
    def look(self) -> Look:
        """How frames are shown at this moment."""
        return replace(self._look, mode="original") if self._holding else self._look

    @property
    def composed(self) -> Composed | None:
        """What is on the screen."""
        return self._composed

    @property
    def view(self) -> ViewGeometry | None:
        """Where the picture lies; None before the first one."""
        return self._geometry

    @property
    def display_fps(self) -> float:
        """New frames a second that were painted, over the last 1.5 s."""
        now = time.perf_counter()
        while self._painted and self._painted[0] < now - _RATE_WINDOW_S:
            self._painted.popleft()
        return len(self._painted) / _RATE_WINDOW_S

    def set_look(self, look: Look) -> None:
        """Show frames in another way from now on."""
        self._look = look
        self._tell()

    def hold_original(self, held: bool) -> None:
        """Show the frame as it came, for as long as a key is held."""
        self._holding = held
        self._tell()

    def set_faded(self, faded: bool) -> None:
        """Show that the picture is an old one."""
        self._faded = faded
        self.update()

    def set_composed(self, composed: Composed) -> None:
        """Show a picture."""
        self._composed = composed
        frame = composed.result.frame.size
        if self._geometry is None or self._geometry.frame != frame:
            self._geometry = ViewGeometry(frame=frame, widget=self._device_size())
            self._tell()
        if composed.tiles:
            self.update()

    def clear(self) -> None:
        """Show nothing."""
        self._composed = self._geometry = None
        self._painted.clear()
        self._faded = False
        self.update()

    def set_scaling(self, scaling: Scaling) -> None:
        """Fit, fill or show pixels one to one."""
        if self._geometry:
            self._place(replace(self._geometry, scaling=scaling, center=(0.5, 0.5)))

    def zoom_by(self, factor: float) -> None:
        """Zoom around the cursor, or the middle."""
        if self._geometry:
            at = self._device_point(self._mouse or QPointF(self.rect().center()))
            self._place(self._geometry.zoomed(factor, at.x(), at.y()))

    def pan_by(self, x: float, y: float) -> None:
        """Move what is seen by shares of the widget."""
        if self._geometry:
            height, width = self._geometry.widget
            self._place(self._geometry.panned(-x * width, -y * height))

    def move_split(self, by: float) -> None:
        """Move the split by a share of the widget's width, which shows where there is one."""
        self._put_split(self._split + by)
        self.update()

    def sizeHint(self) -> QSize:
        """Ask for a usual size."""
        return QSize(960, 540)

    def hovered(self) -> tuple[int, str, float | None] | None:
        """Tell what is under the cursor: class index, name and confidence (0 to 1; None if it is not computed)."""
        composed, mouse = self._composed, self._mouse
        if composed is None or mouse is None or self._geometry is None or self._dragging:
            return None
        at = self._device_point(mouse)
        pixel = self._geometry.pixel_at(at.x(), at.y())
        prediction = composed.result.prediction
        if pixel is None or prediction.labels is None or self._geometry.frame != composed.result.frame.size:
            return None
        index = int(prediction.labels[pixel])
        confidence = None if prediction.confidence is None else float(prediction.confidence[pixel]) / 255
        names = composed.classes.names
        return index, names[index] if index < len(names) else _NO_CLASS, confidence

    # Painting

    def paintEvent(self, event: QPaintEvent) -> None:
        """Copy the picture to the screen and draw the words over it."""
        painter = QPainter(self)
        painter.fillRect(self.rect(), self.palette().color(QPalette.ColorRole.Dark))
        composed, geometry = self._composed, self._geometry
        if composed is None or geometry is None or composed.geometry is None:
            return
        if geometry.widget != self._device_size():  # the window moved to a screen of another density
            self._place(replace(geometry, widget=self._device_size()))
        self._paint_tiles(painter, composed, geometry)
        if self._faded:
            shade = self.palette().color(QPalette.ColorRole.Dark)
            shade.setAlphaF(0.6)
            painter.fillRect(self.rect(), shade)
        self._paint_words(painter, composed)
        if self._ringed:
            painter.setPen(QPen(self.palette().color(QPalette.ColorRole.Highlight), 4))
            painter.setBrush(Qt.BrushStyle.NoBrush)
            painter.drawRect(self.rect())
        if composed.number != self._painted_number:
            self._painted_number = composed.number
            self._painted.append(time.perf_counter())

    def _paint_tiles(self, painter: QPainter, composed: Composed, geometry: ViewGeometry) -> None:
        made_for = composed.geometry
        if made_for is None:
            return
        shown = _shown_geometry(geometry, made_for)
        ratio = self.devicePixelRatioF()
        painter.save()
        if ratio != 1.0:
            painter.scale(1 / ratio, 1 / ratio)
        splits = self._splits(composed)
        split = round(self._split * shown.widget[1])
        for painted in composed.tiles:
            left, top, right, bottom = painted.tile.target if shown == made_for else shown.target(painted.tile.part)
            target = QRect(left, top, right - left, bottom - top)
            if splits:
                start = split if painted.tile.drawn else 0
                painter.setClipRect(start, 0, shown.widget[1] if start else split, shown.widget[0])
            painter.drawImage(target, painted.image)
        painter.restore()
        if splits:
            self._paint_split(painter)

    def _paint_split(self, painter: QPainter) -> None:
        x = self._split * self.width()
        painter.save()
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.fillRect(QRectF(x - 1, 0, 2, self.height()), QColor(255, 255, 255, 220))
        painter.setPen(Qt.PenStyle.NoPen)
        painter.setBrush(QColor(255, 255, 255, 235))
        painter.drawEllipse(QPointF(x, self.height() / 2), 7, 7)
        painter.restore()

    def _paint_words(self, painter: QPainter, composed: Composed) -> None:
        seen = self._seen_rect(composed)
        if len(composed.tiles) == 2:
            paint_caption(painter, "Original", seen.bottomLeft(), right=False)
            paint_caption(painter, "Segmentation", seen.bottomRight(), right=True)
        elif self._holding:
            paint_caption(painter, "Original", seen.bottomLeft(), right=False)
        hovered = self.hovered()
        if hovered is not None and self._mouse is not None:
            index, name, confidence = hovered
            colors = composed.classes.colors
            color = QColor(*colors[index]) if index < len(colors) else None
            share = "" if confidence is None else f"{confidence:.0%}"
            paint_hover(painter, self.rect(), self._mouse, color, name, share)

    def _seen_rect(self, composed: Composed) -> QRectF:
        """The part of the widget that the picture covers."""
        if self._geometry is None or composed.geometry is None:
            return QRectF(self.rect())
        geometry = _shown_geometry(self._geometry, composed.geometry)
        height, width = geometry.picture
        (left, top), (right, bottom) = geometry.to_widget(0, 0), geometry.to_widget(width, height)
        ratio = self.devicePixelRatioF()
        covered = QRectF(left / ratio, top / ratio, (right - left) / ratio, (bottom - top) / ratio)
        return covered.intersected(QRectF(self.rect()))

    def _put_split(self, share: float) -> None:
        self._split = min(max(share, 0.0), 1.0)

    def _splits(self, composed: Composed) -> bool:
        return len(composed.tiles) == 2 and composed.geometry is not None and not composed.geometry.beside

    # Geometry

    def _device_size(self) -> tuple[int, int]:
        ratio = self.devicePixelRatioF()
        return max(1, round(self.height() * ratio)), max(1, round(self.width() * ratio))

    def _device_point(self, point: QPointF) -> QPointF:
        return point * self.devicePixelRatioF()

    def _place(self, geometry: ViewGeometry) -> None:
        self._geometry = geometry
        self._tell()
        self.update()

    def _tell(self) -> None:
        """Ask for pictures of this look and geometry."""
        if self._geometry:
            self._geometry = replace(self._geometry, beside=self._look.mode == "side-by-side")
        self.view_changed.emit(self.look, self._geometry)

    def resizeEvent(self, event: QResizeEvent) -> None:
        """Fit the picture to the new size."""
        if self._geometry:
            self._place(replace(self._geometry, widget=self._device_size()))

    def focusInEvent(self, event: QFocusEvent) -> None:
        """Show a ring if the focus came by keyboard."""
        self._ringed = event.reason() in (Qt.FocusReason.TabFocusReason, Qt.FocusReason.BacktabFocusReason)
        self.update()

    def focusOutEvent(self, event: QFocusEvent) -> None:
        """Show no ring."""
        self._ringed = False
        self.update()

    # The mouse

    def wheelEvent(self, event: QWheelEvent) -> None:
        """Zoom around the cursor; sideways, the wheel does nothing, so that a fitted picture goes on fitting."""
        self._mouse = event.position()
        if event.angleDelta().y():
            self.zoom_by(_ZOOM_PER_NOTCH ** (event.angleDelta().y() / 120))
        event.accept()

    def event(self, event: QEvent) -> bool:
        """Zoom with two fingers on a touch pad."""
        if isinstance(event, QNativeGestureEvent) and event.gestureType() == Qt.NativeGestureType.ZoomNativeGesture:
            self._mouse = event.position()
            self.zoom_by(1 + event.value())
            return True
        return super().event(event)

    def mousePressEvent(self, event: QMouseEvent) -> None:
        """Begin to drag, or to click."""
        if event.button() == Qt.MouseButton.LeftButton:
            self._pressed = self._mouse = event.position()
            self._dragging = False

    def mouseMoveEvent(self, event: QMouseEvent) -> None:
        """Drag the picture, move the split, or look at another pixel."""
        last, self._mouse = self._mouse, event.position()
        self._put_split(event.position().x() / max(1, self.width()))
        if self._pressed is not None and last is not None:
            distance = (event.position() - self._pressed).manhattanLength()
            self._dragging = self._dragging or distance >= QApplication.startDragDistance()
            if self._dragging and self._geometry:
                moved = self._device_point(event.position() - last)
                self._place(self._geometry.panned(moved.x(), moved.y()))
        self.update()

    def mouseReleaseEvent(self, event: QMouseEvent) -> None:
        """Isolate the class under the cursor, unless the picture was dragged."""
        if event.button() != Qt.MouseButton.LeftButton or self._pressed is None:
            return
        self._pressed = None
        if self._dragging:
            self._dragging = False
            return
        self._mouse = event.position()
        hovered = self.hovered()
        if hovered is not None and hovered[1] != _NO_CLASS:
            self.class_clicked.emit(hovered[0])

    def enterEvent(self, event: QEnterEvent) -> None:
        """Begin to point."""
        self.pointer_inside.emit(True)

    def leaveEvent(self, event: QEvent) -> None:
        """Point at nothing any more."""
        self._mouse = None
        self.pointer_inside.emit(False)
        self.update()


def _shown_geometry(wanted: ViewGeometry, made_for: ViewGeometry) -> ViewGeometry:
    """Where a picture is painted: as wanted now, or as it was made for if that is another kind of picture."""
    return wanted if (wanted.frame, wanted.beside) == (made_for.frame, made_for.beside) else made_for
