"""Copying a video's sound, untouched, beside newly encoded pictures."""

import io
import logging
from collections import deque
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
from av.audio.stream import AudioStream
from av.bitstream import BitStreamFilterContext
from av.container import InputContainer, OutputContainer
from av.packet import Packet
from av.stream import Stream

from bsdnet.stream.continuity import Continuity
from bsdnet.stream.demux import is_cover, iter_packets

logger = logging.getLogger(__name__)

_MAX_INTERLEAVE_S = 1  # files keep sounds that belong together closer than this


class AudioCopy:
    """Copies the audio packets of a file into an output, as far as its pictures have come, or several, one by one.

    The file's video packets are read over, only to learn whether it has later pictures than those that were written,
    and where its timestamps jump. All times are those of the file as they would have gone on without jumps.

    Args:
        path: the file with the sound.

    Raises:
        av.FFmpegError, OSError: the file cannot be opened.
    """

    def __init__(self, path: str) -> None:
        self._name = Path(path).name
        self._container: InputContainer = av.open(str(Path(path).absolute()), "r")
        self._targets: dict[int, AudioStream] = {}  # by the index of the stream that is copied
        self._filters: dict[int, BitStreamFilterContext] = {}
        self._last_dts: dict[int, int] = {}
        self._lost_codecs: set[str] = set()
        self._packets: Iterator[Packet[Stream]] | None = None
        self._left_out = 0
        self._ahead: deque[Packet[Stream]] = deque()  # read, but not due yet
        self._latest_video = Fraction(-1)
        self._origin = Fraction(0)
        self._from_start = True

    def add_streams(self, output: OutputContainer) -> None:
        """Give the output the file's audio streams, as many as its format can hold; the others are left out, aloud."""
        self._targets, self._filters = {}, {}
        for stream in self._container.streams.audio:
            codec = stream.codec_context.name if stream.codec_context else "unknown"
            if not _fits(stream, output.format.name):
                self._warn_of_loss(codec, output.format.name)
                continue
            self._targets[stream.index] = _add_stream(output, stream)
            if codec == "aac" and not stream.codec_context.extradata:
                # MPEG-TS repeats AAC's header in each packet; other containers hold it once.
                self._filters[stream.index] = BitStreamFilterContext("aac_adtstoasc", stream)

    def start(self, origin: Fraction, *, from_start: bool) -> None:
        """Begin to copy, or go on in the next output.

        Args:
            origin: the time in the file, in seconds, that is zero in the output.
            from_start: whether sound of before `origin` belongs to the first output too: the lead-in of a codec does.
        """
        self._origin = origin
        if self._packets is not None:
            return
        self._from_start = from_start
        self._packets = iter(())
        videos = [stream for stream in self._container.streams.video if not is_cover(stream)][:1]
        audio = [stream for stream in self._container.streams.audio if stream.index in self._targets]
        if audio:
            self._packets = _continuous(iter_packets(self._container, [*audio, *videos]))

    def copy_until(self, output: OutputContainer, time: Fraction) -> None:
        """Copy the packets that begin before a time of the file, in seconds."""
        while (packet := self._peek()) is not None and _begin(packet) < time:
            self._mux(output, self._ahead.popleft())

    def cut(self, output: OutputContainer, time: Fraction) -> None:
        """Copy all packets of all streams that begin before a time of the file, in seconds; the next output follows."""
        self.copy_until(output, time)
        missing = set(self._targets) - {packet.stream_index for packet in self._ahead}
        while missing and (packet := self._next_audio()) is not None:
            if _begin(packet) < time:
                self._mux(output, packet)
                continue
            self._ahead.append(packet)
            missing.discard(packet.stream_index)
            if _begin(packet) > time + _MAX_INTERLEAVE_S:
                return

    def copy_rest(self, output: OutputContainer, last: Fraction, end: Fraction) -> None:
        """Copy what belongs to the pictures that were written.

        Args:
            output: where to.
            last: time of the last picture, in seconds of the file. If the file has later ones, the sound is cut.
            end: where to cut, in seconds of the file.
        """
        self.copy_until(output, end)
        latest = last + (end - last) / 2  # a picture of before may have been moved by less
        while self._latest_video <= latest and (packet := self._next_audio()) is not None:
            self._ahead.append(packet)
        while self._latest_video <= latest and self._ahead:
            self._mux(output, self._ahead.popleft())

    def close(self) -> None:
        """Close the file."""
        self._container.close()
        if self._left_out:
            logger.warning("%s: %d packets of sound that go back in time are left out", self._name, self._left_out)

    def _peek(self) -> "Packet[Stream] | None":
        if not self._ahead and (packet := self._next_audio()) is not None:
            self._ahead.append(packet)
        return self._ahead[0] if self._ahead else None

    def _next_audio(self) -> "Packet[Stream] | None":
        for packet in self._packets or ():
            if packet.stream.type == "video":
                self._latest_video = max(self._latest_video, _begin(packet))
            elif self._from_start or _begin(packet) >= self._origin:
                return packet
        return None

    def _warn_of_loss(self, codec: str, container: str) -> None:
        if codec not in self._lost_codecs:  # once, however many outputs there are
            self._lost_codecs.add(codec)
            logger.warning(
                "the %s sound of %s does not fit into a %s file and is left out; .mkv holds nearly everything",
                codec,
                self._name,
                container,
            )

    def _mux(self, output: OutputContainer, packet: "Packet[Stream]") -> None:
        index = packet.stream_index
        time_base = packet.time_base  # a filter empties the packet that it is given
        shift = round(self._origin / time_base)
        if packet.dts is not None:
            if packet.dts <= self._last_dts.get(index, packet.dts - 1):
                self._left_out += 1  # muxers refuse packets that go back in time
                return
            self._last_dts[index] = packet.dts
            packet.dts -= shift
        if packet.pts is not None:
            packet.pts -= shift
        for filtered in self._filters[index].filter(packet) if index in self._filters else [packet]:
            filtered.time_base = time_base
            filtered.stream = self._targets[index]
            output.mux(filtered)


def _continuous(packets: "Iterator[Packet[Stream]]") -> "Iterator[Packet[Stream]]":
    """Move packets to where they would be if the file's timestamps did not jump; sound goes where its pictures go."""
    lines: dict[int, Continuity[Packet[Stream]]] = {}
    video: Continuity[Packet[Stream]] = Continuity()
    for packet in packets:
        line = video if packet.stream.type == "video" else lines.setdefault(packet.stream_index, Continuity())
        ticks = packet.dts if packet.dts is not None else packet.pts
        if ticks is None:
            yield packet
            continue
        placed = line.place(packet, ticks * packet.time_base, (packet.duration or 0) * packet.time_base)
        yield from (_moved(*each) for each in placed)
        line.follow(video)
    for line in (video, *lines.values()):
        yield from (_moved(*each) for each in line.rest())


def _moved(packet: "Packet[Stream]", shift: Fraction) -> "Packet[Stream]":
    ticks = round(shift / packet.time_base)
    packet.dts = None if packet.dts is None else packet.dts + ticks
    packet.pts = None if packet.pts is None else packet.pts + ticks
    return packet


def _begin(packet: "Packet[Stream]") -> Fraction:
    """When a packet is shown or heard, in seconds; -1 if it does not say."""
    ticks = packet.pts if packet.pts is not None else packet.dts
    return Fraction(-1) if ticks is None else ticks * packet.time_base


def _add_stream(output: OutputContainer, template: AudioStream) -> AudioStream:
    stream = output.add_stream_from_template(template)
    layout = {1: "mono", 2: "stereo"}.get(stream.codec_context.layout.nb_channels)
    if layout is not None:  # PCM in AVI and Matroska does not say which its channels are; MP4 insists on it
        stream.codec_context.layout = layout
    return stream


def _fits(template: AudioStream, container: str) -> bool:
    """Try a stream in a file of its own: what a format says it can hold is more than it then takes."""
    try:
        with av.open(io.BytesIO(), "w", format=container) as trial:
            _add_stream(trial, template)
            trial.start_encoding()
    except (ValueError, av.FFmpegError):
        return False
    return True
