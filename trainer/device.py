"""Where and in which number format a run computes."""

import functools
from contextlib import AbstractContextManager, nullcontext
from typing import TypeVar

import torch
from torch import Tensor, nn

from trainer.recipes import Precision

_ModuleT = TypeVar("_ModuleT", bound=nn.Module)


def place(module: _ModuleT, device: torch.device, *, channels_last: bool = True) -> _ModuleT:
    """Move a network to a device, in channels_last memory unless told otherwise: convolutions are fastest in it."""
    if not channels_last:
        return module.to(device)
    return module.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def autocast(device: torch.device, precision: Precision) -> AbstractContextManager[object]:
    """Compute in half precision where that is safe, on the CPU and on the GPU; `fp32` computes as written."""
    if precision == "fp32":
        return nullcontext()
    return torch.autocast(device.type, torch.bfloat16 if precision == "bf16" else torch.float16)


def normalize(images: Tensor, mean: tuple[float, float, float], std: tuple[float, float, float]) -> Tensor:
    """Turn pictures into the network's input.

    Args:
        images: RGB, `(B, H, W, 3)` uint8, or several such side by side in the channels.
        mean: of RGB scaled to 0..1.
        std: of RGB scaled to 0..1.

    Returns:
        `(B, C, H, W)` fp32, in channels_last memory without a copy.
    """
    pictures = images.shape[3] // 3
    offset, scale = _offset_and_scale(mean * pictures, std * pictures, images.device)
    return ((images.float() - offset) * scale).permute(0, 3, 1, 2)


@functools.cache  # a copy to the GPU for every batch would wait for all that the GPU still has to do
def _offset_and_scale(mean: tuple[float, ...], std: tuple[float, ...], device: torch.device) -> tuple[Tensor, Tensor]:
    with torch.inference_mode(False):  # what the cache keeps serves training as well
        return torch.tensor(mean).mul(255).to(device), torch.tensor(std).mul(255).reciprocal().to(device)


def send(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy a tensor to a device without waiting for the device."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)
