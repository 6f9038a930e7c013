"""Ways to name a source: dialogs, a list of cameras, and what is dropped on the window."""

from collections.abc import Sequence

from PySide6.QtCore import QMimeData, QObject, QPoint, QUrl, Signal
from PySide6.QtWidgets import QFileDialog, QInputDialog, QLineEdit, QMenu, QWidget

from app.cameras import Camera, list_cameras
from app.icons import icon
from app.jobs import Jobs

_VIDEOS = (
    "Videos and pictures (*.mp4 *.mkv *.mov *.avi *.webm *.m4v *.ts *.mpg *.mpeg *.png *.jpg *.jpeg);;All files (*)"
)


class Opening(QObject):
    """Asks for a source.

    Args:
        window: dialogs stand over it.
        jobs: for what takes its time.
    """

    chosen = Signal(str)
    refused = Signal(str)  # why nothing can be chosen

    def __init__(self, window: QWidget, jobs: Jobs) -> None:
        super().__init__(window)
        self._window = window
        self._jobs = jobs

    def ask_file(self) -> None:
        """Ask for a video or a picture."""
        path, _ = QFileDialog.getOpenFileName(self._window, "Open a video", "", _VIDEOS)
        if path:
            self.chosen.emit(path)

    def ask_folder(self) -> None:
        """Ask for a folder of images."""
        path = QFileDialog.getExistingDirectory(self._window, "Open a folder of images")
        if path:
            self.chosen.emit(path)

    def ask_address(self) -> None:
        """Ask for an address of a live stream."""
        text, given = QInputDialog.getText(
            self._window, "Open a URL", "Address, such as rtsp://camera.local/stream", QLineEdit.EchoMode.Normal
        )
        if not given or not text.strip():
            return
        if "://" in text:
            self.chosen.emit(text.strip())
        else:  # it would be taken for a file's name, and kept, with the password that may be in it
            self.refused.emit("An address begins with its protocol: rtsp://, http://, udp:// or the like.")

    def ask_camera(self) -> None:
        """Look for cameras, and ask if there are several."""
        self._jobs.start(
            "cameras",
            list_cameras,
            done=self._offer_cameras,
            failed=lambda error: self.refused.emit(f"The cameras cannot be listed: {error}."),
        )

    def _offer_cameras(self, cameras: Sequence[Camera]) -> None:
        if not cameras:
            self.refused.emit("There is no camera here. Plug one in, or open a file or the demo.")
        elif len(cameras) == 1:
            self.chosen.emit(f"camera:{cameras[0].number}")
        else:
            menu = QMenu(self._window)
            for camera in cameras:
                words = f"{camera.name}  (camera {camera.number})".replace("&", "&&")  # a single one marks a key
                action = menu.addAction(icon("camera"), words)
                action.triggered.connect(lambda _=False, number=camera.number: self.chosen.emit(f"camera:{number}"))
            menu.popup(self._window.mapToGlobal(QPoint(self._window.width() // 3, self._window.height() // 3)))


def dropped_source(mime: QMimeData) -> str | None:
    """Tell what was dropped: the first file, folder or address; None if it is nothing of that kind."""
    urls: list[QUrl] = mime.urls()
    if urls and urls[0].isLocalFile():
        return urls[0].toLocalFile()
    address = urls[0].toString(QUrl.ComponentFormattingOption.FullyEncoded) if urls else ""  # servers want no spaces
    return address if "://" in address else None
