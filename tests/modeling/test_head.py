"""The fusion with stage 2, and the segmentation head."""

import pytest
import torch

from bsdnet.modeling.head import Decoder, SegmentationHead

from . import reference
from .parameters import array, assert_close, conv_norm_of, randomised


def image(channels: int, height: int, width: int) -> torch.Tensor:
    return torch.randn(1, channels, height, width, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("detail_size", "context_size"), [((8, 12), (2, 3)), ((5, 7), (2, 2))])
def test_decoder_equals_the_reference(detail_size: tuple[int, int], context_size: tuple[int, int]) -> None:
    decoder = randomised(Decoder(3, 2, 4))
    detail, context = image(3, *detail_size), image(2, *context_size)
    height, width = 4 * context_size[0], 4 * context_size[1]
    enlarged = reference.bilinear(reference.conv_norm(array(context[0]), conv_norm_of(decoder.context)), height, width)
    enlarged = enlarged[:, : detail_size[0], : detail_size[1]]
    expected = reference.relu(reference.conv_norm(array(detail[0]), conv_norm_of(decoder.detail)) + enlarged)
    assert_close(decoder(detail, context), expected)


def test_context_lies_where_it_was_seen_whatever_the_size() -> None:
    decoder = randomised(Decoder(3, 2, 4))
    detail, context = image(3, 12, 16), image(2, 3, 4)
    whole = decoder(detail, context)
    # A picture that ends within the last cell of stride 32 sees the same as far as it goes.
    assert_close(decoder(detail[:, :, :9, :13], context), array(whole[0, :, :9, :13]))


def test_head_equals_the_reference() -> None:
    head = randomised(SegmentationHead(3, 4, 5))
    x = image(3, 5, 6)
    y = reference.relu(reference.conv_norm(array(x[0]), conv_norm_of(head.conv)))
    expected = reference.conv(y, array(head.classifier.weight)) + array(head.classifier.bias)[:, None, None]
    assert_close(head(x), expected)
