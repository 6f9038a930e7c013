"""Data sets made of others: some of their pictures, several together, their labels said in other classes."""

import bisect
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from bsdnet.classes import IGNORE_INDEX, ClassSet
from bsdnet.errors import ConfigError
from trainer.datasets.contract import TAUGHT, LabelledImages
from trainer.datasets.files import checked_index


class Part:
    """Some examples of a data set.

    Args:
        images: the data set.
        indices: which, in order.
    """

    def __init__(self, images: LabelledImages, indices: Sequence[int]) -> None:
        self.classes: ClassSet = images.classes
        self._images, self._indices = images, indices

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Read one pair, as the data set gives it."""
        return self._images[self._indices[index]]

    def name(self, index: int) -> str:
        """Give the pair's name."""
        return self._images.name(self._indices[index])


class Together:
    """Several data sets as one.

    Args:
        parts: at least one.
    """

    def __init__(self, parts: Sequence[LabelledImages]) -> None:
        self.classes: ClassSet = parts[0].classes
        self._parts = list(parts)
        self._ends = np.cumsum([len(part) for part in parts]).tolist()

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, index: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Read one pair, as the data set that it is in gives it."""
        part, position = self._find(index)
        return part[position]

    def name(self, index: int) -> str:
        """Give the pair's name."""
        part, position = self._find(index)
        return part.name(position)

    def _find(self, index: int) -> tuple[LabelledImages, int]:
        number = bisect.bisect_right(self._ends, checked_index(index, len(self)))
        return self._parts[number], index - (self._ends[number - 1] if number else 0)


class Relabelled:
    """A data set whose labels are said in the classes of another: what they do not say is `TAUGHT`.

    Args:
        images: the data set; its 255 stay.
        classes: the classes to say them in.
        mapping: for some of `classes`, the data set's classes that make them up, whatever their case; those that it has
            not are passed over. None takes those of the same name.

    Raises:
        ConfigError: the mapping names none of `classes`, or puts one of the data set into two; or no class is left.
    """

    def __init__(
        self, images: LabelledImages, classes: ClassSet, mapping: Mapping[str, Sequence[str]] | None = None
    ) -> None:
        self.classes = classes
        self._images = images
        theirs = images.classes
        index_of = {name.lower(): index for index, name in enumerate(theirs.names)}
        if mapping is None:
            mapping = {name: [name] for name in classes.names}
        self._table = np.full(256, TAUGHT, np.uint8)
        self._table[IGNORE_INDEX] = IGNORE_INDEX
        for name, names in mapping.items():
            (label,) = classes.indices([name])
            for index in (index_of[its.lower()] for its in names if its.lower() in index_of):
                if self._table[index] not in (TAUGHT, label):
                    raise ConfigError(f"{theirs.names[index]!r} of {theirs.name} cannot be two classes")
                self._table[index] = label
        if (self._table[: len(theirs)] == TAUGHT).all():
            raise ConfigError(
                f"{theirs.name} has no class of {classes.name}: say in a file which of its classes make which, and "
                "pass it as --further-classes"
            )

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Read one pair; the labels are 254 (`TAUGHT`) where they say nothing in these classes."""
        rgb, labels = self._images[index]
        return rgb, self._table[labels]

    def name(self, index: int) -> str:
        """Give the pair's name."""
        return self._images.name(index)
