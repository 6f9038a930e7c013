"""The paper's equations in plain numpy loops, one image `(C, H, W)` at a time, in float64.

Written from the paper, slowly and obviously, so that the network's fast forms have something to be held against.
Every kernel is `(C_out, C_in, height, width)`; a stripe kernel K of direction h is `(N, C, k)` along the row.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

Array = np.ndarray


class Norm(NamedTuple):
    """A batch norm at inference: fixed statistics, then scale and shift."""

    mean: Array
    var: Array
    scale: Array
    shift: Array
    eps: float = 1e-5


class ConvNorm(NamedTuple):
    """A convolution without a bias, and the batch norm behind it."""

    kernel: Array
    norm: Norm


class Attention(NamedTuple):
    """DEC attention's parameters; q, k and v are one 1x1 convolution each."""

    horizontal: Array
    vertical: Array
    q: ConvNorm
    k: ConvNorm
    v: ConvNorm
    depthwise: ConvNorm
    project: ConvNorm


class Ffn(NamedTuple):
    """The feed-forward network's parameters."""

    expand: ConvNorm
    depthwise: ConvNorm
    project: Array


def relu(x: Array) -> Array:
    return np.maximum(x, 0.0)


def batch_norm(x: Array, norm: Norm) -> Array:
    y = np.zeros_like(x)
    for c in range(x.shape[0]):
        y[c] = (x[c] - norm.mean[c]) / np.sqrt(norm.var[c] + norm.eps) * norm.scale[c] + norm.shift[c]
    return y


def conv(x: Array, kernel: Array, *, stride: int = 1, rate: int = 1, depthwise: bool = False) -> Array:
    """Zero-padded by `rate * (k // 2)`: stride 1 keeps the size. A depthwise kernel is `(C, 1, k, k)`."""
    _, height, width = x.shape
    c_out, c_in, k_h, k_w = kernel.shape
    y = np.zeros((c_out, -(-height // stride), -(-width // stride)))
    for o, i, j in np.ndindex(y.shape):
        total = 0.0
        for c, a, b in np.ndindex(c_in, k_h, k_w):
            row, col = i * stride + rate * (a - k_h // 2), j * stride + rate * (b - k_w // 2)
            if 0 <= row < height and 0 <= col < width:
                total += kernel[o, c, a, b] * x[o if depthwise else c, row, col]
        y[o, i, j] = total
    return y


def conv_norm(x: Array, layer: ConvNorm, *, stride: int = 1, rate: int = 1, depthwise: bool = False) -> Array:
    return batch_norm(conv(x, layer.kernel, stride=stride, rate=rate, depthwise=depthwise), layer.norm)


def double_norm(x: Array, groups: int, order: int = 2) -> Array:
    """Sigma of equation 3: softmax over all positions of a channel, then L2 over a group's channels at a position.

    The order is 1 for the L1 of the networks that sigma comes from.
    """
    n, height, width = x.shape
    p = np.zeros_like(x)
    for c in range(n):
        exps = np.exp(x[c] - x[c].max())
        p[c] = exps / exps.sum()
    y = np.zeros_like(x)
    size = n // groups
    for g, i, j in np.ndindex(groups, height, width):
        members = range(g * size, (g + 1) * size)
        norm = sum(p[c, i, j] ** order for c in members) ** (1 / order)
        for c in members:
            y[c, i, j] = p[c, i, j] / norm
    return y


def stripe(x: Array, kernels: Array, groups: int, *, vertical: bool, order: int = 2) -> Array:
    """One of equation 3's two terms: sigma(X (x) K) (x) K^T, kernels `(N, C, k)` along the row or the column.

    K^T swaps the roles of N and C and leaves each kernel as it is in space.
    """
    channels, height, width = x.shape
    n, _, k = kernels.shape

    def neighbour(i: int, j: int, tap: int) -> tuple[int, int] | None:
        row, col = (i + tap - k // 2, j) if vertical else (i, j + tap - k // 2)
        return (row, col) if 0 <= row < height and 0 <= col < width else None

    similarity = np.zeros((n, height, width))
    for m, c, i, j, tap in np.ndindex(n, channels, height, width, k):
        if (at := neighbour(i, j, tap)) is not None:
            similarity[m, i, j] += kernels[m, c, tap] * x[c, *at]
    attention = double_norm(similarity, groups, order)
    y = np.zeros_like(x)
    for m, c, i, j, tap in np.ndindex(n, channels, height, width, k):
        if (at := neighbour(i, j, tap)) is not None:
            y[c, i, j] += kernels[m, c, tap] * attention[m, *at]
    return y


def dec_attention(x: Array, weights: Attention, groups: int) -> Array:
    """Equation 3, with F_d from q, k and v: concatenated, 3x3 depthwise, activation, projection, batch norm."""
    attention = stripe(x, weights.horizontal, groups, vertical=False) + stripe(
        x, weights.vertical, groups, vertical=True
    )
    qkv = np.concatenate([conv_norm(x, weights.q), conv_norm(x, weights.k), conv_norm(x, weights.v)])
    detail = conv_norm(relu(conv_norm(qkv, weights.depthwise, depthwise=True)), weights.project)
    return attention * detail


def ffn(x: Array, weights: Ffn) -> Array:
    """Figure 3, right: 1x1 expansion, 3x3 depthwise, 1x1 projection."""
    hidden = relu(conv_norm(relu(conv_norm(x, weights.expand)), weights.depthwise, depthwise=True))
    return conv(hidden, weights.project)


def fcb(x: Array, attention: Attention, groups: int, norm1: Norm, feed_forward: Ffn, norm2: Norm) -> Array:
    """Equation 1."""
    x_m = batch_norm(x + dec_attention(x, attention, groups), norm1)
    return batch_norm(x_m + ffn(x_m, feed_forward), norm2)


def dasp(
    x: Array,
    first: ConvNorm,
    atrous: list[tuple[int, ConvNorm]],
    pooled: ConvNorm,
    aggregate: list[ConvNorm],
    compress: ConvNorm,
    shortcut: ConvNorm,
    pool: Callable[[Array], float] = np.mean,
) -> Array:
    """Equation 8, then the concatenation, the 1x1 convolution and the shortcut of figure 4."""
    f = [relu(conv_norm(x, first))]
    for (rate, layer), after in zip(atrous, aggregate[:-1], strict=True):
        f.append(relu(conv_norm(relu(conv_norm(x, layer, rate=rate)) + f[-1], after)))
    globally = np.array([[[pool(channel)]] for channel in x])
    upsampled = np.broadcast_to(relu(conv_norm(globally, pooled)), f[-1].shape)
    f.append(relu(conv_norm(upsampled + f[-1], aggregate[-1])))
    return relu(conv_norm(np.concatenate(f), compress) + conv_norm(x, shortcut))


def bilinear(x: Array, height: int, width: int) -> Array:
    """Resize with half-pixel centres and replicated borders (align_corners=False)."""
    channels, h_in, w_in = x.shape
    y = np.zeros((channels, height, width))
    for i, j in np.ndindex(height, width):
        row = min(max((i + 0.5) * h_in / height - 0.5, 0.0), h_in - 1.0)
        col = min(max((j + 0.5) * w_in / width - 0.5, 0.0), w_in - 1.0)
        top, left = int(row), int(col)
        bottom, right = min(top + 1, h_in - 1), min(left + 1, w_in - 1)
        down, across = row - top, col - left
        y[:, i, j] = (1 - down) * ((1 - across) * x[:, top, left] + across * x[:, top, right])
        y[:, i, j] += down * ((1 - across) * x[:, bottom, left] + across * x[:, bottom, right])
    return y
