"""Decoding on an NVIDIA GPU (NVDEC): whether it can be had here, and if not, why.

FFmpeg decodes on the GPU when a file is opened with a device; its pictures come back to memory as nv12 or, deeper
than 8 bits, as p010. What the driver's decoder does not take, FFmpeg decodes in software without a word: only the
first picture shows it.
"""

from pathlib import Path
from typing import Literal

import av
import av.logging
from av.codec import Codec
from av.codec.hwaccel import HWAccel, HWDeviceType, hwdevices_available
from av.container import InputContainer
from av.video.stream import VideoStream

HardwareDecoding = Literal["auto", "none"]
"""`auto`: on an NVIDIA GPU where that works, else in software; `none`: in software."""


def open_on_device(path: Path, gpu: int = 0, device_type: str = "cuda") -> InputContainer:
    """Open a file to be decoded on a device.

    Args:
        path: the file.
        gpu: which of the devices, from 0, as CUDA counts them.
        device_type: FFmpeg's name of the kind of device.

    Raises:
        av.FFmpegError: the file or the device cannot be opened.
    """
    # An absolute path, because FFmpeg takes what stands before a colon for a protocol.
    hwaccel = HWAccel(device_type, device=str(gpu), allow_software_fallback=True)
    container = av.open(str(path.absolute()), "r", hwaccel=hwaccel)
    for stream in container.streams.video:
        stream.codec_context.thread_count = 1  # each thread would take surfaces, of which NVDEC has 32 at most
    return container


def why_not_on_device(codec: Codec, gpu: int = 0, device_type: str = "cuda") -> str | None:
    """Tell what keeps a codec's pictures from being decoded on a device, as far as this shows without a picture.

    Args:
        codec: the decoder, as of `VideoStream.codec_context.codec`.
        gpu: which of the devices, from 0, as CUDA counts them.
        device_type: FFmpeg's name of the kind of device.

    Returns:
        The reason in words; None if there is none.
    """
    known = hwdevices_available()
    if device_type not in known:
        return f"this build of FFmpeg knows no device {device_type!r}, only {', '.join(known) or 'none'}"
    if not any(config.device_type == HWDeviceType[device_type] for config in codec.hardware_configs or ()):
        return f"FFmpeg's decoder {codec.name} does not work on a {device_type!r} device"
    level = av.logging.get_level()
    with av.logging.Capture() as messages:
        av.logging.set_level(av.logging.ERROR)  # FFmpeg says the reason nowhere else
        try:
            HWAccel(device_type, device=str(gpu)).create(codec)
        except av.FFmpegError as error:
            words = "; ".join(text.strip() for _, _, text in messages) or str(error.strerror)
            return f"{device_type!r} device {gpu} cannot be opened: {words}"
        finally:
            av.logging.set_level(level)
    return None


def why_not_decoded_on_device(stream: VideoStream) -> str | None:
    """Tell, once a picture was decoded, why that was not on the device with which the file was opened.

    Returns:
        The reason in words; None if it was.
    """
    context = stream.codec_context
    if context.pix_fmt in hwdevices_available():  # the pixel format of pictures on a device is named like it
        return None
    return f"the GPU's decoder takes no {context.name} {context.profile or ''} in {context.pix_fmt}".replace("  ", " ")
