"""Lines, log messages and a progress bar on a terminal or a pipe, none of which gets into another's way."""

import logging
import os
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from tqdm import tqdm

from bsdnet.stream.frame import StreamInfo
from bsdnet.stream.stats import StreamStats

LINE_EVERY_S = 10.0
"""How often a run tells how far it is where there is no terminal for a bar."""


def tell(text: str, *, err: bool = False) -> None:
    """Write a line to stdout or stderr, above a progress bar if there is one.

    Neither characters that the terminal does not know nor a reader that has gone are a reason to lose a video: those
    are escaped, and without a reader this line and all that follow are dropped.
    """
    name = "stderr" if err else "stdout"
    stream = getattr(sys, name)
    try:
        encoding = stream.encoding or "utf-8"
        tqdm.write(text.encode(encoding, "backslashreplace").decode(encoding), file=stream)
        stream.flush()
    except OSError:
        setattr(sys, name, Path(os.devnull).open("w"))  # noqa: SIM115 - open until the end, as the one before


class LogHandler(logging.Handler):
    """Writes log records to stderr: `bsdnet-run: warning: ...`, and with `debug` when and whence they came.

    Args:
        name: the command's.
        debug: add when and whence.
    """

    def __init__(self, name: str, *, debug: bool) -> None:
        super().__init__()
        self._name = name
        self._debug = debug
        self.setFormatter(
            logging.Formatter("%(relativeCreated)7d ms %(name)s: %(message)s" if debug else "%(message)s")
        )

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record."""
        kind = "" if self._debug else f"{self._name}: {record.levelname.lower()}: "
        tell(kind + self.format(record), err=True)


class Progress:
    """A bar on a terminal; elsewhere a line every ten seconds.

    Args:
        info: the stream.
        max_frames: end of the run, if that is not the stream's.
    """

    def __init__(self, info: StreamInfo, max_frames: int | None) -> None:
        known = [count for count in (info.num_frames, max_frames) if count is not None]
        self._total = min(known, default=None)
        self._is_live = info.live
        self._bar = tqdm(
            total=self._total, unit=" frames", desc=info.name, file=sys.stderr, disable=not sys.stderr.isatty(),
            dynamic_ncols=True, leave=False,
        )  # fmt: skip
        self._line_due_s = time.monotonic() + LINE_EVERY_S

    def show(self, stats: StreamStats) -> None:
        """Show how far the stream is."""
        if not self._bar.disable:
            self._bar.update(stats.frames_out - self._bar.n)
            self._bar.set_postfix_str(self._condition(stats))
        elif time.monotonic() >= self._line_due_s:
            self._line_due_s += LINE_EVERY_S
            of_total = f" of {self._total}" if self._total else ""
            words = [f"{stats.frames_out}{of_total} frames", f"{stats.fps_out:.1f} fps", self._condition(stats)]
            tell(", ".join(filter(None, words)), err=True)

    def _condition(self, stats: StreamStats) -> str:
        """Say how a live stream is doing, and what any stream has lost."""
        words = []
        if self._is_live:
            words += [f"{stats.fps_in:.1f} fps in", f"{stats.dropped} dropped"]
            words.append(f"latency {stats.latency['total'].p50_ms:.0f} ms")
        if stats.lost:
            words.append(f"{stats.lost} lost")
        if stats.signal.silent_s:
            words.append(f"no signal for {stats.signal.silent_s:.0f} s")
        return ", ".join(words)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._bar.close()
