"""Colours, spacing and the style sheet, dark and light; every length follows the font's size."""

from dataclasses import dataclass
from string import Template

from PySide6.QtGui import QColor, QFontMetricsF, QPalette
from PySide6.QtWidgets import QApplication


@dataclass(frozen=True, kw_only=True)
class Theme:
    """The colours of the window."""

    name: str
    window: str
    """Behind everything."""
    surface: str
    """Bars and panels."""
    raised: str
    """Buttons and fields."""
    hover: str
    """Buttons under the cursor."""
    line: str
    """Edges."""
    text: str
    quiet: str
    """Words that matter less."""
    accent: str
    """What is chosen, and what is being measured."""
    on_accent: str
    """Words on the accent."""
    danger: str
    """Recording, and what is live."""
    canvas: str
    """Around the picture."""


DARK = Theme(
    name="dark",
    window="#0e1116",
    surface="#151a21",
    raised="#1f2630",
    hover="#2a333f",
    line="#28303b",
    text="#e9edf2",
    quiet="#93a0af",
    accent="#4db8ff",
    on_accent="#06121c",
    danger="#ff5d5d",
    canvas="#090b0e",
)
"""For tables in dim rooms; the default."""

LIGHT = Theme(
    name="light",
    window="#eef1f5",
    surface="#fbfcfd",
    raised="#e9edf2",
    hover="#dce3ea",
    line="#d3dae2",
    text="#18202a",
    quiet="#576473",
    accent="#0a6fc2",
    on_accent="#ffffff",
    danger="#c62f2f",
    canvas="#dfe4ea",
)
"""For bright rooms."""

THEMES = {theme.name: theme for theme in (DARK, LIGHT)}

_SHEET = Template("""
* { outline: none; }
QWidget { color: $text; selection-background-color: $accent; selection-color: $on_accent; }
QMainWindow, QDialog { background: $window; }
QToolTip { background: $raised; color: $text; border: 1px solid $line; padding: ${s}px; }
#bar, #transport, #sidebar, #section { background: $surface; }
#bar QToolButton { margin: 0 1px; }
#bar { border-bottom: 1px solid $line; }
#transport { border-top: 1px solid $line; }
#sidebar { border-left: 1px solid $line; }
#section { border-bottom: 1px solid $line; }
#title { font-weight: 600; }
#quiet, QLabel[quiet="true"] { color: $quiet; }
QLabel[heading="true"] { font-weight: 600; color: $text; }
QLabel[display="true"] { font-size: ${display}px; font-weight: 600; }
QLabel[metric="true"] { font-size: ${metric}px; font-weight: 600; }
QLabel[key="true"] { background: $raised; border: 1px solid $line; border-radius: ${x}px; padding: 1px ${s}px; }
QLabel[live="true"] { color: $danger; font-weight: 700; }
QToolButton, QPushButton {
    background: transparent; border: 1px solid transparent; border-radius: ${r}px; padding: ${s}px ${m}px;
}
QToolButton { padding: ${s}px; qproperty-iconSize: ${icon}px ${icon}px; }
QPushButton { background: $raised; border-color: $line; }
QToolButton:hover, QPushButton:hover { background: $hover; }
QToolButton:focus, QPushButton:focus, QComboBox:focus { border-color: $accent; }
QToolButton:pressed, QPushButton:pressed { background: $line; }
QToolButton:checked { background: $raised; border-color: $line; color: $accent; }
QToolButton:checked:disabled { background: transparent; border-color: transparent; }
QToolButton:disabled, QPushButton:disabled, QLabel:disabled { color: $quiet; }
QToolButton::menu-indicator { image: none; width: 0; }
QPushButton[small="true"] { padding: ${x2}px ${s}px; color: $quiet; }
QPushButton[small="true"]:hover { color: $text; }
QPushButton[primary="true"] { background: $accent; color: $on_accent; border-color: $accent; font-weight: 600; }
QPushButton[primary="true"]:hover { background: $text; border-color: $text; color: $window; }
#segments { background: $raised; border-radius: ${r}px; }
#segments QToolButton { border-radius: ${r}px; padding: ${s}px ${m}px; color: $quiet; }
#segments QToolButton:checked { background: $accent; color: $on_accent; border-color: $accent; }
QToolButton:checked:focus { border-color: $accent; }
QPushButton[primary="true"]:focus, #segments QToolButton:checked:focus { border-color: $text; }
#card { background: $surface; border: 1px solid $line; border-radius: ${m}px; }
#card:hover { border-color: $accent; background: $raised; }
#card:focus { border-color: $accent; }
#banner { background: $raised; border: 1px solid $line; border-left: ${x}px solid $accent; border-radius: ${x}px; }
QComboBox, QLineEdit {
    background: $raised; border: 1px solid $line; border-radius: ${r}px; padding: ${x}px ${m}px;
    min-height: ${field}px;
}
QComboBox { padding-right: ${l}px; }
QComboBox::drop-down { border: none; width: 0; }
QComboBox::down-arrow { image: none; }
QComboBox QAbstractItemView, QMenu { background: $raised; border: 1px solid $line; padding: ${x}px; }
QMenu::item { padding: ${s}px ${l}px ${s}px ${m}px; border-radius: ${x}px; }
QMenu::item:selected { background: $hover; }
QMenu::separator { height: 1px; background: $line; margin: ${x}px; }
QListView { background: transparent; border: none; }
QScrollArea { background: transparent; border: none; }
QScrollBar:vertical { background: transparent; width: ${bar}px; margin: 0; }
QScrollBar::handle:vertical { background: $line; border-radius: ${bar2}px; min-height: ${l}px; }
QScrollBar:horizontal { background: transparent; height: ${bar}px; margin: 0; }
QScrollBar::handle:horizontal { background: $line; border-radius: ${bar2}px; min-width: ${l}px; }
QAbstractScrollArea::corner { background: transparent; border: none; }
QScrollBar::add-line, QScrollBar::sub-line { height: 0; width: 0; }
QScrollBar::add-page, QScrollBar::sub-page { background: transparent; }
QSlider { min-height: ${l}px; }
QSlider::groove:horizontal { height: ${x}px; background: $line; border-radius: ${x2}px; }
QSlider::sub-page:horizontal { background: $accent; border-radius: ${x2}px; }
QSlider::handle:horizontal {
    background: $text; width: ${knob}px; height: ${knob}px; margin: -${overhang}px 0; border-radius: ${knob2}px;
}
QSlider::handle:horizontal:hover, QSlider::handle:horizontal:focus { background: $accent; }
QSlider::sub-page:horizontal:disabled, QSlider::handle:horizontal:disabled { background: $line; }
""")


def unit_px(app: QApplication) -> float:
    """A sixteenth of the usual distance between lines: 1 px at the usual size of font, 2 at twice the size."""
    return QFontMetricsF(app.font()).height() / 16


def apply_theme(app: QApplication, theme: Theme) -> None:
    """Dress the whole program."""
    unit = unit_px(app)
    lengths = {"x": 4, "s": 6, "r": 7, "m": 12, "l": 24, "bar": 8, "field": 20, "display": 26, "metric": 19, "icon": 18}
    px = {name: max(1, round(length * unit)) for name, length in lengths.items()}
    px["knob"] = px["x"] // 2 * 4 + px["x"]  # the groove and the margins on both its sides
    px |= {
        "x2": px["x"] // 2,
        "knob2": px["knob"] // 2,
        "overhang": (px["knob"] - px["x"]) // 2,
        "bar2": px["bar"] // 2,
    }
    colors = {name: value for name, value in vars(theme).items() if name != "name"}
    palette = QPalette()
    roles = QPalette.ColorRole
    for role, color in (
        (roles.Window, theme.window),
        (roles.Base, theme.surface),
        (roles.AlternateBase, theme.raised),
        (roles.Button, theme.raised),
        (roles.WindowText, theme.text),
        (roles.Text, theme.text),
        (roles.ButtonText, theme.text),
        (roles.PlaceholderText, theme.quiet),
        (roles.Highlight, theme.accent),
        (roles.HighlightedText, theme.on_accent),
        (roles.Mid, theme.quiet),
        (roles.Dark, theme.canvas),
        (roles.Midlight, theme.line),
        (roles.BrightText, theme.danger),
    ):
        palette.setColor(role, QColor(color))
    app.setPalette(palette)
    app.setStyleSheet(_SHEET.substitute({**colors, **px}))
