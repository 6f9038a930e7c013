"""Where frames come from. `open_source` finds the right kind of source for what a user writes."""

import glob
import re
from pathlib import Path

from bsdnet.errors import ConfigError, SourceError
from bsdnet.stream.camera_source import CameraSource
from bsdnet.stream.file_source import FileSource
from bsdnet.stream.hardware_decoding import HardwareDecoding
from bsdnet.stream.image_source import IMAGE_SUFFIXES, ImageFolderSource
from bsdnet.stream.indexed_source import DEFAULT_FPS, ArraySource, DemoSource
from bsdnet.stream.interfaces import VideoSource
from bsdnet.stream.network_source import NetworkSource, public_name

__all__ = [
    "DEFAULT_FPS",
    "ArraySource",
    "CameraSource",
    "DemoSource",
    "FileSource",
    "ImageFolderSource",
    "NetworkSource",
    "VideoSource",
    "open_source",
]


def open_source(
    spec: str | Path, *, fps: float | None = None, hwaccel: HardwareDecoding = "none", gpu: int = 0
) -> VideoSource:
    """Open what a user names.

    Args:
        spec: `demo` for the drawn street, `camera:0` or `camera:/dev/video0`, an address such as `rtsp://host/1`, a
            folder of images, a glob pattern of images, an image, or a video file. A `Path`, or `./demo`, is always a
            folder, a pattern or a file.
        fps: frames per second of images and of the demo; None for their default. Videos bring their own timestamps.
        hwaccel: where video files are decoded; see `FileSource`.
        gpu: the GPU that decodes them, from 0.

    Raises:
        SourceError: it cannot be opened; see the sources for reasons.
        ConfigError: fps was given for a source that has its own, or is not from 0.01 to 1000.
    """
    text = spec if isinstance(spec, str) else ""
    if spec == "":
        raise SourceError("the source has an empty name; give a file, a folder, camera:0 or demo")
    if text == "demo":
        return _open_demo(fps)
    path = Path(spec)
    if not _scheme(text) and (path.is_dir() or _is_image(path) or (glob.has_magic(str(spec)) and not path.exists())):
        return ImageFolderSource(spec, fps=DEFAULT_FPS if fps is None else fps)
    if fps is not None:
        name = public_name(text) if _scheme(text) else spec
        raise ConfigError(f"fps is for folders of images and for the demo; {name} has its own timestamps")
    if text.startswith("camera:"):
        return _open_camera(text.removeprefix("camera:"))
    if _scheme(text):
        return NetworkSource(text)
    return FileSource(spec, hwaccel=hwaccel, gpu=gpu)


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES and path.is_file()


def _open_demo(fps: float | None) -> DemoSource:
    from bsdnet.demo_scene import DemoScene  # drawing needs modules that no other source does

    return DemoSource(DemoScene() if fps is None else DemoScene(fps=fps))


def _open_camera(device: str) -> CameraSource:
    if not device:
        raise SourceError("camera: needs a number or a path behind the colon, such as camera:0")
    return CameraSource(int(device) if device.isdecimal() else device)


def _scheme(text: str) -> str | None:
    match = re.match(r"([A-Za-z][A-Za-z0-9+.-]*)://", text)
    return match[1] if match else None
