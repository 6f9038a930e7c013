"""Convolution, batch norm and activation; the residual block."""

import numpy as np
import pytest
import torch

from bsdnet.modeling.layers import BasicBlock, ConvBNAct

from . import reference
from .parameters import array, assert_close, conv_norm_of, randomised, set_conv


def image(channels: int, height: int, width: int) -> torch.Tensor:
    return torch.randn(1, channels, height, width, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("kernel_size", [1, 3])
@pytest.mark.parametrize(("stride", "rate"), [(1, 1), (2, 1), (1, 2)])
@pytest.mark.parametrize("act", [True, False])
def test_conv_bn_act_equals_the_reference(kernel_size: int, stride: int, rate: int, act: bool) -> None:
    layer = randomised(ConvBNAct(3, 4, kernel_size, stride=stride, dilation=rate, act=act))
    x = image(3, 5, 6)
    expected = reference.conv_norm(array(x[0]), conv_norm_of(layer), stride=stride, rate=rate)
    assert expected.min() < 0  # so that the activation makes a difference
    assert_close(layer(x), reference.relu(expected) if act else expected)


def test_depthwise_equals_the_reference() -> None:
    layer = randomised(ConvBNAct(4, 4, 3, groups=4, act=False))
    x = image(4, 5, 6)
    assert_close(layer(x), reference.conv_norm(array(x[0]), conv_norm_of(layer), depthwise=True))


def test_basic_block_hand_computed() -> None:
    # x = (1, -2; 3, 4). The first convolution is 2x: (2, -4; 6, 8), after ReLU (2, 0; 6, 8). The second is the negated
    # left neighbour: (0, -2; 0, -6). Plus x: (1, -4; 3, -2), after ReLU (1, 0; 3, 0).
    block = BasicBlock(1, 1).eval()
    set_conv(block.conv1, [[0, 0, 0], [0, 2, 0], [0, 0, 0]])
    set_conv(block.conv2, [[0, 0, 0], [-1, 0, 0], [0, 0, 0]])
    x = torch.tensor([[[[1.0, -2.0], [3.0, 4.0]]]])
    assert_close(block(x), np.array([[[1.0, 0.0], [3.0, 0.0]]]))


@pytest.mark.parametrize(("channels", "stride"), [(5, 1), (3, 2), (5, 2)])
def test_basic_block_with_a_convolution_as_its_shortcut(channels: int, stride: int) -> None:
    block = randomised(BasicBlock(3, channels, stride=stride))
    x = image(3, 5, 7)
    inner = reference.relu(reference.conv_norm(array(x[0]), conv_norm_of(block.conv1), stride=stride))
    y = reference.conv_norm(inner, conv_norm_of(block.conv2))
    shortcut = reference.conv_norm(array(x[0]), conv_norm_of(block.shortcut), stride=stride)
    assert_close(block(x), reference.relu(y + shortcut))


def test_the_input_is_left_as_it_is() -> None:
    # The activations work in place: on their own maps, never on the caller's.
    block = randomised(BasicBlock(3, 3))
    x = image(3, 5, 7)
    before = x.clone()
    block(x)
    assert torch.equal(x, before)
