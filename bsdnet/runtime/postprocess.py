"""From logits at stride 8 to labels and confidence at the frame's size.

The labels are the argmax of the bilinearly enlarged logits (align_corners=False), not of the small ones enlarged:
class borders are then smooth lines instead of steps of eight pixels.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

_BLOCK_PX = 2**18
"""Pixels that are decided at once: few enough for the CPU's cache, many enough to amortise numpy's calls."""


class LabelUpsampler:
    """Argmax of bilinearly enlarged logits, without enlarging most of them.

    Four neighbouring logits span a cell, and inside it each class's logit is a weighted mean of its four corners. So

    - a class that is the largest in all four corners is the largest in the whole cell, and
    - a class that reaches nowhere what another has everywhere is nowhere the largest.

    Most cells of a street scene are settled by the first rule. In the others the second leaves two or three
    contenders, and only these are interpolated. Both rules are exact: the labels are those of enlarging everything
    but for rounding where two classes are level, at 1/50 of the time of `torch.nn.functional.interpolate` and argmax.

    Args:
        logits_size: height and width of the logits.
        frame_size: height and width of the labels.
    """

    def __init__(self, logits_size: tuple[int, int], frame_size: tuple[int, int]) -> None:
        self.logits_size = logits_size
        self.frame_size = frame_size
        self._y = _Axis.between(logits_size[0], frame_size[0])
        self._x = _Axis.between(logits_size[1], frame_size[1])
        self._block = max(1, _BLOCK_PX // (self._y.pixels.shape[1] * self._x.pixels.shape[1]))

    def __call__(self, logits: NDArray[np.float32]) -> NDArray[np.uint8]:
        """Turn logits `(C, h, w)` float32 into labels `(H, W)` uint8."""
        # The outermost pixels lie outside the outermost logits' centres, so cells of half the size surround the others.
        corners = np.pad(logits, ((0, 0), (1, 1), (1, 1)), mode="edge")
        best = corners.argmax(0).astype(np.uint8)  # (h + 2, w + 2); of cells there are (h + 1, w + 1)
        cells = best[:-1, :-1]
        settled = (cells == best[:-1, 1:]) & (cells == best[1:, :-1]) & (cells == best[1:, 1:])
        labels: NDArray[np.uint8] = cells.repeat(self._x.counts, 1).repeat(self._y.counts, 0)
        empty = (self._y.counts == 0)[:, None] | (self._x.counts == 0)
        rows, columns = np.nonzero(~(settled | empty))
        for start in range(0, len(rows), self._block):
            block = slice(start, start + self._block)
            self._decide(labels, corners, rows[block], columns[block])
        return labels

    def _decide(
        self, labels: NDArray[np.uint8], corners: NDArray[np.float32], rows: NDArray[np.intp], columns: NDArray[np.intp]
    ) -> None:
        """Write the labels of the N cells at `rows` and `columns`."""
        quads = np.stack([corners[:, rows + down, columns + right] for down in (0, 1) for right in (0, 1)])
        highest = quads.max(0)  # (4, C, N) -> (C, N)
        contenders = (highest >= quads.min(0).max(0)).sum(0)
        order = np.argsort(-contenders)  # cells with a k-th contender are then the first ones
        rows, columns, contenders = rows[order], columns[order], contenders[order]
        classes = np.argsort(-highest[:, order], axis=0)[: contenders[0]]  # (K, N): contenders come before the others
        quads = np.take_along_axis(quads[:, :, order], classes[None], 1)  # (4, K, N)
        y, x = self._y.fractions[rows], self._x.fractions[columns]

        winner = np.empty((len(rows), y.shape[1], x.shape[1]), np.uint8)
        winner[:] = classes[0, :, None, None]
        largest = _interpolate(quads[:, 0], y, x)
        for k in range(1, len(classes)):
            count = np.count_nonzero(contenders > k)
            logit = _interpolate(quads[:, k, :count], y[:count], x[:count])
            challenger = classes[k, :count, None, None].astype(np.uint8)
            np.copyto(winner[:count], challenger, where=logit > largest[:count])
            np.maximum(largest[:count], logit, out=largest[:count])
        pixels = (self._y.pixels[rows] * labels.shape[1])[:, :, None] + self._x.pixels[columns][:, None, :]
        labels.reshape(-1)[pixels] = winner


@dataclass(frozen=True, kw_only=True, slots=True)
class _Axis:
    """Which pixels lie in which cell along one axis. Cell i lies between logits i - 1 and i."""

    counts: NDArray[np.intp]
    """Pixels in each cell, `(cells,)`."""
    pixels: NDArray[np.intp]
    """The pixels of each cell, `(cells, most)`; where a cell has fewer, its last one is repeated."""
    fractions: NDArray[np.float32]
    """Where `pixels` lie in their cells, 0 to 1, `(cells, most)`."""

    @classmethod
    def between(cls, num_logits: int, num_pixels: int) -> "_Axis":
        position = (np.arange(num_pixels) + 0.5) * (num_logits / num_pixels) + 0.5
        cell = np.minimum(position.astype(np.intp), num_logits)
        counts = np.bincount(cell, minlength=num_logits + 1)
        first = counts.cumsum() - counts
        steps = np.minimum(np.arange(counts.max()), np.maximum(counts - 1, 0)[:, None])
        pixels = np.minimum(first[:, None] + steps, num_pixels - 1)
        return cls(counts=counts, pixels=pixels, fractions=(position - cell).astype(np.float32)[pixels])


def _interpolate(quads: NDArray[np.float32], y: NDArray[np.float32], x: NDArray[np.float32]) -> NDArray[np.float32]:
    """Interpolate bilinearly in N cells: corners `(4, N)`, fractions `(N, Ky)` and `(N, Kx)` -> `(N, Ky, Kx)`."""
    top_left, top_right, bottom_left, bottom_right = quads[:, :, None]
    top = top_left + (top_right - top_left) * x
    bottom = bottom_left + (bottom_right - bottom_left) * x
    value: NDArray[np.float32] = (bottom - top)[:, None, :] * y[:, :, None]
    value += top[:, None, :]
    return value


def confidence_map(logits: NDArray[np.float32], frame_size: tuple[int, int]) -> NDArray[np.uint8]:
    """Softmax probability of the most probable class.

    It is computed at the size of the network's input and enlarged from there, which changes thin ridges between
    classes by a few per cent and spares most of the exponentials.

    Args:
        logits: `(C, h, w)` float32 at stride 8.
        frame_size: height and width of the result.

    Returns:
        `(H, W)` uint8, 255 being certain.
    """
    width, height = logits.shape[2] * 8, logits.shape[1] * 8
    total = np.zeros((height, width), np.float32)
    largest = np.zeros_like(total)
    # What all classes have in common cancels; without it no exponential overflows.
    for channel in logits - logits.max(0):
        score = cv2.resize(channel, (width, height), interpolation=cv2.INTER_LINEAR)
        cv2.exp(score, score)
        cv2.add(total, score, total)
        cv2.max(largest, score, largest)
    confidence = cv2.divide(largest, total, scale=255, dtype=cv2.CV_8U)
    return np.asarray(cv2.resize(confidence, frame_size[::-1], interpolation=cv2.INTER_LINEAR), np.uint8)


def labels_on_device(logits: Tensor, frame_size: tuple[int, int], *, confidence: bool) -> tuple[Tensor, Tensor | None]:
    """Enlarge logits and choose the classes where the logits lie, as on a GPU.

    Args:
        logits: `(1, C, h, w)`, any floating dtype.
        frame_size: height and width of the results.
        confidence: whether to compute the confidence too.

    Returns:
        Labels `(H, W)` uint8, and the softmax probability of the chosen class, `(H, W)` uint8 with 255 being certain,
        or None.
    """
    enlarged = F.interpolate(logits.float(), size=frame_size, mode="bilinear", align_corners=False)[0]
    best, labels = enlarged.max(0)
    certainty = ((best - enlarged.logsumexp(0)).exp() * 255).round().byte() if confidence else None
    return labels.byte(), certainty
