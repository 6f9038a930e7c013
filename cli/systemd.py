"""What systemd is told by a service of `Type=notify`: that frames flow, that they still do, and how.

The protocol is one datagram of `NAME=value` lines (sd_notify(3)), fewer lines here than a dependency on `sdnotify` or
`systemd-python` would take to explain.
"""

import logging
import math
import os
import socket
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # PyTorch takes more than a second to import
    from bsdnet.stream.stats import StreamStats

logger = logging.getLogger(__name__)

_TELL_EVERY_S = 1.0


class ServiceNotifier:
    """Keeps systemd informed of a stream; without `NOTIFY_SOCKET` it does nothing.

    The watchdog is fed only if the main sink has written a frame since it was last fed, so it sees a hang anywhere
    between source and disk. An outage of a live source is no hang: its last picture is written again once a second.

    Args:
        environment: where `NOTIFY_SOCKET`, `WATCHDOG_USEC` and `WATCHDOG_PID` are looked up.
    """

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        address = environment.get("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address  # @ is an abstract socket
        self._watchdog_s = _watchdog_s(environment)
        self._due_s = -math.inf
        self._frames_told = 0
        self._is_ready = False
        self._is_stopping = False
        self._failed = False

    def tick(self, stats: "StreamStats") -> None:
        """Tell how the stream is doing, if it is time; to be called several times a second."""
        now_s = time.monotonic()
        if not self._address or self._is_stopping or now_s < self._due_s:
            return
        lines = [f"STATUS={status_line(stats)}"]
        if stats.frames_out and not self._is_ready:
            lines.append("READY=1")
        if stats.frames_out > self._frames_told and self._watchdog_s is not None:
            lines.append("WATCHDOG=1")
        if self._send(lines):
            self._due_s = now_s + min(_TELL_EVERY_S, (self._watchdog_s or math.inf) / 2)
            self._is_ready = stats.frames_out > 0
            self._frames_told = stats.frames_out

    def stopping(self) -> None:
        """Tell that the outputs are being finished: from now on `TimeoutStopSec` counts instead of the watchdog."""
        self._is_stopping = True
        if self._address:
            self._send(["STOPPING=1", "STATUS=finishing the output"])

    def _send(self, lines: list[str]) -> bool:
        """Send, or give False: a manager that does not listen must neither end nor delay a recording."""
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as connection:
                connection.setblocking(False)
                connection.sendto("\n".join(lines).encode(), self._address)
        except OSError as error:
            if not self._failed:
                logger.warning("systemd cannot be told how the stream is doing: %s; trying again", error.strerror)
            self._failed = True
            return False
        return True


def status_line(stats: "StreamStats") -> str:
    """Say in one line how a stream is doing."""
    if not stats.frames_out:
        return "no frame was written yet"
    total = stats.latency["total"]
    parts = [
        f"{stats.fps_out:.1f} fps",
        f"{stats.frames_out} written",
        f"{stats.dropped} dropped",
        f"{stats.lost} lost",
        f"latency {total.p50_ms:.0f} ms (p95 {total.p95_ms:.0f})",
    ]
    if stats.signal.silent_s:
        parts.insert(0, f"no signal for {stats.signal.silent_s:.0f} s")
    return ", ".join(parts)


def _watchdog_s(environment: Mapping[str, str]) -> float | None:
    """Give the seconds within which the watchdog is to be fed; None if nobody waits for this process to do it."""
    if environment.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    microseconds = environment.get("WATCHDOG_USEC", "")
    return int(microseconds) / 1_000_000 if microseconds.isdecimal() and int(microseconds) else None
