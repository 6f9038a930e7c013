"""Keeping up a connection to something live: a reader that can be left behind, a watchdog, and reconnecting."""

import logging
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from bsdnet.errors import ConfigError, SourceError
from bsdnet.picture import Picture
from bsdnet.stream.frame import Signal

_CLOSE_TIMEOUT_S = 1.0
_MAX_LEFT_BEHIND = 4  # each reader that hangs holds a thread and a connection: do not pile them up for ever

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class ReconnectPolicy:
    """How patient a live source is, in seconds.

    Raises:
        ConfigError: a time is not positive, or the longest delay is shorter than the first.
    """

    open_s: float = 10.0
    """Longest wait for the other side to answer."""
    silence_s: float = 20.0
    """After so long without a picture a connection counts as lost, whatever it says."""
    notice_s: float = 2.0
    """After so long without a picture the last one is shown again, marked, and the time counts as outage."""
    first_delay_s: float = 0.5
    """Wait before the first attempt to reconnect; each further wait is twice as long."""
    longest_delay_s: float = 30.0
    """Where the doubling ends."""
    stable_s: float = 10.0
    """After pictures came for so long, the next loss begins with the first delay again."""

    def __post_init__(self) -> None:
        """Reject what cannot work."""
        for name in self.__slots__:
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} is {getattr(self, name)}; expected more than 0 seconds")
        if self.longest_delay_s < self.first_delay_s:
            raise ConfigError(f"longest_delay_s is {self.longest_delay_s}, which is less than first_delay_s")


DEFAULT_POLICY = ReconnectPolicy()


class Backoff:
    """Exponential back-off with jitter, so that many clients do not come back to a server all at once.

    Args:
        policy: first and longest delay, and when to begin anew.
    """

    def __init__(self, policy: ReconnectPolicy) -> None:
        self._policy = policy
        self._step_s = policy.first_delay_s

    def delay_s(self, connected_s: float) -> float:
        """How long to wait now: half of the current step to all of it.

        Args:
            connected_s: for how long pictures came before the connection was lost; 0 if none came.
        """
        if connected_s >= self._policy.stable_s:
            self._step_s = self._policy.first_delay_s
        step_s = self._step_s
        self._step_s = min(2 * step_s, self._policy.longest_delay_s)
        return random.uniform(step_s / 2, step_s)


@dataclass(frozen=True, kw_only=True, slots=True)
class LivePicture:
    """What a connection received."""

    convert: Callable[[], Picture]
    """Makes the picture; called only for pictures that somebody reads, on the thread of who reads them."""
    captured_at_s: float
    """When it was captured, as far as this machine can tell, on the clock of `time.perf_counter`."""
    time_s: float = 0.0
    """Presentation time from the start of a recording."""
    lost: int = 0
    """Pictures just before this one that could not be decoded."""


class Connection(Protocol):
    """One connection to a camera or a server: made, read and closed by one thread. All three may hang for ever."""

    @property
    def fps(self) -> float:
        """Frames per second, as announced."""
        ...

    @property
    def is_recording(self) -> bool:
        """Whether it knows of its own end: then no picture is left out, and the end is no outage."""
        ...

    def read(self) -> LivePicture | None:
        """Wait for the next picture; None when the other side has ended the stream.

        Raises:
            SourceError: the connection is lost; the message says why in half a sentence.
        """
        ...

    def close(self) -> None:
        """Give everything back."""
        ...


class _Link:
    """A connection as the receiver sees it."""

    def __init__(self) -> None:
        self.started_at_s = time.perf_counter()
        self.first_at_s: float | None = None
        """When its first picture came."""
        self.ended = False
        """Whether the other side has ended the stream."""
        self.lost: str | None = None
        """Why there are no more pictures, or none are wanted."""
        self.thread: threading.Thread | None = None


class Receiver:
    """Keeps the newest picture of a connection, which is made again whenever it is lost.

    Each connection has a thread of its own, which alone makes, reads and closes it: FFmpeg crashes if a container is
    closed under a reader. One that hangs is left behind. Another thread only watches and waits, so it never hangs.

    A recording is read to its end, each picture waiting until the one before was taken, and not connected to again.

    Args:
        name: for people; without credentials.
        connect: makes a connection, or raises SourceError saying why not in half a sentence.
        policy: how patient to be.
    """

    def __init__(self, name: str, connect: Callable[[], Connection], policy: ReconnectPolicy) -> None:
        self._name = name
        self._connect = connect
        self._policy = policy
        self._changed = threading.Condition()
        self._newest: LivePicture | None = None
        self._num_received = 0
        self._last_at_s = 0.0  # when the newest picture came
        self._link = _Link()
        self._ended = False
        self._error: Exception | None = None
        self._closed_at_s: float | None = None
        self._reconnects = 0
        self._outage_s = 0.0
        self.fps = 0.0
        """Frames per second, as the first connection announced them."""
        self.is_recording = False
        """Whether the first connection was one to a recording."""
        self.lost_frames = 0
        """Pictures that could not be decoded."""
        threading.Thread(target=self._keep_connected, name=f"{name} watchdog", daemon=True).start()

    @property
    def signal(self) -> Signal:
        """How well pictures come in; after `close`, how they did then."""
        with self._changed:
            silent_s = self._silence_s()
            if not self._num_received or self.is_recording or silent_s < self._policy.notice_s:
                silent_s = 0.0
            return Signal(reconnects=self._reconnects, outage_s=self._outage_s + silent_s, silent_s=silent_s)

    @property
    def silence_s(self) -> float:
        """Seconds since the newest picture came."""
        with self._changed:
            return self._silence_s()

    @property
    def is_over(self) -> bool:
        """Whether no picture will come any more."""
        with self._changed:
            return self._is_over()

    def peek(self) -> LivePicture | None:
        """Wait for the first picture and leave it there; None if there is none before the end.

        Raises:
            SourceError: the first connection did not come about.
        """
        with self._changed:
            self._wait(None)
            return self._newest

    def take(self, timeout_s: float | None) -> tuple[LivePicture, int] | None:
        """Wait for a picture that was not taken yet.

        Returns:
            The picture and its number, counting from 0 those that nobody took too; None if none came in time, at the
            end of a recording, and after `close`.

        Raises:
            SourceError: a recording broke off.
        """
        with self._changed:
            self._wait(timeout_s)
            if self._newest is None or self._closed_at_s is not None:
                return None
            picture, self._newest = self._newest, None
            if self.is_recording:
                self._last_at_s = time.perf_counter()  # it could not send the next one earlier
                self._changed.notify_all()
            return picture, self._num_received - 1

    def close(self) -> None:
        """Stop; a reader that hangs is left behind after a second."""
        with self._changed:
            if self._closed_at_s is None:
                self._closed_at_s = time.perf_counter()
            thread = self._link.thread
            self._changed.notify_all()
        if thread is not None:
            thread.join(_CLOSE_TIMEOUT_S)

    # With the lock held

    def _silence_s(self) -> float:
        now_s = time.perf_counter() if self._closed_at_s is None else self._closed_at_s
        return now_s - self._last_at_s

    def _is_over(self) -> bool:
        return self._ended or self._error is not None or self._closed_at_s is not None

    def _wait(self, timeout_s: float | None) -> None:
        self._changed.wait_for(lambda: self._newest is not None or self._is_over(), timeout_s)
        if self._newest is None and self._error is not None and self._closed_at_s is None:
            raise self._error

    # The thread of a connection

    def _receive(self, link: _Link) -> None:
        try:
            reason = self._read_all(link)
        except SourceError as error:
            reason = str(error)
        except Exception as error:  # no matter of the connection: trying again would hide it
            reason = "it failed"
            with self._changed:
                if link.lost is None:  # else it was left behind, and another one is there
                    self._error = error
        with self._changed:
            link.lost = link.lost or reason
            self._changed.notify_all()

    def _read_all(self, link: _Link) -> str:
        """Read until the connection ends, or is not wanted any more; says why there are no more pictures."""
        connection = self._connect()
        try:
            with self._changed:
                if not self._num_received:
                    self.fps, self.is_recording = connection.fps, connection.is_recording
            while (picture := connection.read()) is not None:
                if not self._put(link, picture):
                    return "not wanted any more"
            link.ended = True
            return "the other side ended the stream"
        finally:
            connection.close()

    def _put(self, link: _Link, picture: LivePicture) -> bool:
        """Put a picture where the last one was; False if this connection is not wanted any more."""
        with self._changed:
            if self.is_recording:
                self._changed.wait_for(lambda: self._newest is None or self._is_over() or link.lost is not None)
            if self._is_over() or link.lost is not None:
                return False
            is_back = self._num_received > 0 and link.first_at_s is None
            silence_s = self._silence_s()
            if is_back or (self._num_received and not self.is_recording and silence_s >= self._policy.notice_s):
                self._outage_s += silence_s
            self._reconnects += is_back
            self._last_at_s = time.perf_counter()
            link.first_at_s = link.first_at_s or self._last_at_s
            self._newest = picture
            self._num_received += 1
            self.lost_frames += picture.lost
            self._changed.notify_all()
        if is_back:
            logger.warning("%s is back after %.1f s", self._name, silence_s)
        return True

    # The thread that watches

    def _keep_connected(self) -> None:
        backoff = Backoff(self._policy)
        left_behind: list[threading.Thread] = []
        while (link := self._start_link()) is not None:
            reason = self._wait_until_lost(link)
            if reason is None:
                return
            connected_s = self._last_at_s - link.first_at_s if link.first_at_s is not None else 0.0
            delay_s = backoff.delay_s(connected_s)
            (logger.info if link.first_at_s is None else logger.warning)(
                "%s is lost: %s; connecting again in %.1f s", self._name, reason, delay_s
            )
            self._sleep(delay_s)
            left_behind = [thread for thread in (*left_behind, link.thread) if thread and thread.is_alive()]
            while len(left_behind) >= _MAX_LEFT_BEHIND and not self.is_over:
                self._sleep(self._policy.longest_delay_s)
                left_behind = [thread for thread in left_behind if thread.is_alive()]

    def _start_link(self) -> _Link | None:
        """Begin to connect, unless it is all over."""
        with self._changed:
            if self._is_over():
                return None
            link = self._link = _Link()
            link.thread = threading.Thread(target=self._receive, args=(link,), name=self._name, daemon=True)
            link.thread.start()
            return link

    def _wait_until_lost(self, link: _Link) -> str | None:
        """Wait until a connection gives no more pictures; says why, or None if it is all over."""
        limit_s = self._policy.silence_s
        with self._changed:
            while not self._is_over() and link.lost is None:
                left_s = limit_s - (time.perf_counter() - max(self._last_at_s, link.started_at_s))
                if self.is_recording and self._newest is not None:
                    left_s = limit_s  # it waits for us
                if left_s <= 0:
                    link.lost = f"no picture for {limit_s:g} s"
                self._changed.wait(max(left_s, 0))
            if self._is_over():
                return None
            if self.is_recording and link.ended:
                self._ended = True
            elif self.is_recording or not self._num_received:
                self._error = SourceError(f"{self._name}: {link.lost}")
            self._changed.notify_all()
            return None if self._is_over() else link.lost

    def _sleep(self, duration_s: float) -> None:
        with self._changed:
            self._changed.wait_for(self._is_over, duration_s)
