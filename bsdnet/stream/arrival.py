"""How late the packets of a live stream are read, and which to leave out to catch up."""

_WAIT_S = 0.008  # longer than a switch between Python's threads, shorter than the wait for a frame at 60 a second
_MAX_DELAY_S = 1.0
_CAUGHT_UP_S = 0.2


class Backlog:
    """Tells how long a packet has waited to be read, and leaves out what would only be shown too late.

    A reader that has to wait for a packet gets it as it arrives. One that does not may find older and older packets in
    the socket, because decoding is too slow or the process was suspended: then the packets' timestamps fall behind the
    clock, and from a second on packets are left out until a key frame comes that is not late. Timestamps are compared
    over such times only, because many cameras announce a frame rate that they do not keep.
    """

    def __init__(self) -> None:
        self._offset_s: float | None = None  # from the sender's clock to ours, for packets that have not waited
        self._is_skipping = False

    def delay_s(self, stamp_s: float, arrived_at_s: float, *, waited_s: float, is_keyframe: bool) -> float | None:
        """How many seconds a packet has waited; None if it is to be left out.

        Args:
            stamp_s: the packet's time by the sender's clock; it should not go back.
            arrived_at_s: when it was read, by ours.
            waited_s: for how long the reader waited for it.
            is_keyframe: whether decoding can begin with it.
        """
        offset_s = arrived_at_s - stamp_s
        if self._offset_s is None or waited_s > _WAIT_S:
            self._offset_s = offset_s
        self._offset_s = min(self._offset_s, offset_s)
        delay_s = offset_s - self._offset_s
        if delay_s > _MAX_DELAY_S:
            self._is_skipping = True
        elif is_keyframe and delay_s < _CAUGHT_UP_S:
            self._is_skipping = False
        return None if self._is_skipping else delay_s
