"""Transforms that move a picture and its labels together, and colour changes that leave the labels alone."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from bsdnet.classes import IGNORE_INDEX
from trainer.degrade import degrade
from trainer.recipes import SegmentationRecipe


@dataclass(frozen=True, kw_only=True)
class TrainTransform:
    """Random scale, crop and flip in one warp, then colour jitter and, with the recipe's probability, a degradation."""

    recipe: SegmentationRecipe
    """Where the ranges come from."""
    keeps_clear: bool = False
    """Whether three channels follow: the same picture without the degradation."""

    def __call__(
        self, rgb: NDArray[np.uint8], labels: NDArray[np.uint8], rng: Generator, wanted: int | None = None
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Draw one training example.

        Args:
            rgb: picture, `(H, W, 3)` uint8.
            labels: class indices, `(H, W)` uint8, 255 where there is none.
            rng: the only source of chance.
            wanted: a class that the crop has to show, if the picture does.

        Returns:
            Picture `(h, w, 3)`, or `(h, w, 6)`, and labels `(h, w)` of the recipe's crop size; beyond the picture's
            edge it is mirrored and the labels are 255.
        """
        view = self._random_view(rgb.shape[:2], rng, _random_pixel(labels, wanted, rng))
        height, width = self.recipe.crop_size
        small, matrix = _shrink(rgb, view)
        # Mirrored beyond the edge, not filled: the batch norms and the attention's softmax see the whole crop.
        seen = cv2.warpAffine(small, matrix, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
        seen_labels = cv2.warpAffine(
            labels,
            view,
            (width, height),
            flags=cv2.INTER_NEAREST,
            borderMode=cv2.BORDER_CONSTANT,
            borderValue=(IGNORE_INDEX,),
        )
        clear = final = jitter_colors(np.asarray(seen, np.uint8), self.recipe.color_jitter, rng)
        if self.recipe.degradation > 0 and rng.random() < self.recipe.degradation:
            final = degrade(clear, rng)
        if self.keeps_clear:
            final = np.concatenate([final, clear], 2)
        return final, np.asarray(seen_labels, np.uint8)

    def _random_view(
        self, size: tuple[int, ...], rng: Generator, inside: tuple[int, int] | None = None
    ) -> NDArray[np.float64]:
        """Draw the map from source to crop coordinates, `(2, 3)`: scale, perhaps flipped, then moved."""
        low, high = self.recipe.scale_range
        # At scale 1 the short side is the recipe's: pictures of other shapes keep theirs.
        scale = min(self.recipe.train_size) / min(size) * float(np.exp(rng.uniform(np.log(low), np.log(high))))
        flip = rng.random() < self.recipe.flip_probability
        offsets = []
        for axis, (side, crop) in enumerate(zip(size, self.recipe.crop_size, strict=True)):
            spare = side * scale - crop  # negative: the picture is smaller than the crop and moves inside it
            first, last = min(spare, 0.0), max(spare, 0.0)
            if inside is not None and spare > 0:  # a place from which the crop shows the pixel, now scaled
                pixel = (inside[axis] + 0.5) * scale
                pixel = side * scale - pixel if axis == 1 and flip else pixel
                first, last = max(0.0, pixel - crop + 1), min(spare, pixel - 1)
                first, last = min(first, spare), max(last, 0.0)
            offsets.append(-rng.uniform(first, last))
        x_scale, x_offset = (-scale, size[1] * scale + offsets[1]) if flip else (scale, offsets[1])
        # Pixel centres lie at half-integers, OpenCV's at integers.
        shift = 0.5 * np.array([x_scale - 1, scale - 1])
        return np.array([[x_scale, 0, x_offset + shift[0]], [0, scale, offsets[0] + shift[1]]])


def _random_pixel(labels: NDArray[np.uint8], wanted: int | None, rng: Generator) -> tuple[int, int] | None:
    if wanted is None:
        return None
    pixels = np.flatnonzero(labels == wanted)
    if not pixels.size:
        return None
    row, column = divmod(int(rng.choice(pixels)), labels.shape[1])
    return row, column


def _shrink(rgb: NDArray[np.uint8], view: NDArray[np.float64]) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """Average the picture down to the view's scale: a warp alone reads four pixels, and aliases when it shrinks."""
    scale = view[1, 1]
    if scale > 0.75:
        return rgb, view
    height, width = rgb.shape[:2]
    size = max(1, round(height * scale)), max(1, round(width * scale))
    small = cv2.resize(rgb, size[::-1], interpolation=cv2.INTER_AREA)
    factors = np.array([width / size[1], height / size[0]])  # from the small picture back to the whole one
    matrix = view.copy()
    matrix[:, :2] *= factors
    matrix[:, 2] += view[:, :2] @ (0.5 * (factors - 1))
    return np.asarray(small, np.uint8), matrix


def paste_classes(
    rgb: NDArray[np.uint8],
    labels: NDArray[np.uint8],
    other_rgb: NDArray[np.uint8],
    other_labels: NDArray[np.uint8],
    rng: Generator,
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Put half of the classes of another example, chosen at random, over this one, at the places where they are there.

    So things are seen in surroundings that the data do not have: ClassMix (Olsson et al., WACV 2021), with true labels.

    Args:
        rgb: picture, `(H, W, C)` uint8.
        labels: its classes, `(H, W)` uint8, 255 where there is none.
        other_rgb: picture of the same shape that the classes are taken from.
        other_labels: its classes; pixels without a class are never taken.
        rng: the only source of chance.

    Returns:
        Picture and labels of the same shape.
    """
    present = np.flatnonzero(np.bincount(other_labels.ravel(), minlength=256)[:IGNORE_INDEX])
    chosen = np.zeros(256, np.bool_)
    chosen[rng.permutation(present)[: (len(present) + 1) // 2]] = True
    taken = chosen[other_labels]
    return np.where(taken[..., None], other_rgb, rgb), np.where(taken, other_labels, labels)


def jitter_colors(rgb: NDArray[np.uint8], strength: float, rng: Generator) -> NDArray[np.uint8]:
    """Change exposure, contrast, gamma, white balance and saturation at random, as another camera or hour would.

    Args:
        rgb: picture, `(H, W, 3)` uint8.
        strength: half-width of each range: 0 changes nothing, 0.5 is strong.
        rng: the only source of chance.

    Returns:
        A picture of the same shape; the argument itself at strength 0.
    """
    if strength == 0:
        return rgb
    levels = np.linspace(0, 1, 256)
    gamma = np.exp(rng.uniform(-strength, strength))
    contrast, saturation = rng.uniform(1 - strength, 1 + strength, 2)
    gains = rng.uniform(1 - strength, 1 + strength) * rng.uniform(1 - strength / 4, 1 + strength / 4, 3)
    curves = (levels[:, None] ** gamma * gains - 0.5) * contrast + 0.5
    table = (curves.clip(0, 1) * 255).round().astype(np.uint8)[None]  # (1, 256, 3)
    gray = cv2.cvtColor(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    return np.asarray(cv2.LUT(cv2.addWeighted(rgb, saturation, gray, 1 - saturation, 0), table), np.uint8)
