"""Pictures that are kept: whole or not at all, and why not."""

import resource
from contextlib import contextmanager

import numpy as np
import pytest
from PySide6.QtGui import QImage

from app.keeping import save_png
from app.naming import new_path

from .conftest import WAIT_MS

RGB = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)


@contextmanager
def full_disk():
    """No file can grow beyond some bytes: that of pytest's own output can neither, so keep this short."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_picture_comes_back_as_it_was(tmp_path):
    image = QImage(str(save_png(RGB, tmp_path, "street.mp4"))).convertToFormat(QImage.Format.Format_RGB888)
    rows = np.frombuffer(image.constBits(), np.uint8).reshape(40, image.bytesPerLine())
    assert np.array_equal(rows[:, : 3 * 60].reshape(RGB.shape), RGB)


def test_a_full_disk_is_an_error_and_leaves_nothing(tmp_path):
    with full_disk(), pytest.raises(OSError, match="too large"):
        save_png(RGB, tmp_path, "street.mp4")
    assert not list(tmp_path.iterdir())


def test_a_name_that_another_viewer_takes_first_is_left_to_it(tmp_path, monkeypatch):
    taken = tmp_path / "street.png"
    taken.write_text("of the other one")
    names = iter([taken, tmp_path / "street-2.png"])
    monkeypatch.setattr("app.keeping.new_path", lambda *arguments: next(names))
    assert save_png(RGB, tmp_path, "street.mp4").name == "street-2.png"
    assert taken.read_text() == "of the other one"


def test_why_nothing_is_saved(qtbot, start, settings, tmp_path):
    (tmp_path / "file").touch()
    settings.folder = tmp_path / "file" / "kept"
    window = start("clip")
    window.actions_by_name["save"].trigger()
    qtbot.waitUntil(window.banner.isVisible, timeout=WAIT_MS)
    assert window.banner.accessibleName() == f"The picture was not saved: {tmp_path}/file/kept: Not a directory."


def test_a_folder_that_is_not_there_yet(window, settings):
    window.actions_by_name["show-folder"].trigger()
    assert window.banner.accessibleName() == f"Nothing has been kept yet; it will be in {settings.folder}"


def test_pictures_of_one_second_have_names_of_their_own(tmp_path):
    paths = {save_png(RGB, tmp_path, "street.mp4") for _ in range(5)}
    assert len(paths) == 5
    assert new_path(tmp_path, "street.mp4", ".png") not in paths
