"""Play, pause, step, seek, speed and loop for files; for live sources that they are live, and how late they are."""

import math

from PySide6.QtCore import QEvent, QPoint, Qt, Signal
from PySide6.QtGui import QMouseEvent, QShowEvent
from PySide6.QtWidgets import (
    QHBoxLayout,
    QLabel,
    QSlider,
    QStyle,
    QStyleOptionSlider,
    QToolButton,
    QToolTip,
    QWidget,
)

from app.choice import Choice
from app.icons import icon
from app.phase import SPEEDS, Phase
from bsdnet.stream.frame import StreamInfo

_STEPS = 10_000  # of the slider, whatever the length
_KEY_S = 1.0  # how far arrow keys go; page keys go a tenth of all


class SeekSlider(QSlider):
    """A slider that goes where it is clicked and tells the time under the cursor."""

    sought = Signal(float)  # seconds
    drag_changed = Signal(bool)

    def __init__(self) -> None:
        super().__init__(Qt.Orientation.Horizontal)
        self.setRange(0, _STEPS)
        self.setMouseTracking(True)
        self.setFocusPolicy(Qt.FocusPolicy.TabFocus)
        self.setAccessibleName("Position")
        self.actionTriggered.connect(self._go_by_key)
        self.duration_s = 0.0

    def set_duration(self, duration_s: float) -> None:
        """Stand for so many seconds; 0 if nobody knows."""
        self.duration_s = duration_s
        self.setSingleStep(max(1, round(_STEPS * _KEY_S / duration_s)) if duration_s > 0 else 1)
        self.setPageStep(_STEPS // 10)
        self.setValue(0)

    def show_time(self, time_s: float) -> None:
        """Move to a time, unless the user is moving it."""
        if not self.isSliderDown() and self.duration_s > 0:
            self.setValue(round(_STEPS * min(1.0, time_s / self.duration_s)))

    def time_at(self, x: float) -> float:
        """Tell which time a place stands for."""
        option = QStyleOptionSlider()
        self.initStyleOption(option)
        style, control = self.style(), QStyle.ComplexControl.CC_Slider
        groove = style.subControlRect(control, option, QStyle.SubControl.SC_SliderGroove, self)
        handle = style.subControlRect(control, option, QStyle.SubControl.SC_SliderHandle, self)
        span = max(1, groove.width() - handle.width())
        share = (x - groove.left() - handle.width() / 2) / span
        return min(max(share, 0.0), 1.0) * self.duration_s

    def mousePressEvent(self, event: QMouseEvent) -> None:
        """Go there, and follow the mouse."""
        if event.button() == Qt.MouseButton.LeftButton:
            self.setSliderDown(True)
            self.drag_changed.emit(True)
            self._go(event)

    def mouseMoveEvent(self, event: QMouseEvent) -> None:
        """Tell the time; go there while the button is down."""
        x = event.position().x()
        place = self.mapToGlobal(QPoint(round(x), -2 * self.height()))
        QToolTip.showText(place, format_time(self.time_at(x)), self)
        if self.isSliderDown():
            self._go(event)

    def mouseReleaseEvent(self, event: QMouseEvent) -> None:
        """Stay there."""
        if self.isSliderDown():
            self.setSliderDown(False)
            self.drag_changed.emit(False)

    def _go_by_key(self, _action: int) -> None:
        if self.duration_s > 0:
            self.sought.emit(self.sliderPosition() / _STEPS * self.duration_s)

    def _go(self, event: QMouseEvent) -> None:
        time_s = self.time_at(event.position().x())
        if self.duration_s > 0:
            self.setValue(round(_STEPS * time_s / self.duration_s))
            self.sought.emit(time_s)


class Transport(QWidget):
    """The bar below the picture."""

    play_clicked = Signal()
    step_clicked = Signal()
    restart_clicked = Signal()
    speed_chosen = Signal(float)
    loop_toggled = Signal(bool)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("transport")
        self.setAttribute(Qt.WidgetAttribute.WA_StyledBackground)
        self.play = _button("play", "Play", "Space")
        self.step = _button("step", "Next frame", ".")
        self.restart = _button("start", "Go to the beginning", "Home")
        self.loop = _button("loop", "Begin again at the end", "L")
        self.loop.setCheckable(True)
        self.slider = SeekSlider()
        self.time, self.duration = QLabel("0:00.0"), QLabel()
        self.duration.setProperty("quiet", True)
        self._live_words = "● LIVE"
        self.live, self.latency, self.recording = QLabel(self._live_words), QLabel(), QLabel("● REC")
        self.live.setProperty("live", True)
        self.recording.setProperty("live", True)
        self.recording.hide()
        self.latency.setProperty("quiet", True)
        self.speed = Choice("Speed of playback")
        for speed in SPEEDS:
            self.speed.addItem(f"{speed:g}x", speed)
        self.speed.setCurrentIndex(SPEEDS.index(1.0))

        layout = QHBoxLayout(self)
        left: tuple[QWidget, ...] = (self.restart, self.play, self.step, self.time)
        for widget in left:
            layout.addWidget(widget)
        layout.addWidget(self.slider, 1)
        layout.addWidget(self.live)
        layout.addWidget(self.latency, 1)
        right: tuple[QWidget, ...] = (self.duration, self.recording, self.speed, self.loop)
        for widget in right:
            layout.addWidget(widget)
        self._file_only = (self.restart, self.step, self.slider, self.duration, self.speed, self.loop)

        self.play.clicked.connect(self.play_clicked)
        self.step.clicked.connect(self.step_clicked)
        self.restart.clicked.connect(self.restart_clicked)
        self.speed.currentIndexChanged.connect(lambda index: self.speed_chosen.emit(SPEEDS[index]))
        self.loop.toggled.connect(self.loop_toggled)
        self.set_stream(None)

    def set_stream(self, info: StreamInfo | None) -> None:
        """Show what this kind of stream can do."""
        live = info is not None and info.live
        seekable = info is not None and info.seekable
        for widget in self._file_only:
            widget.setVisible(not live)
        for widget in (self.live, self.latency):
            widget.setVisible(live)
        for widget in (self.restart, self.slider, self.loop):
            widget.setEnabled(seekable)
        self.slider.setToolTip("" if seekable else "This video can only be played through")
        for widget in (self.play, self.step, self.speed):
            widget.setEnabled(info is not None)
        known = info is not None and info.num_frames and info.fps > 0 and not live
        self.slider.set_duration(info.num_frames / info.fps if info and info.num_frames and known else 0.0)
        self.duration.setText(format_time(self.slider.duration_s) if known else "")
        self.time.setText(format_time(0.0))

    def set_phase(self, phase: Phase) -> None:
        """Offer to play or to pause."""
        playing = phase is Phase.PLAYING
        self.play.setIcon(icon("pause" if playing else "play"))
        words = "Pause" if playing else "Play"
        self.play.setAccessibleName(words)
        self.play.setToolTip(f"{words} (Space)")
        self.live.setEnabled(playing)
        self._live_words = "● LIVE" if playing else "PAUSED"
        self.live.setText(self._live_words)

    def change_speed(self, steps: int) -> None:
        """Choose the next slower or faster speed."""
        self.speed.setCurrentIndex(min(max(self.speed.currentIndex() + steps, 0), len(SPEEDS) - 1))

    def show_time(self, time_s: float) -> None:
        """Show where the stream is."""
        self.time.setText(format_time(time_s))
        self.slider.show_time(time_s)

    def show_silent(self, silent: bool) -> None:
        """Say that a live source gives nothing at the moment."""
        self.live.setText("○ NO SIGNAL" if silent else self._live_words)
        if silent:
            self.latency.clear()

    def show_latency(self, latency_ms: float) -> None:
        """Show how long ago what is seen was seen by the camera's reader."""
        self.latency.setText(f"{latency_ms:.0f} ms behind")

    def showEvent(self, event: QShowEvent) -> None:
        """Give the changing numbers a place of constant width."""
        super().showEvent(event)
        self._make_room()

    def changeEvent(self, event: QEvent) -> None:
        """The same with words of another size."""
        super().changeEvent(event)
        if event.type() in (QEvent.Type.FontChange, QEvent.Type.StyleChange):
            self._make_room()

    def _make_room(self) -> None:
        self.time.ensurePolished()
        self.time.setMinimumWidth(self.time.fontMetrics().horizontalAdvance("00:00:00.0"))


def format_time(time_s: float) -> str:
    """Write a time as people do: `1:05.3`, `1:01:05.3`."""
    tenths = math.floor(time_s * 10 + 1e-6)
    minutes, rest = divmod(tenths, 600)
    hours, minutes = divmod(minutes, 60)
    seconds = f"{rest // 10:02d}.{rest % 10}"
    return f"{hours}:{minutes:02d}:{seconds}" if hours else f"{minutes}:{seconds}"


def _button(name: str, words: str, key: str) -> QToolButton:
    button = QToolButton()
    button.setIcon(icon(name))
    button.setAccessibleName(words)
    button.setToolTip(f"{words} ({key})")
    button.setFocusPolicy(Qt.FocusPolicy.TabFocus)
    return button
