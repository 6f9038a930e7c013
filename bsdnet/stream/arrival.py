"""How late the packets of a live stream are, and which to leave out to catch up."""

_DRIFT = 1e-3  # how much faster or slower, at most, the sender's clock may run
_MAX_DELAY_S = 1.0
_CAUGHT_UP_S = 0.2
_CATCH_UP_S = 5.0  # longer than reading a backlog takes: who is still late has another clock, not a backlog


class Backlog:
    """Tells how much later than usual a packet came, and leaves out what would only be shown too late.

    Our clock and the sender's have an unknown offset, so the fastest packets of late count as not delayed at all: what
    every picture takes to get here (camera, encoder, network) cannot be seen. A stall can, and so can a reader that is
    too slow and finds older and older packets in the socket. From a second on, packets are left out until a key frame
    comes that is not late.
    """

    def __init__(self) -> None:
        self._offset_s: float | None = None  # from the sender's clock to ours, for packets that are not delayed
        self._seen_at_s = 0.0
        self._late_since_s: float | None = None

    def delay_s(self, stamp_s: float, arrived_at_s: float, *, is_keyframe: bool) -> float | None:
        """How many seconds later than the fastest a packet came; None if it is to be left out.

        Args:
            stamp_s: the packet's time by the sender's clock.
            arrived_at_s: when it arrived by ours; not earlier than in the call before.
            is_keyframe: whether decoding can begin with it.
        """
        delay_s = self._delay_s(arrived_at_s - stamp_s, arrived_at_s)
        if self._late_since_s is None and delay_s > _MAX_DELAY_S:
            self._late_since_s = arrived_at_s
        if self._late_since_s is None:
            return delay_s
        if arrived_at_s - self._late_since_s > _CATCH_UP_S and delay_s > _CAUGHT_UP_S:
            self._offset_s = arrived_at_s - stamp_s
            delay_s = 0.0
        if not is_keyframe or delay_s > _CAUGHT_UP_S:
            return None
        self._late_since_s = None
        return delay_s

    def _delay_s(self, offset_s: float, now_s: float) -> float:
        usual_s = offset_s
        if self._offset_s is not None:
            usual_s = min(offset_s, self._offset_s + (now_s - self._seen_at_s) * _DRIFT)
        self._offset_s, self._seen_at_s = usual_s, now_s
        return offset_s - usual_s
