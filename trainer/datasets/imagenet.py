"""Small labelled pictures for pretraining, from zip files of class folders."""

import zipfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath

import cv2
import numpy as np
from numpy.typing import NDArray

from bsdnet.errors import DatasetError


class ZippedImages:
    """Classification pictures of one size, decoded into memory.

    Args:
        archives: zip files with entries `<class>/<picture>`; together they form the data set.
        classes: the class folders by label; None takes those found, sorted.

    Raises:
        DatasetError: an archive is missing or damaged, it holds a class that `classes` has not, or sizes differ.
    """

    def __init__(self, archives: Sequence[Path], classes: Sequence[str] | None = None) -> None:
        entries: list[tuple[Path, str]] = []
        for archive in archives:
            if not archive.is_file():
                raise DatasetError(f"{archive} is missing: Tiny-ImageNet is expected as train-*.zip and val.zip there")
            try:
                with zipfile.ZipFile(archive) as opened:
                    entries += [(archive, name) for name in sorted(opened.namelist()) if not name.endswith("/")]
            except zipfile.BadZipFile as error:
                raise DatasetError(f"{archive} is no zip file, or it is damaged: {error}") from error
        folders = [PurePosixPath(name).parent.name for _, name in entries]
        self.classes: tuple[str, ...] = tuple(classes if classes is not None else sorted(set(folders)))
        index = {name: label for label, name in enumerate(self.classes)}
        unknown = sorted(set(folders) - set(index))
        if unknown:
            raise DatasetError(f"classes that the training pictures do not have: {', '.join(unknown[:5])}")
        self.labels: NDArray[np.int64] = np.array([index[folder] for folder in folders], np.int64)
        """Class of each picture, `(N,)`."""
        self.images = _decode_all(archives, entries)
        """The pictures, `(N, H, W, 3)` uint8 RGB."""

    def __len__(self) -> int:
        return len(self.labels)


def _decode_all(archives: Sequence[Path], entries: list[tuple[Path, str]]) -> NDArray[np.uint8]:
    images: list[NDArray[np.uint8]] = []
    with ThreadPoolExecutor() as pool:
        for archive in archives:
            names = [name for path, name in entries if path == archive]
            with zipfile.ZipFile(archive) as opened:
                payloads = [(f"{archive}: {name}", opened.read(name)) for name in names]
            images += pool.map(lambda item: _decode(*item), payloads)
    shapes = {image.shape for image in images}
    if len(shapes) != 1:
        raise DatasetError(f"pictures must all have one size, found {sorted(shapes)[:4]}")
    return np.stack(images)


def _decode(name: str, payload: bytes) -> NDArray[np.uint8]:
    bgr = cv2.imdecode(np.frombuffer(payload, np.uint8), cv2.IMREAD_COLOR)
    if bgr is None:
        raise DatasetError(f"{name} is no picture that can be read")
    return np.asarray(bgr[:, :, ::-1], np.uint8)
