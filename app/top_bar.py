"""The bar above the picture: what is open, how it is shown, what is kept."""

from collections.abc import Sequence
from typing import get_args

from PySide6.QtCore import QEvent, QSize, Qt, Signal
from PySide6.QtGui import QAction, QResizeEvent
from PySide6.QtWidgets import QButtonGroup, QFrame, QHBoxLayout, QLabel, QSlider, QToolButton, QWidget

from app.choice import Choice
from app.elided_label import ElidedLabel
from app.view_geometry import ViewMode

_MODES = {"overlay": "Overlay", "mask": "Mask", "side-by-side": "Side by side", "split": "Split"}
_MODES_NAME = "How frames are shown"
_TITLE_LINES = 5  # room for the title, in heights of a line, before the bar becomes narrow


class TopBar(QWidget):
    """Controls of the view; the buttons are the window's own actions. In a narrow window a list takes less room.

    Args:
        actions: by name, those of `app.shortcuts.COMMANDS`.
        parent: Qt's owner.
    """

    mode_chosen = Signal(str)
    alpha_chosen = Signal(float)

    def __init__(self, actions: dict[str, QAction], parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("bar")
        self.setAttribute(Qt.WidgetAttribute.WA_StyledBackground)
        self.back = _action_button(actions["close"])
        self.title = ElidedLabel()
        self.title.setObjectName("title")
        self._modes: dict[str, QToolButton] = {}
        self.segments = QFrame()
        self.segments.setObjectName("segments")
        self.segments.setAccessibleName(_MODES_NAME)
        row = QHBoxLayout(self.segments)
        row.setContentsMargins(2, 2, 2, 2)
        row.setSpacing(2)
        group = QButtonGroup(self)
        self.choice = Choice(_MODES_NAME)
        for mode in get_args(ViewMode):
            if mode in _MODES:
                button = self._modes[mode] = _mode_button(mode, actions[mode].toolTip())
                button.clicked.connect(lambda _=False, mode=mode: self.mode_chosen.emit(mode))
                group.addButton(button)
                row.addWidget(button)
                self.choice.addItem(_MODES[mode], mode)
        self.choice.activated.connect(lambda index: self.mode_chosen.emit(self.choice.itemData(index)))
        self.alpha = QSlider(Qt.Orientation.Horizontal)
        self.alpha.setRange(0, 100)
        self.alpha.setAccessibleName("Opacity of the classes")
        self.alpha.setToolTip("Opacity of the classes (Up, Down)")
        self.alpha.setMinimumWidth(60)
        self.alpha.setMaximumWidth(140)
        self.alpha.setFocusPolicy(Qt.FocusPolicy.TabFocus)
        self.alpha.valueChanged.connect(lambda value: self.alpha_chosen.emit(value / 100))

        opacity = QLabel("Opacity")
        opacity.setProperty("quiet", True)
        opacity.setBuddy(self.alpha)

        layout = QHBoxLayout(self)
        layout.addWidget(self.back)
        layout.addWidget(self.title, 1)
        layout.addWidget(self.segments)
        layout.addWidget(self.choice)
        layout.addWidget(opacity)
        layout.addWidget(self.alpha, 1)
        self._buttons = [
            _action_button(actions[name]) for name in ("fit", "save", "record", "sidebar", "theme", "help")
        ]
        for button in self._buttons:
            layout.addWidget(button)
        self._wide: tuple[QWidget, ...] = (self.segments, opacity)
        self._narrow: tuple[QWidget, ...] = (self.choice,)
        self._viewing = True
        self._arrange()

    def show_view_controls(self, shown: bool) -> None:
        """Offer what there is to choose of a picture, or not."""
        self._viewing = shown
        self._arrange()

    def show_mode(self, mode: str) -> None:
        """Mark the way in which frames are shown."""
        self._modes[mode].setChecked(True)
        self.choice.setCurrentIndex(self.choice.findData(mode))

    def show_alpha(self, alpha: float) -> None:
        """Move the slider."""
        self.alpha.setValue(round(100 * alpha))

    def minimumSizeHint(self) -> QSize:
        """As little as the narrow form needs."""
        return QSize(self._width_with(self._narrow), super().minimumSizeHint().height())

    def resizeEvent(self, event: QResizeEvent) -> None:
        """Take the form for which there is room."""
        super().resizeEvent(event)
        self._arrange()

    def changeEvent(self, event: QEvent) -> None:
        """Take the form for which there is room, with words of another size."""
        super().changeEvent(event)
        if event.type() in (QEvent.Type.FontChange, QEvent.Type.StyleChange):
            self._arrange()

    def _arrange(self) -> None:
        room = self._width_with(self._wide) + _TITLE_LINES * self.fontMetrics().height()
        narrow = self.width() < room
        for part in self._wide:
            part.setVisible(self._viewing and not narrow)
        for part in self._narrow:
            part.setVisible(self._viewing and narrow)
        self.alpha.setVisible(self._viewing)

    def _width_with(self, parts: Sequence[QWidget]) -> int:
        """The least width with these parts of the view's controls, if those are shown."""
        layout = self.layout()
        assert layout is not None
        shown = [self.title, *self._buttons]
        shown += [self.back] if self.back.isVisibleTo(self) else []
        shown += [*parts, self.alpha] if self._viewing else []
        margins = layout.contentsMargins()
        widths = [max(part.minimumWidth(), part.minimumSizeHint().width()) for part in shown if part is not self.title]
        return sum(widths) + layout.spacing() * (len(shown) - 1) + margins.left() + margins.right()


def _mode_button(mode: str, meaning: str) -> QToolButton:
    button = QToolButton()
    button.setText(_MODES[mode])
    button.setCheckable(True)
    button.setAccessibleName(_MODES[mode])
    button.setToolTip(meaning)
    button.setFocusPolicy(Qt.FocusPolicy.TabFocus)
    return button


def _action_button(action: QAction) -> QToolButton:
    button = QToolButton()
    button.setDefaultAction(action)
    button.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonIconOnly)
    button.setAccessibleName(action.text())
    button.setFocusPolicy(Qt.FocusPolicy.TabFocus)
    return button
