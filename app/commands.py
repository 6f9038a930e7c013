"""The window's commands as Qt's actions."""

from collections.abc import Callable, Mapping
from functools import partial

from PySide6.QtCore import QObject, Qt
from PySide6.QtGui import QAction, QKeySequence

from app.icons import icon
from app.shortcuts import COMMANDS, keys_text

LATE_KEYS = {
    Qt.Key.Key_Space: "play",
    Qt.Key.Key_Left: "back",
    Qt.Key.Key_Right: "ahead",
    Qt.Key.Key_Up: "more-opaque",
    Qt.Key.Key_Down: "less-opaque",
    Qt.Key.Key_Home: "restart",
}
"""Keys that lists, sliders and buttons need themselves: they get them first, the commands what they leave."""

_ICONS = {
    "fit": "fit",
    "save": "photo",
    "record": "record",
    "sidebar": "sidebar",
    "theme": "theme",
    "help": "help",
}
NEED_PICTURE = ("save", "save-original", "copy", "copy-original", "record", "fit", "play", "step")
"""Commands that are there while there is a picture."""

_CHECKABLE = ("sidebar", "loop")


def make_actions(owner: QObject, handlers: Mapping[str, Callable[[], object]]) -> dict[str, QAction]:
    """Make an action for every command.

    Args:
        owner: Qt's owner.
        handlers: by the command's name, what it does.
    """
    late = {QKeySequence(key).toString() for key in LATE_KEYS}
    actions = {}
    for command in COMMANDS:
        action = QAction(command.words, owner)
        action.setToolTip(f"{command.words} ({keys_text(command)})")
        action.setShortcuts([QKeySequence(keys) for keys in command.keys if keys not in late])
        action.setCheckable(command.name in _CHECKABLE)
        if command.name in _ICONS:
            action.setIcon(icon(_ICONS[command.name]))
        action.triggered.connect(partial(_call, handlers[command.name]))
        actions[command.name] = action
    return actions


def _call(handler: Callable[[], object], _checked: bool = False) -> None:
    """Leave out whether the action is checked, which Qt tells."""
    handler()
