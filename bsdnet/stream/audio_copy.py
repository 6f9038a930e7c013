"""Copying a video's sound, untouched, beside newly encoded pictures."""

import io
import logging
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
from av.audio.stream import AudioStream
from av.bitstream import BitStreamFilterContext
from av.container import InputContainer, OutputContainer
from av.packet import Packet
from av.stream import Stream

from bsdnet.stream.demux import iter_packets

logger = logging.getLogger(__name__)


class AudioCopy:
    """Copies the audio packets of a file into an output, as far as its pictures have come.

    The file's video packets are read over, only to learn whether it has later pictures than those that were written.

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
        self._packets: Iterator[Packet[Stream]] = iter(())
        self._pending: Packet[Stream] | None = None
        self._latest_video = Fraction(-1)
        self._origin = Fraction(0)
        self._from_start = True

    def add_streams(self, output: OutputContainer) -> None:
        """Give the output the file's audio streams, as many as its format can hold; the others are left out, aloud."""
        for stream in self._container.streams.audio:
            codec = stream.codec_context.name if stream.codec_context else "unknown"
            if not _fits(stream, output.format.name):
                logger.warning(
                    "the %s sound of %s does not fit into a %s file and is left out",
                    codec,
                    self._name,
                    output.format.name,
                )
                continue
            self._targets[stream.index] = _add_stream(output, stream)
            if codec == "aac" and not stream.codec_context.extradata:
                # MPEG-TS repeats AAC's header in each packet; other containers hold it once.
                self._filters[stream.index] = BitStreamFilterContext("aac_adtstoasc", stream)

    def start(self, origin: Fraction, *, from_start: bool) -> None:
        """Begin to copy.

        Args:
            origin: the time in the file, in seconds, that is zero in the output.
            from_start: whether sound of before `origin` belongs to the output too: the lead-in of a codec does.
        """
        self._origin = origin
        self._from_start = from_start
        videos = self._container.streams.video[:1]
        audio = [stream for stream in self._container.streams.audio if stream.index in self._targets]
        if audio:
            self._packets = iter_packets(self._container, [*audio, *videos])
            self._pending = self._next_audio()

    def copy_until(self, output: OutputContainer, time: Fraction) -> None:
        """Copy the packets that begin before a time of the file, in seconds."""
        while self._pending is not None and _begin(self._pending) < time:
            self._mux(output, self._pending)
            self._pending = self._next_audio()

    def copy_rest(self, output: OutputContainer, last: Fraction, end: Fraction) -> None:
        """Copy what belongs to the pictures that were written.

        Args:
            output: where to.
            last: time of the last picture, in seconds of the file. If the file has later ones, the sound is cut.
            end: where to cut, in seconds of the file.
        """
        self.copy_until(output, end)
        tail: list[Packet[Stream]] = []
        while self._pending is not None and self._latest_video <= last:
            tail.append(self._pending)
            self._pending = self._next_audio()
        if self._latest_video <= last:
            for packet in tail:
                self._mux(output, packet)

    def close(self) -> None:
        """Close the file."""
        self._container.close()

    def _next_audio(self) -> "Packet[Stream] | None":
        for packet in self._packets:
            if packet.stream.type == "video":
                self._latest_video = max(self._latest_video, _begin(packet))
            elif self._from_start or _begin(packet) >= self._origin:
                return packet
        return None

    def _mux(self, output: OutputContainer, packet: "Packet[Stream]") -> None:
        index = packet.stream_index
        time_base = packet.time_base  # a filter empties the packet that it is given
        shift = round(self._origin / time_base)
        if packet.dts is not None:
            if packet.dts <= self._last_dts.get(index, packet.dts - 1):
                return  # of a damaged file: muxers refuse packets that go back in time
            self._last_dts[index] = packet.dts
            packet.dts -= shift
        if packet.pts is not None:
            packet.pts -= shift
        for filtered in self._filters[index].filter(packet) if index in self._filters else [packet]:
            filtered.time_base = time_base
            filtered.stream = self._targets[index]
            output.mux(filtered)


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
