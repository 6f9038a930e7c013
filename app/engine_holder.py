"""The network in use: loaded, changed and given up on other threads."""

from dataclasses import replace

from PySide6.QtCore import QObject, Signal

from app.engine import Engine, EngineChoice, Load
from app.jobs import Jobs
from app.problems import Problem, engine_problem


class EngineHolder(QObject):
    """Holds one engine; a new one takes its place once it is ready, and if it cannot be had the old one stays.

    Args:
        jobs: threads.
        load: makes segmenters.
        parent: Qt's owner.
    """

    changed = Signal()
    busy = Signal(bool)
    notice = Signal(str)  # something else is used than what was asked for
    replaced = Signal(object, object)  # the old engine or None, which whoever uses it gives up; the new one
    failed = Signal(object)  # Problem: there is none at all

    def __init__(self, jobs: Jobs, load: Load, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._jobs = jobs
        self._load = load
        self._engine: Engine | None = None
        self._choice = EngineChoice()
        self._is_busy = False
        self._loading = 0  # counts calls of `choose`: only the last one's outcome is wanted
        self._confidence = True
        self._smooth = False
        self.frame_size: tuple[int, int] | None = None
        """Height and width of the frames that are playing, for which the next network is made ready; None if none."""

    @property
    def engine(self) -> Engine | None:
        """The one in use; None until the first one is loaded."""
        return self._engine

    @property
    def choice(self) -> EngineChoice:
        """What is in use, or is being loaded."""
        return self._choice if self._is_busy or self._engine is None else self._engine.choice

    def choose(self, choice: EngineChoice) -> None:
        """Load a network and change to it."""
        self._choice = choice
        self._loading += 1
        number = self._loading
        self._set_busy(True)
        frame_size = self.frame_size
        self._jobs.start(
            "load",
            lambda: Engine(choice, self._report, self._load, frame_size),
            done=lambda engine: self._loaded(number, engine),
            failed=lambda error: self._failed(number, error),
            unwanted=Engine.close,
        )

    def change(self, choice: EngineChoice) -> None:
        """Load another network, where the first one was to be: its device may have been full just once."""
        self.choose(replace(choice, device=self._choice.device))

    def want_confidence(self, wanted: bool) -> None:
        """Have confidences computed or not: they cost a tenth of a frame's time and are seen at the cursor only."""
        self._confidence = wanted
        self._tell_engine()

    @property
    def smooth(self) -> bool:
        """Whether labels are to be steadied by the frames before; read on any thread."""
        return self._smooth

    @smooth.setter
    def smooth(self, smooth: bool) -> None:
        self._smooth = smooth
        self._tell_engine()

    def _tell_engine(self) -> None:
        """A steadied frame gets its confidences at once: labelled again, it would be without its past."""
        if self._engine:
            self._engine.confidence = self._confidence or self._smooth

    def give_up(self, engine: Engine) -> None:
        """Free an engine that nobody uses any more."""
        self._jobs.start("unload", engine.close)

    def close(self) -> None:
        """Free the engine."""
        self._loading += 1
        if self._engine is not None:
            self.give_up(self._engine)

    def _report(self, words: str) -> None:
        """Pass on, from any thread, that an engine stepped down."""
        self._jobs.call_later(lambda: self.notice.emit(words))
        self._jobs.call_later(self.changed.emit)

    def _loaded(self, number: int, engine: Engine) -> None:
        if number != self._loading:
            self.give_up(engine)
            return
        old, self._engine = self._engine, engine
        self._tell_engine()
        self._set_busy(False)
        self.changed.emit()
        self.replaced.emit(old, engine)

    def _set_busy(self, busy: bool) -> None:
        self._is_busy = busy
        self.busy.emit(busy)

    def _failed(self, number: int, error: Exception) -> None:
        if number != self._loading:
            return
        self._set_busy(False)
        problem: Problem = engine_problem(error)
        if self._engine is None:
            self.failed.emit(problem)
        else:
            self.notice.emit(f"{problem.text} The network is unchanged.")
            self.changed.emit()
