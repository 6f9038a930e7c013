"""The window's commands as Qt's actions."""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from PySide6.QtCore import Qt
from PySide6.QtGui import QAction, QKeySequence

from app.compose import Look
from app.icons import icon
from app.shortcuts import COMMANDS, keys_text

if TYPE_CHECKING:  # it imports this
    from app.window import Window

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
    "close": "back",
    "fit": "fit",
    "save": "photo",
    "record": "record",
    "sidebar": "sidebar",
    "theme": "theme",
    "help": "help",
}
NEED_PICTURE = ("save", "save-original", "copy", "copy-original", "record", "fit", "play", "step")
"""Commands that are there while there is a picture."""

_ORIGINAL = Look(mode="original")
_SEEK_S = 5.0
_ZOOM = 1.25
_PAN = 0.2
_SPLIT = 0.05
_ALPHA_STEP = 0.05

_CHECKABLE = ("sidebar", "loop")


def make_actions(window: "Window") -> dict[str, QAction]:
    """Make an action for every command."""
    handlers = _handlers(window)
    late = {QKeySequence(key).toString() for key in LATE_KEYS}
    actions = {}
    for command in COMMANDS:
        action = QAction(command.words, window)
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


def _handlers(window: "Window") -> dict[str, Callable[[], object]]:
    """What each of `app.shortcuts.COMMANDS` does."""
    player = window.player
    return {
        "open-file": window.opening.ask_file,
        "open-folder": window.opening.ask_folder,
        "open-camera": window.opening.ask_camera,
        "open-address": window.opening.ask_address,
        "open-demo": lambda: window.open("demo"),
        "close": player.close_stream,
        "quit": window.close,
        "play": player.toggle,
        "step": player.step,
        "step-back": player.step_back,
        "back": lambda: player.seek_by(-_SEEK_S),
        "ahead": lambda: player.seek_by(_SEEK_S),
        "restart": lambda: player.seek(0.0),
        "slower": lambda: window.transport.change_speed(-1),
        "faster": lambda: window.transport.change_speed(1),
        "loop": lambda: window.transport.loop.toggle(),
        "overlay": lambda: window.set_mode("overlay"),
        "mask": lambda: window.set_mode("mask"),
        "side-by-side": lambda: window.set_mode("side-by-side"),
        "split": lambda: window.set_mode("split"),
        "split-left": lambda: window.video.move_split(-_SPLIT),
        "split-right": lambda: window.video.move_split(_SPLIT),
        "more-opaque": lambda: window.set_alpha(window.settings.alpha + _ALPHA_STEP),
        "less-opaque": lambda: window.set_alpha(window.settings.alpha - _ALPHA_STEP),
        "zoom-in": lambda: window.video.zoom_by(_ZOOM),
        "zoom-out": lambda: window.video.zoom_by(1 / _ZOOM),
        "fit": lambda: window.video.set_scaling("fit"),
        "fill": lambda: window.video.set_scaling("fill"),
        "actual": lambda: window.video.set_scaling("actual"),
        "pan-left": lambda: window.video.pan_by(-_PAN, 0),
        "pan-right": lambda: window.video.pan_by(_PAN, 0),
        "pan-up": lambda: window.video.pan_by(0, -_PAN),
        "pan-down": lambda: window.video.pan_by(0, _PAN),
        "all": lambda: window.classes.draw_all(),
        "none": lambda: window.classes.draw_none(),
        "solo": lambda: window.classes.solo_current(),
        "smooth": lambda: window.engine.smooth.toggle(),
        "save": lambda: window.keeper.save(window.video.composed, window.video.look, player.spec),
        "save-original": lambda: window.keeper.save(window.video.composed, _ORIGINAL, player.spec),
        "copy": lambda: window.keeper.copy(window.video.composed, window.video.look),
        "copy-original": lambda: window.keeper.copy(window.video.composed, _ORIGINAL),
        "record": lambda: player.recording.toggle(window.settings.folder),
        "show-folder": lambda: window.keeper.show_folder(),
        "sidebar": lambda: window.show_sidebar(not window.settings.sidebar),
        "full-screen": window.toggle_full_screen,
        "leave": window.leave,
        "theme": window.appearance.toggle_theme,
        "larger": lambda: window.appearance.change_size(1),
        "smaller": lambda: window.appearance.change_size(-1),
        "help": window.show_shortcuts,
    }
