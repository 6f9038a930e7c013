"""Decoding a whole file that may be damaged: fast while it is not, and thoroughly from the damage on.

FFmpeg decodes several packets at a time, by threads. Of damage they make less than a single thread does: behind an
error at the end of a file good frames stay in the decoder, and where a picture is incomplete the next ones show other
pixels. So a file is decoded by threads that take the slightest damage for an error. At the first one a single thread
that takes whatever it can get begins anew at a keyframe before it, and goes on to the end.

Seldom FFmpeg hands a picture out before it has marked it as concealed, and there is no other sign. Then this picture,
and those that are made of it, show other pixels than a single thread would have given; none is missing.
"""

import logging
from collections import deque
from collections.abc import Callable, Iterator
from itertools import chain, islice

import av
from av.container import InputContainer
from av.packet import Packet
from av.stream import Stream
from av.video.frame import PictureType, VideoFrame
from av.video.stream import VideoStream

from bsdnet.stream.demux import iter_packets
from bsdnet.stream.losses import Losses

_DELAY_PACKETS = 64  # longest way through a decoder: 16 threads and 16 pictures that wait for their turn, doubled

_MAX_HELD = 8  # pictures that wait until they are known to be whole; encoders put fewer B-pictures in a row

logger = logging.getLogger(__name__)


class _DamageSeen(Exception):
    """The file is damaged."""


def decode_whole(
    container: InputContainer,
    stream: VideoStream,
    open_again: Callable[[], tuple[InputContainer, VideoStream]],
    losses: Losses,
) -> Iterator[VideoFrame]:
    """Decode all pictures of a stream, in the order of presentation.

    Args:
        container: nothing was read from it.
        stream: one of its streams; nothing was decoded of it, and after this only whole pictures can be.
        open_again: opens the same file anew.
        losses: told of damage, and of packets of which nothing can be decoded.
    """
    stream.codec_context.options = {**stream.codec_context.options, "err_detect": "explode"}
    ledger = PacketLedger()
    try:
        yield from _decode_strictly(container, stream, ledger)
        return
    except _DamageSeen as sign:
        logger.info("%s is damaged and decoded by one thread from here on: %s", container.name, sign)
    losses.damaged = True
    container, stream = open_again()
    stream.codec_context.thread_count = 1
    with container:
        for number, picture in _decode_tolerantly(container, stream, ledger.restart, losses):
            if not ledger.has_given(number):
                yield picture


def _decode_strictly(container: InputContainer, stream: VideoStream, ledger: "PacketLedger") -> Iterator[VideoFrame]:
    """Decode up to the first sign of damage."""
    numbers = _Numbers()
    held: list[tuple[int, VideoFrame]] = []
    for number, packet in enumerate(iter_packets(container, [stream])):
        if packet.is_corrupt:
            raise _DamageSeen("a packet is incomplete")
        ledger.send(number, keyframe=packet.is_keyframe)
        for arrived in numbers.exchange(_decode(stream, numbers.put_on(packet, number))):
            if arrived[1].is_corrupt:
                raise _DamageSeen("a picture is incomplete")
            held.append(arrived)
            # B-pictures are made of one that is shown after them, so that it tells whether they are whole.
            if arrived[1].pict_type != PictureType.B or len(held) > _MAX_HELD:
                yield from ledger.release(held)
    held += numbers.exchange(_decode(stream, None))
    if any(picture.is_corrupt for _, picture in held) or ledger.owes(held):
        raise _DamageSeen("the last pictures are incomplete")
    yield from ledger.release(held)


def _decode(stream: VideoStream, packet: "Packet[Stream] | None") -> list[VideoFrame]:
    try:
        return stream.decode(packet)
    except av.FFmpegError as error:
        raise _DamageSeen(error.strerror) from error


def _decode_tolerantly(
    container: InputContainer, stream: VideoStream, first: int, losses: Losses
) -> Iterator[tuple[int, VideoFrame]]:
    numbers = _Numbers()
    packets = islice(enumerate(iter_packets(container, [stream])), first, None)
    for packet in chain((numbers.put_on(packet, number) for number, packet in packets), (None,)):
        try:
            pictures = stream.decode(packet)
        except av.FFmpegError:
            losses.fail()
            continue
        yield from numbers.exchange(pictures)


class _Numbers:
    """Sends the number of each packet through the decoder in the place of its timestamp, which comes out as it was."""

    def __init__(self) -> None:
        self._pts: dict[int, int | None] = {}

    def put_on(self, packet: "Packet[Stream]", number: int) -> "Packet[Stream]":
        """Put a number in the place of a packet's timestamp."""
        self._pts[number] = packet.pts
        self._pts.pop(number - _DELAY_PACKETS, None)
        packet.pts = number
        return packet

    def exchange(self, pictures: list[VideoFrame]) -> Iterator[tuple[int, VideoFrame]]:
        """Give each picture its timestamp back; with the number of its packet."""
        for picture in pictures:
            number = -1 if picture.pts is None else picture.pts
            picture.pts = self._pts.get(number)
            yield number, picture


class PacketLedger:
    """Which packets have given their picture, so that decoding can begin again without giving one twice.

    It is as long as the way through the decoder and the distance of keyframes, however long the file is.
    """

    def __init__(self) -> None:
        self._next = 0
        self._owing: set[int] = set()
        self._keyframes = deque([0])

    @property
    def restart(self) -> int:
        """Number of the last keyframe before all packets that may still be in the decoder."""
        return self._keyframes[0]

    def owes(self, held: list[tuple[int, VideoFrame]]) -> bool:
        """Whether a packet that may still be in the decoder has given no picture, even among those that are held."""
        owing = self._owing - {number for number, _ in held}
        return any(number >= self._next - _DELAY_PACKETS for number in owing)

    def send(self, number: int, *, keyframe: bool) -> None:
        """Book a packet that goes into the decoder."""
        self._next = number + 1
        self._owing.add(number)
        if keyframe:
            self._keyframes.append(number)
        while len(self._keyframes) > 1 and self._keyframes[1] < self._next - _DELAY_PACKETS:
            self._keyframes.popleft()
            self._owing = {owing for owing in self._owing if owing >= self.restart}

    def release(self, held: list[tuple[int, VideoFrame]]) -> Iterator[VideoFrame]:
        """Give the pictures of a list, and book and remove each."""
        while held:
            number, picture = held.pop(0)
            self._owing.discard(number)
            yield picture

    def has_given(self, number: int) -> bool:
        """Whether a packet from `restart` on has given its picture."""
        return number < self._next and number not in self._owing
