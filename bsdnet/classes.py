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
        ConfigError: names and colours are no tuples or do not match in number, a name is no text or appears twice,
            there are none or more than 255 classes, or a colour is no RGB triple of whole numbers from 0 to 255.
    """

    name: str
    """Identifier, such as `camvid-11`."""
    names: tuple[str, ...]
    """Class names, by class index."""
    colors: tuple[tuple[int, int, int], ...]
    """RGB colours, 0 to 255, by class index."""

    def __post_init__(self) -> None:
        """Reject what cannot be drawn or told apart."""
        if not isinstance(self.names, tuple) or not all(isinstance(name, str) for name in self.names):
            raise ConfigError(f"class set {self.name!r}: names must be a tuple of texts, got {self.names!r}")
        if not 1 <= len(self.names) <= IGNORE_INDEX:
            raise ConfigError(f"class set {self.name!r}: names must hold 1 to {IGNORE_INDEX} classes")
        if len(set(self.names)) != len(self.names):
            raise ConfigError(f"class set {self.name!r}: names has a name twice")
        if not isinstance(self.colors, tuple):
            raise ConfigError(f"class set {self.name!r}: colors must be a tuple of RGB triples, got {self.colors!r}")
        if len(self.colors) != len(self.names):
            raise ConfigError(
                f"class set {self.name!r}: colors has {len(self.colors)} entries, names has {len(self.names)}"
            )
        for color in self.colors:
            channels = color if isinstance(color, tuple) else ()
            if [isinstance(channel, int) and 0 <= channel <= 255 for channel in channels] != [True] * 3:
                raise ConfigError(
                    f"class set {self.name!r}: colors must be RGB triples of whole numbers from 0 to 255, got {color!r}"
                )

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

ADE20K_150 = ClassSet(
    name="ade20k-150",
    names=(
        "wall", "building", "sky", "floor", "tree", "ceiling", "road", "bed", "windowpane", "grass", "cabinet",
        "sidewalk", "person", "earth", "door", "table", "mountain", "plant", "curtain", "chair", "car", "water",
        "painting", "sofa", "shelf", "house", "sea", "mirror", "rug", "field", "armchair", "seat", "fence", "desk",
        "rock", "wardrobe", "lamp", "bathtub", "railing", "cushion", "base", "box", "column", "signboard",
        "chest of drawers", "counter", "sand", "sink", "skyscraper", "fireplace", "refrigerator", "grandstand",
        "path", "stairs", "runway", "case", "pool table", "pillow", "screen door", "stairway", "river", "bridge",
        "bookcase", "blind", "coffee table", "toilet", "flower", "book", "hill", "bench", "countertop", "stove",
        "palm", "kitchen island", "computer", "swivel chair", "boat", "bar", "arcade machine", "hovel", "bus",
        "towel", "light", "truck", "tower", "chandelier", "awning", "streetlight", "booth", "television receiver",
        "airplane", "dirt track", "apparel", "pole", "land", "bannister", "escalator", "ottoman", "bottle", "buffet",
        "poster", "stage", "van", "ship", "fountain", "conveyer belt", "canopy", "washer", "plaything",
        "swimming pool", "stool", "barrel", "basket", "waterfall", "tent", "bag", "minibike", "cradle", "oven",
        "ball", "food", "step", "tank", "trade name", "microwave", "pot", "animal", "bicycle", "lake", "dishwasher",
        "screen", "blanket", "sculpture", "hood", "sconce", "vase", "traffic light", "tray", "ashcan", "fan", "pier",
        "crt screen", "plate", "monitor", "bulletin board", "shower", "radiator", "glass", "clock", "flag",
    ),
    colors=(
        (120, 120, 120), (180, 120, 120), (6, 230, 230), (80, 50, 50), (4, 200, 3), (120, 120, 80), (140, 140, 140),
        (204, 5, 255), (230, 230, 230), (4, 250, 7), (224, 5, 255), (235, 255, 7), (150, 5, 61), (120, 120, 70),
        (8, 255, 51), (255, 6, 82), (143, 255, 140), (204, 255, 4), (255, 51, 7), (204, 70, 3), (0, 102, 200),
        (61, 230, 250), (255, 6, 51), (11, 102, 255), (255, 7, 71), (255, 9, 224), (9, 7, 230), (220, 220, 220),
        (255, 9, 92), (112, 9, 255), (8, 255, 214), (7, 255, 224), (255, 184, 6), (10, 255, 71), (255, 41, 10),
        (7, 255, 255), (224, 255, 8), (102, 8, 255), (255, 61, 6), (255, 194, 7), (255, 122, 8), (0, 255, 20),
        (255, 8, 41), (255, 5, 153), (6, 51, 255), (235, 12, 255), (160, 150, 20), (0, 163, 255), (140, 140, 140),
        (250, 10, 15), (20, 255, 0), (31, 255, 0), (255, 31, 0), (255, 224, 0), (153, 255, 0), (0, 0, 255),
        (255, 71, 0), (0, 235, 255), (0, 173, 255), (31, 0, 255), (11, 200, 200), (255, 82, 0), (0, 255, 245),
        (0, 61, 255), (0, 255, 112), (0, 255, 133), (255, 0, 0), (255, 163, 0), (255, 102, 0), (194, 255, 0),
        (0, 143, 255), (51, 255, 0), (0, 82, 255), (0, 255, 41), (0, 255, 173), (10, 0, 255), (173, 255, 0),
        (0, 255, 153), (255, 92, 0), (255, 0, 255), (255, 0, 245), (255, 0, 102), (255, 173, 0), (255, 0, 20),
        (255, 184, 184), (0, 31, 255), (0, 255, 61), (0, 71, 255), (255, 0, 204), (0, 255, 194), (0, 255, 82),
        (0, 10, 255), (0, 112, 255), (51, 0, 255), (0, 194, 255), (0, 122, 255), (0, 255, 163), (255, 153, 0),
        (0, 255, 10), (255, 112, 0), (143, 255, 0), (82, 0, 255), (163, 255, 0), (255, 235, 0), (8, 184, 170),
        (133, 0, 255), (0, 255, 92), (184, 0, 255), (255, 0, 31), (0, 184, 255), (0, 214, 255), (255, 0, 112),
        (92, 255, 0), (0, 224, 255), (112, 224, 255), (70, 184, 160), (163, 0, 255), (153, 0, 255), (71, 255, 0),
        (255, 0, 163), (255, 204, 0), (255, 0, 143), (0, 255, 235), (133, 255, 0), (255, 0, 235), (245, 0, 255),
        (255, 0, 122), (255, 245, 0), (10, 190, 212), (214, 255, 0), (0, 204, 255), (20, 0, 255), (255, 255, 0),
        (0, 153, 255), (0, 41, 255), (0, 255, 204), (41, 0, 255), (41, 255, 0), (173, 0, 255), (0, 245, 255),
        (71, 0, 255), (122, 0, 255), (0, 255, 184), (0, 92, 255), (184, 255, 0), (0, 133, 255), (255, 214, 0),
        (25, 194, 194), (102, 255, 0), (92, 0, 255),
    ),
)  # fmt: skip
"""The 150 classes of the scene parsing benchmark on ADE20K (its labels less 1), with the benchmark's colours."""
