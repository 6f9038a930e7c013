import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")  # before Qt is asked for a window

from PySide6.QtCore import QSettings
from pytestqt.qtbot import QtBot

from app.engine import EngineChoice
from app.phase import Phase
from app.player import Player
from app.settings import Settings
from app.window import Window

from .stand_ins import StandInSegmenter, open_stand_in

WAIT_MS = 10_000
Start = Callable[[str], Window]


def viewer_threads() -> list[threading.Thread]:
    """Threads that the viewer or its pipeline started."""
    return [thread for thread in threading.enumerate() if thread.name.startswith(("bsdnet ", "bsdnet-view"))]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    settings = Settings(QSettings(str(tmp_path / "settings.ini"), QSettings.Format.IniFormat))
    settings.folder = tmp_path / "kept"
    return settings


@pytest.fixture
def loads() -> list[StandInSegmenter]:
    """Every segmenter that was loaded."""
    return []


@pytest.fixture
def player(qtbot: QtBot, loads: list[StandInSegmenter]) -> Iterator[Player]:
    def load(choice: EngineChoice) -> StandInSegmenter:
        loads.append(StandInSegmenter(choice))
        return loads[-1]

    player = Player(open_stand_in, load)
    ended: list[bool] = []
    player.closed.connect(ended.append)
    yield player
    player.shutdown()
    qtbot.waitUntil(lambda: bool(ended), timeout=WAIT_MS)


@pytest.fixture
def window(qtbot: QtBot, player: Player, settings: Settings) -> Window:
    window = Window(player, settings)
    qtbot.addWidget(window)
    window.resize(1000, 640)
    window.show()
    return window


@pytest.fixture
def start(qtbot: QtBot, window: Window) -> Start:
    """Open a source in the window and wait until its first picture is there."""

    def start(spec: str) -> Window:
        if window.player.network.engine is None:
            window.player.network.choose(EngineChoice(device="cpu"))
        window.open(spec)
        qtbot.waitUntil(  # a short one may have ended by now
            lambda: window.video.composed is not None and bool(window.video.composed.tiles), timeout=WAIT_MS
        )
        return window

    return start


@pytest.fixture
def playing(qtbot: QtBot, player: Player) -> Player:
    """The player at work on a clip; pictures are fetched as a window does."""
    player.frame_ready.connect(player.take)
    player.network.choose(EngineChoice(device="cpu"))
    player.open("clip")
    qtbot.waitUntil(lambda: player.phase is Phase.PLAYING, timeout=WAIT_MS)
    return player


def until_still(qtbot: QtBot, player: Player) -> None:
    """Wait until what is on its way in a paused pipeline has come through."""
    seen, now = None, (player.stats.frames_out, player.position_s)
    while now != seen:
        seen = now
        qtbot.wait(400)
        now = player.stats.frames_out, player.position_s


def until_written(qtbot: QtBot, player: Player, frames: int) -> None:
    """Wait until so many more frames went to the sinks."""
    start = player.stats.frames_out
    qtbot.waitUntil(lambda: player.stats.frames_out >= start + frames, timeout=WAIT_MS)
