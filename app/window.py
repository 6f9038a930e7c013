"""The main window: puts the parts together and connects them."""

from pathlib import Path

from PySide6.QtCore import QEvent, QObject, Qt, QTimer
from PySide6.QtGui import QCloseEvent, QDragEnterEvent, QDropEvent, QKeyEvent, QPalette, QResizeEvent
from PySide6.QtWidgets import QHBoxLayout, QMainWindow, QScrollArea, QStackedWidget, QVBoxLayout, QWidget

from app.appearance import Appearance
from app.banner import Banner
from app.class_panel import ClassPanel
from app.commands import LATE_KEYS, NEED_PICTURE, make_actions
from app.compose import Look
from app.engine_panel import EnginePanel
from app.icons import icon
from app.jobs import Jobs
from app.keeping import Keeper
from app.naming import source_name
from app.opening import Opening, dropped_source
from app.pages import ProblemPage, StartPage, WaitPage
from app.performance_panel import SAMPLES_PER_S, PerformancePanel
from app.phase import Phase
from app.player import Player
from app.problems import Problem
from app.settings import Settings
from app.shortcuts import HOLD_KEY, ShortcutSheet
from app.top_bar import TopBar
from app.transport import Transport
from app.video_widget import VideoWidget
from app.view_geometry import ViewMode

_WITH_PICTURE = (Phase.PLAYING, Phase.PAUSED, Phase.ENDED)
_SIDEBAR_LINES = 22  # width of the panels, in heights of a line
_SIDEBAR_SHARE = 0.4  # of the window's width: the most that they take, as far as they can be that narrow


class Window(QMainWindow):
    """bsdnet-view.

    Args:
        player: plays; the window ends it when it is closed.
        settings: what is remembered.
    """

    def __init__(self, player: Player, settings: Settings) -> None:
        super().__init__()
        self.player = player
        self.settings = settings
        self._jobs = Jobs(self, beside=player.jobs)  # what is being saved is waited for, but nobody is told
        self.appearance = Appearance(settings)
        self.opening = Opening(self, self._jobs)
        self.actions_by_name = make_actions(self)
        self.addActions(list(self.actions_by_name.values()))
        self._make_widgets()
        self._lay_out()
        self._connect()
        self._stats = QTimer(self)
        self._stats.setInterval(1000 // SAMPLES_PER_S)
        self._stats.timeout.connect(self._show_stats)
        self._stats.start()
        self._restore()

    def _make_widgets(self) -> None:
        self.setWindowTitle("bsdnet-view")
        self.setAcceptDrops(True)
        self.bar = TopBar(self.actions_by_name)
        self.start, self.wait, self.problem, self.video = StartPage(), WaitPage(), ProblemPage(), VideoWidget()
        self.stack = QStackedWidget()
        for page in (self.start, self.wait, self.problem, self.video):
            self.stack.addWidget(page)
        self.banner = Banner(self.stack)
        self.transport = Transport()
        self.classes, self.performance, self.engine = ClassPanel(), PerformancePanel(), EnginePanel()
        self.keeper = Keeper(self._jobs, self.settings, self.banner)
        self._silence = 0  # number of the banner's message that a live source gives nothing; 0 while it does

    def _lay_out(self) -> None:
        self.panels = QWidget()
        self.panels.setObjectName("sidebar")
        self.panels.installEventFilter(self)
        self.panels.setAttribute(Qt.WidgetAttribute.WA_StyledBackground)
        column = QVBoxLayout(self.panels)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(0)
        for panel in (self.classes, self.performance, self.engine):
            column.addWidget(panel)
        column.addStretch(1)
        self.sidebar = QScrollArea()
        self.sidebar.setWidget(self.panels)
        self.sidebar.setWidgetResizable(True)
        self.sidebar.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.sidebar.setAccessibleName("Panels")
        self.sidebar.setFocusPolicy(Qt.FocusPolicy.NoFocus)  # what is in it can have the focus

        left = QVBoxLayout()
        left.addWidget(self.stack, 1)
        left.addWidget(self.transport)
        middle = QHBoxLayout()
        middle.addLayout(left, 1)
        middle.addWidget(self.sidebar)
        central = QWidget()
        layout = QVBoxLayout(central)
        for box in (left, middle, layout):
            box.setContentsMargins(0, 0, 0, 0)
            box.setSpacing(0)
        layout.addWidget(self.bar)
        layout.addLayout(middle, 1)
        self.setCentralWidget(central)

    def _connect(self) -> None:
        player, video = self.player, self.video
        player.frame_ready.connect(self._show_frame)
        player.phase_changed.connect(self._show_phase)
        player.failed.connect(self._show_problem)
        player.notice.connect(self.banner.say)
        player.network.notice.connect(self.banner.say)
        player.silent.connect(self._show_silence)
        self.stack.currentChanged.connect(lambda _: self.banner.raise_())  # a new page comes up over all
        player.network.busy.connect(self.engine.show_busy)
        player.network.changed.connect(self._show_engine)
        player.recording.changed.connect(self._show_recording)
        player.recording.finished.connect(self._show_recorded)
        video.view_changed.connect(player.show)
        video.pointer_inside.connect(player.want_confidence)
        video.class_clicked.connect(self.classes.model.solo)
        self.classes.model.changed.connect(self._update_look)
        self.bar.mode_chosen.connect(self.set_mode)
        self.bar.alpha_chosen.connect(self.set_alpha)
        self.engine.chosen.connect(player.network.change)
        self.engine.smooth_toggled.connect(self._set_smooth)
        self.opening.chosen.connect(self.open)
        self.opening.refused.connect(self.banner.say)
        self.start.file_wanted.connect(self.opening.ask_file)
        self.start.camera_wanted.connect(self.opening.ask_camera)
        self.start.address_wanted.connect(self.opening.ask_address)
        self.start.demo_wanted.connect(lambda: self.open("demo"))
        self.start.recent_chosen.connect(self.open)
        self.problem.retry_wanted.connect(player.retry)
        self.problem.start_wanted.connect(player.close_stream)
        transport = self.transport
        transport.play_clicked.connect(player.toggle)
        transport.step_clicked.connect(player.step)
        transport.restart_clicked.connect(lambda: player.seek(0.0))
        transport.slider.sought.connect(player.seek)
        transport.slider.drag_changed.connect(player.hold)
        transport.speed_chosen.connect(player.set_speed)
        transport.loop_toggled.connect(self._set_loop)
        self.appearance.changed.connect(lambda: self._fit())

    def _restore(self) -> None:
        settings = self.settings
        self.restoreGeometry(settings.geometry)
        self.appearance.apply()
        self.start.show_recent(settings.recent)
        self.engine.show_choice(self.player.network.choice)
        self.transport.loop.setChecked(settings.loop)
        self.engine.smooth.setChecked(settings.smooth)
        self.show_sidebar(settings.sidebar)
        self.set_mode(settings.mode)
        self.set_alpha(settings.alpha)
        self._show_phase(self.player.phase)

    # What the user wants

    def open(self, spec: str) -> None:
        """Open a source; it is remembered once it plays."""
        self.player.open(spec)

    def set_mode(self, mode: ViewMode) -> None:
        """Show frames in this way."""
        self.settings.mode = mode
        self.bar.show_mode(mode)
        self._update_look()

    def set_alpha(self, alpha: float) -> None:
        """Draw the classes with this opacity, or the nearest one from 0 to 1."""
        self.settings.alpha = alpha = min(max(alpha, 0.0), 1.0)
        self.bar.show_alpha(alpha)
        self._update_look()

    def _update_look(self) -> None:
        settings = self.settings
        self.video.set_look(Look(mode=settings.mode, alpha=settings.alpha, only=self.classes.model.only))

    def _set_loop(self, loop: bool) -> None:
        self.settings.loop = self.player.loop = loop

    def _set_smooth(self, smooth: bool) -> None:
        self.settings.smooth = smooth
        self.player.set_smooth(smooth)

    def show_sidebar(self, shown: bool) -> None:
        """Show the panels where there is use for them, or never."""
        self.settings.sidebar = shown
        self.actions_by_name["sidebar"].setChecked(shown)
        self._place_parts()

    def _place_parts(self) -> None:
        """Show what stands around the picture where there is use for it, and nothing of it in full screen."""
        full, phase = self.isFullScreen(), self.player.phase
        self.bar.setVisible(not full)
        self.transport.setVisible(not full and phase in _WITH_PICTURE)
        useful = not full and phase in (*_WITH_PICTURE, Phase.FAILED)
        self.sidebar.setVisible(useful and self.settings.sidebar)
        self.actions_by_name["sidebar"].setEnabled(useful)

    def toggle_full_screen(self) -> None:
        """Give all the screen to the picture, or not."""
        self.setWindowState(self.windowState() ^ Qt.WindowState.WindowFullScreen)  # it may have been maximised
        self._place_parts()

    def show_shortcuts(self) -> None:
        """Show the sheet of all keys."""
        ShortcutSheet(self).open()

    def leave(self) -> None:
        """Leave full screen; else draw all classes."""
        if self.isFullScreen():
            self.toggle_full_screen()
        else:
            self.classes.draw_all()

    # What the player tells

    def _show_frame(self) -> None:
        composed = self.player.take()
        if composed is None:
            return
        if composed.classes != self.classes.model.classes:
            self.classes.model.set_classes(composed.classes)
        self.video.set_composed(composed)
        self.transport.show_time(composed.result.frame.time_s)
        if self.stack.currentWidget() is not self.video:
            self.stack.setCurrentWidget(self.video)
            self.video.setFocus()

    def _show_phase(self, phase: Phase) -> None:
        self.transport.set_phase(phase)
        shown = phase in _WITH_PICTURE
        for part in (self.classes, self.performance):
            part.setVisible(shown)
        self.bar.show_view_controls(shown)
        self._place_parts()
        if not shown:
            self.video.clear()
            self.performance.graph.clear()
            self.transport.set_stream(None)
        pages = {Phase.EMPTY: self.start, Phase.OPENING: self.wait, Phase.FAILED: self.problem}
        if phase in pages:
            self.stack.setCurrentWidget(pages[phase])
            pages[phase].setFocus()
        self.bar.back.setVisible(phase is not Phase.EMPTY)
        name = source_name(self.player.spec) if self.player.spec else ""
        self.wait.show_words(f"Opening {name} ..." if name else "")
        self.bar.title.setText(name or "bsdnet")
        self.setWindowTitle(f"{name} - bsdnet-view" if name else "bsdnet-view")
        if phase is Phase.PLAYING:
            self.settings.remember(self.player.spec)
            self.start.show_recent(self.settings.recent)
            self.transport.set_stream(self.player.info)
            self.transport.show_time(self.player.position_s)  # it may have been paused in the middle
            self.transport.set_phase(phase)
            self._show_engine()
        for command in NEED_PICTURE:
            self.actions_by_name[command].setEnabled(shown)

    def _show_problem(self, problem: Problem) -> None:
        self.problem.show_problem(problem)
        self.stack.setCurrentWidget(self.problem)

    def _show_silence(self, silent_s: float) -> None:
        self.video.set_faded(silent_s > 0)
        self.transport.show_silent(silent_s > 0)
        words = f"{source_name(self.player.spec)} gives no picture for {silent_s:.0f} s. Connecting again ..."
        if not silent_s:
            self.banner.withdraw(self._silence)
            self._silence = 0
        elif self._silence:
            self.banner.change(self._silence, words)
        else:
            self._silence = self.banner.say(words, stays=True)

    def _show_engine(self) -> None:
        engine, info = self.player.network.engine, self.player.info
        self.engine.show_choice(self.player.network.choice)
        self.engine.show_engine(engine, info.size if info else None)

    def _show_recording(self, path: Path | None) -> None:
        action, recording = self.actions_by_name["record"], path is not None
        action.setText("Stop recording" if recording else "Record")
        action.setToolTip("Stop recording (R)" if recording else "Record what is shown, without sound, every frame (R)")
        action.setIcon(icon("stop", QPalette.ColorRole.BrightText) if recording else icon("record"))
        self.transport.recording.setVisible(recording)

    def _show_recorded(self, path: Path) -> None:
        self.keeper.tell(f"Recorded {path.name}")

    def _show_stats(self) -> None:
        stats = self.player.stats
        self.performance.show_stats(stats, self.video.display_fps)
        composed = self.video.composed
        if stats is None or composed is None:
            return
        self.classes.model.set_shares(composed.shares)
        if not stats.signal.silent_s:
            self.transport.show_latency(stats.latency["total"].p50_ms)

    # Events

    def _fit(self, *, least: int = 0) -> None:
        """Give the panels their place, of at least so many pixels."""
        needed = self.panels.minimumSizeHint().width() + self.sidebar.verticalScrollBar().sizeHint().width()
        usual = _SIDEBAR_LINES * self.fontMetrics().height()
        self.sidebar.setFixedWidth(min(usual, max(least, needed, round(_SIDEBAR_SHARE * self.width()))))

    def keyPressEvent(self, event: QKeyEvent) -> None:
        """Take the keys that no part of the window wanted."""
        if event.key() == HOLD_KEY and not event.modifiers():
            if not event.isAutoRepeat():
                self.video.hold_original(True)
        elif event.key() in LATE_KEYS and not event.modifiers():
            self.actions_by_name[LATE_KEYS[Qt.Key(event.key())]].trigger()
        else:
            super().keyPressEvent(event)

    def keyReleaseEvent(self, event: QKeyEvent) -> None:
        """Let go of the original."""
        if event.key() == HOLD_KEY and not event.isAutoRepeat():
            self.video.hold_original(False)
        else:
            super().keyReleaseEvent(event)

    def changeEvent(self, event: QEvent) -> None:
        """Let go of the original when another window comes: the key's release goes there."""
        if event.type() is QEvent.Type.ActivationChange and not self.isActiveWindow():
            self.video.hold_original(False)
        super().changeEvent(event)

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        """Give the panels more room when they need more: not less, or the picture would change with every figure."""
        if event.type() is QEvent.Type.LayoutRequest and watched is self.panels:
            self._fit(least=self.sidebar.width())
        return super().eventFilter(watched, event)

    def resizeEvent(self, event: QResizeEvent) -> None:
        """Keep everything in its place."""
        super().resizeEvent(event)
        self._fit()

    def dragEnterEvent(self, event: QDragEnterEvent) -> None:
        """Take files and addresses."""
        if dropped_source(event.mimeData()):
            event.acceptProposedAction()

    def dropEvent(self, event: QDropEvent) -> None:
        """Open what was dropped."""
        spec = dropped_source(event.mimeData())
        if spec:
            event.acceptProposedAction()
            self.open(spec)
            if len(event.mimeData().urls()) > 1:
                self.banner.say("One at a time: the first of what was dropped is shown")

    def closeEvent(self, event: QCloseEvent) -> None:
        """Go at once; what is still at work ends behind the scenes, as `Player.closed` tells."""
        if not self.isFullScreen():
            self.settings.geometry = self.saveGeometry()
        self.settings.save()  # if a thread hangs, the process is ended before Qt would
        self._stats.stop()
        self._jobs.close()
        self.player.shutdown()
        event.accept()
