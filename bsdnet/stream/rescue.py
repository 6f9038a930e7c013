"""Making a video of what a run that was killed has left."""

from fractions import Fraction
from pathlib import Path
from typing import BinaryIO, NamedTuple

import av

from bsdnet.errors import SourceError
from bsdnet.stream.demux import iter_packets
from bsdnet.stream.partial_file import PARTIAL_SUFFIX, PartialFile, check_target, lock
from bsdnet.stream.video_writer import FORMATS


class Rescued(NamedTuple):
    """What was saved."""

    path: Path
    """The finished video."""
    num_frames: int
    """Its pictures."""
    duration_s: float
    """From the first to the last picture, in seconds."""


def rescue(part: str | Path, *, overwrite: bool = False) -> Rescued:
    """Make `OUT.mp4` of `OUT.mp4.part`: all whole pictures, and the sound that belongs to them, as they are.

    The video appears under its name at once and whole; then the partial file is removed.

    Args:
        part: the partial file.
        overwrite: whether `OUT.mp4` may be replaced if it exists.

    Raises:
        SourceError: there is no such file, it is no partial file, it is still being written, or nothing in it can be
            played.
        ConfigError: the target's suffix tells no video format.
        SinkError: the target exists, or cannot be written.
    """
    part = Path(part)
    if part.suffix != PARTIAL_SUFFIX:
        raise SourceError(f"{part} is not called like a partial file; expected a name such as out.mp4{PARTIAL_SUFFIX}")
    target = part.with_suffix("")
    check_target(target, tuple(FORMATS))
    try:
        with part.open("r+b") as file:
            if not lock(file, part):
                raise SourceError(f"{part} is being written by a run that goes on; stop that first")
            rescued = _save(file, part, target, overwrite=overwrite)
            part.unlink()
    except OSError as error:
        raise SourceError(f"{part} cannot be rescued: {error.strerror}") from error
    return rescued


def _save(file: BinaryIO, part: Path, target: Path, *, overwrite: bool) -> Rescued:
    # Under a name of its own, because the partial file has the one that would be taken.
    saving = PartialFile(target, overwrite=overwrite, path=target.with_name(target.name + ".rescue"))
    saving.path.unlink(missing_ok=True)  # of a rescue that was killed: the lock says that none is at work
    saved = saving.create()
    try:
        times = _remux(file, saved, FORMATS[target.suffix.lower()])
        if times:
            saving.commit()
    except av.FFmpegError as error:
        raise SourceError(f"{part} cannot be rescued: {error.strerror}; it is left as it is") from error
    finally:
        saving.release(keep=False)
    if not times:
        raise SourceError(f"nothing in {part} can be played: it has no whole picture; it is left as it is")
    return Rescued(target, len(times), float(max(times) - min(times)))


def _remux(file: BinaryIO, saved: BinaryIO, container: str) -> list[Fraction]:
    """Copy the packets of pictures and sound; gives the times of the pictures in seconds."""
    times = []
    with av.open(file, "r") as source, av.open(saved, "w", format=container) as output:
        videos = source.streams.video[:1]
        streams = [*videos, *source.streams.audio]
        targets = {stream.index: output.add_stream_from_template(stream) for stream in streams}
        for video in videos:  # the container is the same, and so is what it calls the format
            targets[video.index].codec_context.codec_tag = video.codec_context.codec_tag
        output.metadata.update(source.metadata)
        for packet in iter_packets(source, streams):
            time = packet.dts if packet.pts is None else packet.pts
            if packet.is_corrupt or time is None:  # the last one, of which a part was written
                continue
            if packet.stream.type == "video":
                times.append(time * packet.time_base)
            packet.pts = packet.dts = time  # they are the same in what we write, but not every container has both
            packet.stream = targets[packet.stream_index]
            output.mux(packet)
    return times
