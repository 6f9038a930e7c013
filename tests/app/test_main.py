"""The command: its options, and that its process ends."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

import app.main
import cli.run
from app.engine import EngineChoice

ROOT = Path(__file__).parents[2]


@pytest.fixture
def ran(monkeypatch):
    """What the command would have shown."""
    calls = []
    monkeypatch.setattr(app.main, "run", lambda *arguments: calls.append(arguments) or 0)
    return calls


@pytest.mark.parametrize(
    ("arguments", "spec", "choice"),
    [
        ([], None, EngineChoice()),
        (["street.mp4"], "street.mp4", EngineChoice()),
        (["--camera", "0"], "camera:0", EngineChoice()),
        (["--camera", "/dev/v4l/by-id/front"], "camera:/dev/v4l/by-id/front", EngineChoice()),
        (["--size", "640x352"], None, EngineChoice(size=(352, 640))),
        (["--size", "seg50"], None, EngineChoice(size=(512, 1024))),
        (
            ["demo", "--weights", "s", "--device", "cpu", "--backend", "eager", "--precision", "bf16"],
            "demo",
            EngineChoice(weights="s", device="cpu", backend="eager", precision="bf16"),
        ),
    ],
)
def test_options(ran, arguments, spec, choice):
    result = CliRunner().invoke(app.main.cli, arguments)
    assert result.exit_code == 0, result.output
    assert ran == [(spec, choice, None)]


@pytest.mark.parametrize(("option", "smooth"), [("--smooth", True), ("--no-smooth", False)])
def test_smooth(ran, option, smooth):
    assert CliRunner().invoke(app.main.cli, [option]).exit_code == 0
    assert ran == [(None, EngineChoice(), smooth)]


@pytest.mark.parametrize(
    "arguments",
    [
        ["a.mp4", "--camera", "0"],
        ["--size", "640"],
        ["--size", "31x400"],
        ["--camera", "-1"],
        ["--camera", ""],
        ["--camera", __file__],
        ["--device", "gpu"],
        ["--weights", ""],
    ],
)
def test_wrong_usage(ran, arguments):
    assert CliRunner().invoke(app.main.cli, arguments).exit_code == 2
    assert not ran


@pytest.mark.parametrize(
    "wrong",
    [
        ["--device", "gpu"], ["--device", "cuda:x"], ["--weights", ""],
        ["--camera", ""], ["--camera", "-1"], ["--camera", __file__],
    ],
)  # fmt: skip
def test_what_bsdnet_run_refuses_is_refused_in_the_same_words(ran, wrong):
    ours = CliRunner().invoke(app.main.cli, ["street.mp4", *wrong])
    theirs = CliRunner().invoke(cli.run.cli, ["street.mp4", "-o", "out.mp4", *wrong])
    assert ours.exit_code == theirs.exit_code == 2
    assert ours.output.splitlines()[-1] == theirs.output.splitlines()[-1]


def test_every_option_is_explained():
    for option in app.main.cli.params:
        if isinstance(option, click.Option):
            assert option.help


def test_it_has_the_options_of_the_network_that_bsdnet_run_has():
    ours, theirs = ({option.name: option for option in command.params} for command in (app.main.cli, cli.run.cli))
    for name in ("weights", "device", "backend", "precision", "size"):
        one, other = (options[name].to_info_dict() for options in (ours, theirs))
        assert one == other


def test_the_guide_names_every_option():
    guide = (ROOT / "docs" / "viewer.md").read_text()
    for option in app.main.cli.params:
        assert f"`{option.opts[0] if isinstance(option, click.Option) else 'SOURCE'}`" in guide


def test_error_and_guide_name_the_packages_of_what_qt_leaves_to_the_system():
    guide = " ".join((ROOT / "docs" / "viewer.md").read_text().replace("\\\n", " ").split())
    assert f"apt install {app.main.SYSTEM_LIBRARIES} " in guide
    # Found missing on a bare Debian, one after the other.
    assert {"libgl1", "libglib2.0-0", "libfontconfig1", "libxcb-shape0"} <= set(app.main.SYSTEM_LIBRARIES.split())


def test_without_a_screen_it_says_so(monkeypatch, capsys):
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    with pytest.raises(SystemExit) as ended:
        app.main.main([])
    assert ended.value.code == 1
    assert capsys.readouterr().err.startswith("bsdnet-view: error: there is no screen")


HANGS = """
import sys, threading, time
import app.main
from PySide6.QtCore import QTimer

def begin(window, spec, choice):
    window.player.network._load = lambda choice: threading.Event().wait()  # as in a compiler that takes minutes
    window.player.network.choose(choice)
    QTimer.singleShot(300, lambda: (print(time.time(), flush=True), window.close()))

app.main._begin = begin
app.main.main([])
"""


RECORDS = """
import signal
from pathlib import Path

import app.main
from PySide6.QtCore import QTimer
from tests.app.stand_ins import StandInSegmenter, open_stand_in

def begin(window, spec, choice):
    player = window.player
    player._opener.open_source, player.network._load = open_stand_in, StandInSegmenter
    player.network.choose(choice)
    window.open("clip")
    player.frame_ready.connect(lambda: player.recording.start(Path({folder!r})))
    player.recording.changed.connect(lambda path: path and QTimer.singleShot(300, lambda: print("now", flush=True)))

signal.signal(signal.SIGINT, signal.default_int_handler)  # as in a terminal, whatever started the tests
signal.signal(signal.SIGHUP, signal.SIG_DFL)
app.main._begin = begin
app.main.main([])
"""


SMOOTH = """
import app.main
from PySide6.QtCore import QTimer

def begin(window, spec, choice):
    print(window.player.network.smooth)
    QTimer.singleShot(0, window.close)

app.main._begin = begin
app.main.main([{option}])
"""


def test_smooth_reaches_the_network_and_is_remembered(tmp_path):
    environment = {**os.environ, "QT_QPA_PLATFORM": "offscreen", "XDG_CONFIG_HOME": str(tmp_path)}
    shown = []
    for option in ("'--smooth'", "", "'--no-smooth'", ""):
        process = subprocess.run(
            [sys.executable, "-c", SMOOTH.format(option=option)],
            cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert process.returncode == 0, process.stderr
        shown.append(process.stdout.strip())
    assert shown == ["True", "True", "False", "False"]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows ends a process without asking it")
@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143), ("SIGHUP", 129)])
def test_a_signal_closes_the_window_and_finishes_the_recording(tmp_path, name, code):
    environment = {**os.environ, "QT_QPA_PLATFORM": "offscreen", "XDG_CONFIG_HOME": str(tmp_path)}
    folder = tmp_path / "kept"
    with subprocess.Popen(
        [sys.executable, "-c", RECORDS.format(folder=str(folder))],
        cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        try:
            assert process.stdout.readline() == "now\n"
            process.send_signal(getattr(signal, name))
            _, stderr = process.communicate(timeout=30)
        finally:
            process.kill()
    assert process.returncode == code, stderr
    assert "Traceback" not in stderr
    assert [path.suffix for path in folder.iterdir()] == [".mp4"], "with no .part beside it"


def test_a_thread_that_hangs_does_not_keep_the_process(tmp_path):
    environment = {**os.environ, "QT_QPA_PLATFORM": "offscreen", "XDG_CONFIG_HOME": str(tmp_path)}
    process = subprocess.run(
        [sys.executable, "-c", HANGS], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60
    )
    assert process.returncode == 0, process.stderr
    assert time.time() - float(process.stdout) < 20
