"""What is remembered from one start to the next."""

from pathlib import Path
from typing import get_args

from PySide6.QtCore import QByteArray, QSettings, QStandardPaths

from app.view_geometry import ViewMode

MAX_RECENT = 8
FONT_SCALES = (1.0, 1.25, 1.5, 2.0)


class Settings:
    """Typed access to what is stored; a value that makes no sense is as if it was not there.

    Args:
        store: where it is kept; None for the user's own.
    """

    def __init__(self, store: QSettings | None = None) -> None:
        self._store = store or QSettings("bsdnet", "bsdnet-view")

    @property
    def theme(self) -> str:
        """`dark` or `light`."""
        return self._text("theme", "dark", ("dark", "light"))

    @theme.setter
    def theme(self, name: str) -> None:
        self._store.setValue("theme", name)

    @property
    def mode(self) -> ViewMode:
        """How frames are shown."""
        stored = self._store.value("mode")
        return next((mode for mode in get_args(ViewMode) if mode == stored and mode != "original"), "overlay")

    @mode.setter
    def mode(self, mode: ViewMode) -> None:
        self._store.setValue("mode", mode)

    @property
    def alpha(self) -> float:
        """Opacity of the classes, 0 to 1."""
        return self._number("alpha", 0.5, 0.0, 1.0)

    @alpha.setter
    def alpha(self, alpha: float) -> None:
        self._store.setValue("alpha", alpha)

    @property
    def font_scale(self) -> float:
        """Size of the words, 1 being the system's."""
        return self._number("font_scale", 1.0, FONT_SCALES[0], FONT_SCALES[-1])

    @font_scale.setter
    def font_scale(self, scale: float) -> None:
        self._store.setValue("font_scale", scale)

    @property
    def sidebar(self) -> bool:
        """Whether the panels are there."""
        return self._text("sidebar", "true", ("true", "false")) == "true"

    @sidebar.setter
    def sidebar(self, shown: bool) -> None:
        self._store.setValue("sidebar", "true" if shown else "false")

    @property
    def loop(self) -> bool:
        """Whether files begin again at their end."""
        return self._text("loop", "false", ("true", "false")) == "true"

    @loop.setter
    def loop(self, loop: bool) -> None:
        self._store.setValue("loop", "true" if loop else "false")

    @property
    def smooth(self) -> bool:
        """Whether masks are steadied."""
        return self._text("smooth", "false", ("true", "false")) == "true"

    @smooth.setter
    def smooth(self, smooth: bool) -> None:
        self._store.setValue("smooth", "true" if smooth else "false")

    @property
    def geometry(self) -> QByteArray:
        """Where the window was; empty at the first start."""
        value = self._store.value("geometry")
        return value if isinstance(value, QByteArray) else QByteArray()

    @geometry.setter
    def geometry(self, geometry: QByteArray) -> None:
        self._store.setValue("geometry", geometry)

    @property
    def recent(self) -> list[str]:
        """What was opened last, the newest first."""
        value = self._store.value("recent")
        entries = [value] if isinstance(value, str) else value if isinstance(value, list) else []
        return [entry for entry in entries if isinstance(entry, str) and entry][:MAX_RECENT]

    def remember(self, spec: str) -> None:
        """Put a source at the top of the recent ones. Addresses are not kept: they may hold passwords."""
        if "://" in spec:
            return
        if spec != "demo" and not spec.startswith("camera:"):
            spec = str(Path(spec).absolute())  # the next start may be in another folder
        self._store.sync()  # another viewer may have remembered something
        self._store.setValue("recent", [spec, *(entry for entry in self.recent if entry != spec)][:MAX_RECENT])

    @property
    def folder(self) -> Path:
        """Where pictures and recordings go."""
        value = self._store.value("folder")
        if isinstance(value, str) and value:
            return Path(value)
        movies = QStandardPaths.writableLocation(QStandardPaths.StandardLocation.MoviesLocation)
        return Path(movies or Path.home()) / "bsdnet"

    @folder.setter
    def folder(self, folder: Path) -> None:
        self._store.setValue("folder", str(folder))

    def save(self) -> None:
        """Write down what Qt has not written yet."""
        self._store.sync()

    def _text(self, key: str, default: str, allowed: tuple[str, ...]) -> str:
        value = self._store.value(key)
        return value if isinstance(value, str) and value in allowed else default

    def _number(self, key: str, default: float, low: float, high: float) -> float:
        value = self._store.value(key)
        try:
            number = float(str(value)) if value is not None else default
        except ValueError:
            return default
        return number if low <= number <= high else default
