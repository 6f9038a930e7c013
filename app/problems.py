"""Errors for people: what happened, and what to do about it."""

import os
import sys
from dataclasses import dataclass

from bsdnet.errors import BackendError, BsdnetError, CheckpointError, SourceError


@dataclass(frozen=True, kw_only=True)
class Problem:
    """Something that went wrong, in words."""

    title: str
    """A few words."""
    text: str
    """One sentence: what came, what was expected."""
    advice: str
    """What to do."""


def source_problem(spec: str, error: BaseException) -> Problem:
    """Say why a source cannot be shown."""
    text = sentence(error)
    if spec.startswith("camera:"):
        if _camera_is_forbidden(spec.removeprefix("camera:")):
            return Problem(
                title="No permission to use the camera",
                text=text,
                advice="Add yourself to the group that owns the device, usually with "
                "sudo usermod -aG video $USER, and log in again.",
            )
        return Problem(
            title="The camera gives no picture",
            text=text,
            advice="Check that it is plugged in and that no other program uses it, then try again.",
        )
    if "://" in spec:
        advice = "Check the address, the network and that the sender is running, then try again."
        return Problem(title="The stream cannot be opened", text=text, advice=advice)
    if _is_forbidden(spec):
        advice = "Change the file's permissions, or open a copy that is yours."
        return Problem(title="No permission to read this file", text=text, advice=advice)
    if not os.path.exists(spec) and isinstance(error, SourceError):  # noqa: PTH110 - Path's raises if it cannot tell
        advice = "Check the name, or choose another file."
        return Problem(title="There is no such file", text=text, advice=advice)
    if os.path.isdir(spec):  # noqa: PTH112 - as above
        advice = "Choose a folder that holds images, or a video file."
        return Problem(title="There is nothing to show in this folder", text=text, advice=advice)
    return Problem(
        title="This cannot be shown",
        text=text,
        advice="If other players show it, it may be damaged in a way that they hide. Try a copy, or another file.",
    )


def engine_problem(error: BaseException) -> Problem:
    """Say why there is no network."""
    if isinstance(error, CheckpointError):
        advice = "Choose other weights, or start again without --weights for those that come with bsdnet."
        return Problem(title="These weights cannot be used", text=sentence(error), advice=advice)
    advice = "Choose another device or backend in the panel Network."
    return Problem(title="The network cannot be run", text=sentence(error), advice=advice)


def stream_problem(spec: str, error: BaseException) -> Problem:
    """Say why a stream that was playing has ended."""
    if isinstance(error, BackendError):
        return engine_problem(error)
    return source_problem(spec, error)


def sentence(error: BaseException) -> str:
    """Say in one sentence what an error says."""
    if isinstance(error, BsdnetError):
        text = str(error)
    elif isinstance(error, OSError) and error.strerror:
        text = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    else:
        text = f"{type(error).__name__}: {error}"
    text = " ".join(text.split())
    if text.split(" ")[0].isalpha():  # no path or address
        text = text[:1].upper() + text[1:]
    return text if text.endswith((".", "?", "!")) else f"{text}."


def _is_forbidden(path: str) -> bool:
    """Tell whether a file may not be read, or not even be looked for."""
    try:
        os.stat(path)  # noqa: PTH116 - one name for all that is asked about it
    except PermissionError:
        return True
    except (OSError, ValueError):  # ValueError: no file can have this name
        return False
    return not os.access(path, os.R_OK)


def _camera_is_forbidden(device: str) -> bool:
    path = f"/dev/video{device}" if device.isdecimal() else device
    exists = os.path.exists(path)  # noqa: PTH110 - Path's raises if it cannot tell
    return sys.platform == "linux" and exists and not os.access(path, os.R_OK | os.W_OK)
