"""Names for people and for files."""

import re
from datetime import datetime
from pathlib import Path

_LONG_WORD = 30  # shorter ones have room, and can be copied without anything between their letters
_LONGEST_NAME = 80  # of a source, in the name of a new file: file systems end at 255 with time and endings


def source_name(spec: str) -> str:
    """Name a source: a file by its name, an address without what may be secret in it."""
    if "://" in spec:
        return f"{spec.split('://')[0]} stream"
    if spec.startswith("camera:"):
        return f"Camera {spec.removeprefix('camera:')}"
    return "Demo street" if spec == "demo" else Path(spec).name or spec


def new_path(folder: Path, spec: str, suffix: str) -> Path:
    """Name a new file after its source and the time, in a folder that is made if it is missing.

    Raises:
        OSError: the folder cannot be made.
    """
    folder.mkdir(parents=True, exist_ok=True)
    name = re.sub(r"[^A-Za-z0-9]+", "-", Path(source_name(spec)).stem)[:_LONGEST_NAME].strip("-").lower() or "stream"
    stem = f"{name}-{datetime.now():%Y%m%d-%H%M%S}"
    path = folder / f"{stem}{suffix}"
    number = 1
    while path.exists() or path.with_name(path.name + ".part").exists():
        number += 1
        path = folder / f"{stem}-{number}{suffix}"
    return path


def breakable(words: str) -> str:
    """Let long names go on in the next line: Qt breaks a line between words, and after a slash or a hyphen, only."""
    return re.sub(rf"[^\s/-]{{{_LONG_WORD}}}(?=[^\s/-])", lambda found: f"{found[0]}\u200b", words)
