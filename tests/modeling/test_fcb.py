"""Equations 1 and 3, and the grouped double normalisation."""

from math import log, sqrt

import numpy as np
import pytest
import torch
from torch import nn

from bsdnet.modeling.fcb import FCB, FFN, DECAttention, grouped_double_norm

from . import reference
from .parameters import array, assert_close, conv_norm_of, norm_of, randomised, set_conv, set_kernel, set_norm


def attention_of(attention: DECAttention) -> reference.Attention:
    """Read DEC attention, its fused q, k and v as the three convolutions that the paper has."""
    width = attention.qkv[0].out_channels // 3
    q, k, v = (conv_norm_of(attention.qkv, slice(i * width, (i + 1) * width)) for i in range(3))
    return reference.Attention(
        horizontal=array(attention.kernels_h[:, :, 0, :]),
        vertical=array(attention.kernels_v[:, :, :, 0]),
        q=q,
        k=k,
        v=v,
        depthwise=conv_norm_of(attention.depthwise),
        project=conv_norm_of(attention.project),
    )


def ffn_of(ffn: FFN) -> reference.Ffn:
    return reference.Ffn(conv_norm_of(ffn.expand), conv_norm_of(ffn.depthwise), array(ffn.project.weight))


def image(channels: int, height: int, width: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(1, channels, height, width, generator=torch.Generator().manual_seed(seed))


def small_fcb(seed: int = 0) -> FCB:
    # Different numbers everywhere, so that no two axes can be taken for each other.
    return randomised(FCB(4, num_kernels=6, groups=2, kernel_size=3, detail_ratio=0.75, ffn_ratio=2), seed)


class TestGroupedDoubleNorm:
    def test_hand_computed(self) -> None:
        # Two groups of two channels. Softmax over space of the logarithms of
        #   (3, 4, 6, 8) is (3, 4, 6, 8) / 21       (8, 6, 16, 12) is (4, 3, 8, 6) / 21
        # and the first group's L2 over these two, 3-4-5 triangles at each pixel, leaves
        #   (0.6, 0.8, 0.6, 0.8)                    (0.8, 0.6, 0.8, 0.6).
        # Second group: (5, 12, 5, 12) / 34 and (12, 5, 12, 5) / 34, 5-12-13 triangles.
        exps = [[[3, 4], [6, 8]], [[8, 6], [16, 12]], [[5, 12], [5, 12]], [[12, 5], [12, 5]]]
        expected = [
            [[0.6, 0.8], [0.6, 0.8]],
            [[0.8, 0.6], [0.8, 0.6]],
            [[5 / 13, 12 / 13], [5 / 13, 12 / 13]],
            [[12 / 13, 5 / 13], [12 / 13, 5 / 13]],
        ]
        actual = grouped_double_norm(torch.tensor([exps], dtype=torch.float32).log(), groups=2)
        torch.testing.assert_close(actual, torch.tensor([expected]))

    @pytest.mark.parametrize("groups", [1, 2, 3, 6])
    def test_equals_the_reference(self, groups: int) -> None:
        x = 3 * image(6, 4, 5)
        assert_close(grouped_double_norm(x, groups), reference.double_norm(array(x[0]), groups))

    @pytest.mark.parametrize(("dtype", "rtol"), [(torch.float16, 1e-3), (torch.bfloat16, 8e-3), (torch.float32, 1e-5)])
    def test_half_precision_over_8192_positions(self, dtype: torch.dtype, rtol: float) -> None:
        # A plain fp16 softmax is about 1e-4 here and its squares underflow to zero. Given the rounded input, only the
        # rounding of the result may be left.
        x = (4 * image(8, 64, 128)).to(dtype)
        p = x.double().flatten(2).softmax(2).reshape(1, 2, 4, 64, 128)
        expected = (p / p.norm(dim=2, keepdim=True)).flatten(1, 2)
        actual = grouped_double_norm(x, groups=2)
        assert actual.dtype == dtype
        torch.testing.assert_close(actual.double(), expected, rtol=rtol, atol=1e-6)

    @pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
    @pytest.mark.parametrize("memory_format", [torch.channels_last, torch.contiguous_format])
    def test_the_result_lies_in_memory_as_the_input(
        self, dtype: torch.dtype, memory_format: torch.memory_format
    ) -> None:
        x = image(8, 4, 6).to(dtype).contiguous(memory_format=memory_format)
        y = grouped_double_norm(x, groups=2)
        assert y.stride() == x.stride()
        assert torch.equal(y, grouped_double_norm(x.contiguous(), groups=2))

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
    @pytest.mark.parametrize("value", [0.0, 6e4, -6e4])
    def test_extreme_logits_stay_finite_with_norm_one(self, dtype: torch.dtype, value: float) -> None:
        x = torch.full((2, 8, 64, 128), value, dtype=dtype)
        x[0, ::3, ::5, ::7] = -value  # the second image stays constant
        y = grouped_double_norm(x, groups=4)
        assert y.isfinite().all()
        norms = y.float().unflatten(1, (4, 2)).norm(dim=2)
        torch.testing.assert_close(norms, torch.ones_like(norms), rtol=0, atol=5e-3)

    def test_extreme_logits_give_finite_gradients(self) -> None:
        x = (1e4 * image(8, 16, 32)).requires_grad_()
        grouped_double_norm(x, groups=4).square().mul(image(8, 16, 32, seed=1)).sum().backward()
        assert x.grad is not None
        assert x.grad.isfinite().all()

    def test_memory_format_changes_nothing(self) -> None:
        x = image(8, 9, 7)
        channels_last = x.to(memory_format=torch.channels_last)
        assert torch.equal(grouped_double_norm(x, 4), grouped_double_norm(channels_last, 4))


class TestDECAttention:
    def test_hand_computed(self) -> None:
        # One channel, x = ln(3, 4; 6, 8), two kernels of three taps in one group: the first is its centre, the second
        # the next pixel along the stripe. exp(similarity), the next pixel beyond the border being 0:
        #   horizontal (3, 4; 6, 8) and (4, 1; 8, 1)        vertical (3, 4; 6, 8) and (6, 8; 1, 1)
        # The softmax divides by 21 and 14 (vertical 21 and 16), so at each pixel the two are in the ratio
        #   1:2  8:3                                        8:21   8:21
        #   1:2  16:3                                       32:7   128:21
        # and divided by their L2 norm; 1*1 + 2*2 = 5, 8*8 + 3*3 = 73, ... As values the kernels are not flipped: a
        # pixel gets the first map's value at itself and the second map's at the next pixel, where there is one.
        horizontal = [[1 / sqrt(5) + 3 / sqrt(73), 8 / sqrt(73)], [1 / sqrt(5) + 3 / sqrt(265), 16 / sqrt(265)]]
        vertical = [
            [8 / sqrt(505) + 7 / sqrt(1073), 8 / sqrt(505) + 21 / sqrt(16825)],
            [32 / sqrt(1073), 128 / sqrt(16825)],
        ]
        # The detail branch: q, k, v = x, 2x, 3x; depthwise centres 1, 1, -1, so ReLU drops the third; projection sums
        # to 3x, the batch norm makes it 3x + 1.
        x = np.log([[3.0, 4.0], [6.0, 8.0]])
        attention = DECAttention(1, num_kernels=2, groups=1, kernel_size=3, detail_ratio=1.0).eval()
        set_kernel(attention.kernels_h, [[0, 1, 0], [0, 0, 1]])
        set_kernel(attention.kernels_v, [[0, 1, 0], [0, 0, 1]])
        set_conv(attention.qkv, [1, 2, 3])
        set_conv(attention.depthwise, [[0, 0, 0, 0, centre, 0, 0, 0, 0] for centre in (1, 1, -1)])
        set_conv(attention.project, [1, 1, 1])
        set_norm(attention.project[1], shift=1)
        expected = (np.array(horizontal) + np.array(vertical)) * (3 * x + 1)
        assert_close(attention(torch.tensor(x[None, None]).float()), expected[None])

    @pytest.mark.parametrize("seed", range(3))
    def test_equals_the_reference(self, seed: int) -> None:
        attention = small_fcb(seed).attention
        x = image(4, 5, 6, seed)
        assert_close(attention(x), reference.dec_attention(array(x[0]), attention_of(attention), groups=2))

    def test_kernels_longer_than_the_map(self) -> None:
        attention = randomised(DECAttention(2, num_kernels=2, groups=1, kernel_size=7, detail_ratio=1.0))
        x = image(2, 2, 3)
        assert_close(attention(x), reference.dec_attention(array(x[0]), attention_of(attention), groups=1))


class TestFCB:
    def test_hand_computed(self) -> None:
        # One kernel alone in its group: its L2-normalised weight is 1 everywhere. Both kernels are a centre of 1, so
        # the two directions sum to 2, times F_d = 1/2: attention(x) = 1.
        #   x_m = BN(x + 1) with mean 1 and deviation 2 = x / 2
        #   FFN(x_m) = 1/2 * relu(4 * relu(x_m)) = 2 x_m, so x_m + FFN(x_m) = 3 x / 2
        #   x_o = BN of it with mean 3/2, scale 2 and shift 1 = 3 x - 3 + 1
        fcb = FCB(1, num_kernels=1, groups=1, kernel_size=3, detail_ratio=1.0, ffn_ratio=1).eval()
        centre = [0, 0, 0, 0, 1, 0, 0, 0, 0]
        set_kernel(fcb.attention.kernels_h, [0, 1, 0])
        set_kernel(fcb.attention.kernels_v, [0, 1, 0])
        set_conv(fcb.attention.qkv, [1, 1, 1])
        set_conv(fcb.attention.depthwise, [centre, centre, centre])
        set_conv(fcb.attention.project, [0, 0, 0])
        set_norm(fcb.attention.project[1], shift=0.5)
        set_norm(fcb.norm1, mean=1, var=4)
        set_conv(fcb.ffn.expand, [1])
        set_conv(fcb.ffn.depthwise, [4 * tap for tap in centre])
        set_kernel(fcb.ffn.project, [0.5])
        set_norm(fcb.norm2, mean=1.5, scale=2, shift=1)
        x = np.array([[[1.0, 2.0], [3.0, 4.0]]])
        expected = np.array([[[1.0, 4.0], [7.0, 10.0]]])
        assert_close(fcb(torch.tensor(x[None]).float()), expected)

    @pytest.mark.parametrize("seed", range(3))
    def test_equals_the_reference(self, seed: int) -> None:
        fcb = small_fcb(seed)
        x = image(4, 5, 6, seed)
        expected = reference.fcb(
            array(x[0]), attention_of(fcb.attention), 2, norm_of(fcb.norm1), ffn_of(fcb.ffn), norm_of(fcb.norm2)
        )
        assert_close(fcb(x), expected)

    def test_the_images_of_a_batch_do_not_see_each_other(self) -> None:
        fcb = small_fcb()
        x = torch.cat([image(4, 5, 6, seed) for seed in range(3)])
        torch.testing.assert_close(fcb(x), torch.cat([fcb(one[None]) for one in x]))

    def test_defaults_are_the_shape_that_is_trained(self) -> None:
        fcb = FCB(8)
        assert fcb.attention.kernels_h.shape == (32, 8, 1, 7)
        assert fcb.attention.kernels_v.shape == (32, 8, 7, 1)
        assert fcb.attention.groups == 4
        assert fcb.attention.qkv[0].out_channels == 3 * 4
        assert fcb.ffn.expand[0].out_channels == 32
        assert isinstance(fcb.norm1, nn.BatchNorm2d)


def test_reference_of_the_softmax_is_stable() -> None:
    # The reference itself: shifting a channel's logits changes nothing.
    x = array(image(4, 3, 3)[0])
    shift = np.array([0.0, 5.0, -700.0, log(2)])[:, None, None]
    np.testing.assert_allclose(reference.double_norm(x, 2), reference.double_norm(x + shift, 2), rtol=1e-9)
