"""Pictures without labels: videos and folders of pictures, to learn from a teacher's output alone."""

import contextlib
import glob
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import av
import numpy as np
from av.container import InputContainer
from av.packet import Packet
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream
from numpy.typing import NDArray

from bsdnet.classes import ClassSet
from bsdnet.decoding import decoded_picture, square_width_of
from bsdnet.errors import ConfigError, DatasetError
from trainer.datasets.files import checked_index, read_rgb, select_groups

_PICTURES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
_CHECKED = 16
_VIDEOS = (".mp4", ".mov", ".m4v", ".mkv", ".webm", ".avi", ".ts", ".mts", ".m2ts", ".mpg", ".mpeg")


class UnlabelledImages:
    """Frames of videos and pictures of folders, by index.

    All labels are 0, which says no more than that the pixel is valid: the class is the teacher's to say, and the
    trainer puts it there. The recordings are the videos, and each folder's pictures together.

    A video is indexed by reading its packets once, without decoding. A frame is then decoded from the keyframe before
    it, so that each index gives the frame that playing the video from its beginning gives; the cost is that of half a
    group of pictures on average.

    Args:
        sources: video files, pictures, folders of either (not of folders), and patterns of such, as `clips/*.mp4`.
        classes: what the teacher tells apart.
        every: take the first of so many frames of each video, and of so many pictures of each folder.
        only: recordings to keep, by file or folder; None keeps all.
        without: recordings to leave out.

    Raises:
        ConfigError: `every` is not positive, or there are no sources.
        DatasetError: a source is missing or empty, or a video cannot be read or searched.
    """

    def __init__(
        self,
        sources: Sequence[str | Path],
        classes: ClassSet,
        *,
        every: int = 1,
        only: Collection[str] | None = None,
        without: Collection[str] = (),
    ) -> None:
        if every < 1:
            raise ConfigError(f"every must be at least 1, got {every}")
        if not sources:
            raise ConfigError("unlabelled pictures need at least one video, picture, folder or pattern")
        self.classes = classes
        recordings = _recordings([path for source in sources for path in _paths(str(source))])
        items = [
            (str(path), item)
            for path, pictures in recordings.items()
            for item in (list(pictures) or _frames_of(path))[::every]
        ]
        kept = select_groups("unlabelled pictures", [group for group, _ in items], only, without)
        self._items = [items[index] for index in kept]

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Read one picture, `(H, W, 3)` uint8 RGB, upright, with labels that are all 0, `(H, W)` uint8.

        Raises:
            IndexError: there is no such picture.
            DatasetError: it cannot be read.
        """
        item = self._items[checked_index(index, len(self))][1]
        rgb = item.read() if isinstance(item, _Frame) else read_rgb(item, upright=True)
        return rgb, np.zeros(rgb.shape[:2], np.uint8)

    def name(self, index: int) -> str:
        """Give a picture's path, or a video's with the frame's number."""
        item = self._items[checked_index(index, len(self))][1]
        return f"{item.video.path}#{item.number}" if isinstance(item, _Frame) else str(item)

    @property
    def groups(self) -> list[str]:
        """The videos and the folders of pictures, sorted."""
        return sorted({group for group, _ in self._items})

    def group(self, index: int) -> str:
        """Give the video or the folder that a picture comes from, of `groups`."""
        return self._items[checked_index(index, len(self))][0]

    def short_name(self, index: int) -> str:
        """Give what tells a picture from the others of its group: a file's name without ending, a frame's number."""
        item = self._items[checked_index(index, len(self))][1]
        return f"{item.number:06d}" if isinstance(item, _Frame) else item.stem


@dataclass(frozen=True, kw_only=True, eq=False)
class _Video:
    """Where the frames of a video file are."""

    path: Path
    times: NDArray[np.int64]
    """Each frame's time in the stream's units, growing."""
    keyframes: NDArray[np.int64]
    """The times of those at which decoding can begin, growing."""

    @classmethod
    def scan(cls, path: Path) -> "_Video":
        """Find a video's frames; only the first of them are decoded, to see whether they come as its packets say."""
        try:
            with _open(path) as container:
                packets = [
                    (packet.pts, packet.is_keyframe, packet.is_discard)
                    for packet in container.demux(_video_stream(container, path))
                    if packet.size
                ]
            with _open(path) as container:
                first = [picture.pts for picture in islice(container.decode(_video_stream(container, path)), _CHECKED)]
        except av.FFmpegError as error:
            raise DatasetError(f"{path} is damaged ({error.strerror}); {_CONVERT}") from error
        known = [(time, is_keyframe, is_discard) for time, is_keyframe, is_discard in packets if time is not None]
        keyframes = sorted(time for time, is_keyframe, _ in known if is_keyframe)
        times = sorted({time for time, _, is_discard in known if keyframes and time >= keyframes[0] and not is_discard})
        if len(known) < len(packets) or not times or times[:_CHECKED] != first:
            raise DatasetError(
                f"{path} does not say reliably at which time each frame is, so that none can be looked up; {_CONVERT}"
            )
        return cls(path=path, times=np.array(times, np.int64), keyframes=np.array(keyframes, np.int64))

    def read(self, number: int) -> NDArray[np.uint8]:
        """Decode one frame, `(H, W, 3)` uint8 RGB."""
        time = int(self.times[number])
        before = self.keyframes[self.keyframes <= time].tolist()
        # From the last keyframe, as a rule. From farther back where seeking lands behind it (MPEG-TS), or where not
        # all that follows it can be decoded (intra refresh); from the beginning if nothing else helps.
        for start in (*before[:-4:-1], None):
            # A new decoder each time: one that has seen other frames would mix them in, and open files do not pickle.
            with _open(self.path) as container:
                stream = _video_stream(container, self.path)
                stream.thread_count = 1  # the processes that load data are many already
                for picture in _decode_from(container, stream, start):
                    if picture.pts == time:
                        return decoded_picture(picture, VideoReformatter(), square_width_of(stream)).rgb
                    if picture.pts is not None and picture.pts > time:
                        break
        raise DatasetError(f"{self.path}: frame {number} cannot be decoded, the file is damaged there; {_CONVERT}")


@dataclass(frozen=True, eq=False)
class _Frame:
    """One frame of a video."""

    video: _Video
    number: int

    def read(self) -> NDArray[np.uint8]:
        return self.video.read(self.number)


_CONVERT = "convert it to MP4, such as with ffmpeg -i IN -c:v libx264 OUT.mp4"


def _paths(source: str) -> list[Path]:
    """Give the files and folders that a source means, at least one."""
    # Not pathlib's glob, which takes no absolute patterns.
    found = [Path(source)] if Path(source).exists() else sorted(map(Path, glob.glob(source)))  # noqa: PTH207
    if not found:
        raise DatasetError(f"there is no video, picture or folder {source}")
    return found


def _recordings(paths: Sequence[Path]) -> dict[Path, dict[Path, None]]:
    """Sort files and folders into recordings: a folder with its pictures, each once, or a video with none."""
    recordings: dict[Path, dict[Path, None]] = {}
    for path in paths:
        files = sorted(file for file in path.iterdir() if is_medium(file)) if path.is_dir() else [path]
        if not files:
            raise DatasetError(f"{path} holds neither pictures ({', '.join(_PICTURES)}) nor videos")
        for file in files:
            if file.suffix.lower() in _PICTURES:
                recordings.setdefault(file.parent, {})[file] = None
            else:
                recordings[file] = {}
    return recordings


def is_medium(file: Path) -> bool:
    """Tell by its name whether a file is a picture or a video."""
    return file.suffix.lower() in _PICTURES + _VIDEOS and not file.name.startswith(".")


def _frames_of(path: Path) -> list[_Frame]:
    video = _Video.scan(path)
    return [_Frame(video, number) for number in range(len(video.times))]


def _open(path: Path) -> InputContainer:
    try:
        return av.open(str(path.absolute()))  # FFmpeg takes what stands before a colon for a protocol
    except (av.FFmpegError, OSError) as error:
        raise DatasetError(f"{path} is not a video that can be read: {error.strerror}") from error


def _video_stream(container: InputContainer, path: Path) -> VideoStream:
    for stream in container.streams.video:
        if not stream.disposition & Disposition.attached_pic and stream.codec_context is not None:
            return stream
    raise DatasetError(f"{path} has no video stream that can be decoded: it is no video, or it is cut off")


def _decode_from(container: InputContainer, stream: VideoStream, time: int | None) -> Iterator[VideoFrame]:
    """Decode from the keyframe at a time on, or from where seeking for it lands; from the beginning if None.

    Nothing comes until that keyframe itself does: where it does not, the pictures after it may lack what was before.
    """
    if time is not None:
        with contextlib.suppress(av.FFmpegError):  # what cannot seek is read from the beginning
            container.seek(time, stream=stream, backward=True)
    keyframe: Packet[VideoStream] | None = None
    whole = time is None
    for packet in container.demux(stream):
        keyframe = keyframe or (packet if packet.is_keyframe else None)
        if keyframe is None:
            continue
        for picture in _decode_packet(stream, packet):
            whole = whole or picture.pts == keyframe.pts
            if whole:
                yield picture


def _decode_packet(stream: VideoStream, packet: "Packet[VideoStream]") -> list[VideoFrame]:
    try:
        return stream.decode(packet)
    except av.FFmpegError:  # this frame is lost; those after it may not be
        return []
