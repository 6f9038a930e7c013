"""The labels of the drawn street."""

from enum import IntEnum

from bsdnet.classes import IGNORE_INDEX


class Label(IntEnum):
    """The classes of CAMVID_11 by name, and VOID for what belongs to none of them."""

    SKY = 0
    BUILDING = 1
    POLE = 2
    ROAD = 3
    PAVEMENT = 4
    TREE = 5
    SIGN = 6
    FENCE = 7
    CAR = 8
    PEDESTRIAN = 9
    BICYCLIST = 10
    VOID = IGNORE_INDEX
