"""The classes: colour, name, share of the picture, now and over the last seconds, and which of them are drawn."""

from collections import deque
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from PySide6.QtCore import QAbstractListModel, QModelIndex, QPersistentModelIndex, QPointF, QRectF, QSize, Qt, Signal
from PySide6.QtGui import QColor, QFontMetricsF, QKeyEvent, QMouseEvent, QPainter, QPalette, QPen, QPolygonF
from PySide6.QtWidgets import (
    QHBoxLayout,
    QLabel,
    QListView,
    QPushButton,
    QSizePolicy,
    QStyle,
    QStyledItemDelegate,
    QStyleOptionViewItem,
    QVBoxLayout,
    QWidget,
)

from app.elided_label import ElidedLabel
from bsdnet.classes import ClassSet

_HISTORY = 60  # shares that are kept of each class; the panel takes some five a second
_ROWS_SHOWN = 11
_SHARE = Qt.ItemDataRole.UserRole
_PAST = Qt.ItemDataRole.UserRole + 1

AnyIndex = QModelIndex | QPersistentModelIndex


class ClassModel(QAbstractListModel):
    """The classes of a set, each drawn or not."""

    changed = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.classes: ClassSet | None = None
        self._drawn: set[int] = set()
        self._shares: NDArray[np.float64] = np.zeros(0)
        self._past: deque[NDArray[np.float64]] = deque(maxlen=_HISTORY)

    @property
    def only(self) -> frozenset[int] | None:
        """Indices of the classes that are drawn; None for all."""
        return None if len(self._drawn) == self.rowCount() else frozenset(self._drawn)

    def set_classes(self, classes: ClassSet) -> None:
        """Show another set, all of it drawn."""
        self.beginResetModel()
        self.classes = classes
        self._drawn = set(range(len(classes)))
        self._shares = np.zeros(len(classes))
        self._past.clear()
        self.endResetModel()
        self.changed.emit()

    def set_shares(self, shares: NDArray[np.float64]) -> None:
        """Show how much of the picture each class is, 0 to 1."""
        if len(shares) == self.rowCount():
            self._shares = shares
            self._past.append(shares)
            self._refresh()

    def draw(self, indices: Sequence[int]) -> None:
        """Draw these classes and no others."""
        self._drawn = set(indices)
        self._refresh()
        self.changed.emit()

    def solo(self, index: int) -> None:
        """Draw this class alone; all again if it was alone already."""
        self.draw(range(self.rowCount()) if self._drawn == {index} else [index])

    def toggle(self, index: int) -> None:
        """Draw a class, or do not."""
        self.draw(sorted(self._drawn ^ {index}))

    def rowCount(self, parent: AnyIndex = QModelIndex()) -> int:  # noqa: B008 - Qt's signature
        """Count the classes."""
        return 0 if self.classes is None or parent.isValid() else len(self.classes)

    def flags(self, index: AnyIndex) -> Qt.ItemFlag:
        """Say what can be done with a class."""
        return Qt.ItemFlag.ItemIsEnabled | Qt.ItemFlag.ItemIsSelectable | Qt.ItemFlag.ItemIsUserCheckable

    def data(self, index: AnyIndex, role: int = Qt.ItemDataRole.DisplayRole) -> object:
        """Say what is known of a class."""
        if self.classes is None or not index.isValid():
            return None
        row = index.row()
        name, share = self.classes.names[row], float(self._shares[row])
        if role == Qt.ItemDataRole.DisplayRole:
            return name
        if role == Qt.ItemDataRole.CheckStateRole:
            return Qt.CheckState.Checked if row in self._drawn else Qt.CheckState.Unchecked
        if role == Qt.ItemDataRole.DecorationRole:
            return QColor(*self.classes.colors[row])
        if role == Qt.ItemDataRole.AccessibleTextRole:
            return f"{name}, {share:.1%} of the picture, {'drawn' if row in self._drawn else 'not drawn'}"
        if role == Qt.ItemDataRole.ToolTipRole:
            return f"{name}: click to draw it or not, double-click to draw it alone"
        if role == _SHARE:
            return share
        return [float(shares[row]) for shares in self._past] if role == _PAST else None

    def _refresh(self) -> None:
        if self.rowCount():
            self.dataChanged.emit(self.index(0), self.index(self.rowCount() - 1))


class _ClassDelegate(QStyledItemDelegate):
    """Paints a row: a check box in the class's colour, its name, its past as a line, its share."""

    def sizeHint(self, option: QStyleOptionViewItem, index: AnyIndex) -> QSize:
        """Ask for a row's height."""
        height = QFontMetricsF(option.font).height()
        return QSize(int(height * 12), int(height * 1.6))

    def paint(self, painter: QPainter, option: QStyleOptionViewItem, index: AnyIndex) -> None:
        """Paint a row."""
        painter.save()
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        rect, palette = QRectF(option.rect), option.palette
        state = option.state
        metrics = QFontMetricsF(painter.font())
        unit = metrics.height() / 2
        focus = bool(state & QStyle.StateFlag.State_HasFocus)
        if focus or state & QStyle.StateFlag.State_MouseOver:
            painter.setPen(palette.color(QPalette.ColorRole.Highlight) if focus else Qt.PenStyle.NoPen)
            painter.setBrush(palette.color(QPalette.ColorRole.AlternateBase))
            painter.drawRoundedRect(rect.adjusted(0.5, 0.5, -0.5, -0.5), unit / 2, unit / 2)
        drawn = index.data(Qt.ItemDataRole.CheckStateRole) == Qt.CheckState.Checked
        color = index.data(Qt.ItemDataRole.DecorationRole)
        box = QRectF(rect.left() + unit, rect.center().y() - unit * 0.75, unit * 1.5, unit * 1.5)
        on_light = palette.color(QPalette.ColorRole.Text).lightnessF() < 0.5
        edge = color.darker(130) if on_light else color.lighter(135)
        _paint_box(painter, box, color, edge, drawn)
        words = palette.color(QPalette.ColorRole.Text if drawn else QPalette.ColorRole.Mid)
        painter.setPen(words)
        share = index.data(_SHARE)
        share_width = metrics.horizontalAdvance("100.0 %")
        right = rect.right() - unit
        alignment = Qt.AlignmentFlag.AlignVCenter
        painter.drawText(
            QRectF(right - share_width, rect.top(), share_width, rect.height()),
            alignment | Qt.AlignmentFlag.AlignRight,
            f"{100 * share:.1f} %",
        )
        past_width = unit * 5
        past = QRectF(right - share_width - past_width - unit, rect.top(), past_width, rect.height())
        _paint_past(painter, past.adjusted(0, unit * 0.6, 0, -unit * 0.6), index.data(_PAST), edge, drawn)
        name = QRectF(box.right() + unit, rect.top(), past.left() - box.right() - 1.5 * unit, rect.height())
        painter.setPen(words)
        shown = metrics.elidedText(index.data(), Qt.TextElideMode.ElideRight, name.width())
        painter.drawText(name, alignment, shown)
        painter.restore()


def _paint_box(painter: QPainter, box: QRectF, color: QColor, edge: QColor, checked: bool) -> None:
    painter.setPen(QPen(edge, 1.5))
    painter.setBrush(color if checked else Qt.BrushStyle.NoBrush)
    painter.drawRoundedRect(box, box.width() / 5, box.width() / 5)
    if checked:
        light = color.lightnessF() > 0.6
        painter.setPen(QPen(QColor(20, 24, 30) if light else QColor(255, 255, 255), box.width() / 8))
        mark = [(0.26, 0.52), (0.44, 0.7), (0.76, 0.32)]
        painter.drawPolyline([QPointF(box.left() + x * box.width(), box.top() + y * box.height()) for x, y in mark])


def _paint_past(painter: QPainter, box: QRectF, past: Sequence[float], color: QColor, drawn: bool) -> None:
    """Draw the last shares as an area whose top is the greatest of them."""
    if len(past) < 2:
        return
    top = max(*past, 0.01)
    step = box.width() / (_HISTORY - 1)
    left = box.right() - step * (len(past) - 1)
    line = [QPointF(left + i * step, box.bottom() - share / top * box.height()) for i, share in enumerate(past)]
    shade = QColor(color)
    shade.setAlphaF(0.35 if drawn else 0.15)
    painter.setPen(Qt.PenStyle.NoPen)
    painter.setBrush(shade)
    painter.drawPolygon(QPolygonF([QPointF(left, box.bottom()), *line, QPointF(box.right(), box.bottom())]))
    painter.setPen(QPen(color if drawn else shade, 1.2))
    painter.setBrush(Qt.BrushStyle.NoBrush)
    painter.drawPolyline(line)


class _ClassList(QListView):
    """A list whose rows are check boxes."""

    toggled = Signal(int)
    soloed = Signal(int)

    def sizeHint(self) -> QSize:
        """Ask for room for a street's classes; longer sets are scrolled."""
        rows = min(self.model().rowCount(), _ROWS_SHOWN) if self.model() else 0
        return QSize(200, rows * max(1, self.sizeHintForRow(0)) + 2)

    def mousePressEvent(self, event: QMouseEvent) -> None:
        """Draw a class or not."""
        super().mousePressEvent(event)
        index = self.indexAt(event.position().toPoint())
        if event.button() == Qt.MouseButton.LeftButton and index.isValid():
            self.toggled.emit(index.row())

    def mouseDoubleClickEvent(self, event: QMouseEvent) -> None:
        """Draw a class alone; the first of the two clicks has toggled it, which this sets right."""
        index = self.indexAt(event.position().toPoint())
        if index.isValid():
            self.toggled.emit(index.row())
            self.soloed.emit(index.row())

    def keyPressEvent(self, event: QKeyEvent) -> None:
        """Draw a class or not."""
        if event.key() in (Qt.Key.Key_Space, Qt.Key.Key_Return, Qt.Key.Key_Enter) and self.currentIndex().isValid():
            self.toggled.emit(self.currentIndex().row())
        else:
            super().keyPressEvent(event)


class ClassPanel(QWidget):
    """The list of classes with its buttons."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("section")
        self.setAttribute(Qt.WidgetAttribute.WA_StyledBackground)
        self.model = ClassModel()
        self._set_name = ElidedLabel()
        self._set_name.setProperty("quiet", True)
        heading = QLabel("Classes")
        heading.setProperty("heading", True)
        self.all_button = _button("All", "Draw all classes", self.draw_all)
        self.none_button = _button("None", "Draw no class", self.draw_none)
        self.solo_button = _button("Solo", "Draw only the class that is selected", self.solo_current)
        self.list = _ClassList()
        self.list.setAccessibleName("Classes that are drawn")
        self.list.setModel(self.model)
        self.list.setItemDelegate(_ClassDelegate(self.list))
        self.list.setMouseTracking(True)
        self.list.setUniformItemSizes(True)
        self.list.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.list.setEditTriggers(QListView.EditTrigger.NoEditTriggers)
        self.list.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.list.toggled.connect(self.model.toggle)
        self.list.soloed.connect(self.model.solo)
        self.model.modelReset.connect(self._set_changed)

        top = QHBoxLayout()
        top.addWidget(heading)
        top.addWidget(self._set_name, 1)
        top.addWidget(self.all_button)
        top.addWidget(self.none_button)
        top.addWidget(self.solo_button)
        layout = QVBoxLayout(self)
        layout.addLayout(top)
        layout.addWidget(self.list)

    def draw_all(self) -> None:
        """Draw every class."""
        self.model.draw(range(self.model.rowCount()))

    def draw_none(self) -> None:
        """Draw no class."""
        self.model.draw([])

    def solo_current(self) -> None:
        """Draw only the class that is selected; all again if it was alone."""
        index = self.list.currentIndex()
        if index.isValid():
            self.model.solo(index.row())

    def _set_changed(self) -> None:
        classes = self.model.classes
        self._set_name.setText("" if classes is None else classes.name)
        self.list.updateGeometry()


def _button(words: str, meaning: str, action: Callable[[], None]) -> QPushButton:
    button = QPushButton(words)
    button.setProperty("small", True)
    button.setAccessibleName(meaning)
    button.setToolTip(meaning)
    button.clicked.connect(action)
    return button
