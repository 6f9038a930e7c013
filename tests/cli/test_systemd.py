"""What systemd is told, read from a socket as systemd would."""

import os
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bsdnet.stream.frame import Signal
from bsdnet.stream.stats import StatsRecorder, StreamStats
from cli.systemd import ServiceNotifier, status_line
from tests.stream.servers import serving


class Manager:
    """systemd's side of the socket."""

    def __init__(self, address: str) -> None:
        self.environment = {"NOTIFY_SOCKET": address}
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(address.replace("@", "\0", 1) if address.startswith("@") else address)
        self._socket.setblocking(False)

    def told(self) -> list[list[str]]:
        """What came since the last call: lines of every message."""
        messages = []
        while True:
            try:
                messages.append(self._socket.recv(4096).decode().split("\n"))
            except BlockingIOError:
                return messages

    def close(self) -> None:
        self._socket.close()


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Manager]:
    address = str(tmp_path / "notify") if request.param == "path" else f"@bsdnet-{uuid.uuid4()}"
    manager = Manager(address)
    yield manager
    manager.close()


class Clock:
    """`time.monotonic`, moved by hand."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def monotonic(self) -> float:
        return self.now_s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("cli.systemd.time.monotonic", clock.monotonic)
    return clock


def stats_of(written: int, *, dropped: int = 0, signal: Signal | None = None) -> StreamStats:
    recorder = StatsRecorder([("out.mp4", False)])
    recorder.start()
    for _ in range(dropped):
        recorder.frame_dropped()
    for _ in range(written):
        recorder.frame_written(0, write_s=0.001, total_s=0.040)
    return recorder.snapshot(lost=0, signal=signal or Signal(), read_ahead=0, in_flight=0, queued=(0,))


def fed(manager: Manager) -> int:
    return sum("WATCHDOG=1" in lines for lines in manager.told())


def test_ready_is_told_once_with_the_first_frame_written(manager: Manager, clock: Clock):
    notifier = ServiceNotifier(manager.environment)
    notifier.tick(stats_of(0))
    assert manager.told() == [["STATUS=no frame was written yet"]]
    for written in (1, 2):
        clock.now_s += 2
        notifier.tick(stats_of(written))
    first, second = manager.told()
    assert "READY=1" in first
    assert "READY=1" not in second
    assert not {"WATCHDOG=1"} & {*first, *second}, "nobody asked for it"


@pytest.mark.parametrize(("interval_s", "expected"), [(60, 10), (1, 20), (0.6, 34)])
def test_the_watchdog_is_fed_at_least_twice_in_its_interval(
    manager: Manager, clock: Clock, interval_s: float, expected: int
):
    notifier = ServiceNotifier(manager.environment | {"WATCHDOG_USEC": str(round(interval_s * 1e6))})
    count = 0
    for number in range(1, 1001):  # ten seconds
        notifier.tick(stats_of(1 + number // 2))
        count += fed(manager)
        clock.now_s += 0.01
    assert count == pytest.approx(expected, abs=1)


def test_a_pipeline_that_hangs_does_not_feed_it(manager: Manager, clock: Clock):
    notifier = ServiceNotifier(manager.environment | {"WATCHDOG_USEC": "2000000"})
    hung = []
    for _ in range(20):
        notifier.tick(stats_of(7))
        hung += manager.told()
        clock.now_s += 1
    assert ["WATCHDOG=1" in lines for lines in hung] == [True] + [False] * 19
    assert all(lines[0].startswith("STATUS=") for lines in hung), "but it can still be asked"
    notifier.tick(stats_of(8))
    assert fed(manager) == 1


def test_a_watchdog_for_another_process_is_not_fed(manager: Manager, clock: Clock):
    for pid, expected in ((os.getpid(), 1), (os.getpid() + 1, 0)):
        environment = manager.environment | {"WATCHDOG_USEC": "1000000", "WATCHDOG_PID": str(pid)}
        ServiceNotifier(environment).tick(stats_of(1))
        assert fed(manager) == expected


def test_the_status_line():
    assert status_line(stats_of(3, dropped=2)).endswith("fps, 3 written, 2 dropped, 0 lost, latency 40 ms (p95 40)")
    assert status_line(stats_of(3, signal=Signal(silent_s=12.4))).startswith("no signal for 12 s, ")


def test_stopping_is_the_last_word(manager: Manager, clock: Clock):
    notifier = ServiceNotifier(manager.environment)
    notifier.stopping()
    notifier.tick(stats_of(1))
    assert manager.told() == [["STOPPING=1", "STATUS=finishing the output"]]


def test_without_the_variable_no_socket_is_made(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("cli.systemd.socket.socket", lambda *_: pytest.fail("a socket was made"))
    notifier = ServiceNotifier({"WATCHDOG_USEC": "1000000"})
    notifier.tick(stats_of(1))
    notifier.stopping()


def test_a_manager_that_does_not_listen_is_named_once_and_told_later(
    tmp_path: Path, clock: Clock, caplog: pytest.LogCaptureFixture
):
    address = str(tmp_path / "notify")
    notifier = ServiceNotifier({"NOTIFY_SOCKET": address})
    notifier.tick(stats_of(1))
    notifier.tick(stats_of(2))
    assert [record.message for record in caplog.records] == [
        "systemd cannot be told how the stream is doing: No such file or directory; trying again"
    ]
    manager = Manager(address)
    notifier.tick(stats_of(3))
    assert "READY=1" in manager.told()[0]
    manager.close()


@contextmanager
def service(manager: Manager, weights: Path, *arguments: object) -> Iterator[subprocess.Popen[bytes]]:
    """The command, as systemd would start it with a watchdog of four seconds."""
    environment = os.environ | manager.environment | {"WATCHDOG_USEC": "4000000", "OMP_NUM_THREADS": "1"}
    environment.pop("WATCHDOG_PID", None)
    command = [sys.executable, "-m", "cli.run", *map(str, arguments), "--weights", str(weights), "--device", "cpu"]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        manager.close()


def test_the_command_is_ready_fed_and_stopping(weights: Path, tmp_path: Path):
    manager = Manager(str(tmp_path / "notify"))
    with service(manager, weights, "demo", "-o", tmp_path / "out.mp4", "--frames", 100_000) as process:
        lines = wait_for(manager, "WATCHDOG=1", times=3)
        assert lines.count("READY=1") == 1
        assert lines.index("READY=1") < lines.index("WATCHDOG=1")
        process.terminate()
        wait_for(manager, "STOPPING=1")
        assert process.wait(timeout=30) == 143
        assert not any("WATCHDOG=1" in more for more in manager.told())


def test_an_outage_of_the_source_is_no_hang(weights: Path, tmp_path: Path):
    manager = Manager(str(tmp_path / "notify"))
    with serving() as serve:
        server = serve("http")
        with service(manager, weights, server.address(), "-o", tmp_path / "out.mp4"):
            wait_for(manager, "READY=1")
            server.kill()
            lines = wait_for(manager, "WATCHDOG=1", times=5)
            assert any(line.startswith("STATUS=no signal for ") for line in lines)


def wait_for(manager: Manager, line: str, *, times: int = 1) -> list[str]:
    """All lines up to a message that has `line` for the `times`-th time."""
    deadline_s = time.monotonic() + 60
    lines: list[str] = []
    while lines.count(line) < times:
        assert time.monotonic() < deadline_s, lines
        lines += [told for message in manager.told() for told in message]
        time.sleep(0.02)
    return lines
