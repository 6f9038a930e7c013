import numpy as np
import pytest
import torch

from bsdnet.picture import Picture, YuvEncoding
from bsdnet.runtime.preprocess import Preprocessor

from .conftest import smooth_frame

CPU = torch.device("cpu")
MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)


def preprocessor(dtype=torch.float32):
    return Preprocessor(MEAN, STD, CPU, dtype)


def test_a_frame_of_the_right_size_is_normalised_and_nothing_else():
    rgb = smooth_frame((64, 96))
    expected = (rgb / 255 - np.array(MEAN)) / np.array(STD)
    x = preprocessor().from_picture(Picture(planes=(rgb,)), (64, 96))
    assert x.shape == (1, 3, 64, 96)
    assert x.is_contiguous(memory_format=torch.channels_last)
    np.testing.assert_allclose(x[0].permute(1, 2, 0).numpy(), expected, atol=1e-6)


def test_half_precision_is_rounded_once_at_the_end():
    rgb = smooth_frame((64, 96))
    exact = preprocessor().from_picture(Picture(planes=(rgb,)), (64, 96))
    assert torch.equal(preprocessor(torch.bfloat16).from_picture(Picture(planes=(rgb,)), (64, 96)), exact.bfloat16())


def test_sizes_may_change_from_frame_to_frame():
    reused = preprocessor()
    for size in ((64, 96), (32, 64), (64, 96), (96, 64)):
        rgb = smooth_frame((100, 150))
        picture = Picture(planes=(rgb,))
        assert torch.equal(reused.from_picture(picture, size), preprocessor().from_picture(picture, size))


@pytest.mark.parametrize("way", ["from_picture", "from_tensors"])
def test_shrinking_averages_fine_texture_instead_of_picking_pixels(way):
    checkers = (np.indices((256, 384)).sum(0) % 2 * 255).astype(np.uint8)
    rgb = np.repeat(checkers[..., None], 3, axis=2)
    if way == "from_picture":
        x = preprocessor().from_picture(Picture(planes=(rgb,)), (64, 96))
    else:
        x = preprocessor().from_tensors([torch.from_numpy(rgb)], None, (64, 96))
    grey = (x * torch.tensor(STD)[:, None, None] + torch.tensor(MEAN)[:, None, None]) * 255
    assert (grey - 127.5).abs().max() < 1


@pytest.mark.parametrize("frame_size", [(48, 80), (64, 96), (100, 150), (130, 200), (270, 480)])
def test_both_ways_agree(frame_size):
    rgb = smooth_frame(frame_size)
    by_opencv = preprocessor().from_picture(Picture(planes=(rgb,)), (64, 96))
    by_torch = preprocessor().from_tensors([torch.from_numpy(rgb)], None, (64, 96))
    assert by_torch.is_contiguous(memory_format=torch.channels_last)
    levels = ((by_opencv - by_torch) * torch.tensor(STD)[:, None, None] * 255).abs()
    assert levels.max() < 6  # of 255: OpenCV rounds to whole levels after each step, and halves odd sizes otherwise
    assert levels.mean() < 1


ENCODINGS = [YuvEncoding(matrix="bt601", full_range=False), YuvEncoding(matrix="bt709", full_range=True)]


def yuv_picture(size, encoding):
    yuv = np.rint(smooth_frame(size) @ encoding.from_rgb().T + encoding.black).astype(np.uint8)
    halved = yuv.reshape(size[0] // 2, 2, size[1] // 2, 2, 3).mean((1, 3)).round().astype(np.uint8)
    return Picture(planes=(yuv[..., 0], halved[..., 1], halved[..., 2]), encoding=encoding)


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("frame_size", [(48, 80), (64, 96), (100, 150), (130, 200), (270, 480)])
def test_yuv_frames_are_seen_as_the_rgb_ones_that_they_show(frame_size, encoding):
    picture = yuv_picture(frame_size, encoding)
    expected = preprocessor().from_picture(Picture(planes=(picture.rgb,)), (64, 96))
    by_opencv = preprocessor().from_picture(picture, (64, 96))
    by_torch = preprocessor().from_tensors([torch.from_numpy(plane) for plane in picture.planes], encoding, (64, 96))
    for x in (by_opencv, by_torch):
        assert x.is_contiguous(memory_format=torch.channels_last)
        levels = ((x - expected) * torch.tensor(STD)[:, None, None] * 255).abs()
        assert levels.mean() < 1.2
        assert levels.max() < 12


def test_encodings_may_change_from_frame_to_frame():
    reused = preprocessor()
    for encoding in (*ENCODINGS, None, ENCODINGS[0]):
        assert torch.equal(reused.affine(encoding), preprocessor().affine(encoding))


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_yuv_frame_of_the_right_size_is_converted_and_normalised(encoding):
    picture = Picture(
        planes=tuple(
            np.full((32 // step, 32 // step), value, np.uint8) for step, value in ((1, 180), (2, 90), (2, 150))
        ),
        encoding=encoding,
    )
    y, u, v = (
        (180, 90 - 128, 150 - 128) if encoding.full_range else ((180 - 16) * 255 / 219, -38 * 255 / 224, 22 * 255 / 224)
    )
    if encoding.matrix == "bt601":
        rgb = y + 1.402 * v, y - 0.344136 * u - 0.714136 * v, y + 1.772 * u
    else:
        rgb = y + 1.5748 * v, y - 0.187324 * u - 0.468124 * v, y + 1.8556 * u
    x = preprocessor().from_picture(picture, (32, 32))[0, :, 5, 7]
    np.testing.assert_allclose(x.numpy(), (np.array(rgb) / 255 - MEAN) / STD, atol=1e-4)
