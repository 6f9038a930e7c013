"""Between torch modules and the numpy references: draw parameters at random, set them by hand, read them out."""

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import torch
from torch import nn

from bsdnet.modeling.layers import ConvBNAct

from .reference import Array, ConvNorm, Norm

ModuleT = TypeVar("ModuleT", bound=nn.Module)


def randomised(module: ModuleT, seed: int = 0) -> ModuleT:
    """Give every parameter and every batch norm's statistics a random value, and switch to eval mode.

    Statistics that are 0 and 1 would hide a batch norm that is missing or in the wrong place.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            fan_in = parameter[0].numel() if parameter.dim() > 1 else 4
            parameter.normal_(0, (2 / fan_in) ** 0.5, generator=generator)
        for child in module.modules():
            if isinstance(child, nn.BatchNorm2d):
                child.running_mean.normal_(generator=generator)
                child.running_var.uniform_(0.5, 2, generator=generator)
                child.weight.uniform_(0.5, 1.5, generator=generator)
    return module.eval()


def set_norm(norm: nn.BatchNorm2d, *, mean: float = 0, var: float = 1, scale: float = 1, shift: float = 0) -> None:
    """Set a batch norm to exactly `(x - mean) / sqrt(var) * scale + shift`."""
    with torch.no_grad():
        norm.running_mean.fill_(mean)
        norm.running_var.fill_(var - norm.eps)
        norm.weight.fill_(scale)
        norm.bias.fill_(shift)


def set_kernel(conv: nn.Conv2d | nn.Parameter, values: Sequence[object]) -> None:
    """Set a convolution's kernel to the values, in their order; its bias to zero."""
    weight = conv.weight if isinstance(conv, nn.Conv2d) else conv
    with torch.no_grad():
        weight.copy_(torch.tensor(values, dtype=weight.dtype).reshape(weight.shape))
        if isinstance(conv, nn.Conv2d) and conv.bias is not None:
            conv.bias.zero_()


def set_conv(layer: ConvBNAct, values: Sequence[object]) -> None:
    """Set a layer's kernel, and its batch norm to the identity."""
    set_kernel(layer[0], values)
    set_norm(layer[1])


def array(tensor: torch.Tensor) -> Array:
    return tensor.detach().double().numpy()


def norm_of(norm: nn.BatchNorm2d, channels: slice = slice(None)) -> Norm:
    values = (norm.running_mean, norm.running_var, norm.weight, norm.bias)
    return Norm(*(array(value)[channels] for value in values), eps=norm.eps)


def conv_norm_of(layer: ConvBNAct, channels: slice = slice(None)) -> ConvNorm:
    """Read a layer, or some of its output channels."""
    return ConvNorm(array(layer[0].weight)[channels], norm_of(layer[1], channels))


def assert_close(actual: torch.Tensor, expected: Array, *, rtol: float = 2e-5) -> None:
    """Compare one image of a batch of one with its reference, relative to the reference's largest value."""
    assert actual.shape == (1, *expected.shape)
    np.testing.assert_allclose(array(actual[0]), expected, rtol=0, atol=rtol * np.abs(expected).max())
