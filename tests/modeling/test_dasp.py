"""Equation 8."""

import numpy as np
import pytest
import torch

from bsdnet.modeling.dasp import DASP

from . import reference
from .parameters import array, assert_close, conv_norm_of, randomised, set_conv


def expected_of(dasp: DASP, x: torch.Tensor, rates: tuple[int, ...]) -> reference.Array:
    return reference.dasp(
        array(x[0]),
        first=conv_norm_of(dasp.first),
        atrous=[(rate, conv_norm_of(layer)) for rate, layer in zip(rates, dasp.atrous, strict=True)],
        pooled=conv_norm_of(dasp.pooled),
        aggregate=[conv_norm_of(layer) for layer in dasp.aggregate],
        compress=conv_norm_of(dasp.compress),
        shortcut=conv_norm_of(dasp.shortcut),
    )


def image(channels: int, height: int, width: int) -> torch.Tensor:
    return torch.randn(1, channels, height, width, generator=torch.Generator().manual_seed(0))


def test_hand_computed() -> None:
    # x = (1, 2; 3, 4), one atrous convolution of rate 1, every batch norm the identity, nothing negative.
    #   f1 = x
    #   D(x), centre + right neighbour          = (1+2, 2; 3+4, 4)  = (3, 2; 7, 4)
    #   D(x) + f1                               = (4, 4; 10, 8)
    #   f2, centre + lower neighbour            = (14, 12; 10, 8)
    #   the global mean 2.5, times 2, + f2      = (19, 17; 15, 13)
    #   f3, centre + left neighbour             = (19, 36; 15, 28)
    #   compressed: f1 + 10 f2 + 100 f3         = (2041, 3722; 1603, 2884)
    #   and the shortcut 1000 x                 = (3041, 5722; 4603, 6884)
    dasp = DASP(1, 1, 1, rates=(1,)).eval()
    set_conv(dasp.first, [1])
    set_conv(dasp.atrous[0], [[0, 0, 0], [0, 1, 1], [0, 0, 0]])
    set_conv(dasp.pooled, [2])
    set_conv(dasp.aggregate[0], [[0, 0, 0], [0, 1, 0], [0, 1, 0]])
    set_conv(dasp.aggregate[1], [[0, 0, 0], [1, 1, 0], [0, 0, 0]])
    set_conv(dasp.compress, [1, 10, 100])
    set_conv(dasp.shortcut, [1000])
    expected = np.array([[[3041.0, 5722.0], [4603.0, 6884.0]]])
    assert_close(dasp(torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])), expected)


@pytest.mark.parametrize("rates", [(1, 2, 3), (3, 1), (2,)])
def test_equals_the_reference(rates: tuple[int, ...]) -> None:
    dasp = randomised(DASP(3, 2, 4, rates))
    x = image(3, 7, 9)
    assert_close(dasp(x), expected_of(dasp, x, rates))


def test_the_default_rates_are_the_papers() -> None:
    dasp = randomised(DASP(1, 1, 1))
    x = image(1, 22, 20)  # larger than the largest rate, so that each one sees the map
    assert_close(dasp(x), expected_of(dasp, x, (6, 12, 18)))


def test_a_map_smaller_than_the_rates() -> None:
    dasp = randomised(DASP(2, 2, 2))
    x = image(2, 3, 4)
    assert_close(dasp(x), expected_of(dasp, x, (6, 12, 18)))
