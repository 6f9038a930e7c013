"""Pictures that are kept, and where."""

import contextlib
import logging
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PySide6.QtCore import QBuffer, QIODevice, QUrl
from PySide6.QtGui import QDesktopServices, QGuiApplication, QImage

from app.banner import Banner
from app.compose import Composed, Look, full_picture
from app.jobs import Jobs
from app.naming import new_path
from app.problems import sentence
from app.settings import Settings

logger = logging.getLogger(__name__)


def to_image(rgb: NDArray[np.uint8]) -> QImage:
    """Copy `(H, W, 3)` uint8 RGB into an image that owns its memory."""
    rgb = np.ascontiguousarray(rgb)
    height, width = rgb.shape[:2]
    return QImage(rgb.data, width, height, rgb.strides[0], QImage.Format.Format_RGB888).copy()


def save_png(rgb: NDArray[np.uint8], folder: Path, spec: str) -> Path:
    """Write a picture of a source into a new file, all of it or nothing.

    Raises:
        OSError: it cannot be written.
    """
    png = QBuffer()
    png.open(QIODevice.OpenModeFlag.WriteOnly)
    to_image(rgb).save(png, "PNG")  # type: ignore[call-overload]  # into memory: Qt does not say that a disk is full
    while True:
        path = new_path(folder, spec, ".png")
        try:
            with path.open("xb") as file:
                file.write(png.data().data())
        except FileExistsError:  # another viewer was a moment faster
            continue
        except OSError:
            with contextlib.suppress(OSError):
                path.unlink()
            raise
        return path


class Keeper:
    """Saves and copies what is shown, on other threads, and says so.

    Args:
        jobs: threads.
        settings: which folder.
        banner: where it is said.
    """

    def __init__(self, jobs: Jobs, settings: Settings, banner: Banner) -> None:
        self._jobs = jobs
        self._settings = settings
        self._banner = banner

    def save(self, composed: Composed | None, look: Look, spec: str) -> None:
        """Write a frame as PNG, at its own size."""
        if composed is None:
            return
        folder = self._settings.folder
        self._jobs.start(
            "save",
            lambda: save_png(_draw(composed, look), folder, spec),
            done=lambda path: self.tell(f"Saved {path.name}"),
            failed=lambda error: self._banner.say(f"The picture was not saved: {sentence(error)}"),
            failed_late=lambda error: logger.error("the picture was not saved: %s", sentence(error)),
        )

    def copy(self, composed: Composed | None, look: Look) -> None:
        """Put a frame on the clipboard, at its own size."""
        if composed is None:
            return
        self._jobs.start("copy", lambda: to_image(_draw(composed, look)), done=self._to_clipboard)

    def tell(self, words: str) -> None:
        """Say that something was kept, and offer to show where."""
        self._banner.say(words, action=("Show folder", self.show_folder))

    def show_folder(self) -> None:
        """Show where things are kept."""
        folder = self._settings.folder
        if not folder.is_dir():
            self._banner.say(f"Nothing has been kept yet; it will be in {folder}")
        elif not QDesktopServices.openUrl(QUrl.fromLocalFile(str(folder))):
            self._banner.say(f"No file manager was found; the folder is {folder}")

    def _to_clipboard(self, image: QImage) -> None:
        QGuiApplication.clipboard().setImage(image)
        self._banner.say("Copied")


def _draw(composed: Composed, look: Look) -> NDArray[np.uint8]:
    result = composed.result
    return full_picture(result.frame, result.prediction, composed.classes, look)
