"""Frames that move or stand still, and logits to smooth."""

import cv2
import numpy as np
import torch

from bsdnet.picture import Picture

INPUT = (160, 240)
CELLS = (20, 30)


def texture(size=(320, 480), seed=0):
    noise = np.random.default_rng(seed).normal(size=(size[0] // 20, size[1] // 20, 3))
    big = cv2.resize(noise, size[::-1], interpolation=cv2.INTER_CUBIC)
    return np.asarray((big - big.min()) / np.ptp(big) * 255, np.uint8)


def moving(num, step_px=8, seed=0):
    """A camera that pans to the right, so that the content goes to the left: frames of the input's own size."""
    wide = texture(seed=seed)
    return [
        Picture(planes=(np.ascontiguousarray(wide[40:200, 40 + step_px * i : 280 + step_px * i]),)) for i in range(num)
    ]


def standing(num, size=INPUT, seed=0):
    return [Picture(planes=(texture(size, seed),))] * num


def logits_of(num, classes=3, seed=0, cells=CELLS):
    return torch.randn((num, 1, classes, *cells), generator=torch.Generator().manual_seed(seed))


def smooth(smoother, picture, logits, input_size=INPUT):
    turn = smoother.turn(picture, input_size)
    return turn.average(logits, None if turn.guide is None else torch.from_numpy(turn.guide))
