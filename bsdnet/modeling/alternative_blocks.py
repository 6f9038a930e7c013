"""The blocks that the paper compares FCB with (table 4), for FCB's places in stages 3 and 4.

Each maps `(B, C, H, W)` to `(B, C, H, W)`. The fifth, ResNet's, is `BasicBlock`. What a paper leaves open is as in its
authors' released network; `docs/adr/0003-ablation-partners.md` says what that is. Stochastic depth, which all of these
train with, belongs to a training's recipe and is left out.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bsdnet.modeling.fcb import grouped_double_norm, stripe_attention


class PreNormBlock(nn.Module):
    """The skeleton of the blocks below: `x + attention(norm(x))`, then `x + ffn(norm(x))`.

    Args:
        norm1: the norm before the attention.
        attention: maps `(B, C, H, W)` to `(B, C, H, W)`.
        norm2: the norm before the feed-forward network.
        ffn: maps `(B, C, H, W)` to `(B, C, H, W)`.
    """

    def __init__(self, norm1: nn.Module, attention: nn.Module, norm2: nn.Module, ffn: nn.Module) -> None:
        super().__init__()
        self.norm1 = norm1
        self.attention = attention
        self.norm2 = norm2
        self.ffn = ffn

    def forward(self, x: Tensor) -> Tensor:
        """Map `(B, C, H, W)` to `(B, C, H, W)`."""
        x = x + self.attention(self.norm1(x))
        y: Tensor = x + self.ffn(self.norm2(x))
        return y


class MixFFN(nn.Sequential):
    """1x1 expansion, 3x3 depthwise, GELU, 1x1 projection: the same in SegFormer (equation 3) and in SegNeXt.

    Maps `(B, C, H, W)` to `(B, C, H, W)`.

    Args:
        channels: C.
        ratio: hidden channels as a multiple of C.
    """

    def __init__(self, channels: int, ratio: int = 4) -> None:
        hidden = channels * ratio
        super().__init__(
            nn.Conv2d(channels, hidden, 1),
            nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden),
            nn.GELU(),
            nn.Conv2d(hidden, channels, 1),
        )


class ConvFFN(nn.Sequential):
    """Two 3x3 convolutions around a GELU, without an expansion: the same in RTFormer and in SCTNet.

    Maps `(B, C, H, W)` to `(B, C, H, W)`.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(
            nn.Conv2d(channels, channels, 3, padding=1), nn.GELU(), nn.Conv2d(channels, channels, 3, padding=1)
        )


class ChannelNorm(nn.LayerNorm):
    """Layer norm over the channels of each position of a map `(B, C, H, W)`."""

    def forward(self, x: Tensor) -> Tensor:
        """Map `(B, C, H, W)` to `(B, C, H, W)`."""
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class ReducedAttention(nn.Module):
    """Self-attention whose keys and values come from a map reduced by a strided convolution.

    Maps `(B, C, H, W)` to `(B, C, H, W)`. Every position asks; R x R positions together answer. As in SegFormer, a
    last row or column that fills no R x R window answers nothing.

    Source: Xie et al., "SegFormer", 2021, equations 1 and 2.

    Args:
        channels: C, a multiple of `heads`.
        heads: parts of the channels that attend on their own.
        reduction: R, the side of the windows in pixels; H and W must be at least as large.
    """

    def __init__(self, channels: int, *, heads: int, reduction: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Conv2d(channels, channels, 1)
        self.reduce: nn.Module = nn.Identity()
        if reduction > 1:
            self.reduce = nn.Sequential(
                nn.Conv2d(channels, channels, reduction, stride=reduction), ChannelNorm(channels)
            )
        self.key_value = nn.Conv2d(channels, 2 * channels, 1)
        self.project = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map `(B, C, H, W)` to `(B, C, H, W)`."""
        batch, channels, height, width = x.shape
        key, value = self.key_value(self.reduce(x)).chunk(2, 1)
        # (B, heads, HW, C/heads) by keys and values of (B, heads, HW/R^2, C/heads)
        y = F.scaled_dot_product_attention(self._tokens(self.query(x)), self._tokens(key), self._tokens(value))
        y = y.transpose(1, 2).reshape(batch, height, width, channels).permute(0, 3, 1, 2)
        projected: Tensor = self.project(y)
        return projected

    def _tokens(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        return x.reshape(batch, self.heads, channels // self.heads, height * width).transpose(2, 3)


class SegFormerBlock(PreNormBlock):
    """SegFormer's Transformer block: `ReducedAttention` and `MixFFN`, each behind a layer norm.

    Source: Xie et al., "SegFormer: Simple and Efficient Design for Semantic Segmentation with Transformers", 2021,
    figure 2 and equations 1 to 3.

    Args:
        channels: C, a multiple of `heads`.
        heads: see `ReducedAttention`.
        reduction: see `ReducedAttention`.
    """

    def __init__(self, channels: int, *, heads: int, reduction: int) -> None:
        attention = ReducedAttention(channels, heads=heads, reduction=reduction)
        super().__init__(ChannelNorm(channels), attention, ChannelNorm(channels), MixFFN(channels))

    def linear_layers(self) -> list[nn.Conv2d]:
        """List the 1x1 convolutions, which the paper's network draws as linear layers."""
        return [module for module in self.modules() if isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1)]


class GFAttention(nn.Module):
    """GPU-Friendly Attention: learnable keys and values, as two 1x1 convolutions around a double normalisation.

    `sigma(x K^T) V`, sigma being a softmax over space, then L1 over each group of kernels.
    Maps `(B, C, H, W)` to `(B, C, H, W)`.

    Source: Wang et al., "RTFormer", 2022, section 3.1 and figure 2.

    Args:
        channels: C, and the number of kernels; a multiple of `groups`.
        groups: groups of the double normalisation.
    """

    def __init__(self, channels: int, groups: int = 8) -> None:
        super().__init__()
        self.groups = groups
        self.keys = nn.Parameter(torch.empty(channels, channels, 1, 1))
        self.values = nn.Parameter(torch.empty(channels, channels, 1, 1))
        for kernels in (self.keys, self.values):
            nn.init.normal_(kernels, std=0.001)

    def forward(self, x: Tensor) -> Tensor:
        """Map `(B, C, H, W)` to `(B, C, H, W)`."""
        return F.conv2d(grouped_double_norm(F.conv2d(x, self.keys), self.groups, order=1), self.values)


class GFABlock(PreNormBlock):
    """RTFormer's block of one resolution: `GFAttention` and `ConvFFN`, each behind a batch norm.

    BSDNet's stages have one branch, so this is the low-resolution half of RTFormer's two-branch block.

    Source: Wang et al., "RTFormer: Efficient Design for Real-Time Semantic Segmentation with Transformer", 2022,
    section 3.1 and figure 2.

    Args:
        channels: C, a multiple of 8.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(nn.BatchNorm2d(channels), GFAttention(channels), nn.BatchNorm2d(channels), ConvFFN(channels))


class ConvAttention(nn.Module):
    """Convolutional attention: stripe kernels as keys and, transposed, as values.

    Equation 3 of BSDNet without its detail branch, and with L1 as the double normalisation's second step.
    Maps `(B, C, H, W)` to `(B, C, H, W)`.

    Source: Xu et al., "SCTNet", 2024, section "Conv-Former Block".

    Args:
        channels: C.
        num_kernels: N, the kernels of each direction.
        groups: groups of the double normalisation, a divisor of `num_kernels`.
        kernel_size: length of the stripes in pixels, odd.
    """

    def __init__(self, channels: int, *, num_kernels: int = 64, groups: int = 8, kernel_size: int = 7) -> None:
        super().__init__()
        self.groups = groups
        self.kernels_h = nn.Parameter(torch.empty(num_kernels, channels, 1, kernel_size))
        self.kernels_v = nn.Parameter(torch.empty(num_kernels, channels, kernel_size, 1))
        for kernels in (self.kernels_h, self.kernels_v):
            nn.init.trunc_normal_(kernels, std=0.001)

    def forward(self, x: Tensor) -> Tensor:
        """Map `(B, C, H, W)` to `(B, C, H, W)`."""
        horizontal = stripe_attention(x, self.kernels_h, self.groups, order=1)
        return horizontal + stripe_attention(x, self.kernels_v, self.groups, order=1)


class CFBlock(PreNormBlock):
    """SCTNet's Conv-Former Block: `ConvAttention` and `ConvFFN`, each behind a batch norm.

    Source: Xu et al., "SCTNet: Single-Branch CNN with Transformer Semantic Information for Real-Time Segmentation",
    2024, section "Conv-Former Block".

    Args:
        channels: C.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(nn.BatchNorm2d(channels), ConvAttention(channels), nn.BatchNorm2d(channels), ConvFFN(channels))


def _depthwise(channels: int, height: int, width: int) -> nn.Conv2d:
    return nn.Conv2d(channels, channels, (height, width), padding=(height // 2, width // 2), groups=channels)


class MultiScaleAttention(nn.Module):
    """Multi-scale convolutional attention (MSCA): depthwise stripes of three lengths make a map that multiplies x.

    `a = D5x5(x)`; `Att = C1x1(a + sum over k of Dkx1(D1xk(a)))` for k = 7, 11, 21; `Att * x`.
    Maps `(B, C, H, W)` to `(B, C, H, W)`.

    Source: Guo et al., "SegNeXt", 2022, equations 1 and 2, figure 2.

    Args:
        channels: C.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.local = _depthwise(channels, 5, 5)
        self.stripes = nn.ModuleList(
            nn.Sequential(_depthwise(channels, 1, k), _depthwise(channels, k, 1)) for k in (7, 11, 21)
        )
        self.mix = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map `(B, C, H, W)` to `(B, C, H, W)`."""
        local = self.local(x)
        attention = local
        for stripe in self.stripes:
            attention = attention + stripe(local)
        y: Tensor = self.mix(attention) * x
        return y


class MSCANAttention(nn.Module):
    """MSCA between two 1x1 convolutions, with a shortcut of its own (figure 2).

    Maps `(B, C, H, W)` to `(B, C, H, W)`.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            nn.Conv2d(channels, channels, 1), nn.GELU(), MultiScaleAttention(channels), nn.Conv2d(channels, channels, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map `(B, C, H, W)` to `(B, C, H, W)`."""
        y: Tensor = x + self.branch(x)
        return y


class MSCANBlock(nn.Module):
    """SegNeXt's block: `MSCANAttention` and `MixFFN`, each behind a batch norm, scaled before it is added.

    Maps `(B, C, H, W)` to `(B, C, H, W)`.

    Source: Guo et al., "SegNeXt: Rethinking Convolutional Attention Design for Semantic Segmentation", 2022, figure 2.
    The scales, one for each channel and 0.01 at first, are in the released network.

    Args:
        channels: C.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(channels)
        self.attention = MSCANAttention(channels)
        self.scale1 = nn.Parameter(torch.full((channels,), 0.01))
        self.norm2 = nn.BatchNorm2d(channels)
        self.ffn = MixFFN(channels)
        self.scale2 = nn.Parameter(torch.full((channels,), 0.01))

    def forward(self, x: Tensor) -> Tensor:
        """Map `(B, C, H, W)` to `(B, C, H, W)`."""
        x = x + self.scale1[:, None, None] * self.attention(self.norm1(x))
        y: Tensor = x + self.scale2[:, None, None] * self.ffn(self.norm2(x))
        return y
