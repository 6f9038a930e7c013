"""The window on a real X server: the same tests of behaviour, through Qt's xcb plugin."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LIBRARIES = "xvfb libxcb-cursor0 libxcb-icccm4 libxcb-keysyms1"
PROBE = "from PySide6.QtWidgets import QApplication; QApplication([])"
TESTS = "paints_the_classes or space_bar or isolates or split_follows or clip] or hangs_for_good"


@pytest.fixture
def display() -> Iterator[str]:
    """An X server of our own, without a screen."""
    if shutil.which("Xvfb") is None:
        pytest.skip(f"Xvfb is not installed: on Debian, apt install {LIBRARIES}")
    read, write = os.pipe()
    command = ["Xvfb", "-displayfd", str(write), "-screen", "0", "1600x1000x24", "-nolisten", "tcp"]
    server = subprocess.Popen(command, pass_fds=(write,), stderr=subprocess.DEVNULL)
    os.close(write)
    with os.fdopen(read) as number:
        display = number.readline().strip()
    environment = {**os.environ, "DISPLAY": f":{display}", "QT_QPA_PLATFORM": "xcb"}
    probe = subprocess.run([sys.executable, "-c", PROBE], env=environment, capture_output=True)
    try:
        if probe.returncode:  # Qt aborts the process that has not all libraries
            pytest.skip(f"Qt cannot use an X server here: on Debian, apt install {LIBRARIES}")
        yield f":{display}"
    finally:
        server.terminate()
        server.wait(10)


@pytest.mark.slow
def test_behaves_in_a_real_window(display, tmp_path):
    environment = {**os.environ, "DISPLAY": display, "QT_QPA_PLATFORM": "xcb", "XDG_RUNTIME_DIR": str(tmp_path)}
    arguments = ["tests/app/test_window.py", "tests/app/test_closing.py", "-k", TESTS, "-q", "-p", "no:cacheprovider"]
    process = subprocess.run(
        [sys.executable, "-m", "pytest", *arguments], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert process.returncode == 0, process.stdout[-3000:] + process.stderr[-3000:]
    assert " passed" in process.stdout
