"""Work that may take its time, done on threads of its own; the GUI thread gets the outcome and never waits."""

import contextlib
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from PySide6.QtCore import QObject, Signal

T = TypeVar("T")


class Jobs(QObject):
    """Starts threads and hands what comes of them to the thread that made this object.

    The threads do not keep the process: what hangs in a driver or a compiler is left behind.

    Args:
        parent: Qt's owner.
        beside: whose `wait` is for the threads of this object too; None for nobody's.
    """

    _outcome = Signal(object)

    def __init__(self, parent: QObject | None = None, *, beside: "Jobs | None" = None) -> None:
        super().__init__(parent)
        self._closed = False
        self._lock: threading.Lock = beside._lock if beside else threading.Lock()
        self._threads: set[threading.Thread] = beside._threads if beside else set()
        self._outcome.connect(lambda call: call())

    def start(
        self,
        name: str,
        work: Callable[[], T],
        *,
        done: Callable[[T], None] = lambda _: None,
        failed: Callable[[Exception], object] = lambda _: None,
        unwanted: Callable[[T], None] = lambda _: None,
        failed_late: Callable[[Exception], None] = lambda _: None,
    ) -> None:
        """Do `work` on a thread.

        Args:
            name: the thread's.
            work: what to do there.
            done: given the outcome, on this object's thread.
            failed: given what `work` raised, on this object's thread.
            unwanted: given the outcome on the job's thread if it came after `close`.
            failed_late: given what `work` raised on the job's thread if that was after `close`.
        """

        def run() -> None:
            try:
                outcome = work()
            except Exception as error:
                failure = error  # Python forgets `error` at the end of this block
                if not self._deliver(lambda: failed(failure)):
                    failed_late(failure)
            else:
                if not self._deliver(lambda: done(outcome)):
                    unwanted(outcome)
            finally:
                with self._lock:
                    self._threads.discard(threading.current_thread())

        thread = threading.Thread(target=run, name=f"bsdnet-view {name}", daemon=True)
        with self._lock:  # until it runs: `wait` cannot join a thread that has not been started
            thread.start()
            self._threads.add(thread)

    def close(self) -> None:
        """Deliver nothing any more."""
        with self._lock:
            self._closed = True

    def wait(self, timeout_s: float) -> bool:
        """Wait for all threads but the calling one; whether they have ended in time."""
        with self._lock:
            threads = [thread for thread in self._threads if thread is not threading.current_thread()]
        deadline = time.monotonic() + timeout_s
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        return not any(thread.is_alive() for thread in threads)

    def call_later(self, call: Callable[[], None]) -> None:
        """Have something done on this object's thread; may be called on any."""
        self._deliver(call)

    def _deliver(self, call: Callable[[], object]) -> bool:
        with self._lock:
            if self._closed:
                return False
            with contextlib.suppress(RuntimeError):  # Qt's half of this object is gone
                self._outcome.emit(call)
            return True
