"""Live servers in processes of their own, for tests and benchmarks."""

import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import pytest

SERVERS = Path(__file__).parent
SYSTEM_PYTHON = "/usr/bin/python3"


@cache
def why_no_gstreamer() -> str | None:
    probe = "import gi; gi.require_version('GstRtspServer', '1.0'); from gi.repository import Gst, GstRtspServer;"
    probe += "Gst.init(None); assert all(map(Gst.ElementFactory.find, ['x264enc', 'rtph264pay', 'appsrc']))"
    if not Path(SYSTEM_PYTHON).exists():
        return f"there is no {SYSTEM_PYTHON}"
    found = subprocess.run([SYSTEM_PYTHON, "-c", probe], capture_output=True, text=True, timeout=30)
    return None if found.returncode == 0 else f"GStreamer's RTSP server: {found.stderr.strip().splitlines()[-1]}"


class Server:
    """A server process of one kind, which can be killed and started again on its port."""

    def __init__(self, kind: str, **options: object) -> None:
        self.kind = kind
        self._options = [text for name, value in options.items() for text in (f"--{name}", str(value))]
        self.port = free_udp_port() if kind == "udp" else 0
        self.start()

    def start(self) -> None:
        command = (
            [SYSTEM_PYTHON, SERVERS / "rtsp_server.py", self.port]
            if self.kind == "rtsp"
            else [sys.executable, SERVERS / "live_server.py", self.kind, self.port]
        )
        self._process = subprocess.Popen(
            [*map(str, command), *self._options], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        assert self._process.stdout is not None
        self._said = self._process.stdout
        self.port = int(self._said.readline())

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        self._said.close()

    def address(self, path: str = "live", *, login: str = "") -> str:
        return f"{self.kind}://{login}127.0.0.1:{self.port}" + (f"/{path}" if self.kind in ("http", "rtsp") else "")


def free_udp_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


@contextmanager
def serving() -> Iterator[Callable[..., Server]]:
    """Give a function that starts servers, all of which are killed at the end."""
    servers: list[Server] = []

    def make(kind: str, **options: object) -> Server:
        if kind == "rtsp" and (reason := why_no_gstreamer()):
            pytest.skip(reason)
        servers.append(Server(kind, **options))
        return servers[-1]

    try:
        yield make
    finally:
        for server in servers:
            server.kill()
