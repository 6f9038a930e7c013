"""From a frame to what the network takes: resize, normalise."""

from collections.abc import Sequence

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from bsdnet.picture import Picture, YuvEncoding


class Preprocessor:
    """Resize frames and normalise them with the mean and deviation that the weights were trained with.

    Frames of twice the size or more are halved by averaging first, since bilinear interpolation alone would skip
    pixels and alias; averaging down to the size in one step looks no better and costs five times as much. Each plane
    of a YUV frame is resized by itself and becomes RGB at the network's size, where there are fewer pixels to convert.

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
        self._mean, self._std = np.array(mean), np.array(std)
        spread = torch.tensor(std, dtype=torch.float32)
        self._scale = 1 / (255 * spread)
        self._shift = -torch.tensor(mean, dtype=torch.float32) / spread
        self._rows = (torch.empty(0), torch.empty(0))
        self._affine: dict[YuvEncoding | None, Tensor] = {}

    def affine(self, encoding: YuvEncoding | None) -> Tensor:
        """What takes a frame's R, G, B or Y, U, V, 0 to 255, to normalised R, G, B.

        Returns:
            `(3, 4)` float32 on the preprocessor's device: normalised = `m[:, :3] @ pixel + m[:, 3]`.
        """
        if encoding not in self._affine:
            matrix = np.eye(3) if encoding is None else encoding.to_rgb()
            black = np.zeros(3) if encoding is None else np.array(encoding.black)
            scaled = matrix / (255 * self._std[:, None])
            shift = -self._mean / self._std - scaled @ black
            affine = torch.from_numpy(np.column_stack([scaled, shift]).astype(np.float32))
            self._affine[encoding] = affine.to(self._device)
        return self._affine[encoding]

    def from_picture(self, picture: Picture, size: tuple[int, int]) -> Tensor:
        """Prepare a frame on the CPU.

        Args:
            picture: the frame.
            size: height and width to resize to.

        Returns:
            `(1, 3, height, width)`, channels_last.
        """
        height, width = size
        planes = [_resize(plane, size) for plane in picture.planes]
        if picture.encoding is None:
            scale_and_shift = self._rows
            if scale_and_shift[0].numel() != 3 * width:
                self._rows = scale_and_shift = self._scale.repeat(width), self._shift.repeat(width)
            # By rows of R, G, B, R, G, B ...: broadcasting over a trailing dimension of 3 takes three times as long.
            rows = torch.from_numpy(planes[0]).view(height, 3 * width).float()
            normalised = torch.addcmul(scale_and_shift[1], rows, scale_and_shift[0])
        else:
            yuv = cv2.merge(planes).astype(np.float32)
            normalised = torch.from_numpy(cv2.transform(yuv, self.affine(picture.encoding).numpy()))
        return normalised.to(self._dtype).view(1, height, width, 3).permute(0, 3, 1, 2)

    def from_tensors(self, planes: Sequence[Tensor], encoding: YuvEncoding | None, size: tuple[int, int]) -> Tensor:
        """Prepare a frame where it lies, as on a GPU; the result is that of `from_picture` but for a few levels of 255.

        Args:
            planes: uint8, as of a `Picture`, on the preprocessor's device.
            encoding: that of the frame.
            size: height and width to resize to.

        Returns:
            `(1, 3, height, width)`, channels_last.
        """
        channels = [planes[0].permute(2, 0, 1)] if encoding is None else [plane[None] for plane in planes]
        x = torch.cat([_resize_tensor(channel[None].float(), size) for channel in channels], dim=1)  # (1, 3, h, w)
        affine = self.affine(encoding)
        x = torch.einsum("oc,bchw->bohw", affine[:, :3], x) + affine[:, 3, None, None]
        return x.to(self._dtype, memory_format=torch.channels_last)


def _resize(plane: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Resize `(H, W)` or `(H, W, C)` to `size` (height, width)."""
    height, width = size
    plane = halved_towards(plane, size)
    return np.asarray(cv2.resize(plane, (width, height), interpolation=cv2.INTER_LINEAR), np.uint8)


def halved_towards(plane: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Halve `(H, W)` or `(H, W, C)` by averaging for as long as it stays as large as `size` (height, width)."""
    while plane.shape[0] >= 2 * size[0] and plane.shape[1] >= 2 * size[1]:
        half = (plane.shape[1] // 2, plane.shape[0] // 2)
        plane = np.asarray(cv2.resize(plane, half, interpolation=cv2.INTER_AREA), np.uint8)
    return plane


def _resize_tensor(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize `(1, C, H, W)` float to `size` (height, width)."""
    while x.shape[2] >= 2 * size[0] and x.shape[3] >= 2 * size[1]:
        x = F.interpolate(x, size=(x.shape[2] // 2, x.shape[3] // 2), mode="area")
    return F.interpolate(x, size=size, mode="bilinear", align_corners=False)
