import logging
import os
from collections.abc import Iterator
from pathlib import Path

import cv2
import pytest
import torch

from bsdnet.demo_scene import DemoScene

try:
    import PySide6.QtWidgets  # noqa: F401 - without the system's libraries of Qt pytest-qt would stop everything
except ImportError as error:
    collect_ignore = ["app"]
    _WITHOUT = f"tests/app is left out: Qt cannot be imported here ({error})"
else:
    pytest_plugins = ["pytestqt.plugin"]
    _WITHOUT = ""


def pytest_report_header() -> str:
    return _WITHOUT


_LOGGERS = [logging.getLogger(name) for name in (None, "bsdnet", "cli", "app", "bsdnet.runtime.engine_cache")]
_LEVELS = [logger.level for logger in _LOGGERS]


@pytest.fixture(autouse=True)
def untouched_logging() -> Iterator[None]:
    """Undo what a command sets up for its whole process, be it called by a test or by a fixture of several tests."""
    _restore_logging()
    yield
    _restore_logging()


@pytest.fixture(autouse=True)
def untouched_threads() -> Iterator[None]:
    """Give the threads back that a command takes from its whole process."""
    torch_threads, opencv_threads = torch.get_num_threads(), cv2.getNumThreads()
    yield
    torch.set_num_threads(torch_threads)
    cv2.setNumThreads(opencv_threads)


def _restore_logging() -> None:
    for logger, level in zip(_LOGGERS, _LEVELS, strict=True):
        logger.setLevel(level)
    for handler in logging.root.handlers.copy():
        if not type(handler).__module__.startswith("_pytest."):
            logging.root.removeHandler(handler)


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of the real data, or a skip."""
    folder = os.environ.get("BSDNET_DATA")
    if not folder:
        pytest.skip("BSDNET_DATA is not set: real-data tests need it")
    return Path(folder)


@pytest.fixture(scope="session")
def street_camvid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of the drawn street in CamVid's layout: 12 to train on in two drives, 3 each to judge by."""
    root = tmp_path_factory.mktemp("camvid")
    scene = DemoScene(size=(96, 128), num_frames=120)
    numbers = iter(range(0, 120, 5))
    for split, drives in (("train", ("A", "B")), ("val", ("C",)), ("test", ("D",))):
        (root / split).mkdir()
        (root / f"{split}annot").mkdir()
        for drive in drives:
            for _ in range(6 if split == "train" else 3):
                number = next(numbers)
                rgb, labels = scene.frame(number)
                labels = labels.copy()
                labels[labels == 255] = 11
                cv2.imwrite(str(root / split / f"{drive}_{number:03d}.png"), rgb[:, :, ::-1])
                cv2.imwrite(str(root / f"{split}annot" / f"{drive}_{number:03d}.png"), labels)
    return root
