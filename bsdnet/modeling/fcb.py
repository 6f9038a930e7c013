"""Feature Conversion Convolutional Block (FCB) and its Detail Enhancing Convolutional (DEC) attention.

Source: the BSDNet paper, section 3.2, equations 1 to 3 and figure 3.
"""

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from bsdnet.modeling.layers import ConvBNAct


def grouped_double_norm(x: Tensor, groups: int, *, order: int = 2) -> Tensor:
    """Normalise twice: softmax over space, then L2 over each group of channels (sigma in equation 3).

    Both steps run in fp32 and in the log domain. In half precision a softmax over thousands of positions
    underflows, so do the squares, and an epsilon of 1e-6 vanishes. Relative to the group's largest channel the norm
    is at least one, so no epsilon is needed.

    Args:
        x: similarities of every position with every kernel, `(B, N, H, W)`, any floating dtype.
        groups: number of groups that the N channels are split into, each normalised on its own.
        order: the second norm, 2 for L2; 1 for L1, as in the networks that the double normalisation comes from.

    Returns:
        `(B, N, H, W)` in the dtype and memory order of `x`, values in [0, 1]: each group's channels have that norm 1 at
        every position.
    """
    # NCHW: the reductions below then run along contiguous memory, also where x is channels_last.
    log_p = x.to(torch.float32, memory_format=torch.contiguous_format)
    log_p = log_p - log_p.flatten(2).logsumexp(2)[:, :, None, None]
    batch, channels, height, width = x.shape
    log_p = log_p.view(batch, groups, channels // groups, height, width)
    p = (log_p - log_p.amax(2, keepdim=True)).exp()
    p = p / p.sum(2, keepdim=True) if order == 1 else p * p.square().sum(2, keepdim=True).rsqrt()
    return _cast_like(p.view(batch, channels, height, width), x)


@fx.wrap  # to a tracer a single step: what it asks of x cannot be asked of a proxy
def _cast_like(p: Tensor, x: Tensor) -> Tensor:
    """Give `p` in the dtype and the memory order of `x`: else the next convolution would leave channels_last."""
    last = x.is_contiguous(memory_format=torch.channels_last)
    return p.to(x.dtype, memory_format=torch.channels_last if last else torch.contiguous_format)


def stripe_attention(x: Tensor, kernels: Tensor, groups: int, *, order: int = 2) -> Tensor:
    """Attend with learnable kernels: sigma(x * K) * K^T, one of the two terms of equation 3.

    Args:
        x: `(B, C, H, W)`.
        kernels: K, `(N, C, 1, k)` or `(N, C, k, 1)`. As values, input and output channels are swapped and the
            kernels are not flipped in space.
        groups: see `grouped_double_norm`.
        order: see `grouped_double_norm`.

    Returns:
        `(B, C, H, W)`.
    """
    padding = (kernels.shape[2] // 2, kernels.shape[3] // 2)
    similarity = F.conv2d(x, kernels, padding=padding)  # (B, C, H, W) -> (B, N, H, W)
    attention = grouped_double_norm(similarity, groups, order=order)
    return F.conv2d(attention, kernels.transpose(0, 1), padding=padding)  # (B, N, H, W) -> (B, C, H, W)


class DECAttention(nn.Module):
    """Detail Enhancing Convolutional attention (equation 3).

    Stripe kernels `1 x k` and `k x 1` are learnable parameters. They serve as keys (a convolution of the input) and,
    with input and output channels swapped, as values (a convolution of the attention map). The detail branch,
    a depthwise 3x3 over the concatenated q, k and v, multiplies the result.

    Maps `(B, C, H, W)` to `(B, C, H, W)`.

    Args:
        channels: C.
        num_kernels: N, the kernels of each direction.
        groups: groups of the double normalisation, a divisor of `num_kernels`.
        kernel_size: k, odd, in pixels.
        detail_ratio: channels of q, of k and of v, each as a fraction of C.
    """

    def __init__(
        self, channels: int, *, num_kernels: int = 32, groups: int = 4, kernel_size: int = 7, detail_ratio: float = 0.5
    ) -> None:
        super().__init__()
        self.groups = groups
        self.kernels_h = nn.Parameter(torch.empty(num_kernels, channels, 1, kernel_size))
        self.kernels_v = nn.Parameter(torch.empty(num_kernels, channels, kernel_size, 1))
        detail = 3 * int(channels * detail_ratio)
        self.qkv = ConvBNAct(channels, detail, act=False)  # q, k and v, concatenated
        self.depthwise = ConvBNAct(detail, detail, 3, groups=detail)
        self.project = ConvBNAct(detail, channels, act=False)
        for kernels in (self.kernels_h, self.kernels_v):
            nn.init.trunc_normal_(kernels, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        """Map `(B, C, H, W)` to `(B, C, H, W)`."""
        attention = stripe_attention(x, self.kernels_h, self.groups)
        attention = attention + stripe_attention(x, self.kernels_v, self.groups)
        detail: Tensor = self.project(self.depthwise(self.qkv(x)))
        return attention * detail


class FFN(nn.Module):
    """Feed-forward network: 1x1 expansion, 3x3 depthwise, 1x1 projection (figure 3, right).

    Maps `(B, C, H, W)` to `(B, C, H, W)`; the residual connection is FCB's.

    Args:
        channels: C.
        ratio: hidden channels as a multiple of C.
    """

    def __init__(self, channels: int, ratio: int = 4) -> None:
        super().__init__()
        hidden = channels * ratio
        self.expand = ConvBNAct(channels, hidden)
        self.depthwise = ConvBNAct(hidden, hidden, 3, groups=hidden)
        self.project = nn.Conv2d(hidden, channels, 1, bias=False)  # FCB's batch norm follows, after the addition

    def forward(self, x: Tensor) -> Tensor:
        """Map `(B, C, H, W)` to `(B, C, H, W)`."""
        y: Tensor = self.project(self.depthwise(self.expand(x)))
        return y


class FCB(nn.Module):
    """Feature Conversion Convolutional Block: attention and feed-forward network, each added and normalised.

    Post-norm with batch norm, equation 1: `x_m = BN(x + DEC(x))`, `x_o = BN(x_m + FFN(x_m))`.
    Maps `(B, C, H, W)` to `(B, C, H, W)`.

    Args:
        channels: C.
        num_kernels: see `DECAttention`.
        groups: see `DECAttention`.
        kernel_size: see `DECAttention`.
        detail_ratio: see `DECAttention`.
        ffn_ratio: hidden channels of the feed-forward network as a multiple of C.
    """

    def __init__(
        self,
        channels: int,
        *,
        num_kernels: int = 32,
        groups: int = 4,
        kernel_size: int = 7,
        detail_ratio: float = 0.5,
        ffn_ratio: int = 4,
    ) -> None:
        super().__init__()
        self.attention = DECAttention(
            channels, num_kernels=num_kernels, groups=groups, kernel_size=kernel_size, detail_ratio=detail_ratio
        )
        self.norm1 = nn.BatchNorm2d(channels)
        self.ffn = FFN(channels, ffn_ratio)
        self.norm2 = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map `(B, C, H, W)` to `(B, C, H, W)`."""
        x = self.norm1(x + self.attention(x))
        y: Tensor = self.norm2(x + self.ffn(x))
        return y
