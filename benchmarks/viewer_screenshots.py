"""Takes the pictures of docs/viewer.md: every state of bsdnet-view, on the drawn street, without a screen.

    QT_QPA_PLATFORM=offscreen python -m benchmarks.viewer_screenshots docs/images

They show the real network on the real pipeline; where a state needs something that a desk has not, such as a camera
that is lost, a stand-in source plays it.
"""

import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import click
from PySide6.QtCore import QCoreApplication, QEvent, QPoint, QPointF, QSettings, QSize, Qt
from PySide6.QtGui import QMouseEvent
from PySide6.QtWidgets import QApplication, QScrollArea, QWidget

from app.engine import EngineChoice
from app.phase import Phase
from app.player import Player
from app.settings import Settings
from app.shortcuts import ShortcutSheet
from app.window import Window
from bsdnet.demo_scene import DemoScene
from bsdnet.errors import SourceError
from bsdnet.stream.frame import Frame, Signal, StreamInfo
from bsdnet.stream.source import DemoSource, VideoSource, open_source

SIZE = (1280, 800)
WAIT_S = 120.0


class StandInCamera(VideoSource):
    """The drawn street as a camera that gives some frames and then falls silent."""

    def __init__(self, num_frames: int = 12) -> None:
        self._scene = DemoSource(DemoScene())
        self._info = replace(self._scene.info, name="camera 0", live=True, seekable=False, num_frames=None)
        self._num_frames = num_frames
        self._closed = threading.Event()
        self._silent_since: float | None = None

    @property
    def info(self) -> StreamInfo:
        """What is known of it."""
        return self._info

    @property
    def lost_frames(self) -> int:
        """None."""
        return 0

    @property
    def signal(self) -> Signal:
        """How long it has been silent, with a head start so that nobody has to wait."""
        silent_s = 0.0 if self._silent_since is None else time.monotonic() - self._silent_since + 4.0
        return Signal(silent_s=silent_s, outage_s=silent_s)

    def read(self) -> Frame | None:
        """Give frames, then hang."""
        frame = self._scene.read()
        if frame is None or frame.index >= self._num_frames:
            self._silent_since = time.monotonic()
            self._closed.wait()
            return None
        return frame

    def seek(self, time_s: float) -> None:
        """Raise."""
        raise SourceError("a camera has no past")

    def close(self) -> None:
        """Free the reader."""
        self._closed.set()


def open_any(spec: str) -> VideoSource:
    """Open a source, or a stand-in for a camera."""
    if spec == "camera:0":
        return StandInCamera()
    if spec == "camera:9":
        threading.Event().wait(2.0)
    return open_source(spec)


class Session:
    """A window that is led from state to state."""

    def __init__(self, folder: Path, store: Path) -> None:
        self.folder = folder
        self.settings = Settings(QSettings(str(store), QSettings.Format.IniFormat))
        self.settings.folder = store.parent
        self.player = Player(open_any)
        self.window = Window(self.player, self.settings)
        self.window.resize(*SIZE)
        self.window.show()

    def until(self, condition: Callable[[], object], what: str) -> None:
        """Let the window live until something is so."""
        end = time.monotonic() + WAIT_S
        while not condition():
            if time.monotonic() > end:
                raise TimeoutError(f"waited {WAIT_S:.0f} s in vain for: {what}")
            QApplication.processEvents()
            time.sleep(0.005)

    def rest(self, seconds: float) -> None:
        """Let the window live for a while."""
        end = time.monotonic() + seconds
        self.until(lambda: time.monotonic() > end, "the clock")

    def shoot(self, name: str, widget: QWidget | None = None) -> None:
        """Take a picture."""
        self.rest(0.4)
        suffix = "jpg" if self.window.video.composed is not None and widget is None else "png"
        path = self.folder / f"viewer-{name}.{suffix}"
        if not (widget or self.window).grab().save(str(path), quality=88 if suffix == "jpg" else 0):
            raise OSError(f"{path} cannot be written")
        print(path)

    def point(self, x: float, y: float) -> None:
        """Put the cursor on the picture, at shares of its width and height."""
        video = self.window.video
        place = QPointF(x * video.width(), y * video.height())
        none = Qt.MouseButton.NoButton
        everywhere = QPointF(video.mapToGlobal(QPoint(0, 0))) + place
        event = QMouseEvent(QEvent.Type.MouseMove, place, everywhere, none, none, Qt.KeyboardModifier.NoModifier)
        video.pointer_inside.emit(True)
        QCoreApplication.sendEvent(video, event)

    def leave(self) -> None:
        """Take the cursor off the picture."""
        QCoreApplication.sendEvent(self.window.video, QEvent(QEvent.Type.Leave))

    def frames(self, count: int) -> None:
        """Wait until so many more frames were shown."""
        start = self.window.video.composed.number if self.window.video.composed else 0
        self.until(lambda: self.window.video.composed and self.window.video.composed.number >= start + count, "frames")

    def do(self, command: str) -> None:
        """Give a command as its key would."""
        self.window.actions_by_name[command].trigger()


@contextmanager
def session(folder: Path) -> Iterator[Session]:
    """A window with settings of its own."""
    with tempfile.TemporaryDirectory() as place:
        made = Session(folder, Path(place) / "settings.ini")
        yield made
        ended: list[bool] = []
        made.player.closed.connect(ended.append)
        made.window.close()
        made.until(lambda: ended, "the end")


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
def main(folder: Path) -> None:
    """Take the pictures of docs/viewer.md and write them into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
    app = QApplication([])
    app.setQuitOnLastWindowClosed(False)
    with session(folder) as shots:
        take_all(shots)


def take_all(shots: Session) -> None:
    """Go through all states."""
    take_beginning(shots)
    take_views(shots)
    take_recording(shots)
    take_network(shots)
    take_appearance(shots)
    take_live(shots)
    sheet = ShortcutSheet(shots.window)
    sheet.show()
    area = sheet.findChild(QScrollArea)
    inner = None if area is None else area.widget()
    assert inner is not None
    sheet.resize(inner.sizeHint() + QSize(60, 60))  # wider than the screen here
    shots.shoot("shortcuts", sheet)
    sheet.close()


def take_beginning(shots: Session) -> None:
    """What is there before a picture is."""
    window, player = shots.window, shots.player
    shots.settings.remember("demo")
    window.start.show_recent(["demo", "camera:0"])
    shots.shoot("start")
    player.network.choose(EngineChoice(device="cpu"))
    shots.until(lambda: player.network.engine, "the network")
    window.open("camera:9")
    shots.shoot("opening")
    shots.until(lambda: player.phase is Phase.FAILED, "an error")
    shots.shoot("error")


def take_views(shots: Session) -> None:
    """The ways to look at a file; it goes on playing afterwards."""
    window, player = shots.window, shots.player
    window.open("demo")
    shots.until(lambda: player.phase is Phase.PLAYING, "the demo")
    shots.frames(60)  # until rates and shares have a past
    player.seek(6.2)
    shots.frames(12)
    shots.shoot("overlay")
    player.toggle()
    shots.point(0.46, 0.53)
    shots.shoot("paused-hover")
    for mode in ("mask", "side-by-side", "split"):
        shots.do(mode)
        shots.point(0.5, 0.5)
        if mode != "split":
            shots.leave()
        shots.shoot(mode)
    shots.leave()
    shots.do("overlay")
    window.classes.model.solo(8)
    shots.shoot("one-class")
    window.classes.draw_all()
    window.video.zoom_by(3.0)
    shots.shoot("zoomed")
    shots.do("fit")
    player.toggle()


def take_recording(shots: Session) -> None:
    """While a recording is made, and when it is done."""
    player = shots.player
    shots.do("record")
    shots.until(lambda: player.recording.path, "a recording")
    shots.frames(10)
    shots.shoot("recording")
    shots.do("record")
    shots.until(lambda: player.recording.path is None, "the recording's end")
    shots.shoot("recorded")
    shots.window.banner.hide()


def take_network(shots: Session) -> None:
    """What is said when a backend is not there; masks are stable from here on."""
    window = shots.window
    shots.do("smooth")
    shots.player.network.choose(EngineChoice(device="cpu", backend="tensorrt"))
    shots.until(lambda: window.banner.isVisible(), "the network")
    shots.frames(3)
    shots.shoot("fallback")
    window.banner.hide()


def take_appearance(shots: Session) -> None:
    """Light, and words of twice the size."""
    shots.do("theme")
    shots.shoot("light")
    shots.do("theme")
    for _ in range(3):
        shots.do("larger")
    shots.shoot("large-words")
    for _ in range(3):
        shots.do("smaller")


def take_live(shots: Session) -> None:
    """A camera, with a signal and without."""
    player = shots.player
    shots.window.open("camera:0")
    shots.until(lambda: player.phase is Phase.PLAYING, "the camera")
    shots.frames(6)
    shots.shoot("live")
    shots.until(lambda: player.stats and player.stats.signal.silent_s, "silence")
    shots.shoot("lost-signal")


if __name__ == "__main__":
    main()
