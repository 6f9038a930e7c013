"""Class sets: what a network's output channels mean, and how they are drawn."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bsdnet.errors import ConfigError

IGNORE_INDEX = 255
"""Label of pixels that belong to no class: left out of losses and metrics."""


@dataclass(frozen=True, kw_only=True)
class ClassSet:
    """The classes of a data set, in the order of the network's output channels.

    Raises:
        ConfigError: names and colours do not match in number, a name appears twice, there are none or more than 255
            classes, or a colour is no RGB triple of 0 to 255.
    """

    name: str
    """Identifier, such as `camvid-11`."""
    names: tuple[str, ...]
    """Class names, by class index."""
    colors: tuple[tuple[int, int, int], ...]
    """RGB colours, 0 to 255, by class index."""

    def __post_init__(self) -> None:
        """Reject what cannot be drawn or told apart."""
        if not 1 <= len(self.names) <= IGNORE_INDEX:
            raise ConfigError(f"class set {self.name!r}: names must hold 1 to {IGNORE_INDEX} classes")
        if len(set(self.names)) != len(self.names):
            raise ConfigError(f"class set {self.name!r}: names has a name twice")
        if len(self.colors) != len(self.names):
            raise ConfigError(
                f"class set {self.name!r}: colors has {len(self.colors)} entries, names has {len(self.names)}"
            )
        for color in self.colors:
            if len(color) != 3 or any(not 0 <= channel <= 255 for channel in color):
                raise ConfigError(f"class set {self.name!r}: colors must be RGB triples of 0 to 255, got {color}")

    def __len__(self) -> int:
        return len(self.names)

    @property
    def palette(self) -> NDArray[np.uint8]:
        """The colours as an array, `(num_classes, 3)` uint8 RGB."""
        return np.array(self.colors, np.uint8)

    def indices(self, names: list[str]) -> list[int]:
        """Look up classes by name, whatever their case.

        Raises:
            ConfigError: a name is not of this set; the message lists those that are.
        """
        known = {name.lower(): index for index, name in enumerate(self.names)}
        unknown = [name for name in names if name.strip().lower() not in known]
        if unknown:
            raise ConfigError(
                f"no class {', '.join(map(repr, unknown))} in {self.name}; its classes are: {', '.join(self.names)}"
            )
        return [known[name.strip().lower()] for name in names]


CITYSCAPES_19 = ClassSet(
    name="cityscapes-19",
    names=(
        "road", "sidewalk", "building", "wall", "fence", "pole", "traffic light", "traffic sign", "vegetation",
        "terrain", "sky", "person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle",
    ),
    colors=(
        (128, 64, 128), (244, 35, 232), (70, 70, 70), (102, 102, 156), (190, 153, 153), (153, 153, 153),
        (250, 170, 30), (220, 220, 0), (107, 142, 35), (152, 251, 152), (70, 130, 180), (220, 20, 60), (255, 0, 0),
        (0, 0, 142), (0, 0, 70), (0, 60, 100), (0, 80, 100), (0, 0, 230), (119, 11, 32),
    ),
)  # fmt: skip
"""The 19 training classes of Cityscapes, in the order of their train ids, with the benchmark's colours."""

CAMVID_11 = ClassSet(
    name="camvid-11",
    names=(
        "sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car", "pedestrian", "bicyclist",
    ),
    colors=(
        (70, 130, 180), (112, 96, 92), (224, 224, 160), (128, 64, 128), (244, 35, 232), (107, 142, 35),
        (250, 200, 30), (190, 120, 90), (20, 70, 220), (220, 20, 60), (255, 120, 0),
    ),
)  # fmt: skip
"""The 11 classes of CamVid in the SegNet order; colours near those of Cityscapes, for the eye's habit."""

CLASS_SETS = {class_set.name: class_set for class_set in (CITYSCAPES_19, CAMVID_11)}
"""The class sets that bsdnet knows, by name."""
