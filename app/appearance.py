"""Theme and size of words, changed while the program runs."""

from PySide6.QtCore import QObject, Signal
from PySide6.QtWidgets import QApplication

from app.settings import FONT_SCALES, Settings
from app.theme import THEMES, apply_theme


class Appearance(QObject):
    """Dresses the program as the settings say."""

    changed = Signal()

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self._settings = settings
        app = QApplication.instance()
        if not isinstance(app, QApplication):
            raise RuntimeError("a window needs a QApplication")
        self._app = app
        self._usual_pt = _usual_size(self._app)

    def apply(self) -> None:
        """Dress the program."""
        font = self._app.font()
        font.setPointSizeF(self._usual_pt * self._settings.font_scale)
        self._app.setFont(font)
        apply_theme(self._app, THEMES[self._settings.theme])
        self.changed.emit()

    def toggle_theme(self) -> None:
        """Change between dark and light."""
        self._settings.theme = "light" if self._settings.theme == "dark" else "dark"
        self.apply()

    def change_size(self, steps: int) -> None:
        """Make words larger or smaller."""
        nearest = min(range(len(FONT_SCALES)), key=lambda i: abs(FONT_SCALES[i] - self._settings.font_scale))
        self._settings.font_scale = FONT_SCALES[min(max(nearest + steps, 0), len(FONT_SCALES) - 1)]
        self.apply()


def _usual_size(app: QApplication) -> float:
    """The system's own size of words in points, remembered at the first window so that it is not scaled twice."""
    stored = app.property("usual_pt")
    if isinstance(stored, float):
        return stored
    usual = app.font().pointSizeF()
    app.setProperty("usual_pt", usual)
    return usual
