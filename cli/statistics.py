"""Statistics of a run for others: a line a second in a file, and an address for Prometheus."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:  # PyTorch takes more than a second to import
    from bsdnet.stream.report import StatsFile, StreamReport
    from cli.metrics import MetricsServer

LINE_EVERY_S = 1.0
"""How often a line is written."""


class Statistics:
    """Where statistics go; open from before the first stream to after the last one.

    Args:
        path: file for JSON lines; None for none.
        host: address to listen on for Prometheus.
        port: its port; None for not at all.

    Raises:
        BsdnetError: the file cannot be written, the port not be had, or a package is missing.
    """

    def __init__(self, path: Path | None, *, host: str, port: int | None) -> None:
        self._report: Callable[[], StreamReport] | None = None
        self._due_s = 0.0
        with ExitStack() as stack:
            self._file = None if path is None else stack.enter_context(_open_file(path))
            self._server = None if port is None else stack.enter_context(_open_server(host, port))
            self._stack = stack.pop_all()

    @contextmanager
    def follow(self, report: "Callable[[], StreamReport]") -> Iterator[None]:
        """Tell of one stream; its last line is written at the end, however it ends."""
        self._report = report
        self._due_s = time.monotonic() + LINE_EVERY_S
        if self._server is not None:
            self._server.follow(report)
        try:
            yield
        finally:
            self._write()
            self._report = None
            if self._server is not None:
                self._server.follow(None)

    def tick(self) -> None:
        """Write a line if one is due."""
        now_s = time.monotonic()
        if now_s >= self._due_s:
            next_s = self._due_s + LINE_EVERY_S
            self._due_s = next_s if next_s > now_s else now_s + LINE_EVERY_S  # after a stall, from now on
            self._write()

    def _write(self) -> None:
        if self._file is not None and self._report is not None:
            self._file.write(self._report().as_record())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()


def _open_file(path: Path) -> "StatsFile":
    from bsdnet.stream.report import StatsFile

    return StatsFile(path)


def _open_server(host: str, port: int) -> "MetricsServer":
    from cli.metrics import MetricsServer

    return MetricsServer(host, port)
