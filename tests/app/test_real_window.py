"""The window on a real X server: the same tests of behaviour, through Qt's xcb plugin."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TESTS = "paints_the_classes or space_bar or isolates or split_follows or clip] or hangs_for_good"


@pytest.fixture
def display() -> Iterator[str]:
    """An X server of our own, without a screen."""
    if shutil.which("Xvfb") is None:
        pytest.skip("Xvfb is not installed: on Debian, apt install xvfb libxcb-cursor0")
    read, write = os.pipe()
    command = ["Xvfb", "-displayfd", str(write), "-screen", "0", "1600x1000x24", "-nolisten", "tcp"]
    server = subprocess.Popen(command, pass_fds=(write,), stderr=subprocess.DEVNULL)
    os.close(write)
    with os.fdopen(read) as number:
        display = number.readline().strip()
    yield f":{display}"
    server.terminate()
    server.wait(10)


def test_behaves_in_a_real_window(display, tmp_path):
    environment = {**os.environ, "DISPLAY": display, "QT_QPA_PLATFORM": "xcb", "XDG_RUNTIME_DIR": str(tmp_path)}
    arguments = ["tests/app/test_window.py", "tests/app/test_closing.py", "-k", TESTS, "-q", "-p", "no:cacheprovider"]
    process = subprocess.run(
        [sys.executable, "-m", "pytest", *arguments], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    if "Could not load the Qt platform plugin" in process.stderr + process.stdout:
        pytest.skip("Qt's xcb plugin lacks system libraries: on Debian, apt install libxcb-cursor0 libxkbcommon-x11-0")
    assert process.returncode == 0, process.stdout[-3000:]
    assert " passed" in process.stdout
