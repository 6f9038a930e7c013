"""Reading packets from a media file that may be damaged."""

from collections.abc import Iterator, Sequence

import av
from av.container import InputContainer
from av.packet import Packet
from av.stream import Disposition, Stream

_MAX_FAILURES_IN_A_ROW = 100  # a file that is damaged goes on sooner; one that is gone never does


def is_cover(stream: Stream) -> bool:
    """Tell whether a stream holds no video, but the cover picture of a music file."""
    return stream.type == "video" and bool(stream.disposition & Disposition.attached_pic)


def iter_packets(container: InputContainer, streams: Sequence[Stream]) -> Iterator["Packet[Stream]"]:
    """Yield the packets of some streams up to the file's end, stepping over places that cannot be parsed.

    Empty packets are left out: a decoder would take one for the end of the stream.
    """
    failures = 0
    packets = container.demux(*streams)
    while failures < _MAX_FAILURES_IN_A_ROW:
        try:
            packet = next(packets, None)
        except av.FFmpegError:
            failures += 1
            packets = container.demux(*streams)  # a generator that raised is over; the demuxer is not
            continue
        except IndexError:  # of PyAV, at the end of a file in which damage made a stream turn up
            return
        if packet is None:
            return
        failures = 0
        if packet.size:
            yield packet
