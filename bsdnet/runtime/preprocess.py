"""From a frame to what the network takes: resize, normalise."""

from collections.abc import Sequence

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F


class Preprocessor:
    """Resize RGB frames and normalise them with the mean and deviation that the weights were trained with.

    Frames of twice the size or more are halved by averaging first, since bilinear interpolation alone would skip
    pixels and alias; averaging down to the size in one step looks no better and costs five times as much.

    Safe for use by several threads at once.

    Args:
        mean: of RGB scaled to 0..1.
        std: standard deviation of RGB scaled to 0..1.
        device: where the normalised tensors shall be.
        dtype: of the normalised tensors.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float], device: torch.device, dtype: torch.dtype) -> None:
        self._device = device
        self._dtype = dtype
        spread = torch.tensor(std, dtype=torch.float32, device=device)
        self._scale = 1 / (255 * spread)
        self._shift = -torch.tensor(mean, dtype=torch.float32, device=device) / spread
        self._rows = (torch.empty(0), torch.empty(0))

    def from_array(self, rgb: NDArray[np.uint8], size: tuple[int, int]) -> Tensor:
        """Prepare a frame on the CPU.

        Args:
            rgb: `(H, W, 3)` uint8.
            size: height and width to resize to.

        Returns:
            `(1, 3, height, width)`, channels_last.
        """
        height, width = size
        while rgb.shape[0] >= 2 * height and rgb.shape[1] >= 2 * width:
            halved = (rgb.shape[1] // 2, rgb.shape[0] // 2)
            rgb = np.asarray(cv2.resize(rgb, halved, interpolation=cv2.INTER_AREA), np.uint8)
        rgb = np.asarray(cv2.resize(rgb, (width, height), interpolation=cv2.INTER_LINEAR), np.uint8)
        scale_and_shift = self._rows
        if scale_and_shift[0].numel() != 3 * width:
            self._rows = scale_and_shift = self._scale.repeat(width), self._shift.repeat(width)
        # By whole rows of R, G, B, R, G, B ...: broadcasting over a trailing dimension of 3 takes three times as long.
        rows = torch.from_numpy(rgb).view(height, 3 * width).float()
        normalised = torch.addcmul(scale_and_shift[1], rows, scale_and_shift[0]).to(self._dtype)
        return normalised.view(1, height, width, 3).permute(0, 3, 1, 2)

    def from_tensor(self, rgb: Tensor, size: tuple[int, int]) -> Tensor:
        """Prepare a frame where it lies, as on a GPU; the result is that of `from_array` but for a few levels of 255.

        Args:
            rgb: `(H, W, 3)` uint8 on the preprocessor's device.
            size: height and width to resize to.

        Returns:
            `(1, 3, height, width)`, channels_last.
        """
        height, width = size
        x = rgb.permute(2, 0, 1)[None].float()  # (H, W, 3) -> (1, 3, H, W)
        while x.shape[2] >= 2 * height and x.shape[3] >= 2 * width:
            x = F.interpolate(x, size=(x.shape[2] // 2, x.shape[3] // 2), mode="area")
        x = F.interpolate(x, size=size, mode="bilinear", align_corners=False)
        x = x * self._scale[:, None, None] + self._shift[:, None, None]
        return x.to(self._dtype, memory_format=torch.channels_last)
