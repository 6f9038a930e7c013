"""Small parts: settings, names, cameras, words for problems, icons."""

import errno
import sys
from pathlib import Path

import pytest
from PySide6.QtCore import QObject, QSettings, QSize, Signal, qInstallMessageHandler
from PySide6.QtGui import QIcon
from PySide6.QtWidgets import QLabel

from app.cameras import Camera, list_cameras
from app.icons import NAMES, _Engine, icon
from app.naming import new_path, source_name
from app.performance_panel import graph_top
from app.problems import engine_problem, sentence, source_problem
from app.settings import MAX_RECENT, Settings
from app.transport import format_time
from bsdnet.errors import BackendError, CheckpointError, SourceError


@pytest.fixture
def store(tmp_path: Path) -> QSettings:
    return QSettings(str(tmp_path / "settings.ini"), QSettings.Format.IniFormat)


def test_settings_survive(store):
    first = Settings(store)
    first.alpha, first.mode, first.theme, first.font_scale, first.sidebar, first.loop = (
        0.3,
        "split",
        "light",
        2.0,
        False,
        True,
    )
    first.remember("a.mp4")
    store.sync()
    second = Settings(QSettings(store.fileName(), QSettings.Format.IniFormat))
    found = (second.alpha, second.mode, second.theme, second.font_scale, second.sidebar, second.loop)
    assert found == (0.3, "split", "light", 2.0, False, True)
    assert second.recent == [str(Path("a.mp4").absolute())]  # it may be started in another folder


def test_nonsense_in_the_settings_is_as_nothing(store):
    for key, value in (("alpha", "7"), ("mode", "sideways"), ("theme", "pink"), ("font_scale", "x"), ("recent", 3)):
        store.setValue(key, value)
    settings = Settings(store)
    assert (settings.alpha, settings.mode, settings.theme, settings.font_scale) == (0.5, "overlay", "dark", 1.0)
    assert settings.recent == []
    assert settings.geometry.isEmpty()


def test_recent_sources_are_few_and_each_is_there_once(store):
    settings = Settings(store)
    for number in range(20):
        settings.remember(f"{number}.mp4")
    settings.remember("15.mp4")
    assert [Path(entry).name for entry in settings.recent[:3]] == ["15.mp4", "19.mp4", "18.mp4"]
    assert len(settings.recent) == MAX_RECENT


def test_what_another_viewer_remembers_is_kept(tmp_path):
    path = tmp_path / "settings.ini"
    settings = Settings(QSettings(str(path), QSettings.Format.IniFormat))
    assert settings.recent == []
    path.write_text("[General]\nrecent=/x/other.mp4\n")
    settings.remember("/x/street.mp4")
    assert settings.recent == ["/x/street.mp4", "/x/other.mp4"]


def test_addresses_are_not_remembered(store):
    settings = Settings(store)
    settings.remember("rtsp://user:secret@camera/1")
    assert settings.recent == []
    settings.remember("demo")
    settings.remember("camera:1")
    assert settings.recent == ["camera:1", "demo"]


def test_names_tell_no_secrets():
    assert source_name("rtsp://user:secret@camera/1") == "rtsp stream"
    assert source_name("/data/street.mp4") == "street.mp4"
    assert source_name("camera:1") == "Camera 1"


def test_new_files_never_take_an_old_name(tmp_path, monkeypatch):
    first = new_path(tmp_path / "new", "/x/My street!.mp4", ".png")
    assert first.name.startswith("my-street-")
    first.touch()
    names = {new_path(tmp_path / "new", "/x/My street!.mp4", ".png") for _ in range(3)}
    assert first not in names


def test_a_file_of_the_longest_name_can_be_kept_from(tmp_path):
    path = new_path(tmp_path, f"/data/{'x' * 251}.mp4", ".mp4")
    path.with_name(path.name + ".part").touch()
    assert path.name.startswith("xxxx")


@pytest.mark.skipif(sys.platform != "linux", reason="Linux lists cameras in a folder")
def test_lists_the_cameras_that_give_pictures(tmp_path):
    for node, name, index in (("video2", "Front", "0"), ("video3", "Front", "1"), ("video0", "Rear", "0")):
        (tmp_path / node).mkdir()
        (tmp_path / node / "name").write_text(name + "\n")
        (tmp_path / node / "index").write_text(index + "\n")
    assert list_cameras(tmp_path) == [Camera(number=0, name="Rear"), Camera(number=2, name="Front")]
    assert list_cameras(tmp_path / "nowhere") == []


@pytest.mark.parametrize(
    ("spec", "title"),
    [
        ("camera:77", "The camera gives no picture"),
        ("rtsp://x/1", "The stream cannot be opened"),
        ("nowhere.mp4", "There is no such file"),
        ("x" * 5000, "There is no such file"),  # the name is too long to ask for
        (__file__, "This cannot be shown"),
    ],
)
def test_problems_with_sources_have_titles_and_advice(spec, title):
    problem = source_problem(spec, SourceError("it is\nbroken"))
    assert problem.title == title
    assert problem.text == "It is broken."
    assert problem.advice


def test_an_empty_folder_is_not_said_to_be_damaged(tmp_path):
    problem = source_problem(str(tmp_path), SourceError("it holds no image"))
    assert problem.title == "There is nothing to show in this folder"


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (SourceError("rtsp://host: connection refused"), "rtsp://host: connection refused."),
        (SourceError("the stream has ended"), "The stream has ended."),
        (FileNotFoundError(2, "No such file or directory", "/x"), "/x: No such file or directory."),
    ],
)
def test_errors_as_sentences(error, text):
    assert sentence(error) == text


def test_a_file_that_may_not_be_read(tmp_path, monkeypatch):
    monkeypatch.setattr("app.problems.os.access", lambda path, mode: False)
    path = tmp_path / "a.mp4"
    path.touch()
    assert source_problem(str(path), SourceError("denied")).title == "No permission to read this file"


def test_a_folder_that_may_not_be_looked_into(tmp_path, monkeypatch):
    def refuse(path, **_options):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr("app.problems.os.stat", refuse)
    path = str(tmp_path / "a.mp4")
    problem = source_problem(path, PermissionError(errno.EACCES, "Permission denied", path))
    assert problem.title == "No permission to read this file"
    assert problem.text == f"{path}: Permission denied."


def test_a_camera_that_may_not_be_used(monkeypatch):
    monkeypatch.setattr("app.problems._camera_is_forbidden", lambda device: True)
    problem = source_problem("camera:0", SourceError("cannot be opened"))
    assert problem.title == "No permission to use the camera"
    assert "video" in problem.advice


def test_problems_with_networks():
    assert engine_problem(CheckpointError("x")).title == "These weights cannot be used"
    assert engine_problem(BackendError("x")).title == "The network cannot be run"


def test_errors_that_nobody_expected_are_said_too():
    assert source_problem("x", ZeroDivisionError("oops")).text == "ZeroDivisionError: oops."


@pytest.mark.parametrize(
    ("time_s", "text"), [(0, "0:00.0"), (65.34, "1:05.3"), (3665.3, "1:01:05.3"), (59.99, "0:59.9")]
)
def test_times(time_s, text):
    assert format_time(time_s) == text


def test_the_graph_has_a_round_top():
    assert graph_top(0) == 10
    assert graph_top(31) == 60
    assert graph_top(1e6) == 1e6


@pytest.mark.parametrize("name", NAMES)
def test_every_icon_draws_something(qapp, name):
    image = icon(name).pixmap(QSize(32, 32)).toImage()
    drawn = sum(image.pixelColor(x, y).alpha() > 0 for x in range(32) for y in range(32))
    assert 20 < drawn < 700


def test_an_icon_without_room_is_nothing(qapp, monkeypatch):
    said = []
    qInstallMessageHandler(lambda kind, context, words: said.append(words))
    assert icon("play").pixmap(QSize(0, 0)).isNull()
    _Engine("play", None).pixmap(QSize(0, 5), QIcon.Mode.Normal, QIcon.State.Off)
    qInstallMessageHandler(None)
    assert said == []


def test_this_qt_counts_references(qapp):
    """PySide6 6.12.0 gives away one reference to None or True with each call on Python 3.11: minutes until a crash."""

    class Sender(QObject):
        sent = Signal()

    sender = Sender()
    sender.sent.connect(lambda: None)
    before = [sys.getrefcount(constant) for constant in (None, True)]
    for _ in range(200):
        sender.sent.emit()
        QLabel().setText("")
    after = [sys.getrefcount(constant) for constant in (None, True)]
    assert all(later > earlier - 100 for earlier, later in zip(before, after, strict=True))
