"""Ending a stream in good order on Ctrl-C, SIGTERM, and when the terminal is closed."""

import signal
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from bsdnet.stream.pipeline import StreamPipeline

_HANGUP = getattr(signal, "SIGHUP", None)  # Windows has none
_STOPPING = [number for number in (signal.SIGINT, signal.SIGTERM, _HANGUP) if number is not None]


class StopSignals:
    """While it is entered, SIGINT, SIGTERM and SIGHUP are only noted; `obey` acts on them.

    A handler may interrupt the code of any lock and any half-written line, so it must not do more. What is ignored
    already stays so: nohup and shells' background jobs ask for that.
    """

    def __init__(self) -> None:
        self._came: list[signal.Signals] = []
        self._num_obeyed = 0

    def obey(self, pipeline: "StreamPipeline") -> str | None:
        """Let the first signal finish what was read, and the second one drop it.

        Returns:
            What to tell the user, or None if no signal came since the last call.
        """
        if len(self._came) == self._num_obeyed:
            return None
        self._num_obeyed = len(self._came)
        name = self._came[-1].name
        if self._num_obeyed > 1 or not pipeline.stats.frames_in:
            pipeline.stop(timeout_s=0)
            return f"{name}: stopping at once"
        pipeline.stop(finish=True, timeout_s=0)
        return f"{name}: finishing the output; once more to stop at once"

    @property
    def exit_code(self) -> int | None:
        """What a shell expects of a command that the first signal has ended; None if none did."""
        return 128 + self._came[0] if self._num_obeyed else None

    def __enter__(self) -> Self:
        heeded = [number for number in _STOPPING if signal.getsignal(number) is not signal.SIG_IGN]
        self._before = {number: signal.signal(number, self._note) for number in heeded}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if number != _HANGUP or number not in self._came:  # both the system and the shell tell that a terminal closed
            self._came.append(signal.Signals(number))
