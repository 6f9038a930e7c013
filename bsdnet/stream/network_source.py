"""Network streams, received and decoded by FFmpeg through PyAV."""

import errno
import re
import socket
import time
from collections.abc import Iterator
from fractions import Fraction
from functools import partial
from urllib.parse import urlsplit

import av
from av.codec.context import Flags
from av.container import InputContainer
from av.packet import Packet
from av.stream import Stream
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream

from bsdnet.decoding import announced_fps, as_fraction, decoded_picture, square_width_of
from bsdnet.errors import SourceError
from bsdnet.stream.arrival import Backlog
from bsdnet.stream.live import LiveSource
from bsdnet.stream.receiver import DEFAULT_POLICY, LivePicture, ReconnectPolicy

SCHEMES = ("rtsp", "rtsps", "http", "https", "udp", "tcp", "rtmp", "rtmps", "srt")
"""Schemes of addresses that can be read; srt only where PyAV's FFmpeg was built with it, which PyPI's wheel is not."""

_ANALYSE_US = "500000"  # what comes meanwhile is shown late, and FFmpeg would look for further streams for seconds
_MAX_DAMAGED_IN_A_ROW = 100
_MAX_IN_DECODER = 64


class NetworkSource(LiveSource):
    """A stream at an address, of which only the newest picture is kept; a lost one is connected to again.

    A picture counts as captured when it arrived here, before it is decoded, less the time for which it waited to be
    read; what the camera, its encoder and the network took cannot be seen from here. Where decoding cannot keep up,
    pictures up to the next key frame are left out.

    Args:
        address: with one of the `SCHEMES`. User name, password, path and query never appear in messages.
        policy: how patient to be.

    Raises:
        SourceError: the scheme is not known, nobody answers, or there is no video.
    """

    def __init__(self, address: str, policy: ReconnectPolicy = DEFAULT_POLICY) -> None:
        scheme = address.partition("://")[0].lower()
        if scheme not in SCHEMES:
            known = ", ".join(f"{known}://" for known in SCHEMES)
            raise SourceError(f"an address that begins with {scheme}:// cannot be read; expected one of {known}")
        super().__init__(public_name(address), partial(_NetworkConnection, address, policy), policy)


def public_name(address: str) -> str:
    """Name an address without anything that may be secret: scheme, host and port alone.

    Path and query are left out too, because stream keys, tokens and some cameras' passwords stand there.
    """
    scheme, _, rest = address.partition("://")
    authority = re.split("[/?#]", rest, maxsplit=1)[0]
    if "@" in rest and "@" not in authority:  # a password may hold a slash that was not escaped
        return f"{scheme.lower()}://..."
    return f"{scheme.lower()}://{authority.rpartition('@')[2]}"


class _NetworkConnection:
    """An open stream. Making, reading and closing it may hang for ever, whatever time-outs FFmpeg was given.

    FFmpeg's errors name the address: none of them gets out of here, not even as the cause of another.
    """

    def __init__(self, address: str, policy: ReconnectPolicy) -> None:
        self._silence_s = policy.silence_s
        self._container = _open(address, policy)
        try:
            self._stream = _video_stream(self._container)
            self._stream.codec_context.flags |= Flags.low_delay  # no threads that hold back a frame each
            self._time_base = as_fraction(self._stream.time_base) or Fraction(1, 90_000)
            self.is_recording = bool(self._container.duration)
            self.fps = announced_fps(self._stream)
        except BaseException:
            self._container.close()
            raise
        self._square_width = square_width_of(self._stream)
        self._reformatter = VideoReformatter()
        self._backlog = Backlog()
        self._captured_at_s: dict[int, float] = {}  # of what is in the decoder, by pts
        self._start_pts: int | None = None
        self._lost = 0
        self._pictures = self._receive()

    def read(self) -> LivePicture | None:
        """Wait for the next picture."""
        return next(self._pictures, None)

    def close(self) -> None:
        """Close the connection."""
        self._container.close()

    def _receive(self) -> Iterator[LivePicture]:
        for packet, waited_s in self._packets():
            if packet.size and not self.is_recording and not self._note_arrival(packet, waited_s):
                continue
            try:
                pictures = self._stream.decode(packet)
            except av.FFmpegError:
                self._lost += self._start_pts is not None  # whoever comes in the middle waits for a key frame
                continue
            yield from map(self._take, pictures)

    def _packets(self) -> "Iterator[tuple[Packet[Stream], float]]":
        """Give the packets, and for how many seconds each was waited for."""
        packets = self._container.demux([self._stream])
        num_damaged = 0
        while True:
            asked_at_s = time.perf_counter()
            try:
                packet = next(packets, None)
            except av.FFmpegError as error:
                num_damaged += 1
                if not isinstance(error, av.InvalidDataError) or num_damaged == _MAX_DAMAGED_IN_A_ROW:
                    reason = _reason(error, self._silence_s)
                    break
                packets = self._container.demux([self._stream])  # a generator that raised is over; the stream is not
                continue
            if packet is None:
                return
            num_damaged = 0
            yield packet, time.perf_counter() - asked_at_s
        raise SourceError(reason)

    def _note_arrival(self, packet: "Packet[Stream]", waited_s: float) -> bool:
        """Remember when a packet's picture was captured; False if it is to be left out."""
        if packet.pts is None or packet.dts is None:
            return True
        arrived_at_s = time.perf_counter()
        stamp_s = float(packet.dts * self._time_base)  # unlike pts, it does not go back
        delay_s = self._backlog.delay_s(stamp_s, arrived_at_s, waited_s=waited_s, is_keyframe=packet.is_keyframe)
        if delay_s is None:
            return False
        if len(self._captured_at_s) >= _MAX_IN_DECODER:  # packets of which no picture came
            self._captured_at_s.clear()
        self._captured_at_s[packet.pts] = arrived_at_s - delay_s
        return True

    def _take(self, picture: VideoFrame) -> LivePicture:
        pts = picture.pts or 0
        self._start_pts = pts if self._start_pts is None else self._start_pts
        lost, self._lost = self._lost, 0
        return LivePicture(
            convert=partial(decoded_picture, picture, self._reformatter, self._square_width),
            captured_at_s=self._captured_at_s.pop(pts, time.perf_counter()),
            time_s=float((pts - self._start_pts) * self._time_base),
            lost=lost,
        )


def _open(address: str, policy: ReconnectPolicy) -> InputContainer:
    try:
        return av.open(address, "r", options=_options(address, policy), timeout=(policy.open_s, policy.silence_s))
    except av.FFmpegError as error:
        reason = _reason(error, policy.open_s)
        is_vague = error.errno == errno.EIO  # FFmpeg's word for a name that cannot be resolved, among others
    if is_vague and not _host_is_known(address):
        reason = "no host of that name is known"
    raise SourceError(reason)


def _host_is_known(address: str) -> bool:
    """Tell whether an address's host can be resolved. One that cannot be told from the rest may well be."""
    try:
        host = urlsplit(public_name(address)).hostname
        if host not in (None, "..."):
            socket.getaddrinfo(host, None)
    except (socket.gaierror, ValueError):  # the latter for what cannot be a name
        return False
    return True


def _options(address: str, policy: ReconnectPolicy) -> dict[str, str]:
    """FFmpeg's options: low delay, and time-outs beside PyAV's own."""
    scheme = address.partition("://")[0].lower()
    timeout_us = str(round(policy.silence_s * 1_000_000))
    options = {"analyzeduration": _ANALYSE_US}
    if scheme in ("rtsp", "rtsps"):
        return options | {"rtsp_flags": "prefer_tcp", "timeout": timeout_us}
    if scheme == "udp":
        return options | {"overrun_nonfatal": "1", "timeout": timeout_us}
    return options | {"rw_timeout": timeout_us}  # rtmp takes "timeout" for an order to listen


def _reason(error: av.FFmpegError, timeout_s: float) -> str:
    """Say why it failed, without the address that the error itself would name."""
    if isinstance(error, av.error.ExitError):
        return f"no data for {timeout_s:g} s"
    if isinstance(error, av.error.ProtocolNotFoundError):
        return "the FFmpeg in this PyAV was built without this kind of address"
    return str(error.strerror).lower()


def _video_stream(container: InputContainer) -> VideoStream:
    for stream in container.streams.video:
        if stream.codec_context is not None:
            return stream
    raise SourceError("it sends no video that can be decoded")
