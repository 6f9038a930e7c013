"""Where and in which precision a run computes."""

from typing import TypeVar

import torch
from torch import Tensor, nn

_ModuleT = TypeVar("_ModuleT", bound=nn.Module)


def place(model: _ModuleT, device: torch.device) -> _ModuleT:
    """Move a network to a device in channels_last memory, which convolutions are fastest in."""
    return model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def autocast(device: torch.device) -> torch.autocast:
    """Compute in bf16 where that is safe, on the CPU and on the GPU."""
    return torch.autocast(device.type, torch.bfloat16)


def normalize(images: Tensor, mean: tuple[float, float, float], std: tuple[float, float, float]) -> Tensor:
    """Turn pictures into the network's input.

    Args:
        images: RGB, `(B, H, W, 3)` uint8.
        mean: of RGB scaled to 0..1.
        std: of RGB scaled to 0..1.

    Returns:
        `(B, 3, H, W)` fp32, in channels_last memory without a copy.
    """
    scale = torch.tensor(std, device=images.device).mul_(255).reciprocal_()
    offset = torch.tensor(mean, device=images.device).mul_(255)
    return ((images.float() - offset) * scale).permute(0, 3, 1, 2)
