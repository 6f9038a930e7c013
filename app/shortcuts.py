"""Every command of the window with its keys, in one table; and the sheet that shows them."""

from dataclasses import dataclass

from PySide6.QtCore import QSize, Qt
from PySide6.QtGui import QKeySequence
from PySide6.QtWidgets import QDialog, QGridLayout, QHBoxLayout, QLabel, QScrollArea, QVBoxLayout, QWidget

HOLD_KEY = Qt.Key.Key_O
"""Held down, it shows the frame as it came."""
_SCREEN_SHARE = 0.9  # of the screen: the most that the sheet takes


@dataclass(frozen=True, kw_only=True)
class Command:
    """Something that can be done."""

    name: str
    """For the program."""
    words: str
    """For people."""
    keys: tuple[str, ...]
    """Keys that do it, as Qt writes them; the first is shown."""
    group: str


def _command(group: str, name: str, words: str, *keys: str) -> Command:
    return Command(name=name, words=words, keys=keys, group=group)


COMMANDS: tuple[Command, ...] = (
    _command("Open", "open-file", "Open a file", "Ctrl+O"),
    _command("Open", "open-folder", "Open a folder of images", "Ctrl+Shift+O"),
    _command("Open", "open-camera", "Open a camera", "Ctrl+K"),
    _command("Open", "open-address", "Open a URL", "Ctrl+U"),
    _command("Open", "open-demo", "Play the demo", "Ctrl+D"),
    _command("Open", "close", "Close the stream", "Ctrl+W"),
    _command("Open", "quit", "Quit", "Ctrl+Q"),
    _command("Play", "play", "Play or pause", "Space", "K"),
    _command("Play", "step", "Next frame", "."),
    _command("Play", "step-back", "Frame before", ","),
    _command("Play", "back", "Back 5 s", "Left"),
    _command("Play", "ahead", "Ahead 5 s", "Right"),
    _command("Play", "restart", "To the beginning", "Home"),
    _command("Play", "slower", "Slower", "["),
    _command("Play", "faster", "Faster", "]"),
    _command("Play", "loop", "Loop", "L"),
    _command("Picture", "overlay", "Classes over the frame", "1"),
    _command("Picture", "mask", "Classes alone", "2"),
    _command("Picture", "side-by-side", "Side by side", "3"),
    _command("Picture", "split", "Split that follows the mouse", "4"),
    _command("Picture", "split-left", "Split to the left", "Shift+Left"),
    _command("Picture", "split-right", "Split to the right", "Shift+Right"),
    _command("Picture", "more-opaque", "Classes more opaque", "Up"),
    _command("Picture", "less-opaque", "Classes less opaque", "Down"),
    _command("Picture", "zoom-in", "Zoom in", "+", "="),
    _command("Picture", "zoom-out", "Zoom out", "-"),
    _command("Picture", "fit", "Fit", "0"),
    _command("Picture", "fill", "Fill", "9"),
    _command("Picture", "actual", "1:1", "8"),
    _command("Picture", "pan-left", "Move left", "Alt+Left"),
    _command("Picture", "pan-right", "Move right", "Alt+Right"),
    _command("Picture", "pan-up", "Move up", "Alt+Up"),
    _command("Picture", "pan-down", "Move down", "Alt+Down"),
    _command("Classes", "all", "Draw all classes", "A"),
    _command("Classes", "none", "Draw no class", "N"),
    _command("Classes", "solo", "Draw only the selected class", "I"),
    _command("Classes", "smooth", "Stable masks", "M"),
    _command("Keep", "save", "Save the picture as it is shown", "S"),
    _command("Keep", "save-original", "Save the frame without classes", "Shift+S"),
    _command("Keep", "copy", "Copy the picture as it is shown", "Ctrl+C"),
    _command("Keep", "copy-original", "Copy the frame without classes", "Ctrl+Shift+C"),
    _command("Keep", "record", "Record, and stop recording", "R"),
    _command("Keep", "show-folder", "Show the folder of what was kept", "Ctrl+Shift+F"),
    _command("Window", "sidebar", "Panels", "B"),
    _command("Window", "full-screen", "Full screen", "F11", "F"),
    _command("Window", "leave", "All classes; leave full screen", "Esc"),
    _command("Window", "theme", "Dark or light", "T"),
    _command("Window", "larger", "Larger words", "Ctrl++", "Ctrl+="),
    _command("Window", "smaller", "Smaller words", "Ctrl+-"),
    _command("Window", "help", "Keyboard shortcuts", "?", "F1"),
)
"""All that the window can do."""

_HELD = ("Picture", "The frame without classes, while held", "O")


class ShortcutSheet(QDialog):
    """All commands with their keys."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setWindowTitle("Keyboard shortcuts")
        self.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        inner = QWidget()
        columns = QHBoxLayout(inner)
        columns.setSpacing(40)
        columns.setContentsMargins(24, 20, 24, 20)
        groups = list(dict.fromkeys(command.group for command in COMMANDS))
        halves = (groups[:2] + groups[3:4], groups[2:3], groups[4:])
        for half in halves:
            column = QVBoxLayout()
            column.setSpacing(0)
            for group in half:
                column.addLayout(_group(group))
                column.addSpacing(18)
            column.addStretch(1)
            columns.addLayout(column)
        area = QScrollArea()
        area.setWidget(inner)
        area.setWidgetResizable(True)
        layout = QVBoxLayout(self)
        layout.addWidget(area)
        room = self.screen().availableSize() * _SCREEN_SHARE  # what has no room is scrolled to
        self.resize((inner.sizeHint() + QSize(60, 60)).boundedTo(room))


def _group(group: str) -> QGridLayout:
    grid = QGridLayout()
    heading = QLabel(group)
    heading.setProperty("heading", True)
    grid.addWidget(heading, 0, 0, 1, 2)
    rows = [(command.words, keys_text(command)) for command in COMMANDS if command.group == group]
    if group == _HELD[0]:
        rows.append(_HELD[1:])
    for number, (words, keys) in enumerate(rows, start=1):
        label, key = QLabel(words), QLabel(keys)
        key.setProperty("key", True)
        grid.addWidget(label, number, 0)
        grid.addWidget(key, number, 1, Qt.AlignmentFlag.AlignRight)
    grid.setColumnStretch(0, 1)
    grid.setHorizontalSpacing(24)
    grid.setVerticalSpacing(4)
    return grid


def keys_text(command: Command) -> str:
    """Write a command's first keys as this system does."""
    return QKeySequence(command.keys[0]).toString(QKeySequence.SequenceFormat.NativeText)
