"""Steadier labels in videos: logits are averaged along the motion of the picture. docs/smoothing.md has the figures.

What a network says of a frame is blended with what it said of the frames before:

    smoothed(n) = logits(n) + weight * (warped - logits(n)),    warped(p) = smoothed(n - 1)(p + flow(p))
    weight(p)   = keep * exp(-(difference(p) / (tolerance * contrast))^2),    0 if p + flow(p) is outside of the frame

The flow is dense optical flow (Kroeger et al., "Fast Optical Flow using Dense Inverse Search", ECCV 2016) between the
lumas of both frames at the logits' size; `difference` is that of the lumas after warping, `contrast` the standard
deviation of the frame's luma. Where the picture does not agree, the frame speaks for itself.
"""

import math
from concurrent.futures import Future

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from bsdnet.errors import ConfigError
from bsdnet.picture import Picture
from bsdnet.runtime.preprocess import halved_towards

KEEP = 0.5
"""Share of the frames before where both pictures agree."""
TOLERANCE = 0.15
"""Difference of the lumas at which 1/e of that share is left, in standard deviations of the frame's luma."""
CUT_AGREEMENT = 0.6
"""Mean of the agreement, 0 to 1, below which two frames are taken for a cut. Measured on a drive: 0.74 and more at
5 Hz, 0.28 and less across cuts to other drives."""

_STRIDE = 8
_MIN_FLOW_SIDE = 16  # OpenCV's flow refuses the smallest pictures; at these the content is taken to stand still


class Smoother:
    """Averages the logits of one stream's frames that one segmenter works on; see this module's description.

    It begins anew by itself when the size or the format of the frames or of the logits changes, and at cuts: then a
    frame is left as it is. It remembers one frame. Its methods are called by one thread at a time.

    Args:
        keep: see `KEEP`; 0 to below 1.
        tolerance: see `TOLERANCE`; above 0.

    Raises:
        ConfigError: one of them is not.
    """

    def __init__(self, *, keep: float = KEEP, tolerance: float = TOLERANCE) -> None:
        if not 0 <= keep < 1 or not tolerance > 0:
            raise ConfigError(
                f"a smoother needs keep from 0 to below 1 and tolerance above 0, got keep {keep}, tolerance {tolerance}"
            )
        self._keep = keep
        self._tolerance = tolerance
        self._flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST)
        self._flow.setFinestScale(0)
        self.reset()

    def reset(self) -> None:
        """Forget the frames so far, because the next one does not follow them."""
        self._format: object = None
        self._luma: NDArray[np.uint8] | None = None
        self._before: Future[Tensor | None] | None = None

    def turn(self, picture: Picture, input_size: tuple[int, int]) -> "Turn":
        """Take the stream's next frame.

        Args:
            picture: the frame.
            input_size: height and width at which the network sees it.

        Returns:
            What averages its logits. It must be used or closed: the next frame's waits for it.
        """
        height, width = (math.ceil(side / _STRIDE) for side in input_size)
        luma_before = self._luma
        if self._format != (picture.size, picture.encoding, input_size):
            self._format, luma_before = (picture.size, picture.encoding, input_size), None
        self._luma = luma_of(picture, (height, width))
        guide = None
        if luma_before is not None:
            flow = np.zeros((height, width, 2), np.float32)
            if min(height, width) >= _MIN_FLOW_SIDE:
                flow = np.asarray(self._flow.calc(self._luma, luma_before, flow), np.float32)
            guide = make_guide(self._luma, luma_before, flow, self._tolerance)
            if guide[..., 2].mean() < CUT_AGREEMENT:
                guide = None
            else:
                guide[..., 2] *= self._keep
        turn = Turn(guide, self._before)
        self._before = turn.smoothed
        return turn


class Turn:
    """One frame's turn in a stream: the networks of several frames may run at once, the averages come in order."""

    def __init__(self, guide: NDArray[np.float32] | None, before: Future[Tensor | None] | None) -> None:
        self.guide = guide
        """See `make_guide`, the weight being that of the frame before; None: the frame is left as it is."""
        self.smoothed: Future[Tensor | None] = Future()
        """The averaged logits, once they are there; None for a frame that failed."""
        self._before = before

    def average(self, logits: Tensor, guide: Tensor | None) -> Tensor:
        """Average a frame's logits with those before, on the device where they lie; wait for these first.

        Args:
            logits: `(1, C, h, w)`, any floating dtype.
            guide: `guide` on the logits' device.

        Returns:
            `(1, C, h, w)` float32 in memory of its own, which must not be written to.
        """
        before = self._before.result() if self._before is not None else None
        if before is None or guide is None:
            smoothed = logits.to(torch.float32, copy=True)  # a backend may overwrite them
        else:
            smoothed = blend(logits.float(), before, guide)
        self.smoothed.set_result(smoothed)
        return smoothed

    def close(self) -> None:
        """Let the next frame go on if this one has failed; does nothing otherwise."""
        if not self.smoothed.done():
            self.smoothed.set_result(None)


def luma_of(picture: Picture, size: tuple[int, int]) -> NDArray[np.uint8]:
    """Shrink a picture's luma to `size` (height, width) by averaging: `(h, w)` uint8."""
    plane = halved_towards(picture.planes[0], size)  # a tenth of the time of one step
    plane = np.asarray(cv2.resize(plane, size[::-1], interpolation=cv2.INTER_AREA), np.uint8)
    return plane if plane.ndim == 2 else np.asarray(cv2.cvtColor(plane, cv2.COLOR_RGB2GRAY), np.uint8)


def make_guide(
    luma: NDArray[np.uint8], luma_before: NDArray[np.uint8], flow: NDArray[np.float32], tolerance: float
) -> NDArray[np.float32]:
    """Say where each place of a frame was in the frame before, and how well both agree there.

    Args:
        luma: of the frame, `(h, w)` uint8.
        luma_before: of the frame before, `(h, w)` uint8.
        flow: from a place to where it was, right and down, in pixels, `(h, w, 2)`.
        tolerance: see `TOLERANCE`.

    Returns:
        `(h, w, 3)` float32: x and y in the frame before, -1 to 1 from edge to edge, and the agreement, 0 to 1.
    """
    height, width = luma.shape
    x = np.arange(width, dtype=np.float32) + flow[..., 0]
    y = np.arange(height, dtype=np.float32)[:, None] + flow[..., 1]
    warped = cv2.remap(luma_before.astype(np.float32), x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    # A frame of one colour has no contrast; its lumas are whole numbers all the same.
    scale = max(tolerance * float(luma.std()), 1.0)
    at = np.stack([(2 * x + 1) / width - 1, (2 * y + 1) / height - 1], axis=-1)
    inside = (np.abs(at) <= 1).all(axis=-1)
    agreement = inside * np.exp(-np.square((luma - warped) / scale))
    return np.concatenate([at, agreement[..., None]], axis=-1)


def blend(logits: Tensor, before: Tensor, guide: Tensor) -> Tensor:
    """Blend logits with those before.

    Args:
        logits: of the frame, `(1, C, h, w)` float32.
        before: smoothed ones of the frame before, `(1, C, h, w)` float32.
        guide: `(h, w, 3)` float32; see `make_guide`, the weight being that of `before`.

    Returns:
        `(1, C, h, w)` float32.
    """
    warped = F.grid_sample(before, guide[None, ..., :2], padding_mode="border", align_corners=False)
    # One value that is not finite would otherwise stay for ever.
    warped = torch.where(warped.isfinite(), warped, logits)
    return torch.lerp(logits, warped, guide[..., 2])
