"""What every segmentation data set offers."""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from bsdnet.classes import ClassSet

TAUGHT = 254
"""Label of a pixel whose class only the teacher can tell, beside pixels with labels. No class set reaches it."""


class LabelledImages(Protocol):
    """Pictures with labels, by index. Reading the same index again gives the same pair; instances can be pickled."""

    @property
    def classes(self) -> ClassSet:
        """What the labels mean."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Read one pair: picture `(H, W, 3)` uint8 RGB, labels `(H, W)` uint8 with 255 for no class.

        Raises:
            DatasetError: a file cannot be read, or its content is not as expected.
        """
        ...

    def name(self, index: int) -> str:
        """Give what tells a pair from all others of the data set, in words: a file's name, a video's frame."""
        ...
