"""What all live sources share."""

import time
from collections.abc import Callable
from fractions import Fraction

from bsdnet.errors import SourceError
from bsdnet.picture import Picture
from bsdnet.stream.frame import Frame, Signal, StreamInfo
from bsdnet.stream.interfaces import VideoSource
from bsdnet.stream.receiver import DEFAULT_POLICY, Connection, Receiver, ReconnectPolicy

_TICKS_PER_S = 90_000
_REPEAT_EVERY_S = 1.0


class LiveSource(VideoSource):
    """A camera or network stream, of which only the newest picture is kept, and which is found again when it is lost.

    While no picture comes, `read` gives the last one again once a second, marked as `repeated`, so that a window can
    say so and a recording goes on. Indices and timestamps begin at the first picture that was read, however long the
    stream was open before. Timestamps are wall-clock time: they never go back, and an outage keeps its length.

    A recording behind an address, which knows how long it is, is the exception: all of its frames come, with their own
    times and without repetitions, and if it breaks off that is an error.

    Args:
        name: for people; without credentials.
        connect: makes a connection; see `Receiver`.
        policy: how patient to be.

    Raises:
        SourceError: the first connection gave no picture.
    """

    def __init__(self, name: str, connect: Callable[[], Connection], policy: ReconnectPolicy = DEFAULT_POLICY) -> None:
        self._name = name
        self._notice_s = policy.notice_s
        self._receiver = Receiver(name, connect, policy)
        try:
            first = self._receiver.peek()
            if first is None:
                raise SourceError(f"{name}: the stream ended before its first picture")
            self._info = StreamInfo(
                name=name,
                size=first.convert().size,
                fps=self._receiver.fps,
                time_base=Fraction(1, _TICKS_PER_S),
                live=not self._receiver.is_recording,
            )
        except BaseException:
            self._receiver.close()
            raise
        self._start_s: float | None = None
        self._first_number: int | None = None
        self._shown: Picture | None = None
        self._repeated_at_s = 0.0
        self._last_pts = -1
        self._num_repeated = 0
        self._index = 0

    @property
    def info(self) -> StreamInfo:
        """What is known of the stream."""
        return self._info

    @property
    def lost_frames(self) -> int:
        """How many pictures came damaged; those that nobody fetched in time are no loss."""
        return self._receiver.lost_frames

    @property
    def signal(self) -> Signal:
        """How well pictures come in; after `close`, how they did then."""
        return self._receiver.signal

    def read(self) -> Frame | None:
        """Wait for a picture that was not read yet, or give the last one again; None at the end and after `close`.

        Raises:
            SourceError: a recording broke off.
        """
        while (taken := self._receiver.take(self._patience_s())) is None:
            if self._receiver.is_over:
                return None
            if self._shown is not None and self._info.live and self._patience_s() == 0:
                self._num_repeated += 1
                self._repeated_at_s = time.perf_counter()
                return self._frame(self._shown, self._index + 1, self._repeated_at_s, repeated=True)
        picture, number = taken
        self._shown = picture.convert()
        if self._first_number is None:
            self._first_number = number
        index = number - self._first_number + self._num_repeated
        if self._info.live:
            return self._frame(self._shown, index, picture.captured_at_s)
        pts = round(picture.time_s * _TICKS_PER_S)
        return Frame(picture=self._shown, index=index, pts=pts, time_s=picture.time_s)

    def seek(self, time_s: float) -> None:
        """Raise: what is live has no past."""
        kind = "live" if self._info.live else "read over the network"
        raise SourceError(f"cannot seek in {self._name}: it is {kind}")

    def close(self) -> None:
        """Stop; a reader that hangs is left behind."""
        self._receiver.close()

    def _patience_s(self) -> float | None:
        """Seconds until the last picture is to be shown again; None if there is none, or it never is."""
        if self._shown is None or not self._info.live:
            return None
        since_repeated_s = time.perf_counter() - self._repeated_at_s
        return max(self._notice_s - self._receiver.silence_s, _REPEAT_EVERY_S - since_repeated_s, 0.0)

    def _frame(self, picture: Picture, index: int, captured_at_s: float, *, repeated: bool = False) -> Frame:
        if self._start_s is None:
            self._start_s = captured_at_s
        self._last_pts = max(round((captured_at_s - self._start_s) * _TICKS_PER_S), self._last_pts + 1)
        self._index = index
        return Frame(
            picture=picture,
            index=index,
            pts=self._last_pts,
            time_s=self._last_pts / _TICKS_PER_S,
            captured_at_s=captured_at_s,
            repeated=repeated,
        )
