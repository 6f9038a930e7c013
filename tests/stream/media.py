"""Small videos and sounds, made by FFmpeg itself, with frames that know their number."""

import hashlib
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import Colorspace, VideoReformatter

from bsdnet.picture import Picture
from bsdnet.runtime.prediction import Prediction
from bsdnet.stream.frame import Frame, StreamInfo, StreamResult
from bsdnet.stream.interfaces import VideoSink, VideoSource

SIZE = (48, 64)
INFO = StreamInfo(name="test", size=SIZE, fps=25.0, time_base=Fraction(1, 25))
GRAY_STEP = 8


def numbered(index: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    """A grey picture from whose brightness `number_of` tells its number, up to 28."""
    return np.full((*size, 3), 16 + GRAY_STEP * index, np.uint8)


def number_of(rgb: np.ndarray) -> int:
    return round((float(rgb.mean()) - 16) / GRAY_STEP)


def write_clip(
    path: Path,
    frames: Sequence[np.ndarray],
    *,
    pts: Sequence[int] | None = None,
    time_base: Fraction = Fraction(1, 25),
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    options: dict[str, str] | None = None,
    matrix: Colorspace | None = None,
    sound: str | None = None,
    sound_s: float = 0.0,
    rotation: int | None = None,
    **properties: object,
) -> Path:
    """Write a clip. `properties` are set on the codec context, such as `color_range=2`."""
    height, width = frames[0].shape[:2]
    with av.open(str(path), "w") as output:
        video = output.add_stream(codec, rate=round(1 / time_base) or 1, options=options or {})
        video.width, video.height, video.pix_fmt, video.time_base = width, height, pix_fmt, time_base
        video.codec_context.time_base = time_base
        for name, value in properties.items():
            setattr(video.codec_context, name, value)
        if rotation is not None:
            video.set_display_rotation(rotation)
        audio = output.add_stream(sound, rate=48_000) if sound else None
        reformatter = VideoReformatter()
        for number, rgb in enumerate(frames):
            picture = reformatter.reformat(
                av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), format="rgb24"),
                format=pix_fmt,
                dst_colorspace=matrix or Colorspace.ITU601,
                dst_color_range=properties.get("color_range", 1),
            )
            picture.pts, picture.time_base = (pts[number] if pts else number), time_base
            output.mux(video.encode(picture))
        output.mux(video.encode(None))
        if audio is not None:
            for packet in _encode_tone(audio, sound_s):
                output.mux(packet)
    return path


def _encode_tone(audio: av.AudioStream, duration_s: float) -> list[av.Packet]:
    rate = 48_000
    tone = (np.sin(np.arange(round(duration_s * rate)) * 0.05) * 8000).astype(np.int16)
    packets = []
    resampler = av.AudioResampler(format=audio.format.name, layout="stereo", rate=rate)
    for start in range(0, len(tone), 1024):
        frame = av.AudioFrame.from_ndarray(
            np.repeat(tone[start : start + 1024], 2)[None], format="s16", layout="stereo"
        )
        frame.sample_rate, frame.pts, frame.time_base = rate, start, Fraction(1, rate)
        for resampled in resampler.resample(frame):
            packets += audio.encode(resampled)
    return packets + audio.encode(None)


def write_sound(path: Path, codec: str) -> Path:
    with av.open(str(path), "w") as output:
        for packet in _encode_tone(output.add_stream(codec, rate=48_000), 0.5):
            output.mux(packet)
    return path


def sound_packets(path: Path) -> list[tuple[str, float]]:
    """Hash and time in seconds of each audio packet."""
    with av.open(str(path)) as container:
        stream = container.streams.audio[0]
        return [
            (hashlib.sha256(bytes(packet)).hexdigest(), float(packet.pts * packet.time_base))
            for packet in container.demux(stream)
            if packet.size
        ]


def decoded_times(path: Path) -> list[float]:
    """Times in seconds of the frames that a plain player finds."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        return [float(frame.pts * stream.time_base) for frame in container.decode(stream)]


def result(
    index: int, rgb: np.ndarray | None = None, *, pts: int | None = None, time_base: Fraction = Fraction(1, 25)
) -> StreamResult:
    """What a pipeline gives a sink for frame `index`, with everything that a sink can want."""
    rgb = numbered(index) if rgb is None else rgb
    pts = index if pts is None else pts
    frame = Frame(picture=Picture(planes=(rgb,)), index=index, pts=pts, time_s=float(pts * time_base))
    labels = np.full(rgb.shape[:2], index % 11, np.uint8)
    return StreamResult(frame=frame, prediction=Prediction(labels=labels, rendered=frame.picture))


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def run(source: VideoSource, sink: VideoSink, *, frames: int | None = None) -> None:
    """Do what a pipeline does, with the frames themselves as rendered ones."""
    with source:
        sink.open(source.info)
        for number, frame in enumerate(source):
            if number == frames:
                break
            sink.write(StreamResult(frame=frame, prediction=Prediction(rendered=frame.picture)))
    sink.finish()
