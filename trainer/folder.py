"""Writing a folder as one thing."""

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from safetensors import SafetensorError

from bsdnet.errors import TrainingError


def write_folder(write: Callable[[Path], object], folder: Path) -> None:
    """Write a folder that is there whole or not at all.

    Args:
        write: writes the files into the empty folder that it is given.
        folder: what it is called in the end; an older one is replaced.

    Raises:
        TrainingError: the folder cannot be written.
    """
    try:
        partial = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
        try:
            (partial / "new").mkdir()
            write(partial / "new")
            for path in (partial / "new").iterdir():
                path.chmod(0o644)
                with path.open("rb") as written:
                    os.fsync(written.fileno())
            if folder.exists():  # a folder cannot take another one's name, so the old one goes aside first
                folder.rename(partial / "old")
            (partial / "new").rename(folder)
        finally:
            if (partial / "old").exists() and not folder.exists():
                (partial / "old").rename(folder)
            shutil.rmtree(partial, ignore_errors=True)
    except (OSError, SafetensorError) as error:
        raise TrainingError(f"{folder} cannot be written: {getattr(error, 'strerror', None) or error}") from error
