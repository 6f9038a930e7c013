"""The bar above the picture: what is open, how it is shown, what is kept."""

from typing import get_args

from PySide6.QtCore import Qt, Signal
from PySide6.QtGui import QAction
from PySide6.QtWidgets import QButtonGroup, QFrame, QHBoxLayout, QLabel, QSlider, QToolButton, QWidget

from app.elided_label import ElidedLabel
from app.view_geometry import ViewMode

_MODES = {"overlay": "Overlay", "mask": "Mask", "side-by-side": "Side by side", "split": "Split"}


class TopBar(QWidget):
    """Controls of the view; the buttons are the window's own actions.

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
        segments = QFrame()
        segments.setObjectName("segments")
        segments.setAccessibleName("How frames are shown")
        row = QHBoxLayout(segments)
        row.setContentsMargins(2, 2, 2, 2)
        row.setSpacing(2)
        group = QButtonGroup(self)
        for mode in get_args(ViewMode):
            if mode in _MODES:
                button = self._modes[mode] = _mode_button(mode, actions[mode].toolTip())
                button.clicked.connect(lambda _=False, mode=mode: self.mode_chosen.emit(mode))
                group.addButton(button)
                row.addWidget(button)
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
        layout.addWidget(segments)
        layout.addWidget(opacity)
        layout.addWidget(self.alpha, 1)
        for name in ("fit", "save", "record", "sidebar", "theme", "help"):
            layout.addWidget(_action_button(actions[name]))
        self.view_controls = (segments, opacity, self.alpha)

    def show_mode(self, mode: str) -> None:
        """Mark the way in which frames are shown."""
        self._modes[mode].setChecked(True)

    def show_alpha(self, alpha: float) -> None:
        """Move the slider."""
        self.alpha.setValue(round(100 * alpha))


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
