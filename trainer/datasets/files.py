"""Pictures and labels that lie in files: finding pairs, reading them, and saying what is wrong with them."""

import glob
import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from bsdnet.classes import IGNORE_INDEX, ClassSet
from bsdnet.errors import DatasetError

UNKNOWN = 254
"""In a table of labels: a value that the data set's files do not hold. No class set of ours reaches it."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A picture's file and its labels' file."""

    name: str
    """What tells it from all others of the data set."""
    image: Path
    """The picture."""
    labels: Path | None
    """The labels; None where the data set publishes none, and each pixel is 255."""


class LabelledFiles:
    """Pictures with labels in files, by index: the base of data sets that are published so.

    A subclass names itself in the class attributes and finds the pairs of a part of the data in `_pairs_of`.

    Args:
        root: the data set's folder.
        split: one of `splits`.
        only: recordings to keep, of `groups`; None keeps all.
        without: recordings to leave out.

    Raises:
        DatasetError: a folder or a file is missing, or a recording has no such name; the message says where it was
            looked for and where the data set is to be had.
    """

    title: ClassVar[str]
    """The data set's name in messages."""
    origin: ClassVar[str]
    """Where the data set is to be had."""
    splits: ClassVar[Mapping[str, tuple[str, ...]]]
    """By the name of a split: the parts that it consists of."""
    published: ClassVar[Mapping[str, int]]
    """How many pictures each part has as published."""
    classes: ClassSet
    """What the labels mean."""
    table: NDArray[np.uint8]
    """Class by value in the labels' files, `(256,)`; see `label_table`."""
    nested: ClassVar[bool] = False
    """Whether a name is the path from the folder that is searched, instead of the file's name alone."""

    def __init__(
        self, root: Path, split: str, *, only: Collection[str] | None = None, without: Collection[str] = ()
    ) -> None:
        if split not in self.splits:
            raise DatasetError(f"{self.title} has no split {split!r}; its splits are {', '.join(self.splits)}")
        pairs = [pair for part in self.splits[split] for pair in self._complete(root, part)]
        kept = select_groups(f"{self.title} {split}", [self._group_of(pair.name) for pair in pairs], only, without)
        self._pairs = [pairs[index] for index in kept]

    def __len__(self) -> int:
        return len(self._pairs)

    def __getitem__(self, index: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Read one pair: picture `(H, W, 3)` uint8 RGB, labels `(H, W)` uint8 with 255 for no class.

        Raises:
            IndexError: there is no such pair.
            DatasetError: a file cannot be read, picture and labels differ in size, or a label is none of the data set.
        """
        pair = self._pairs[checked_index(index, len(self))]
        rgb = read_rgb(pair.image)
        if pair.labels is None:
            return rgb, np.full(rgb.shape[:2], IGNORE_INDEX, np.uint8)
        raw = _read(pair.labels, cv2.IMREAD_UNCHANGED)
        if raw.shape[:2] != rgb.shape[:2]:
            is_turned = raw.shape[:2] == rgb.shape[1::-1]
            hint = "; where the picture is turned by its EXIF orientation, save it upright" if is_turned else ""
            raise DatasetError(
                f"{pair.labels} has the size {raw.shape[1]}x{raw.shape[0]}, expected {rgb.shape[1]}x{rgb.shape[0]} as "
                f"its picture {pair.image.name}{hint}"
            )
        return rgb, self._to_classes(raw, pair.labels)

    def name(self, index: int) -> str:
        """Give the file's name that tells a pair from all others, without what all names end in."""
        return self._pairs[checked_index(index, len(self))].name

    @property
    def groups(self) -> list[str]:
        """The recordings that the pictures come from, sorted; empty where the data set consists of single pictures."""
        return sorted({self._group_of(pair.name) for pair in self._pairs} - {""})

    def group(self, index: int) -> str:
        """Give the recording that a picture comes from, of `groups`; empty where there are none."""
        return self._group_of(self.name(index))

    def _pairs_of(self, root: Path, part: str) -> list[Pair]:
        """Find the pairs of a part of the data set, at least one."""
        raise NotImplementedError

    def _group_of(self, name: str) -> str:
        """Give the recording that a picture comes from; empty where there are none."""
        return ""

    def _to_classes(self, raw: NDArray[Any], path: Path) -> NDArray[np.uint8]:
        """Turn what is in a labels' file into classes, `(H, W)` uint8 with 255 for no class."""
        if raw.ndim != 2 or raw.dtype != np.uint8:
            raise DatasetError(f"{path} must have one channel of 8 bits, found the shape {raw.shape} of {raw.dtype}")
        labels = np.asarray(cv2.LUT(raw, self.table), np.uint8)
        unknown = labels == UNKNOWN
        if unknown.any():
            values = np.flatnonzero(self.table != UNKNOWN).tolist()
            raise DatasetError(f"{path} holds the label {raw[unknown].max()}; {self.title} has {_as_ranges(values)}")
        return labels

    def _advise(self, what: str) -> str:
        """Say what to do where files are missing, `what` for data that were published."""
        return f"{what} {self.origin}"

    def _complete(self, root: Path, part: str) -> list[Pair]:
        """Find the pairs of a part, and warn if there are fewer than were published."""
        pairs = self._pairs_of(root, part)
        if len(pairs) < self.published[part]:
            logger.warning(
                "%s %s: %d of %d pictures are in %s: an excerpt, or not all was unpacked",
                *(self.title, part, len(pairs), self.published[part], root),
            )
        return pairs

    def _files(self, folder: Path, pattern: str, endings: Sequence[str]) -> "Listing":
        """Find files by name without ending, at least one; what is hidden, as in some archives, does not count."""
        if not folder.is_dir():
            raise DatasetError(f"{self.title}: the folder {folder} is missing; {self._advise('it comes with')}")
        found: dict[str, Path] = {}
        # Not pathlib's glob, which goes into hidden folders, and with ** not into linked ones.
        for path in sorted(folder / name for name in glob.glob(pattern, root_dir=folder, recursive=True)):  # noqa: PTH207
            ending = next((ending for ending in endings if path.name.endswith(ending)), None)
            if ending is None:
                continue
            name = (path.relative_to(folder).as_posix() if self.nested else path.name).removesuffix(ending)
            if name in found:
                raise DatasetError(f"{self.title}: {found[name]} and {path} have the same name but for its ending")
            found[name] = path
        if not found:
            expected = " or ".join(f"{pattern.removesuffix('*')}*{ending}" for ending in endings)
            raise DatasetError(f"{self.title}: {folder} holds no {expected}; {self._advise('they come with')}")
        return Listing(folder, found)

    def _pair_up(self, images: "Listing", labels: "Listing") -> list[Pair]:
        """Match pictures and labels by name; none of them may be alone."""
        for what, these, lack, others in (
            ("pictures", images, "labels", labels),
            ("labels", labels, "picture", images),
        ):
            alone = sorted(these.files.keys() - others.files.keys())
            if alone:
                raise DatasetError(
                    f"{self.title}: {len(alone)} of {len(these.files)} {what} have no {lack} in {others.folder}, the "
                    f"first is {these.files[alone[0]]}; {self._advise('unpack anew')}"
                )
        return [Pair(name=name, image=path, labels=labels.files[name]) for name, path in images.files.items()]


class Listing(NamedTuple):
    """Files found in a folder."""

    folder: Path
    """Where they were looked for."""
    files: dict[str, Path]
    """The files by name without ending, sorted."""


def label_table(classes: Mapping[int, int]) -> NDArray[np.uint8]:
    """Make the table of classes by value in a file, `(256,)`: `UNKNOWN` for each value that is not given."""
    table = np.full(256, UNKNOWN, np.uint8)
    for value, label in classes.items():
        table[value] = label
    return table


def color_codes(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Number colours whose channels are all 0, 64, 128 or 192: `(H, W, 3)` to 0 to 63, `(H, W)`."""
    steps = rgb >> 6
    return np.asarray(steps[:, :, 0] << 4 | steps[:, :, 1] << 2 | steps[:, :, 2], np.uint8)


def select_groups(
    title: str, groups: Sequence[str], only: Collection[str] | None, without: Collection[str]
) -> list[int]:
    """Choose pictures by their recordings.

    Args:
        title: the data set in messages.
        groups: each picture's recording.
        only: recordings to keep; None keeps all.
        without: recordings to leave out.

    Returns:
        Indices of the pictures that stay, in order.

    Raises:
        DatasetError: there is no such recording, or no picture is left.
    """
    known = set(groups)
    unknown = (set(only or ()) | set(without)) - known
    if unknown:
        raise DatasetError(
            f"{title} has no recording {', '.join(sorted(unknown))}; "
            f"its recordings are {', '.join(sorted(known - {''})) or 'not told apart'}"
        )
    kept = (known if only is None else set(only)) - set(without)
    indices = [index for index, group in enumerate(groups) if group in kept]
    if not indices:
        raise DatasetError(f"{title}: no pictures are left after choosing recordings")
    return indices


def checked_index(index: int, length: int) -> int:
    """Give back an index from 0 to `length - 1`; any other is an IndexError, so that iteration ends."""
    if not 0 <= index < length:
        raise IndexError(f"there is no example {index}, only 0 to {length - 1}")
    return index


def read_rgb(path: Path, *, upright: bool = False) -> NDArray[np.uint8]:
    """Read a picture, `(H, W, 3)` uint8 RGB.

    Args:
        path: any format that OpenCV reads.
        upright: turn it as its EXIF data say. Labels are not turned, so a picture that has some must not be.

    Raises:
        DatasetError: the file is missing or damaged.
    """
    return _to_rgb(_read(path, _color_flags(upright)))


def is_turned(path: Path) -> bool:
    """Tell whether a picture's EXIF data say that it is to be turned or mirrored before it is shown.

    Raises:
        DatasetError: the file is damaged.
    """
    payload = path.read_bytes()
    if not any(mark in payload for mark in (b"Exif", b"EXIF", b"eXIf")):  # most have none: nothing to decode
        return False
    small = cv2.IMREAD_REDUCED_COLOR_8
    shown, stored = (_decode(payload, str(path), flags) for flags in (small, small | cv2.IMREAD_IGNORE_ORIENTATION))
    return not np.array_equal(shown, stored)


def decode_rgb(payload: bytes, name: str) -> NDArray[np.uint8]:
    """Decode a picture file's bytes, `(H, W, 3)` uint8 RGB.

    Raises:
        DatasetError: they are no picture, or damaged; the message calls them `name`.
    """
    return _to_rgb(_decode(payload, name, _color_flags(upright=False)))


def _read(path: Path, flags: int) -> NDArray[Any]:
    try:
        payload = path.read_bytes()
    except OSError as error:
        raise DatasetError(f"{path} cannot be read: {error.strerror}") from error
    return _decode(payload, str(path), flags)


def _decode(payload: bytes, name: str, flags: int) -> NDArray[Any]:
    # OpenCV takes an empty buffer for a mistake of the caller's.
    picture = cv2.imdecode(np.frombuffer(payload, np.uint8), flags) if payload else None
    if picture is None:
        raise DatasetError(f"{name} cannot be read as a picture: it is none, or damaged or cut off")
    return picture


def _color_flags(upright: bool) -> int:
    return cv2.IMREAD_COLOR if upright else cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION


def _to_rgb(bgr: NDArray[Any]) -> NDArray[np.uint8]:
    return np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), np.uint8)


def _as_ranges(values: Sequence[int]) -> str:
    """Write growing numbers as ranges: `0 to 11, 255`."""
    starts = [value for value in values if value - 1 not in values]
    ends = [value for value in values if value + 1 not in values]
    return ", ".join(
        f"{first} to {last}" if first < last else f"{first}" for first, last in zip(starts, ends, strict=True)
    )
