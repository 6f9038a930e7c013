"""Class sets: what is refused, and how classes are found."""

import numpy as np
import pytest

from bsdnet.classes import CAMVID_11, CITYSCAPES_19, ClassSet
from bsdnet.errors import ConfigError

COLORS = ((0, 0, 0), (255, 255, 255))


@pytest.mark.parametrize(
    ("names", "colors", "words"),
    [
        (["a", "b"], COLORS, "names must be a tuple of texts"),
        ("ab", COLORS, "names must be a tuple of texts"),
        ((1, 2), COLORS, "names must be a tuple of texts"),
        ((), (), "1 to 255 classes"),
        (("a", "a"), COLORS, "a name twice"),
        (("a", "b"), COLORS[:1], "colors has 1 entries, names has 2"),
        (("a", "b"), [(0, 0, 0), (1, 1, 1)], "colors must be a tuple of RGB triples"),
        (("a", "b"), np.zeros((2, 3), np.uint8), "colors must be a tuple of RGB triples"),
        (("a", "b"), ([0, 0, 0], (1, 1, 1)), r"whole numbers from 0 to 255, got \[0, 0, 0\]"),
        (("a", "b"), ((0, 0), (1, 1, 1)), r"whole numbers from 0 to 255, got \(0, 0\)"),
        (("a", "b"), ((0, 0, 0.5), (1, 1, 1)), "whole numbers from 0 to 255"),
        (("a", "b"), ((0, 0, 256), (1, 1, 1)), "whole numbers from 0 to 255"),
        (("a", "b"), ((0, 0, -1), (1, 1, 1)), "whole numbers from 0 to 255"),
    ],
)
def test_what_cannot_be_drawn_is_refused_at_once(names: object, colors: object, words: str):
    """Lists, for example, would fail at the first frame with a legend, as an error of inference."""
    with pytest.raises(ConfigError, match=words):
        ClassSet(name="x", names=names, colors=colors)


@pytest.mark.parametrize("classes", [CAMVID_11, CITYSCAPES_19], ids=lambda classes: classes.name)
def test_colours_tell_classes_apart(classes: ClassSet):
    assert classes.palette.shape == (len(classes), 3)
    assert classes.palette.dtype == np.uint8
    assert len(set(classes.colors)) == len(classes)


def test_classes_are_found_by_name_whatever_the_case():
    assert CAMVID_11.indices(["Road", " car "]) == [3, 8]
    with pytest.raises(ConfigError, match="no class 'tram' in camvid-11; its classes are: sky"):
        CAMVID_11.indices(["road", "tram"])
