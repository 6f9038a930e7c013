import numpy as np
import pytest
import torch

from bsdnet.runtime.preprocess import Preprocessor

from .conftest import smooth_frame

CPU = torch.device("cpu")
MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)


def preprocessor(dtype=torch.float32):
    return Preprocessor(MEAN, STD, CPU, dtype)


def test_a_frame_of_the_right_size_is_normalised_and_nothing_else():
    rgb = smooth_frame((64, 96))
    expected = (rgb / 255 - np.array(MEAN)) / np.array(STD)
    x = preprocessor().from_array(rgb, (64, 96))
    assert x.shape == (1, 3, 64, 96)
    assert x.is_contiguous(memory_format=torch.channels_last)
    np.testing.assert_allclose(x[0].permute(1, 2, 0).numpy(), expected, atol=1e-6)


def test_half_precision_is_rounded_once_at_the_end():
    rgb = smooth_frame((64, 96))
    exact = preprocessor().from_array(rgb, (64, 96))
    assert torch.equal(preprocessor(torch.bfloat16).from_array(rgb, (64, 96)), exact.bfloat16())


def test_sizes_may_change_from_frame_to_frame():
    reused = preprocessor()
    for size in ((64, 96), (32, 64), (64, 96), (96, 64)):
        rgb = smooth_frame((100, 150))
        assert torch.equal(reused.from_array(rgb, size), preprocessor().from_array(rgb, size))


@pytest.mark.parametrize("way", ["from_array", "from_tensor"])
def test_shrinking_averages_fine_texture_instead_of_picking_pixels(way):
    checkers = (np.indices((256, 384)).sum(0) % 2 * 255).astype(np.uint8)
    rgb = np.repeat(checkers[..., None], 3, axis=2)
    source = rgb if way == "from_array" else torch.from_numpy(rgb)
    x = getattr(preprocessor(), way)(source, (64, 96))
    grey = (x * torch.tensor(STD)[:, None, None] + torch.tensor(MEAN)[:, None, None]) * 255
    assert (grey - 127.5).abs().max() < 1


@pytest.mark.parametrize("frame_size", [(48, 80), (64, 96), (100, 150), (130, 200), (270, 480)])
def test_both_ways_agree(frame_size):
    rgb = smooth_frame(frame_size)
    by_opencv = preprocessor().from_array(rgb, (64, 96))
    by_torch = preprocessor().from_tensor(torch.from_numpy(rgb), (64, 96))
    assert by_torch.is_contiguous(memory_format=torch.channels_last)
    levels = ((by_opencv - by_torch) * torch.tensor(STD)[:, None, None] * 255).abs()
    assert levels.max() < 6  # of 255: OpenCV rounds to whole levels after each step, and halves odd sizes otherwise
    assert levels.mean() < 1
