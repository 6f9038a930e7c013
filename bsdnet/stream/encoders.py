"""Which encoder makes the pictures' bits: one in hardware that proves to work here, or one in software."""

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import cast

import av
import numpy as np
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame
from numpy.typing import NDArray

from bsdnet.decoding import plane_pixels
from bsdnet.errors import ConfigError, SinkError

logger = logging.getLogger(__name__)

PRESETS = ("ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow")
"""Presets of libx264, from the fastest to the one that makes the smallest files."""

DEFAULT_CRF = 21  # of libx264
DEFAULT_PRESET = "ultrafast"  # beside a network that needs the same cores; a third more bits than superfast at 720p

HARDWARE = ("h264_nvenc", "h264_qsv", "h264_videotoolbox", "h264_v4l2m2m")
"""NVIDIA's, Intel's, Apple's, and those of boards such as a Raspberry Pi, in the order in which they are tried.

VAAPI is not among them: PyAV's wheels hold no encoder for it. NVIDIA's data-centre GPUs may have no NVENC: A100 and
H100 have none.
"""

ENCODERS = ("auto", "libx264", *HARDWARE)
"""What may be asked for."""

_CRF = {  # best, worst, default
    "libx264": (0, 51, DEFAULT_CRF),
    "h264_nvenc": (1, 51, DEFAULT_CRF),
    "h264_qsv": (1, 51, DEFAULT_CRF),
    "libvpx-vp9": (0, 63, 31),
    "libsvtav1": (1, 63, 35),
    "mpeg4": (1, 31, 3),
}
_WEBM = ("libvpx-vp9", "libsvtav1")
_NOT_H264 = {"webm": ("libvpx-vp9", ".webm"), "avi": ("mpeg4", ".avi")}
_BITS_PER_PIXEL = 0.12  # where an encoder knows a bit rate only
_PROBE_PICTURES = 5
_PROBE_MAX_ERROR = 12.0  # grey levels; a picture of garbage is off by some 60


@dataclass(frozen=True, kw_only=True, slots=True)
class EncoderSettings:
    """What a user wants of the encoder.

    Raises:
        ConfigError: a value is none of those expected, or the encoder has no such setting.
    """

    name: str = "auto"
    """One of `ENCODERS`. `auto`: hardware that works here; libx264 where none does and where `crf` or `preset` is
    given. A .webm and an .avi are always encoded in software, as VP9 (AV1 where FFmpeg has no encoder for it) and as
    MPEG-4."""
    crf: int | None = None
    """Constant quality on the encoder's own scale, from the best: H.264 0 (libx264: lossless) to 51, .webm 0 to 63,
    .avi 1 to 31. None: 21 with H.264, 31 with VP9, 35 with AV1, 3 in .avi."""
    preset: str | None = None
    """One of libx264's `PRESETS`; no other encoder takes one. None: ultrafast."""

    def __post_init__(self) -> None:
        """Refuse what no container could make good."""
        if self.name not in ENCODERS:
            raise ConfigError(f"encoder is {self.name!r}; expected one of {', '.join(ENCODERS)}")
        if self.preset is not None and self.preset not in PRESETS:
            raise ConfigError(f"preset is {self.preset!r}; expected one of {', '.join(PRESETS)}")
        if self.preset is not None and self.name in HARDWARE:
            raise ConfigError(f"preset {self.preset} is one of libx264's, and {self.name} takes none; leave it out")

    def check_container(self, container: str) -> None:
        """Refuse what does not go with a container.

        Raises:
            ConfigError: it holds another format, or the encoder has another scale.
        """
        codec = "libx264" if self.name == "auto" else self.name
        if container in _NOT_H264:
            codec, suffix = _NOT_H264[container]
            if self.name != "auto":
                raise ConfigError(f"encoder {self.name} makes H.264, which {suffix} does not hold; write .mp4")
            if self.preset is not None:
                raise ConfigError(
                    f"preset {self.preset} is one of libx264's, and {suffix} holds no H.264; leave it out"
                )
        if self.crf is None:
            return
        if codec not in _CRF:
            raise ConfigError(f"crf is {self.crf}, but {codec} knows a bit rate only; leave crf out")
        best, worst, _ = _CRF[codec]
        if not best <= self.crf <= worst:
            raise ConfigError(f"crf is {self.crf}; {codec} expects {best} (best) to {worst}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Encoder:
    """An encoder and how to run it: every picture comes out at once, and none refers to a later one."""

    codec: str
    """FFmpeg's name of it."""
    why: str
    """The reason for the choice, for people."""
    options: Mapping[str, str] = field(default_factory=dict)
    """FFmpeg's options."""
    pix_fmt: str = "yuv420p"
    """The pixel format that it takes: yuv420p, or nv12, which holds the same in another order."""
    bit_rate: int | None = None
    """Bits per second, for those that know no constant quality."""
    tag: str | None = None
    """What the file calls the format, where that is not what FFmpeg would write."""

    def configure(self, context: VideoCodecContext, size: tuple[int, int], time_base: Fraction, fps: Fraction) -> None:
        """Set up an encoder that is not open yet, but for its options.

        Args:
            context: FFmpeg's encoder.
            size: height and width in pixels, both even.
            time_base: seconds per unit of the timestamps.
            fps: pictures per second, a hint.
        """
        context.height, context.width = size
        context.pix_fmt, context.time_base, context.framerate = self.pix_fmt, time_base, fps
        if self.bit_rate is not None:
            context.bit_rate = self.bit_rate
        if self.tag is not None:
            context.codec_tag = self.tag


def choose_encoder(settings: EncoderSettings, container: str, size: tuple[int, int], fps: Fraction) -> Encoder:
    """Choose an encoder; one in hardware must first encode some pictures of this size.

    Args:
        settings: what is wanted; fits the container.
        container: FFmpeg's name of the format.
        size: height and width in pixels, both even.
        fps: pictures per second.

    Raises:
        SinkError: the encoder that was asked for does not work here, or there is none for the container.
    """
    if container == "webm":
        chosen = _webm_encoder(settings)
    elif container == "avi":
        chosen = _avi_encoder(settings)
    elif settings.name in HARDWARE:
        try:
            chosen = _proven(settings.name, settings, size, fps)
        except (av.FFmpegError, ValueError, OSError) as error:
            height, width = size
            raise SinkError(
                f"{settings.name} cannot encode {width}x{height} here ({_reason(error)}); pass --encoder auto"
            ) from error
    elif settings.name == "libx264":
        chosen = _libx264(settings, "as asked for")
    elif settings.crf is not None or settings.preset is not None:
        chosen = _libx264(settings, "crf and preset are its own")
    else:
        chosen = _best(settings, size, fps)
    logger.info("encoding with %s: %s", chosen.codec, chosen.why)
    return chosen


def _best(settings: EncoderSettings, size: tuple[int, int], fps: Fraction) -> Encoder:
    refused = []
    for name in HARDWARE:
        try:
            return _proven(name, settings, size, fps)
        except (av.FFmpegError, ValueError, OSError) as error:
            refused.append(f"{name}: {_reason(error)}")
    logger.info("no hardware encoder: %s", "; ".join(refused))
    return _libx264(settings, "no hardware encoder works here")


def _libx264(settings: EncoderSettings, why: str) -> Encoder:
    # zerolatency: the encoder keeps no frames back, so that a kill costs none; it saves a fifth of the time, too.
    options = {
        "preset": settings.preset or DEFAULT_PRESET,
        "crf": str(_crf(settings, "libx264")),
        "tune": "zerolatency",
    }
    return Encoder(codec="libx264", options=options, why=why)


def _webm_encoder(settings: EncoderSettings) -> Encoder:
    codec = next((name for name in _WEBM if _exists(name)), None)
    if codec is None:
        raise SinkError(f"this FFmpeg can encode neither VP9 nor AV1 ({', '.join(_WEBM)}); write .mp4 or .mkv")
    options = {"crf": str(_crf(settings, codec)), "b": "0"}
    if codec == "libvpx-vp9":
        options |= {"deadline": "realtime", "cpu-used": "8", "row-mt": "1", "lag-in-frames": "0"}
    else:
        options |= {"preset": "10", "svtav1-params": "pred-struct=1"}
    return Encoder(codec=codec, options=options, why=".webm holds VP9 and AV1 only")


def _avi_encoder(settings: EncoderSettings) -> Encoder:
    """MPEG-4, which all that play AVI know; H.264 in an AVI is shown a frame late, because its times are guessed."""
    quantiser = str(_crf(settings, "mpeg4"))
    options = {"qmin": quantiser, "qmax": quantiser}  # its rate control, left without a choice
    return Encoder(codec="mpeg4", options=options, tag="XVID", why="it is what players expect in an .avi")


def _crf(settings: EncoderSettings, codec: str) -> int:
    return _CRF[codec][2] if settings.crf is None else settings.crf


def _hardware(name: str, settings: EncoderSettings, size: tuple[int, int], fps: Fraction) -> Encoder:
    """How each of `HARDWARE` is run: constant quality where it has that, no B-frames, key frames where we ask."""
    gop = {"bf": "0", "g": str(max(round(fps), 1))}
    rate = round(size[0] * size[1] * float(fps) * _BITS_PER_PIXEL)
    if name == "h264_nvenc":
        options = {"preset": "p4", "tune": "ll", "rc": "vbr", "cq": str(_crf(settings, name)), "b": "0"}
        return Encoder(codec=name, options={**gop, **options, "forced-idr": "1", "delay": "0"}, why="")
    if name == "h264_qsv":
        options = {"global_quality": str(_crf(settings, name)), "forced_idr": "1", "async_depth": "1"}
        return Encoder(codec=name, options={**gop, **options}, pix_fmt="nv12", why="")
    options = {"realtime": "1"} if name == "h264_videotoolbox" else {}
    return Encoder(codec=name, options={**gop, **options}, pix_fmt="nv12", bit_rate=rate, why="")


def _proven(name: str, settings: EncoderSettings, size: tuple[int, int], fps: Fraction) -> Encoder:
    """Set up a hardware encoder that is known to work.

    Raises:
        av.FFmpegError, ValueError, OSError: it does not, for this reason.
    """
    encoder = _hardware(name, settings, size, fps)
    ms = probe(encoder, size, fps)
    return replace(encoder, why=f"it encodes {size[1]}x{size[0]} in {ms:.1f} ms a picture")


def probe(encoder: Encoder, size: tuple[int, int], fps: Fraction) -> float:
    """Encode some pictures in memory, and look at what comes out.

    Args:
        encoder: to try.
        size: height and width in pixels, both even.
        fps: pictures per second.

    Returns:
        Milliseconds per picture.

    Raises:
        av.FFmpegError, OSError: it does not even begin.
        ValueError: it is unknown to this FFmpeg, or what comes out is not what went in.
    """
    context = cast(VideoCodecContext, av.CodecContext.create(encoder.codec, "w"))
    encoder.configure(context, size, 1 / fps, fps)
    context.options = dict(encoder.options)
    context.open()
    frames = [_test_picture(size, number) for number in range(_PROBE_PICTURES)]
    packets = []
    started_s = time.perf_counter()
    for number, luma in enumerate(frames):
        packets += context.encode(_grey_frame(luma, encoder.pix_fmt, number, 1 / fps))
    packets += context.encode(None)
    elapsed_ms = (time.perf_counter() - started_s) * 1000
    decoder = av.CodecContext.create("h264", "r")
    if context.extradata:
        decoder.extradata = context.extradata
    decoded = [frame for packet in [*packets, None] for frame in decoder.decode(packet)]
    found = [plane_pixels(frame.planes[0]).astype(int) for frame in decoded]
    if len(found) != len(frames):
        raise ValueError(f"{len(found)} of {len(frames)} pictures came out")
    error = max(float(np.abs(after - before).mean()) for after, before in zip(found, frames, strict=True))
    if error > _PROBE_MAX_ERROR:
        raise ValueError(f"its pictures are off by {error:.0f} of 255 grey levels")
    return elapsed_ms / len(frames)


def _test_picture(size: tuple[int, int], number: int) -> NDArray[np.uint8]:
    """A wave of grey, `(H, W)`, that moves with the number."""
    columns = 126 + 100 * np.sin((np.arange(size[1]) + 8 * number) * 0.05)
    return np.broadcast_to(columns.astype(np.uint8), size)


def _grey_frame(luma: NDArray[np.uint8], pix_fmt: str, pts: int, time_base: Fraction) -> VideoFrame:
    chroma = np.full((luma.shape[0] // 2, luma.shape[1]), 128, np.uint8)  # U and V, in either order
    frame = VideoFrame.from_ndarray(np.concatenate([luma, chroma]), format=pix_fmt)
    frame.pts, frame.time_base = pts, time_base
    return frame


def _exists(codec: str) -> bool:
    try:
        av.Codec(codec, "w")
    except ValueError:
        return False
    return True


def _reason(error: Exception) -> str:
    if isinstance(error, av.FFmpegError) and error.strerror:
        return str(error.strerror)
    return "this FFmpeg has none" if type(error).__name__ == "UnknownCodecError" else str(error)
