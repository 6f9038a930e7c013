"""The context modules that DASP is compared with, against plain loops over their papers' formulas."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from bsdnet.modeling.alternative_contexts import ASPP, DAPPM, NormActConv
from bsdnet.modeling.dasp import DASP

from . import reference
from .parameters import array, assert_close, conv_norm_of, norm_of, randomised, set_conv, set_kernel, set_norm
from .reference import Array


def image(channels: int, height: int, width: int, batch: int = 1) -> torch.Tensor:
    return torch.randn(batch, channels, height, width, generator=torch.Generator().manual_seed(0))


def aspp(x: Array, module: ASPP, rates: tuple[int, ...]) -> Array:
    branches = [reference.relu(reference.conv_norm(x, conv_norm_of(module.first)))]
    for rate, layer in zip(rates, module.atrous, strict=True):
        branches.append(reference.relu(reference.conv_norm(x, conv_norm_of(layer), rate=rate)))
    mean = np.array([[[channel.mean()]] for channel in x])
    pooled = reference.relu(reference.conv_norm(mean, conv_norm_of(module.pooled)))
    branches.append(np.broadcast_to(pooled, branches[0].shape))
    return reference.relu(reference.conv_norm(np.concatenate(branches), conv_norm_of(module.compress)))


def norm_act_conv(x: Array, layer: NormActConv) -> Array:
    norm, _, conv = layer
    return reference.conv(reference.relu(reference.batch_norm(x, norm_of(norm))), array(conv.weight))


def windowed_mean(x: Array, size: int, stride: int) -> Array:
    """Means of windows centred on every `stride`-th pixel; what lies outside the map counts as zero."""
    channels, height, width = x.shape
    y = np.zeros((channels, -(-height // stride), -(-width // stride)))
    for c, i, j in np.ndindex(y.shape):
        top, left = i * stride - size // 2, j * stride - size // 2
        window = x[c, max(top, 0) : top + size, max(left, 0) : left + size]
        y[c, i, j] = window.sum() / size**2
    return y


def dappm(x: Array, module: DAPPM) -> Array:
    """Each coarser mean is enlarged, added to the result before it, and convolved."""
    maps = [norm_act_conv(x, module.first)]
    means = [windowed_mean(x, 5, 2), windowed_mean(x, 9, 4), windowed_mean(x, 17, 8)]
    means.append(np.array([[[channel.mean()]] for channel in x]))
    for mean, scale, aggregate in zip(means, module.scales, module.aggregate, strict=True):
        enlarged = reference.bilinear(norm_act_conv(mean, scale), *x.shape[1:])
        maps.append(norm_act_conv(enlarged + maps[-1], aggregate))
    return norm_act_conv(np.concatenate(maps), module.compress) + norm_act_conv(x, module.shortcut)


class TestASPP:
    def test_hand_computed(self) -> None:
        # x = (1, 2; 3, 4). The atrous convolution of rate 1 adds the right neighbour: (3, 2; 7, 4). The mean is 2.5.
        # x + 10 (3, 2; 7, 4) + 100 * 2.5 - 280, and ReLU.
        module = ASPP(1, 1, 1, rates=(1,)).eval()
        set_conv(module.first, [1])
        set_conv(module.atrous[0], [[0, 0, 0], [0, 1, 1], [0, 0, 0]])
        set_conv(module.pooled, [1])
        set_conv(module.compress, [1, 10, 100])
        set_norm(module.compress[1], mean=280)
        expected = np.array([[[1.0, 0.0], [43.0, 14.0]]])
        assert_close(module(torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])), expected)

    @pytest.mark.parametrize("rates", [(1, 2, 3), (3, 1), (6,)])
    def test_equals_the_reference(self, rates: tuple[int, ...]) -> None:
        module = randomised(ASPP(3, 2, 4, rates))
        x = image(3, 5, 8)
        assert_close(module(x), aspp(array(x[0]), module, rates))


class TestDAPPM:
    def test_hand_computed(self) -> None:
        # A 1x2 map x = (25, 50), one channel, every batch norm the identity, nothing negative; a 3x3 kernel that is
        # its centre alone. Windows of 5, 9 and 17 pixels see the whole map from its first pixel, the only one at
        # strides of 2, 4 and 8: 75/25 = 3, 75/81, 75/289; the global mean is 37.5. Sums from fine to coarse:
        #   y1 = x, y2 = x + 3, y3 = y2 + 75/81, y4 = y3 + 75/289, y5 = y4 + 37.5.
        module = DAPPM(1, 1, 1).eval()
        for layer in module.modules():
            if isinstance(layer, NormActConv):
                set_norm(layer[0])
                kernel = layer[2]
                centre = [0, 0, 0, 0, 1, 0, 0, 0, 0] if kernel.kernel_size == (3, 3) else [1] * kernel.weight.numel()
                set_kernel(kernel, centre)
        set_kernel(module.compress[2], [1, 10, 100, 1000, 10000])
        x = np.array([25.0, 50.0])
        y2 = x + 3
        y3 = y2 + 75 / 81
        y4 = y3 + 75 / 289
        y5 = y4 + 37.5
        expected = x + 10 * y2 + 100 * y3 + 1000 * y4 + 10000 * y5 + x  # and the shortcut
        assert_close(module(torch.tensor(x[None, None, None]).float()), expected[None, None])

    @pytest.mark.parametrize(("height", "width"), [(12, 15), (16, 8), (3, 2)])
    def test_equals_the_reference(self, height: int, width: int) -> None:
        module = randomised(DAPPM(3, 2, 4))
        x = image(3, height, width)
        assert_close(module(x), dappm(array(x[0]), module))


def test_dasp_with_max_pooling_equals_the_reference() -> None:
    module = randomised(DASP(3, 2, 4, (1, 2), max_pooling=True))
    x = image(3, 5, 7)
    expected = reference.dasp(
        array(x[0]),
        first=conv_norm_of(module.first),
        atrous=[(rate, conv_norm_of(layer)) for rate, layer in zip((1, 2), module.atrous, strict=True)],
        pooled=conv_norm_of(module.pooled),
        aggregate=[conv_norm_of(layer) for layer in module.aggregate],
        compress=conv_norm_of(module.compress),
        shortcut=conv_norm_of(module.shortcut),
        pool=np.max,
    )
    assert_close(module(x), expected)


CONTEXTS: dict[str, Callable[[], nn.Module]] = {
    "dasp-max": lambda: DASP(16, 8, 12, (1, 2), max_pooling=True),
    "aspp": lambda: ASPP(16, 8, 12, (1, 2)),
    "dappm": lambda: DAPPM(16, 8, 12),
}


@pytest.mark.parametrize("name", CONTEXTS)
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(("height", "width"), [(16, 32), (5, 9), (1, 1)])
def test_any_size_keeps_its_size(name: str, training: bool, height: int, width: int) -> None:
    torch.manual_seed(0)
    y = CONTEXTS[name]().train(training)(image(16, height, width, batch=2))
    assert y.shape == (2, 12, height, width)
    assert y.isfinite().all()


@pytest.mark.parametrize("name", CONTEXTS)
def test_export_equals_eager(name: str) -> None:
    module, x = randomised(CONTEXTS[name]()), image(16, 8, 12)
    with torch.no_grad():
        torch.testing.assert_close(torch.export.export(module, (x,)).module()(x), module(x))


@pytest.mark.parametrize("name", CONTEXTS)
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("scale", [0.0, 1e6])
@pytest.mark.parametrize("offset", [0.0, 1e6])
def test_bf16_autocast_stays_finite(name: str, training: bool, scale: float, offset: float) -> None:
    torch.manual_seed(0)
    module = CONTEXTS[name]().train(training)
    with torch.autocast("cpu", torch.bfloat16):
        y = module(offset + scale * image(16, 16, 32, batch=2))
    assert y.isfinite().all()
    y.float().mean().backward()
    for parameter_name, parameter in module.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert parameter.grad.isfinite().all(), parameter_name
