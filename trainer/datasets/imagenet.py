"""Pictures with one class each, for pretraining: ImageNet and data sets that lie like it, in folders or zip files."""

import os
import zipfile
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bsdnet.errors import DatasetError
from trainer.datasets.files import checked_index, decode_rgb

_EXTENSIONS = (".jpeg", ".jpg", ".png", ".webp", ".bmp")


class _Entry(NamedTuple):
    """A picture: a file's path inside a zip file, or inside the folder of a split."""

    container: Path
    name: str

    @property
    def class_name(self) -> str:
        return PurePosixPath(self.name).parent.name


class ImageFolder:
    """Pictures of any size with one class each, decoded one at a time; for any number of worker processes.

    Expected layout: `<root>/<split>/<class>/*.JPEG`, or zip files `<root>/<split>*.zip` with entries
    `<class>/<picture>`; several zip files form one data set.

    Args:
        root: the data set's folder.
        split: `train` or `val`, or whatever the folder or the zip files are called.
        classes: the class folders by label, as of the training pictures; None takes those found, sorted.

    Raises:
        DatasetError: there is neither folder nor zip file, a zip file is damaged, pictures do not lie in folders of
            classes, or a class is none of `classes`; the message says where was looked.
    """

    def __init__(self, root: Path, split: str, classes: Sequence[str] | None = None) -> None:
        folder, archives = root / split, sorted(root.glob(f"{split}*.zip"))
        if folder.is_dir():
            self._entries = _entries_of_folder(folder)
        elif archives:
            self._entries = _entries_of_zips(archives)
        else:
            raise DatasetError(
                f"there is neither the folder {folder} nor a zip file {root / split}*.zip; ImageNet is to be had from "
                "www.image-net.org, and each class must have a folder of its own"
            )
        self.classes, self.labels = _label(self._entries, classes)
        self._reader = _Reader()

    def __len__(self) -> int:
        return len(self._entries)

    def __getitem__(self, index: int) -> tuple[NDArray[np.uint8], int]:
        """Read one picture, `(H, W, 3)` uint8 RGB, and its class.

        Raises:
            IndexError: there is no such picture.
            DatasetError: it cannot be read.
        """
        entry = self._entries[checked_index(index, len(self))]
        return decode_rgb(self._reader.read(entry), self.name(index)), int(self.labels[index])

    def name(self, index: int) -> str:
        """Give where a picture lies."""
        entry = self._entries[checked_index(index, len(self))]
        return f"{entry.container}/{entry.name}"


class ZippedImages:
    """Classification pictures of one size, decoded into memory: for small ones, such as Tiny-ImageNet's.

    Args:
        archives: zip files with entries `<class>/<picture>`; together they form the data set.
        classes: the class folders by label; None takes those found, sorted.

    Raises:
        DatasetError: an archive is missing or damaged, it holds a class that `classes` has not, or sizes differ.
    """

    def __init__(self, archives: Sequence[Path], classes: Sequence[str] | None = None) -> None:
        entries = _entries_of_zips(archives)
        self.classes, self.labels = _label(entries, classes)
        self.images = _decode_all(entries)
        """The pictures, `(N, H, W, 3)` uint8 RGB."""

    def __len__(self) -> int:
        return len(self.labels)


class _Reader:
    """Reads entries. A zip file is opened once in each process: processes that share one would move its position."""

    def __init__(self) -> None:
        self._process = -1
        self._open: dict[Path, zipfile.ZipFile] = {}

    def __getstate__(self) -> dict[str, object]:
        return {"_process": -1, "_open": {}}

    def read(self, entry: _Entry) -> bytes:
        """Read a picture's file.

        Raises:
            DatasetError: it is missing or damaged.
        """
        try:
            if entry.container.suffix != ".zip":
                return (entry.container / entry.name).read_bytes()
            return self._archive(entry.container).read(entry.name)
        except (OSError, KeyError, zipfile.BadZipFile, zlib.error) as error:
            raise DatasetError(f"{entry.container}/{entry.name} cannot be read: {error}") from error

    def _archive(self, path: Path) -> zipfile.ZipFile:
        if self._process != os.getpid():
            self._process, self._open = os.getpid(), {}
        if path not in self._open:
            self._open[path] = zipfile.ZipFile(path)
        return self._open[path]


def _entries_of_folder(folder: Path) -> list[_Entry]:
    # Names, not Path objects: ImageNet has 1.28 million of them.
    entries = [
        _Entry(folder, f"{class_folder.name}/{name}")
        for class_folder in sorted(folder.iterdir())
        if class_folder.is_dir()
        for name in sorted(os.listdir(class_folder))  # noqa: PTH208
        if name.lower().endswith(_EXTENSIONS)
    ]
    if not entries:
        raise DatasetError(
            f"{folder} holds no folders with pictures; each class must have a folder of its own there, into which "
            "ImageNet's validation pictures have to be sorted by its list of labels"
        )
    return entries


def _entries_of_zips(archives: Sequence[Path]) -> list[_Entry]:
    entries: list[_Entry] = []
    for archive in archives:
        if not archive.is_file():
            raise DatasetError(
                f"{archive} is missing: Tiny-ImageNet, from cs231n.stanford.edu/tiny-imagenet-200.zip, is expected as "
                "train-*.zip and val.zip there, with a folder for each class"
            )
        try:
            with zipfile.ZipFile(archive) as opened:
                names = sorted(opened.namelist())
        except zipfile.BadZipFile as error:
            raise DatasetError(f"{archive} is no zip file, or it is damaged or cut off: {error}") from error
        entries += [_Entry(archive, name) for name in names if not name.endswith("/")]
    flat = next((entry for entry in entries if not entry.class_name), None)
    if flat or not entries:
        raise DatasetError(
            f"{flat.container if flat else archives} must hold a folder for each class; found "
            f"{f'{flat.name} outside of any' if flat else 'no pictures'}"
        )
    return entries


def _label(entries: Sequence[_Entry], classes: Sequence[str] | None) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """Give the class names by label and the label of each entry, `(N,)`."""
    folders = [entry.class_name for entry in entries]
    names = tuple(classes if classes is not None else sorted(set(folders)))
    index = {name: label for label, name in enumerate(names)}
    unknown = sorted(set(folders) - set(index))
    if unknown:
        raise DatasetError(
            f"{entries[0].container} has {len(unknown)} classes that the training pictures do not have: "
            f"{', '.join(unknown[:5])}"
        )
    return names, np.array([index[folder] for folder in folders], np.int64)


def _decode_all(entries: Sequence[_Entry]) -> NDArray[np.uint8]:
    reader = _Reader()

    def decode(entry: _Entry) -> NDArray[np.uint8]:
        return decode_rgb(reader.read(entry), f"{entry.container}/{entry.name}")

    with ThreadPoolExecutor() as pool:
        images = list(pool.map(decode, entries))
    shapes = {image.shape for image in images}
    if len(shapes) != 1:
        raise DatasetError(f"pictures must all have one size, found {sorted(shapes)[:4]}")
    return np.stack(images)
