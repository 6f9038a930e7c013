"""The blocks that FCB is compared with, against plain loops over their papers' formulas."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from bsdnet.modeling.alternative_blocks import (
    CFBlock,
    ConvAttention,
    ConvFFN,
    GFABlock,
    GFAttention,
    MixFFN,
    MSCANBlock,
    MultiScaleAttention,
    ReducedAttention,
    SegFormerBlock,
)
from bsdnet.modeling.fcb import grouped_double_norm

from . import reference
from .parameters import array, assert_close, norm_of, randomised, set_kernel
from .reference import Array


def image(channels: int, height: int, width: int, batch: int = 1) -> torch.Tensor:
    return torch.randn(batch, channels, height, width, generator=torch.Generator().manual_seed(0))


def biased_conv(x: Array, conv: nn.Conv2d) -> Array:
    y = reference.conv(x, array(conv.weight), depthwise=conv.groups > 1)
    return y + array(conv.bias)[:, None, None]


def gelu(x: Array) -> Array:
    return x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


def layer_norm(x: Array, norm: nn.LayerNorm) -> Array:
    y = np.zeros_like(x)
    for i, j in np.ndindex(x.shape[1:]):
        position = x[:, i, j]
        y[:, i, j] = (position - position.mean()) / np.sqrt(position.var() + norm.eps)
    return y * array(norm.weight)[:, None, None] + array(norm.bias)[:, None, None]


def reduced(x: Array, conv: nn.Conv2d, norm: nn.LayerNorm) -> Array:
    """One value for each whole window of R x R pixels; what is left at the end belongs to none."""
    kernel, bias, r = array(conv.weight), array(conv.bias), conv.kernel_size[0]
    y = np.zeros((x.shape[0], x.shape[1] // r, x.shape[2] // r))
    for o, i, j in np.ndindex(y.shape):
        y[o, i, j] = (kernel[o] * x[:, i * r : (i + 1) * r, j * r : (j + 1) * r]).sum() + bias[o]
    return layer_norm(y, norm)


def reduced_attention(x: Array, attention: ReducedAttention) -> Array:
    """softmax(q k^T / sqrt(d)) v, for each head and each position that asks."""
    channels = x.shape[0]
    query = biased_conv(x, attention.query)
    source = x if isinstance(attention.reduce, nn.Identity) else reduced(x, *attention.reduce)
    key_value = biased_conv(source, attention.key_value)
    key, value = key_value[:channels].reshape(channels, -1), key_value[channels:].reshape(channels, -1)
    y = np.zeros_like(x)
    size = channels // attention.heads
    for head, i, j in np.ndindex(attention.heads, *x.shape[1:]):
        part = slice(head * size, (head + 1) * size)
        scores = [query[part, i, j] @ key[part, n] / math.sqrt(size) for n in range(key.shape[1])]
        weights = np.exp(np.array(scores) - max(scores))
        y[part, i, j] = sum(w * value[part, n] for n, w in enumerate(weights / weights.sum()))
    return biased_conv(y, attention.project)


def gf_attention(x: Array, attention: GFAttention) -> Array:
    keys, values = array(attention.keys)[:, :, 0, 0], array(attention.values)[:, :, 0, 0]
    similarity, y = np.zeros_like(x), np.zeros_like(x)
    for i, j in np.ndindex(x.shape[1:]):
        similarity[:, i, j] = keys @ x[:, i, j]
    weights = reference.double_norm(similarity, attention.groups, order=1)
    for i, j in np.ndindex(x.shape[1:]):
        y[:, i, j] = values @ weights[:, i, j]
    return y


def conv_attention(x: Array, attention: ConvAttention) -> Array:
    horizontal, vertical = array(attention.kernels_h[:, :, 0, :]), array(attention.kernels_v[:, :, :, 0])
    y = reference.stripe(x, horizontal, attention.groups, vertical=False, order=1)
    return y + reference.stripe(x, vertical, attention.groups, vertical=True, order=1)


def multi_scale_attention(x: Array, attention: MultiScaleAttention) -> Array:
    local = biased_conv(x, attention.local)
    total = local.copy()
    for row, column in attention.stripes:
        total += biased_conv(biased_conv(local, row), column)
    return biased_conv(total, attention.mix) * x


def mix_ffn(x: Array, ffn: MixFFN) -> Array:
    expand, depthwise, _, project = ffn
    return biased_conv(gelu(biased_conv(biased_conv(x, expand), depthwise)), project)


def conv_ffn(x: Array, ffn: ConvFFN) -> Array:
    first, _, second = ffn
    return biased_conv(gelu(biased_conv(x, first)), second)


class TestReducedAttention:
    def test_hand_computed(self) -> None:
        # One head of two channels, nothing reduced, x = (0, ln 3) in the first channel and (4, 8) in the second.
        # The query is sqrt(2) times the first channel, the key the first, both in their first channel alone; the
        # value is the second channel, in the first. Position 0 asks with 0: mean of 4 and 8. Position 1 asks with
        # ln 3: exp(0) to exp(ln(3)^2), softened by nothing since sqrt(2) / sqrt(2) = 1.
        attention = ReducedAttention(2, heads=1, reduction=1).eval()
        set_kernel(attention.query, [[math.sqrt(2), 0], [0, 0]])
        set_kernel(attention.key_value, [[1, 0], [0, 0], [0, 1], [0, 0]])
        set_kernel(attention.project, [[1, 0], [0, 1]])
        share = math.exp(math.log(3) ** 2)
        expected = np.array([[[6.0, (4 + 8 * share) / (1 + share)]], [[0.0, 0.0]]])
        assert_close(attention(torch.tensor([[[[0.0, math.log(3)]], [[4.0, 8.0]]]])), expected)

    @pytest.mark.parametrize(("heads", "reduction", "size"), [(2, 1, (4, 5)), (3, 2, (4, 6)), (1, 2, (5, 7))])
    def test_equals_the_reference(self, heads: int, reduction: int, size: tuple[int, int]) -> None:
        attention = randomised(ReducedAttention(6, heads=heads, reduction=reduction))
        x = image(6, *size)
        assert_close(attention(x), reduced_attention(array(x[0]), attention))

    def test_memory_format_changes_nothing(self) -> None:
        attention = randomised(ReducedAttention(6, heads=3, reduction=2))
        x = image(6, 4, 6, batch=2)
        torch.testing.assert_close(attention(x.to(memory_format=torch.channels_last)), attention(x))

    def test_the_heads_are_apart(self) -> None:
        attention = randomised(ReducedAttention(4, heads=2, reduction=1))
        set_kernel(attention.project, np.eye(4).tolist())
        before = attention(image(4, 3, 3))
        with torch.no_grad():
            attention.query.weight[2:] += 1  # the second head asks for something else
        after = attention(image(4, 3, 3))
        assert torch.equal(after[:, :2], before[:, :2])
        assert not torch.allclose(after[:, 2:], before[:, 2:])


class TestDoubleNormWithL1:
    def test_hand_computed(self) -> None:
        # Softmax over space of the logarithms of (3, 4, 6, 8) and (9, 4, 2, 6) is the numbers over 21, so at each
        # position they are in the ratios 1:3, 1:1, 3:1 and 4:3.
        exps = torch.tensor([[[[3.0, 4.0], [6.0, 8.0]], [[9.0, 4.0], [2.0, 6.0]]]])
        expected = torch.tensor([[[[1 / 4, 1 / 2], [3 / 4, 4 / 7]], [[3 / 4, 1 / 2], [1 / 4, 3 / 7]]]])
        torch.testing.assert_close(grouped_double_norm(exps.log(), groups=1, order=1), expected)

    @pytest.mark.parametrize("groups", [1, 2, 3, 6])
    def test_equals_the_reference(self, groups: int) -> None:
        x = 3 * image(6, 4, 5)
        assert_close(grouped_double_norm(x, groups, order=1), reference.double_norm(array(x[0]), groups, order=1))

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
    @pytest.mark.parametrize("value", [0.0, 6e4, -6e4])
    def test_extreme_logits_stay_finite_with_sum_one(self, dtype: torch.dtype, value: float) -> None:
        x = torch.full((2, 8, 64, 128), value, dtype=dtype)
        x[0, ::3, ::5, ::7] = -value  # the second image stays constant
        y = grouped_double_norm(x, groups=4, order=1)
        assert y.isfinite().all()
        sums = y.float().unflatten(1, (4, 2)).sum(2)
        torch.testing.assert_close(sums, torch.ones_like(sums), rtol=0, atol=5e-3)


class TestAttentions:
    @pytest.mark.parametrize("groups", [1, 2])
    def test_gfa_equals_the_reference(self, groups: int) -> None:
        attention = randomised(GFAttention(6, groups=groups))
        x = image(6, 4, 5)
        assert_close(attention(x), gf_attention(array(x[0]), attention))

    @pytest.mark.parametrize(("kernel_size", "size"), [(3, (5, 6)), (7, (2, 3))])
    def test_cf_equals_the_reference(self, kernel_size: int, size: tuple[int, int]) -> None:
        attention = randomised(ConvAttention(4, num_kernels=6, groups=2, kernel_size=kernel_size))
        x = image(4, *size)
        assert_close(attention(x), conv_attention(array(x[0]), attention))

    def test_msca_hand_computed(self) -> None:
        # x = (1, 2, 3). The 5x5 kernel adds the right neighbour: a = (3, 5, 3). The stripes of 7 and 21 are zero and
        # leave their biases 10 and 100; the one of 11 takes the left neighbour, times 2: (0, 6, 10). Their sum with a
        # is (113, 121, 123), the 1x1 halves it, and it multiplies x.
        attention = MultiScaleAttention(1).eval()
        for conv in attention.modules():
            if isinstance(conv, nn.Conv2d):
                set_kernel(conv, [0] * conv.weight.numel())
        with torch.no_grad():
            attention.local.weight[0, 0, 2, 2:4] = 1
            attention.stripes[0][1].bias.fill_(10)
            attention.stripes[1][0].weight[0, 0, 0, 4] = 1
            attention.stripes[1][1].weight[0, 0, 5, 0] = 2
            attention.stripes[2][1].bias.fill_(100)
            attention.mix.weight.fill_(0.5)
        expected = np.array([[[113 / 2, 121.0, 3 * 123 / 2]]])
        assert_close(attention(torch.tensor([[[[1.0, 2.0, 3.0]]]])), expected)

    def test_msca_equals_the_reference(self) -> None:
        attention = randomised(MultiScaleAttention(3))
        x = image(3, 12, 13)
        assert_close(attention(x), multi_scale_attention(array(x[0]), attention))


class TestBlocks:
    def test_segformer(self) -> None:
        block = randomised(SegFormerBlock(4, heads=2, reduction=2))
        x = image(4, 4, 6)
        expected = array(x[0])
        expected = expected + reduced_attention(layer_norm(expected, block.norm1), block.attention)
        expected = expected + mix_ffn(layer_norm(expected, block.norm2), block.ffn)
        assert_close(block(x), expected)

    def test_gfa(self) -> None:
        block = randomised(GFABlock(8))
        x = image(8, 3, 4)
        expected = array(x[0])
        expected = expected + gf_attention(reference.batch_norm(expected, norm_of(block.norm1)), block.attention)
        expected = expected + conv_ffn(reference.batch_norm(expected, norm_of(block.norm2)), block.ffn)
        assert block.attention.groups == 8
        assert_close(block(x), expected)

    def test_cf(self) -> None:
        block = randomised(CFBlock(3))
        x = image(3, 3, 4)
        expected = array(x[0])
        expected = expected + conv_attention(reference.batch_norm(expected, norm_of(block.norm1)), block.attention)
        expected = expected + conv_ffn(reference.batch_norm(expected, norm_of(block.norm2)), block.ffn)
        assert block.attention.groups == 8
        assert block.attention.kernels_h.shape == (64, 3, 1, 7)
        assert_close(block(x), expected)

    def test_mscan(self) -> None:
        block = randomised(MSCANBlock(3))
        x = image(3, 5, 6)
        expected = array(x[0])
        normed = reference.batch_norm(expected, norm_of(block.norm1))
        first, _, attention, last = block.attention.branch
        branch = biased_conv(multi_scale_attention(gelu(biased_conv(normed, first)), attention), last)
        expected = expected + array(block.scale1)[:, None, None] * (normed + branch)
        branch = mix_ffn(reference.batch_norm(expected, norm_of(block.norm2)), block.ffn)
        expected = expected + array(block.scale2)[:, None, None] * branch
        assert_close(block(x), expected)

    def test_a_fresh_mscan_block_is_nearly_the_identity(self) -> None:
        block, x = MSCANBlock(8).eval(), image(8, 9, 9)
        assert (block(x) - x).abs().mean() < 0.02


BLOCKS = {
    "segformer": lambda: SegFormerBlock(16, heads=4, reduction=2),
    "gfa": lambda: GFABlock(16),
    "mscan": lambda: MSCANBlock(16),
    "cf": lambda: CFBlock(16),
}


@pytest.mark.parametrize("name", BLOCKS)
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(("height", "width"), [(8, 12), (5, 9), (2, 3)])
def test_any_size_comes_out_as_it_went_in(name: str, training: bool, height: int, width: int) -> None:
    torch.manual_seed(0)
    block, x = BLOCKS[name]().train(training), image(16, height, width, batch=2)
    y = block(x)
    assert y.shape == x.shape
    assert y.isfinite().all()
    assert not torch.equal(y, x)


@pytest.mark.parametrize("name", BLOCKS)
def test_export_equals_eager(name: str) -> None:
    block, x = randomised(BLOCKS[name]()), image(16, 8, 12)
    with torch.no_grad():
        torch.testing.assert_close(torch.export.export(block, (x,)).module()(x), block(x))


@pytest.mark.parametrize("name", BLOCKS)
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("scale", [0.0, 1e6])
@pytest.mark.parametrize("offset", [0.0, 1e6])
def test_bf16_autocast_stays_finite(name: str, training: bool, scale: float, offset: float) -> None:
    torch.manual_seed(0)
    block = BLOCKS[name]().train(training)
    x = (offset + scale * image(16, 32, 32, batch=2)).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        y = block(x)
    assert y.isfinite().all()
    y.float().mean().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()
    for parameter_name, parameter in block.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert parameter.grad.isfinite().all(), parameter_name
