"""One's own pictures with labels: a folder of them, and a file that says what the labels mean."""

import contextlib
import json
import logging
import tomllib
from pathlib import Path
from typing import Any, ClassVar

import cv2
import numpy as np
from numpy.typing import NDArray

from bsdnet.classes import IGNORE_INDEX, ClassSet
from bsdnet.errors import ConfigError, DatasetError, SinkError
from trainer.datasets.files import UNKNOWN, LabelledFiles, Pair, is_turned, label_table

CLASSES_FILE = "classes.toml"
"""Name of the file in a data set's folder that says its classes; see `read_classes`."""

_PICTURES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
_BLACK = (0, 0, 0)

logger = logging.getLogger(__name__)


class LabelledFolder(LabelledFiles):
    """Pictures that a user has labelled, in classes of their own.

    Expected layout: `<root>/classes.toml`, and for each part `<root>/images/<part>/<name>.jpg` (or .png, .bmp, .webp,
    .tif) with `<root>/labels/<part>/<name>.png`. A name may have folders in it: these are the recordings. The labels
    hold class indices in one channel of 8 bits, and 255 for what has no class; or the classes' colours, also by a
    palette, where a colour of no class must be black, which then is 255.

    Args:
        root: the data set's folder.
        split: `train`, `val`, `test` or `trainval`.
        only: recordings to keep; None keeps all.
        without: recordings to leave out.

    Raises:
        DatasetError: a folder, a file or a named recording is missing; the message says where it was looked for.
        ConfigError: the file of classes says nothing that can be used.
    """

    title = "the labelled folder"
    origin = 'docs/datasets.md, "Your own labels"'
    splits: ClassVar = {"train": ("train",), "val": ("val",), "test": ("test",), "trainval": ("train", "val")}
    published: ClassVar = {"train": 0, "val": 0, "test": 0}
    nested = True

    def __init__(self, root: Path, split: str, **recordings: Any) -> None:  # noqa: ANN401 - see the base
        self.classes = read_classes(root)
        count = len(self.classes)
        self.table = label_table({label: label for label in (*range(count), IGNORE_INDEX)})
        self._warns_of_turned = True
        self._class_of = {_code(color): label for label, color in enumerate(self.classes.colors)}
        super().__init__(root, split, **recordings)

    def __getitem__(self, index: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Read one pair, as any other data set; warn of the first picture that asks to be shown turned.

        Raises:
            IndexError: there is no such pair.
            DatasetError: a file cannot be read, picture and labels differ in size, or a label is none of the classes.
        """
        pair = super().__getitem__(index)
        image = self._pairs[index].image
        if self._warns_of_turned and is_turned(image):
            self._warns_of_turned = False
            logger.warning(
                "warning: %s asks by its EXIF orientation to be shown turned or mirrored, which is not heeded: if its "
                "labels were drawn on what a viewer shows, save it, and others like it, upright",
                image,
            )
        return pair

    def _pairs_of(self, root: Path, part: str) -> list[Pair]:
        endings = [spelled for ending in _PICTURES for spelled in (ending, ending.upper())]
        images = self._files(root / "images" / part, "**/*", endings)
        return self._pair_up(images, self._files(root / "labels" / part, "**/*", [".png", ".PNG"]))

    def _group_of(self, name: str) -> str:
        return name.rpartition("/")[0]

    def _advise(self, what: str) -> str:
        return f"what must lie where: {self.origin}"

    def _to_classes(self, raw: NDArray[Any], path: Path) -> NDArray[np.uint8]:
        if raw.ndim == 2 or raw.dtype != np.uint8:
            bits, _ = _png_format(path)
            if bits < 8:  # OpenCV stretches the values, so that the largest one would be 255
                raise DatasetError(f"{path} has {bits}-bit values, expected 8-bit ones: write it anew")
            return super()._to_classes(raw, path)
        if len(self._class_of) < len(self.classes):
            raise DatasetError(f"{path} is coloured, and {CLASSES_FILE} gives two classes the same colour")
        codes = raw[:, :, 2] * np.uint32(65536) + raw[:, :, 1] * np.uint32(256) + raw[:, :, 0]
        values, positions = np.unique(codes, return_inverse=True)
        table = {_code(_BLACK): IGNORE_INDEX} | self._class_of
        labels = np.array([table.get(int(value), UNKNOWN) for value in values], np.uint8)
        if (labels == UNKNOWN).any():
            value = int(values[labels == UNKNOWN][0])
            color = (value >> 16, value >> 8 & 255, value & 255)
            hint = "; of a PNG with a palette the colours count, not their numbers" if _png_format(path)[1] == 3 else ""
            raise DatasetError(f"{path} holds the colour {color}, which no class of {CLASSES_FILE} has{hint}")
        return labels[positions].reshape(codes.shape)


def read_classes(root: Path) -> ClassSet:
    """Read what the labels of a folder mean: `name`, and as lists `names` and `colors`, in TOML.

    Raises:
        DatasetError: the file is missing.
        ConfigError: it is no TOML, or has other content, more than 254 classes, or names that differ in case alone.
    """
    path = root / CLASSES_FILE
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8-sig"))  # with the mark that Windows puts first
    except OSError as error:
        raise DatasetError(
            f"{path} cannot be read: {error.strerror or error}; it says what the labels mean, see docs/datasets.md"
        ) from error
    except ValueError as error:  # what is no TOML, and what is no UTF-8
        raise ConfigError(f"{path} is no TOML file: {error}") from error
    unknown = sorted(content.keys() - {"name", "names", "colors"})
    if unknown or not isinstance(content.get("name"), str) or "names" not in content or "colors" not in content:
        also = f", and not {unknown[0]!r}" if unknown else ""
        raise ConfigError(f'{path} must have name = "...", names = ["...", ...] and colors = [[R, G, B], ...]{also}')
    names, colors = (_as_tuples(content[key]) for key in ("names", "colors"))
    try:
        classes = ClassSet(name=content["name"], names=names, colors=colors)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
    spelled = [name.strip().lower() for name in names]  # as they are looked up
    for name, first in ((name, names[spelled.index(key)]) for name, key in zip(names, spelled, strict=True)):
        if name != first:
            raise ConfigError(f"{path}: the class names {first!r} and {name!r} must differ in more than case")
    if len(classes) > UNKNOWN:
        raise ConfigError(f"{path} has {len(classes)} classes, expected at most {UNKNOWN}: join some that are alike")
    return classes


def write_classes(root: Path, classes: ClassSet) -> None:
    """Write what `read_classes` reads.

    Raises:
        SinkError: the file cannot be written.
    """
    names = "".join(f"  {_quoted(name)},\n" for name in classes.names)
    rows = zip(classes.colors, classes.names, strict=True)
    colors = "".join(f"  [{red}, {green}, {blue}],  # {_quoted(name)}\n" for (red, green, blue), name in rows)
    text = f"name = {_quoted(classes.name)}\nnames = [\n{names}]\ncolors = [\n{colors}]\n"
    write_bytes(root / CLASSES_FILE, text.encode())


def save_pair(root: Path, part: str, name: str, rgb: NDArray[np.uint8], labels: NDArray[np.uint8]) -> None:
    """Write a picture and its labels as `LabelledFolder` reads them, the picture as JPEG of quality 95.

    Args:
        root: the data set's folder.
        part: `train`, `val` or `test`.
        name: the pair's, without ending; folders in it are made.
        rgb: `(H, W, 3)` uint8.
        labels: `(H, W)` uint8, class indices, 255 for no class.

    Raises:
        SinkError: a file cannot be written.
    """
    _, jpeg = cv2.imencode(".jpg", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 95])
    _, png = cv2.imencode(".png", labels)
    # The labels come last: they say that the pair is there.
    write_bytes(root / "images" / part / f"{name}.jpg", jpeg.tobytes())
    write_bytes(root / "labels" / part / f"{name}.png", png.tobytes())


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file that is there whole or not at all, and the folders that it lies in.

    Raises:
        SinkError: it cannot be written.
    """
    partial = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(content)
        partial.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise SinkError(f"{path} cannot be written: {error.strerror or error}") from error


def _png_format(path: Path) -> tuple[int, int]:
    """Read from a PNG's header the bits of a value and the type of colour, 3 for a palette; 8 and 0 of other files."""
    with path.open("rb") as file:
        header = file.read(26)
    return (header[24], header[25]) if header.startswith(b"\x89PNG") else (8, 0)


def _as_tuples(value: object) -> Any:  # noqa: ANN401 - whatever the file holds: the class set refuses what it cannot use
    return tuple(map(_as_tuples, value)) if isinstance(value, list) else value


def _code(color: tuple[int, int, int]) -> int:
    red, green, blue = color
    return red << 16 | green << 8 | blue


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")  # JSON's quoted texts are TOML's
